"""HTTP below the application, where clients do what httpx never does."""

import json
import random
import signal
import socket
import struct
import threading
import time

import psutil
import pytest

from tests.services.conftest import Linear, request
from tests.waiting import PATIENCE_S, wait_until

INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
BODY = json.dumps(request([1, 2, 3, 4])).encode()


@pytest.fixture(scope="module")
def running(run_directory):
    return run_directory(Linear(), MLP_DEADLINE_MS="500")


@pytest.fixture
def connection(running):
    with socket.create_connection(("127.0.0.1", running.client.base_url.port), timeout=PATIENCE_S) as connection:
        yield connection


def read_answers(connection, count) -> list[tuple[int, dict[str, str], dict]]:
    """Status, headers and JSON of the next answers, after which nothing more comes."""
    answers, content = [], b""
    while len(answers) < count:
        head, end, rest = content.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if end)
        if end and len(rest) >= (length := int(headers["content-length"])):
            answers.append((int(status.split()[1]), headers, json.loads(rest[:length])))
            content = rest[length:]
        else:
            content += (piece := connection.recv(65536))
            assert piece, content
    assert not content
    return answers


def read_answer(connection) -> tuple[int, dict[str, str], dict]:
    """The next answer."""
    return read_answers(connection, 1)[0]


def framed(number, **more) -> bytes:
    """A request to predict with this number as its id."""
    body = json.dumps(request([number, 2, 3, 4], id=str(number), **more)).encode()
    return INFER + b"content-length: %d\r\n\r\n%b" % (len(body), body)


UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
FRAMED = b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize("rest", [FRAMED, CHUNKED], ids=["framed", "chunked"])
def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one(connection, rest):
    whole = INFER + UPGRADE + rest
    at = whole.index(b"\r\n\r\n") + 4
    for pieces in ([whole], [whole[:at], whole[at:]], [whole[:30], whole[30 : at + 9], whole[at + 9 :]]):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02)
        status, headers, answer = read_answer(connection)
        assert (status, answer["model_name"]) == (200, "digits")
        assert "upgrade" not in headers


def test_requests_with_and_without_another_protocol_can_follow_one_another(connection):
    connection.sendall((INFER + UPGRADE + FRAMED + INFER + FRAMED) * 10)
    content = b""
    while content.count(b"HTTP/1.1 200") < 20:
        content += (piece := connection.recv(65536))
        assert piece, content


def test_a_websocket_is_answered_as_any_request(connection):
    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    assert read_answer(connection)[::2] == (200, {"live": True})


@pytest.mark.parametrize("piece", [10**6, 1000, 100])
def test_answers_come_in_the_order_of_the_requests(connection, piece):
    explains = {"parameters": {"explain": True}}
    asked = [framed(n, **random.Random(n).choice([{}, {}, explains, {"parameters": 1}])) for n in range(60)]
    whole = b"".join(asked)
    for start in range(0, len(whole), piece):
        connection.sendall(whole[start : start + piece])
    answers = read_answers(connection, 60)
    assert [status for status, _, _ in answers] == [400 if b'"parameters": 1' in each else 200 for each in asked]
    assert all(answer["id"] == str(n) for n, (status, _, answer) in enumerate(answers) if status == 200)
    assert any(len(answer.get("outputs", ())) > 2 for _, _, answer in answers)


def test_a_client_that_asks_on_without_reading_has_to_wait(connection):
    """First the answers fill all that lies between, then the requests would fill the service's memory."""
    documents = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
    large = b"content-length: 30000\r\n\r\n" + BODY.ljust(30_000)
    whole = framed(0) * 1000 + documents + (INFER + large) * 2000
    asking = threading.Thread(target=connection.sendall, args=(whole,))
    asking.start()
    asking.join(3)
    assert asking.is_alive()
    answers = read_answers(connection, 4000)
    asking.join(PATIENCE_S)
    assert {status for status, _, _ in answers} == {200}
    assert ["openapi" in answer for _, _, answer in answers] == [False] * 1000 + [True] * 1000 + [False] * 2000


