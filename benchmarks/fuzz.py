"""Sends bad requests to a running service, and looks for answers of 500 and for memory that is not given back.

python -m benchmarks.fuzz http://127.0.0.1:8080 --model digits [--datatype FP32] [--requests 100000] [--pid PID]
"""

import argparse
import gzip
import json
import random
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil

_WARM_UP = 2_000


def bad_requests(model: str, datatype: str = "FP32", seed: int = 0) -> Iterator[bytes]:
    """Requests without end, most of them wrong: random bytes, damaged bodies, false headers, odd paths.

    They are for a model of four columns of the datatype. Each is a whole HTTP/1.1 request that a server can answer and
    keep the connection.
    """
    chance = random.Random(seed)
    rows: dict[str, list[Any]] = {"BOOL": [True, False, True, False], "BYTES": ["a", "b", "c", "d"]}
    row = rows.get(datatype, [1, 2, 3, 4])
    good = {"inputs": [{"name": "features", "datatype": datatype, "shape": [1, 4], "data": row}], "id": "a"}
    bodies = [
        json.dumps(good).encode(),
        json.dumps([row]).encode(),
        b",".join(json.dumps(value).encode() for value in row),
        b'{"id": "a", "label": 1}',
        b"\x93NUMPY\x01\x00",
    ]
    odd = [
        b"NaN",
        b"1e999",
        b"null",
        b"[" * 2000,
        b"-1",
        b'""',
        b"\xff",
        b"\x00",
        b"{}",
        b"1" * 400,
        b"true",
        b'"\xff"',
        b"[1]",
    ]
    paths = [
        f"/v2/models/{model}/infer",
        f"/v2/models/{model}/versions/1/infer",
        f"/v2/models/{model}/feedback",
        "/invocations",
        "/v2/models/%00/infer",
        "/v2/models/nothing/infer",
        "/v2/health/ready",
        "/%ff%fe",
    ]
    values = [b"", b"0", b"-1", b"9" * 30, b"gzip", b"text/csv", b"application/x-npy", b"\xff\xfe", b"00-" + b"0" * 50]
    names = [
        b"content-type",
        b"accept",
        b"content-encoding",
        b"inference-header-content-length",
        b"traceparent",
        b"x-user-id",
        b"x-amzn-sagemaker-target-model",
    ]
    while True:
        body = bytearray(chance.choice(bodies) if chance.random() < 0.8 else chance.randbytes(chance.randrange(200)))
        if chance.random() < 0.5:
            body = body.replace(json.dumps(chance.choice(row)).encode(), chance.choice(odd))
        else:
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(body) + 1)
                body[at : at + chance.randrange(5)] = chance.choice(odd)
        headers = [(chance.choice(names), chance.choice(values)) for _ in range(chance.randrange(3))]
        if chance.random() < 0.1:
            body = bytearray(gzip.compress(body))
            headers.append((b"content-encoding", b"gzip"))
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        method = chance.choice([b"POST"] * 8 + [b"GET", b"PUT"])
        path = chance.choice(paths).encode()
        yield b"%b %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (method, path, lines, len(body), body)


class Client:
    """Sends requests on one connection for as long as the server keeps it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._connection: socket.socket | None = None

    def send(self, request: bytes) -> int:
        """The status of the answer; 0 if the connection ended without one."""
        if not self._connection:
            self._connection = socket.create_connection(self._address, timeout=30)
        try:
            self._connection.sendall(request)
            return self._read()
        except ConnectionError:
            self.close()
            return 0

    def close(self) -> None:
        """Close the connection; the next request opens one."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _read(self) -> int:
        assert self._connection
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = self._connection.recv(65536)
            if not more:
                raise ConnectionResetError
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        left = int(headers.get(b"content-length", 0)) - len(body)
        while left > 0:
            left -= len(self._connection.recv(left))
        if headers.get(b"connection") == b"close":
            self.close()
        return int(head.split()[1])


def resident_mb(pid: int) -> float:
    """Memory of a process and those below it."""
    process = psutil.Process(pid)
    return sum(of.memory_info().rss for of in [process, *process.children(recursive=True)]) / 2**20


def main() -> None:
    """Print the statuses and the memory along the way; fail if there was a 500."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--datatype", default="FP32", help="of the model's features")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--pid", type=int, help="process whose memory is looked at")
    arguments = parser.parse_args()
    statuses: Counter[int] = Counter()
    client = Client(arguments.url)
    for number, request in enumerate(bad_requests(arguments.model, arguments.datatype)):
        if arguments.pid and (number == _WARM_UP or number % (arguments.requests // 5) == 0):
            print(f"after {number:7} requests: {resident_mb(arguments.pid):.1f} MB")
        if number == arguments.requests:
            break
        statuses[client.send(request)] += 1
    print("answers by status:", ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))
    if statuses[500] or statuses[0]:
        sys.exit("there were answers of 500, or none")


if __name__ == "__main__":
    main()
