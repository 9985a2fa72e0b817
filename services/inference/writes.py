"""Sends a whole response at once: ASGI has uvicorn look at each header, and write head and body one after the other.

One system call instead of two, and no headers to check that never change: a fifth of what a small request takes.
"""

from functools import partial

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from services.inference.infer import HAS_BODY, RESPOND


class WholeResponseProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with that extension."""

    def on_headers_complete(self) -> None:
        """Begin a request."""
        super().on_headers_complete()
        if self.cycle:
            extensions = {RESPOND: partial(_respond, self.cycle), HAS_BODY: self.cycle.message_event.is_set}
            self.scope["extensions"] = extensions  # type: ignore[typeddict-item]


def _respond(cycle: RequestResponseCycle, json: bytes) -> bool:
    """What `RequestResponseCycle.send` does for a start and a body of known length."""
    if cycle.flow.write_paused or cycle.disconnected or not cycle.keep_alive or cycle.waiting_for_100_continue:
        return False
    lines = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
    cycle.response_started = cycle.response_complete = True
    # It leads back to the request, which would be left to the garbage collector; that holds all others up.
    cycle.scope["extensions"] = {}
    cycle.transport.write(
        b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (STATUS_LINE[200], lines, len(json), json)
    )
    cycle.message_event.set()
    cycle.on_response()
    return True
