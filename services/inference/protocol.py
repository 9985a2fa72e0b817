"""The Open Inference Protocol v2 over HTTP, with its binary tensor extension: messages, reading and writing.

The messages are msgspec Structs; the OpenAPI document is made from the same ones.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from contract.service import INPUT, Datatype
from services.inference.tensors import Array, Reader, TensorError, encode, to_bytes, to_json

Parameters = dict[str, Any]


class RequestError(Exception):
    """A request that is answered with an error; `reason` tells the client what to change."""

    def __init__(self, status: int, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class InputTensor(Struct, gc=False):
    """An input: row after row, flat or nested; or, with the parameter `binary_data_size`, as bytes after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: Annotated[
        msgspec.Raw,  # decoded later, when it is known how many numbers there may be
        Meta(extra_json_schema={"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}}),
    ] = msgspec.field(default_factory=msgspec.Raw)
    parameters: Parameters | None = None


class RequestedOutput(Struct):
    """An output that the client wants; with the parameter `binary_data`, as bytes after the JSON."""

    name: str
    parameters: Parameters | None = None


class InferRequest(Struct, gc=False):
    """Rows to predict; without `outputs` the answer holds them all.

    The user's header, or else the `id`, decides which live version answers. Parameters: `explain` asks for the
    share that each feature has in the answer, `binary_data_output` for all outputs as bytes after the JSON.
    """

    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None
    id: str | None = None
    parameters: Parameters | None = None


class OutputTensor(Struct):
    """An output: row after row, flat."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | int | bool | str]


class InferResponse(Struct):
    """Predictions, who made them, and the id to name them by."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class ErrorBody(Struct):
    """Why the request was refused."""

    error: str


class ServerMetadata(Struct):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Struct):
    """Name, datatype and shape of an input or output; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct):
    """How to call a model; `columns` names the features in their order, `problems` says what is refused.

    `browser` says whether the ONNX file of the version may run in a browser, and can be had.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    columns: list[str]
    shares: dict[str, int]
    problems: list[str]
    browser: bool


class Live(Struct):
    """Whether the process answers."""

    live: bool


class Ready(Struct):
    """Whether every model has a version that takes traffic, and if not, why."""

    ready: bool
    problems: dict[str, list[str]]


class ModelReady(Struct):
    """Whether a model, or one version of it, takes requests."""

    name: str
    ready: bool
    problems: list[str]


_decode_request = msgspec.json.Decoder(InferRequest).decode


class Output(NamedTuple):
    """An output to answer with."""

    name: str
    datatype: Datatype
    key: bytes
    """Its name in JSON."""
    prefix: bytes
    """Its JSON up to the shape."""
    is_binary: bool = False


def output_of(name: str, datatype: Datatype) -> Output:
    """An output that is answered as JSON."""
    key = encode(name)
    return Output(name, datatype, key, b'{"name":%b,"datatype":"%b","shape":' % (key, datatype.encode()))


class Selection(NamedTuple):
    """Outputs to answer with, in their order."""

    names: list[str]
    outputs: list[Output]


def new_id() -> str:
    """An id for a prediction whose client gave none."""
    return f"{random.getrandbits(128):032x}"  # as unique as a UUID, which would take a system call


def read_request(body: bytes) -> InferRequest:
    """Decode a request, all but the numbers.

    Raises:
        RequestError: if it is not JSON, or not an inference request.
    """
    try:
        return _decode_request(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise bad_json(body, error) from None


def bad_json(body: bytes, error: Exception) -> RequestError:
    """The error for a body that msgspec could not decode."""
    if isinstance(error, RecursionError):
        return RequestError(400, "the body is nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        place = str(error).replace("`$", "`body")
        return RequestError(400, f"the body is not valid: {place}")
    literal = re.search(rb"-?\b(NaN|Infinity)\b", body)
    hint = (
        f"; {literal[0].decode()} is not a number in JSON, and the model takes finite numbers only" if literal else ""
    )
    return RequestError(400, f"the body is not valid JSON: {error}{hint}")


def read_features(inputs: Sequence[InputTensor], reader: Reader, binary: bytes, max_rows: int) -> Array:
    """The rows of a request, as the model takes them.

    Args:
        inputs: the request's.
        reader: of the model's datatype and columns.
        binary: what follows the JSON.
        max_rows: the limit.

    Raises:
        RequestError: naming what does not fit the model, and what would.
    """
    tensor = inputs[0] if inputs else None
    if not tensor or len(inputs) > 1 or tensor.name != INPUT:
        names = [tensor.name for tensor in inputs]
        problem = "unknown" if set(names) - {INPUT} else "duplicate" if names else "missing"
        raise RequestError(400, f'{problem} input: the model takes exactly one, "{INPUT}"; given: {names}')
    if tensor.datatype != reader.datatype:
        raise RequestError(400, f'input "{INPUT}": the datatype must be {reader.datatype}, given: {tensor.datatype!r}')
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != reader.width or shape[0] < 0:
        raise RequestError(400, f'input "{INPUT}": the shape must be [rows, {len(reader.columns)}], given: {shape}')
    rows = shape[0]
    if not 0 < rows <= max_rows:
        check_rows(rows, max_rows)
    try:
        if tensor.parameters and "binary_data_size" in tensor.parameters:
            size = tensor.parameters["binary_data_size"]
            if tensor.data or size != len(binary):
                raise TensorError(f"binary_data_size is {size!r}, but {len(binary)} bytes follow the JSON")
            return reader.from_bytes(binary, rows)
        if binary:
            raise TensorError(f"{len(binary)} bytes follow the JSON, but there is no parameter binary_data_size")
        if not tensor.data:
            raise TensorError("it has no data")
        return reader.from_json(tensor.data, rows)
    except TensorError as error:
        raise RequestError(400, f'input "{INPUT}": {error}') from None


def check_rows(rows: int, max_rows: int) -> None:
    """Refuse a request without rows or with too many of them.

    Raises:
        RequestError: naming the limit.
    """
    if not 0 < rows <= max_rows:
        raise RequestError(400, f"a request must have from 1 to {max_rows} rows, given: {rows}")


def is_on(parameters: Parameters | None, name: str, default: bool = False) -> bool:
    """A parameter that is true or false.

    Raises:
        RequestError: if it is something else: to guess what "false" in quotes means would be wrong half of the time.
    """
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise RequestError(400, f"parameter {name!r} must be true or false, given: {value!r}")
    return value


def select_outputs(request: InferRequest, known: Mapping[str, Output]) -> Selection:
    """The outputs that the client wants, if it does not just want them all as JSON.

    Raises:
        RequestError: if the model does not have one of them, or one is asked for twice, or in a form that there is not.
    """
    every = is_on(request.parameters, "binary_data_output")
    asked = request.outputs or [RequestedOutput(name) for name in known]
    names = [output.name for output in asked]
    if set(names) - known.keys() or len(set(names)) != len(names):
        raise RequestError(400, f"outputs must be some of {list(known)}, each once; given: {names}")
    outputs = []
    for output in asked:
        parameters = output.parameters or {}
        if parameters.get("classification"):
            raise RequestError(400, f"output {output.name!r}: the classification extension is not supported")
        outputs.append(known[output.name]._replace(is_binary=is_on(parameters, "binary_data", every)))
    return Selection(names, outputs)


def write_outputs(outputs: Sequence[Output], answers: Sequence[Array]) -> tuple[list[bytes], bytes, list[bytes]]:
    """Encode the outputs of an answer.

    Returns:
        The JSON of each output, the binary data that follows the JSON, and the numbers of each output, as JSON.

    Raises:
        RequestError: if the model made something of the features that is not a number.
    """
    parts, binary, numbers = [], b"", []
    for output, answer in zip(outputs, answers, strict=False):
        data = to_json(answer)
        # NaN and infinity are encoded as null; to look for its first letter is cheaper than to look at the numbers.
        if b"n" in data and output.datatype != "BYTES":
            raise RequestError(400, "the model has no finite answer for these features; are they in its range?")
        if output.is_binary:
            raw = to_bytes(answer, output.datatype)
            binary += raw
            parts.append(
                b'%b%b,"parameters":{"binary_data_size":%d}}' % (output.prefix, encode(answer.shape), len(raw))
            )
        else:
            parts.append(b'%b%b,"data":%b}' % (output.prefix, encode(answer.shape), data))
        numbers.append(data)
    return parts, binary, numbers
