"""Validate: a snapshot must keep its schema, row by row and as a whole."""

from pathlib import Path

import polars as pl

from contract.errors import PlatformError
from contract.manifest import Manifest
from training import schema
from training.parts import scan
from training.steps import Context

SHOWN = 5


def step(context: Context) -> str:
    """Check the local copy of the snapshot."""
    rows = validate(context.folder("ingest") / "snapshot", context.manifest)
    return f"{rows} rows keep the schema"


def validate(folder: Path, manifest: Manifest) -> int:
    """Check the Parquet files in a folder against the manifest.

    Ingest has checked each row, by the manifest that there was then. What only the whole can show comes on top: columns
    whose values must differ, and a classification's classes, of which each must occur.

    Returns:
        How many rows were checked.

    Raises:
        PlatformError: with the number of rows that break the schema and the first of them, the values that are there
            twice, or the classes that no row has.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise PlatformError(f"{folder} holds no Parquet file")
    columns = manifest.data.all_columns
    count, wrong = 0, pl.DataFrame(schema={"row": pl.Int64, "reason": pl.String})
    for file in files:
        try:
            table = scan([file]).select(list(columns)).collect()
        except pl.exceptions.PolarsError as error:
            raise PlatformError(f"{file}: {str(error).splitlines()[0]}") from None
        bad = schema.fit(table, columns)[1]
        wrong = wrong.vstack(bad.select(row=pl.col(schema.POSITION).cast(pl.Int64) + count, reason=schema.REASON))
        count += len(table)
    if len(wrong):
        told = [f"  row {row}: {reason}" for row, reason in wrong.head(SHOWN).rows()]
        more = [f"  and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise PlatformError(
            f"{len(wrong)} of {count} rows of {manifest.name} break its schema:\n" + "\n".join(told + more)
        )
    frame = scan(files)
    for name, column in columns.items():
        if column.unique:
            _require_unique(frame, name, manifest)
    if manifest.task == "classification":
        _require_every_class(frame, manifest)
    return count


def _require_unique(frame: pl.LazyFrame, name: str, manifest: Manifest) -> None:
    values = frame.filter(pl.col(name).is_not_null()).group_by(name).len().filter(pl.col("len") > 1).sort(name)
    twice = values.collect(engine="streaming")
    if len(twice):
        raise PlatformError(
            f"the column {name} of {manifest.name} is to be unique, but {len(twice)} value(s) occur more than once: "
            f"{_few([str(value) for value in twice[name].head(SHOWN + 1)])}"
        )


def _require_every_class(frame: pl.LazyFrame, manifest: Manifest) -> None:
    target = manifest.data.target
    assert target
    assert target.classes
    found = set(frame.select(pl.col(target.name).unique()).collect(engine="streaming").to_series())
    never = [str(label) for label in target.labels or range(target.classes) if label not in found]
    if never:
        raise PlatformError(
            f"no row of {manifest.name} has the label(s) {_few(never)} in {target.name}, so they cannot be learnt; "
            "add such rows, or change data.target in the manifest"
        )


def _few(values: list[str]) -> str:
    return ", ".join(values[:SHOWN]) + (" ..." if len(values) > SHOWN else "")
