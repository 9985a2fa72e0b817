"""The datatypes of the Open Inference Protocol v2: how their numbers come out of JSON and bytes, and go back."""

import re
import struct
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from contract.service import Datatype

Array = NDArray[Any]

encode = msgspec.json.Encoder().encode

_is_nested = re.compile(rb"\s*\[\s*\[").match


class Kind(NamedTuple):
    """What stands behind a datatype."""

    dtype: np.dtype[Any]
    onnx: str
    json: Any
    """The type of a number in JSON, as msgspec checks it; one that does not fit is refused while it is read."""


def _kind(dtype: str, onnx: str) -> Kind:
    of = np.dtype(dtype)
    if of.kind == "b":
        return Kind(of, onnx, bool)
    if of.kind == "O":
        return Kind(of, onnx, str)
    if of.kind == "f":
        limit = float(np.finfo(of).max)
        return Kind(of, onnx, Annotated[float, Meta(ge=-limit, le=limit)])
    limits = np.iinfo(of)
    # msgspec's bounds are 64-bit signed numbers; UINT64 may be above them, and numpy refuses what it cannot hold.
    bounds = Meta(ge=limits.min) if limits.max > 2**63 - 1 else Meta(ge=limits.min, le=limits.max)
    return Kind(of, onnx, Annotated[int, bounds])


KINDS: dict[Datatype, Kind] = {
    "BOOL": _kind("?", "tensor(bool)"),
    "UINT8": _kind("<u1", "tensor(uint8)"),
    "UINT16": _kind("<u2", "tensor(uint16)"),
    "UINT32": _kind("<u4", "tensor(uint32)"),
    "UINT64": _kind("<u8", "tensor(uint64)"),
    "INT8": _kind("<i1", "tensor(int8)"),
    "INT16": _kind("<i2", "tensor(int16)"),
    "INT32": _kind("<i4", "tensor(int32)"),
    "INT64": _kind("<i8", "tensor(int64)"),
    "FP16": _kind("<f2", "tensor(float16)"),
    "FP32": _kind("<f4", "tensor(float)"),
    "FP64": _kind("<f8", "tensor(double)"),
    "BYTES": _kind("O", "tensor(string)"),
}


class TensorError(Exception):
    """What does not fit about the content of a tensor."""


