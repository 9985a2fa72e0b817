"""Split: divide the rows into the parts to train on, to watch the training with and to test with."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contract.data import Split
from contract.errors import PlatformError
from training.data import PARTS, Part, read
from training.leaks import check_leaks
from training.steps import Context

FILE = "part-00000.parquet"


def step(context: Context) -> str:
    """Write each part into a folder of its own, once no leak was found."""
    manifest = context.manifest
    parts = divide(read(context.folder("ingest") / "snapshot", manifest), manifest.split)
    check_leaks(parts, manifest)
    for name, part in parts.items():
        folder = context.folder("split") / name
        folder.mkdir(exist_ok=True)
        part.write_parquet(folder / FILE)
    return ", ".join(f"{len(part)} {name}" for name, part in parts.items()) + f" rows by {manifest.split.by}"


def divide(table: pl.DataFrame, settings: Split) -> dict[Part, pl.DataFrame]:
    """Divide a table; the same rows and settings always give the same parts.

    Raises:
        PlatformError: if a part would have no rows.
    """
    place = {"random": _by_chance, "time": _by_time, "group": _by_group}[settings.by](table, settings)
    parts = {name: table.filter(pl.Series(place == number)) for number, name in enumerate(PARTS)}
    if empty := [name for name, part in parts.items() if part.is_empty()]:
        of = f" in {table[settings.column].n_unique()} different {settings.column}" if settings.column else ""
        raise PlatformError(
            f"{len(table)} rows{of} are too few to divide by {settings.by}: no row is left for {' and '.join(empty)}; "
            "change split in the manifest, or add data"
        )
    return parts


def _by_chance(table: pl.DataFrame, settings: Split) -> NDArray[np.int64]:
    """The part of each row, as its number in PARTS."""
    return _shares(np.random.default_rng(settings.seed).permutation(len(table)), settings)


def _by_time(table: pl.DataFrame, settings: Split) -> NDArray[np.int64]:
    """Newest rows last; what happened at the same time stays together, in the later part."""
    assert settings.column
    newest_first = table[settings.column].rank("dense", descending=True).to_numpy().astype(np.int64) - 1
    place = _shares(np.argsort(newest_first, kind="stable"), settings)
    latest = np.zeros(newest_first.max(initial=-1) + 1, np.int64)
    np.maximum.at(latest, newest_first, place)
    placed: NDArray[np.int64] = latest[newest_first]
    return placed


def _by_group(table: pl.DataFrame, settings: Split) -> NDArray[np.int64]:
    """Whole groups in an order by chance, first to the test until it has its share of the rows, then to validation."""
    assert settings.column
    sizes = table[settings.column].value_counts(name="rows").sort(settings.column)
    order = np.random.default_rng(settings.seed).permutation(len(sizes))
    rows_before = np.cumsum(sizes["rows"].to_numpy()[order]) - sizes["rows"].to_numpy()[order]
    place = np.zeros(len(sizes), np.int64)
    place[order[rows_before < len(table) * (settings.test + settings.validation)]] = PARTS.index("validation")
    place[order[rows_before < len(table) * settings.test]] = PARTS.index("test")
    groups = sizes.select(settings.column, part=pl.Series(place))
    joined = table.select(settings.column).join(groups, on=settings.column, how="left", maintain_order="left")
    return joined["part"].to_numpy()


def _shares(order: NDArray[np.int64], settings: Split) -> NDArray[np.int64]:
    """Give the first rows of an order to the test, the next to validation and the rest to training."""
    test = max(1, round(len(order) * settings.test))
    validation = max(1, round(len(order) * settings.validation))
    place = np.zeros(len(order), np.int64)
    place[order[: test + validation]] = PARTS.index("validation")
    place[order[:test]] = PARTS.index("test")
    return place
