"""W3C trace context goes through: into answers, logs and spans."""

import http.server
import json
import socket
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.inference.tracing import read_trace
from tests.services.conftest import Linear, request
from tests.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
INFER = "/v2/models/digits/infer"


def test_the_answer_continues_the_trace(client):
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1"}
    answer = client.post(INFER, json=request([1, 2, 3, 4]), headers=headers)
    version, trace, span, flags = answer.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != PARENT
    assert len(span) == 16
    assert answer.headers["tracestate"] == "vendor=1"
    refused = client.post(INFER, json={}, headers=headers)
    assert refused.headers["traceparent"].split("-")[1] == TRACE
    assert "traceparent" not in client.post(INFER, json=request([1, 2, 3, 4])).headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/models/digits", 200),
        ("GET", "/v2/models/digits/versions/1", 200),
        ("GET", "/v2/models/wine", 404),
        ("GET", "/v2/models/digits/versions/1/model.onnx", 403),
        ("POST", "/v2/models/digits/feedback", 404),  # kept nowhere
        ("DELETE", "/v2/models/digits", 405),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/assets/swagger-ui.css", 200),
        ("GET", "/", 200),
        ("GET", "/nothing/here", 404),
    ],
)
def test_every_other_route_continues_the_trace_too(client, method, path, status):
    answer = client.request(method, path, headers={"traceparent": SAMPLED, "tracestate": "vendor=1"})
    assert answer.status_code == status
    version, trace, span, flags = answer.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != PARENT
    assert answer.headers["tracestate"] == "vendor=1"
    plain = client.request(method, path)
    assert plain.status_code == status
    assert not {"traceparent", "tracestate"} & set(plain.headers)
    invalid = client.request(method, path, headers={"traceparent": "x", "tracestate": "vendor=1"})
    assert not {"traceparent", "tracestate"} & set(invalid.headers)
    assert {name: plain.headers[name] for name in plain.headers if name != "date"}.items() <= answer.headers.items()


def test_a_state_in_several_headers_is_passed_on_whole(client):
    headers = [("traceparent", SAMPLED), ("tracestate", "a=1,b=2"), ("x", "y"), ("tracestate", "c=3")]
    for answer in (
        client.get("/v2/models/digits", headers=headers),
        client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4]), headers=headers),
    ):
        assert answer.status_code == 200
        assert answer.headers.get_list("tracestate") == ["a=1,b=2,c=3"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
    ],
)
def test_an_invalid_trace_is_ignored(client, header):
    answer = client.post(INFER, json=request([1, 2, 3, 4]), headers={"traceparent": header})
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers


def test_a_later_version_of_the_header_is_understood():
    assert read_trace(f"01-{TRACE}-{PARENT}-01-more".encode()).id == TRACE
    assert not read_trace(f"00-{TRACE}-{PARENT}-02".encode()).is_sampled


def test_sampled_and_failed_requests_are_logged_with_their_trace(run_directory):
    running = run_directory(Linear())
    running.infer(headers={"traceparent": SAMPLED}, id="seen")
    running.infer(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}, id="not sampled")
    running.infer(id="not traced")
    running.end()
    (line,) = [line for line in running.log() if line["message"] == "request"]
    assert (line["trace_id"], line["id"], line["status"], line["version"]) == (TRACE, "seen", 200, "1")
    assert line["span_id"] != PARENT
    assert line["ms"] > 0


