"""The pipeline ends with a live version, does nothing twice, and goes on where it was cut off."""

import hashlib
import json
import re
import tarfile
from io import BytesIO

import boto3
import numpy as np
import onnxruntime
import pytest

from contract.errors import PlatformError
from contract.manifest import load_manifest, model_names
from contract.service import ArtifactMetadata, LiveVersions
from training import evaluate, optimise, pipeline, registry, rollout, train
from training.data import Rows, model_module
from training.export import export
from training.register import pack
from training.reproduce import reproduce
from training.steps import Context, is_current


@pytest.fixture
def run(outputs, tmp_path):
    """Runs a model's pipeline; returns what it came to and what it reported."""

    def run(model="diabetes", **arguments):
        reported: list[str] = []
        return pipeline.run(model, outputs, tmp_path / "work" / model, reported.append, **arguments), reported

    return run


def live(outputs, model="diabetes") -> LiveVersions:
    value = boto3.client("ssm").get_parameter(Name=outputs.models[model].live_parameter)["Parameter"]["Value"]
    return LiveVersions.model_validate_json(value)


def fetch(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def decide(version, status) -> None:
    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=version.arn, ModelApprovalStatus=status, CustomerMetadataProperties=dict(version.properties)
    )


@pytest.mark.parametrize("model", model_names())
def test_from_raw_data_to_a_live_version_and_not_twice(run, outputs, tmp_path, model):
    result, reported = run(model)
    manifest = load_manifest(model)
    assert (result.version, result.up_to_date) == (1, False)
    assert manifest.gates[manifest.quality].admits(result.metrics[manifest.quality])
    assert any(line.startswith("epoch=1 of=") for line in reported)

    (version,) = registry.versions(f"test-{model}")
    assert version.status == "Approved"
    assert_aws_would_take(version.properties)
    artifact = fetch(version.artifact)
    assert hashlib.sha256(artifact).hexdigest() == version.properties["sha256"]
    (only,) = live(outputs, model).versions
    assert (only.version, only.weight, only.artifact) == (1, 100, version.artifact)
    assert_answers_its_own_self_test(artifact)

    again, reported = run(model)
    assert (again.version, again.up_to_date) == (1, True)
    assert not any("epoch" in line for line in reported)

    reproduced = reproduce(version, outputs, tmp_path / "reproduced", reported.append)
    assert reproduced.differences == []
    assert reproduced.is_same, reproduced.metrics
    assert reproduced.metrics.keys() >= {manifest.quality, "generalisation_gap"}


def test_a_version_holds_where_it_comes_from_and_what_it_is_for(run, outputs):
    run()
    (version,) = registry.versions("test-diabetes")
    lineage = version.document(registry.LINEAGE_FILE)
    assert lineage["snapshot"]["rows"] == 442
    assert lineage["manifest"]["training"]["seed"] == load_manifest("diabetes").training.seed
    assert lineage["environment"].keys() >= {"python", "torch", "onnxruntime"}
    assert lineage["commit"]
    assert lineage["code"]
    card = version.document(registry.CARD_FILE)
    manifest = load_manifest("diabetes")
    text = json.dumps(card)
    assert manifest.description in text
    assert all(limit in text for limit in manifest.limits)
    assert all(use in text for use in manifest.data.allowed_use)


def test_what_was_cut_off_before_the_approval_goes_on_there(run, outputs):
    run()
    (version,) = registry.versions("test-diabetes")
    (only,) = live(outputs).versions
    decide(version, "PendingManualApproval")
    boto3.client("ssm").put_parameter(
        Name=outputs.models["diabetes"].live_parameter, Value='{"versions": []}', Type="String", Overwrite=True
    )
    resumed, reported = run()
    assert (resumed.version, resumed.up_to_date) == (1, True)
    assert "approve: version 1 is live" in reported
    assert live(outputs).versions == (only,)


def test_a_rejection_is_not_undone_and_new_data_make_a_new_version(run, outputs, tmp_path):
    run()
    (version,) = registry.versions("test-diabetes")
    decide(version, "Rejected")
    boto3.client("ssm").put_parameter(
        Name=outputs.models["diabetes"].live_parameter, Value='{"versions": []}', Type="String", Overwrite=True
    )
    with pytest.raises(PlatformError, match="version 1, of the same data, settings and code, was rejected"):
        run()
    assert registry.versions("test-diabetes")[0].status == "Rejected"

    fewer = tmp_path / "fewer.csv"
    fewer.write_bytes(model_module("diabetes").raw_data().head(-40).write_csv().encode())
    assert run(source=fewer)[0].version == 2
    assert live(outputs).versions[0].version == 2


