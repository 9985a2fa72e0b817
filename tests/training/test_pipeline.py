"""The pipeline ends with a live version, does nothing twice, and goes on where it was cut off."""

import functools
import hashlib
import json
import os
import re
import shutil
import tarfile
import urllib.request
import uuid
from io import BytesIO
from types import SimpleNamespace

import boto3
import numpy as np
import onnxruntime
import pytest

from contract.errors import PlatformError
from contract.manifest import load_manifest, model_names
from contract.service import ArtifactMetadata, LiveVersions
from embedded.local import aws_environment
from tests.browser import needs_browser, open_page
from tests.training.environment import environment_of
from training import evaluate, explore, optimise, pipeline, registry, rollout, train
from training.data import Rows, model_module
from training.export import export
from training.ingest import ingested
from training.register import pack
from training.reproduce import reproduce
from training.steps import Context, is_current

EPOCHS = {"anomaly": (40, 10), "diabetes": (30, 10), "digits": (8, 3)}
"""Of the training and of its smaller variants: fewer than in the manifests, and enough for their gates."""


@functools.cache
def short(model):
    """The manifest of a model, with less training."""
    manifest = load_manifest(model)
    first, second = EPOCHS.get(model, (manifest.training.epochs, manifest.optimise.epochs))
    training = manifest.training.model_copy(update={"epochs": first})
    optimised = manifest.optimise.model_copy(update={"epochs": second})
    return manifest.model_copy(update={"training": training, "optimise": optimised})


@pytest.fixture(scope="module")
def outputs(aws_process, outputs_document):
    """An environment for all tests of this file, so that a step is run once where one run will do."""
    urllib.request.urlopen(
        urllib.request.Request(f"{aws_process.url}/moto-api/reset", method="POST"), timeout=10
    ).close()
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        for name, value in aws_environment(aws_process, "eu-west-1").items():
            environment.setenv(name, value)
        environment.setattr(pipeline, "load_manifest", short)
        environment.setattr(explore, "EMBEDDED", 300)  # t-SNE of all rows takes as long as a training
        environment_of(outputs_document)
        yield outputs_document


@pytest.fixture(scope="module")
def done(outputs, tmp_path_factory):
    """Runs the pipeline of a model, once; gives what came of it, what it reported, and its work folder."""

    @functools.cache
    def run(model):
        reported, work = [], tmp_path_factory.mktemp("work") / model
        return SimpleNamespace(result=pipeline.run(model, outputs, work, reported.append), said=reported, work=work)

    return run


