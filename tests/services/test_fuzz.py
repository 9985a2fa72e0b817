"""Fuzzing: no request, however wrong, is answered with a 500, or leaves memory behind.

The OpenAPI document drives schemathesis; damaged requests and random bytes come on top. The same for 100,000 requests
is `python -m benchmarks.fuzz`.
"""

from collections import Counter
from itertools import islice

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.fuzz import Client, bad_requests, resident_mb
from tests.services.conftest import Linear
from tests.services.models import OneNode


@pytest.fixture(scope="module")
def running(run_directory):
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "MLP_FEEDBACK_STREAM": "feedback"}
    return run_directory(Linear(), MLP_MAX_ROWS="8", MLP_MAX_BODY_BYTES="100000", **away)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_service_keeps_to_its_own_document(running):
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case):
            case.call_and_validate(checks=CHECKS)

        ask()


def test_bad_requests_leave_nothing_behind(running):
    client, requests = Client(running.url), bad_requests("digits")
    statuses = Counter(client.send(request) for request in islice(requests, 2000))
    before = resident_mb(running.process.pid)
    statuses += Counter(client.send(request) for request in islice(requests, 4000))
    client.close()
    assert not {0, 500} & statuses.keys()
    assert statuses[400] > 1000
    assert resident_mb(running.process.pid) - before < 3
    assert running.infer().status_code == 200
    labels = {
        line.split("{")[1] for line in running.client.get("/metrics").text.splitlines() if "requests_total{" in line
    }
    assert len(labels) < 20  # clients cannot make metrics


@pytest.mark.parametrize(
    ("datatype", "row"), [("BYTES", list("abcd")), ("BOOL", [1, 0, 1, 0]), ("INT64", [1, 2, 3, 4])]
)
def test_no_bad_request_makes_a_model_of_another_datatype_fail(run_directory, datatype, row):
    running = run_directory(OneNode(datatype, [row]), MLP_MAX_ROWS="8", MLP_MAX_BODY_BYTES="100000")
    client = Client(running.url)
    statuses = Counter(client.send(request) for request in islice(bad_requests("same", datatype), 5000))
    client.close()
    assert not {0, 500} & statuses.keys()
    assert statuses[200] > 20


@pytest.mark.parametrize("junk", [b"\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n", b"\xff\xfe junk\r\n\r\n"])
def test_what_is_not_http_is_refused(running, junk):
    assert Client(running.url).send(junk) in (0, 400)
    assert running.infer().status_code == 200
