"""The routes that predict, as a plain ASGI handler: this is the hot path, and nothing stands in front of it."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Raw, Struct
from starlette.types import Message, Receive, Scope, Send

from contract.service import ServiceSettings
from services.inference import protocol, sagemaker
from services.inference.artifacts import Version
from services.inference.batches import MOST_ROWS, Batches
from services.inference.capture import Captured
from services.inference.content import decompress, split_binary
from services.inference.explain import EXPLANATION, explain
from services.inference.live import Catalogue, Headers, Model
from services.inference.overload import Gate
from services.inference.protocol import ErrorBody, Output, RequestError
from services.inference.tensors import Array, encode
from services.inference.tracing import Trace, join_states, read_trace, trace_headers

logger = logging.getLogger(__name__)

# Larger bodies take about a millisecond to decode and predict; a thread keeps the other requests from waiting for it.
# Below, the way to the thread and back would cost more than the work.
_THREAD_ABOVE_BYTES = 32 * 1024

RESPOND = "ml_platform.respond"
"""Key among a scope's `extensions` of what answers with status 200 and some JSON in one go.

It returns False if it cannot; then ASGI's `send` can.
"""
HAS_BODY = "ml_platform.has_body"
"""Key among a scope's `extensions` of what says whether some of the body is there, so that `receive` does not wait."""

_JSON = (b"content-type", b"application/json")
_PLAIN = (_JSON,)
_BINARY = (b"content-type", b"application/octet-stream")
_HEADER_LENGTH = b"inference-header-content-length"
_HEADERS = frozenset((b"content-length", b"content-encoding", _HEADER_LENGTH, b"traceparent", b"tracestate"))

_match_infer = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer").fullmatch


