"""Keeps the finished chunks of a long job until its output is whole, so that a job that was killed goes on from them.

The output is a local file or an object in S3, and the chunks lie beside it, below `<output>.parts/`. A chunk is written
under another name and then renamed, or is one PUT; the same goes for the output. So neither is ever there by half.
"""

import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import polars as pl

from contract.errors import PlatformError

ROW_GROUP = 100_000
_NAME = re.compile(r"(\d{6})-(\d+)-(\d+)\.parquet")


class Chunk(NamedTuple):
    """A finished piece of the output; its file's name says all of this.

    Attributes:
        number: from 0.
        rows: of the output, up to the end of this chunk.
        position: in the input, at the end of this chunk.
    """

    number: int
    rows: int
    position: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.number:06}-{self.rows}-{self.position}.parquet"


@dataclass(frozen=True)
class Remote:
    """A place in S3."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> "Remote":
        """What a URI names.

        Raises:
            PlatformError: if it names no object.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket or not key or key.endswith("/"):
            raise PlatformError(f"{uri} names no object; it must be s3://<bucket>/<key>")
        return cls(bucket, key)


class Chunks:
    """The chunks of one job, in a local folder and, if the output is to be in S3, there as well."""

    def __init__(self, output: str, job: str, folder: Path) -> None:
        self._output, self._folder = output, folder
        self._remote = Remote.of(output) if output.startswith("s3://") else None
        self._prefix = f"{self._remote.key}.parts/{job}/" if self._remote else ""
        self._s3: Any = boto3.client("s3") if self._remote else None
        self.done = self._find()

    def add(self, table: pl.DataFrame, rows: int, position: int) -> None:
        """Keep the next chunk."""
        chunk = Chunk(len(self.done), rows, position)
        file = self._folder / chunk.name
        unfinished = file.with_suffix(".new")
        table.write_parquet(unfinished, compression_level=1)
        unfinished.replace(file)
        if self._remote:
            self._s3.upload_file(str(file), self._remote.bucket, self._prefix + chunk.name)
        self.done.append(chunk)

    def scan(self, empty: pl.DataFrame) -> pl.LazyFrame:
        """All the chunks as one table, or `empty` if there are none."""
        for chunk in self.done:
            file = self._folder / chunk.name
            if self._remote and not file.exists():
                self._s3.download_file(self._remote.bucket, self._prefix + chunk.name, str(file))
        return pl.scan_parquet([self._folder / chunk.name for chunk in self.done]) if self.done else empty.lazy()

    def finish(self, table: pl.LazyFrame, metadata: Mapping[str, str]) -> None:
        """Make them the output, in one step, and forget them."""
        whole = self._folder / "whole.new"
        table.sink_parquet(whole, maintain_order=True, row_group_size=ROW_GROUP, metadata=dict(metadata))
        if self._remote:
            self._s3.upload_file(str(whole), self._remote.bucket, self._remote.key)
        else:
            whole.replace(self._output)
        self.forget()

    def forget(self) -> None:
        """Delete the chunks, and those that earlier jobs with the same output have left."""
        if not self._remote:
            shutil.rmtree(f"{self._output}.parts")
            return
        for key in self._keys(f"{self._remote.key}.parts/"):
            self._s3.delete_object(Bucket=self._remote.bucket, Key=key)

    def _find(self) -> list[Chunk]:
        names = (
            [key.removeprefix(self._prefix) for key in self._keys(self._prefix)]
            if self._remote
            else [file.name for file in self._folder.iterdir()]
        )
        found = [Chunk(*map(int, matched.groups())) for name in names if (matched := _NAME.fullmatch(name))]
        return sorted(found)

    def _keys(self, prefix: str) -> Iterator[str]:
        assert self._remote
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._remote.bucket, Prefix=prefix)
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", ()))


@contextmanager
def chunks_of(output: str, job: str) -> Iterator[Chunks]:
    """The chunks of a job.

    Args:
        output: path or s3:// URI of what it makes.
        job: names all that the output depends on; chunks of another job are not used.

    Raises:
        PlatformError: if the output cannot be there, or another run of the same job is about to write it.
    """
    if output.startswith("s3://"):
        with tempfile.TemporaryDirectory() as scratch:
            yield Chunks(output, job, Path(scratch))
        return
    if Path(output).is_dir():
        raise PlatformError(f"--output {output} is a folder; name a file in it, such as {output}/scores.parquet")
    if not (parent := Path(output).absolute().parent).is_dir():
        raise PlatformError(f"--output {output}: there is no folder {parent}; make it first")
    folder = Path(f"{output}.parts") / job
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError(f"--output {output}: another run of the same job is under way") from None
        try:
            yield Chunks(output, job, folder)
        finally:
            with suppress(OSError):  # chunks in it stay for the next run
                lock.unlink()
                folder.rmdir()
                folder.parent.rmdir()
