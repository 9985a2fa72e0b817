"""Requests and errors as CloudWatch takes them from the log of a service that lives on between requests."""

import json
import time

import psutil
import pytest

from contract.metrics import BY_VERSION
from services.inference import emf
from services.inference.emf import EmfSums
from services.inference.metrics import Metrics
from tests.services.conftest import Linear, client_of, request, serve_directory
from tests.waiting import wait_until

NAMESPACE = "acme/test/inference"
OFTEN = "from services.inference import emf; emf.INTERVAL_S = 0.2"


def answer(metrics, version, *codes, model="digits"):
    for code in codes:
        metrics.record(model, version, code, 1, 0.001)


def test_what_is_taken_is_what_came_since_the_last_time():
    metrics = Metrics()
    assert metrics.take_answered() == {}
    answer(metrics, "1", 200, 200, 400, 500)
    answer(metrics, "2", 200, 503, 504)
    answer(metrics, "1", 200, model="wine")
    assert metrics.take_answered() == {("digits", "1"): (4, 1), ("digits", "2"): (3, 2), ("wine", "1"): (1, 0)}
    assert metrics.take_answered() == {}
    answer(metrics, "2", 200)
    assert metrics.take_answered() == {("digits", "2"): (1, 0)}


def test_a_worker_in_the_place_of_another_goes_on_from_what_that_one_took(tmp_path):
    killed = Metrics(tmp_path)
    answer(killed, "1", 200, 200)
    killed.take_answered()
    answer(killed, "1", 500)
    killed.stop()
    assert Metrics(tmp_path).take_answered() == {("digits", "1"): (1, 1)}


@pytest.fixture
def printed(capsys):
    """The lines that were printed so far."""
    lines = []

    def read():
        lines.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return lines

    return read


def test_sums_are_printed_while_there_are_any_and_at_the_end(printed, monkeypatch):
    monkeypatch.setattr(emf, "INTERVAL_S", 0.02)
    metrics = Metrics()
    sums = EmfSums(metrics, NAMESPACE)
    answer(metrics, "3", 200, 500)
    sums.start()
    wait_until(printed)
    answer(metrics, "", 400)  # before a version was chosen
    wait_until(lambda: len(printed()) == 2)
    time.sleep(0.2)  # ten times nothing
    sums.stop()
    first, second = printed()
    assert first["_aws"]["CloudWatchMetrics"] == [
        {
            "Namespace": NAMESPACE,
            "Dimensions": [list(names) for names in BY_VERSION],
            "Metrics": [{"Name": "mlp_requests", "Unit": "Count"}, {"Name": "mlp_errors", "Unit": "Count"}],
        }
    ]
    assert abs(first["_aws"]["Timestamp"] / 1000 - time.time()) < 60
    assert {name: value for name, value in first.items() if name != "_aws"} == {
        "model": "digits",
        "version": "3",
        "mlp_requests": 2,
        "mlp_errors": 1,
    }
    assert (second["version"], second["mlp_requests"], second["mlp_errors"]) == ("none", 1, 0)


def test_the_last_sums_do_not_wait_for_the_minute_to_end(printed):
    metrics = Metrics()
    sums = EmfSums(metrics, NAMESPACE)
    sums.start()
    answer(metrics, "1", 200)
    sums.stop()
    assert [line["mlp_requests"] for line in printed()] == [1]


def sums_of(running):
    """Requests and errors of digits' version 1 in each line that CloudWatch would read, after a look at the others."""
    lines = [line for line in running.log() if "_aws" in line]
    assert {line["_aws"]["CloudWatchMetrics"][0]["Namespace"] for line in lines} <= {NAMESPACE}
    return [(line["mlp_requests"], line["mlp_errors"]) for line in lines if line["version"] == "1"]


def test_a_process_prints_now_and_then_and_at_its_end(run_directory):
    running = run_directory(Linear(), before=OFTEN, MLP_METRICS_NAMESPACE=NAMESPACE)
    for _ in range(3):
        assert running.infer().status_code == 200
    wait_until(lambda: sum(requests for requests, _ in sums_of(running)) == 3)
    before = len(sums_of(running))
    time.sleep(0.5)
    assert len(sums_of(running)) == before  # nobody asked
    running.infer()
    assert running.end() == 0
    assert sum(requests for requests, _ in sums_of(running)) == 4
    assert len(sums_of(running)) == before + 1


def test_without_a_namespace_nothing_is_printed(run_directory):
    running = run_directory(Linear(), before=OFTEN)
    running.infer()
    time.sleep(0.5)
    assert running.end() == 0
    assert not [line for line in running.log() if "_aws" in line]


def starts(running):
    return sum(line["message"] == "Application startup complete." for line in running.log() if "message" in line)


def test_workers_print_their_own_and_nothing_twice(run_directory):
    """Also when one of them is killed: the one that takes its place prints what that one had not."""
    running = run_directory(Linear(), "--workers", "2", MLP_METRICS_NAMESPACE=NAMESPACE)
    wait_until(lambda: starts(running) == 2)
    for _ in range(20):
        assert running.infer().status_code == 200
    time.sleep(0.5)  # their numbers are in their files
    for worker in psutil.Process(running.process.pid).children():
        worker.kill()
    wait_until(lambda: starts(running) == 4)
    assert sums_of(running) == []  # the killed ones had not yet printed anything
    for _ in range(5):
        assert running.infer().status_code == 200
    assert running.end() == 0
    assert sum(requests for requests, _ in sums_of(running)) == 25
    assert {errors for _, errors in sums_of(running)} == {0}


def test_a_lambda_function_has_no_thread_of_sums(tmp_path, linear, printed):
    """It never starts the application: its lines are printed request by request."""
    service = serve_directory(tmp_path, linear, MLP_METRICS_NAMESPACE=NAMESPACE)
    assert client_of(service).post("/v2/models/digits/infer", json=request([1, 2, 3, 4])).status_code == 200
    service.stop()
    assert printed() == []
