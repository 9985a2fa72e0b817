import json
import logging
from collections import Counter

import boto3
import pytest

from services.inference.app import create_app
from services.inference.logs import JsonFormatter
from tests.conftest import REGION
from tests.services.conftest import BUCKET, Linear, client_of, request


class Served:
    """A service whose follower runs when the test says so."""

    def __init__(self, environment):
        self.app = create_app(environment)
        self.client = client_of(self.app)

    def refresh(self):
        self.app.follower._pauses.clear()  # the pause is over
        self.app.follower.refresh()

    def answer(self, **more) -> str:
        answer = self.client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4], **more))
        assert answer.status_code == 200, answer.text
        return answer.json()["model_version"]

    def metadata(self):
        return self.client.get("/v2/models/digits").json()

    def metric(self, line: str) -> float:
        (found,) = [row for row in self.client.get("/metrics").text.splitlines() if row.startswith(line + " ")]
        return float(found.rpartition(" ")[2])


@pytest.fixture
def served(cloud) -> Served:
    return Served(cloud.environment)


@pytest.fixture
def version_1(cloud, served):
    """Version 1 is live."""
    live = cloud.live(1, Linear(1).archive())
    cloud.publish(live)
    served.refresh()
    assert served.answer() == "1"
    return live


def test_before_anything_is_live_the_service_runs_and_says_why_it_is_not_ready(served, cloud):
    ready = served.client.get("/v2/health/ready")
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "problems": {"digits": ["its live versions have not been read yet"]}}
    served.refresh()
    assert "there is no parameter /mlp/live/digits" in served.client.get("/v2/health/ready").text
    assert served.client.get("/v2/health/live").status_code == 200
    assert served.client.get("/ping").status_code == 503
    for path in ("/v2/models/digits", "/v2/models/digits/ready"):
        assert served.client.get(path).status_code == 503
        assert "there is no parameter" in served.client.get(path).text
    answer = served.client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4]))
    assert answer.status_code == 503
    assert "there is no parameter" in answer.json()["error"]
    cloud.publish()
    served.refresh()
    assert "no version is live: /mlp/live/digits lists none" in served.client.get("/v2/health/ready").text


def test_a_new_version_takes_over_and_the_old_one_is_let_go(served, cloud, version_1):
    cloud.publish(cloud.live(2, Linear(2).archive()))
    served.refresh()
    assert served.answer() == "2"
    assert served.metadata()["versions"] == ["2"]
    assert served.client.get("/v2/models/digits/versions/1").status_code == 404
    assert len(served.app.follower._loaded) == 1
    assert served.metric('mlp_version_share{model="digits",version="2"}') == 100
    assert 'mlp_version_share{model="digits",version="1"}' not in served.client.get("/metrics").text


def spoil(kind, cloud):
    archive = Linear(2).archive()
    if kind == "missing":
        return cloud.live(2, archive, artifact=f"s3://{BUCKET}/nowhere.tar.gz")
    if kind == "truncated":
        live = cloud.live(2, archive)
        cloud.s3.put_object(Bucket=BUCKET, Key=live.artifact.split("/", 3)[3], Body=archive[:100])
        return live
    if kind == "checksum":
        return cloud.live(2, archive, sha256="0" * 64)
    test = {"inputs": [[0, 0, 0, 0]], "outputs": {"label": [2], "probabilities": [[1, 0, 0]]}}
    return cloud.live(2, Linear(2, metadata={"self_test": test}).archive())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "NoSuchKey"),
        ("truncated", "its checksum is"),
        ("checksum", "its checksum is"),
        ("self-test", "its self-test fails"),
    ],
)
def test_a_version_that_cannot_serve_never_gets_traffic(served, cloud, version_1, kind, said, caplog):
    bad = spoil(kind, cloud)
    cloud.publish(bad)
    with caplog.at_level(logging.ERROR):
        served.refresh()
        served.refresh()
    assert served.answer() == "1"
    (reason,) = served.metadata()["problems"]
    assert said in reason
    assert f"version 2 ({bad.artifact}) is refused" in reason
    assert served.client.get("/v2/health/ready").status_code == 200
    assert [record.getMessage() for record in caplog.records] == [reason]  # once, not at each attempt
    assert served.metric('mlp_failed_loads_total{model="digits"}') == 2
    assert reason.replace('"', '\\"') in served.client.get("/v2/models/digits/versions/2").text


