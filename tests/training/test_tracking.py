"""Metrics land in MLflow's local database; a tracking server is tried in tests/services/test_mlflow.py."""

import json

import pytest
from mlflow import MlflowClient

from training import job, tracking
from training.loop import Epoch
from training.tracking import default_uri, tracked


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a busy machine a new database may take longer than a training is made to wait for it."""
    monkeypatch.setattr(tracking, "WAIT_SECONDS", 200)


def runs(uri, experiment):
    """The runs of an experiment, the newest first."""
    client = MlflowClient(tracking_uri=uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def metric(uri, run, name):
    found = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return [(each.step, each.value) for each in sorted(found, key=lambda each: each.step)]


def test_a_run_has_its_settings_and_the_metrics_of_each_epoch(uri):
    said = []
    with tracked(uri, "cats", {"epochs": 2, "network": {"width": 8}}, said.append) as run:
        run.epoch(Epoch(1, 0.5, 0.75, 0.01, 1000.0))
        run.epoch(Epoch(2, 0.25, None, 0.002, 2000.0))
    (found,) = runs(uri, "cats")
    assert (found.info.status, found.data.params) == ("FINISHED", {"epochs": "2", "network": "{'width': 8}"})
    assert metric(uri, found, "loss") == [(1, 0.5), (2, 0.25)]
    assert metric(uri, found, "validation_loss") == [(1, 0.75)]
    assert metric(uri, found, "learning_rate") == [(1, 0.01), (2, 0.002)]
    assert metric(uri, found, "rows_per_s") == [(1, 1000), (2, 2000)]
    assert said == []


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (None, "FINISHED")]
)
def test_a_run_ends_as_its_training_did(uri, error, status):
    def train():
        with tracked(uri, "dogs", {}, print) as run:
            run.metrics({"loss": 1.0}, 1)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            train()
    else:
        train()
    newest = runs(uri, "dogs")[0]
    assert newest.info.status == status
    assert metric(uri, newest, "loss") == [(1, 1.0)]


@pytest.mark.parametrize("where", ["http://127.0.0.1:9", "sqlite:////dev/null/mlflow.db", "nonsense://x"])
def test_a_training_goes_on_without_its_tracking_and_says_so_once(where, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = []
    with tracked(where, "cats", {}, said.append) as run:
        for number in range(1, 4):
            run.epoch(Epoch(number, 0.5, None, 0.01, 1000.0))
    (line,) = said
    assert line.startswith(f"metrics do not go to MLflow at {where}: ")


def test_the_variable_says_where_metrics_go_and_a_local_database_is_the_default(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(tmp_path / "mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    assert default_uri(tmp_path / "mlflow.db") == "https://mlflow.example.com"


def test_a_training_is_tracked(uri, manifest, table, tmp_path):
    settings = manifest.training.model_copy(update={"epochs": 3, "network": {"channels": 2, "width": 8}})
    for part, rows in {"train": table.head(256), "validation": table.tail(64)}.items():
        (tmp_path / part).mkdir()
        rows.write_parquet(tmp_path / part / "part-0.parquet")
    folders = {name: tmp_path / name for name in ("train", "validation", "model_dir", "output_dir", "checkpoints")}
    given = job.Job(manifest.model_copy(update={"training": settings}), **folders, tracking_uri=uri)
    job.run(given, print)
    (run,) = runs(uri, "digits")
    epochs = json.loads((tmp_path / "output_dir" / job.HISTORY_FILE).read_text())
    assert len(epochs) == 3
    for name in ("loss", "validation_loss", "learning_rate"):
        assert metric(uri, run, name) == [(each["number"], each[name]) for each in epochs]
    assert run.data.params["batch_size"] == str(settings.batch_size)
