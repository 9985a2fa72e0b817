import base64
import http.server
import importlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tests.services.conftest import ROOT, Linear, request, take
from tests.waiting import PATIENCE_S, wait_until


def event(method, path, body=None, **more):
    """An API Gateway HTTP API event, payload version 2.0."""
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
    return (
        {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"content-type": "application/json", "host": "abc.execute-api.eu-west-1.amazonaws.com"},
            "requestContext": {"http": http, "requestId": "r", "stage": "$default", "timeEpoch": 0},
            "isBase64Encoded": False,
        }
        | ({"body": body} if body is not None else {})
        | more
    )


@pytest.fixture
def lambda_handler(cloud, monkeypatch):
    """The module as a cold start imports it, with version 1 live."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    cloud.publish(cloud.live(1, Linear(1).archive()))
    monkeypatch.setattr("services.inference.logs.configure_logs", lambda: None)  # the log is pytest's here
    monkeypatch.delitem(sys.modules, "services.inference.lambda_handler", raising=False)
    return importlib.import_module("services.inference.lambda_handler")


def test_an_http_api_event_is_answered(lambda_handler):
    body = json.dumps(request([1, 2, 3, 4], id="7"))
    answer = lambda_handler.handler(event("POST", "/v2/models/digits/infer", body), None)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["model_version"] == "1"
    assert answer["headers"]["content-type"] == "application/json"
    encoded = base64.b64encode(body.encode()).decode()
    again = lambda_handler.handler(event("POST", "/v2/models/digits/infer", encoded, isBase64Encoded=True), None)
    assert again["body"] == answer["body"]
    assert lambda_handler.handler(event("GET", "/v2/health/ready"), None)["statusCode"] == 200
    assert lambda_handler.handler(event("POST", "/v2/models/digits/infer", "{"), None)["statusCode"] == 400


def test_versions_are_followed_from_request_to_request(lambda_handler, cloud):
    cloud.publish(cloud.live(2, Linear(2).archive()))
    infer = event("POST", "/v2/models/digits/infer", json.dumps(request([1, 2, 3, 4])))
    wait_until(lambda: json.loads(lambda_handler.handler(infer, None)["body"])["model_version"] == "2")


@pytest.fixture
def run_cold(tmp_path):
    """A cold start in a process of its own, with a model in a directory; what it prints as JSON lines."""

    def of(code, **environment):
        for name, content in Linear().files().items():
            (tmp_path / name).write_bytes(content)
        known = {name: value for name, value in os.environ.items() if not name.startswith("MLP_")}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=known | {"SM_MODEL_DIR": str(tmp_path), "EVENT": json.dumps(INFER)} | environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return of


INFER = event("POST", "/v2/models/digits/infer", json.dumps(request([1, 2, 3, 4])))
PREDICT = """
import json, os
from services.inference.lambda_handler import handler
assert handler(json.loads(os.environ["EVENT"]), None)["statusCode"] == 200
"""


def test_metrics_are_printed_for_cloudwatch(run_cold):
    began = time.monotonic()
    (line,) = run_cold(PREDICT)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "ml-platform/inference"
    assert directive["Dimensions"] == [["model"], ["model", "version"]]
    assert [of["Name"] for of in directive["Metrics"]] == [
        "mlp_requests",
        "mlp_errors",
        "mlp_request_seconds",
        "mlp_rows",
    ]
    assert (line["model"], line["version"], line["code"]) == ("digits", "1", 200)
    assert (line["mlp_requests"], line["mlp_errors"], line["mlp_rows"]) == (1, 0, 1)
    assert 0 < line["mlp_request_seconds"][0] < time.monotonic() - began
    assert abs(line["_aws"]["Timestamp"] / 1000 - time.time()) < 60


def test_a_cold_start_loads_no_framework(run_cold):
    heavy = ["fastapi", "uvicorn", "boto3", "botocore", "torch", "opentelemetry.sdk", "pandas"]
    code = PREDICT + f"import sys; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert run_cold(code)[-1] == []


def test_captured_lines_are_sent_after_the_answer(run_cold, firehose):
    """An extension API that gives one event, and a Firehose that is asked before the next event is."""
    order, firehose.plan = [], [take]

    class Api(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            order.append("register")
            self.answer()

        def do_GET(self):
            order.append(f"next, {len(firehose.taken)} sent")
            if len(order) > 2:
                done.set()
                time.sleep(PATIENCE_S)
            self.answer()

        def answer(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(200)
            self.send_header("Lambda-Extension-Identifier", "me")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    done = threading.Event()
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    api.daemon_threads = True
    threading.Thread(target=api.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{api.server_port}"
    run_cold(PREDICT + "import time; time.sleep(2)", AWS_LAMBDA_RUNTIME_API=host, MLP_CAPTURE_STREAM="s")
    assert done.wait(PATIENCE_S)
    api.shutdown()
    api.server_close()
    assert order == ["register", "next, 0 sent", "next, 1 sent"]


def test_a_hanging_ssm_delays_no_request_for_long(lambda_handler, cloud):
    infer = event("POST", "/v2/models/digits/infer", json.dumps(request([1, 2, 3, 4])))
    over, waited = threading.Event(), []
    follower = lambda_handler._app.follower
    follower._read = lambda name: waited.append(over.wait(PATIENCE_S))
    follower._refreshed = float("-inf")
    for _ in range(3):
        assert lambda_handler.handler(infer, None)["statusCode"] == 200
    assert not waited
    over.set()
