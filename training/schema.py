"""The schema of a model's data at work: turns what was read into typed columns, and says why a row does not fit."""

from collections.abc import Mapping

import polars as pl

from contract.data import Column

TYPES: Mapping[str, pl.DataType] = {
    "float": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "text": pl.String(),
    "time": pl.Datetime("us"),
}
KINDS = {"float": "a finite number", "integer": "a whole number", "boolean": "true or false", "text": "text"}
TRUE, FALSE = ["true", "t", "yes", "y", "1"], ["false", "f", "no", "n", "0"]
POSITION, REASON = "_position", "_reason"
SHOWN = 40  # characters of a value that does not fit


def fit(table: pl.DataFrame, columns: Mapping[str, Column]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide rows by whether they fit a schema.

    Args:
        table: has all the columns, as text or as whatever type its source gave them.
        columns: what is allowed in each.

    Returns:
        The rows that fit, with the types of the schema and its order of columns; and the others as they came, with
        their position in the table and the reason why they do not fit.
    """
    typed, reasons = check(table, columns)
    fits, raw = reasons.is_null(), table.select(columns.keys())
    if fits.all():
        return typed, raw.clear().with_columns(pl.lit(0).alias(POSITION), pl.lit("").alias(REASON))
    positions = (~fits).arg_true().alias(POSITION)
    said = reasons.gather(positions).alias(REASON)
    return typed.filter(fits), raw.filter(~fits).with_columns(positions, said)


def check(table: pl.DataFrame, columns: Mapping[str, Column]) -> tuple[pl.DataFrame, pl.Series]:
    """Give rows the types of a schema, and find those that do not fit it.

    Args:
        table: as for `fit`.
        columns: what is allowed in each.

    Returns:
        All the rows with the types of the schema, null where a value has none in its type; and for each of them the
        reason why it does not fit, null if it does.
    """
    raw = table.select(columns.keys())
    typed = raw.select(_typed(name, column, raw.schema[name]).alias(name) for name, column in columns.items())
    both = pl.concat([raw.rename(_raw), typed], how="horizontal")
    fits = {name: _fits(name, column, raw.schema[name]) for name, column in columns.items()}
    whole = both.select(pl.all_horizontal(fits.values())).to_series()
    said = pl.Series(REASON, [None], dtype=pl.String).new_from_index(0, len(table))
    if not whole.all():
        reasons = [
            pl.when(~fits[name]).then(_reason(name, column, raw.schema[name])) for name, column in columns.items()
        ]
        said = said.scatter((~whole).arg_true(), both.filter(~whole).select(pl.coalesce(reasons)).to_series())
    return typed, said


def allowed(column: Column) -> str:
    """What a column may hold, in words."""
    if column.categories:
        return "one of " + ", ".join(column.categories[:10]) + (" ..." if len(column.categories) > 10 else "")
    kind = KINDS.get(column.type, "a time in ISO 8601")
    if column.min is not None and column.max is not None:
        return f"{kind} from {column.min:g} to {column.max:g}"
    bounds = {"at least": column.min, "at most": column.max}
    return kind + "".join(f" of {word} {bound:g}" for word, bound in bounds.items() if bound is not None)


def _raw(name: str) -> str:
    return f"{name} as it came"


def _is_text(dtype: pl.DataType) -> bool:
    return dtype == pl.String


def _typed(name: str, column: Column, dtype: pl.DataType) -> pl.Expr:
    """The value in the type of the schema; null if there is none, or it has none in that type."""
    cell = pl.col(name)
    if dtype.is_nested() or dtype.is_(pl.Binary) or dtype.is_(pl.Object):
        return _nothing(column)
    if _is_text(dtype) and column.type != "text":
        cell = cell.str.strip_chars()
    if column.type == "time":
        return _time(cell, dtype)
    if column.type in ("float", "integer") and dtype.is_temporal():
        return _nothing(column)  # polars would count from 1970
    if column.type == "float":
        number = cell.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number + 0.0)  # which makes 0.0 of -0.0: equal values are one
    if column.type == "integer":
        number = cell.cast(pl.Float64, strict=False)  # 5.0 is what many programs write for 5
        rounded = pl.when(number.is_finite() & (number == number.round())).then(number).cast(pl.Int64, strict=False)
        return (
            pl.coalesce(cell.cast(pl.Int64, strict=False), rounded)
            if _is_text(dtype)
            else (cell.cast(pl.Int64, strict=False) if dtype.is_integer() else rounded)
        )
    if column.type == "boolean":
        word = cell.cast(pl.String, strict=False).str.to_lowercase()
        return pl.when(word.is_in(TRUE)).then(True).when(word.is_in(FALSE)).then(False)
    text = cell.cast(pl.String, strict=False)
    return pl.when(text != "").then(text)


def _nothing(column: Column) -> pl.Expr:
    return pl.repeat(None, pl.len(), dtype=TYPES[column.type])


def _time(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A moment in UTC, which the type does not say; text without a zone is taken for UTC."""
    if isinstance(dtype, pl.Datetime):
        moment = cell.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else cell
        return moment.cast(TYPES["time"])
    if dtype == pl.Date:
        return cell.cast(TYPES["time"])
    if not _is_text(dtype):
        return pl.repeat(None, pl.len(), dtype=TYPES["time"])
    # PostgreSQL writes a blank for the T, and of a zone the hours only.
    text = cell.str.replace(" ", "T", literal=True).str.replace("[zZ]$", "+00:00")
    text = text.str.replace(r"(:\d\d(?:\.\d+)?[+-]\d\d)$", "${1}:00")
    day = text.str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
    plain = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    zoned = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)
    return pl.coalesce(plain, zoned.dt.replace_time_zone(None), day)


def _given(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether there is a value at all: null and empty text are none, nor is the NaN that pandas writes for one."""
    cell = pl.col(_raw(name))
    if _is_text(dtype):
        return cell.is_not_null() & (cell.str.strip_chars() != "")
    return cell.is_not_null() & cell.is_not_nan() if dtype.is_float() else cell.is_not_null()


def _fits(name: str, column: Column, dtype: pl.DataType) -> pl.Expr:
    cell = pl.col(name)
    within = cell.is_not_null()
    if column.categories:
        within &= cell.is_in(column.categories)
    if column.min is not None:
        within &= cell >= column.min
    if column.max is not None:
        within &= cell <= column.max
    return pl.when(_given(name, dtype)).then(within.fill_null(False)).otherwise(column.nullable)


def _reason(name: str, column: Column, dtype: pl.DataType) -> pl.Expr:
    raw = pl.col(_raw(name))
    shown = (
        pl.repeat(None, pl.len(), dtype=pl.String)
        if dtype.is_nested() or dtype.is_(pl.Binary)
        else raw.cast(pl.String, strict=False)
    )
    quote = "'" if _is_text(dtype) else ""
    wrong = pl.concat_str(
        pl.lit(f"column {name}: {quote}"),
        shown.str.head(SHOWN).fill_null(str(dtype)),
        pl.lit(f"{quote} is not {allowed(column)}"),
    )
    return pl.when(_given(name, dtype)).then(wrong).otherwise(pl.lit(f"column {name}: it is empty"))
