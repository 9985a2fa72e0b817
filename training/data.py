"""Reads snapshots into arrays and divides them; training and evaluation see the same rows through it."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contract.data import Split
from contract.errors import PlatformError
from contract.manifest import Manifest


@dataclass(frozen=True)
class Rows:
    """Features of shape [N, columns], as float32, and targets of shape [N], as int64."""

    features: NDArray[np.float32]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: NDArray[np.int64]) -> "Rows":
        """The rows at these positions."""
        return Rows(self.features[indices], self.targets[indices])


def load(folder: Path, manifest: Manifest) -> Rows:
    """Read the Parquet files in a folder, in the order of their names.

    Raises:
        PlatformError: if there is none, or one of them lacks a column.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise PlatformError(f"{folder} holds no Parquet file")
    columns = manifest.data.columns
    try:
        table = pl.read_parquet(files, columns=[*columns, manifest.data.target.name])
    except pl.exceptions.PolarsError as error:
        raise PlatformError(f"{folder}: {str(error).splitlines()[0]}") from None
    features = np.ascontiguousarray(table.select(columns).to_numpy(), dtype=np.float32)
    return Rows(features, table[manifest.data.target.name].to_numpy().astype(np.int64))


def split(rows: Rows, settings: Split) -> tuple[Rows, Rows]:
    """Hold out a random share of the rows; the same rows and settings always give the same two parts.

    Returns:
        The training part and the test part.
    """
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    held_out = max(1, round(len(rows) * settings.test))
    return rows.take(order[held_out:]), rows.take(order[:held_out])


def model_module(name: str) -> Any:
    """The module `model.py` in a model's folder."""
    return importlib.import_module(f"training.models.{name}.model")
