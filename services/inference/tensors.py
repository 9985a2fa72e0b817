"""The datatypes of the Open Inference Protocol v2: how their numbers come out of JSON and bytes, and go back."""

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from contract.service import Datatype

Array = NDArray[Any]

encode = msgspec.json.Encoder().encode

_MOST_PACKS = 64

_NOT_READABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

_is_nested = re.compile(rb"\s*\[\s*\[").match


class Kind(NamedTuple):
    """What stands behind a datatype."""

    dtype: np.dtype[Any]
    code: str
    """In the struct module."""
    onnx: str
    json: type
    """What a number of it is in JSON."""


KINDS: dict[Datatype, Kind] = {
    "BOOL": Kind(np.dtype("?"), "?", "tensor(bool)", bool),
    "UINT8": Kind(np.dtype("<u1"), "B", "tensor(uint8)", int),
    "UINT16": Kind(np.dtype("<u2"), "H", "tensor(uint16)", int),
    "UINT32": Kind(np.dtype("<u4"), "I", "tensor(uint32)", int),
    "UINT64": Kind(np.dtype("<u8"), "Q", "tensor(uint64)", int),
    "INT8": Kind(np.dtype("<i1"), "b", "tensor(int8)", int),
    "INT16": Kind(np.dtype("<i2"), "h", "tensor(int16)", int),
    "INT32": Kind(np.dtype("<i4"), "i", "tensor(int32)", int),
    "INT64": Kind(np.dtype("<i8"), "q", "tensor(int64)", int),
    "FP16": Kind(np.dtype("<f2"), "e", "tensor(float16)", float),
    "FP32": Kind(np.dtype("<f4"), "f", "tensor(float)", float),
    "FP64": Kind(np.dtype("<f8"), "d", "tensor(double)", float),
    "BYTES": Kind(np.dtype("O"), "", "tensor(string)", str),
}


class TensorError(Exception):
    """What does not fit about the content of a tensor."""


