"""The routes that predict: this is the hot path, and nothing stands in front of it."""

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from contract.service import ServiceSettings
from services.inference.artifacts import Version
from services.inference.content import decompress
from services.inference.live import Catalogue, Headers
from services.inference.overload import Gate
from services.inference.protocol import ErrorBody, RequestError
from services.inference.targets import JSON, Call, Question, Reply, Target, Targets
from services.inference.tensors import Array, encode
from services.inference.tracing import join_states, read_trace, trace_headers

logger = logging.getLogger(__name__)

# Larger bodies take about a millisecond to decode and predict; a thread keeps the other requests from waiting for it.
# Below, the way to the thread and back would cost more than the work.
_THREAD_ABOVE_BYTES = 32 * 1024
# Above, a prediction of its own costs no more than a share of one.
_SHARED_ROWS = 8
_HEADERS = frozenset((b"content-length", b"content-encoding", b"traceparent", b"tracestate"))

HeaderList = list[tuple[bytes, bytes]]


class Taken(Struct, gc=False):
    """A request that will be answered at the end of the event loop's pass."""

    call: Call
    respond: Callable[[Reply], None]
    target: Target | None = None
    question: Question | None = None
    answers: list[Array] | None = None
    reply: Reply | None = None


class ClientGoneError(Exception):
    """The client has gone before its request was complete."""


