"""Reads a CSV or Parquet file, local or in S3, from any batch on: what a job needs to go on where it was."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import polars as pl
from botocore.exceptions import ClientError

from contract.data import Data
from contract.errors import PlatformError
from training.chunks import Remote
from training.csvfile import Batch, read_header, read_records
from training.parts import scan
from training.schema import TYPES

BLOCK = 4 * 2**20
CELLS = 8 * 2**20
ROWS = 100_000


@dataclass(frozen=True)
class Table:
    """A file whose rows are read by batches.

    Attributes:
        name: path or URI.
        state: changes with the content.
        columns: names and types; of a CSV file the types that its cells most likely have.
        size: bytes of a CSV file, rows of a Parquet file: what `position` counts.
    """

    name: str
    state: str
    columns: dict[str, pl.DataType]
    size: int
    _header: int
    _bytes: "LocalBytes | RemoteBytes"

    @property
    def is_unchanged(self) -> bool:
        """Whether it is still what it was when it was opened."""
        return self._bytes.is_unchanged

    def batches(self, position: int = 0, row: int = 0) -> Iterator[tuple[Batch, int]]:
        """The batches after a position, each with the position at its end.

        Args:
            position: of the end of a batch, or 0 for all of them.
            row: how many rows come before it.

        Raises:
            PlatformError: if it cannot be read.
        """
        if not self.name.endswith(".parquet"):
            position = position or self._header
            for batch in read_records(self._bytes.read(position), self.columns, self.name, row + 1):
                position += batch.size
                yield batch, position
            return
        rows = max(1, min(ROWS, CELLS // len(self.columns)))
        with self._bytes.file() as file, _explained(self.name):
            frame = scan([file]).slice(position)
            for table in frame.collect_batches(chunk_size=rows, maintain_order=True):
                yield Batch(self.name, position + 1, len(table), table), position + len(table)
                position += len(table)


@contextmanager
def open_table(name: str, data: Data) -> Iterator[Table]:
    """Open a file.

    Args:
        name: path or s3:// URI of a .csv or .parquet file.
        data: says what cells of a CSV file most likely are.

    Raises:
        PlatformError: if there is none, or it is no table.
    """
    if not name.endswith((".csv", ".parquet")):
        raise PlatformError(f"--input {name} must be a CSV or Parquet file: its name must end in .csv or .parquet")
    with _remote(name) if name.startswith("s3://") else _local(name) as content:
        if name.endswith(".parquet"):
            with content.file() as file, _explained(name):
                frame = scan([file])
                columns = dict(frame.collect_schema())
                rows = int(frame.select(pl.len()).collect().item())
            yield Table(name, content.state, columns, rows, 0, content)
            return
        header = read_header(content.read(0), name)
        if twice := sorted({each for each in header.names if header.names.count(each) > 1}):
            raise PlatformError(f"{name} has the column {twice[0]} more than once")
        types = {column: TYPES[of.type] for column, of in data.all_columns.items()}
        # Only numbers are read faster by their type; what else there is the schema reads from text.
        likely = {
            each: types[each] if each in types and types[each].is_numeric() else pl.String() for each in header.names
        }
        yield Table(name, content.state, likely, content.size, header.size, content)


@dataclass(frozen=True)
class LocalBytes:
    """A local file."""

    path: Path
    state: str
    size: int

    @property
    def is_unchanged(self) -> bool:
        """Whether nobody has written to it meanwhile."""
        return _state(self.path) == self.state

    def read(self, start: int) -> Iterator[bytes]:
        """Its bytes from a position on."""
        with self.path.open("rb") as stream:
            stream.seek(start)
            yield from iter(lambda: stream.read(BLOCK), b"")

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The file itself."""
        yield self.path


@dataclass(frozen=True)
class RemoteBytes:
    """One version of an object in S3."""

    remote: Remote
    state: str
    size: int
    folder: Path
    is_unchanged = True  # or else reading it would have failed

    def read(self, start: int) -> Iterator[bytes]:
        """Its bytes from a position on, in requests of their own: none has to outlast a slow reader."""
        s3, place = boto3.client("s3"), {"Bucket": self.remote.bucket, "Key": self.remote.key}
        for first in range(start, self.size, BLOCK):
            part = f"bytes={first}-{min(first + BLOCK, self.size) - 1}"
            with _unchanged(self.remote):
                yield s3.get_object(**place, Range=part, IfMatch=self.state)["Body"].read()

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A local copy, which can be read at random; it is made once."""
        copy = self.folder / "input.parquet"
        if not copy.exists():
            with _unchanged(self.remote):
                boto3.client("s3").download_file(self.remote.bucket, self.remote.key, str(copy))
        yield copy


@contextmanager
def _local(name: str) -> Iterator[LocalBytes]:
    path = Path(name)
    try:
        state, size = _state(path), path.stat().st_size
        if path.is_dir():
            raise PlatformError(f"--input {name} is a folder; name a CSV or Parquet file in it")
        path.open("rb").close()
    except OSError as error:
        raise PlatformError(f"--input {name} cannot be read: {error.strerror}") from None
    yield LocalBytes(path, state, size)


def _state(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


@contextmanager
def _remote(name: str) -> Iterator[RemoteBytes]:
    remote = Remote.of(name)
    try:
        found: dict[str, Any] = boto3.client("s3").head_object(Bucket=remote.bucket, Key=remote.key)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        hint = f", there is no such object, or no bucket {remote.bucket}" if code == "404" else ""
        raise PlatformError(f"--input {name} cannot be read: {code}{hint}") from None
    with tempfile.TemporaryDirectory() as folder:
        yield RemoteBytes(remote, found["ETag"], found["ContentLength"], Path(folder))


@contextmanager
def _unchanged(remote: Remote) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise PlatformError(f"s3://{remote.bucket}/{remote.key} cannot be read to its end: {code}") from None


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PlatformError(f"{name} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
