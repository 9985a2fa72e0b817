"""Manifests: what ships is valid, and a mistake is named with its file, its key and what is allowed."""

import pytest
import yaml

from contract import manifest as module
from contract.errors import PlatformError
from contract.gates import Gate
from contract.manifest import load_manifest, model_names
from contract.paths import MODELS

SCORING = {"schedule": "cron(0 3 * * ? *)", "input": "incoming/digits.parquet"}


@pytest.mark.parametrize("name", model_names())
def test_shipped_manifests_are_valid(name):
    assert load_manifest(name).name == name


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A copy of the digits manifest with changes, in a folder of models of its own."""
    monkeypatch.setattr(module, "MODELS", tmp_path)

    def load(**changes):
        content = yaml.safe_load((MODELS / "digits" / "model.yaml").read_text())
        for path, value in changes.items():
            *outer, last = path.split("__")
            section = content
            for key in outer:
                section = section[key]
            section[last] = value
        (tmp_path / "digits").mkdir(exist_ok=True)
        (tmp_path / "digits" / "model.yaml").write_text(yaml.safe_dump(content))
        load_manifest.cache_clear()
        return load_manifest("digits")

    yield load
    load_manifest.cache_clear()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"trainig": {}},
            "unknown key 'trainig'; did you mean 'training'? allowed: behaviour, compute, data, description, gates",
        ),
        ({"training__epochs": 0}, "training.epochs: input should be greater than or equal to 1, but it is 0"),
        ({"training__learning_rate": "fast"}, "training.learning_rate: input should be a valid number"),
        (
            {"task": "regresion"},
            "task: input should be 'classification', 'regression' or 'density', but it is 'regresion'",
        ),
        (
            {"gates": {"acuracy": {"min": 1}}},
            "gates.acuracy: no such metric for this classification; did you mean 'accuracy'?",
        ),
        ({"gates": {"r2": {"min": 0}}}, "allowed: accuracy, macro_f1, log_loss, calibration_error, generalisation_gap"),
        ({"gates": {"worst_slice": {"min": 0}}, "slices": []}, "it needs `slices`"),
        ({"slices": [{"column": "size"}]}, "slices: there is no column 'size' in data"),
        ({"behaviour": {"t": {"kind": "invariance", "change": {"size": {}}}}}, "there is no feature 'size'"),
        ({"tune": {"space": {"speed": {"min": 1, "max": 2}}}}, "unknown setting 'speed' in the space; allowed: batch"),
        ({"gates": {"accuracy": {}}}, "a gate needs a min, a max or both"),
        ({"gates": {}}, "at least 1 item"),
        ({"split__test": 1.0}, "split.test: input should be less than 1"),
        ({"data__features": {"x": {"min": 2, "max": 1}}}, "min 2.0 is greater than max 1.0"),
        ({"serving": None}, "serving: this should be a mapping of keys to values, with runtime as one of lambda, ecs,"),
        ({"serving": None}, "sagemaker, or be left out, but it is None"),
        ({"serving": "lambda"}, "or be left out, but it is 'lambda'"),
        ({"serving": []}, "or be left out, but it is []"),
        ({"serving": {"runtime": "ec2"}}, "serving: runtime must be one of lambda, ecs, sagemaker, but it is 'ec2'"),
        ({"serving": {"runtime": None}}, "runtime must be one of lambda, ecs, sagemaker, but it is None"),
        ({"serving": {"runtime": ["ecs"]}}, "runtime must be one of lambda, ecs, sagemaker, but it is ['ecs']"),
        ({"serving": {"runtime": "ecs", "canary": []}}, "serving.canary: input should be a valid dictionary"),
        ({"serving__memory_mb": 100}, "serving.memory_mb: input should be greater than or equal to 512"),
        ({"compute": {"gpu": 1}}, "compute: unknown key 'gpu'; did you mean 'gpus'? allowed: gpus, hours, instances"),
        ({"compute": {"gpus": 9}}, "compute.gpus: input should be less than or equal to 8, but it is 9"),
        ({"compute": {"team": "a-b"}}, "compute.team: string should match pattern"),
        ({"scoring": {}}, "scoring.schedule: this key is missing"),
        ({"scoring": SCORING | {"shedule": 1}}, "scoring: unknown key 'shedule'; did you mean 'schedule'? allowed:"),
        (
            {"scoring": SCORING | {"schedule": "0 3 * * *"}},
            "scoring.schedule: a schedule is cron(0 3 * * ? *), in UTC, or rate(1 hour), rate(2 days), but it is "
            "'0 3 * * *'",
        ),
        ({"scoring": SCORING | {"input": "digits.txt"}}, "scoring.input: the input is the key of a .csv or .parquet"),
        ({"scoring": SCORING | {"input": "a/*.csv"}}, "of letters, digits and . _ - = /, but it is 'a/*.csv'"),
        ({"scoring": SCORING | {"input": "s3://bucket/in.csv"}}, "in the curated bucket, such as incoming/digits."),
        ({"scoring": SCORING | {"input": "../in.csv"}}, "scoring.input: the input is the key"),
        ({"scoring": SCORING | {"input": "scores/in.csv"}}, "scores/ is where the answers go; put the input elsewhere"),
        ({"scoring": SCORING | {"hours": 0}}, "scoring.hours: input should be greater than or equal to 1"),
        ({"scoring": SCORING | {"vcpus": 32}}, "scoring.vcpus: input should be less than or equal to 16"),
        ({"name": "other"}, "name is 'other', but the folder is 'digits'"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(changed, change, said):
    with pytest.raises(PlatformError) as caught:
        changed(**change)
    assert "digits/model.yaml" in str(caught.value)
    assert said in str(caught.value)


def test_an_unknown_model_names_those_there_are():
    with pytest.raises(PlatformError, match=r"unknown model 'digit'.*for: .*digits"):
        load_manifest("digit")


def test_columns_are_named_by_feature_and_position(changed):
    data = changed(data__features={"age": {"min": 0, "max": 120}, "pixels": {"size": 2, "min": 0, "max": 1}}).data
    assert data.columns == ["age", "pixels_0", "pixels_1"]


@pytest.mark.parametrize(
    ("gate", "value", "admitted"),
    [
        (Gate(min=0.9), 0.9, True),
        (Gate(min=0.9), 0.89, False),
        (Gate(max=1), 1.01, False),
        (Gate(min=0, max=1), 0.5, True),
        (Gate(min=0), float("nan"), False),
        (Gate(max=0), float("nan"), False),
    ],
)
def test_a_gate_admits_what_is_within_its_bounds(gate, value, admitted):
    assert gate.admits(value) is admitted
