"""`mlp models` and `mlp profile` over a registry in the emulated AWS that real trainings have filled."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from typer.testing import CliRunner

from cli.main import app
from contract.errors import PlatformError
from contract.service import LiveVersions, Rule
from embedded.local import Local
from tests.browser import needs_browser, open_page
from tests.training.environment import REGION, environment_of
from training import pipeline, rollout

MODEL = "diabetes"  # the fastest to train


@pytest.fixture(scope="module")
def platform(tmp_path_factory, outputs_document):
    """The laptop platform without its service, with two versions of a model, of which the second is live."""
    before = dict(os.environ)
    local = Local(tmp_path_factory.mktemp("platform"))
    os.environ["MLP_STATE"] = str(local.folder)
    local.start_aws()
    local.save_outputs(outputs_document)
    local.use_aws(REGION)
    environment_of(outputs_document)
    work = local.folder / "work" / MODEL
    pipeline.run(MODEL, outputs_document, work, lambda _: None)
    fewer = local.folder / "fewer.csv"
    text = _raw(outputs_document).splitlines(keepends=True)
    fewer.write_text("".join(text[:-20]))
    pipeline.run(MODEL, outputs_document, work, lambda _: None, fewer)
    yield local
    local.stop(lambda _: None)
    os.environ.clear()
    os.environ.update(before)


def _raw(outputs) -> str:
    objects = boto3.client("s3").list_objects_v2(Bucket=outputs.buckets.raw, Prefix=MODEL)["Contents"]
    return boto3.client("s3").get_object(Bucket=outputs.buckets.raw, Key=objects[0]["Key"])["Body"].read().decode()


@pytest.fixture
def mlp(platform):
    """Runs a command in this process; errors are raised as they are."""

    def run(*arguments):
        before = dict(os.environ)
        try:
            done = CliRunner().invoke(app, [str(each) for each in arguments])
        finally:
            os.environ.clear()
            os.environ.update(before)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(status=done.exit_code, out=done.stdout, json=lambda: json.loads(done.stdout))

    return run


def test_list_has_the_newest_first_with_its_share_and_metrics(mlp):
    second, first = mlp("models", "list", MODEL, "--json").json()
    assert [(each["version"], each["status"], each["traffic_percent"]) for each in (second, first)] == [
        (2, "Approved", 100),
        (1, "Approved", 0),
    ]
    assert first["metrics"]["r2"] > 0.4
    assert first["artifact"].startswith("s3://test-artifacts/diabetes/")
    shown = mlp("models", "list", MODEL).out
    assert "100%" in shown
    assert f"{first['metrics']['r2']:.6g}" in shown


def test_a_model_without_versions_says_how_to_make_one(mlp):
    assert mlp("models", "list", "digits", "--json").json() == []
    assert mlp("models", "list", "digits").status == 0


def test_show_has_metrics_card_and_lineage(mlp):
    document = mlp("models", "show", MODEL, 1, "--json").json()
    assert document["card"]["intended_uses"]["purpose_of_model"].startswith("Predicts the progression")
    assert document["lineage"]["manifest"]["training"]["seed"] == 7
    assert document["lineage"]["snapshot"]["rows"] == 442
    assert set(document["lineage"]["environment"]) >= {"python", "torch"}
    shown = mlp("models", "show", MODEL, 1).out
    for text in ("not a medical device", document["lineage"]["snapshot"]["id"], "metric r2", "training learning_rate"):
        assert text in shown


def test_diff_shows_what_differs_and_nothing_else(mlp):
    differences = mlp("models", "diff", MODEL, 1, 2, "--json").json()["differences"]
    assert differences["snapshot.rows"] == [442, 422]
    assert "metrics.r2" in differences
    assert not [name for name in differences if name.startswith(("manifest.", "environment.", "code"))]
    assert mlp("models", "diff", MODEL, 1, 1, "--json").json()["differences"] == {}
    assert "snapshot.rows" in mlp("models", "diff", MODEL, 1, 2).out


def test_a_live_version_is_not_rejected_and_approval_moves_the_traffic(mlp):
    with pytest.raises(
        PlatformError,
        match=r"version 2 of diabetes is live: version 2 100%; give another one all .*: "
        r"`mlp models approve diabetes N`, where N is 1$",
    ):
        mlp("models", "reject", MODEL, 2)
    assert mlp("models", "list", MODEL, "--json").json()[0]["status"] == "Approved"

    approved = mlp("models", "approve", MODEL, 1, "--json").json()
    assert approved == {"model": MODEL, "version": 1, "status": "Approved", "traffic_percent": 100}
    rejected = mlp("models", "reject", MODEL, 2, "--json").json()
    assert rejected == {"model": MODEL, "version": 2, "status": "Rejected", "traffic_percent": 0}
    second, first = mlp("models", "list", MODEL, "--json").json()
    assert (first["traffic_percent"], second["traffic_percent"], second["status"]) == (100, 0, "Rejected")
    assert second["metrics"]["r2"]  # the decision leaves the rest as it was
    assert mlp("models", "approve", MODEL, 2, "--json").json()["traffic_percent"] == 100


def test_a_version_that_is_live_by_a_rule_alone_is_not_rejected(mlp, outputs_document):
    parameter = outputs_document.models[MODEL].live_parameter
    before = rollout.read(parameter)
    (second,) = before.live.versions
    ruled = second.model_copy(update={"version": 1, "weight": 0, "rule": Rule(cohort="beta")})
    rollout.write(parameter, LiveVersions(versions=(second, ruled)), before)
    try:
        with pytest.raises(
            PlatformError,
            match=r"version 1 of diabetes is live: version 2 100%, version 1 0% and cohort beta; .* first: "
            r"`mlp promote diabetes --version N`, where N is 2$",
        ):
            mlp("models", "reject", MODEL, 1)
    finally:
        rollout.write(parameter, before.live, rollout.read(parameter), undo=True)
    assert [each["status"] for each in mlp("models", "list", MODEL, "--json").json()] == ["Approved", "Approved"]


def test_reproduce_trains_the_same_metrics_from_the_lineage(mlp):
    document = mlp("models", "reproduce", MODEL, 1, "--json").json()
    assert document["same"] is True
    assert document["metrics"]["r2"]["then"] == document["metrics"]["r2"]["now"]
    assert len(mlp("models", "list", MODEL, "--json").json()) == 2


def test_reproduce_says_so_if_the_metrics_differ(mlp, outputs_document):
    artifact = mlp("models", "show", MODEL, 2, "--json").json()["artifact"]
    key = artifact.removeprefix("s3://test-artifacts/").replace("model.tar.gz", "lineage.json")
    s3 = boto3.client("s3")
    lineage = json.loads(s3.get_object(Bucket="test-artifacts", Key=key)["Body"].read())
    forged = lineage | {"metrics": lineage["metrics"] | {"r2": 0.9}, "code": "of another day"}
    try:
        s3.put_object(Bucket="test-artifacts", Key=key, Body=json.dumps(forged))
        with pytest.raises(PlatformError, match="version 2 of diabetes is not reproduced: code: of another d"):
            mlp("models", "reproduce", MODEL, 2)
    finally:
        s3.put_object(Bucket="test-artifacts", Key=key, Body=json.dumps(lineage))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "nothing"), "unknown model 'nothing'"),
        (("show", MODEL, 9), "has no version 9; there are: 1, 2"),
        (("approve", MODEL, 9), "has no version 9; there are: 1, 2"),
        (("reject", "digits", 1), "has no version 1; there are: none yet"),
        (("diff", MODEL, 1, 9), "has no version 9; there are: 1, 2"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(mlp, arguments, said):
    with pytest.raises(PlatformError, match=said):
        mlp("models", *arguments)


def test_a_version_is_a_number(mlp):
    assert mlp("models", "show", MODEL, "latest").status == 2
    assert mlp("models", "show", MODEL, 0).status == 2


@needs_browser
def test_profile_shows_where_the_time_goes(mlp, tmp_path):
    document = mlp("profile", "train", MODEL, "--steps", 20, "--json").json()
    assert list(document["parts_ms"]) == ["data", "forward", "backward", "optimizer", "host"]
    assert all(document["parts_ms"][part] > 0 for part in ("data", "forward", "backward", "optimizer"))
    assert sum(document["parts_ms"].values()) == pytest.approx(document["step_ms"], rel=0.01)
    page = open_page(Path(document["page"]), tmp_path)
    assert page.console == []
    assert page.document.count("<svg") == 2
    for text in ("backward", "aten::", "Operators"):
        assert text in page.document


def test_profile_needs_rows(mlp):
    with pytest.raises(PlatformError, match="there are no rows to train digits on yet; run `mlp train digits`"):
        mlp("profile", "train", "digits")
