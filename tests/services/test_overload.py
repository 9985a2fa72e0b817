"""More than the service can do: a bounded queue, a deadline, and an end that finishes what has begun."""

import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.services.conftest import ENDS_WITHIN_S, Linear, client_of, request, serve_directory
from tests.waiting import PATIENCE_S, wait_until

SLOW = Linear(slow=1200)


def flood(running, count, **more):
    """Send requests at the same time; their answers."""
    body = request([1, 2, 3, 4])
    limits = httpx.Limits(max_connections=count)
    with (
        httpx.Client(base_url=running.url, timeout=PATIENCE_S, limits=limits) as client,
        ThreadPoolExecutor(count) as threads,
    ):
        return list(threads.map(lambda _: client.post("/v2/models/digits/infer", json=body, **more), range(count)))


def test_what_finds_no_room_in_the_queue_is_told_to_come_back(run_directory):
    running = run_directory(SLOW, MLP_MAX_QUEUE="4")
    answers = flood(running, 24)
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    assert statuses[200] >= 4
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert "4 requests are waiting already" in refused.json()["error"]
    assert running.infer().status_code == 200  # every place has been given back
    assert running.metric("mlp_in_flight") == 0
    assert running.metric('mlp_requests_total{code="503",model="digits",version=""}') == 0
    assert running.metric('mlp_requests_total{code="503",model="",version=""}') == statuses[503]


def test_health_is_answered_while_a_prediction_runs(run_directory):
    running = run_directory(SLOW)
    seen = threading.Event()

    def ask():
        while not seen.is_set():
            assert running.infer().status_code == 200

    with ThreadPoolExecutor(4) as threads:
        tasks = [threads.submit(ask) for _ in range(4)]
        wait_until(lambda: running.metric("mlp_in_flight") > 0)  # no loop that predicts itself could say so
        assert running.client.get("/v2/health/live").status_code == 200
        seen.set()
    for task in tasks:
        task.result()


def status_on(connection):
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(4096)
    return answer.split()[1]


def test_fast_requests_have_a_bounded_queue_too(run_directory):
    running = run_directory(Linear(), MLP_MAX_QUEUE="2")
    body = b'{"inputs": []}'
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    connections = [socket.create_connection(("127.0.0.1", running.client.base_url.port)) for _ in range(40)]
    for connection in connections:
        connection.sendall(head + body)
        assert status_on(connection) == b"400"
    running.process.send_signal(signal.SIGSTOP)  # they all arrive before it looks
    for connection in connections:
        connection.sendall(head + body)
    running.process.send_signal(signal.SIGCONT)
    statuses = Counter(status_on(connection) for connection in connections)
    for connection in connections:
        connection.close()
    assert statuses.keys() == {b"400", b"503"}
    assert statuses[b"400"] >= 2
    assert running.infer().status_code == 200


def test_a_request_is_answered_by_its_deadline(run_directory):
    running = run_directory(SLOW, MLP_DEADLINE_MS="150")
    answers = flood(running, 64)  # more than a fast machine, too, can answer within the deadline
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[504] > 0
    assert statuses.keys() <= {200, 504}
    late = next(answer for answer in answers if answer.status_code == 504)
    assert "not answered within 0.15 s" in late.json()["error"]
    assert late.headers["retry-after"] == "1"
    wait_until(lambda: running.infer().status_code == 200)


def test_a_deadline_does_not_wait_for_the_prediction(tmp_path):
    app = serve_directory(tmp_path, SLOW, MLP_DEADLINE_MS="150")
    (version, _), *_ = app.catalogue["digits"].shares
    over, ended = threading.Event(), []
    version.predict = lambda *_: ended.append(over.wait(PATIENCE_S))
    assert client_of(app).post("/v2/models/digits/infer", json=request([1, 2, 3, 4])).status_code == 504
    assert not ended
    over.set()


@pytest.mark.parametrize(
    "rest",
    [
        b"content-length: 100\r\n\r\n{",
        b"content-length: 100\r\n\r\n",
        b"content-length: 100\r\nexpect: 100-continue\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n",
    ],
    ids=["begun", "not begun", "asks first", "chunked"],
)
def test_a_body_that_never_comes_is_given_up(run_directory, rest):
    running = run_directory(Linear(), MLP_DEADLINE_MS="200")
    for route in (b"infer", b"feedback"):
        with socket.create_connection(("127.0.0.1", running.client.base_url.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"POST /v2/models/digits/%b HTTP/1.1\r\nhost: x\r\n" % route + rest)
            answer = connection.makefile("rb").read()  # until it is closed
        assert answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert b"did not arrive within 0.2 s" in answer
    assert running.metric("mlp_in_flight") == 0


def test_while_it_drains_it_serves_but_is_not_ready(run_directory):
    running = run_directory(Linear(), MLP_DRAIN_SECONDS="2")
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: running.client.get("/v2/health/ready").status_code == 503)
    assert "it ends" in running.client.get("/v2/health/ready").text
    for path in ("/ping", "/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"):
        assert running.client.get(path).status_code == 503
    assert running.client.get("/v2/health/live").status_code == 200
    answer = running.infer()
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
    assert running.process.wait(ENDS_WITHIN_S) == 0
    assert time.monotonic() - began >= 2


def test_what_is_being_predicted_at_sigterm_is_answered(run_directory):
    running = run_directory(Linear(slow=2000))
    assert running.metric("mlp_in_flight") == 0  # the first look at the metrics loads their page, which takes a while
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(running.infer())) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: running.metric("mlp_in_flight") == 3)
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: running.client.get("/v2/health/ready").status_code == 503)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert running.process.wait(ENDS_WITHIN_S) == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(run_directory, first):
    running = run_directory(Linear(), MLP_DRAIN_SECONDS="600")
    running.process.send_signal(first)
    wait_until(lambda: running.client.get("/v2/health/ready").status_code == 503)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(ENDS_WITHIN_S) == 0
