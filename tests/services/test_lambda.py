import base64
import importlib
import json
import sys
import time

import pytest

from tests.services.conftest import Linear, request


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
    deadline = time.monotonic() + 5
    while json.loads(lambda_handler.handler(infer, None)["body"])["model_version"] != "2":
        assert time.monotonic() < deadline
        time.sleep(0.1)
