"""What fits the schema becomes typed, whatever it came as; what does not says why."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from contract.data import Column
from training.schema import fit


def values(column: Column, cells, dtype=None):
    good, bad = fit(pl.DataFrame({"x": pl.Series(cells, dtype=dtype, strict=False)}), {"x": column})
    return good["x"].to_list(), bad["_reason"].to_list()


@pytest.mark.parametrize(
    ("column", "cells", "typed"),
    [
        (Column(), ["1", " 2.5 ", "1e3", "-0"], [1.0, 2.5, 1000.0, 0.0]),
        (Column(nullable=True), ["", None, "3"], [None, None, 3.0]),
        (Column(nullable=True), [float("nan"), 1.0], [None, 1.0]),
        (Column(type="integer"), ["5", "5.0", "9007199254740993"], [5, 5, 9007199254740993]),
        (Column(type="integer"), [5.0, 1e3], [5, 1000]),
        (Column(type="boolean"), ["true", "F", "1", "no", "YES"], [True, False, True, False, True]),
        (Column(type="boolean"), [1, 0], [True, False]),
        (Column(type="category", categories=("a", "b")), [" a", "b"], ["a", "b"]),
        (Column(type="text"), [" a", "b"], [" a", "b"]),
        (
            Column(type="time"),
            ["2024-01-02", "2024-01-02 03:04:05+00", "2024-01-02T05:34:05.5+02:30", "2024-01-02T03:04:05Z"],
            [
                datetime(2024, 1, 2),
                datetime(2024, 1, 2, 3, 4, 5),
                datetime(2024, 1, 2, 3, 4, 5, 500_000),
                datetime(2024, 1, 2, 3, 4, 5),
            ],
        ),
        (
            Column(type="time"),
            [datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=1))).astimezone(UTC)],
            [datetime(2024, 1, 2, 2)],
        ),
    ],
)
def test_values_become_what_the_schema_says(column, cells, typed):
    assert values(column, cells) == (typed, [])


@pytest.mark.parametrize(
    ("column", "cells", "reasons"),
    [
        (Column(min=0, max=16), ["17", "-1"], ["'17' is not a finite number from 0 to 16", "'-1' is not"]),
        (Column(), ["abc", "inf", "nan"], ["'abc' is not a finite number", "'inf' is not", "'nan' is not"]),
        (Column(), ["", None], ["it is empty", "it is empty"]),
        (Column(), [float("inf"), float("nan")], ["inf is not a finite number", "it is empty"]),
        (Column(type="integer", min=1), ["1.5", "0"], ["'1.5' is not a whole number of at least 1", "'0' is not"]),
        (Column(type="boolean"), ["maybe", "2"], ["'maybe' is not true or false", "'2' is not"]),
        (Column(type="category", categories=("a", "b")), ["c", "A"], ["'c' is not one of a, b", "'A' is not"]),
        (Column(type="time"), ["yesterday", "2024-13-01"], ["'yesterday' is not a time in ISO 8601", "'2024-13-01'"]),
        (Column(type="float"), [datetime(2024, 1, 1)], ["is not a finite number"]),
        (Column(type="time"), [5, 6], ["5 is not a time in ISO 8601", "6 is not"]),
        (Column(type="text"), [[1], [2]], ["List(Int64) is not text", "List(Int64) is not text"]),
    ],
)
def test_what_does_not_fit_says_why(column, cells, reasons):
    typed, said = values(column, cells)
    assert typed == []
    assert all(got.startswith("column x: ") and want in got for got, want in zip(said, reasons, strict=True))


def test_a_row_is_kept_whole_with_its_place_and_first_reason():
    table = pl.DataFrame({"a": ["1", "x", "3"], "b": ["1", "y", "2"]})
    good, bad = fit(table, {"b": Column(max=1), "a": Column()})
    assert good.columns == ["b", "a"]
    assert good.rows() == [(1.0, 1.0)]
    assert bad.rows() == [
        ("y", "x", 1, "column b: 'y' is not a finite number of at most 1"),
        ("2", "3", 2, "column b: '2' is not a finite number of at most 1"),
    ]
