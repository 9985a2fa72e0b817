"""The profile describes the data, and any data make a report; test_pipeline.py opens those of the examples."""

import numpy as np
import polars as pl
import pytest

from tests.browser import needs_browser, open_page
from training import profile as module
from training import report
from training.explore import explore
from training.profile import Profile, profile
from training.report import Section, Table


@pytest.fixture
def folder(tmp_path):
    def write(table: pl.DataFrame):
        table.write_parquet(tmp_path / "part-00000.parquet", row_group_size=100)
        return tmp_path

    return write


def some_orders(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "amount": [float(i % 101) for i in range(rows)],
            "items": [None if i % 4 == 0 else i % 7 for i in range(rows)],
            "express": [i % 2 == 0 for i in range(rows)],
            "colour": [("red", "green", "green", "blue")[i % 4] for i in range(rows)],
            "returned": [i % 3 % 2 for i in range(rows)],
            "order": list(range(rows)),
            "placed": pl.Series(range(rows)).cast(pl.Datetime("us")),
            "customer": [f"c{i % 11}" for i in range(rows)],
        }
    )


def test_the_profile_is_what_numpy_says(folder, orders):
    table = some_orders(1001)
    described, sample = profile(folder(table), orders(), "abc")
    assert (described.rows, described.sampled, len(sample)) == (1001, 1001, 1001)
    amount, items = described.columns["amount"], described.columns["items"]
    values = table["amount"].to_numpy()
    assert (amount.mean, amount.deviation) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert (amount.min, amount.max, amount.nulls, amount.role) == (0, 100, 0, "feature")
    assert amount.quantiles["0.5"] == pytest.approx(np.median(values))
    assert sum(amount.counts) == 1001
    assert len(amount.edges) == len(amount.counts) + 1
    assert (items.nulls, sum(items.counts)) == (251, 750)
    assert described.columns["colour"].categories == {"green": 500, "red": 251, "blue": 250}
    assert described.columns["returned"].role == "target"
    assert described.columns["customer"].role == "context"
    assert Profile.model_validate_json(described.model_dump_json()) == described


def test_a_large_snapshot_is_sampled_evenly_and_counted_whole(folder, orders, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 100)
    described, sample = profile(folder(some_orders(1001)), orders(), "abc")
    assert (described.rows, described.sampled) == (1001, 91)
    assert sample["order"].to_list() == list(range(0, 1001, 11))
    assert described.columns["order"].max == 1000


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_hardly_any_rows_still_make_a_report(folder, orders, rows, tmp_path):
    described, sample = profile(folder(some_orders(rows)), orders(), "abc")
    sections = explore(described, sample, orders())
    report.write(tmp_path / "report.html", "few", "rows", sections)
    assert [section.title for section in sections][-1] == "Outliers"


@needs_browser
def test_what_stands_in_the_data_is_not_taken_for_html(tmp_path):
    nasty = '<script>console.error("run")</script>'
    report.write(tmp_path / "page.html", nasty, nasty, [Section(nasty, nasty, [Table([nasty], [[nasty]])])])
    page = open_page(tmp_path / "page.html", tmp_path)
    assert page.console == []
    assert page.document.count("&lt;script&gt;") == 7


@needs_browser
def test_an_error_on_a_page_would_be_seen(tmp_path):
    (tmp_path / "page.html").write_text('<script>console.error("broken")</script>')
    assert any("broken" in line for line in open_page(tmp_path / "page.html", tmp_path).console)
