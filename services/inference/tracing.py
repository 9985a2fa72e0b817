"""W3C trace context: requests keep the trace that they came with, in logs, captures, answers and spans."""

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_match = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?").fullmatch


class Trace(NamedTuple):
    """The place of a request in its caller's trace; `span` is this service's own step in it."""

    id: str
    parent: str
    span: str
    flags: str

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(int(self.flags, 16) & 1)

    @property
    def traceparent(self) -> bytes:
        """The header for whatever comes after this step."""
        return f"00-{self.id}-{self.span}-{self.flags}".encode()


def read_trace(traceparent: bytes) -> Trace | None:
    """The trace that a `traceparent` header names, or None if it is not valid (W3C Trace Context, section 3.2)."""
    parts = _match(traceparent.strip())
    if not parts or parts[1] == b"ff" or (parts[1] == b"00" and parts[5]):
        return None
    if parts[2] == b"0" * 32 or parts[3] == b"0" * 16:
        return None
    span = f"{random.getrandbits(64) or 1:016x}"
    return Trace(parts[2].decode(), parts[3].decode(), span, parts[4].decode())


def join_states(headers: Mapping[bytes, bytes], given: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """The headers with the whole `tracestate`, which may come in several (W3C Trace Context, section 3.3.1.1).

    Args:
        headers: the last one of each name.
        given: all of them, in the order in which they came.
    """
    states = [value for name, value in given if name == b"tracestate"]
    return {**headers, b"tracestate": b",".join(states)} if len(states) > 1 else headers


def trace_headers(trace: Trace | None, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """What an answer says of its trace: this service's step, and the `tracestate` that came with the request."""
    if not trace:
        return []
    state = headers.get(b"tracestate")
    return [(b"traceparent", trace.traceparent), *([(b"tracestate", state)] if state is not None else [])]


class Answered(NamedTuple):
    """A request that was answered; `name` is what all requests of its kind are called."""

    name: str
    method: str
    path: str
    status: int
    seconds: float
    trace: Trace | None


class Traced:
    """An ASGI application whose answers continue their requests' traces.

    Args:
        app: the application; what it raises, after its answer, is logged here and goes no further.
        on_answered: told of each answered request.
    """

    def __init__(self, app: ASGIApp, on_answered: Callable[[Answered], None]) -> None:
        self._app = app
        self._on_answered = on_answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        began, status = time.perf_counter(), 0
        headers = join_states(dict(scope["headers"]), scope["headers"])
        trace = read_trace(headers.get(b"traceparent", b""))
        more = trace_headers(trace, headers)

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        method, path = scope["method"], scope["path"]
        try:
            await self._app(scope, receive, send_traced)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("a request failed", extra={"path": path, "trace_id": trace and trace.id})
        # The route as it is declared, with its parameters' names; a path that nobody has foreseen has none.
        name = f"{method} {getattr(scope.get('route'), 'path', '')}".rstrip()
        self._on_answered(Answered(name, method, path, status or 500, time.perf_counter() - began, trace))