class Reply(Struct, gc=False):
    """What goes back to the client."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = _PLAIN


class Call(Struct, gc=False):
    """A request: what came with it, and what is known of it so far."""

    path: str
    headers: Headers
    trace: Trace | None = None
    id: str = ""
    # Names that clients make up are never kept: as labels of metrics they could fill the memory.
    model: Model | None = None
    version: Version | None = None
    rows: int = 0
    captured: Captured | None = None
    status: int = 0
    seconds: float = 0.0


class Question(Struct, gc=False):
    """What a request asks of a version, and how its client wants the answers."""

    version: Version
    features: Array
    names: list[str]
    outputs: list[Output]
    is_plain: bool
    """Whether it wants all outputs as JSON, and nothing else."""
    data: Raw | None = None
    """The JSON of the features, if they came as that."""
    explains: bool = False

    @property
    def takes_long(self) -> bool:
        """Whether the answer would hold up the event loop."""
        return self.explains or len(self.features) > self.version.quick_rows


class Target(NamedTuple):
    """What a path asks for: how its requests are read, and how the answers are written."""

    model: Model
    fixed: Version | None
    read: Callable[["Target", Call, bytes], Question]
    write: Callable[[Call, Question, list[Array]], Reply]


class ClientGoneError(Exception):
    """The client has gone before its request was complete."""


class Inference:
    """Answers `/v2/models/.../infer` and SageMaker's `/invocations`.

    Args:
        settings: the service's.
        catalogue: the models.
        gate: the queue.
        on_answered: told of each answered request.
    """

    def __init__(
        self, settings: ServiceSettings, catalogue: Catalogue, gate: Gate, on_answered: Callable[[Call], None]
    ) -> None:
        self._max_rows = settings.max_rows
        self._max_bytes = settings.max_body_bytes
        self._catalogue = catalogue
        self._gate = gate
        self._on_answered = on_answered
        self._batches = Batches()
        self._user_header = settings.user_header.encode()
        self._headers = _HEADERS | sagemaker.HEADERS | {self._user_header}
        self._targets = {
            f"/v2/models/{name}/infer": Target(model, None, self._read, _write) for name, model in catalogue.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gate = self._gate
        arrived = gate.enter()
        wanted = self._headers
        if self._catalogue.rule_headers:
            wanted = wanted | self._catalogue.rule_headers
        extensions = scope.get("extensions") or {}
        call = Call(scope["path"], {name: value for name, value in scope["headers"] if name in wanted})
        if b"traceparent" in call.headers:
            call.trace = read_trace(call.headers[b"traceparent"])
            call.headers = join_states(call.headers, scope["headers"])
        try:
            gate.check(arrived)
            target = self._targets.get(call.path) or self._find_target(call)
            call.model = target.model
            if scope["method"] != "POST":
                raise RequestError(405, f"the method must be POST, given: {scope['method']}")
            if HAS_BODY in extensions and extensions[HAS_BODY]():
                message = await receive()  # at once: a deadline would cost more than it
            else:
                message = await gate.until_deadline(receive(), arrived)
            body: bytes = message.get("body", b"")
            if not body or message["more_body"] or len(body) > self._max_bytes:
                body = await gate.until_deadline(_read_rest(message, call.headers, receive, self._max_bytes), arrived)
            if b"content-encoding" in call.headers:
                body = decompress(body, call.headers[b"content-encoding"], self._max_bytes)
            if len(body) > _THREAD_ABOVE_BYTES or target.model.is_slow:
                reply = await gate.in_thread(_answer, (target, call, body), arrived)
            elif (question := target.read(target, call, body)).takes_long:
                reply = await gate.in_thread(_reply, (target, call, question), arrived)
            else:
                if gate.has_company and question.is_plain and len(question.features) <= MOST_ROWS:
                    answers = await self._batches.predict(question.version, question.features)
                else:
                    answers = question.version.predict(question.features, question.names)
                reply = target.write(call, question, answers)
        except RequestError as error:
            reply = _refuse(error)
        except ClientGoneError:
            return
        except Exception:
            trace_id = call.trace and call.trace.id
            logger.exception("a request failed", extra={"path": call.path, "id": call.id, "trace_id": trace_id})
            reply = Reply(500, encode(ErrorBody("internal error; the log of the service has the details")))
        finally:
            gate.leave()
        more = _more_headers(call, gate.is_draining) if call.trace or gate.is_draining else ()
        is_plain = reply.status == 200 and reply.headers is _PLAIN and not more
        respond = extensions.get(RESPOND) if is_plain else None
        if not (respond and respond(reply.body)):
            headers = [*reply.headers, *more, (b"content-length", b"%d" % len(reply.body))]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": reply.body})
        call.status, call.seconds = reply.status, time.perf_counter() - arrived
        # The answer leaves at the end of the loop's pass; what is written down of it does not hold it up.
        asyncio.get_running_loop().call_soon(self._on_answered, call)

    def _find_target(self, call: Call) -> Target:
        """What any other path asks for, refused before the body is read if it is nothing."""
        if call.path == "/invocations":
            return Target(self._target_model(call.headers), None, self._read_invocation, _write_predictions)
        infer = _match_infer(call.path)
        if not infer:
            raise RequestError(404, "not found; the route is /v2/models/<model>/infer")
        model = call.model = find_model(self._catalogue, infer[1])
        return Target(model, find_version(model, infer[2]) if infer[2] else None, self._read, _write)

    def _read(self, target: Target, call: Call, body: bytes) -> Question:
        binary = b""
        if _HEADER_LENGTH in call.headers:
            body, binary = split_binary(body, call.headers[_HEADER_LENGTH])
        request = protocol.read_request(body)
        call.id = request.id or protocol.new_id()
        version = call.version = target.fixed or target.model.sole or self._choose(target.model, call)
        features = protocol.read_features(request.inputs, version.reader, binary, self._max_rows)
        data = request.inputs[0].data if version.reader.is_number else None
        if not request.outputs and not request.parameters:
            names, outputs = version.everything
            return Question(version, features, names, outputs, version.can_batch, data)
        names, outputs = protocol.select_outputs(request, version.outputs)
        explains = protocol.is_on(request.parameters, "explain")
        return Question(version, features, names, outputs, False, data, explains)

    def _read_invocation(self, target: Target, call: Call, body: bytes) -> Question:
        # SageMaker hands the caller's inference id over, and gives the custom attributes back to the caller.
        call.id = call.headers.get(b"x-amzn-sagemaker-inference-id", b"").decode("latin-1") or protocol.new_id()
        version = call.version = self._choose(target.model, call)
        features = sagemaker.read_features(body, call.headers, version.reader)
        protocol.check_rows(len(features), self._max_rows)
        return Question(version, features, *version.everything, version.can_batch)

    def _target_model(self, headers: Headers) -> Model:
        if name := headers.get(b"x-amzn-sagemaker-target-model"):
            return find_model(self._catalogue, name.decode("latin-1"))
        if len(self._catalogue) > 1:
            known = ", ".join(self._catalogue)
            raise RequestError(400, f"the header X-Amzn-SageMaker-Target-Model must name one of the models: {known}")
        return next(iter(self._catalogue.values()))

    def _choose(self, model: Model, call: Call) -> Version:
        user = call.headers.get(self._user_header)
        return choose_version(model, user.decode("latin-1") if user else call.id, call.headers)


def find_model(catalogue: Catalogue, name: str) -> Model:
    """The model with this name.

    Raises:
        RequestError: naming the models there are.
    """
    if model := catalogue.get(name):
        return model
    raise RequestError(404, f"unknown model {name!r}; this service has: {', '.join(catalogue)}")


def find_version(model: Model, number: str) -> Version:
    """The loaded version with this number.

    Raises:
        RequestError: naming the versions that are loaded, and why others are not.
    """
    if version := model.versions.get(number):
        return version
    loaded = ", ".join(model.versions) or "none"
    why = f"; {model.why}" if model.problems else ""
    raise RequestError(404, f"model {model.name!r} has no version {number!r} loaded; loaded: {loaded}{why}")


def choose_version(model: Model, key: str, headers: Headers | None = None) -> Version:
    """The live version for a request.

    Raises:
        RequestError: if none is live.
    """
    try:
        return model.choose(key, headers)
    except LookupError:
        raise RequestError(503, f"model {model.name!r} is not ready: {model.why}", retry_after_s=5) from None


def _answer(target: Target, call: Call, body: bytes) -> Reply:
    """All of it, where nothing waits for anything."""
    return _reply(target, call, target.read(target, call, body))


def _reply(target: Target, call: Call, question: Question) -> Reply:
    return target.write(call, question, question.version.predict(question.features, question.names))


def _write(call: Call, question: Question, answers: list[Array]) -> Reply:
    version = question.version
    parts, attached, numbers = protocol.write_outputs(question.outputs, answers)
    call.rows = len(question.features)
    # The client's own text is the fastest to write down, but a value's hash must not depend on how it is spelt.
    features = question.features if version.sensitive or not question.data else question.data
    call.captured = Captured(features, question.outputs, numbers)
    if question.explains:
        more, more_attached, _ = protocol.write_outputs(EXPLANATION, explain(version, question.features))
        parts, attached = parts + more, attached + more_attached
    json = b'%b%b,"outputs":[%b]}' % (version.answer_prefix, encode(call.id), b",".join(parts))
    if attached:
        return Reply(200, json + attached, (_BINARY, (_HEADER_LENGTH, b"%d" % len(json))))
    return Reply(200, json)


def _write_predictions(call: Call, question: Question, answers: list[Array]) -> Reply:
    version = question.version
    _, _, numbers = protocol.write_outputs(question.outputs, answers)
    call.rows = len(question.features)
    call.captured = Captured(question.features, question.outputs, numbers)
    payload, made = sagemaker.write_predictions(question.names, answers, call.headers)
    origin = f"model={version.model};version={version.number};id={call.id}".encode("latin-1", "replace")
    return Reply(200, payload, ((b"content-type", made), (b"x-amzn-sagemaker-custom-attributes", origin)))


def _refuse(error: RequestError) -> Reply:
    body = encode(ErrorBody(error.reason))
    if error.status == 405:
        return Reply(405, body, (_JSON, (b"allow", b"POST")))
    if error.status in (408, 413):
        # The rest of the body is still on its way; without the close the server would have to swallow it.
        return Reply(error.status, body, (_JSON, (b"connection", b"close")))
    if error.retry_after_s:
        return Reply(error.status, body, (_JSON, (b"retry-after", b"%d" % error.retry_after_s)))
    return Reply(error.status, body)


def _more_headers(call: Call, is_draining: bool) -> list[tuple[bytes, bytes]]:
    headers = [(b"connection", b"close")] if is_draining else []
    return headers + trace_headers(call.trace, call.headers)


async def _read_rest(message: Message, headers: Headers, receive: Receive, limit: int) -> bytes:
    """The whole body; one over the limit is refused as soon as that is known, however it is sent."""
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    chunks = bytearray(message.get("body", b""))
    while message.get("more_body") and len(chunks) <= limit:
        message = await receive()
        chunks += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if len(chunks) > limit:
        raise _too_large(limit)
    return bytes(chunks)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the body is larger than the limit of {limit} bytes; send fewer rows in a request")
