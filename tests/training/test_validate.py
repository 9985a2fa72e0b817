"""A snapshot that breaks its schema stops the pipeline, with the rows that broke it."""

import polars as pl
import pytest

from contract.errors import PlatformError
from training.validate import validate


@pytest.fixture
def folder(tmp_path, table):
    def write(frame: pl.DataFrame = table):
        frame.head(1000).write_parquet(tmp_path / "part-00000.parquet")
        frame.slice(1000).write_parquet(tmp_path / "part-00001.parquet")
        return tmp_path

    return write


def test_good_data_passes(folder, manifest):
    assert validate(folder(), manifest) == 1797


def test_rows_that_break_the_schema_are_counted_and_the_first_are_shown(folder, manifest, table):
    frame = table.cast(pl.Int64).with_columns(
        pixels_3=pl.when(pl.int_range(pl.len()).is_in([3, 1001, 1002, 1003, 1004, 1005]))
        .then(17)
        .otherwise("pixels_3"),
        digit=pl.when(pl.int_range(pl.len()) == 2).then(10).otherwise(pl.col("digit")),
    )
    with pytest.raises(PlatformError) as caught:
        validate(folder(frame), manifest)
    assert str(caught.value).splitlines() == [
        "7 of 1797 rows of digits break its schema:",
        "  row 2: column digit: 10 is not a whole number from 0 to 9",
        "  row 3: column pixels_3: 17 is not a whole number from 0 to 16",
        "  row 1001: column pixels_3: 17 is not a whole number from 0 to 16",
        "  row 1002: column pixels_3: 17 is not a whole number from 0 to 16",
        "  row 1003: column pixels_3: 17 is not a whole number from 0 to 16",
        "  and 2 more",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None])
def test_what_is_no_number_in_the_range_breaks_it(folder, manifest, table, value):
    frame = table.cast(pl.Float64).with_columns(pixels_0=pl.lit(value, pl.Float64))
    with pytest.raises(PlatformError, match="1797 of 1797 rows of digits break its schema"):
        validate(folder(frame), manifest)


def test_a_label_that_never_occurs_is_named(folder, manifest, table):
    with pytest.raises(PlatformError, match=r"no row of digits has the label\(s\) 3, 8 in digit"):
        validate(folder(table.filter(~pl.col("digit").is_in([3, 8]))), manifest)


def test_values_of_a_unique_column_must_differ(tmp_path, orders):
    manifest = orders(features={"amount": {}}, context={"order": {"type": "integer", "unique": True, "nullable": True}})
    frame = pl.DataFrame({"amount": 1.0, "order": [1, 2, 2, None, None, 5, 1], "returned": [0, 1, 0, 1, 0, 1, 0]})
    frame.write_parquet(tmp_path / "part-00000.parquet")
    with pytest.raises(
        PlatformError, match=r"order of digits is to be unique, but 2 value\(s\) occur more than once: 1, 2"
    ):
        validate(tmp_path, manifest)
    frame.unique("order").write_parquet(tmp_path / "part-00000.parquet")
    assert validate(tmp_path, manifest) == 4


def test_a_snapshot_that_lacks_a_column_is_refused(tmp_path, manifest):
    with pytest.raises(PlatformError, match="holds no Parquet file"):
        validate(tmp_path, manifest)
    pl.DataFrame({"digit": [1]}).write_parquet(tmp_path / "part-00000.parquet")
    with pytest.raises(PlatformError, match="pixels_0"):
        validate(tmp_path, manifest)
