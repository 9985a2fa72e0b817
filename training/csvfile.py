"""Reads CSV a piece at a time: fast where it is what it should be, and cell by cell where it is not."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import polars as pl

from contract.errors import PlatformError

PIECE = 16 * 2**20
LONGEST = 64 * 2**20
"""Bytes that one record may have; a quote that is never closed makes one of all that follows it."""


@dataclass(frozen=True)
class Unreadable:
    """A record that has no columns to hold against a schema."""

    position: int
    text: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a source.

    Attributes:
        origin: the file or database they come from.
        first: number of the first row in it; the row after the header of a CSV file is number 1.
        count: how many rows were read, those that were unreadable among them.
        table: the rows, but for the unreadable ones, as text or as the types that their source gave them.
        positions: of each row of the table its place in the batch, from 0; None if nothing was unreadable.
        unreadable: the others.
    """

    origin: str
    first: int
    count: int
    table: pl.DataFrame
    positions: list[int] | None = None
    unreadable: tuple[Unreadable, ...] = ()


def read_csv(blocks: Iterable[bytes], types: dict[str, pl.DataType], origin: str) -> Iterator[Batch]:
    """Read a CSV file in UTF-8 with a header, in memory that does not depend on its size.

    Args:
        blocks: the file's bytes, in pieces of any size.
        types: the columns that the header must have, in any order, and the type that their cells most likely have.
        origin: what to call the file in an error.

    Raises:
        PlatformError: if it has no header with these columns, or a quote in it is never closed.
    """
    pieces = _whole_records(blocks, origin)
    header, first = _header(next(pieces, b""), origin)
    check_columns(header, types, origin)
    schema = {name: types[name] for name in header}
    row = 1
    for piece in chain([first], pieces):
        batch = _parse(piece, schema, origin, row)
        if batch.count:
            yield batch
        row += batch.count


def check_columns(given: list[str], wanted: Iterable[str], origin: str) -> None:
    """Make sure that a source has the columns of the manifest, and no others.

    Raises:
        PlatformError: naming those that it lacks and those that it has too many.
    """
    wanted = list(wanted)
    missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    twice = sorted({name for name in given if given.count(name) > 1})
    wrong = (("lacks", missing), ("has unknown", unknown), ("has more than once", twice))
    if told := [f"{what} {_few(names)}" for what, names in wrong if names]:
        raise PlatformError(f"{origin} {' and '.join(told)} column(s); the manifest describes {_few(wanted)}")


def _whole_records(blocks: Iterable[bytes], origin: str) -> Iterator[bytes]:
    """Cut a file at ends of records; a line that ends within quotes does not end one."""
    rest, size, line = bytearray(), PIECE, 1
    for block in blocks:
        rest += block
        if len(rest) < size:
            continue
        if end := _last_end(rest):
            piece = bytes(rest[:end])
            del rest[:end]
            size = PIECE
            line += piece.count(b"\n")
            yield piece
        elif len(rest) > LONGEST:
            raise _open_quote(origin, line)
        else:
            size = len(rest) + PIECE
    if rest.count(b'"') % 2:
        raise _open_quote(origin, line + rest.count(b"\n", 0, _last_end(rest)))
    if rest:
        yield bytes(rest)


def _last_end(records: bytearray) -> int:
    inside = records.count(b'"') % 2
    end = len(records)
    while (newline := records.rfind(b"\n", 0, end)) >= 0:
        inside ^= records.count(b'"', newline, end) % 2
        if not inside:
            return newline + 1
        end = newline
    return 0


def _open_quote(origin: str, line: int) -> PlatformError:
    return PlatformError(f"{origin} is not a CSV file: a quote in line {line} or after it is never closed")


def _header(piece: bytes, origin: str) -> tuple[list[str], bytes]:
    """The names of the columns, and what follows them."""
    line, _, rest = piece.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    try:
        names = next(csv.reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        raise PlatformError(f"{origin} is not a CSV file: line 1 is not text in UTF-8") from None
    if not names:
        raise PlatformError(f"{origin} is not a CSV file: it has no header")
    return [name.strip() for name in names], rest


def _parse(piece: bytes, schema: dict[str, pl.DataType], origin: str, row: int) -> Batch:
    text: dict[str, pl.DataType] = dict.fromkeys(schema, pl.String())
    for attempt in (schema, text):
        try:
            table = pl.read_csv(piece, has_header=False, schema=attempt, raise_if_empty=False)
        except pl.exceptions.PolarsError:
            continue
        if _has_every_cell(piece, table):
            return Batch(origin, row, len(table), table)
    return _parse_slowly(piece, list(schema), origin, row)


def _has_every_cell(piece: bytes, table: pl.DataFrame) -> bool:
    """Tell a record that is cut short, whose missing cells polars takes for empty ones."""
    if not table[:, -1].null_count():
        return True
    return b'"' not in piece and piece.count(b",") == len(table) * (table.width - 1)


def _parse_slowly(piece: bytes, names: list[str], origin: str, row: int) -> Batch:
    """Read cell by cell, and set aside what has no place in a table."""
    cells, positions, unreadable, position = [], [], [], -1
    records = csv.reader(io.StringIO(piece.decode(errors="surrogateescape"), newline=""))
    for record in records:
        if not record:
            continue  # an empty line
        position += 1
        text = ",".join(record)
        if len(record) != len(names):
            reason = f"it has {len(record)} cells, the header has {len(names)}"
        elif not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
            reason = "it is not text in UTF-8"
        else:
            cells.append(record)
            positions.append(position)
            continue
        readable = text.encode(errors="surrogateescape").decode(errors="replace")
        unreadable.append(Unreadable(position, readable, reason))
    table = pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String), orient="row")
    return Batch(origin, row, position + 1, table, positions, tuple(unreadable))


def _few(names: list[str]) -> str:
    # Of binary data, the header can be anything, and long.
    shown = [name if name.isidentifier() else ascii(name[:40]) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