def test_requests_that_follow_one_another_at_once_do_not_pile_up(run_directory):
    running = run_directory(Linear())
    process = psutil.Process(running.process.pid)
    with socket.create_connection(("127.0.0.1", running.client.base_url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(framed(0))
        assert read_answer(connection)[0] == 200
        before = process.memory_info().rss
        connection.sendall((INFER + b"content-length: 1000\r\n\r\n" + BODY.ljust(1000)) * 6000)
        assert {status for status, _, _ in read_answers(connection, 6000)} == {200}
        assert process.memory_info().rss - before < 12e6  # they are 6 MB, and several times as much once they are read


def test_answers_that_nobody_reads_do_not_pile_up(running, connection):
    body = json.dumps(request(*[[1, 2, 3, 4]] * 1000)).encode()
    connection.settimeout(1)

    def ask():
        for _ in range(1000):
            connection.sendall(INFER + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            time.sleep(0.001)  # or they would follow one another at once

    with pytest.raises(TimeoutError):  # it is not read from any more
        ask()
    assert running.infer().status_code == 200


@pytest.mark.parametrize("pause", [0.001, 0.05])
@pytest.mark.parametrize("length", [len(BODY), 100_000], ids=["small", "large"])
def test_head_and_body_may_come_apart(connection, pause, length):
    body = BODY.ljust(length)
    pieces = INFER, b"content-length: %d\r\n\r\n" % length, body[:20], body[20:60], body[60:]
    for piece in pieces * 2:
        connection.sendall(piece)
        time.sleep(pause)
    assert [status for status, _, _ in read_answers(connection, 2)] == [200, 200]


def test_a_client_that_asks_before_it_sends_is_told_to(connection):
    connection.sendall(INFER + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY))
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(BODY)
    assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_connection_ends_where_its_client_wants_it_to(connection, version):
    connection.sendall(INFER.replace(b"1.1", version) + b"connection: close\r\n" + FRAMED)
    status, headers, _ = read_answer(connection)
    assert (status, headers["connection"]) == (200, "close")
    assert connection.recv(1) == b""


def test_what_was_asked_before_something_that_is_not_http_is_answered(connection):
    connection.sendall(framed(1) + b"nonsense\r\n\r\n")
    assert [status for status, _, _ in read_answers(connection, 2)] == [200, 400]
    assert connection.recv(1) == b""


def test_clients_that_are_gone_before_their_answer_leave_nothing_behind(running):
    address = "127.0.0.1", running.client.base_url.port
    connections = [socket.create_connection(address) for _ in range(20)]
    for connection in connections:
        connection.sendall(INFER + FRAMED)
        assert read_answer(connection)[0] == 200
    running.process.send_signal(signal.SIGSTOP)
    for number, connection in enumerate(connections):
        connection.sendall(INFER + (FRAMED if number % 2 else FRAMED[:-9]))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        connection.close()
    running.process.send_signal(signal.SIGCONT)
    assert running.infer().status_code == 200
    wait_until(lambda: running.metric("mlp_in_flight") == 0)
    assert '"error"' not in running.log_file.read_text()


def test_a_connection_stays_open_for_as_long_after_each_answer(run_directory):
    before = (
        "import uvicorn; C = uvicorn.Config; uvicorn.Config = lambda *a, **k: C(*a, **k | {'timeout_keep_alive': 3})"
    )
    running = run_directory(Linear(), before=before)
    with socket.create_connection(("127.0.0.1", running.client.base_url.port), timeout=PATIENCE_S) as connection:
        for _ in range(3):
            connection.sendall(framed(1) + framed(2)[:20])
            assert read_answer(connection)[0] == 200
            connection.sendall(framed(2)[20:])
            assert read_answer(connection)[0] == 200
            time.sleep(1.7)
        assert connection.recv(1) == b""


HEALTH = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n"


def large_head(size):
    """A whole head of about so many bytes."""
    lines = b"".join(b"x-%06d: %b\r\n" % (number, b"a" * 988) for number in range(size // 1000))
    return HEALTH + lines + b"\r\n"


@pytest.mark.parametrize("piece", [10**6, 30_000, 1000])
def test_the_head_of_a_request_may_be_so_large_and_no_larger(connection, piece):
    fits, is_too_large = large_head(64_000), large_head(67_000)
    for start in range(0, len(fits), piece):
        connection.sendall(fits[start : start + piece])
    assert read_answer(connection)[::2] == (200, {"live": True})
    for start in range(0, len(is_too_large), piece):
        connection.sendall(is_too_large[start : start + piece])
    status, headers, answer = read_answer(connection)
    assert (status, headers["connection"]) == (431, "close")
    assert answer == {"error": "the head of the request is larger than the limit of 65536 bytes"}


@pytest.mark.parametrize("endless", [b"x-a: " + b"a" * 65000 + b"\r\n", b"a" * 65000], ids=["many", "one"])
def test_an_endless_head_is_cut_off(running, connection, endless):
    connection.sendall(HEALTH + b"x: ")
    with pytest.raises(OSError, match=r"reset|pipe"):
        connection.sendall(endless * 1000)
    assert running.infer().status_code == 200


def test_what_comes_before_a_head_does_not_count_as_its_own(connection):
    body = BODY + b" " * 200_000
    large = INFER + b"content-length: %d\r\n\r\n" % len(body) + body
    connection.sendall(large + HEALTH)
    assert read_answer(connection)[0] == 200
    connection.sendall(b"\r\n")
    assert read_answer(connection)[::2] == (200, {"live": True})


@pytest.mark.parametrize("first", [b"", HEALTH + b"\r\n"], ids=["new", "kept alive"])
def test_a_head_that_does_not_arrive_in_time_is_given_up(connection, first):
    if first:
        connection.sendall(first)
        assert read_answer(connection)[0] == 200
    began = time.monotonic()
    connection.sendall(HEALTH)
    connection.settimeout(0.1)
    while True:  # each byte is in time, but not the last
        try:
            status, headers, answer = read_answer(connection)
            break
        except TimeoutError:
            connection.sendall(b"x")
    assert (status, headers["connection"]) == (408, "close")
    assert answer == {"error": "the head of the request did not arrive within 0.5 s"}
    assert 0.4 < time.monotonic() - began < 3
    connection.settimeout(PATIENCE_S)
    assert connection.recv(1) == b""


def test_a_head_that_arrives_in_pieces_leaves_nothing_behind(connection):
    for _ in range(2):
        connection.sendall(HEALTH)
        time.sleep(0.1)
        connection.sendall(b"\r\n")
        assert read_answer(connection)[0] == 200
    time.sleep(0.7)  # longer than a head may take
    connection.sendall(HEALTH + b"\r\n")
    assert read_answer(connection)[0] == 200


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3", "Content-Length"),
        (b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked", "Content-Length"),
        (b"GET http://x HTTP/1.1\r\nhost: x", "its target must be a path"),
        (b"GET /\xff HTTP/1.1\r\nhost: x", "Invalid char in url path"),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x", "CONNECT"),
        (b"nonsense", "not valid HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM", "not valid HTTP"),
    ],
)
def test_what_is_not_http_gets_an_error_like_any_other(connection, head, said):
    connection.sendall(head + b"\r\n\r\n")
    status, headers, answer = read_answer(connection)
    assert (status, headers["content-type"], headers["connection"]) == (400, "application/json", "close")
    assert said in answer["error"]
    assert "date" in headers
