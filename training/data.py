"""Reads the parts that the split made into arrays; training, tuning and evaluation see the same rows through it."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contract.data import Data, Target
from contract.errors import PlatformError
from contract.manifest import Manifest
from training.parts import scan

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Rows as the network takes them.

    Attributes:
        features: shape [N, columns], float32.
        targets: shape [N]: for classes int64, for a regression float32; None if a density's data has no labels.
        table: the same rows as they stand in the snapshot, with the columns that the model never sees.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any] | None = None
    table: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, indices: NDArray[np.int64]) -> "Rows":
        """The rows at these positions."""
        return Rows(
            self.features[indices],
            None if self.targets is None else self.targets[indices],
            None if self.table is None else self.table[indices],
        )


def load(folder: Path, manifest: Manifest) -> Rows:
    """Read the Parquet files in a folder, in the order of their names.

    Raises:
        PlatformError: if there is none, or one of them lacks a column.
    """
    table = read(folder, manifest)
    target = manifest.data.target
    return Rows(features(table, manifest.data), encoded(table[target.name], target) if target else None, table)


def read(folder: Path, manifest: Manifest) -> pl.DataFrame:
    """Read the Parquet files in a folder as a table with the columns of the manifest.

    Raises:
        PlatformError: if there is none, or one of them lacks a column.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise PlatformError(f"{folder} holds no Parquet file")
    try:
        return scan(files).select(list(manifest.data.all_columns)).collect()
    except pl.exceptions.PolarsError as error:
        raise PlatformError(f"{folder}: {str(error).splitlines()[0]}") from None


def features(table: pl.DataFrame, data: Data) -> NDArray[np.float32]:
    """The numbers that the model takes, from columns as the snapshot has them.

    This is all that happens outside of the network: of a category its position in the manifest's list, of a boolean 0
    or 1, of a null NaN. A client of the service sends the same numbers; whatever else is to be done to them, the
    network does.

    Returns:
        Shape [N, columns].
    """
    schema = data.all_columns
    numbers = table.select(
        (
            pl.col(name).replace_strict(schema[name].codes, return_dtype=pl.Float32)
            if schema[name].codes
            else pl.col(name).cast(pl.Float32)
        )
        for name in data.columns
    )
    return np.ascontiguousarray(numbers.to_numpy(), dtype=np.float32)


def encoded(column: pl.Series, target: Target) -> NDArray[Any]:
    """The target as numbers: int64 for classes, by their position among the labels if there are any, else float32."""
    if target.labels:
        column = column.replace_strict(target.column.codes)
    return column.to_numpy().astype(np.int64 if target.classes else np.float32)


def model_module(name: str) -> Any:
    """The module `model.py` in a model's folder."""
    return importlib.import_module(f"training.models.{name}.model")