def test_a_refused_version_pauses_and_is_taken_when_it_is_mended(served, cloud, version_1):
    bad = spoil("truncated", cloud)
    cloud.publish(bad)
    served.refresh()
    cloud.s3.put_object(Bucket=BUCKET, Key=bad.artifact.split("/", 3)[3], Body=Linear(2).archive())
    served.app.follower.refresh()
    assert served.answer() == "1"
    assert served.metadata()["problems"]
    served.refresh()
    assert served.answer() == "2"
    assert served.metadata()["problems"] == []


def test_the_share_of_a_refused_version_goes_to_the_others(served, cloud, version_1):
    bad = spoil("checksum", cloud)
    cloud.publish(version_1.model_copy(update={"weight": 90}), bad.model_copy(update={"weight": 10}))
    served.refresh()
    assert {served.answer(id=str(number)) for number in range(50)} == {"1"}
    assert served.metric('mlp_version_share{model="digits",version="1"}') == 100
    fresh = Served(cloud.environment)  # a service that starts in this state
    fresh.refresh()
    assert fresh.answer() == "1"


def other_inputs(cloud, weight):
    return cloud.live(2, Linear(2, columns=5).archive(), weight)


@pytest.mark.parametrize("order", [1, -1])
def test_in_a_new_process_the_inputs_are_those_of_the_version_with_the_largest_share(served, cloud, order):
    cloud.publish(*[cloud.live(1, Linear(1).archive(), 90), other_inputs(cloud, 10)][::order])
    served.refresh()
    assert served.answer() == "1"
    (reason,) = served.metadata()["problems"]
    assert "its inputs are not those of version 1" in reason


def test_of_equal_shares_the_inputs_are_those_of_the_version_that_is_listed_first(served, cloud):
    cloud.publish(cloud.live(1, Linear(1).archive(), 50), other_inputs(cloud, 50))
    served.refresh()
    assert served.answer() == "1"


def test_until_that_version_can_be_fetched_no_other_takes_its_place(served, cloud, monkeypatch):
    first = cloud.live(1, Linear(1).archive(), 90)
    follower = served.app.follower
    download = follower._download

    def fail_first(uri):
        if uri == first.artifact:
            raise ConnectionError("S3 is away")
        return download(uri)

    monkeypatch.setattr(follower, "_download", fail_first)
    cloud.publish(other_inputs(cloud, 10), first)
    served.refresh()
    ready = served.client.get("/v2/health/ready")
    assert ready.status_code == 503
    refused, waits = ready.json()["problems"]["digits"]
    assert refused == f"version 1 ({first.artifact}) is refused: S3 is away"
    assert waits == "version 2 waits for version 1, whose inputs count: its share is larger"
    monkeypatch.undo()
    served.refresh()
    assert served.answer() == "1"
    assert "its inputs are not those of version 1" in served.metadata()["problems"][0]


def test_another_version_stands_in_for_a_spoiled_one_until_that_is_mended(served, cloud):
    first = cloud.live(1, Linear(1).archive(), 90)
    place = {"Bucket": BUCKET, "Key": first.artifact.split("/", 3)[3]}
    cloud.s3.put_object(**place, Body=b"spoiled")
    cloud.publish(first, other_inputs(cloud, 10))
    served.refresh()
    row = request([1, 2, 3, 4, 5])
    assert served.client.post("/v2/models/digits/infer", json=row).json()["model_version"] == "2"
    cloud.s3.delete_object(**place)
    served.refresh()
    assert served.client.post("/v2/models/digits/infer", json=row).json()["model_version"] == "2"
    cloud.s3.put_object(**place, Body=Linear(1).archive())
    served.refresh()
    assert served.answer() == "1"
    (reason,) = served.metadata()["problems"]
    assert "its inputs are not those of version 1" in reason


def test_other_inputs_can_be_served_after_all_versions_were_taken_off(served, cloud, version_1):
    cloud.publish(other_inputs(cloud, 100))
    served.refresh()
    assert served.answer() == "1"
    cloud.publish()
    served.refresh()
    cloud.publish(other_inputs(cloud, 100))
    served.refresh()
    assert served.metadata()["versions"] == ["2"]
    assert served.metadata()["problems"] == []


