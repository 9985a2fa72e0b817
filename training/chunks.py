"""Keeps the finished chunks of a long job until its output is whole, so that a job that was killed goes on from them.

The output is a local file or an object in S3, and the chunks lie beside it, below `<output>.parts/`. A chunk is written
under another name and then renamed, or is one PUT; the same goes for the output. So neither is ever there by half. A
run may be killed at any time, also while it deletes its chunks: what is left is used up to the first that is missing.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import polars as pl
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from contract.errors import PlatformError
from training.parts import scan

ROW_GROUP = 100_000
_KEPT = "; the finished chunks stay, and the same command goes on with them"
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


START = Chunk(-1, 0, 0)
"""Stands before the first chunk."""


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
    """The chunks of one job, in a local folder and, if the output is to be in S3, there as well.

    Raises:
        PlatformError: if S3 does not tell of them.
    """

    def __init__(self, output: str, job: str, folder: Path) -> None:
        self._output, self._folder = output, folder
        self._remote = Remote.of(output) if output.startswith("s3://") else None
        self._prefix = f"{self._remote.key}.parts/{job}/" if self._remote else ""
        self._s3: Any = boto3.client("s3") if self._remote else None
        with _explained(output):
            self._done = list(_unbroken(self._find()))

    @property
    def last(self) -> Chunk:
        """The last one that is finished: what comes after it is to be done."""
        return self._done[-1] if self._done else START

    def add(self, table: pl.DataFrame, rows: int, position: int) -> None:
        """Keep the next chunk.

        Raises:
            PlatformError: if it cannot be written.
        """
        chunk = Chunk(self.last.number + 1, rows, position)
        file = self._folder / chunk.name
        unfinished = file.with_suffix(".new")
        with _explained(self._output, _KEPT), _gone_at_the_end(unfinished):
            table.write_parquet(unfinished, compression_level=1)
            unfinished.replace(file)
            if self._remote:
                self._s3.upload_file(str(file), self._remote.bucket, self._prefix + chunk.name)
        self._done.append(chunk)

    def scan(self, empty: pl.DataFrame) -> pl.LazyFrame:
        """All the chunks as one table, or `empty` if there are none.

        Raises:
            PlatformError: if one is not in S3 any more.
        """
        files = [self._folder / chunk.name for chunk in self._done]
        for file in files:
            if self._remote and not file.exists():
                try:
                    self._s3.download_file(self._remote.bucket, self._prefix + file.name, str(file))
                except ClientError as error:
                    raise PlatformError(
                        f"--output {self._output}: a finished chunk cannot be read any more ({error}), as if another "
                        "run had come to its end meanwhile; start again"
                    ) from None
        return scan(files) if files else empty.lazy()

    def finish(self, table: pl.LazyFrame, metadata: Mapping[str, str]) -> None:
        """Make them the output, in one step, and forget them.

        Raises:
            PlatformError: if it cannot be written, or a chunk is damaged.
        """
        whole = self._folder / "whole.new"
        with _explained(self._output, _KEPT), _gone_at_the_end(whole):
            try:
                table.sink_parquet(whole, maintain_order=True, row_group_size=ROW_GROUP, metadata=dict(metadata))
            except pl.exceptions.PolarsError as error:
                if "os error" in str(error):  # such as a full disk; polars has no class of its own for it
                    raise
                raise self.useless(str(error).splitlines()[0]) from None
            if self._remote:
                self._s3.upload_file(str(whole), self._remote.bucket, self._remote.key)
            else:
                whole.replace(self._output)
        self.forget()

    def forget(self) -> None:
        """Delete the chunks, from the last to the first, so that those that are left if it is killed are of use.

        Locally, where no other run can be writing the same output, chunks that other jobs have left go with them.
        """
        if self._remote:
            for key in sorted(self._keys(self._prefix), reverse=True):
                self._s3.delete_object(Bucket=self._remote.bucket, Key=key)
            return
        for file in sorted(self._folder.iterdir(), reverse=True):
            file.unlink()
        for other in self._folder.parent.iterdir():
            if other.is_dir() and other != self._folder:
                shutil.rmtree(other)

    def useless(self, said: str) -> PlatformError:
        """Forget them, for this reason; gives the error that tells of it."""
        self.forget()
        return PlatformError(f"the finished chunks cannot be used ({said}); all are deleted now, start again")

    def _find(self) -> list[Chunk]:
        names = (
            [key.removeprefix(self._prefix) for key in self._keys(self._prefix)]
            if self._remote
            else [file.name for file in self._folder.iterdir()]
        )
        return [Chunk(*map(int, matched.groups())) for name in names if (matched := _NAME.fullmatch(name))]

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
        PlatformError: if the output cannot be there, or another run is about to write it, which S3 does not tell.
    """
    if output.startswith("s3://"):
        with tempfile.TemporaryDirectory() as scratch:
            yield Chunks(output, job, Path(scratch))
        return
    if Path(output).is_dir():
        raise PlatformError(f"--output {output} is a folder; name a file in it, such as {output}/scores.parquet")
    if not (parent := Path(output).absolute().parent).is_dir():
        raise PlatformError(f"--output {output}: there is no folder {parent}; make it first")
    with _locked(output) as parts:
        folder = parts / job
        with _explained(output):
            folder.mkdir(exist_ok=True)
        try:
            yield Chunks(output, job, folder)
        finally:
            with suppress(OSError):  # chunks in it stay for the next run
                folder.rmdir()


@contextmanager
def _locked(output: str) -> Iterator[Path]:
    """The folder of an output's chunks, which no other run has meanwhile."""
    parts = Path(f"{output}.parts")
    lock = parts / "lock"
    with _explained(output):
        parts.mkdir(exist_ok=True)
        held = lock.open("w")
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(held.fileno()).st_nlink:
                raise BlockingIOError  # the run that had it has just deleted it, and a third may have made a new one
        except BlockingIOError:
            raise PlatformError(f"--output {output}: another run writes this output; wait until it is done") from None
        try:
            yield parts
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):
                parts.rmdir()


def _unbroken(found: list[Chunk]) -> Iterator[Chunk]:
    """The chunks from the first on, up to where one is missing or it is not plain which comes next."""
    last = START
    for number, (chunk, *others) in groupby(sorted(found), key=lambda chunk: chunk.number):
        if others or number != last.number + 1 or chunk.rows <= last.rows or chunk.position <= last.position:
            return
        yield chunk
        last = chunk


@contextmanager
def _explained(output: str, kept: str = "") -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ClientError, BotoCoreError, Boto3Error) as error:
        said = str(error).partition("\n")[0]
        raise PlatformError(f"--output {output} cannot be written: {said}{kept}") from None


@contextmanager
def _gone_at_the_end(file: Path) -> Iterator[None]:
    """Leave no unfinished file behind, least of all on a full disk."""
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
