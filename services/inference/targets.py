"""What the path of a request to predict asks for: how the request is read, and how its answer is written."""

import re
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Raw, Struct

from contract.service import ServiceSettings
from services.inference import protocol, sagemaker
from services.inference.artifacts import Version
from services.inference.capture import Captured
from services.inference.content import split_binary
from services.inference.explain import EXPLANATION, explain
from services.inference.live import Catalogue, Headers, Model
from services.inference.protocol import Output, RequestError
from services.inference.tensors import Array, encode
from services.inference.tracing import Trace

JSON = (b"content-type", b"application/json")
PLAIN = (JSON,)
HEADER_LENGTH = b"inference-header-content-length"
_BINARY = (b"content-type", b"application/octet-stream")

_match_infer = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer").fullmatch


class Reply(Struct, gc=False):
    """What goes back to the client."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = PLAIN


class Call(Struct, gc=False):
    """A request: what came with it, and what is known of it so far."""

    path: str
    headers: Headers
    arrived: float
    """In seconds of `time.perf_counter`."""
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
    """What a path asks for."""

    model: Model
    fixed: Version | None
    read: Callable[["Target", Call, bytes], Question]
    write: Callable[[Call, Question, list[Array]], Reply]


class Targets:
    """Finds them.

    Args:
        settings: the service's.
        catalogue: the models.
    """

    def __init__(self, settings: ServiceSettings, catalogue: Catalogue) -> None:
        self._max_rows = settings.max_rows
        self._catalogue = catalogue
        self._user_header = settings.user_header.encode()
        self._known = {
            f"/v2/models/{name}/infer": Target(model, None, self._read, _write) for name, model in catalogue.items()
        }
        self.usual = {path.encode(): path for path in [*self._known, "/invocations"]}
        """The paths that nearly all requests have, by their bytes."""
        self.headers = sagemaker.HEADERS | {HEADER_LENGTH, self._user_header}
        """The headers that count."""

    def find(self, call: Call) -> Target:
        """What a request asks for; its model is noted.

        Raises:
            RequestError: if there is no such thing.
        """
        target = self._known.get(call.path) or self._look_up(call)
        call.model = target.model
        return target

    def _look_up(self, call: Call) -> Target:
        if call.path == "/invocations":
            return Target(self._target_model(call.headers), None, self._read_invocation, _write_predictions)
        infer = _match_infer(call.path)
        if not infer:
            raise RequestError(404, "not found; the route is /v2/models/<model>/infer")
        model = call.model = find_model(self._catalogue, infer[1])
        return Target(model, find_version(model, infer[2]) if infer[2] else None, self._read, _write)

    def _target_model(self, headers: Headers) -> Model:
        if name := headers.get(b"x-amzn-sagemaker-target-model"):
            return find_model(self._catalogue, name.decode("latin-1"))
        if len(self._catalogue) > 1:
            known = ", ".join(self._catalogue)
            raise RequestError(400, f"the header X-Amzn-SageMaker-Target-Model must name one of the models: {known}")
        return next(iter(self._catalogue.values()))

    def _read(self, target: Target, call: Call, body: bytes) -> Question:
        binary = b""
        if HEADER_LENGTH in call.headers:
            body, binary = split_binary(body, call.headers[HEADER_LENGTH])
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
        return Reply(200, json + attached, (_BINARY, (HEADER_LENGTH, b"%d" % len(json))))
    return Reply(200, json)


def _write_predictions(call: Call, question: Question, answers: list[Array]) -> Reply:
    version = question.version
    _, _, numbers = protocol.write_outputs(question.outputs, answers)
    call.rows = len(question.features)
    call.captured = Captured(question.features, question.outputs, numbers)
    payload, made = sagemaker.write_predictions(question.names, answers, call.headers)
    origin = f"model={version.model};version={version.number};id={call.id}".encode("latin-1", "replace")
    return Reply(200, payload, ((b"content-type", made), (b"x-amzn-sagemaker-custom-attributes", origin)))