@pytest.mark.parametrize("value", ["", " ", "{", "[]", '{"versions": [{"version": 1}]}', '{"surprise": 1}'])
def test_a_spoiled_parameter_changes_nothing(served, cloud, version_1, value):
    cloud.publish_text(value or "null")
    served.refresh()
    assert served.answer() == "1"
    assert "the live versions cannot be read: parameter /mlp/live/digits" in served.metadata()["problems"][0]
    assert served.metric('mlp_failed_refreshes_total{model="digits"}') == 1
    cloud.publish(version_1)
    served.refresh()
    assert served.metadata()["problems"] == []


def test_without_ssm_and_s3_predictions_go_on(served, cloud, version_1):
    away = boto3.client("ssm", region_name=REGION, endpoint_url="http://127.0.0.1:9")
    follower = served.app.follower
    there, follower._ssm = follower._ssm, away
    served.refresh()
    assert served.answer() == "1"
    assert "Could not connect" in served.metadata()["problems"][0]
    follower._ssm = there
    follower._s3 = boto3.client("s3", region_name=REGION, endpoint_url="http://127.0.0.1:9")
    cloud.publish(cloud.live(2, Linear(2).archive()))
    served.refresh()
    assert served.answer() == "1"
    del follower._s3
    served.refresh()
    assert served.answer() == "2"


def test_a_deleted_parameter_changes_nothing_but_an_empty_one_takes_the_model_down(served, cloud, version_1):
    cloud.ssm.delete_parameter(Name="/mlp/live/digits")
    served.refresh()
    assert served.answer() == "1"
    cloud.publish()
    served.refresh()
    assert served.client.get("/v2/health/ready").status_code == 503
    assert served.client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4])).status_code == 503


def test_weights_share_the_traffic_by_the_hash_of_the_request_id(served, cloud, version_1):
    second, third = cloud.live(2, Linear(2).archive(), 30), cloud.live(3, Linear(3).archive(), 0)
    cloud.publish(version_1.model_copy(update={"weight": 70}), second, third)
    served.refresh()
    model = served.app.catalogue["digits"]
    chosen = {str(number): model.choose(str(number)).number for number in range(20_000)}
    counts = Counter(chosen.values())
    assert counts.keys() == {"1", "2"}
    assert abs(counts["2"] / 20_000 - 0.3) < 0.01
    assert [served.answer(id=key) for key in ("a", "b", "c", "d")] == [model.choose(key).number for key in "abcd"]
    assert all(model.choose(key).number == number for key, number in chosen.items())  # sticky
    assert served.client.get("/v2/models/digits/versions/3/ready").status_code == 200  # loaded, to be asked by number
    answer = served.client.post("/v2/models/digits/versions/3/infer", json=request([1, 2, 3, 4]))
    assert answer.json()["model_version"] == "3"
    before = served.app.follower._loaded.copy()
    cloud.publish(version_1.model_copy(update={"weight": 20}), second.model_copy(update={"weight": 80}), third)
    served.refresh()
    assert served.app.follower._loaded == before  # a change of weight loads nothing
    assert served.metadata()["shares"] == {"1": 20, "2": 80}


def test_several_models_have_versions_of_their_own(cloud):
    cloud.publish(cloud.live(1, Linear(1).archive()))
    served = Served(cloud.environment | {"MLP_MODELS": "digits,wine"})
    served.refresh()
    ready = served.client.get("/v2/health/ready")
    assert ready.status_code == 503
    assert list(ready.json()["problems"]) == ["wine"]
    assert served.answer() == "1"
    cloud.publish(cloud.live(4, Linear(4, columns=2, model="wine").archive(), model="wine"), model="wine")
    served.refresh()
    assert served.client.get("/v2/health/ready").json() == {"ready": True, "problems": {}}
    answer = served.client.post("/v2/models/wine/infer", json=request([1, 2]))
    assert (answer.json()["model_name"], answer.json()["model_version"]) == ("wine", "4")
    unnamed = served.client.post("/invocations", json=[[1, 2]])
    assert unnamed.status_code == 400
    assert "digits, wine" in unnamed.json()["error"]
    named = served.client.post("/invocations", json=[[1, 2]], headers={"X-Amzn-SageMaker-Target-Model": "wine"})
    assert len(named.json()["predictions"]) == 1


def test_a_log_line_is_json_with_its_fields():

    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "a\nb %s", "args": (1,), "model": "digits"}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) | {"time": 0} == {
        "time": 0,
        "level": "info",
        "logger": "x",
        "message": "a\nb 1",
        "model": "digits",
    }
