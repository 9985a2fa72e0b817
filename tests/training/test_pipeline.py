"""The pipeline ends with a live version, does nothing twice, and goes on where it was cut off."""

import hashlib
import re
import tarfile
from io import BytesIO

import boto3
import numpy as np
import onnxruntime
import psutil
import pytest

from contract.errors import PlatformError
from contract.manifest import Gate
from contract.service import ArtifactMetadata, LiveVersions
from training import evaluate, pipeline, registry
from training.data import Rows, model_module
from training.evaluate import check_gates
from training.export import export


@pytest.fixture
def run(outputs, tmp_path):
    """Runs the pipeline; returns what it came to and what it reported."""

    def run(**arguments):
        reported: list[str] = []
        return pipeline.run("digits", outputs, tmp_path / "work", reported.append, **arguments), reported

    return run


def live(outputs) -> LiveVersions:
    value = boto3.client("ssm").get_parameter(Name=outputs.models["digits"].live_parameter)["Parameter"]["Value"]
    return LiveVersions.model_validate_json(value)


def fetch(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def test_from_raw_data_to_a_live_version_and_not_twice(run, outputs, table, tmp_path):
    result, reported = run()
    assert (result.version, result.up_to_date) == (1, False)
    assert result.metrics["accuracy"] >= 0.97
    assert any("train: epoch=1 of=20" in line for line in reported)

    (version,) = registry.versions("test-digits")
    assert version.status == "Approved"
    assert version.properties["snapshot"] in reported[1]
    assert version.properties.keys() >= {"fingerprint", "commit", "training.seed", "trained_by", "source", "sha256"}
    assert version.metrics == result.metrics
    assert_aws_would_take(version.properties)
    artifact = fetch(version.artifact)
    assert hashlib.sha256(artifact).hexdigest() == version.properties["sha256"]
    (only,) = live(outputs).versions
    assert (only.version, only.weight, only.artifact) == (1, 100, version.artifact)
    assert_answers_its_own_self_test(artifact)

    again, reported = run()
    assert (again.version, again.up_to_date) == (1, True)
    assert not any("train" in line for line in reported)

    # Cut off between registration and approval: the next run goes on there.
    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=version.arn,
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties=dict(version.properties),
    )
    boto3.client("ssm").put_parameter(
        Name=outputs.models["digits"].live_parameter, Value='{"versions": []}', Type="String", Overwrite=True
    )
    resumed, reported = run()
    assert (resumed.version, resumed.up_to_date) == (1, True)
    assert "approve: version 1" in reported
    assert live(outputs).versions == (only,)

    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=version.arn,
        ModelApprovalStatus="Rejected",
        CustomerMetadataProperties=dict(version.properties),
    )
    with pytest.raises(PlatformError, match="has a version 1 of the same data, settings and code, and it was rejected"):
        run()
    assert registry.versions("test-digits")[0].status == "Rejected"

    fewer = tmp_path / "fewer.csv"
    fewer.write_bytes(table.head(-50).write_csv().encode())
    assert run(source=fewer)[0].version == 2
    assert live(outputs).versions[0].version == 2


def assert_aws_would_take(properties: dict[str, str]) -> None:
    """What the API reference allows in customer metadata; the emulated AWS takes anything."""
    for text in (*properties, *properties.values()):
        assert re.fullmatch(r"[\w\s.:/=+@-]{1,256}", text), text


def assert_answers_its_own_self_test(artifact: bytes) -> None:
    with tarfile.open(fileobj=BytesIO(artifact)) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    metadata = ArtifactMetadata.model_validate_json(content["metadata.json"])
    session = onnxruntime.InferenceSession(content["model.onnx"])
    names = [tensor.name for tensor in metadata.outputs]
    answers = session.run(names, {"features": np.asarray(metadata.self_test.inputs, np.float32)})
    for tensor, answer in zip(metadata.outputs, answers, strict=True):
        assert tensor.shape[1:] == answer.shape[1:]
        assert np.allclose(answer, metadata.self_test.outputs[tensor.name], atol=metadata.self_test.tolerance)


def test_a_gate_that_fails_registers_nothing_and_says_why(run, outputs, monkeypatch):
    measured = {"accuracy": 0.5, "generalisation_gap": 0.4, "latency_ms": 0.1, "size_mb": 0.3}
    monkeypatch.setattr(pipeline, "_train", lambda *_: None)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: measured)
    with pytest.raises(PlatformError) as caught:
        run()
    assert str(caught.value).splitlines() == [
        "digits is not registered, 2 of 4 gates fail:",
        "  accuracy is 0.5, allowed is at least 0.97",
        "  generalisation_gap is 0.4, allowed is at most 0.03",
    ]
    assert registry.versions("test-digits") == []
    assert live(outputs).versions == ()


def test_an_interrupt_ends_the_training_and_registers_nothing(outputs, tmp_path):
    def interrupt(line: str) -> None:
        if line.startswith("train: epoch=1 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run("digits", outputs, tmp_path / "work", interrupt)
    children = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [command for command in children if "training.train" in command]
    assert registry.versions("test-digits") == []
    assert live(outputs).versions == ()


def test_a_training_that_fails_is_one_message(run, monkeypatch):
    monkeypatch.setenv("SM_HPS", "{}")
    monkeypatch.setattr(pipeline, "json", _JsonThatNamesNoModel)
    with pytest.raises(PlatformError, match="the training of digits failed: the hyperparameters must name the model"):
        run()


class _JsonThatNamesNoModel:
    @staticmethod
    def dumps(_: object) -> str:
        return "{}"


def test_a_gate_passes_at_its_bound():
    check_gates({"accuracy": 0.97, "size_mb": 2}, {"accuracy": Gate(min=0.97), "size_mb": Gate(max=2)}, "digits")


def test_packing_the_same_model_gives_the_same_bytes(tmp_path, manifest, table):
    rows = Rows(table.drop("digit").to_numpy().astype(np.float32), table["digit"].to_numpy().astype(np.int64))
    network = model_module("digits").network(10).eval()
    export(network, rows.features[:2], tmp_path)
    packs = [registry.pack(tmp_path, rows, manifest) for _ in range(2)]
    assert packs[0] == packs[1]
