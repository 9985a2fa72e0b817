"""SageMaker's `/invocations`: rows as JSON, CSV or npy in, predictions as JSON, CSV or npy out."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.lib import format as npy

from services.inference.live import Headers
from services.inference.protocol import RequestError, bad_json
from services.inference.tensors import Array, Reader, TensorError, encode

JSON, CSV, NPY = b"application/json", b"text/csv", b"application/x-npy"
HEADERS = frozenset((b"content-type", b"accept", b"x-amzn-sagemaker-inference-id", b"x-amzn-sagemaker-target-model"))
_VALUE = {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string"}]}


class Instances(Struct):
    """Rows to predict; a bare list of rows does as well."""

    instances: Annotated[
        msgspec.Raw,  # decoded later, when it is known what the model takes
        Meta(extra_json_schema={"type": "array", "items": {"type": "array", "items": _VALUE}}),
    ]


class Predictions(Struct):
    """One object a row, with each output of the model under its name."""

    predictions: list[dict[str, Any]]


_is_quality = re.compile(rb"[01](\.\d{0,3})?").fullmatch
_match_integer = re.compile(r"([+-]?[0-9]+)(\.0*)?").fullmatch
_is_decimal = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?").fullmatch
_decode = msgspec.json.Decoder(Instances).decode


def read_features(body: bytes, headers: Headers, reader: Reader) -> Array:
    """Read the rows of an invocation as the model takes them.

    Raises:
        RequestError: if they cannot be read, do not fit the model, or the content type is another one.
    """
    content_type = headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
    try:
        if content_type == CSV:
            return reader.from_rows(_read_csv(body, reader))
        if content_type == NPY:
            return reader.from_array(_read_npy(body))
        if content_type == JSON:
            return reader.from_rows(_read_json(body, reader))
    except TensorError as error:
        raise RequestError(400, str(error)) from None
    known = ", ".join(kind.decode() for kind in (JSON, CSV, NPY))
    raise RequestError(415, f"the content type must be one of {known}, given: {content_type.decode('latin-1')!r}")


def write_predictions(names: Sequence[str], answers: Sequence[Array], headers: Headers) -> tuple[bytes, bytes]:
    """Encode predictions as the client accepts them, as the body and its content type.

    CSV and npy have a line a row, with the outputs side by side.

    Raises:
        RequestError: if the client accepts none of the forms that there are.
    """
    has_text = any(answer.dtype.kind not in "biuf" for answer in answers)
    made = _accepted(headers.get(b"accept", b""), (JSON, CSV) if has_text else (JSON, CSV, NPY))
    if made == NPY:
        table = np.column_stack([answer.reshape(len(answer), -1) for answer in answers])
        file = io.BytesIO()
        np.save(file, table.astype(np.float64), allow_pickle=False)
        return file.getvalue(), NPY
    rows = list(zip(*(answer.tolist() for answer in answers), strict=True))
    if made == CSV:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [cell for value in row for cell in _flat(value)] for row in rows
        )
        return text.getvalue().encode(), CSV
    return encode(Predictions([dict(zip(names, row, strict=True)) for row in rows])), JSON


def _accepted(header: bytes, kinds: Sequence[bytes]) -> bytes:
    """The one of these media types that an Accept header likes best (RFC 9110, 12.5.1); the first of equals."""
    wishes: dict[bytes, float] = {}
    for wish in header.lower().split(b","):
        name, *parameters = (part.strip() for part in wish.split(b";"))
        quality = next((of[2:] for of in parameters if of.startswith(b"q=")), b"1")
        wishes[name] = float(quality) if _is_quality(quality) else 0.0
    if not header.strip():
        wishes = {b"*/*": 1.0}
    qualities = {
        kind: next((wishes[name] for name in (kind, kind.partition(b"/")[0] + b"/*", b"*/*") if name in wishes), 0.0)
        for kind in kinds
    }
    best = max(kinds, key=qualities.__getitem__)
    if not qualities[best]:
        known = ", ".join(kind.decode() for kind in kinds)
        raise RequestError(406, f"the answer can be one of {known}, accepted: {header.decode('latin-1')!r}")
    return best


def _read_json(body: bytes, reader: Reader) -> list[list[Any]]:
    try:
        rows = body if body.lstrip()[:1] == b"[" else _decode(body).instances
        return reader.decode_rows(rows)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise bad_json(body, error) from None


def _read_csv(body: bytes, reader: Reader) -> list[list[Any]]:
    read = _CELLS[reader.json]
    rows: list[list[Any]] = []
    try:
        lines = io.StringIO(body.decode("utf-8-sig"), newline="")  # a text in quotes may have line breaks
        for row in csv.reader(lines, strict=True):
            if row:
                rows.append([read(cell) for cell in row])
    except (ValueError, csv.Error) as error:
        why = f"{error}; there must be no header line"
        raise RequestError(400, f"row {len(rows)} of the CSV cannot be read: {why}") from None
    return rows


def _read_npy(body: bytes) -> Array:
    """The array of a .npy file; its numbers are looked at only if they are as many as its header says."""
    file = io.BytesIO(body)
    try:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError(f"it holds {dtype}, not numbers")
        array = np.frombuffer(body, dtype, offset=file.tell())
        return array.reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RequestError(400, f"the body is not a .npy file of rows: {error}") from None


def _float(cell: str) -> float:
    number = float(cell) if _is_decimal(cell.strip()) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{cell!r} is not a finite number")
    return number


def _int(cell: str) -> int:
    integer = _match_integer(cell.strip())
    if not integer:
        raise ValueError(f"{cell!r} is not an integer")
    return int(integer[1])  # by way of a float, it would lose digits


def _bool(cell: str) -> bool:
    value = {"true": True, "1": True, "false": False, "0": False}.get(cell.strip().lower())
    if value is None:
        raise ValueError(f"{cell!r} is none of true, false, 1 and 0")
    return value


_CELLS: dict[type, Callable[[str], Any]] = {float: _float, int: _int, bool: _bool, str: str}
"""What reads a cell of CSV, by the type that it would have in JSON."""


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
