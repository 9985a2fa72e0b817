"""Validation and split: values out of range stop the pipeline, and a row is in one part only."""

import numpy as np
import polars as pl
import pytest

from contract.errors import PlatformError
from training.data import Rows, load, split
from training.validate import validate


@pytest.fixture
def folder(tmp_path, table):
    def write(frame: pl.DataFrame = table):
        frame.with_columns(pl.col("^pixels.*$").cast(pl.Float32), pl.col("digit").cast(pl.Int64)).write_parquet(
            tmp_path / "part-0.parquet"
        )
        return tmp_path

    return write


def test_good_data_passes(folder, manifest):
    assert validate(folder(), manifest) == 1797


def test_values_out_of_range_are_counted_and_the_first_are_shown(folder, manifest, table):
    frame = table.cast(pl.Int64).with_columns(
        pixels_3=pl.when(pl.int_range(pl.len()) < 7).then(17).otherwise(pl.col("pixels_3")),
        digit=pl.when(pl.int_range(pl.len()) == 2).then(10).otherwise(pl.col("digit")),
    )
    with pytest.raises(PlatformError) as caught:
        validate(folder(frame), manifest)
    assert str(caught.value).splitlines() == [
        "the data of digits breaks its schema in 8 value(s):",
        "  row 0: pixels_3 is 17, allowed is 0 to 16",
        "  row 1: pixels_3 is 17, allowed is 0 to 16",
        "  row 2: digit is 10, allowed is 0 to 9",
        "  row 2: pixels_3 is 17, allowed is 0 to 16",
        "  row 3: pixels_3 is 17, allowed is 0 to 16",
        "  and 3 more",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_what_is_no_number_in_the_range_is_a_breach(folder, manifest, table, value):
    frame = table.with_columns(pl.col("^pixels.*$").cast(pl.Float64)).with_columns(pixels_0=pl.lit(value))
    with pytest.raises(PlatformError, match="in 1797 value"):
        validate(folder(frame), manifest)


def test_rows_keep_the_order_of_the_manifest(folder, manifest, table):
    rows = load(folder(table.select(reversed(table.columns))), manifest)
    assert rows.features.dtype == np.float32
    assert rows.targets.dtype == np.int64
    assert (rows.features == table.drop("digit").to_numpy()).all()


def test_a_folder_without_data_or_with_other_columns_is_refused(tmp_path, manifest):
    with pytest.raises(PlatformError, match="holds no Parquet file"):
        load(tmp_path, manifest)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "part-0.parquet")
    with pytest.raises(PlatformError, match=str(tmp_path)):
        load(tmp_path, manifest)


def test_the_split_is_the_same_every_time_and_its_parts_are_disjoint(manifest):
    rows = Rows(np.arange(100, dtype=np.float32).reshape(100, 1), np.arange(100))
    train, test = split(rows, manifest.split)
    again = split(rows, manifest.split)
    assert (test.targets == again[1].targets).all()
    assert len(test) == 20
    assert sorted([*train.targets, *test.targets]) == list(range(100))
    assert (train.features[:, 0] == train.targets).all()
