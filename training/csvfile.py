"""Reads CSV a piece at a time: fast where it is what it should be, and cell by cell where it is not."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import polars as pl

from contract.errors import PlatformError

PIECE = 16 * 2**20
LONGEST = 64 * 2**20
"""Bytes that one record may have; a quote that is never closed makes one of all that follows it."""
csv.field_size_limit(LONGEST + PIECE)  # the module's own, 128 KiB, is too little: no cell is longer than its record


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
        size: bytes of the file that it takes up, if it comes from one that is read from front to back.
    """

    origin: str
    first: int
    count: int
    table: pl.DataFrame
    positions: list[int] | None = None
    unreadable: tuple[Unreadable, ...] = ()
    size: int = 0


def read_csv(blocks: Iterable[bytes], types: dict[str, pl.DataType], origin: str) -> Iterator[Batch]:
    """Read a CSV file in UTF-8 with a header, in memory that does not depend on its size.

    Args:
        blocks: the file's bytes, in pieces of any size.
        types: the columns that the header must have, in any order, and the type that their cells most likely have.
        origin: what to call the file in an error.

    Raises:
        PlatformError: if it has no header with these columns, or a quote in it is never closed.
    """
    header = read_header(blocks, origin)
    check_columns(header.names, types, origin)
    yield from read_records(header.rest, {name: types[name] for name in header.names}, origin)


@dataclass(frozen=True)
class Header:
    """The first line of a CSV file.

    Attributes:
        names: of the columns.
        size: of the line, in bytes.
        rest: what follows it, in pieces.
    """

    names: list[str]
    size: int
    rest: Iterator[bytes]


def read_header(blocks: Iterable[bytes], origin: str) -> Header:
    """Read the first line of a CSV file.

    Raises:
        PlatformError: if it has none.
    """
    blocks, start = iter(blocks), bytearray()
    while b"\n" not in start and len(start) < LONGEST and (block := next(blocks, b"")):
        start += block
    line, newline, rest = bytes(start).partition(b"\n")
    try:
        names = next(csv.reader([line.removeprefix(b"\xef\xbb\xbf").decode()]), [])
    except UnicodeDecodeError:
        raise PlatformError(f"{origin} is not a CSV file: line 1 is not text in UTF-8") from None
    except csv.Error:  # it minds nothing else in text
        raise PlatformError(f"{origin} has a CR within line 1; its lines must end in LF or in CR LF") from None
    if not names:
        raise PlatformError(f"{origin} is not a CSV file: it has no header")
    return Header([name.strip() for name in names], len(line + newline), chain([rest], blocks))


def read_records(blocks: Iterable[bytes], schema: dict[str, pl.DataType], origin: str, row: int = 1) -> Iterator[Batch]:
    """Read the records of a CSV file, from the first or from the end of any batch.

    A batch's end depends on its start alone, so that reading on gives the same batches as reading all at once.

    Args:
        blocks: the bytes after the header, or after a batch.
        schema: the columns as the header has them, with the type that their cells most likely have.
        origin: what to call the file in an error.
        row: number of the first record.

    Raises:
        PlatformError: if a quote is never closed, or a cell is too long.
    """
    size = 0
    for piece in _whole_records(blocks, origin):
        batch = _parse(piece, schema, origin, row)
        size += len(piece)
        if batch.count:
            yield replace(batch, size=size)
            size = 0
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
    if told := [f"{what} {few(names)}" for what, names in wrong if names]:
        raise PlatformError(f"{origin} {' and '.join(told)} column(s); the manifest describes {few(wanted)}")


def _whole_records(blocks: Iterable[bytes], origin: str) -> Iterator[bytes]:
    """Cut a file at ends of records; a line that ends within quotes does not end one."""
    rest, size, line = bytearray(), PIECE, 2
    for block in blocks:
        rest += block
        while len(rest) >= size:
            if end := _last_end(rest, size):
                piece = bytes(rest[:end])
                del rest[:end]
                size = PIECE
                line += piece.count(b"\n")
                yield piece
            elif len(rest) > LONGEST:
                raise _open_quote(origin, line)
            else:
                size += PIECE
    if rest.count(b'"') % 2:
        raise _open_quote(origin, line + rest.count(b"\n", 0, _last_end(rest, len(rest))))
    if rest:
        yield bytes(rest)


def _last_end(records: bytearray, end: int) -> int:
    """Where the last record ends within the first `end` bytes; 0 if none does."""
    inside = records.count(b'"', 0, end) % 2
    while (newline := records.rfind(b"\n", 0, end)) >= 0:
        inside ^= records.count(b'"', newline, end) % 2
        if not inside:
            return newline + 1
        end = newline
    return 0


def _open_quote(origin: str, line: int) -> PlatformError:
    return PlatformError(f"{origin} is not a CSV file: a quote in line {line} or after it is never closed")


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
    try:
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
    except csv.Error as error:
        raise PlatformError(f"{origin} cannot be read from row {row + position + 1} on: {error}") from None
    table = pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String), orient="row")
    return Batch(origin, row, position + 1, table, positions, tuple(unreadable))


def few(names: list[str]) -> str:
    """The first five of these names, and how many more there are."""
    # Of binary data, the header can be anything, and long.
    shown = [name if name.isidentifier() else ascii(name[:40]) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
