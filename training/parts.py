"""Tables of any size as Parquet files of even size, named by their content, and files like these read as one table."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

CELLS = 8 * 2**20
ROWS = 1_000_000


def scan(files: list[Path]) -> pl.LazyFrame:
    """Parquet files as one table; a name such as `in[1].parquet` or `day=1/in.parquet` is a name, and no pattern."""
    return pl.scan_parquet(files, glob=False, hive_partitioning=False)


class PartWriter:
    """A folder of Parquet files that grows by batches; where the batches end does not show in it.

    The id names the columns and values, whatever file format, library or size of batch they came in.
    """

    def __init__(self, folder: Path, types: Mapping[str, Any]) -> None:
        self.folder, self.types = folder, types
        self.count = 0
        self.files: list[Path] = []
        self._rows_a_file = min(ROWS, max(1, CELLS // len(types)))
        self._waiting: list[pl.DataFrame] = []
        self._digests = [[hashlib.sha256() for _ in range(3)] for _ in types]

    def add(self, table: pl.DataFrame) -> None:
        """Add rows with the columns and types of this table."""
        self.count += len(table)
        for column, digests in zip(table.iter_columns(), self._digests, strict=True):
            _digest(column, *digests)
        while len(table):
            room = self._rows_a_file - sum(map(len, self._waiting))
            self._waiting.append(table.head(room))
            table = table.slice(room)
            if len(self._waiting[-1]) == room:
                self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._flush()

    @property
    def id(self) -> str:
        """The name of all that was added."""
        digest = hashlib.sha256(repr([(name, str(type_)) for name, type_ in self.types.items()]).encode())
        for of_column in self._digests:
            for part in of_column:
                digest.update(part.digest())
        return digest.hexdigest()[:32]

    def _flush(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"part-{len(self.files):05}.parquet"
        pl.concat(self._waiting).write_parquet(file, compression_level=1)
        self.files.append(file)
        self._waiting.clear()


def _digest(column: pl.Series, values: Any, nulls: Any, lengths: Any) -> None:
    """Add a column's values, its nulls and the lengths of its texts to a digest each.

    With one for all three, the id would depend on where batches end.
    """
    nulls.update(column.is_null().cast(pl.UInt8).to_numpy().data)
    if column.dtype == pl.String:
        texts = column.fill_null("")
        lengths.update(texts.str.len_bytes().to_numpy().data)
        values.update(texts.str.join("").item().encode())
    else:
        numbers = column.cast(pl.Int64) if column.dtype.is_temporal() else column
        empty = False if column.dtype == pl.Boolean else 0
        values.update(np.ascontiguousarray(numbers.fill_null(empty).to_numpy()).data)
