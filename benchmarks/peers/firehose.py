"""A Firehose that takes everything, so that the capture of the service under test costs what it costs."""

import asyncio
import sys
from typing import cast

import uvloop

_ANSWER = b'{"FailedPutCount":0,"RequestResponses":[]}'
_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_ANSWER),
    _ANSWER,
)


class Firehose(asyncio.Protocol):
    """Reads requests and throws them away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass of asyncio's
        self._unread = bytearray()
        self._left: int | None = None

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._unread += data
        while True:
            if self._left is None:
                head, found, rest = bytes(self._unread).partition(b"\r\n\r\n")
                if not found:
                    return
                self._left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                self._unread = bytearray(rest)
            if len(self._unread) < self._left:
                return
            del self._unread[: self._left]
            self._left = None
            self._transport.write(_RESPONSE)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Firehose, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
