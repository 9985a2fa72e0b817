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


class Firehose(asyncio.BufferedProtocol):
    """Reads requests and throws them away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass of asyncio's
        self._buffer = bytearray(2**20)
        self._head = b""
        self._left = 0

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 (asyncio names it)
        """Where the next bytes go: over those before, which nobody needs."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Answer a request that is complete; the client sends the next one only then."""
        if self._left:
            self._left -= nbytes
        else:
            self._head += self._buffer[:nbytes]
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]) - len(body)
            self._head = b""
        if not self._left:
            self._transport.write(_RESPONSE)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Firehose, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
