"""Several workers on one port: one sum of metrics, and a killed one takes only its own requests along."""

import os
import signal
import socket
import threading
import time

import httpx
import psutil
import pytest

from tests.ports import free_port
from tests.services.conftest import Linear, request
from tests.waiting import PATIENCE_S, wait_until


def workers_of(running):
    return psutil.Process(running.process.pid).children()


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def running(run_directory):
    running = run_directory(Linear(), MLP_WORKERS="2")
    wait_until(lambda: len(workers_of(running)) == 2)
    return running


def answered_by_both(running):
    """Ask on new connections until both workers have answered; how many requests that took."""
    body = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    seen, count = set(), 0
    while len(seen) < 2:
        with socket.create_connection(("127.0.0.1", running.client.base_url.port)) as connection:
            connection.sendall(body)
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")
            port = connection.getsockname()[1]
            for worker in workers_of(running):
                if any(of.raddr and of.raddr.port == port for of in worker.net_connections("tcp")):
                    seen.add(worker.pid)
        count += 1
        assert count < 500
    return count


def test_the_metrics_are_those_of_all_workers(running):
    line = 'mlp_requests_total{code="400",model="digits",version=""}'
    count = answered_by_both(running)
    wait_until(lambda: running.metric(line) == count)
    time.sleep(0.3)
    assert {running.metric(line) for _ in range(20)} == {count}  # whoever is asked


def test_a_killed_worker_takes_only_its_requests_along_and_is_replaced(running):
    stop, answers, failures = threading.Event(), [], []

    def load():
        with httpx.Client(base_url=running.url) as client:
            while not stop.is_set():
                try:
                    answers.append(client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4])).status_code)
                except httpx.TransportError as error:
                    failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) > 100)
    before = {worker.pid for worker in workers_of(running)}
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    # At once: only workers that die again and again have to wait, for up to 30 s.
    wait_until(lambda: len({worker.pid for worker in workers_of(running)} - {killed}) == 2, seconds=25)
    done = len(answers)
    wait_until(lambda: len(answers) > done + 100)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}
    assert len(failures) <= 4  # a connection has one request at a time
    # The new worker counts on from where the killed one was.
    line = 'mlp_requests_total{code="200",model="digits",version="1"}'
    wait_until(lambda: running.metric(line) >= 0.9 * len(answers))
    assert running.metric(line) <= len(answers) + len(failures)
    assert running.end() == 0
    assert any(line["message"] == "a worker has ended" for line in running.log())


def test_a_wrong_environment_ends_all_of_them_with_one_clear_line(run):
    running = run("--workers", "2", environment={"MLP_MODELS": "digits", "MLP_LIVE_PARAMETERS": "live"})
    assert running.process.wait(PATIENCE_S) == 2
    assert "MLP_LIVE_PARAMETERS" in running.log_file.read_text()


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_wrong_number_of_workers_is_refused(run, count):
    running = run(f"--workers={count}", environment={})
    assert running.process.wait(PATIENCE_S) == 2
    assert "must be a number from 1 to 256" in running.log_file.read_text()


def test_a_supervisor_that_dies_takes_its_workers_along(running):
    workers = workers_of(running)
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(lives(worker) for worker in workers))


def test_a_second_signal_ends_all_of_them_at_once(run_directory):
    running = run_directory(Linear(), MLP_WORKERS="2", MLP_DRAIN_SECONDS="600")
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: running.client.get("/v2/health/ready").status_code == 503)
    assert running.end() == 0


def test_the_metrics_can_have_a_port_of_their_own(run_directory):
    port = free_port()
    running = run_directory(Linear(), MLP_WORKERS="2", MLP_METRICS_PORT=str(port))
    assert running.infer().status_code == 200
    url = f"http://127.0.0.1:{port}/metrics"
    line = 'mlp_requests_total{code="200",model="digits",version="1"} 1.0'

    def is_there():
        try:
            return line in httpx.get(url).text
        except httpx.ConnectError:  # the worker that serves them is still starting
            return False

    wait_until(is_there)
    assert running.client.get("/metrics").status_code == 404
