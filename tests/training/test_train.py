"""The training entry point keeps SageMaker's contract, and the exported model is the trained one."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from contract.errors import PlatformError
from contract.manifest import Manifest
from contract.paths import ROOT
from contract.service import MODEL_FILE
from training.data import Rows
from training.train import Job, fit, run


@pytest.fixture
def small(manifest) -> Manifest:
    return manifest.model_copy(update={"training": manifest.training.model_copy(update={"epochs": 2})})


@pytest.fixture
def rows(table):
    return Rows(
        table.drop("digit").to_numpy().astype(np.float32)[:300], table["digit"].to_numpy().astype(np.int64)[:300]
    )


@pytest.fixture
def opt_ml(tmp_path, table):
    """The folders of a SageMaker container."""
    (tmp_path / "input" / "config").mkdir(parents=True)
    (tmp_path / "input" / "data" / "train").mkdir(parents=True)
    table.head(300).write_parquet(tmp_path / "input" / "data" / "train" / "part-0.parquet")

    def configure(text: str | None = None, **hyperparameters: str):
        (tmp_path / "input" / "config" / "hyperparameters.json").write_text(text or json.dumps(hyperparameters))
        return tmp_path

    return configure


def start(root):
    environment = {
        "SM_HPS": (root / "input" / "config" / "hyperparameters.json").read_text(),
        "SM_CHANNEL_TRAIN": str(root / "input" / "data" / "train"),
        "SM_MODEL_DIR": str(root / "model"),
        "SM_OUTPUT_DATA_DIR": str(root / "output" / "data"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "training.train"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job(root):
    with start(root) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_files_below_opt_ml_are_read_where_no_variable_is_set(opt_ml):
    root = opt_ml(model="digits", epochs="2", learning_rate="0.01")
    read = Job.from_environment({}, root)
    assert read.channel == root / "input" / "data" / "train"
    assert read.model_dir == root / "model"
    assert read.manifest().training.epochs == 2
    assert read.manifest().training.learning_rate == 0.01


def test_hyperparameters_may_be_quoted_as_sagemakers_sdk_does(opt_ml):
    root = opt_ml(model='"digits"', epochs='"3"')
    assert Job.from_environment({}, root).manifest().training.epochs == 3


def test_a_container_writes_the_model_and_tells_its_progress(opt_ml):
    root = opt_ml(model="digits", epochs="2")
    done = job(root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch=1", "of=2"], ["epoch=2", "of=2"]]
    assert "train_accuracy=" in lines[-1]
    assert sorted(path.name for path in (root / "model").iterdir()) == [MODEL_FILE, "model.pt"]


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({}, "must name the model"),
        ({"text": "epochs: 3"}, "must name the model"),
        ({"model": "nothing"}, "unknown model 'nothing'"),
        ({"model": "digits", "epoch": "2"}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"model": "digits", "epochs": "none"}, "epochs: input should be a valid integer"),
    ],
)
def test_a_failure_is_one_message_and_a_file(opt_ml, hyperparameters, said):
    root = opt_ml(**hyperparameters)
    done = job(root)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert said in (root / "output" / "failure").read_text()
    assert not (root / "model").exists()


def test_a_stop_ends_the_job_at_once_and_leaves_no_model(opt_ml):
    root = opt_ml(model="digits", epochs="10000")
    with start(root) as process:
        assert process.stdout.readline().startswith("epoch=1 ")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (143, "")
    assert not (root / "model").exists()


def test_the_same_seed_gives_the_same_weights_and_another_one_others(small, rows):
    first, second = fit(small, rows).state_dict(), fit(small, rows).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    reseeded = small.model_copy(update={"training": small.training.model_copy(update={"seed": 1})})
    other = fit(reseeded, rows).state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_loss_that_is_no_number_stops_with_step_and_learning_rate(small, rows):
    broken = Rows(rows.features.copy(), rows.targets)
    broken.features[:] = np.nan
    with pytest.raises(PlatformError, match=r"the loss is nan at epoch 1, step 1 of 5, with a learning rate of 0\.0"):
        fit(small, broken)


def test_the_exported_model_gives_the_networks_answers_for_any_number_of_rows(opt_ml, small, rows):
    root = opt_ml(model="digits", epochs="1")
    run(Job.from_environment({}, root))
    from training.data import model_module

    network = model_module("digits").network(10)
    network.load_state_dict(torch.load(root / "model" / "model.pt"))
    assert str(ROOT).encode() not in (root / "model" / MODEL_FILE).read_bytes()
    session = onnxruntime.InferenceSession(root / "model" / MODEL_FILE)
    for count in (1, 7):
        label, probabilities = session.run(["label", "probabilities"], {"features": rows.features[:count]})
        scores = network.eval()(torch.from_numpy(rows.features[:count]))
        assert label.dtype == np.int64
        assert label.tolist() == scores.argmax(1).tolist()
        assert np.allclose(probabilities, scores.softmax(1).detach().numpy(), atol=1e-5)
        assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
