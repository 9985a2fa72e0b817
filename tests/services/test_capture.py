"""Prediction capture and feedback, through Firehose to S3, and what happens when Firehose is not there."""

import gzip
import hashlib
import hmac
import json
import sys
import threading
import time
import zlib
from collections import Counter

import boto3
import numpy as np
import pytest

from contract.capture import FEEDBACK_COLUMNS, PREDICTION_COLUMNS
from services.inference import aws, capture, hashes
from services.inference.app import create_app
from services.inference.capture import Stream
from services.inference.metrics import Metrics
from tests.conftest import REGION
from tests.services.conftest import BUCKET, Linear, client_of, request, take
from tests.services.models import OneNode
from tests.waiting import PATIENCE_S, wait_until

INFER = "/v2/models/digits/infer"
STREAMS = {"MLP_CAPTURE_STREAM": "predictions", "MLP_FEEDBACK_STREAM": "feedback"}


@pytest.fixture
def streams(cloud):
    """The two Firehose streams, and the lines that they have written to S3."""
    firehose = boto3.client("firehose", region_name=REGION)
    for name in STREAMS.values():
        destination = {"RoleARN": "arn:aws:iam::123456789012:role/firehose", "BucketARN": f"arn:aws:s3:::{BUCKET}"}
        firehose.create_delivery_stream(
            DeliveryStreamName=name, ExtendedS3DestinationConfiguration=destination | {"Prefix": f"{name}/"}
        )

    def lines(name):
        found = cloud.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", [])
        texts = [cloud.s3.get_object(Bucket=BUCKET, Key=of["Key"])["Body"].read().decode() for of in found]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    return lines


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A service in this process whose streams are flushed when the test says so."""

    def of(model, **environment):
        for name, content in model.files().items():
            (tmp_path / name).write_bytes(content)
        return create_app({"SM_MODEL_DIR": str(tmp_path), **STREAMS, **environment})

    return of


def test_predictions_reach_s3_as_typed_lines(serve, streams, linear):
    app = serve(linear)
    client = client_of(app)
    rows = [[1, 2.5, 3, 4], [0, 0, 0, 1]]
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    answer = client.post(INFER, json=request(*rows, id='my "id"'), headers={"traceparent": trace}).json()
    client.post("/invocations", json=rows)
    client.post(INFER, json={})  # what was refused is not captured
    app.flush()
    first, second = streams("predictions")
    assert first.keys() == PREDICTION_COLUMNS.keys() - {"hashed"}
    assert second.keys() == PREDICTION_COLUMNS.keys() - {"hashed", "trace_id"}
    assert (first["model"], first["version"], first["prediction_id"]) == ("digits", 1, 'my "id"')
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (first["rows"], first["inputs"]) == (2, [1, 2.5, 3, 4, 0, 0, 0, 1])
    assert first["outputs"] == {output["name"]: output["data"] for output in answer["outputs"]}
    assert 0 < first["latency_ms"] < 10_000
    assert abs(np.datetime64(first["time"]) - np.datetime64("now")) < np.timedelta64(60, "s")
    assert (second["rows"], second["inputs"]) == (2, [1, 2.5, 3, 4, 0, 0, 0, 1])
    assert 'mlp_capture_delivered_total{stream="predictions"} 2.0' in client.get("/metrics").text


def test_a_long_line_is_written_by_a_thread_and_none_is_lost_at_the_end(run_directory, streams):
    running = run_directory(Linear(), MLP_CAPTURE_STREAM="predictions")
    rows = [[number, 0, 0, 0.5] for number in range(1024)]
    for _ in range(5):
        assert running.infer(*rows).status_code == 200
    assert running.end() == 0
    lines = streams("predictions")
    assert [line["inputs"] for line in lines] == [[number for row in rows for number in row]] * 5


@pytest.fixture
def hash_key(emulated_aws):
    kms = boto3.client("kms", region_name=REGION)
    key = kms.create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/acme-test-hashes", TargetKeyId=key)
    return "alias/acme-test-hashes"


def test_sensitive_features_are_left_out_or_hashed(serve, streams, hash_key):
    model = Linear(metadata={"sensitive": {"x1": "omit", "x3": "hash"}})
    app = serve(model, MLP_HASH_KEY=hash_key)
    client = client_of(app)
    client.post(INFER, json=request([1, 22, 3, 44], [1, 55, 3, 44]))
    client.post("/invocations", json=[[1, 22, 3, 44]])
    app.flush()
    nested, invoked = streams("predictions")
    assert nested["inputs"] == [1, None, 3, None, 1, None, 3, None]
    message = b"ml-platform: hashes of sensitive features"
    answer = boto3.client("kms", region_name=REGION).generate_mac(
        KeyId=hash_key, MacAlgorithm="HMAC_SHA_256", Message=message
    )
    expected = hmac.new(answer["Mac"], b"digits/x3/44.0", hashlib.sha256).hexdigest()
    assert nested["hashed"] == {"x3": [expected, expected]}
    assert (invoked["inputs"], invoked["hashed"]) == ([1, None, 3, None], {"x3": [expected]})
    everything = json.dumps(nested) + json.dumps(invoked)
    assert "22" not in json.dumps(nested["inputs"])
    assert "44.0" not in everything.replace(expected, "")


@pytest.mark.parametrize(
    ("datatype", "value", "spelt"),
    [("FP32", 0.1, "0.1"), ("INT64", 12345, "12345"), ("BOOL", True, "1"), ("BYTES", "a", "a")],
)
def test_a_value_has_one_hash_however_it_comes_and_lines_keep_to_their_columns(
    serve, streams, hash_key, datatype, value, spelt
):
    model = OneNode(datatype, [["a", "b"] if datatype == "BYTES" else [1, 0]], sensitive={"b": "hash"})
    app = serve(model, MLP_HASH_KEY=hash_key)
    client = client_of(app)
    row = [value, value]
    body = request(row)
    body["inputs"][0]["datatype"] = datatype
    assert client.post(INFER.replace("digits", "same"), json=body).status_code == 200
    assert client.post("/invocations", json=[row]).status_code == 200
    app.flush()
    message = b"ml-platform: hashes of sensitive features"
    answer = boto3.client("kms", region_name=REGION).generate_mac(
        KeyId=hash_key, MacAlgorithm="HMAC_SHA_256", Message=message
    )
    expected = hmac.new(answer["Mac"], f"same/b/{spelt}".encode(), hashlib.sha256).hexdigest()
    lines = streams("predictions")
    assert len(lines) == 2
    for line in lines:
        assert line["hashed"] == {"b": [expected]}
        assert line["inputs"] == ([] if datatype == "BYTES" else [value, None])


@pytest.mark.parametrize("key", ["", "alias/none"])
def test_without_the_secret_what_is_to_be_hashed_is_left_out(serve, streams, key, caplog):
    """A hash without a secret tells its value to whoever tries the few that there can be."""
    model = Linear(metadata={"sensitive": {"x3": "hash"}})
    app = serve(model, **({"MLP_HASH_KEY": key} if key else {}))
    assert client_of(app).post(INFER, json=request([1, 22, 3, 44])).status_code == 200
    app.flush()
    (line,) = streams("predictions")
    assert (line["inputs"], line["hashed"]) == ([1, 22, 3, None], {"x3": [None]})
    assert ("sensitive features are not hashed but left out" in caplog.text) is bool(key)


def test_the_secret_comes_once_kms_answers_again(emulated_aws, hash_key, monkeypatch):
    monkeypatch.setattr(hashes, "_RETRY_S", 0.05)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    key = hashes.HashKey(hash_key)
    key.fetch()
    assert key.hash("digits", "x3", 44.0) is None
    monkeypatch.delenv("AWS_ENDPOINT_URL_KMS")
    wait_until(lambda: key.hash("digits", "x3", 44.0))


def test_a_share_of_the_requests_can_be_captured(serve, streams, linear):
    app = serve(linear, MLP_CAPTURE_PERCENT="20")
    client = client_of(app)
    for _ in range(200):
        client.post(INFER, json=request([1, 2, 3, 4]))
    app.flush()
    assert 10 < len(streams("predictions")) < 80


def test_feedback_reaches_s3_by_prediction_id(serve, streams, linear):
    app = serve(linear)
    client = client_of(app)
    path = "/v2/models/digits/feedback"
    answer = client.post(path, json={"id": "a", "label": 2})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert client.post(path, json=[{"id": "b", "label": 1, "row": 3}, {"id": "c", "label": 0.5}]).status_code == 202
    app.flush()
    lines = streams("feedback")
    assert all(line.keys() == FEEDBACK_COLUMNS.keys() for line in lines)
    assert [(line["prediction_id"], line["row"], line["label"]) for line in lines] == [
        ("a", 0, 2),
        ("b", 3, 1),
        ("c", 0, 0.5),
    ]
    assert 'mlp_feedback_total{model="digits"} 3.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "not valid JSON"),
        ("[]", "length >= 1"),
        ('{"id": "", "label": 1}', "length >= 1"),
        ('{"id": "a"}', "missing required field `label`"),
        ('{"id": "a", "label": "three"}', "Expected `float`, got `str`"),
        ('{"id": "a", "label": NaN}', "NaN is not a number in JSON"),
        ('{"id": "a", "label": 1, "surprise": 1}', "unknown field `surprise`"),
        ('{"id": "a", "label": 1, "row": -1}', ">= 0"),
        ('[{"id": "a", "label": 1}, {"id": "b"}]', "body[1]"),
    ],
)
def test_bad_feedback_is_refused(serve, linear, body, said):
    answer = client_of(serve(linear)).post("/v2/models/digits/feedback", content=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_feedback_may_be_compressed(serve, streams, linear):
    app = serve(linear, MLP_MAX_BODY_BYTES="1024")
    client, path, body = client_of(app), "/v2/models/digits/feedback", b'{"id": "a", "label": 2}'
    for name, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        answer = client.post(path, content=packed, headers={"content-encoding": name})
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1}), name
    app.flush()
    assert [line["prediction_id"] for line in streams("feedback")] == ["a"] * 3
    assert client.post(path, content=body, headers={"content-encoding": "gzip"}).status_code == 400
    assert client.post(path, content=body, headers={"content-encoding": "br"}).status_code == 415
    for content, encoding in ((b" " * 2000, "identity"), (gzip.compress(b" " * 2000), "gzip")):
        answer = client.post(path, content=content, headers={"content-encoding": encoding})
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")


def test_feedback_to_nowhere_is_refused(client, linear):
    answer = client.post("/v2/models/digits/feedback", json={"id": "a", "label": 1})
    assert answer.status_code == 404
    assert "MLP_FEEDBACK_STREAM" in answer.json()["error"]
    assert client.post("/v2/models/wine/feedback", json={"id": "a", "label": 1}).status_code == 404


def throttle(records):
    return 400, {"__type": "ThrottlingException", "message": "slow down"}


def refuse_all(records):
    error = {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "busy"}
    return 200, {"FailedPutCount": len(records), "RequestResponses": [error for _ in records]}


def counted(metrics):
    return {name: sum(metrics._counters.get(f"mlp_capture_{name}", {}).values()) for name in ("delivered", "lost")}


def test_a_throttled_batch_is_sent_again(firehose):
    firehose.plan = [throttle, refuse_all, take]
    metrics = Metrics()
    stream = Stream("s", metrics)
    assert all(stream.put(b"{}\n") for _ in range(10))
    stream.flush()
    assert counted(metrics) == {"delivered": 10, "lost": 0}
    assert firehose.taken == [[b"{}\n" * 10]]  # ten lines in one record


def test_a_call_that_fails_is_sent_whole_again(firehose, monkeypatch):
    """By botocore: it has to read the pieces of the body once for the signature, and once for each attempt."""
    monkeypatch.setattr("services.inference.capture._ATTEMPTS", 1)
    firehose.plan = [lambda _: (500, {}), take]
    stream = Stream("s", Metrics())
    lines = [b"%06d" % number * 1000 for number in range(100)]
    for line in lines:
        stream.put(line)
    stream.flush()
    (call,) = firehose.taken
    assert len(call) > 1
    assert b"".join(call) == b"".join(lines)


@pytest.mark.parametrize("behave", [throttle, refuse_all])
def test_what_is_never_taken_is_counted(firehose, behave):
    firehose.plan = [behave]
    metrics = Metrics()
    stream = Stream("s", metrics)
    for _ in range(10):
        stream.put(b"{}\n")
    stream.flush()
    assert counted(metrics) == {"delivered": 0, "lost": 10}


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"FailedPutCount": 1, "RequestResponses": []},
        {"FailedPutCount": 1},
        {"FailedPutCount": 1, "RequestResponses": 1},
    ],
)
def test_an_answer_that_is_none_of_firehoses_is_a_failure_like_others(firehose, monkeypatch, odd):
    monkeypatch.setattr("services.inference.capture._INTERVAL_S", 0.05)
    firehose.plan = [lambda _: (200, odd)] * capture._ATTEMPTS + [take]
    metrics = Metrics()
    stream = Stream("s", metrics)
    stream.start()
    stream.put(b"a")
    wait_until(lambda: counted(metrics)["lost"] == 1)
    stream.put(b"b")
    wait_until(lambda: counted(metrics)["delivered"] == 1)
    stream.close()
    assert firehose.taken == [[b"b"]]


def test_what_comes_while_the_last_call_is_under_way_is_sent_too(firehose):
    metrics = Metrics()
    stream = Stream("s", metrics)
    busy = threading.Event()

    def take_slowly(records):
        busy.set()
        time.sleep(0.5)
        return take(records)

    firehose.plan = [take_slowly, take]
    stream.start()
    stream.put(b"a")
    stream._wake.set()
    assert busy.wait(PATIENCE_S)
    stream.put(b"b")
    stream.close()
    assert firehose.taken == [[b"a"], [b"b"]]
    assert counted(metrics) == {"delivered": 2, "lost": 0}


@pytest.fixture
def hanging(firehose):
    """A Firehose that does not answer: when it has been called, and what lets it go on."""
    begun, over = threading.Event(), threading.Event()

    def hang(records):
        begun.set()
        over.wait(PATIENCE_S)
        return take(records)

    firehose.plan = [hang]
    return begun, over


def test_what_is_under_way_at_the_end_counts_as_lost(hanging, caplog):
    begun, over = hanging
    metrics = Metrics()
    stream = Stream("s", metrics)
    stream.start()
    stream.put(b"a")
    stream._wake.set()
    assert begun.wait(PATIENCE_S)
    stream.put(b"b")
    stream.close(0.1)
    assert counted(metrics) == {"delivered": 0, "lost": 2}
    assert "captured lines were lost at the end" in caplog.text
    over.set()
    stream._thread.join(PATIENCE_S)


def test_many_streams_end_together(serve, linear, firehose, monkeypatch):
    monkeypatch.setattr("services.inference.app.CLOSE_S", PATIENCE_S)
    monkeypatch.setattr("services.inference.capture._INTERVAL_S", 600)
    both = threading.Barrier(2, timeout=PATIENCE_S)
    firehose.plan = [lambda records: (both.wait(), take(records))[1]]
    app = serve(linear)
    app.start()
    for stream in app.streams.values():
        stream.put(b"a")
    app.stop()
    assert counted(app.metrics) == {"delivered": 2, "lost": 0}


def test_many_streams_share_the_time_there_is_at_the_end(serve, linear, hanging, monkeypatch):
    monkeypatch.setattr("services.inference.app.CLOSE_S", 0.3)
    _, over = hanging
    app = serve(linear)
    app.start()
    for stream in app.streams.values():
        stream.put(b"a")
    patience, close = [], Stream.close
    monkeypatch.setattr(Stream, "close", lambda stream, seconds: (patience.append(seconds), close(stream, seconds)))
    app.stop()
    assert sum(patience) <= 0.3
    assert counted(app.metrics) == {"delivered": 0, "lost": 2}
    over.set()
    for stream in app.streams.values():
        stream._thread.join(PATIENCE_S)


def test_lines_are_packed_within_the_limits_of_firehose(firehose):
    metrics = Metrics()
    stream = Stream("s", metrics)
    lines = [b"%d" % number + b"x" * size for number, size in enumerate((10, 30_000, 900_000, 30_000, 10, 600_000))]
    lines += [b"y" * 1000] * 6000
    assert all(stream.put(line) for line in lines)
    stream.flush()
    assert b"".join(record for call in firehose.taken for record in call) == b"".join(lines)
    for call in firehose.taken:
        assert len(call) <= 500
        assert all(len(record) <= 1000 * 1024 for record in call)
        assert sum(len(record) for record in call) < 4 * 2**20
    assert counted(metrics) == {"delivered": len(lines), "lost": 0}


def test_a_call_has_no_more_records_than_firehose_takes(firehose):
    stream = Stream("s", Metrics())
    for _ in range(1100):
        stream.put(b"x")
        stream._pack()
    stream.flush()
    assert [len(call) for call in firehose.taken] == [500, 500, 100]


def test_a_line_too_long_for_firehose_is_counted_and_takes_no_other_with_it(firehose):
    metrics = Metrics()
    stream = Stream("s", metrics)
    assert [stream.put(line) for line in (b"a", b"x" * 1000 * 1024, b"x" * (1000 * 1024 + 1), b"b")] == [1, 1, 0, 1]
    stream.flush()
    assert counted(metrics) == {"delivered": 3, "lost": 1}


def test_no_line_is_lost_or_doubled_while_records_are_packed_by_two_threads(firehose):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads meet everywhere
    metrics = Metrics()
    stream = Stream("s", metrics)
    lines = [b"%06d" % number * 100 for number in range(20_000)]
    over = threading.Event()

    def pack():
        while not over.is_set():
            stream._pack()

    thread = threading.Thread(target=pack)
    thread.start()
    for line in lines:
        assert stream.put(line)
    over.set()
    thread.join()
    sys.setswitchinterval(interval)
    stream.flush()
    sent = b"".join(record for call in firehose.taken for record in call)
    assert sorted(sent[i : i + 600] for i in range(0, len(sent), 600)) == lines
    assert counted(metrics) == {"delivered": len(lines), "lost": 0}


def test_as_much_as_a_call_takes_is_sent_without_a_wait(firehose, monkeypatch):
    monkeypatch.setattr("services.inference.capture._INTERVAL_S", 600)
    metrics = Metrics()
    stream = Stream("s", metrics)
    stream.start()
    lines = capture._MAX_BATCH_BYTES // 1000 + 100
    for _ in range(lines):
        stream.put(b"x" * 1000)
    wait_until(lambda: counted(metrics)["delivered"] > lines - 200)
    stream.close()
    assert counted(metrics) == {"delivered": lines, "lost": 0}


def test_without_a_client_lines_are_counted_until_there_is_one(firehose, monkeypatch):
    failures = [RuntimeError("no region")] * 4  # when the thread starts, and in three attempts

    def client(service):
        if failures:
            raise failures.pop()
        return aws.client(service)

    monkeypatch.setattr("services.inference.capture.client", client)
    monkeypatch.setattr("services.inference.capture._INTERVAL_S", 0.05)
    metrics = Metrics()
    stream = Stream("s", metrics)
    stream.put(b"a")
    stream.start()
    wait_until(lambda: counted(metrics)["lost"])
    stream.put(b"b")
    wait_until(lambda: counted(metrics)["delivered"])
    stream.close()
    assert counted(metrics) == {"delivered": 1, "lost": 1}


def test_a_full_queue_refuses_and_counts(firehose, monkeypatch):
    monkeypatch.setattr("services.inference.capture._MAX_PENDING_BYTES", 100)
    metrics = Metrics()
    stream = Stream("s", metrics)
    taken = sum(stream.put(b"x" * 30) for _ in range(10))
    assert taken == 4
    assert counted(metrics) == {"delivered": 0, "lost": 6}


def load(running, seconds):
    """Ask for predictions; how they were answered."""
    answers, end = Counter(), time.monotonic() + seconds
    while time.monotonic() < end:
        answers[running.infer().status_code] += 1
    return answers


@pytest.mark.parametrize(("fault", "said"), [("away", "Could not connect"), ("throttling", "ThrottlingException")])
def test_without_firehose_predictions_go_on_and_the_loss_is_counted(run_directory, firehose, monkeypatch, fault, said):
    """With a process: capture runs in the background, Firehose refuses everything."""
    firehose.plan = [throttle]
    if fault == "away":
        monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", "http://127.0.0.1:9")
    running = run_directory(Linear(), MLP_CAPTURE_STREAM="predictions")
    assert load(running, 1.5).keys() == {200}
    wait_until(lambda: running.metric('mlp_capture_lost_total{stream="predictions"}') > 0)
    assert running.end() == 0
    lost = [line for line in running.log() if line["message"] == "captured lines are lost"]
    assert len(lost) == 1  # once, not each time
    assert said in lost[0]["reason"]


def test_a_firehose_that_hangs_holds_nothing_up_and_gets_all_lines_later(run_directory, hanging):
    begun, over = hanging
    running = run_directory(Linear(), MLP_CAPTURE_STREAM="predictions")
    answers = load(running, 0.1)
    assert begun.wait(PATIENCE_S)
    answers += load(running, 1)
    assert answers.keys() == {200}
    assert running.metric('mlp_capture_delivered_total{stream="predictions"}') == 0
    over.set()
    count = answers[200]
    wait_until(lambda: running.metric('mlp_capture_delivered_total{stream="predictions"}') == count)


def test_what_is_queued_is_sent_before_the_end(run_directory, streams):
    running = run_directory(Linear(), MLP_CAPTURE_STREAM="predictions")
    for _ in range(7):
        assert running.infer().status_code == 200
    assert running.end() == 0
    assert len(streams("predictions")) == 7
