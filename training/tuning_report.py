"""The report of a tuning: the trials, what each setting does to the loss, and what to put into the manifest."""

import math
from pathlib import Path

from contract.manifest import Manifest
from training.report import Plot, Section, Table, figure, plot
from training.report import write as write_page
from training.tune import Trial

SHOWN = 100


def write(path: Path, manifest: Manifest, trials: list[Trial], best: Trial, section: str) -> None:
    """Write the page.

    Args:
        path: of the page.
        manifest: the model's.
        trials: of all segments; the first has the manifest's own settings.
        best: the one with the least loss.
        section: what to put into the manifest.
    """
    failed = [trial for trial in trials if trial.failed]
    ranked = sorted((trial for trial in trials if trial.loss is not None), key=_loss)
    names = list(manifest.tune.space) if manifest.tune else []
    columns = ["trial", "loss", manifest.quality, *names, "epochs", "seconds"]
    lead = f"{len(trials)} trials, {len(failed)} of them failed; the loss is that on the validation part."
    now = "as it is" if best is trials[0] else f"best: trial {_name(best)}"
    lines = section.splitlines()
    sections = [
        Section(
            "Settings to use",
            f"Put this in place of the section training in {manifest.name}/model.yaml, and run "
            f"`mlp train {manifest.name}` ({now}).",
            tables=[Table(["model.yaml"], [[line.replace("  ", "\u00a0\u00a0")] for line in lines])],
        ),
        Section(
            "Search",
            "Each line is a segment, a search of its own; the dashed line is the loss of the manifest's own settings.",
            plots=[_progress(trials), *(_of_setting(trials, name, manifest) for name in names)],
        ),
        Section(
            "Trials",
            f"The best first{f'; the first {SHOWN} of {len(ranked)}' if len(ranked) > SHOWN else ''}.",
            tables=[Table(columns, [_row(trial, names) for trial in ranked[:SHOWN]])],
        ),
    ]
    if failed:
        rows = [[_name(trial), *(trial.settings.get(name) for name in names), trial.failed] for trial in failed]
        sections.append(
            Section("Failed trials", "They take no part in the choice.", [Table(["trial", *names, "why"], rows)])
        )
    write_page(path, f"{manifest.name}: tuning", lead, sections)


def _row(trial: Trial, names: list[str]) -> list[object]:
    # As text, because a table would round them.
    settings = [str(trial.settings.get(name, "")) for name in names]
    return [_name(trial), trial.loss, trial.quality, *settings, trial.epochs, trial.seconds]


def _loss(trial: Trial) -> float:
    return math.nan if trial.loss is None else trial.loss


def _name(trial: Trial) -> str:
    return f"{trial.segment}-{trial.number}" if trial.number else "as it is"


def _progress(trials: list[Trial]) -> Plot:
    drawn = figure()
    axes = drawn.subplots()
    for index in sorted({trial.segment for trial in trials}):
        mine = [trial for trial in trials if trial.segment == index and trial.number and trial.loss is not None]
        axes.plot([trial.number for trial in mine], [_loss(trial) for trial in mine], "o-", label=f"segment {index}")
    if trials[0].loss is not None:
        axes.axhline(trials[0].loss, linestyle="--", color="grey")
    axes.set(xlabel="trial", ylabel="validation loss")
    if len({trial.segment for trial in trials}) <= 10:
        axes.legend(frameon=False)
    return plot(drawn, "Validation loss of each trial")


def _of_setting(trials: list[Trial], name: str, manifest: Manifest) -> Plot:
    drawn = figure(height=3)
    axes = drawn.subplots()
    done = [trial for trial in trials if trial.loss is not None and name in trial.settings]
    assert manifest.tune
    among = manifest.tune.space[name]
    values = [trial.settings[name] for trial in done]
    axes.plot([str(value) for value in values] if among.choices else values, [_loss(trial) for trial in done], "o")
    if among.log:
        axes.set_xscale("log")
    axes.set(xlabel=name, ylabel="validation loss")
    return plot(drawn, f"Validation loss by {name}")
