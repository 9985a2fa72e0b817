"""The main job, with real processes: up, predict, kill, repair, retrain, down. The tests run in their order."""

import json
import os
import pty
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import boto3
import numpy as np
import polars as pl
import psutil
import pytest

from contract.manifest import model_names
from contract.paths import MODELS
from embedded.local import aws_environment
from embedded.processes import Processes
from tests.browser import browser, needs_browser
from tests.conftest import REGION
from tests.e2e.conftest import MLP
from tests.e2e.rollout_traffic import Users, version_of, versions
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(mlp, monkeypatch):
    """An AWS client of the platform's own emulated AWS."""
    process = Processes(mlp.folder).get("aws")
    for name, value in aws_environment(process, REGION).items():
        monkeypatch.setenv(name, value)
    return lambda service: boto3.client(service, region_name=REGION)


def outputs(mlp):
    return json.loads((mlp.folder / "outputs.json").read_text())


def test_before_anything_is_up_commands_say_so(mlp):
    assert mlp.json("status", fails=True)["state"] == "down"
    assert "run `mlp up`" in mlp("predict", "digits", fails=True).stderr
    assert "run `mlp up`" in mlp("train", "digits", fails=True).stderr
    for command in (
        ("deploy", "digits", "--version", "1"),
        ("promote", "digits"),
        ("rollback", "digits"),
        ("experiment", "digits"),
        ("score", "digits", "--input", "in.csv", "--output", "out.parquet"),
    ):
        assert mlp(*command, fails=True).stderr == "error: the platform is not up; run `mlp up`\n"
    assert mlp.json("down") == {"stopped": []}


def test_an_interrupted_up_leaves_no_child_and_can_go_on(mlp):
    with subprocess.Popen([MLP, "up"], env=mlp.environment, stderr=subprocess.PIPE, text=True) as up:
        for line in up.stderr:
            if "epoch=" in line:
                break
        up.send_signal(signal.SIGINT)
        error = up.stderr.read()
        up.wait(PATIENCE_S)
    assert up.returncode == 1
    assert "interrupted" in error
    assert "Traceback" not in error
    assert mlp.json("status", fails=True)["state"] == "degraded"


def test_up_ends_with_a_prediction(mlp):
    answer = mlp.json("up")
    assert answer["predictions"]["digits"]["label"] == [
        json.loads((MODELS / "digits/sample.json").read_text())["label"]
    ]
    status = mlp.json("status")
    assert status["state"] == "up"
    assert status["endpoint"] == answer["endpoint"]
    assert {process["name"]: process["state"] for process in status["processes"]} == {
        "aws": "running",
        "inference": "running",
    }
    assert {model["name"]: model["versions"] for model in status["models"]} == {name: ["1"] for name in model_names()}
    assert "MLP_METRICS_NAMESPACE" not in mlp.process("inference").environ()  # a laptop's log makes no metrics
    for page in ("demo", "docs", "metrics"):
        with urllib.request.urlopen(answer[page]) as response:
            assert response.status == 200


@needs_browser
def test_the_page_reads_a_digit_in_the_api_and_in_the_browser_by_the_same_model(mlp, tmp_path):
    with browser(tmp_path) as chromium:
        tab = chromium.tab()
        tab.open(mlp.json("status")["demo"])
        for digit in (3, 7):
            tab.click(f"#samples button:nth-child({digit + 1})")
            tab.wait(f"document.querySelector('#verdict').textContent.startsWith('Both say {digit}')")
        assert tab.text("#browser-version") == tab.text("#api-version") == "1"
        assert tab.errors() == []


def test_the_lake_registry_and_stack_are_really_there(mlp, client):
    buckets = outputs(mlp)["buckets"]
    listing = client("s3").list_objects_v2(Bucket=buckets["curated"], Prefix="digits/")["Contents"]
    assert any(item["Key"].endswith(".parquet") for item in listing)
    group = outputs(mlp)["models"]["digits"]["package_group"]
    (package,) = client("sagemaker").list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert package["ModelApprovalStatus"] == "Approved"
    assert client("s3").get_bucket_versioning(Bucket=buckets["raw"])["Status"] == "Enabled"


def test_a_second_up_changes_nothing_and_says_so(mlp):
    before = mlp.json("status")
    said = mlp("up").stderr
    assert "nothing to change" in said
    assert "version 1 is up to date" in said
    assert mlp.json("status") == before


