"""The schedules that EventBridge Scheduler takes are taken, and the others are refused with what is allowed."""

import pytest
from pydantic import ValidationError

from contract.scoring import Scoring


@pytest.mark.parametrize(
    "schedule",
    [
        "cron(0 3 * * ? *)",
        "cron(15 10 ? * 6L 2022-2023)",  # AWS's own example
        "cron(0/15 8-17 ? JAN-MAR,DEC MON-FRI *)",
        "cron(*/5 0 1,15 * ? *)",
        "cron(00 03 LW * ? *)",
        "cron(0 0 15W * ? *)",
        "cron(0 0 ? * 2#1 *)",
        "cron(0 0 L 2 ? 1970/4)",
        "rate(1 hour)",
        "rate(2 days)",
        "rate(15 minutes)",
    ],
)
def test_a_schedule_is_an_expression_of_the_scheduler(schedule):
    assert Scoring(schedule=schedule, input="in.csv").schedule == schedule


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("", "a schedule is cron"),
        ("daily", "a schedule is cron"),
        ("cron(0 3 * * ? *", "a schedule is cron"),
        ("rate(0 days)", "a schedule is cron"),
        ("rate(1 days)", "a schedule is cron"),
        ("rate(2 day)", "a schedule is cron"),
        ("rate(1 week)", "a schedule is cron"),
        ("at(2026-11-21T03:00:00)", "a schedule is cron"),
        ("cron(0 3 * * ?)", "cron has 6 fields (minutes, hours, day of the month, month, day of the week, year)"),
        ("cron(60 3 * * ? *)", "cron's minutes may be 0 to 59, not '60'"),
        ("cron(0 24 * * ? *)", "cron's hours may be 0 to 23, not '24'"),
        ("cron(0 3 0 * ? *)", "cron's day of the month may be 1 to 31, not '0'"),
        ("cron(0 3 * 13 ? *)", "cron's month may be 1 to 12 or JAN to DEC, not '13'"),
        ("cron(0 3 ? * 0 *)", "cron's day of the week may be 1 to 7 or SUN to SAT, not '0'"),
        ("cron(0 3 * * ? 26)", "cron's year may be 1970 to 2199, not '26'"),
        ("cron(? 3 * * ? *)", "cron's minutes may be 0 to 59, not '?'"),
        ("cron(5-1 3 * * ? *)", "not '5-1'"),
        ("cron(0/0 3 * * ? *)", "not '0/0'"),
        ("cron(0, 3 * * ? *)", "not '0,'"),
        ("cron(0 3 * * * *)", "exactly one is ?"),
        ("cron(0 3 ? * ? *)", "exactly one is ?"),
    ],
)
def test_what_the_scheduler_would_refuse_is_refused_at_once(schedule, said):
    with pytest.raises(ValidationError) as caught:
        Scoring(schedule=schedule, input="in.csv")
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["in.csv", "incoming/digits.parquet", "a/b=1/c-d_e.f.csv"])
def test_an_input_is_a_key(key):
    assert Scoring(schedule="rate(1 day)", input=key).input == key


@pytest.mark.parametrize(
    "key", ["", "in", "in.CSV", "/in.csv", "a//in.csv", "a/../in.csv", ".csv", "a/.csv", "a?.csv", "a b.csv", "ä.csv"]
)
def test_an_input_that_a_policy_would_read_otherwise_is_refused(key):
    with pytest.raises(ValidationError, match=r"the input is the key of a \.csv or \.parquet file"):
        Scoring(schedule="rate(1 day)", input=key)
