"""Validate: every value of a snapshot must lie in the range that the manifest gives its column."""

from pathlib import Path

import polars as pl

from contract.errors import PlatformError
from contract.manifest import Manifest

SHOWN = 5


def validate(folder: Path, manifest: Manifest) -> int:
    """Check the Parquet files in a folder against the manifest.

    Returns:
        How many rows were checked.

    Raises:
        PlatformError: with the number of values that are out of range, and the first of them.
    """
    table = pl.read_parquet(sorted(folder.glob("*.parquet"))).with_row_index("row")
    ranges = {manifest.data.target.name: (0.0, float(manifest.data.target.classes - 1))}
    for name, feature in manifest.data.features.items():
        ranges |= dict.fromkeys(feature.columns(name), (feature.min, feature.max))
    breaches = pl.concat(
        table.filter(~pl.col(column).is_between(low, high).fill_null(False)).select(
            "row",
            column=pl.lit(column),
            value=pl.col(column).cast(pl.Float64),
            allowed=pl.lit(f"{low:g} to {high:g}"),
        )
        for column, (low, high) in ranges.items()
    ).sort("row", "column")
    if len(breaches):
        first = [
            f"  row {row}: {column} is {value:g}, allowed is {allowed}"
            for row, column, value, allowed in breaches.head(SHOWN).rows()
        ]
        more = [f"  and {len(breaches) - SHOWN} more"] if len(breaches) > SHOWN else []
        raise PlatformError(
            f"the data of {manifest.name} breaks its schema in {len(breaches)} value(s):\n" + "\n".join(first + more)
        )
    return len(table)
