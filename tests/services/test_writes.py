"""HTTP below the application, where clients do what httpx never does."""

import json
import socket
import time

import pytest

from tests.services.conftest import Linear, request
from tests.waiting import PATIENCE_S

INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
BODY = json.dumps(request([1, 2, 3, 4])).encode()


@pytest.fixture(scope="module")
def running(run_directory):
    return run_directory(Linear(), MLP_DEADLINE_MS="500")


@pytest.fixture
def connection(running):
    with socket.create_connection(("127.0.0.1", running.client.base_url.port), timeout=PATIENCE_S) as connection:
        yield connection


def read_answer(connection) -> tuple[int, dict[str, str], dict]:
    """Status, headers and JSON of the next answer."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += (piece := connection.recv(65536))
        assert piece, content
    head, _, body = content.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    assert len(body) == int(headers["content-length"])
    return int(status.split()[1]), headers, json.loads(body)


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