@pytest.fixture
def fresh(outputs, tmp_path):
    """The environment, with a registry in which nothing of the diabetes model is."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=name)
    boto3.client("ssm").put_parameter(Name=f"/{name}", Value=LiveVersions().model_dump_json(), Type="String")
    known = outputs.models["diabetes"].model_copy(update={"package_group": name, "live_parameter": f"/{name}"})
    return outputs.model_copy(update={"models": outputs.models | {"diabetes": known}})


@pytest.fixture
def run(done, fresh, tmp_path):
    """Runs the diabetes pipeline; all is there up to the evaluation, but for the steps of `again`."""
    work = tmp_path / "work" / "diabetes"
    shutil.copytree(done("diabetes").work, work)

    def run(again=(), **arguments):
        reported: list[str] = []
        for name in again:
            shutil.rmtree(work / name)
        return pipeline.run("diabetes", fresh, work, arguments.pop("report", reported.append), **arguments), reported

    run.work = work
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
def test_from_raw_data_to_a_live_version(done, outputs, model):
    result, manifest = done(model).result, short(model)
    assert (result.version, result.up_to_date) == (1, False)
    assert manifest.gates[manifest.quality].admits(result.metrics[manifest.quality])
    assert any(line.startswith("epoch=1 of=") for line in done(model).said)

    (version,) = registry.versions(f"test-{model}")
    assert version.status == "Approved"
    assert_aws_would_take(version.properties)
    artifact = fetch(version.artifact)
    assert hashlib.sha256(artifact).hexdigest() == version.properties["sha256"]
    (only,) = live(outputs, model).versions
    assert (only.version, only.weight, only.artifact) == (1, 100, version.artifact)
    assert_answers_its_own_self_test(artifact)


@pytest.mark.parametrize("model", model_names())
def test_what_is_up_to_date_is_not_done_again(done, outputs, model):
    reported: list[str] = []
    again = pipeline.run(model, outputs, done(model).work, reported.append)
    assert (again.version, again.up_to_date) == (1, True)
    assert not any("epoch" in line for line in reported)


@pytest.mark.parametrize("model", ["anomaly", "digits"])  # diabetes is reproduced in tests/cli/test_models.py
def test_a_version_is_reproduced(done, outputs, tmp_path, model):
    done(model)
    (version,) = registry.versions(f"test-{model}")
    reproduced = reproduce(version, outputs, tmp_path, lambda _: None)
    assert reproduced.differences == []
    assert reproduced.is_same, reproduced.metrics
    assert reproduced.metrics.keys() >= {short(model).quality, "generalisation_gap"}


@needs_browser
@pytest.mark.parametrize("model", model_names())
def test_the_reports_open_in_a_browser_with_their_plots(done, outputs, model, tmp_path):
    explored = open_page(done(model).work / "explore" / "report.html", tmp_path)
    assert explored.console == []
    for title in ("Columns", "Distributions", "Correlations", "Embedding", "Outliers"):
        assert f"<h2>{title}</h2>" in explored.document
    assert explored.document.count("<svg") == explored.document.count("<figure") >= 4
    assert "t-SNE of" in explored.document
    evaluated = open_page(done(model).work / "evaluate" / "report.html", tmp_path)
    assert evaluated.console == []
    assert evaluated.document.count("<svg") == evaluated.document.count("<figure") >= 2
    assert f"All {len(short(model).gates) + len(short(model).behaviour)} gates passed" in (evaluated.document)
    for page in (explored, evaluated):
        assert not [part for part in ('src="http', 'href="http', "@import", "<script") if part in page.document]

    described = json.loads((done(model).work / "explore" / "profile.json").read_text())
    snapshot = ingested(Context(short(model), outputs, done(model).work, print))
    assert described["snapshot"] == snapshot.id
    assert json.loads(fetch(f"{snapshot.uri}/_profile.json")) == described


def test_a_version_holds_where_it_comes_from_and_what_it_is_for(run, fresh):
    run()
    (version,) = registry.versions(fresh.models["diabetes"].package_group)
    lineage = version.document(registry.LINEAGE_FILE)
    assert lineage["snapshot"]["rows"] == 442
    assert lineage["manifest"]["training"]["seed"] == short("diabetes").training.seed
    assert lineage["environment"].keys() >= {"python", "torch", "onnxruntime"}
    assert lineage["commit"]
    assert lineage["code"]
    card = version.document(registry.CARD_FILE)
    manifest = short("diabetes")
    text = json.dumps(card)
    assert manifest.description in text
    assert all(limit in text for limit in manifest.limits)
    assert all(use in text for use in manifest.data.allowed_use)


def test_what_was_cut_off_before_the_approval_goes_on_there(run, fresh):
    run()
    (version,) = registry.versions(fresh.models["diabetes"].package_group)
    (only,) = live(fresh).versions
    decide(version, "PendingManualApproval")
    boto3.client("ssm").put_parameter(
        Name=fresh.models["diabetes"].live_parameter, Value='{"versions": []}', Type="String", Overwrite=True
    )
    resumed, reported = run()
    assert (resumed.version, resumed.up_to_date) == (1, True)
    assert "approve: version 1 is live" in reported
    assert live(fresh).versions == (only,)


def test_a_rejection_is_not_undone_and_new_data_make_a_new_version(run, fresh, tmp_path):
    run()
    (version,) = registry.versions(fresh.models["diabetes"].package_group)
    decide(version, "Rejected")
    boto3.client("ssm").put_parameter(
        Name=fresh.models["diabetes"].live_parameter, Value='{"versions": []}', Type="String", Overwrite=True
    )
    with pytest.raises(PlatformError, match="version 1, of the same data, settings and code, was rejected"):
        run()
    assert registry.versions(fresh.models["diabetes"].package_group)[0].status == "Rejected"

    fewer = tmp_path / "fewer.csv"
    fewer.write_bytes(model_module("diabetes").raw_data().head(-40).write_csv().encode())
    assert run(source=fewer)[0].version == 2
    assert live(fresh).versions[0].version == 2


def test_a_comparison_or_a_rollback_is_not_undone(run, fresh, tmp_path):
    run()
    parameter = fresh.models["diabetes"].live_parameter
    one = live(fresh)
    canary = one.versions[0].model_copy(update={"version": 9})
    compared = rollout.deployed(one, canary.model_copy(update={"weight": 10}))
    rollout.write(parameter, compared, rollout.read(parameter))
    assert run()[0].note == ""
    assert live(fresh) == compared

    fewer = tmp_path / "fewer.csv"
    fewer.write_bytes(model_module("diabetes").raw_data().head(-30).write_csv().encode())
    waiting = run(source=fewer)[0]
    assert (waiting.version, waiting.up_to_date) == (2, False)
    assert "version 2 is approved but takes no traffic, as versions are compared: version 1 90%" in waiting.note
    assert registry.versions(fresh.models["diabetes"].package_group)[0].status == registry.APPROVED
    assert live(fresh) == compared

    rollout.write(parameter, one, rollout.read(parameter))  # as `mlp rollback` does
    again = run()[0]
    assert again.up_to_date
    assert "version 2 is approved but takes no traffic: version 1 100%; `mlp models approve" in again.note
    assert live(fresh) == one


def test_a_model_is_compared_with_the_live_version(run, fresh):
    run()
    context = Context(short("diabetes"), fresh, run.work, print)
    evaluate.step(context)
    record = json.loads((context.folder("evaluate") / evaluate.EVALUATION_FILE).read_text())
    assert record["comparison"] == {"version": 1, "gain": 0, "lower": 0, "upper": 0}  # it is the same


def test_a_failing_step_leaves_what_came_before_and_the_next_run_goes_on_there(run, fresh, monkeypatch):
    def no_room(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(optimise, "step", no_room)
        with pytest.raises(OSError, match="No space left"):
            run(again=["optimise"])
    context = Context(short("diabetes"), fresh, run.work, print)
    assert is_current("train", context)
    assert not is_current("optimise", context)
    assert registry.versions(fresh.models["diabetes"].package_group) == []
    trained: list[object] = []
    monkeypatch.setattr(train, "step", trained.append)
    result, _ = run()
    assert result.version == 1
    assert trained == []


def test_an_interrupt_registers_nothing(run, fresh):
    def interrupt(line: str) -> None:
        if line.startswith("epoch=2 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(again=["train"], report=interrupt)
    assert registry.versions(fresh.models["diabetes"].package_group) == []
    assert live(fresh).versions == ()


def test_a_gate_that_fails_registers_nothing_and_says_why(run, fresh, monkeypatch):
    real = evaluate.evaluate

    def worse(*arguments):
        found = real(*arguments)
        return evaluate.Evaluation(
            {**found.metrics, "r2": 0.1, "size_mb": 99.0}, found.slices, found.behaviour, found.comparison
        )

    monkeypatch.setattr(evaluate, "evaluate", worse)
    with pytest.raises(PlatformError) as caught:
        run(again=["evaluate"])
    first, *failed, last = str(caught.value).splitlines()
    assert re.fullmatch(r"diabetes is not registered, 2 of \d+ gates fail:", first)
    assert failed == ["  r2 is 0.1, allowed is at least 0.4", "  size_mb is 99, allowed is at most 2"]
    assert last.startswith("the report ")
    assert registry.versions(fresh.models["diabetes"].package_group) == []
    assert live(fresh).versions == ()


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
