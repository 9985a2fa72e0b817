"""SageMaker's `/invocations`: rows as JSON or CSV in, predictions as JSON or CSV out."""

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from numpy.typing import NDArray

from services.inference.protocol import RequestError, bad_json, encode, finite

JSON, CSV = "application/json", "text/csv"


class Instances(Struct):
    """Rows to predict; a bare list of rows does as well."""

    instances: list[list[float]]


class Predictions(Struct):
    """One object a row, with each output of the model under its name."""

    predictions: list[dict[str, Any]]


_decode = msgspec.json.Decoder(Instances).decode
_decode_bare = msgspec.json.Decoder(list[list[float]]).decode


def read_rows(body: bytes, content_type: str) -> list[list[float]]:
    """Read the rows of an invocation.

    Raises:
        RequestError: if they cannot be read, or the content type is another one.
    """
    if content_type == CSV:
        return _read_csv(body)
    if content_type != JSON:
        raise RequestError(415, f"the content type must be {JSON} or {CSV}, given: {content_type!r}")
    try:
        return _decode_bare(body) if body.lstrip()[:1] == b"[" else _decode(body).instances
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise bad_json(body, error) from None


def write_predictions(names: Sequence[str], answers: Sequence[NDArray[Any]], accept: str) -> tuple[bytes, str]:
    """Encode predictions as the client accepts them, as the body and its content type."""
    rows = list(zip(*(answer.tolist() for answer in answers), strict=True))
    as_json = finite(encode(Predictions([dict(zip(names, row, strict=True)) for row in rows])), answers)
    if CSV not in accept:
        return as_json, JSON
    lines = (",".join(str(number) for value in row for number in _flat(value)) for row in rows)
    return ("\n".join(lines) + "\n").encode(), CSV


def invocation_headers(headers: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """The headers of a request by lower-case name."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _read_csv(body: bytes) -> list[list[float]]:
    rows = []
    try:
        for row in csv.reader(body.decode().splitlines()):
            if row:
                rows.append([_number(cell) for cell in row])
    except (ValueError, csv.Error) as error:
        why = f"{error}; there must be no header line"
        raise RequestError(400, f"row {len(rows)} of the CSV cannot be read: {why}") from None
    return rows


def _number(cell: str) -> float:
    number = float(cell)
    if not math.isfinite(number):
        raise ValueError(f"{cell!r} is not a finite number")
    return number


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
