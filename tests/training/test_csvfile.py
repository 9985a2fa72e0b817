"""CSV is read in pieces of any size to the same rows, and what is no record is set aside or refused."""

import csv
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import PlatformError
from training import csvfile
from training.csvfile import read_csv

TYPES = {"a": pl.Float64(), "b": pl.String()}


def read(content: bytes, block: int = 1 << 20):
    blocks = [content[i : i + block] for i in range(0, len(content), block)]
    return list(read_csv(blocks, TYPES, "file"))


def rows(batches):
    return [row for batch in batches for row in batch.table.select(pl.all().cast(pl.String, strict=False)).rows()]


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None)  # a busy machine is no error
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), text.filter(str.strip)), min_size=1), st.integers(1, 200))
def test_the_size_of_blocks_and_pieces_does_not_show(table, block):
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("a", "b"), *table])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfile, "PIECE", 64)
        batches = read(file.getvalue().encode(), block)
    assert [batch.first for batch in batches] == [1 + sum(b.count for b in batches[:i]) for i in range(len(batches))]
    assert [(float(a), b) for a, b in rows(batches)] == table


def test_columns_may_come_in_any_order_with_a_mark_and_dos_lines():
    (batch,) = read("\ufeffb,a\r\nx,1\r\ny,2\r\n".encode())
    assert batch.table.to_dict(as_series=False) == {"b": ["x", "y"], "a": [1.0, 2.0]}


def test_records_that_are_none_are_set_aside_with_their_place():
    (batch,) = read(b"a,b\n1,x\n2,y,z\n\n3,\xff\n4\n5,v\n")
    assert rows([batch]) == [("1", "x"), ("5", "v")]
    assert batch.positions == [0, 4]
    assert [(one.position, one.text, one.reason) for one in batch.unreadable] == [
        (1, "2,y,z", "it has 3 cells, the header has 2"),
        (2, "3,\ufffd", "it is not text in UTF-8"),
        (3, "4", "it has 1 cells, the header has 2"),
    ]
    assert batch.count == 5


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_record_that_is_cut_short_is_not_taken_for_one_with_empty_cells(end):
    (batch,) = read(f'a,b\n1,"x, y"\n2,\n3{end}'.encode())
    assert rows([batch]) == [("1", "x, y"), ("2", "")]
    assert batch.unreadable[0].position == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file is not a CSV file: it has no header"),
        (b"\xff\xfe,b\n1,2\n", "file is not a CSV file: line 1 is not text in UTF-8"),
        (b"a,b\r1,2\r3,4\r", "file has a CR within line 1; its lines must end in LF or in CR LF"),
        (b"a,c\n1,2\n", "file lacks b and has unknown c column(s); the manifest describes a, b"),
        (b"a,b,a\n1,2,3\n", "file has more than once a column(s)"),
        (b'a,b\n1,x\n2,"y\n3,z\n', "a quote in line 3 or after it is never closed"),
    ],
)
def test_what_is_no_csv_file_of_these_columns_is_refused(content, said):
    with pytest.raises(PlatformError) as caught:
        read(content)
    assert said in str(caught.value)


def test_a_long_cell_is_read_whatever_else_is_in_its_piece():
    long = "x" * 200_000
    (batch,) = read(f"a,b\n1,{long}\n2\n3,z\n".encode())
    assert rows([batch]) == [("1", long), ("3", "z")]
    assert batch.unreadable[0].position == 1


def test_a_cell_that_is_too_long_is_told_with_its_row():
    limit = csv.field_size_limit(1000)
    try:
        with pytest.raises(PlatformError, match=r"file cannot be read from row 3 on: field larger than field limit"):
            read(b"a,b\n1,x\n2\n3," + b"x" * 2000 + b"\n")
    finally:
        csv.field_size_limit(limit)


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(csvfile, "PIECE", 100)
    monkeypatch.setattr(csvfile, "LONGEST", 1000)

    def endless():
        yield b'a,b\n1,"x\n'
        while True:
            yield b"2,y\n"

    with pytest.raises(PlatformError, match="never closed"):
        list(read_csv(endless(), TYPES, "file"))
