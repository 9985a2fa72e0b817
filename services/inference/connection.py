"""An HTTP connection as uvicorn has it, but for what that does too slowly or not at all.

A request to predict that comes whole takes a shortcut, to `Inference.take`: what ASGI has to do beside it, which is a
task, an event, a message for each part and a check of each header, takes as long as all the rest.

The head of a request has limits, and one that asks for another protocol is read all the same.
"""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from services.inference.protocol import ErrorBody, RequestError
from services.inference.targets import JSON, Reply
from services.inference.tensors import encode

if TYPE_CHECKING:
    from services.inference.app import Service

_LONGEST_HEAD = 64 * 1024
# Many clients send head and body one after the other. What takes longer than this is waited for as ASGI has it.
_BODY_WITHIN_S = 0.01


class _Flow(FlowControl):
    """Reads no further while requests wait for the answer to the one before; uvicorn's would fill the memory."""

    def __init__(self, transport: asyncio.Transport, waiting: Collection[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Go on, unless some wait."""
        if not self._waiting:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with that shortcut and those limits."""

    def __init__(self, config: Config, **more: Any) -> None:
        super().__init__(config, **more)
        service = cast("Service", config.app)
        self._inference = service.inference
        self._deadline_s = service.settings.deadline_ms / 1000
        self._has_begun = False
        """Whether the last head is complete."""
        self._path: str | None = None
        """The path of a request that may be taken when its body is complete, and what there is of that."""
        self._body = b""
        self._is_taken = False
        """Whether a request was taken, and is not answered yet."""
        self._answering: RequestResponseCycle | None = None
        """What ASGI answers, or has answered last."""
        self._follows = False
        """Whether a request came before the answer to the one before: so does the next, then, which has to wait."""
        self._read = 0
        """Bytes since a head was last complete: no fewer than have come of the next one."""
        self._unfinished: Any = self
        """The scope of the request whose head has come in part, when all of it is due, and how much may come."""
        self._due = 0.0
        self._allowed = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection; one that stays silent ends like one that falls silent."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what waits for its turn, and tell what is being answered; uvicorn tells the last to come instead."""
        self._path = None
        self.pipeline.clear()
        if self._answering:
            self.cycle = self._answering
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._unset_keepalive_if_required()
        self._read += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError as error:
                self._refuse(_reason(error))
                return
        if not self._has_begun:
            self._await_head(len(data))
            return
        self._read = 0
        if self._path:
            self.timeout_keep_alive_task = self.loop.call_at(self._due, self._release)

    def _await_head(self, size: int) -> None:
        """Wait for the rest of a head, of which some may have come in these last bytes."""
        if self._unfinished is not self.scope:
            self._unfinished, self._due = self.scope, self.loop.time() + self._deadline_s
            self._read, self._allowed = size, size + _LONGEST_HEAD  # a body may have ended in these bytes as well
        if self._read > self._allowed:
            self._refuse(_too_large())
        else:
            self.timeout_keep_alive_task = self.loop.call_at(self._due, self._give_up)

    def _give_up(self) -> None:
        answers_another = self.cycle and not self.cycle.response_complete
        if not answers_another and not self.transport.is_closing():
            self._refuse(RequestError(408, f"the head of the request did not arrive within {self._deadline_s:g} s"))

    def _check_head(self) -> None:
        """Refuse a head that is too large, whatever else was read with it."""
        size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if size > _LONGEST_HEAD:
            raise _too_large()

    def _refuse(self, error: RequestError) -> None:
        """Answer what is no request yet, and end the connection."""
        self._path = None
        self._settle()
        self._write(Reply(error.status, encode(ErrorBody(error.reason)), (JSON, (b"connection", b"close"))))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        # uvicorn asks this only of requests with an upgrade: they do not begin before they are read without it.
        return True

    def _without_upgrade(self, rest: bytes) -> bytes:
        """The request whose head has just been read, as a server sees it that ignores `Upgrade` (RFC 9110, 7.8).

        The parser takes whatever follows such a head for the other protocol, so another one has to read it again.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(RequestError(400, "the method CONNECT is for proxies"))
            return b""
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return b"\r\n".join([*lines, b"", rest])

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        self._follows = self._is_taken
        self._settle()
        self._has_begun = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a request, or wait for its body."""
        if self._read > _LONGEST_HEAD:
            self._check_head()
        self._path = self._inference.paths.get(self.url)
        if self._path and self._can_be_taken():
            self._due = self.loop.time() + _BODY_WITHIN_S
        else:
            self._path = None
            super().on_headers_complete()
        self._has_begun = True

    def _can_be_taken(self) -> bool:
        """Whether there is nothing to do but to answer: no other answer before, nothing to say or to end beside it."""
        return (
            not self._follows
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
        )

    def on_body(self, body: bytes) -> None:
        """Go on with a request."""
        if not self._path:
            super().on_body(body)
            return
        self._body += body
        if len(self._body) > self._inference.most_bytes:
            self._release()

    def on_message_complete(self) -> None:
        """Have a whole request answered."""
        if self._path:
            self._is_taken = self._inference.take(self._path, self.headers, self._body, self._respond)
            if self._is_taken:
                self._path, self._body = None, b""
                return
            self._release()
        super().on_message_complete()

    def _release(self) -> None:
        """Let a request go the way of ASGI, with what there is of it."""
        if self._path:
            body, self._path, self._body = self._body, None, b""
            super().on_headers_complete()
            if body:
                super().on_body(body)

    def _respond(self, reply: Reply) -> None:
        """Answer the request that was taken."""
        self._is_taken = False
        if not self.transport.is_closing():
            self._write(reply)
        self.on_response_complete()

    def _settle(self) -> None:
        """Have what was taken answered before anything else is."""
        if self._is_taken:
            self._inference.answer_taken()
            self._unset_keepalive_if_required()

    def _write(self, reply: Reply) -> None:
        lines = b"".join([b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *reply.headers)])
        head = b"%b%bcontent-length: %d\r\n\r\n" % (STATUS_LINE[reply.status], lines, len(reply.body))
        self.transport.write(head + reply.body)

    def shutdown(self) -> None:
        """Take no more requests, and end when those that have begun are answered."""
        self._settle()
        self._release()
        super().shutdown()


def _too_large() -> RequestError:
    return RequestError(431, f"the head of the request is larger than the limit of {_LONGEST_HEAD} bytes")


def _reason(error: httptools.HttpParserError) -> RequestError:
    """What to answer to a request that the parser, or what it calls, does not take."""
    cause = error.__context__
    if isinstance(cause, RequestError):
        return cause
    if cause:
        return RequestError(400, "the request is not valid HTTP: its target must be a path, in ASCII")
    return RequestError(400, f"the request is not valid HTTP: {error}")