class Inference:
    """Answers `/v2/models/.../infer` and SageMaker's `/invocations`.

    Any request can be answered as ASGI has it. One that has come whole, and will not take long, need not wait for
    anything, and so needs no task, which would cost as much as the rest: `take` takes it, and at the end of the event
    loop's pass all that were taken are answered, with one prediction for all. A prediction of eight rows takes three
    times as long as one of a single row, and nobody has to wait for more to come.

    Args:
        settings: the service's.
        catalogue: the models.
        gate: the queue.
        on_answered: told of each answered request.
    """

    def __init__(
        self, settings: ServiceSettings, catalogue: Catalogue, gate: Gate, on_answered: Callable[[Call], None]
    ) -> None:
        self._max_bytes = settings.max_body_bytes
        self._catalogue = catalogue
        self._gate = gate
        self._on_answered = on_answered
        self._targets = Targets(settings, catalogue)
        self._headers = _HEADERS | self._targets.headers
        self._taken: list[Taken] = []
        self.paths = self._targets.usual
        """The paths of requests that `take` may be asked to take, by their bytes."""
        self.most_bytes = min(_THREAD_ABOVE_BYTES, self._max_bytes)
        """The largest body of those."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = self._begin(scope["path"], scope["headers"])
        try:
            self._gate.enter()
            reply = await self._answer(call, scope["method"], receive)
        except ClientGoneError:
            return
        except Exception as error:
            reply = _fail(call, error)
        finally:
            # Those that wait only for their turn in this pass are in the queue, too, though each is answered at once.
            asyncio.get_running_loop().call_soon(self._gate.leave)
        headers = [*reply.headers, *trace_headers(call.trace, call.headers)]
        if self._gate.is_draining:
            headers.append((b"connection", b"close"))
        headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        self._end(call, reply)

    def take(self, path: str, headers: HeaderList, body: bytes, respond: Callable[[Reply], None]) -> bool:
        """Answer a request to POST at the end of the event loop's pass.

        Args:
            path: one of `paths`.
            headers: all of them, their names in lower case.
            body: all of it, no more than `most_bytes`.
            respond: sends the answer; the connection stays open.

        Returns:
            False if it may take long, or needs more than an answer: then it has to go ASGI's way.
        """
        call = self._begin(path, headers)
        if self._gate.is_draining or b"content-encoding" in call.headers:
            return False
        each = Taken(call, respond)
        try:
            self._gate.enter()
            target = each.target = self._targets.find(call)
            if target.model.is_slow or (question := target.read(target, call, body)).takes_long:
                self._gate.leave()
                return False
            each.question = question
        except Exception as error:
            each.reply = _fail(call, error)
        if not self._taken:
            asyncio.get_running_loop().call_soon(self.answer_taken)
        self._taken.append(each)
        return True

    def answer_taken(self) -> None:
        """Answer what has been taken so far."""
        taken, self._taken = self._taken, []
        if len(taken) > 1:
            _predict_together(taken)
        for each in taken:
            reply = each.reply or self._reply_to(each)
            if each.call.trace:
                reply.headers += tuple(trace_headers(each.call.trace, each.call.headers))
            each.respond(reply)
            self._end(each.call, reply)
        self._gate.leave(len(taken))

    def _begin(self, path: str, given: HeaderList) -> Call:
        wanted = self._headers
        if self._catalogue.rule_headers:
            wanted = wanted | self._catalogue.rule_headers
        call = Call(path, {name: value for name, value in given if name in wanted}, time.perf_counter())
        if b"traceparent" in call.headers:
            call.trace = read_trace(call.headers[b"traceparent"])
            call.headers = join_states(call.headers, given)
        return call

    def _end(self, call: Call, reply: Reply) -> None:
        call.status, call.seconds = reply.status, time.perf_counter() - call.arrived
        # The answer leaves at the end of the loop's pass; what is written down of it does not hold it up.
        asyncio.get_running_loop().call_soon(self._on_answered, call)

    async def _answer(self, call: Call, method: str, receive: Receive) -> Reply:
        target = self._targets.find(call)  # before the body is read
        if method != "POST":
            raise RequestError(405, f"the method must be POST, given: {method}")
        reading = _read_body(receive, call.headers, self._max_bytes)
        body = await self._gate.until_deadline(reading, call.arrived)
        if b"content-encoding" in call.headers:
            body = decompress(body, call.headers[b"content-encoding"], self._max_bytes)
        if len(body) > _THREAD_ABOVE_BYTES or target.model.is_slow:
            return await self._gate.in_thread(_read_and_reply, (target, call, body), call.arrived)
        if (question := target.read(target, call, body)).takes_long:
            return await self._gate.in_thread(_reply, (target, call, question), call.arrived)
        return _reply(target, call, question)

    def _reply_to(self, each: Taken) -> Reply:
        assert each.target
        assert each.question
        try:
            self._gate.check(each.call.arrived)
            if each.answers is None:
                return _reply(each.target, each.call, each.question)
            return each.target.write(each.call, each.question, each.answers)
        except Exception as error:
            return _fail(each.call, error)


def _read_and_reply(target: Target, call: Call, body: bytes) -> Reply:
    return _reply(target, call, target.read(target, call, body))


def _reply(target: Target, call: Call, question: Question) -> Reply:
    return target.write(call, question, question.version.predict(question.features, question.names))


def _predict_together(taken: list[Taken]) -> None:
    """Give those that can share a prediction their answers."""
    shared: dict[Version, list[tuple[Taken, Array]]] = {}
    for each in taken:
        if (question := each.question) and question.is_plain and len(question.features) <= _SHARED_ROWS:
            shared.setdefault(question.version, []).append((each, question.features))
    for version, some in shared.items():
        try:
            answers = version.predict(np.concatenate([features for _, features in some]), version.everything.names)
        except Exception:  # it may be the fault of one: each will get the answer, or the error, that it has alone
            continue
        start = 0
        for each, features in some:
            end = start + len(features)
            each.answers = [answer[start:end] for answer in answers]
            start = end


def _fail(call: Call, error: Exception) -> Reply:
    """What to answer instead; a fault of the service itself goes to the log."""
    if not isinstance(error, RequestError):
        trace_id = call.trace and call.trace.id
        logger.error("a request failed", exc_info=error, extra={"path": call.path, "id": call.id, "trace_id": trace_id})
        return Reply(500, encode(ErrorBody("internal error; the log of the service has the details")))
    body = encode(ErrorBody(error.reason))
    if error.status == 405:
        return Reply(405, body, (JSON, (b"allow", b"POST")))
    if error.status in (408, 413):
        # The rest of the body is still on its way; without the close the server would have to swallow it.
        return Reply(error.status, body, (JSON, (b"connection", b"close")))
    if error.retry_after_s:
        return Reply(error.status, body, (JSON, (b"retry-after", b"%d" % error.retry_after_s)))
    return Reply(error.status, body)


async def _read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body; one over the limit is refused as soon as that is known, however it is sent."""
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    chunks = bytearray()
    has_more = True
    while has_more and len(chunks) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunks += message.get("body", b"")
        has_more = message.get("more_body", False)
    if len(chunks) > limit:
        raise _too_large(limit)
    return bytes(chunks)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the body is larger than the limit of {limit} bytes; send fewer rows in a request")
