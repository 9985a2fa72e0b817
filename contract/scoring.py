"""The `scoring` section of a manifest: a file whose rows the model answers in the cloud, on a schedule."""

import re

from pydantic import Field, field_validator

from contract.strict import Strict

SCORES = "scores"
"""Prefix of the curated bucket below which each model has a folder of its own with what it has answered."""

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
CRON: dict[str, tuple[int, int, tuple[str, ...], str]] = {
    "minutes": (0, 59, (), r"(?!)"),
    "hours": (0, 23, (), r"(?!)"),
    "day of the month": (1, 31, (), r"\?|L|LW|(\d|[12]\d|3[01])W"),
    "month": (1, 12, MONTHS, r"(?!)"),
    "day of the week": (1, 7, DAYS, r"\?|L|[1-7]L|[1-7]#[1-5]"),
    "year": (1970, 2199, (), r"(?!)"),
}
"""The fields of a cron expression: the least and greatest value, names for them, and what else may stand there.

As https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html has them.
"""
RATE = re.compile(r"rate\((1 (minute|hour|day)|(?!1 )[1-9]\d* (minutes|hours|days))\)")
INPUT = re.compile(r"([\w-][\w.=-]*/)*[\w-][\w.=-]*\.(csv|parquet)", re.ASCII)
"""A key that stands for itself wherever it is named: in a policy `*` and `?` would stand for more."""


class Scoring(Strict):
    """Scheduled batch inference: what is read, when, and what the job gets."""

    schedule: str = Field(description="cron(minutes hours day-of-month month day-of-week year), in UTC, or rate(1 day)")
    input: str = Field(description="key of a .csv or .parquet file in the curated bucket")
    vcpus: int = Field(default=1, ge=1, le=16)
    memory_gib: int = Field(default=4, ge=2, le=120)
    disk_gib: int = Field(default=20, ge=20, le=200, description="holds the output twice, and a Parquet input")
    hours: int = Field(default=2, ge=1, le=120, description="after which an attempt is stopped")

    @field_validator("schedule")
    @classmethod
    def _is_an_expression(cls, schedule: str) -> str:
        if RATE.fullmatch(schedule):
            return schedule
        if not (matched := re.fullmatch(r"cron\((.*)\)", schedule)):
            raise ValueError("a schedule is cron(0 3 * * ? *), in UTC, or rate(1 hour), rate(2 days)")
        given = matched[1].split()
        if len(given) != len(CRON):
            raise ValueError(f"cron has {len(CRON)} fields ({', '.join(CRON)})")
        for text, (name, field) in zip(given, CRON.items(), strict=True):
            if not _is_field(text, *field):
                names = f" or {field[2][0]} to {field[2][-1]}" if field[2] else ""
                raise ValueError(f"cron's {name} may be {field[0]} to {field[1]}{names}, not {text!r}")
        if (given[2] == "?") == (given[4] == "?"):
            raise ValueError("of cron's day of the month and day of the week exactly one is ?")
        return schedule

    @field_validator("input")
    @classmethod
    def _is_a_key(cls, key: str) -> str:
        if not INPUT.fullmatch(key):
            raise ValueError(
                "the input is the key of a .csv or .parquet file in the curated bucket, such as "
                "incoming/digits.parquet, of letters, digits and . _ - = /"
            )
        if key.startswith(f"{SCORES}/"):
            raise ValueError(f"{SCORES}/ is where the answers go; put the input elsewhere")
        return key


def _is_field(text: str, least: int, greatest: int, names: tuple[str, ...], special: str) -> bool:
    """Whether a field of a cron expression is one: values, ranges and steps, or what is special to it."""
    if re.fullmatch(special, text):
        return True
    values = {str(number): number for number in range(least, greatest + 1)}
    values |= {f"{number:02}": number for number in range(least, greatest + 1)}
    values |= {name: least + position for position, name in enumerate(names)}

    def is_part(part: str) -> bool:
        place, slash, step = part.partition("/")
        if slash and not re.fullmatch(r"[1-9]\d*", step):
            return False
        first, dash, last = place.partition("-")
        if not dash:
            return place == "*" or place in values
        return first in values and last in values and values[first] <= values[last]

    return all(is_part(part) for part in text.split(","))