def test_predict_reads_rows_requests_and_the_shipped_sample(mlp, tmp_path):
    row = json.loads((MODELS / "digits/sample.json").read_text())["instances"][0]
    expected = mlp.json("predict", "digits")["outputs"]
    for content in ([row], row, {"instances": [row]}):
        file = tmp_path / "rows.json"
        file.write_text(json.dumps(content))
        assert mlp.json("predict", "digits", "--file", str(file))["outputs"] == expected
    assert mlp.json("predict", "digits", "--file", "sample.json")["outputs"] == expected
    assert "probabilities" in mlp("predict", "digits").stdout


BINARY = {
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 64], "data": [0] * 64}],
    "parameters": {"binary_data_output": True},
}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "cannot be read as JSON"),
        ('{"rows": []}', "must hold a list of rows"),
        ("[[1, 2, 3]]", "400"),
        (json.dumps(BINARY), "answered with binary data, which is not shown here"),
    ],
)
def test_predict_explains_a_bad_file(mlp, tmp_path, content, said):
    file = tmp_path / "bad.json"
    file.write_text(content)
    assert said in mlp("predict", "digits", "--file", str(file), fails=True).stderr


def test_predict_explains_an_unknown_model_and_a_missing_file(mlp):
    assert "unknown model 'digit'" in mlp("predict", "digit", fails=True).stderr
    assert "does not exist" in mlp("predict", "digits", "--file", "no-such.json", fails=True).stderr


def test_logs_show_what_the_processes_wrote(mlp):
    assert mlp("logs", "inference").stdout
    assert "aws | " in mlp("logs", "--lines", "3").stdout
    assert "there are: aws, inference" in mlp("logs", "nothing", fails=True).stderr


def test_a_killed_service_is_seen_and_repaired(mlp):
    mlp.process("inference").kill()
    wait_until(lambda: mlp.json("status", fails=True)["state"] == "degraded")
    assert "inference died" in mlp("status", fails=True).stdout
    said = mlp("deploy", "digits", "--version", "1", fails=True).stderr
    assert said == "error: the inference service is not running; run `mlp up`\n"
    said = mlp("up").stderr
    assert "version 1 is up to date" in said
    assert mlp.json("status")["state"] == "up"


def test_a_corrupt_raw_file_is_refused_and_changes_nothing(mlp, client, tmp_path):
    buckets = outputs(mlp)["buckets"]
    before = client("s3").get_object(Bucket=buckets["raw"], Key="digits/digits.csv")["ETag"]
    corrupt = tmp_path / "corrupt.csv"
    corrupt.write_bytes(b"\x00\x01 this is not a table")
    assert "corrupt.csv" in mlp("train", "digits", "--from", str(corrupt), fails=True).stderr
    assert client("s3").get_object(Bucket=buckets["raw"], Key="digits/digits.csv")["ETag"] == before
    assert mlp.json("status")["models"][0]["versions"] == ["1"]


def test_new_data_makes_a_new_version_that_the_service_takes_up(mlp, client, tmp_path):
    raw = client("s3").get_object(Bucket=outputs(mlp)["buckets"]["raw"], Key="digits/digits.csv")["Body"].read()
    fresh = tmp_path / "fresh.csv"
    fresh.write_bytes(b"\n".join(raw.splitlines()[:-100]) + b"\n")
    trained = mlp.json("train", "digits", "--from", str(fresh))
    assert trained["version"] == 2
    wait_until(lambda: mlp.json("predict", "digits")["model_version"] == "2")


@pytest.fixture
def users(mlp):
    users = Users(mlp.json("status")["endpoint"], 400)
    yield users
    users.client.close()


def live(mlp) -> dict[int, int]:
    listed = mlp.json("models", "list", "digits")
    return {each["version"]: each["traffic_percent"] for each in listed if each["traffic_percent"]}


def test_a_deployed_version_gets_its_share_and_its_users_stay_with_it(mlp, users):
    assert mlp.json("rollback", "digits")["live"] == [{"version": 1, "weight": 100}]
    shares = {}
    for weight in (10, 50):  # a share that grows keeps its users
        before = shares
        done = mlp.json("deploy", "digits", "--version", "2", "--weight", str(weight))
        assert done["live"] == [{"version": 1, "weight": 100 - weight}, {"version": 2, "weight": weight}]
        assert done["changed"]
        shares = {"1": 100 - weight, "2": weight}
        expected = [version_of(name, shares) for name in users.names]
        assert versions(users.ask()) == versions(users.ask()) == expected
        assert abs(expected.count("2") - 4 * weight) < 40
        if before:
            assert {n for n in users.names if version_of(n, before) == "2"} < {
                n for n, version in zip(users.names, expected, strict=True) if version == "2"
            }
    assert not mlp.json("deploy", "digits", "--version", "2", "--weight", "50")["changed"]