class _Packs(dict[int, Callable[..., bytes]]):
    """For a number of numbers, what packs them; those of common numbers are kept."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __missing__(self, count: int) -> Callable[..., bytes]:
        pack = struct.Struct(f"<{count}{self._code}").pack
        if len(self) < _MOST_PACKS:
            self[count] = pack
        return pack


class Reader:
    """Reads rows of `columns` for a model that takes this datatype."""

    def __init__(self, datatype: Datatype, columns: Sequence[str]) -> None:
        self.datatype = datatype
        self.columns = columns
        self.width = len(columns)
        kind = KINDS[datatype]
        self.is_number = kind.dtype.kind in "fiu"
        self.json = kind.json
        self.decode_rows = msgspec.json.Decoder(list[list[kind.json]]).decode  # type: ignore[name-defined]
        """Rows out of JSON, nested; what msgspec raises tells what is wrong."""
        self._dtype = kind.dtype
        self._flat = msgspec.json.Decoder(list[kind.json]).decode  # type: ignore[name-defined]
        # A struct makes the bytes of an array in a third of the time that numpy takes to look at each number,
        # and refuses what does not fit.
        self._packs = _Packs(kind.code)

    def from_json(self, data: bytes | msgspec.Raw, rows: int) -> Array:
        """Numbers row after row, flat or nested, as an array of shape [rows, columns].

        Raises:
            TensorError: naming the number that does not fit, or how many are needed.
        """
        width = self.width
        try:
            values = self._flat(data)
        except _NOT_READABLE as error:
            if _is_nested(data):
                return self._from_nested(data, rows)
            raise TensorError(str(error).replace("`$", "`data")) from None
        if len(values) != rows * width:
            raise TensorError(f"data has {len(values)} numbers, but the shape {[rows, width]} needs {rows * width}")
        return self._array(values, rows)

    def from_bytes(self, data: bytes, rows: int) -> Array:
        """The binary form, little-endian, as an array of shape [rows, columns].

        Raises:
            TensorError: if there are too few or too many bytes, a number is not finite, or a BOOL neither 0 nor 1.
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
        return self._finite(self._zero_or_one(array.reshape(shape)))

    def from_array(self, array: Array) -> Array:
        """Numbers of another type as this one.

        Raises:
            TensorError: naming the first that does not fit.
        """
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise TensorError(f"the shape must be [rows, {len(self.columns)}], given: {list(array.shape)}")
        if array.dtype.kind not in "biuf" or self._dtype.kind == "O":
            raise TensorError(f"{array.dtype} cannot be used as {self.datatype}")
        array = self._zero_or_one(array)
        with np.errstate(over="ignore", invalid="ignore"):
            converted = array.astype(self._dtype)
        if self._dtype.kind != "f" and not np.array_equal(converted, array):
            row, column = np.argwhere(converted != array)[0]
            raise TensorError(self._does_not_fit(int(row), int(column)))
        return self._finite(converted)

    def from_rows(self, rows: Sequence[Sequence[Any]]) -> Array:
        """Rows of values as an array; each is of the type that it has in JSON.

        Raises:
            TensorError: if a row is too short or too long, or a number does not fit.
        """
        self._check_widths(rows)
        return self._array([value for row in rows for value in row], len(rows))

    def from_metadata(self, rows: Sequence[Sequence[float | str]]) -> Array:
        """The same for an artifact's metadata, which have a float for every number.

        Raises:
            TensorError: if a row is too short or too long, or a number does not fit.
        """
        if self.datatype == "BYTES":
            return self.from_rows([[str(cell) for cell in row] for row in rows])
        self._check_widths(rows)
        return self.from_array(np.array(rows))

    def _check_widths(self, rows: Sequence[Sequence[Any]]) -> None:
        for number, row in enumerate(rows):
            if len(row) != self.width:
                raise TensorError(f"row {number} has {len(row)} numbers, but the model takes {self.width}")

    def _from_nested(self, data: bytes | msgspec.Raw, rows: int) -> Array:
        try:
            values = self.decode_rows(data)
        except _NOT_READABLE as error:
            raise TensorError(str(error).replace("`$", "`data")) from None
        if len(values) != rows:
            raise TensorError(f"data has {len(values)} rows, but the shape is {[rows, self.width]}")
        return self.from_rows(values)

    def _array(self, values: list[Any], rows: int) -> Array:
        """An array of shape [rows, columns] of as many numbers."""
        if self.datatype == "BYTES":
            return np.array(values, self._dtype).reshape(rows, self.width)
        try:
            return np.ndarray((rows, self.width), self._dtype, self._packs[len(values)](*values))
        except (struct.error, OverflowError):
            raise TensorError(self._first_misfit(values)) from None

    def _zero_or_one(self, array: Array) -> Array:
        """The array, if it is not of bytes that stand for no bool: numpy would hand them on as they are."""
        if array.dtype.kind == "b" and (raw := array.view(np.uint8)).max(initial=0) > 1:
            row, column = np.argwhere(raw > 1)[0]
            name = self.columns[column]
            raise TensorError(f"row {row}, column {name!r}: the byte is {raw[row, column]}, but a BOOL is 0 or 1")
        return array

    def _finite(self, array: Array) -> Array:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise TensorError(self._does_not_fit(int(row), int(column)))
        return array

    def _first_misfit(self, values: list[Any]) -> str:
        pack = self._packs[1]
        for number, value in enumerate(values):
            try:
                pack(value)
            except (struct.error, OverflowError):
                return self._does_not_fit(*divmod(number, self.width))
        raise AssertionError("every number fits")

    def _does_not_fit(self, row: int, column: int) -> str:
        bits = 8 * self._dtype.itemsize
        name = self.columns[column] if column < len(self.columns) else column
        return f"row {row}, column {name!r}: the number does not fit {bits} bits ({self.datatype}, finite)"


def to_json(array: Array) -> bytes:
    """The JSON form of an array: its numbers as one list, each as short as its datatype allows; NaN becomes null."""
    if array.dtype.kind == "O":
        return encode(array.ravel().tolist())
    return orjson.dumps(array.ravel(), None, orjson.OPT_SERIALIZE_NUMPY)


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