class Reader:
    """Reads rows of `columns` for a model that takes this datatype."""

    def __init__(self, datatype: Datatype, columns: Sequence[str]) -> None:
        self.datatype = datatype
        self.columns = columns
        self._width = len(columns)
        kind = KINDS[datatype]
        self.is_number = kind.dtype.kind in "fiu"
        self._dtype = kind.dtype
        self._flat = msgspec.json.Decoder(list[kind.json]).decode  # type: ignore[name-defined]
        self._nested = msgspec.json.Decoder(list[list[kind.json]]).decode  # type: ignore[name-defined]

    def from_json(self, data: bytes | msgspec.Raw, rows: int) -> Array:
        """Numbers row after row, flat or nested, as an array of shape [rows, columns].

        Raises:
            TensorError: naming the number that does not fit, or how many are needed.
        """
        width = self._width
        try:
            values = self._flat(data)
        except (msgspec.DecodeError, RecursionError) as error:
            if _is_nested(data):
                return self._from_nested(data, rows)
            raise self._explain(error) from None
        if len(values) != rows * width:
            raise TensorError(f"data has {len(values)} numbers, but the shape {[rows, width]} needs {rows * width}")
        return self._array(values).reshape(rows, width)

    def from_bytes(self, data: bytes, rows: int) -> Array:
        """The binary form, little-endian, as an array of shape [rows, columns].

        Raises:
            TensorError: if there are too few or too many bytes, or a number is not finite.
        """
        shape = [rows, len(self.columns)]
        if self.datatype == "BYTES":
            array = _split_strings(data)
        elif len(data) % self._dtype.itemsize:
            raise TensorError(f"{len(data)} bytes are no whole number of {self.datatype}")
        else:
            array = np.frombuffer(data, self._dtype)
        if len(array) != rows * len(self.columns):
            raise TensorError(f"it has {len(array)} numbers, but the shape {shape} needs {rows * len(self.columns)}")
        return self._finite(array.reshape(shape))

    def from_array(self, array: Array) -> Array:
        """Numbers of another type as this one.

        Raises:
            TensorError: naming the first that does not fit.
        """
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise TensorError(f"the shape must be [rows, {len(self.columns)}], given: {list(array.shape)}")
        if array.dtype.kind not in "biuf" or self._dtype.kind == "O":
            raise TensorError(f"{array.dtype} cannot be used as {self.datatype}")
        with np.errstate(over="ignore", invalid="ignore"):
            converted = array.astype(self._dtype)
        if self._dtype.kind != "f" and not np.array_equal(converted, array):
            row, column = np.argwhere(converted != array)[0]
            raise TensorError(self._does_not_fit(int(row), int(column)))
        return self._finite(converted)

    def from_rows(self, rows: Sequence[Sequence[Any]]) -> Array:
        """Rows of numbers as an array.

        Raises:
            TensorError: if a row is too short or too long, or a number does not fit.
        """
        for number, row in enumerate(rows):
            if len(row) != len(self.columns):
                raise TensorError(f"row {number} has {len(row)} numbers, but the model takes {len(self.columns)}")
        if not rows:
            return np.empty((0, len(self.columns)), self._dtype)
        if self.datatype == "BYTES":
            return self._array([[str(cell) for cell in row] for row in rows])
        return self.from_array(np.array(rows))

    def _from_nested(self, data: bytes | msgspec.Raw, rows: int) -> Array:
        try:
            values = self._nested(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._explain(error) from None
        if len(values) != rows:
            raise TensorError(f"data has {len(values)} rows, but the shape is {[rows, len(self.columns)]}")
        for number, row in enumerate(values):
            if len(row) != len(self.columns):
                raise TensorError(f"row {number} has {len(row)} numbers, but the model takes {len(self.columns)}")
        return self._array(values)

    def _array(self, values: list[Any]) -> Array:
        try:
            return np.array(values, self._dtype)
        except OverflowError:
            raise TensorError(f"a number does not fit {self.datatype}") from None

    def _finite(self, array: Array) -> Array:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise TensorError(self._does_not_fit(int(row), int(column)))
        return array

    def _explain(self, error: Exception) -> TensorError:
        """The reason in words; a number out of bounds is named by its row and column."""
        place = re.search(r"[<>]=.* - at `\$\[(\d+)\](?:\[(\d+)\])?`", str(error))
        if not place:
            return TensorError(str(error).replace("`$", "`data"))
        row, column = (int(place[1]), int(place[2])) if place[2] else divmod(int(place[1]), len(self.columns))
        return TensorError(self._does_not_fit(row, column))

    def _does_not_fit(self, row: int, column: int) -> str:
        bits = 8 * self._dtype.itemsize
        name = self.columns[column] if column < len(self.columns) else column
        return f"row {row}, column {name!r}: the number does not fit {bits} bits ({self.datatype}, finite)"


def to_bytes(array: Array, datatype: Datatype) -> bytes:
    """The binary form of an array."""
    if datatype == "BYTES":
        texts = (str(text).encode() for text in array.ravel())
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.ascontiguousarray(array, KINDS[datatype].dtype).tobytes()


def _split_strings(data: bytes) -> Array:
    texts, at = [], 0
    while at < len(data):
        end = at + 4
        length = int.from_bytes(data[at:end], "little")
        if end + length > len(data):
            raise TensorError(f"the string at byte {at} is longer than the data")
        try:
            texts.append(data[end : end + length].decode())
        except UnicodeDecodeError:
            raise TensorError(f"the string at byte {at} is not UTF-8") from None
        at = end + length
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