def test_an_up_does_not_end_a_comparison(mlp):
    assert "version 2 is up to date" in mlp("up").stderr
    assert live(mlp) == {1: 50, 2: 50}


def test_an_experiment_ends_with_a_verdict(mlp, users):
    users.tell(users.ask(), wrong="1")

    def labelled():
        found = mlp.json("experiment", "digits")
        return sum(each["labelled"] for each in found["versions"]) == 400 and found

    wait_until(labelled)
    found = labelled()
    assert (found["quality"], found["baseline"]) == ("accuracy", 1)
    assert "two-proportion z-test" in found["test"]
    first, second = found["versions"]
    for each in (first, second):
        assert each["live"]
        assert each["errors"] == 0
        assert each["requests"] >= 150  # since the service was started: these, or more
        assert 0 < each["latency_ms"]["p50"]["value"] <= each["latency_ms"]["p95"]["value"]
        assert each["quality"]["low"] < each["quality"]["value"] <= each["quality"]["high"] + 1e-9
    assert (first["verdict"], second["verdict"]) == ("baseline", "better")
    assert second["p_value"] < 0.001
    assert second["difference"] == pytest.approx(second["quality"]["value"] - first["quality"]["value"])
    shown = mlp("experiment", "digits").stdout
    assert "better" in shown
    assert "accuracy" in shown
    assert "worse" in mlp("experiment", "digits", "--baseline", "2").stdout
    assert "--baseline 7: nothing was captured of it; there are: 1, 2" in (
        mlp("experiment", "digits", "--baseline", "7", fails=True).stderr
    )
    assert "no labels" in mlp("experiment", "diabetes").stdout


def test_a_rule_sends_a_cohort_to_its_version(mlp, users):
    mlp("deploy", "digits", "--version", "2", "--weight", "0", "--rule", "cohort=beta")
    assert set(versions(users.ask())) == {"1"}
    assert set(versions(users.ask(x_cohort="beta"))) == {"2"}


def test_promotion_and_rollback(mlp, users):
    assert mlp.json("promote", "digits")["live"] == [{"version": 2, "weight": 100}]
    assert set(versions(users.ask(x_cohort="beta"))) == {"2"}
    back = mlp.json("rollback", "digits")
    assert back["live"] == [{"version": 1, "weight": 100}, {"version": 2, "weight": 0}]
    assert set(versions(users.ask(x_cohort="beta"))) == {"2"}  # the rule is back as well
    assert mlp.json("deploy", "digits", "--version", "2")["live"] == [{"version": 2, "weight": 100}]
    said = mlp("promote", "digits", fails=True).stderr
    assert "there is nothing to promote: version 2 100%; `mlp deploy` adds a version" in said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--version", "9", "--weight", "10"), 1, "has no version 9; there are: 1, 2"),
        (("--version", "2", "--weight", "40"), 1, "would be the only one that takes traffic"),
        (("--version", "1", "--weight", "101"), 2, "--weight"),
        (("--version", "0"), 2, "--version"),
        (("--version", "1", "--rule", "beta"), 1, "allowed are cohort=<name>"),
        (("--version", "1", "--env", "nowhere"), 1, "nowhere"),
    ],
)
def test_what_cannot_be_deployed_is_told_and_changes_nothing(mlp, arguments, status, said):
    done = mlp("deploy", "digits", *arguments, fails=True)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert live(mlp) == {2: 100}


def test_a_poisoned_artifact_is_refused_and_all_is_as_it_was(mlp, client, users, tmp_path):
    (first,) = [each for each in mlp.json("models", "list", "digits") if each["version"] == 1]
    bucket, _, key = first["artifact"].removeprefix("s3://").partition("/")
    good = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    client("s3").put_object(Bucket=bucket, Key=key, Body=good[:-1])
    done = mlp("deploy", "digits", "--version", "1", "--weight", "10", fails=True)
    assert done.returncode == 1
    assert "the service refuses it, so that all is as it was before: version 1 (s3://" in done.stderr
    assert "its checksum is" in done.stderr
    assert live(mlp) == {2: 100}
    assert set(versions(users.ask())) == {"2"}
    source = tmp_path / "in.csv"
    source.write_text(",".join(f"pixels_{i}" for i in range(64)) + "\n" + ",".join(["0"] * 64))
    arguments = ("--input", str(source), "--output", str(tmp_path / "out.parquet"), "--version", "1")
    assert "is refused: its checksum is" in mlp("score", "digits", *arguments, fails=True).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    client("s3").put_object(Bucket=bucket, Key=key, Body=good)


