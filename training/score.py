"""Batch inference: gives each row of a file a model's answer, by chunks, so that a job that was killed goes on.

    python -m training score digits --input s3://bucket/in.parquet --output s3://bucket/out.parquet --version 4

is the entry point of a container job; MLP_OUTPUTS tells it of the environment, as it does the steps of the pipeline.
`mlp score` is the same for people.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contract.data import Column, Data
from contract.errors import PlatformError
from contract.manifest import Manifest, load_manifest
from contract.outputs import ModelOutputs, Outputs
from contract.service import LiveVersion
from training import registry, schema
from training.artifact import OUTPUTS, Opened, open_version
from training.chunks import Chunks, chunks_of
from training.csvfile import Batch, few
from training.data import features
from training.tables import Table, open_table

VERSION, ERROR = "version", "error"
"""The columns that the output has beside the model's answers and the columns of the input."""
_UNREADABLE = {schema.POSITION: pl.Int64(), ERROR: pl.String()}
ROWS_AT_ONCE = 1024
SECONDS_BETWEEN_LINES = 5
Watch = Callable[[int, float], None]
"""Told how many rows are done, and which share of the input that is."""


@dataclass(frozen=True)
class Scored:
    """What came of a job.

    Attributes:
        version: that has answered.
        rows: of the output, as many as the input has.
        errors: those of them without an answer.
        first_error: why the first of these has none; empty if all have one.
        resumed: rows that an earlier run of the same job had done.
    """

    version: int
    rows: int
    errors: int
    first_error: str
    resumed: int


def chosen(names: ModelOutputs, number: int | None) -> LiveVersion:
    """The version that is to answer: this one, or else the live one that takes the most traffic.

    Raises:
        PlatformError: if there is none, or it is not approved.
    """
    if number is not None:
        return registry.as_live(registry.find(names.package_group, number), 100)
    live = registry.live(names.live_parameter).versions
    if not live:
        raise PlatformError(f"no version is live in {names.live_parameter}; name one with --version")
    return max(live, key=lambda version: version.weight)


def score(manifest: Manifest, live: LiveVersion, source: str, output: str, watch: Watch) -> Scored:
    """Write a Parquet file with the rows of another file and what a version says to them.

    A row that does not fit the manifest gets no answer, but an error that says why. What has been done of the same job
    (the same input, version, artifact and output) before is not done again, and the output is the same.

    Args:
        manifest: the model's.
        live: the version.
        source: path or s3:// URI of a CSV or Parquet file; it has the model's features, and any other columns.
        output: path or s3:// URI; it is there only once it is whole.
        watch: told after each chunk.

    Raises:
        PlatformError: if the version is refused, a column is missing, no row at all fits, another run writes the
            output, or it cannot be written.
    """
    _check_names(source, output)
    with open_table(source, manifest.data) as table:
        opened = open_version(live, manifest.name, manifest.data.columns)
        scorer = Scorer(manifest, opened, live.version, table)
        with chunks_of(output, _job(manifest, live, table)) as chunks:
            resumed = chunks.last.rows
            _score(scorer, table, chunks, watch)
            if not table.is_unchanged:
                chunks.forget()
                raise PlatformError(f"{source} was changed while it was read, and nothing was written; start again")
            whole = chunks.scan(scorer.empty)
            rows, errors, first = _count(whole, chunks)
            if rows and errors == rows:
                chunks.forget()
                raise PlatformError(
                    f"no row of {source} fits {manifest.name}, and nothing was written; the first: {first}"
                )
            about = {"model": manifest.name, "version": str(live.version), "artifact": live.artifact}
            chunks.finish(whole, about | {"sha256": live.sha256})
    return Scored(live.version, rows, errors, first or "", resumed)


class Scorer:
    """Turns batches of a table into rows of the output.

    Raises:
        PlatformError: if the table lacks a feature, or has a column that the output has by itself.
    """

    def __init__(self, manifest: Manifest, opened: Opened, version: int, table: Table) -> None:
        data, given = manifest.data, list(table.columns)
        if missing := [name for name in data.columns if name not in given]:
            raise PlatformError(
                f"{table.name} lacks {few(missing)} of the {len(data.columns)} column(s) that {manifest.name} takes; "
                f"its model.yaml describes them in data.features, and the file has {few(given)}"
            )
        own = [*(tensor.name for tensor in opened.metadata.outputs), VERSION, ERROR, schema.POSITION]
        if taken := sorted(set(own) & set(given)):
            raise PlatformError(
                f"{table.name} has the column(s) {few(taken)}, which the output has itself; rename them"
            )
        self._data, self._opened, self._version = data, opened, version
        self._known = {name: column for name, column in _columns(data).items() if name in given}
        types = {
            name: schema.TYPES[self._known[name].type] if name in self._known else table.columns[name] for name in given
        }
        self.types = types | _answer_types(opened) | {VERSION: pl.Int64(), ERROR: pl.String()}
        self._pool = ThreadPoolExecutor(os.cpu_count())

    @property
    def empty(self) -> pl.DataFrame:
        """An output without rows."""
        return pl.DataFrame(schema=self.types)

    def score(self, batch: Batch) -> pl.DataFrame:
        """The batch's rows with their answers, in order."""
        typed, reasons = schema.check(batch.table, self._known)
        rows, fits = batch.table.with_columns(typed).with_columns(reasons.alias(ERROR)), reasons.is_null()
        answered = rows.filter(fits).with_columns(*self._answers(features(typed.filter(fits), self._data)))
        if len(answered) < batch.count:  # what else there is has no answer, or not even columns
            positions = range(len(rows)) if batch.positions is None else batch.positions
            place = pl.Series(schema.POSITION, positions, pl.Int64)
            unreadable = {schema.POSITION: [one.position for one in batch.unreadable]}
            parts = [
                self.empty,
                answered.with_columns(place.filter(fits)),
                rows.filter(~fits).with_columns(place.filter(~fits)),
                pl.DataFrame(unreadable | {ERROR: [one.reason for one in batch.unreadable]}, _UNREADABLE),
            ]
            answered = pl.concat(parts, how="diagonal").sort(schema.POSITION)
        return answered.with_columns(pl.lit(self._version, pl.Int64).alias(VERSION)).select(list(self.types))

    def _answers(self, rows: Any) -> Iterator[pl.Series]:
        """One session asked by a thread a core: each answers rows of its own, so that how many does not show."""
        if not len(rows):
            return
        pieces = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
        answers = list(self._pool.map(self._opened.answer, pieces))
        for name in answers[0]:
            yield pl.Series(name, np.concatenate([answer[name] for answer in answers]), dtype=self.types[name])


