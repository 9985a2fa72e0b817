"""Real processes, while AWS is slow, throttles or breaks, artifacts are poisoned, and versions swap under load."""

import http.server
import socket
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.services.conftest import Linear
from tests.waiting import wait_until


class Proxy:
    """Stands between the service and AWS; `fault` decides what becomes of a request."""

    def __init__(self, target: str) -> None:
        self.fault = None
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if proxy.fault and (answer := proxy.fault(proxy, self)):
                    status, content = answer
                    headers = {}
                else:
                    passed = urllib.request.Request(target + self.path, data=body or None, method=self.command)
                    for name, value in self.headers.items():
                        passed.add_header(name, value)
                    try:
                        with urllib.request.urlopen(passed, timeout=30) as reply:
                            status, content, headers = reply.status, reply.read(), dict(reply.headers)
                    except urllib.error.HTTPError as error:
                        status, content, headers = error.code, error.read(), dict(error.headers)
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # connections that `away` has cut
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def proxy(aws_process):
    proxy = Proxy(aws_process.url)
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()


@pytest.fixture
def running(cloud, run, proxy):
    """A service with version 1 live, whose AWS is behind the proxy."""
    cloud.publish(cloud.live(1, Linear(1).archive()))
    running = run(environment=cloud.environment | {"AWS_ENDPOINT_URL": proxy.url}).wait()
    assert running.version() == "1"
    yield running
    proxy.fault = None
    running.end()


def slow(proxy, _):
    """No answer until the fault is over."""
    while proxy.fault:
        time.sleep(0.02)


def throttle(_, handler):
    if is_s3(handler):
        return 503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    return 400, b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'


def broken(*_):
    return 500, b"<html>not what AWS answers</html>"


def away(_, handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    return 500, b""


def is_s3(handler):
    return handler.path.startswith("/artifacts")


@pytest.mark.parametrize("service", ["ssm", "s3"])
@pytest.mark.parametrize("fault", [slow, throttle, broken, away])
def test_predictions_go_on_whatever_aws_does(running, cloud, proxy, service, fault):
    hit = threading.Event()

    def of_service(proxy, handler):
        if is_s3(handler) == (service == "s3"):
            hit.set()
            return fault(proxy, handler)
        return None

    proxy.fault = of_service
    cloud.publish(cloud.live(2, Linear(2).archive()))
    answers = Counter()

    def ask():
        answer = running.infer()
        answers[answer.status_code, answer.json()["model_version"]] += 1
        return hit.is_set()

    wait_until(ask)
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        ask()
    assert answers.keys() == {(200, "1")}
    proxy.fault = None
    wait_until(lambda: running.version() == "2")
    assert running.client.get("/v2/models/digits").json()["problems"] == []


def test_an_artifact_that_trickles_in_holds_up_no_other_model_and_is_given_up(cloud, run, proxy):
    cloud.publish(cloud.live(1, Linear(1).archive()))
    cloud.publish(cloud.live(1, Linear(1, model="wine").archive(), model="wine"), model="wine")
    environment = cloud.environment | {"AWS_ENDPOINT_URL": proxy.url, "MLP_MODELS": "digits,wine"}
    shorter = "from services.inference import follower; follower._LONGEST_DOWNLOAD_S = 3"
    running = run(environment=environment, before=shorter).wait()

    def trickle(proxy, handler):
        if not handler.path.startswith("/artifacts/digits/2"):
            return None
        handler.send_response(200)
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        while proxy.fault:
            handler.wfile.write(b"x")
            time.sleep(0.05)
        return away(proxy, handler)

    def problems():
        return running.client.get("/v2/models/digits").json()["problems"]

    proxy.fault = trickle
    second = cloud.live(2, Linear(2).archive())
    cloud.publish(second)
    wait_until(problems)
    assert problems() == [f"version 2 is being loaded ({second.artifact})"]
    cloud.publish(cloud.live(2, Linear(2, model="wine").archive(), model="wine"), model="wine")
    wait_until(lambda: running.infer(model="wine").json()["model_version"] == "2")
    assert problems() == [f"version 2 is being loaded ({second.artifact})"]
    assert running.version() == "1"
    wait_until(lambda: "of its 1000000 bytes have come in 3 s" in problems()[0])
    assert running.version() == "1"
    assert running.metric('mlp_failed_loads_total{model="digits"}') == 1
    proxy.fault = None
    wait_until(lambda: running.version() == "2")
    assert problems() == []


def other_inputs(cloud):
    return cloud.live(2, Linear(2, columns=5).archive())


def wrong_checksum(cloud):
    return cloud.live(2, Linear(2).archive(), sha256="0" * 64)


def truncated(cloud):
    return cloud.live(2, Linear(2).archive()[:-200])


def wrong_answers(cloud):
    test = {"inputs": [[1, 0, 0, 0]], "outputs": {"label": [9], "probabilities": [[1, 0, 0]]}}
    return cloud.live(2, Linear(2, metadata={"self_test": test}).archive())


def missing(cloud):
    return cloud.live(2, Linear(2).archive(), artifact="s3://artifacts/nothing")


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (other_inputs, "its inputs are not those of version 1, which serves"),
        (wrong_checksum, "its checksum is"),
        (truncated, "it cannot be unpacked"),
        (wrong_answers, "its self-test fails"),
        (missing, "NoSuchKey"),
    ],
)
@pytest.mark.parametrize("weight", [100, 50])
def test_a_poisoned_artifact_is_refused_and_the_old_version_stays(running, cloud, poison, said, weight):
    first = cloud.live(1, Linear(1).archive(), 100 - weight)
    poisoned = poison(cloud).model_copy(update={"weight": weight})
    cloud.publish(*([first] if weight < 100 else []), poisoned)
    wait_until(lambda: running.client.get("/v2/models/digits").json()["problems"])
    (problem,) = running.client.get("/v2/models/digits").json()["problems"]
    assert said in problem
    assert {running.infer(id=str(number)).json()["model_version"] for number in range(20)} == {"1"}
    ready = running.client.get("/v2/health/ready")
    assert ready.status_code == 200
    assert said in ready.text


def test_many_swaps_under_load_fail_no_request(running, cloud):
    stop, failures, seen = threading.Event(), [], Counter()

    def load(number):
        while not stop.is_set():
            answer = running.infer(id=f"{number}")
            seen[answer.json().get("model_version")] += 1
            if answer.status_code != 200:
                failures.append(answer.text)

    with ThreadPoolExecutor(6) as threads:
        tasks = [threads.submit(load, number) for number in range(6)]
        for number in range(2, 6):
            new = cloud.live(number, Linear(number).archive(), 50)
            old = cloud.live(number - 1, Linear(number - 1).archive(), 50)
            cloud.publish(old, new)  # side by side first
            wait_until(lambda number=number: f'"{number}"' in running.client.get("/v2/models/digits").text)
            cloud.publish(new.model_copy(update={"weight": 100}))
            wait_until(lambda number=number: running.version() == str(number))
        wait_until(lambda: seen["5"])
        stop.set()
        for task in tasks:
            task.result()
    assert failures == []
    assert seen.keys() == set("12345")
