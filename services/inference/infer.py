"""The routes that predict, as a plain ASGI handler: this is the hot path, and nothing stands in front of it."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from contract.service import ServiceSettings
from services.inference import protocol, sagemaker
from services.inference.artifacts import Version
from services.inference.live import Catalogue, Model
from services.inference.metrics import Metrics
from services.inference.protocol import ErrorBody, RequestError

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

# A request this large takes about a millisecond to decode and predict; a thread keeps the others from waiting for it.
# Below, the way to the thread and back would cost more than the work.
_THREAD_ABOVE_BYTES = 64 * 1024

_match_infer = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer").fullmatch


class Reply(NamedTuple):
    """What goes back to the client."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


class Call:
    """What is known of a request so far, for the metrics."""

    __slots__ = ("model", "rows", "version")

    def __init__(self) -> None:
        # Names that clients make up never become labels, or they could fill the memory.
        self.model = self.version = ""
        self.rows = 0


class ClientGoneError(Exception):
    """The client has gone before its request was complete."""


class Inference:
    """Answers `/v2/models/.../infer` and SageMaker's `/invocations`."""

    def __init__(self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._metrics = metrics

    @staticmethod
    def handles(path: str) -> bool:
        """Whether a path is for this handler."""
        return path.endswith("/infer") or path == "/invocations"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        self._metrics.in_flight += 1
        call = Call()
        try:
            reply = await self._answer(scope, receive, call)
        except RequestError as error:
            reply = _refuse(error)
        except ClientGoneError:
            return
        except Exception:
            logger.exception("a request failed", extra={"path": scope["path"], "model": call.model})
            reply = Reply(500, protocol.encode(ErrorBody("internal error; the log of the service has the details")))
        finally:
            self._metrics.in_flight -= 1
        length = (b"content-length", str(len(reply.body)).encode())
        await send({"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, length]})
        await send({"type": "http.response.body", "body": reply.body})
        self._metrics.record(call.model, call.version, reply.status, call.rows, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, call: Call) -> Reply:
        work = self._route(scope, call)
        body = await _read_body(scope["headers"], receive, self._settings.max_body_bytes)
        if len(body) > _THREAD_ABOVE_BYTES:
            return await asyncio.get_running_loop().run_in_executor(None, work, body)
        return work(body)

    def _route(self, scope: Scope, call: Call) -> Callable[[bytes], Reply]:
        """What turns the body into the reply; wrong routes are refused before the body is read."""
        infer = _match_infer(scope["path"])
        if not infer and scope["path"] != "/invocations":
            raise RequestError(404, "not found; the route is /v2/models/<model>/infer")
        if scope["method"] != "POST":
            raise RequestError(405, f"the method must be POST, given: {scope['method']}")
        if not infer:
            headers = sagemaker.invocation_headers(scope["headers"])
            model = self._target(headers.get("x-amzn-sagemaker-target-model"))
            call.model = model.name
            return lambda body: self._invoke(model, headers, call, body)
        model = find_model(self._catalogue, infer[1])
        call.model = model.name
        fixed = find_version(model, infer[2]) if infer[2] else None
        return lambda body: self._infer(model, fixed, call, body)

    def _infer(self, model: Model, fixed: Version | None, call: Call, body: bytes) -> Reply:
        request = protocol.read_request(body)
        request_id = request.id or protocol.new_id()
        version = fixed or choose_version(model, request_id)
        call.version = version.number
        features = protocol.read_features(request.inputs, version.columns, self._settings.max_rows)
        names = protocol.select_outputs(request.outputs, version.outputs)
        answers = version.predict(features, names)
        call.rows = len(features)
        tensors = [version.outputs[name] for name in names]
        return Reply(200, protocol.write_response(model.name, version.number, request_id, tensors, answers))

    def _invoke(self, model: Model, headers: Mapping[str, str], call: Call, body: bytes) -> Reply:
        # SageMaker hands the caller's inference id over, and gives the custom attributes back to the caller.
        request_id = headers.get("x-amzn-sagemaker-inference-id") or protocol.new_id()
        version = choose_version(model, request_id)
        call.version = version.number
        content_type = headers.get("content-type", sagemaker.JSON).partition(";")[0].strip().lower()
        rows = sagemaker.read_rows(body, content_type)
        protocol.check_rows(len(rows), self._settings.max_rows)
        features = protocol.to_features(rows, version.columns)
        answers = version.predict(features, list(version.outputs))
        call.rows = len(features)
        payload, made = sagemaker.write_predictions(list(version.outputs), answers, headers.get("accept", ""))
        origin = f"model={model.name};version={version.number};id={request_id}".encode("latin-1")
        return Reply(200, payload, ((b"content-type", made.encode()), (b"x-amzn-sagemaker-custom-attributes", origin)))

    def _target(self, name: str | None) -> Model:
        if name:
            return find_model(self._catalogue, name)
        if len(self._catalogue) > 1:
            known = ", ".join(self._catalogue)
            raise RequestError(400, f"the header X-Amzn-SageMaker-Target-Model must name one of the models: {known}")
        return next(iter(self._catalogue.values()))


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


def choose_version(model: Model, key: str) -> Version:
    """The live version for a request.

    Raises:
        RequestError: if none is live.
    """
    try:
        return model.choose(key)
    except LookupError:
        raise RequestError(503, f"model {model.name!r} is not ready: {model.why}") from None


def _refuse(error: RequestError) -> Reply:
    reply = Reply(error.status, protocol.encode(ErrorBody(error.reason)))
    if error.status == 405:
        return reply._replace(headers=(*reply.headers, (b"allow", b"POST")))
    if error.status == 413:
        # The rest of the body is still on its way; without the close the server would have to swallow it.
        return reply._replace(headers=(*reply.headers, (b"connection", b"close")))
    return reply


async def _read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The whole body; one over the limit is refused as soon as that is known, however it is sent."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        announced = next((value for name, value in headers if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        chunks = bytearray(body)
        while message.get("more_body") and len(chunks) <= limit:
            message = await receive()
            chunks += message.get("body", b"")
        body = bytes(chunks)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the body is larger than the limit of {limit} bytes; send fewer rows in a request")