def main(arguments: Sequence[str], outputs: Callable[[], Outputs]) -> None:
    """The entry point of a container job: a line every few seconds, and one at the end.

    Args:
        arguments: after the word `score`.
        outputs: gives the stack's outputs.

    Raises:
        PlatformError: as `score` does.
    """
    parser = argparse.ArgumentParser("python -m training score", description="Score a CSV or Parquet file.")
    parser.add_argument("model")
    parser.add_argument("--input", required=True, help="path or s3:// URI of a .csv or .parquet file")
    parser.add_argument("--output", required=True, help="path or s3:// URI of the .parquet file to write")
    parser.add_argument("--version", type=int, help="by default the live one that takes the most traffic")
    given = parser.parse_args(arguments)
    manifest = load_manifest(given.model)
    models = outputs().models
    if manifest.name not in models:
        raise PlatformError(
            f"the environment that MLP_OUTPUTS tells of has no model {manifest.name!r}, but: {few([*models])}"
        )
    said, start = time.monotonic(), time.monotonic()

    def watch(rows: int, share: float) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"rows={rows} share={share:.3f}", flush=True)

    done = score(manifest, chosen(models[manifest.name], given.version), given.input, given.output, watch)
    seconds = time.monotonic() - start
    print(
        f"{given.output}: rows={done.rows} errors={done.errors} version={done.version} resumed={done.resumed} "
        f"rows_per_s={(done.rows - done.resumed) / seconds:.0f}"
        + (f" first_error={done.first_error!r}" if done.errors else ""),
        flush=True,
    )


def _score(scorer: Scorer, table: Table, chunks: Chunks, watch: Watch) -> None:
    """Do the chunks that are not done yet."""
    _, rows, position = chunks.last
    watch(rows, position / max(table.size, 1))
    for batch, end in table.batches(position, rows):
        rows += batch.count
        chunks.add(scorer.score(batch), rows, end)
        watch(rows, end / table.size)


def _count(whole: pl.LazyFrame, chunks: Chunks) -> tuple[int, int, str | None]:
    """Rows, those with an error, and the first error."""
    wrong = pl.col(ERROR).is_not_null()
    counts = whole.select(pl.len(), errors=wrong.sum(), first=pl.col(ERROR).filter(wrong).first())
    try:
        rows, errors, first = counts.collect().row(0)
    except pl.exceptions.PolarsError as error:  # the machine went down while one was on its way to the disk
        raise chunks.useless(str(error).splitlines()[0]) from None
    if rows != chunks.last.rows:
        raise chunks.useless(f"they hold {rows} rows instead of {chunks.last.rows}")
    return rows, errors, first


def _check_names(source: str, output: str) -> None:
    if not output.endswith(".parquet"):
        raise PlatformError(f"--output {output} must end in .parquet, which is what is written")
    is_same = source == output or (Path(output).exists() and Path(source).exists() and Path(output).samefile(source))
    if is_same:
        raise PlatformError(f"--input and --output are the same file, {output}; it would be lost")


def _columns(data: Data) -> dict[str, Column]:
    """The features as the manifest has them; of the target and the context, which may be missing, the type alone."""
    takes = set(data.columns)
    return {
        name: column
        if name in takes
        else Column(type="text" if column.type == "category" else column.type, nullable=True)
        for name, column in data.all_columns.items()
    }


def _answer_types(opened: Opened) -> dict[str, pl.DataType]:
    types: dict[str, pl.DataType] = {}
    for tensor in opened.metadata.outputs:
        of_one = pl.Int64() if OUTPUTS[tensor.datatype] is np.int64 else pl.Float32()
        types[tensor.name] = pl.Array(of_one, tensor.shape[1:]) if len(tensor.shape) > 1 else of_one
    return types


def _job(manifest: Manifest, live: LiveVersion, table: Table) -> str:
    """Names all that the output depends on."""
    parts = [table.name, table.state, manifest.name, live.version, live.sha256, manifest.data.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
