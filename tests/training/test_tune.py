"""Tuning: the same trials by the same seed, wherever its segments run and however often they are cut off."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import yaml

from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.training import Training, Tune
from tests.browser import needs_browser, open_page
from tests.waiting import PATIENCE_S, wait_until
from training import tune
from training.models.digits import model as digits
from training.split import divide
from training.steps import Context

SPACE = {
    "learning_rate": {"min": 0.001, "max": 0.02, "log": True},
    "batch_size": {"min": 32, "max": 128, "integer": True},
    "network.width": {"choices": [8, 16]},
}


def with_tune(manifest: Manifest, **changes) -> Manifest:
    training = manifest.training.model_copy(update={"epochs": 1, "network": {"channels": 4}})
    section = {"segments": 2, "trials": 3, "seed": 1, "space": SPACE} | changes
    return manifest.model_copy(update={"training": training, "tune": Tune.model_validate(section)})


@pytest.fixture
def tuning(outputs_document, manifest, tmp_path):
    """Makes the context of a tuning whose split is done."""

    def make(name="work", **changes) -> Context:
        work = tmp_path / name / "digits"
        for part, table in divide(digits.raw_data().head(400), manifest.split).items():
            folder = work / "split" / part
            folder.mkdir(parents=True, exist_ok=True)
            table.write_parquet(folder / "part-0.parquet")
        (work / "tune").mkdir(exist_ok=True)
        return Context(with_tune(manifest, **changes), outputs_document, work, make.said.append)

    make.said = []
    return make


def told(trials) -> list[tuple]:
    """What of trials does not depend on the clock."""
    return [(each.segment, each.number, each.settings, each.loss, each.quality, each.failed) for each in trials]


def gathered(context):
    return told(tune.Trial(**each) for each in json.loads((context.folder("tune") / tune.TRIALS_FILE).read_text()))


def test_a_segment_tries_settings_of_the_space_and_first_of_all_those_that_there_are(tuning):
    trials = tune.segment(tuning(), 0)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials[0].settings == {}
    for trial in trials[1:]:
        assert 0.001 <= trial.settings["learning_rate"] <= 0.02
        assert isinstance(trial.settings["batch_size"], int)
        assert trial.settings["network.width"] in (8, 16)
    assert len({trial.loss for trial in trials}) == 4
    assert [trial.number for trial in tune.segment(tuning(), 1)] == [1, 2, 3]


def test_the_same_seed_gives_the_same_trials_and_another_one_others(tuning):
    first, again = tune.segment(tuning("a"), 1), tune.segment(tuning("b"), 1)
    assert told(first) == told(again)
    other = tune.segment(tuning("c", seed=2), 1)
    assert [trial.settings for trial in other] != [trial.settings for trial in first]


def test_a_segment_that_was_cut_off_goes_on_and_ends_the_same(tuning):
    whole = tune.segment(tuning("whole", segments=1, trials=5), 0)
    context = tuning("cut", segments=1, trials=5)
    asked = iter([False] * 12 + [True] * 1000)
    with pytest.raises(KeyboardInterrupt):
        tune.segment(context, 0, lambda: next(asked))
    (file,) = (context.work / "segments").rglob("*.jsonl")
    done = len(file.read_text().splitlines())
    assert 1 <= done < 6
    with file.open("a") as lines:
        lines.write('{"segment": 0, "num')  # as a crash leaves it
    again = tune.segment(context, 0)
    assert told(again) == told(whole)
    assert again[0].seconds == json.loads(file.read_text().splitlines()[0])["seconds"]  # it was not run twice


def test_a_loss_that_is_no_number_is_a_trial_that_failed(tuning, monkeypatch):
    context = tuning(segments=1, trials=8, space={"learning_rate": {"choices": [0.005, 10.0]}})
    monkeypatch.setattr(tune.job, "train", _diverging(tune.job.train))
    tune.segment(context, 0)
    tune.step(context)  # gathers
    failed = [trial for trial in gathered(context) if trial[5]]
    assert failed
    assert all(trial[2] == {"learning_rate": 10.0} and trial[3] is None for trial in failed)
    assert "the loss is nan at epoch 1, step" in failed[0][5]
    assert "with a learning rate of" in failed[0][5]
    best = yaml.safe_load((context.folder("tune") / tune.BEST_FILE).read_text())
    assert best["training"]["learning_rate"] == 0.005


def _diverging(train):
    """A training whose rows make no number at a learning rate of 10, by way of the real loop."""

    def broken(manifest, network, rows, *arguments):
        if manifest.training.learning_rate == 10:
            rows = type(rows)(rows.features * float("nan"), rows.targets)
        return train(manifest, network, rows, *arguments)

    return broken


def test_when_all_trials_fail_it_says_why(tuning, monkeypatch):
    monkeypatch.setattr(tune.job, "train", _diverging(tune.job.train))
    context = tuning(segments=1, trials=1, space={"learning_rate": {"choices": [10.0]}})
    training = context.manifest.training.model_copy(update={"learning_rate": 10.0})
    manifest = context.manifest.model_copy(update={"training": training})
    context = Context(manifest, context.outputs, context.work, context.report)
    tune.segment(context, 0)
    with pytest.raises(PlatformError, match="all 2 trials of digits failed, the first because the loss is nan"):
        tune.step(context)


def test_segments_in_processes_of_their_own_find_what_they_find_alone(tuning):
    context, alone = tuning("pool"), tuning("alone")
    said = tune.step(context)
    assert gathered(context) == told([*tune.segment(alone, 0), *tune.segment(alone, 1)])
    assert any(re.match(r"trial \d+ of 7", line) for line in tuning.said)
    best = tune.best_of(
        [tune.Trial(**each) for each in json.loads((context.folder("tune") / tune.TRIALS_FILE).read_text())],
        context.manifest,
    )
    assert f"{best.loss:.4g}" in said
    section = yaml.safe_load((context.folder("tune") / tune.BEST_FILE).read_text())["training"]
    chosen = Training.model_validate(section)
    assert chosen.network == {"channels": 4} | ({"width": best.settings["network.width"]} if best.settings else {})
    assert chosen.learning_rate == best.settings.get("learning_rate", context.manifest.training.learning_rate)


def test_trials_of_other_settings_are_none(manifest):
    with pytest.raises(PlatformError, match="no trial of digits is of the settings and code that there are now"):
        tune.best_of([], manifest)


@needs_browser
def test_the_report_shows_trials_plots_and_settings(tuning, tmp_path):
    context = tuning(segments=1, trials=2)
    tune.segment(context, 0)
    tune.step(context)
    page = open_page(context.folder("tune") / tune.REPORT_FILE, tmp_path)
    assert page.console == []
    assert page.document.count("<svg") == 1 + len(SPACE)
    for text in ("validation loss", "learning_rate", "network.width", "as it is", "training:"):
        assert text in page.document


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"learning_rate": {"min": 0.1, "max": 100}}, "learning_rate: input should be less than or equal to 10"),
        ({"batch_size": {"min": 1.5, "max": 4}}, "batch_size: input should be a valid integer"),
        ({"network.depth": {"choices": [1]}}, "unexpected keyword argument 'depth'"),
        ({"precision": {"choices": ["int3"]}}, "precision: input should be 'auto', 'float32'"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_at_once(tuning, space, said):
    with pytest.raises(PlatformError, match=re.escape(said)):
        tune.segment(tuning(space=space), 1)


def test_what_is_not_there_is_refused(tuning, manifest):
    context = tuning()
    with pytest.raises(PlatformError, match=r"there is no segment 2 of the tuning of digits; .* allows 0 to 1"):
        tune.segment(context, 2)
    without = Context(manifest.model_copy(update={"tune": None}), context.outputs, context.work, context.report)
    with pytest.raises(PlatformError, match="the manifest of digits has no section `tune`; give it one"):
        tune.step(without)


SCRIPT = """
import signal, sys
from pathlib import Path
from contract.outputs import Outputs
from tests.training.test_tune import with_tune
from contract.manifest import load_manifest
from training import tune
from training.steps import Context

def interrupt(*_):
    raise KeyboardInterrupt

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    outputs = Outputs.model_validate_json(Path(sys.argv[1]).read_text())
    manifest = with_tune(load_manifest("digits"), trials=1000)
    tune.step(Context(manifest, outputs, Path(sys.argv[2]), lambda line: print(line, flush=True)))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_tuning_that_is_stopped(tuning, outputs_document, tmp_path, how):
    import psutil

    context = tuning()
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "outputs.json").write_text(outputs_document.model_dump_json())
    command = [sys.executable, tmp_path / "script.py", tmp_path / "outputs.json", context.work]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        for line in run.stdout:
            if re.match(r"trial [1-9]", line):
                break
        workers = psutil.Process(run.pid).children(recursive=True)
        assert len(workers) >= 2
        run.send_signal(how)
        run.wait(PATIENCE_S)
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in workers))
    assert list((context.work / "segments").rglob("*.jsonl"))