def test_sampled_requests_of_other_routes_are_logged_with_their_trace(run_directory):
    running = run_directory(Linear())
    answer = running.client.post("/v2/models/digits/feedback", json={}, headers={"traceparent": SAMPLED})
    running.client.get("/v2/models/digits", headers={"traceparent": SAMPLED})
    running.client.get("/v2/models/digits", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    running.client.get("/v2/models/digits")
    running.end()
    first, second = [line for line in running.log() if line["message"] == "request"]
    assert (first["path"], first["status"], first["trace_id"]) == ("/v2/models/digits/feedback", 404, TRACE)
    assert first["span_id"] == answer.headers["traceparent"].split("-")[2]
    assert (second["path"], second["status"], second["trace_id"]) == ("/v2/models/digits", 200, TRACE)
    assert second["ms"] > 0


def test_a_failure_of_another_route_is_logged_once_with_its_trace(run_directory):
    broken = "from services.inference import api; api._describe = None"
    running = run_directory(Linear(), before=broken)
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    answer = running.client.get("/v2/models/digits", headers=unsampled)
    assert answer.status_code == 500
    assert "internal error" in answer.json()["error"]
    assert answer.headers["traceparent"].split("-")[1] == TRACE
    assert running.infer().status_code == 200
    running.end()
    lines = {line["message"]: line for line in running.log()}
    assert (lines["request"]["status"], lines["request"]["trace_id"]) == (500, TRACE)
    (failure,) = [line for line in running.log() if "traceback" in line]
    assert (failure["path"], failure["trace_id"]) == ("/v2/models/digits", TRACE)
    assert "TypeError" in failure["traceback"]


def test_a_client_that_goes_before_its_feedback_is_complete_is_no_failure(run_directory):
    running = run_directory(Linear())
    running.client.get("/v2")  # the framework is there
    with socket.create_connection(("127.0.0.1", running.client.base_url.port)) as connection:
        connection.sendall(b"POST /v2/models/digits/feedback HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.3)
    assert running.infer().status_code == 200
    running.end()
    assert not [line for line in running.log() if line["message"] == "request" or "traceback" in line]


def test_every_request_can_be_logged(run_directory):
    running = run_directory(Linear(), MLP_ACCESS_LOG="true")
    running.infer(id="a")
    running.client.post("/v2/models/wine/infer", json={})
    running.client.get("/v2/models/wine")
    running.end()
    lines = [line for line in running.log() if line["message"] == "request"]
    assert [(line["status"], line.get("model"), line["path"]) for line in lines] == [
        (200, "digits", INFER),
        (404, "", "/v2/models/wine/infer"),
        (404, None, "/v2/models/wine"),
    ]


@pytest.fixture
def collector():
    """An OpenTelemetry collector that keeps what it gets."""
    spans = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            message = ExportTraceServiceRequest()
            message.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            spans.extend(
                ({a.key: a.value.string_value for a in of.resource.attributes}, span)
                for of in message.resource_spans
                for scope in of.scope_spans
                for span in scope.spans
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()


def test_spans_reach_a_collector(run_directory, collector):
    url, spans = collector
    running = run_directory(Linear(), OTEL_EXPORTER_OTLP_ENDPOINT=url)
    answer = running.infer(headers={"traceparent": SAMPLED}, id="seen")
    running.infer(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    running.end()
    wait_until(lambda: spans)
    ((resource, span),) = spans
    assert resource["service.name"] == "ml-platform-inference"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.span_id.hex() == answer.headers["traceparent"].split("-")[2]
    assert span.name == "infer digits"
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10**9
    assert {a.key: a.value for a in span.attributes}["mlp.id"].string_value == "seen"


def test_spans_of_other_routes_are_named_by_their_route(run_directory, collector):
    url, spans = collector
    running = run_directory(Linear(), OTEL_EXPORTER_OTLP_ENDPOINT=url)
    answer = running.client.get("/v2/models/digits", headers={"traceparent": SAMPLED})
    running.client.get("/nothing/here", headers={"traceparent": SAMPLED})
    running.end()
    wait_until(lambda: len(spans) == 2)
    (_, span), (_, nowhere) = spans
    assert (span.name, nowhere.name) == ("GET /v2/models/{model}", "GET")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.span_id.hex() == answer.headers["traceparent"].split("-")[2]
    assert {a.key: a.value for a in span.attributes}["url.path"].string_value == "/v2/models/digits"


def test_a_collector_that_is_away_changes_nothing(run_directory):
    running = run_directory(Linear(), OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    for _ in range(5):
        assert running.infer(headers={"traceparent": SAMPLED}).status_code == 200
    assert running.end() == 0
    assert json.loads(json.dumps(running.log()))


def test_without_the_extra_that_spans_need_the_log_says_so_once(run_directory):
    missing = "import sys; sys.modules['opentelemetry.sdk'] = None"
    running = run_directory(Linear(), OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", before=missing)
    assert any("ml-platform[telemetry]" in line["message"] for line in running.log())  # before the first request
    for _ in range(3):
        assert running.infer(headers={"traceparent": SAMPLED}).status_code == 200
    assert running.end() == 0
    (error,) = [line["message"] for line in running.log() if line["level"] == "error"]
    assert error.startswith("no spans are sent: ")
    assert [line["status"] for line in running.log() if line["message"] == "request"] == [200] * 3
