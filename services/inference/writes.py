"""Sends a whole response at once: ASGI has uvicorn look at each header, and write head and body one after the other.

One system call instead of two, and no headers to check that never change: a fifth of what a small request takes.
"""

from collections.abc import Callable
from functools import partial

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

EXTENSION = "ml_platform.respond"
"""Key among the `extensions` of an ASGI scope of a `Respond`."""

Respond = Callable[[bytes], bool]
"""Answers with status 200 and this JSON; False if it cannot, in which case ASGI's `send` can."""


class WholeResponseProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with that extension."""

    def on_headers_complete(self) -> None:
        """Begin a request."""
        super().on_headers_complete()
        if self.cycle:
            self.scope["extensions"] = {EXTENSION: partial(_respond, self.cycle)}  # type: ignore[dict-item]


def _respond(cycle: RequestResponseCycle, json: bytes) -> bool:
    """What `RequestResponseCycle.send` does for a start and a body of known length."""
    if cycle.flow.write_paused or cycle.disconnected or not cycle.keep_alive or cycle.waiting_for_100_continue:
        return False
    lines = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(
        b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (STATUS_LINE[200], lines, len(json), json)
    )
    cycle.message_event.set()
    cycle.on_response()
    return True
