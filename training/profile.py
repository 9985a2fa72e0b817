"""The profile of a snapshot: what each column looks like, as data. Monitoring later measures drift against it."""

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from contract.data import Column
from contract.manifest import Manifest
from contract.strict import Strict
from training.parts import scan

BINS = 20
SAMPLE = 100_000
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class ColumnProfile(Strict):
    """What a column looks like.

    Mean, deviation, minimum and maximum are of all rows, in the unit of the column; a time's are seconds since 1970.
    Quantiles, histogram and counts are of the sample.
    """

    type: Literal["float", "integer", "boolean", "category", "text", "time"]
    role: Literal["feature", "target", "context"]
    nulls: int
    distinct: int
    mean: float | None = None
    deviation: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: dict[str, float] = {}
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    categories: dict[str, int] = {}


class Profile(Strict):
    """What a snapshot looks like."""

    model: str
    snapshot: str
    rows: int
    sampled: int
    columns: dict[str, ColumnProfile]


def profile(folder: Path, manifest: Manifest, snapshot: str) -> tuple[Profile, pl.DataFrame]:
    """Describe the columns of the Parquet files in a folder, in memory that does not depend on the number of rows.

    Returns:
        The profile, and the evenly spaced rows that were sampled for it.
    """
    frame = scan(sorted(folder.glob("*.parquet")))
    columns = manifest.data.all_columns
    rows = int(frame.select(pl.len()).collect(engine="streaming").item())
    sample = frame.gather_every(-(-rows // SAMPLE)).collect(engine="streaming")
    totals = frame.select(_totals(columns)).collect(engine="streaming").row(0, named=True)
    target = manifest.data.target.name if manifest.data.target else None
    described = {}
    for name, column in columns.items():
        role = "target" if name == target else "context" if name in manifest.data.context else "feature"
        known = {key: totals[f"{name} {key}"] for key in TOTALS if f"{name} {key}" in totals}
        described[name] = ColumnProfile.model_validate(
            {"type": column.type, "role": role, **known, **_distribution(sample[name], column)}
        )
    return Profile(model=manifest.name, snapshot=snapshot, rows=rows, sampled=len(sample), columns=described), sample


TOTALS = ("nulls", "distinct", "mean", "deviation", "min", "max")


def _totals(columns: dict[str, Column]) -> list[pl.Expr]:
    asked = []
    for name, column in columns.items():
        asked += [
            pl.col(name).null_count().alias(f"{name} nulls"),
            pl.col(name).approx_n_unique().alias(f"{name} distinct"),
        ]
        if column.type in ("category", "text"):
            continue
        numbers = _numbers(pl.col(name), column)
        asked += [
            numbers.mean().alias(f"{name} mean"),
            numbers.std(ddof=0).alias(f"{name} deviation"),
            numbers.min().alias(f"{name} min"),
            numbers.max().alias(f"{name} max"),
        ]
    return asked


def _numbers(cell: pl.Expr, column: Column) -> pl.Expr:
    return cell.dt.epoch("s").cast(pl.Float64) if column.type == "time" else cell.cast(pl.Float64)


def _distribution(values: pl.Series, column: Column) -> dict[str, object]:
    if column.type in ("category", "text"):
        common = values.drop_nulls().value_counts(sort=True).head(BINS)
        return {"categories": dict(common.sort(["count", values.name], descending=[True, False]).rows())}
    numbers = values.to_frame().select(_numbers(pl.col(values.name), column)).to_series().drop_nulls().to_numpy()
    if not len(numbers):
        return {}
    counts, edges = np.histogram(numbers, BINS)
    quantiles = dict(zip(map(str, QUANTILES), np.quantile(numbers, QUANTILES).tolist(), strict=True))
    return {"quantiles": quantiles, "edges": edges.tolist(), "counts": counts.tolist()}
