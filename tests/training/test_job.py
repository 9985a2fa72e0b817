"""Trainings as real processes: a SageMaker container, torchrun, signals and a worker that is killed."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import onnxruntime
import psutil
import pytest
import torch

from contract.paths import ROOT
from contract.service import MODEL_FILE
from training import job
from training.job import WEIGHTS_FILE, Job

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory):
    """One database for all: to make one takes as long as a training."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        yield


@pytest.fixture(scope="module")
def opt_ml(tmp_path_factory, table):
    """Makes the folders of a SageMaker container, with rows in its channels."""

    def make(name="ml", text=None, **hyperparameters):
        root = tmp_path_factory.mktemp(name)
        for part, rows in {"train": table.head(384), "validation": table.tail(100)}.items():
            folder = root / "input" / "data" / part
            folder.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(folder / "part-0.parquet")
        (root / "input" / "config").mkdir(parents=True, exist_ok=True)
        (root / "input" / "config" / "hyperparameters.json").write_text(text or json.dumps(hyperparameters))
        return root

    return make


def start(root, launcher=(sys.executable,)):
    """Start a training as the container would, with SageMaker's variables in place of its fixed paths."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "AWS_"))}
    environment |= of_container(root) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [*launcher, "-m", "training", "train"]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def of_container(root):
    """The variables of SageMaker for a container."""
    return {
        "SM_HPS": (root / "input" / "config" / "hyperparameters.json").read_text(),
        "SM_CHANNEL_TRAIN": str(root / "input" / "data" / "train"),
        "SM_CHANNEL_VALIDATION": str(root / "input" / "data" / "validation"),
        "SM_MODEL_DIR": str(root / "model"),
        "SM_OUTPUT_DATA_DIR": str(root / "output" / "data"),
        "MLP_CHECKPOINTS": str(root / "checkpoints"),
    }


def finish(process):
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(root, launcher=(sys.executable,)):
    return finish(start(root, launcher))


def weights(root):
    return torch.load(root / "model" / WEIGHTS_FILE, weights_only=True)


def history(root):
    return json.loads((root / "output" / "data" / "training.json").read_text())


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_files_below_opt_ml_are_read_where_no_variable_is_set(opt_ml):
    root = opt_ml(model='"digits"', epochs='"2"', learning_rate="0.01")  # quoted as SageMaker's SDK does
    job = Job.of_sagemaker({}, root=root)
    assert job.train == root / "input" / "data" / "train"
    assert (job.model_dir, job.checkpoints) == (root / "model", root / "checkpoints")
    assert (job.manifest.training.epochs, job.manifest.training.learning_rate) == (2, 0.01)


def test_a_container_tells_its_progress_and_writes_a_model_that_answers_as_its_network(opt_ml, table):
    root = opt_ml(model="digits", epochs="2")
    done = run(root)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch=")]
    assert [line.split()[:2] for line in lines] == [["epoch=1", "of=2"], ["epoch=2", "of=2"]]
    assert re.search(r"loss=\d.* validation_loss=\d.* learning_rate=\S+ rows_per_s=\d+", lines[-1])
    assert sorted(path.name for path in (root / "model").iterdir()) == [MODEL_FILE, WEIGHTS_FILE]
    assert str(ROOT).encode() not in (root / "model" / MODEL_FILE).read_bytes()
    session = onnxruntime.InferenceSession(root / "model" / MODEL_FILE)
    from contract.manifest import load_manifest
    from training.data import model_module

    network = model_module("digits").network(load_manifest("digits").data)
    network.load_state_dict(weights(root))
    rows = table.drop("digit").to_numpy().astype(np.float32)
    for count in (1, 7):
        label, probabilities = session.run(["label", "probabilities"], {"features": rows[:count]})
        scores = network.eval()(torch.from_numpy(rows[:count]))
        assert label.tolist() == scores.argmax(1).tolist()
        assert np.allclose(probabilities, scores.softmax(1).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({}, "must name the model"),
        ({"text": "epochs: 3"}, "must name the model"),
        ({"model": "nothing"}, "unknown model 'nothing'"),
        ({"model": "digits", "epoch": "2"}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"model": "digits", "epochs": "none"}, "epochs: input should be a valid integer"),
        ({"model": "digits", "patience": "3", "network": '{"depth": 9}'}, "unexpected keyword argument 'depth'"),
    ],
)
def test_a_failure_is_one_message_and_a_file(opt_ml, monkeypatch, hyperparameters, said):
    root = opt_ml(**hyperparameters)
    for name, value in of_container(root).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        job.main()
    assert said in str(ended.value.code)
    assert str(ended.value.code).startswith("error: ")
    assert "Traceback" not in str(ended.value.code)
    assert said in (root / "output" / "failure").read_text()
    assert not (root / "model").exists()


def until(process, line):
    """Read what a process says, up to a line that starts so."""
    for said in process.stdout:
        if said.startswith(line):
            return said
    raise AssertionError(f"it ended without {line!r}: {process.stderr.read()}")


SHORT = {"model": "digits", "epochs": "24", "batch_size": "32", "checkpoint_seconds": "0"}
"""Long enough to be stopped on the way."""
NETWORK = {"channels": 4, "width": 16, "dropout": 0.0}


def test_sigterm_writes_a_checkpoint_and_the_next_start_ends_as_if_nothing_had_happened(opt_ml):
    settings = SHORT | {"checkpoint_seconds": "1000", "network": json.dumps(NETWORK | {"dropout": 0.3})}
    undisturbed, root = opt_ml("undisturbed", **settings), opt_ml("stopped", **settings)
    job.run(Job.of_sagemaker(of_container(undisturbed)), print)
    with start(root) as process:
        until(process, "epoch=2 ")
        process.send_signal(signal.SIGTERM)
        stopped = finish(process)
    assert (stopped.returncode, stopped.stderr) == (143, "")
    assert (root / "checkpoints" / "checkpoint.pt").exists()
    assert not (root / "model").exists()

    resumed = run(root)
    assert resumed.returncode == 0, resumed.stderr
    assert "goes on from" in resumed.stdout
    assert not [line for line in resumed.stdout.splitlines() if line.startswith(("epoch=1 ", "epoch=2 "))]
    assert [epoch["loss"] for epoch in history(root)] == [epoch["loss"] for epoch in history(undisturbed)]
    assert equal(weights(root), weights(undisturbed))


@pytest.fixture(scope="module")
def undisturbed(opt_ml):
    """A training by two processes that nothing has disturbed."""
    root = opt_ml("two", **SHORT, network=json.dumps(NETWORK))
    done = run(root, TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(said) for said in ("epoch=1 ", "24 epochs in")] == [1, 1]  # the leading one alone speaks
    return root


def test_two_processes_train_what_one_would(opt_ml, undisturbed):
    """The same rows a step; what differs is batch normalisation, which each process does for its own half."""
    alone = opt_ml("one", **SHORT, network=json.dumps(NETWORK))
    job.run(Job.of_sagemaker(of_container(alone)), print)
    losses = [[epoch["loss"] for epoch in history(root)] for root in (alone, undisturbed)]
    assert losses[1][:8] == pytest.approx(losses[0][:8], rel=0.2)
    assert max(losses[0][-1], losses[1][-1]) < losses[0][0] / 10


def test_two_processes_that_are_stopped_or_killed_end_as_if_nothing_had_happened(opt_ml, undisturbed):
    root = opt_ml("disturbed", **SHORT, network=json.dumps(NETWORK))
    with start(root, TORCHRUN) as process:
        until(process, "epoch=2 ")
        process.send_signal(signal.SIGTERM)
        assert finish(process).returncode != 0
    assert (root / "checkpoints" / "checkpoint.pt").exists()
    assert not (root / "model").exists()

    with start(root, [*TORCHRUN, "--max-restarts", "3"]) as process:
        workers = kill_one(process)
        done = finish(process)
    assert done.returncode == 0, done.stderr
    assert "goes on from" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("epoch=1 ")]  # it is not done again
    assert [epoch["number"] for epoch in history(root)] == list(range(1, 25))
    assert equal(weights(root), weights(undisturbed))
    assert_gone(workers)


def test_a_killed_process_ends_the_training_where_no_restart_is_allowed(opt_ml):
    root = opt_ml("killed", **SHORT, network=json.dumps(NETWORK))
    with start(root, [*TORCHRUN, "--max-restarts", "0"]) as process:
        workers = kill_one(process)
        done = finish(process)
    assert done.returncode == 1
    assert re.search(r"SIGKILL|-9", done.stderr)
    assert not (root / "model").exists()
    assert (root / "checkpoints" / "checkpoint.pt").exists()
    assert_gone(workers)


def kill_one(process):
    """Kill one of the two workers after an epoch; gives both."""
    until(process, "epoch=")
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.cmdline()[-3:] == ["-m", "training", "train"]
    ]
    assert len(workers) == 2
    workers[-1].kill()
    return workers


def assert_gone(workers):
    assert not [each for each in workers if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