def test_a_comparison_or_a_rollback_is_not_undone(run, outputs, tmp_path):
    run()
    parameter = outputs.models["diabetes"].live_parameter
    one = live(outputs)
    canary = one.versions[0].model_copy(update={"version": 9})
    compared = rollout.deployed(one, canary.model_copy(update={"weight": 10}))
    rollout.write(parameter, compared, rollout.read(parameter))
    assert run()[0].note == ""
    assert live(outputs) == compared

    fewer = tmp_path / "fewer.csv"
    fewer.write_bytes(model_module("diabetes").raw_data().head(-40).write_csv().encode())
    waiting = run(source=fewer)[0]
    assert (waiting.version, waiting.up_to_date) == (2, False)
    assert "version 2 is approved but takes no traffic, as versions are compared: version 1 90%" in waiting.note
    assert registry.versions("test-diabetes")[0].status == registry.APPROVED
    assert live(outputs) == compared

    rollout.write(parameter, one, rollout.read(parameter))  # as `mlp rollback` does
    again = run()[0]
    assert again.up_to_date
    assert "version 2 is approved but takes no traffic: version 1 100%; `mlp models approve" in again.note
    assert live(outputs) == one


def test_a_failing_step_leaves_what_came_before_and_the_next_run_goes_on_there(run, outputs, tmp_path, monkeypatch):
    def no_room(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(optimise, "step", no_room)
        with pytest.raises(OSError, match="No space left"):
            run()
    context = Context(load_manifest("diabetes"), outputs, tmp_path / "work" / "diabetes", print)
    assert is_current("train", context)
    assert not is_current("optimise", context)
    assert registry.versions("test-diabetes") == []
    trained: list[object] = []
    monkeypatch.setattr(train, "step", trained.append)
    result, _ = run()
    assert result.version == 1
    assert trained == []


def test_an_interrupt_registers_nothing(outputs, tmp_path):
    def interrupt(line: str) -> None:
        if line.startswith("epoch=2 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run("diabetes", outputs, tmp_path / "work", interrupt)
    assert registry.versions("test-diabetes") == []
    assert live(outputs).versions == ()


def test_a_gate_that_fails_registers_nothing_and_says_why(run, outputs, monkeypatch):
    real = evaluate.evaluate

    def worse(*arguments):
        found = real(*arguments)
        return evaluate.Evaluation(
            {**found.metrics, "r2": 0.1, "size_mb": 99.0}, found.slices, found.behaviour, found.comparison
        )

    monkeypatch.setattr(evaluate, "evaluate", worse)
    with pytest.raises(PlatformError) as caught:
        run()
    first, *failed, last = str(caught.value).splitlines()
    assert re.fullmatch(r"diabetes is not registered, 2 of \d+ gates fail:", first)
    assert failed == ["  r2 is 0.1, allowed is at least 0.4", "  size_mb is 99, allowed is at most 2"]
    assert last.startswith("the report ")
    assert registry.versions("test-diabetes") == []
    assert live(outputs).versions == ()


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
    rows = np.asarray(metadata.self_test.inputs, np.float32)
    # All at once and one by one: nobody's answer depends on the rows beside it.
    for answers in (session.run(names, {"features": rows}), alone(session, names, rows)):
        for tensor, answer in zip(metadata.outputs, answers, strict=True):
            assert tensor.shape[1:] == answer.shape[1:]
            assert np.allclose(answer, metadata.self_test.outputs[tensor.name], atol=metadata.self_test.tolerance)


def alone(session, names, rows):
    answers = [session.run(names, {"features": row[None]}) for row in rows]
    return [np.concatenate(of_output) for of_output in zip(*answers, strict=True)]


def test_packing_keeps_what_the_service_needs_and_gives_the_same_bytes_each_time(tmp_path, manifest, table):
    rows = Rows(table.drop("digit").to_numpy().astype(np.float32), table["digit"].to_numpy().astype(np.int64))
    network = model_module("digits").network(manifest.data).eval()
    export(network, manifest.task, rows.features[:2], tmp_path)
    serving = manifest.serving.model_copy(update={"sensitive": {"pixels": "hash"}})
    manifest = manifest.model_copy(update={"serving": serving})
    packs = [pack(tmp_path, rows, manifest) for _ in range(2)]
    assert packs[0] == packs[1]
    registry.unpack(packs[0], tmp_path / "artifact")
    metadata = ArtifactMetadata.model_validate_json((tmp_path / "artifact" / "metadata.json").read_bytes())
    assert metadata.sensitive == dict.fromkeys(manifest.data.columns, "hash")
    assert len(metadata.background) == 16
    assert {tuple(row) for row in metadata.background} <= {tuple(row) for row in rows.features.tolist()}
