"""The service as a real process, over real HTTP."""

import json
import signal
import socket
import threading
import time

import httpx
import pytest

from tests.ports import free_port
from tests.services.conftest import ENDS_WITHIN_S, Linear, is_ready, request, start
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture
def running(cloud):
    """The process, with version 1 live, and a client of it."""
    cloud.publish(cloud.live(1, Linear(1).archive()))
    port = free_port()
    process = start("--port", str(port), "serve", environment=cloud.environment)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
        wait_until(lambda: is_ready(client) or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        yield process, client
    process.kill()
    process.communicate()


def infer(client):
    answer = client.post("/v2/models/digits/infer", json=request([1, 2, 3, 4]))
    assert answer.status_code == 200, answer.text
    return answer.json()["model_version"]


def test_versions_swap_under_load_and_a_broken_one_changes_nothing(running, cloud):
    process, client = running
    stop, seen, failures = threading.Event(), set(), []

    def load():
        with httpx.Client(base_url=client.base_url) as own:
            while not stop.is_set():
                try:
                    seen.add(infer(own))
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    cloud.publish(cloud.live(2, Linear(2).archive()))
    wait_until(lambda: infer(client) == "2")
    cloud.publish(cloud.live(3, Linear(3).archive(), sha256="0" * 64))
    wait_until(lambda: client.get("/v2/models/digits").json()["problems"])
    assert infer(client) == "2"
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert seen == {"1", "2"}

    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0
    assert output == ""
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["version"] for line in lines if line["message"] == "version loaded"] == ["1", "2"]
    assert any("version 3" in line["message"] and line["level"] == "error" for line in lines)


def test_what_has_begun_is_finished_after_sigterm(running):
    process, client = running
    body = json.dumps(request([1, 2, 3, 4])).encode()
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        head = f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        connection.sendall(body[10:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert process.wait(ENDS_WITHIN_S) == 0


def test_an_endless_body_is_cut_off(running):
    _, client = running
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|pipe"):
            connection.sendall(chunk * 1000)
    assert infer(client) == "1"


def test_a_body_announced_too_large_gets_a_proper_answer(running):
    _, client = running
    answer = client.post("/v2/models/digits/infer", content=b" " * (5 * 2**20))
    assert answer.status_code == 413
    assert infer(client) == "1"


def test_a_socket_of_the_parent_s_can_be_passed(cloud):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = start("--fd", str(listener.fileno()), environment=cloud.environment, pass_fds=(listener.fileno(),))
    # Nothing is live yet: the process runs all the same, and says so.
    answer = httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=PATIENCE_S)
    assert answer.status_code == 503
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0


def fails(*arguments, environment=None):
    process = start(*arguments, environment=environment)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert output == ""
    assert len(errors.splitlines()) == 1, errors
    return process.returncode, errors


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MLP_MODELS": ""}, "MLP_MODELS"),
        ({"MLP_MODELS": "digits", "MLP_LIVE_PARAMETERS": "live"}, "MLP_LIVE_PARAMETERS"),
        ({"MLP_MODELS": "digits", "MLP_LIVE_PARAMETERS": "/live", "MLP_MAX_ROWS": "0"}, "MLP_MAX_ROWS"),
    ],
)
def test_an_invalid_environment_is_one_clear_line(environment, said):
    status, error = fails(environment=environment)
    assert status == 2
    assert said in error


def test_a_taken_port_and_a_bad_descriptor_are_one_clear_line():
    environment = {"MLP_MODELS": "digits", "MLP_LIVE_PARAMETERS": "/live"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, error = fails("--port", str(port), environment=environment)
    assert (status, error) == (1, f"cannot listen on 127.0.0.1:{port}: Address already in use\n")
    status, error = fails("--fd", "99", environment=environment)
    assert status == 1
    assert "file descriptor 99" in error
