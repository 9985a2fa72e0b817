"""HTTP below the application, where clients do what httpx never does."""

import json
import socket
import time

import pytest

from tests.services.conftest import Linear, request

INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
BODY = json.dumps(request([1, 2, 3, 4])).encode()


@pytest.fixture(scope="module")
def running(run_directory):
    return run_directory(Linear(), MLP_DEADLINE_MS="500")


@pytest.fixture
def connection(running):
    with socket.create_connection(("127.0.0.1", running.client.base_url.port), timeout=5) as connection:
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
