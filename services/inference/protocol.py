"""The Open Inference Protocol v2 over HTTP: its messages, read straight into numpy, and what is wrong with a bad one.

The messages are msgspec Structs; the OpenAPI document is made from the same ones.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from contract.service import INPUT, Tensor
from services.inference.artifacts import Features

Parameters = dict[str, str | int | float | bool]


class RequestError(Exception):
    """A request that is answered with an error; `reason` tells the client what to change."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class InputTensor(Struct):
    """An input: row after row, flat or nested."""

    name: str
    datatype: str
    shape: list[int]
    data: Annotated[
        msgspec.Raw,  # decoded later, when it is known how many numbers there may be
        Meta(extra_json_schema={"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}}),
    ]


class RequestedOutput(Struct):
    """An output that the client wants."""

    name: str


class InferRequest(Struct):
    """Rows to predict; without `outputs` the answer holds them all. The `id` decides which live version answers."""

    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None
    id: str | None = None
    parameters: Parameters | None = None


class OutputTensor(Struct):
    """An output: row after row, flat."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | int]


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
    """How to call a model; `columns` names the features in their order, `problems` says what is refused."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    columns: list[str]
    shares: dict[str, int]
    problems: list[str]


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


encode = msgspec.json.Encoder().encode

_decode_request = msgspec.json.Decoder(InferRequest).decode
_decode_flat = msgspec.json.Decoder(list[float]).decode
_decode_nested = msgspec.json.Decoder(list[list[float]]).decode
_is_nested = re.compile(rb"\s*\[\s*\[").match


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
        return RequestError(400, f"the body is not valid: {_place(error, 'body')}")
    literal = re.search(rb"-?\b(NaN|Infinity)\b", body)
    hint = (
        f"; {literal[0].decode()} is not a number in JSON, and the model takes finite numbers only" if literal else ""
    )
    return RequestError(400, f"the body is not valid JSON: {error}{hint}")


def read_features(inputs: Sequence[InputTensor], columns: Sequence[str], max_rows: int) -> Features:
    """The rows of a request, as the model takes them.

    Raises:
        RequestError: naming what does not fit the model, and what would.
    """
    if len(inputs) != 1 or inputs[0].name != INPUT:
        names = [tensor.name for tensor in inputs]
        problem = "unknown" if set(names) - {INPUT} else "duplicate" if names else "missing"
        raise RequestError(400, f'{problem} input: the model takes exactly one, "{INPUT}"; given: {names}')
    tensor = inputs[0]
    if tensor.datatype != "FP32":
        raise RequestError(400, f'input "{INPUT}": the datatype must be FP32, given: {tensor.datatype!r}')
    shape, width = tensor.shape, len(columns)
    if len(shape) != 2 or shape[1] != width or shape[0] < 0:
        raise RequestError(400, f'input "{INPUT}": the shape must be [rows, {width}], given: {shape}')
    check_rows(shape[0], max_rows)
    try:
        values = (_decode_nested if _is_nested(tensor.data) else _decode_flat)(tensor.data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, f'input "{INPUT}": {_place(error, "data")}') from None
    if values and isinstance(values[0], list):
        if len(values) != shape[0]:
            raise RequestError(400, f'input "{INPUT}": data has {len(values)} rows, but the shape is {shape}')
        return to_features(values, columns)
    if len(values) != shape[0] * width:
        needed = shape[0] * width
        raise RequestError(
            400, f'input "{INPUT}": data has {len(values)} numbers, but the shape {shape} needs {needed}'
        )
    return _array(values, columns).reshape(shape[0], width)


def to_features(rows: Sequence[Sequence[float]], columns: Sequence[str]) -> Features:
    """Rows of numbers as the model takes them.

    Raises:
        RequestError: if a row does not have one number for each column, or a number is too large.
    """
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise RequestError(400, f"row {number} has {len(row)} numbers, but the model takes {len(columns)}")
    return _array(rows, columns)


def check_rows(rows: int, max_rows: int) -> None:
    """Refuse a request without rows or with too many of them.

    Raises:
        RequestError: naming the limit.
    """
    if not 0 < rows <= max_rows:
        raise RequestError(400, f"a request must have from 1 to {max_rows} rows, given: {rows}")


def select_outputs(requested: Sequence[RequestedOutput] | None, known: Mapping[str, Tensor]) -> list[str]:
    """Names of the outputs that the client wants.

    Raises:
        RequestError: if the model does not have one of them, or one is asked for twice.
    """
    if not requested:
        return list(known)
    names = [output.name for output in requested]
    if set(names) - known.keys() or len(set(names)) != len(names):
        raise RequestError(400, f"outputs must be some of {list(known)}, each once; given: {names}")
    return names


def write_response(
    model: str, version: str, request_id: str, outputs: Sequence[Tensor], answers: Sequence[NDArray[Any]]
) -> bytes:
    """Encode the answer to an inference request.

    Raises:
        RequestError: if the model made something of the features that is not a number.
    """
    tensors = [
        OutputTensor(output.name, output.datatype, list(answer.shape), answer.ravel().tolist())
        for output, answer in zip(outputs, answers, strict=True)
    ]
    return finite(encode(InferResponse(model, version, request_id, tensors)), answers)


def finite(body: bytes, answers: Sequence[NDArray[Any]]) -> bytes:
    """The encoded answers, if they are finite: NaN is no prediction, and JSON could not carry it.

    Raises:
        RequestError: if one is not.
    """
    # NaN and infinity are encoded as null; looking for that is cheaper than looking at the numbers.
    if b"null" in body and not all(np.isfinite(answer).all() for answer in answers):
        raise RequestError(400, "the model has no finite answer for these features; are they in its range?")
    return body


def _array(values: Sequence[Any], columns: Sequence[str]) -> Features:
    """Numbers as 32-bit ones; those of a JSON text are finite, so only their size can be wrong."""
    try:
        with np.errstate(over="raise"):
            return np.array(values, np.float32)
    except FloatingPointError:
        with np.errstate(over="ignore"):
            flat = np.array(values, np.float64).ravel().astype(np.float32)
        row, column = divmod(int(np.argmin(np.isfinite(flat))), len(columns))
        raise RequestError(400, f"row {row}, column {columns[column]!r}: the number does not fit 32 bits") from None


def _place(error: Exception, root: str) -> str:
    """msgspec's explanation, with the name of the place that it calls `$`."""
    return str(error).replace("`$", f"`{root}")