def test_a_rejected_version_is_neither_deployed_nor_brought_back(mlp):
    mlp("models", "reject", "digits", "1")  # which was live before version 2 was
    for command in (("deploy", "digits", "--version", "1"), ("rollback", "digits")):
        said = mlp(*command, fails=True).stderr
        assert "version 1 is not approved, but Rejected; `mlp models approve` approves a version" in said
    assert live(mlp) == {2: 100}


def test_score_gives_what_the_service_gives(mlp, users, tmp_path):
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    columns = [f"pixels_{i}" for i in range(64)]
    pl.DataFrame(users.rows, schema=columns, orient="row").with_columns(name=pl.Series(users.names)).write_csv(source)
    done = mlp.json("score", "digits", "--input", str(source), "--output", str(output))
    assert {name: done[name] for name in ("version", "rows", "errors", "resumed")} == {
        "version": 2,
        "rows": 400,
        "errors": 0,
        "resumed": 0,
    }
    table = pl.read_parquet(output)
    answers = [{each["name"]: each["data"] for each in answer["outputs"]} for answer in users.ask()]
    assert table["label"].to_list() == [answer["label"][0] for answer in answers]
    expected = [answer["probabilities"] for answer in answers]
    assert np.allclose(table["probabilities"].to_numpy(), expected, atol=1e-4)
    assert table["name"].to_list() == users.names
    screen, terminal = pty.openpty()
    arguments = ("--input", str(source), "--output", str(output))
    subprocess.run([MLP, "score", "digits", *arguments], env=mlp.environment, stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert re.search(r"Score digits by version 2 .*100%.* 400 rows, [\d,]+ rows/s", shown), shown
    source.write_text("pixels_0,pixels_1\n1,2\n")
    said = mlp("score", "digits", "--input", str(source), "--output", str(output), fails=True).stderr
    assert "lacks pixels_10, pixels_11, pixels_12" in said or "lacks pixels_2, pixels_3" in said


def test_a_broken_artifact_never_gets_traffic(mlp, client):
    parameter = outputs(mlp)["models"]["digits"]["live_parameter"]
    good = client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    broken = json.loads(good)
    broken["versions"][0] |= {"version": 9, "artifact": broken["versions"][0]["artifact"] + ".missing"}
    client("ssm").put_parameter(Name=parameter, Value=json.dumps(broken), Overwrite=True)
    wait_until(lambda: ".missing" in mlp("logs", "inference").stdout)
    assert mlp.json("predict", "digits")["model_version"] == "2"
    client("ssm").put_parameter(Name=parameter, Value=good, Overwrite=True)


def test_a_killed_emulator_is_seen_and_everything_is_built_again(mlp):
    mlp.process("aws").kill()
    wait_until(lambda: mlp.json("status", fails=True)["state"] == "degraded")
    assert "created" in mlp("up").stderr
    assert mlp.json("status")["models"][0]["versions"] == ["1"]
    assert mlp.json("predict", "digits")["model_version"] == "1"


def test_a_taken_port_is_refused_before_anything_changes(mlp):
    before = mlp.json("status")
    taken = mlp.process("aws").net_connections()[0].laddr.port
    assert f"port {taken} cannot be used" in mlp("up", "--port", str(taken), fails=True).stderr
    assert mlp.json("status") == before


def test_two_commands_at_a_time_do_not_mix(mlp):
    import fcntl

    with (mlp.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another mlp command" in mlp("up", fails=True).stderr


def test_down_leaves_no_process_behind(mlp):
    pids = [process["pid"] for process in mlp.json("status")["processes"]]
    assert mlp.json("down") == {"stopped": ["inference", "aws"]}
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert mlp.json("status", fails=True)["state"] == "down"


def test_a_state_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    environment = os.environ | {"MLP_STATE": str(tmp_path / "file" / "state")}
    done = subprocess.run([MLP, "up"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"cannot write {Path(environment['MLP_STATE'])}" in done.stderr
    assert "Traceback" not in done.stderr
