"""Evaluate: the model that was chosen, on rows that nothing has seen, against the gates and the live version."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.service import INPUT
from training import behaviour, registry
from training.data import Rows, load
from training.metrics import Answers, by_slice, measure, quality
from training.onnxfile import answer, open_model, speed
from training.steps import Context, Report

METRICS_FILE, EVALUATION_FILE, REPORT_FILE = "metrics.json", "evaluation.json", "report.html"
RESAMPLES, CONFIDENCE = 1000, 0.95


@dataclass(frozen=True)
class Comparison:
    """A model's quality minus that of the live version, on the same rows.

    Attributes:
        version: the live one that takes the most traffic.
        gain: the difference.
        lower, upper: ends of its 95% confidence interval, by the percentile bootstrap over rows.
    """

    version: int
    gain: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Check:
    """A gate and what came of it."""

    name: str
    value: float | None
    bound: str
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """All that was found out about a model.

    Attributes:
        metrics: by name, as `Manifest.metrics` explains them.
        slices: rows and quality, by part.
        behaviour: share of the rows at which a test holds, by test.
        comparison: with the live version, if there is one that takes the same columns.
    """

    metrics: Mapping[str, float]
    slices: Mapping[str, tuple[int, float]]
    behaviour: Mapping[str, float]
    comparison: Comparison | None = None


def step(context: Context) -> str:
    """Measure the chosen variant, write the report, and refuse the model if a gate fails."""
    from training import evaluation_report  # matplotlib takes a second

    manifest, folder, model = context.manifest, context.folder("evaluate"), context.folder("optimise") / "model"
    train, test = (load(context.folder("split") / part, manifest) for part in ("train", "test"))
    live = live_model(context, folder / "live")
    found = evaluate(model, train, test, manifest, live)
    checks = check(found, manifest, context.report)
    (folder / METRICS_FILE).write_text(json.dumps(dict(found.metrics), indent=1))
    record = asdict(found) | {"checks": [asdict(each) for each in checks]}
    (folder / EVALUATION_FILE).write_text(json.dumps(record, indent=1))
    evaluation_report.write(folder / REPORT_FILE, context, found, checks, test)
    require(checks, manifest.name, folder / REPORT_FILE)
    return f"{len(checks)} gates passed, {manifest.quality} {found.metrics[manifest.quality]:.4f}"


def evaluate(
    folder: Path, train: Rows, test: Rows, manifest: Manifest, live: tuple[int, Path] | None = None
) -> Evaluation:
    """Measure a model directory.

    Args:
        folder: holds `model.onnx`.
        train: the rows it was trained on, for the generalisation gap.
        test: rows that nothing has seen.
        manifest: the model's.
        live: number and directory of the live version.
    """
    session = open_model(folder)
    answers = answer(session, test.features)
    metrics = measure(answers, test, manifest)
    on_train = quality(answer(session, train.features), train, manifest)
    slices = by_slice(answers, test, manifest)
    comparison = compare(answers, live, test, manifest) if live else None
    metrics["generalisation_gap"] = on_train - metrics[manifest.quality]
    if slices:
        metrics["worst_slice"] = min((good for _, good in slices.values()), key=lambda good: (good == good, good))
    if comparison:
        metrics |= {"gain_over_live": comparison.gain, "gain_over_live_upper": comparison.upper}
    held = behaviour.shares(lambda features: answer(session, features), test.features, manifest)
    return Evaluation(metrics | asdict(speed(folder, test.features)), slices, held, comparison)


def compare(answers: Answers, live: tuple[int, Path], rows: Rows, manifest: Manifest) -> Comparison | None:
    """Compare answers with those of the live version; None if that one takes other columns or knows other answers."""
    version, folder = live
    session = open_model(folder)
    (columns,) = (tensor.shape[1] for tensor in session.get_inputs() if tensor.name == INPUT)
    if columns != rows.features.shape[1] or {each.name for each in session.get_outputs()} != answers.keys():
        return None
    theirs, targets = answer(session, rows.features), Rows(rows.features[:, :0], rows.targets)

    def gain(chosen: NDArray[np.int64]) -> float:
        some = targets.take(chosen)
        ours_then = {name: values[chosen] for name, values in answers.items()}
        theirs_then = {name: values[chosen] for name, values in theirs.items()}
        return quality(ours_then, some, manifest) - quality(theirs_then, some, manifest)

    every = np.arange(len(rows))
    interval = stats.bootstrap(
        (every,), gain, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=0, vectorized=False
    ).confidence_interval
    return Comparison(version, gain(every), float(interval.low), float(interval.high))


def live_model(context: Context, folder: Path) -> tuple[int, Path] | None:
    """Number and directory of the version that takes the most traffic, if there is one."""
    live = registry.live(context.outputs.of_model(context.manifest.name).live_parameter).versions
    if not live:
        return None
    most = max(live, key=lambda version: version.weight)
    try:
        registry.unpack(registry.fetch(most.artifact), folder)
    except PlatformError as error:
        context.report(f"no comparison with the live version {most.version}: {error}")
        return None
    return most.version, folder


def check(found: Evaluation, manifest: Manifest, report: Report = lambda _: None) -> list[Check]:
    """Hold what was found against the manifest's gates and tests of behaviour."""
    checks = []
    for name, gate in manifest.gates.items():
        value = found.metrics.get(name)
        if value is None:  # of all metrics, only those of the comparison can be missing
            checks.append(Check(name, None, str(gate), True, "there is no live version to compare with"))
            report(f"gate {name}: there is no live version to compare with")
        else:
            checks.append(Check(name, value, str(gate), gate.admits(value)))
    for name, test in manifest.behaviour.items():
        share = found.behaviour[name]
        checks.append(Check(f"behaviour.{name}", share, f"at least {test.share:g}", share >= test.share, test.kind))
    return checks


def require(checks: list[Check], model: str, report: Path) -> None:
    """Refuse a model that fails a gate.

    Raises:
        PlatformError: with each gate that fails, its bound and the value.
    """
    failed = [
        f"  {each.name} is {each.value:.4g}, allowed is {each.bound}"
        for each in checks
        if not each.passed and each.value is not None
    ]
    if failed:
        raise PlatformError(
            f"{model} is not registered, {len(failed)} of {len(checks)} gates fail:\n" + "\n".join(failed) + "\n"
            f"the report {report} shows more"
        )
