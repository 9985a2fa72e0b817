"""Every row is in one part, the parts do not overlap in time or group, and a planted leak is refused."""

from datetime import datetime, timedelta

import polars as pl
import pytest

from contract.data import Split
from contract.errors import PlatformError
from training.data import load
from training.leaks import check_leaks
from training.split import divide
from training.steps import run_step

N = 1000
TABLE = pl.DataFrame(
    {
        "row": range(N),
        "time": [datetime(2024, 1, 1) + timedelta(days=(i * 37) % N // 4) for i in range(N)],
        "customer": [f"c{(i * i) % 97}" for i in range(N)],
    }
)


def rows(parts):
    return {name: part["row"].to_list() for name, part in parts.items()}


@pytest.mark.parametrize("by", [{}, {"by": "time", "column": "time"}, {"by": "group", "column": "customer"}])
def test_every_row_is_in_one_part_and_in_the_same_one_again(by):
    settings = Split(test=0.2, validation=0.1, seed=3, **by)
    parts = divide(TABLE, settings)
    assert sorted(row for part in rows(parts).values() for row in part) == list(range(N))
    assert len(parts["test"]) == pytest.approx(200, abs=20)
    assert len(parts["validation"]) == pytest.approx(100, abs=20)
    assert rows(divide(TABLE, settings)) == rows(parts)


def test_another_seed_gives_other_parts():
    first, second = (rows(divide(TABLE, Split(test=0.2, seed=seed))) for seed in (0, 1))
    assert first["test"] != second["test"]


def test_a_split_by_time_tests_on_what_came_last():
    parts = divide(TABLE, Split(by="time", column="time", test=0.2, validation=0.1))
    times = {name: part["time"] for name, part in parts.items()}
    assert times["train"].max() < times["validation"].min()
    assert times["validation"].max() < times["test"].min()


def test_a_split_by_group_keeps_each_group_together():
    parts = divide(TABLE, Split(by="group", column="customer", test=0.2, validation=0.1, seed=1))
    groups = [set(part["customer"]) for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))


@pytest.mark.parametrize(
    ("table", "settings", "said"),
    [
        (TABLE.head(2), Split(test=0.5), "2 rows are too few to divide by random: no row is left for train"),
        (
            TABLE.with_columns(customer=pl.lit("one")),
            Split(test=0.5, by="group", column="customer"),
            "1000 rows in 1 different customer are too few to divide by group: no row is left for train and validation",
        ),
        (TABLE.with_columns(time=pl.lit(datetime(2024, 1, 1))), Split(test=0.5, by="time", column="time"), "for train"),
    ],
)
def test_too_little_to_divide_is_refused(table, settings, said):
    with pytest.raises(PlatformError) as caught:
        divide(table, settings)
    assert said in str(caught.value)


@pytest.fixture
def parts(orders):
    """The parts of clean data, made by a manifest."""

    def make(**columns):
        table = pl.DataFrame(
            {
                "amount": [i * 97 % 1000 / 10 for i in range(300)],
                "items": [i * 31 % 17 for i in range(300)],
                "express": [i % 3 == 0 for i in range(300)],
                "colour": [("red", "green", "blue")[i * 7 % 5 % 3] for i in range(300)],
                "returned": [i * 13 % 29 % 2 for i in range(300)],
            }
        ).with_columns(**columns)
        return divide(table, Split(test=0.3, seed=5))

    return make


def plain(orders, **changes):
    return orders(context={}, **changes)


def test_clean_data_has_no_leak(parts, orders):
    check_leaks(parts(), plain(orders))


@pytest.mark.parametrize(("held_out", "other"), [("test", "train"), ("validation", "train"), ("test", "validation")])
def test_rows_in_two_parts_are_refused(parts, orders, held_out, other):
    planted = parts()
    copies = planted[held_out].head(3).with_columns(returned=1 - pl.col("returned"))  # another label does not excuse it
    planted[other] = pl.concat([planted[other], copies, copies])
    with pytest.raises(
        PlatformError, match=rf"3 different row\(s\) of the {held_out} part are in the {other} part too"
    ):
        check_leaks(planted, plain(orders))
    allowed = plain(orders).model_copy(update={"split": Split(test=0.3, duplicates="allow")})
    check_leaks(planted, allowed)


@pytest.mark.parametrize(
    ("feature", "planted"),
    [
        ("amount", pl.col("returned").cast(pl.Float64)),
        ("amount", 5 - 3 * pl.col("returned")),
        ("express", pl.col("returned") == 1),
        ("colour", pl.when(pl.col("returned") == 1).then(pl.lit("red")).otherwise(pl.lit("blue"))),
    ],
)
def test_a_feature_that_is_the_label_in_any_guise_is_refused(parts, orders, feature, planted):
    with pytest.raises(PlatformError, match=f"the feature {feature} tells the target returned without fail"):
        check_leaks(parts(**{feature: planted}), plain(orders))


def test_a_feature_that_is_a_regression_s_target_in_another_unit_is_refused(parts, orders):
    target = pl.col("items") * 1.5 + 3
    manifest = plain(orders, target={"name": "returned"})
    with pytest.raises(PlatformError, match="the feature items tells the target returned"):
        check_leaks(parts(returned=target), manifest)
    check_leaks(parts(returned=target + pl.col("amount")), manifest)


def test_the_step_writes_the_parts_that_training_loads(context, manifest):
    here = context(manifest)
    for name in ("ingest", "validate", "explore"):
        run_step(name, here)
    said = run_step("split", here)
    assert said == "1258 train, 180 validation, 359 test rows by random"
    loaded = {name: load(here.folder("split") / name, manifest) for name in ("train", "validation", "test")}
    assert [len(part) for part in loaded.values()] == [1258, 180, 359]
