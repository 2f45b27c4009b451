"""When schedules are due."""

import datetime
import itertools

import pytest

from penstock.testing.cron import Cron

START = datetime.datetime(2026, 1, 30, 12, 0, tzinfo=datetime.UTC)  # a Friday


def due(text, count=3, after=START, **settings):
    found = []
    for _ in itertools.repeat(None, count):
        after = Cron.parse(text, **settings).next(after)
        found.append(f"{after:%a %d %b %H:%M:%S}")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/20 * * * *", ["Fri 30 Jan 12:20:00", "Fri 30 Jan 12:40:00", "Fri 30 Jan 13:00:00"]),
        ("0 9 * * 1-5", ["Mon 02 Feb 09:00:00", "Tue 03 Feb 09:00:00", "Wed 04 Feb 09:00:00"]),
        ("30 8,20 1 * *", ["Sun 01 Feb 08:30:00", "Sun 01 Feb 20:30:00", "Sun 01 Mar 08:30:00"]),
        ("0 0 31 * *", ["Sat 31 Jan 00:00:00", "Tue 31 Mar 00:00:00", "Sun 31 May 00:00:00"]),
        ("0 0 13 * FRI", ["Fri 06 Feb 00:00:00", "Fri 13 Feb 00:00:00", "Fri 20 Feb 00:00:00"]),
        ("0 0 * * 7", ["Sun 01 Feb 00:00:00", "Sun 08 Feb 00:00:00", "Sun 15 Feb 00:00:00"]),
        ("TZ=Asia/Tokyo 0 9 * * *", ["Sat 31 Jan 00:00:00", "Sun 01 Feb 00:00:00", "Mon 02 Feb 00:00:00"]),
        ("@daily", ["Sat 31 Jan 00:00:00", "Sun 01 Feb 00:00:00", "Mon 02 Feb 00:00:00"]),
    ],
)
def test_an_expression_is_due_when_it_says(text, expected):
    assert due(text) == expected


def test_seconds_are_a_field_of_their_own_where_asked_for():
    assert due("*/30 59 23 ? * MON", 2, seconds=True) == ["Mon 02 Feb 23:59:00", "Mon 02 Feb 23:59:30"]


def test_clocks_that_change_neither_skip_a_day_nor_stop():
    text, spring = "CRON_TZ=Europe/Berlin 0 9 * * *", datetime.datetime(2026, 3, 28, 12, tzinfo=datetime.UTC)
    assert due(text, 2, spring) == ["Sun 29 Mar 07:00:00", "Mon 30 Mar 07:00:00"]
    autumn = datetime.datetime(2026, 10, 24, 12, tzinfo=datetime.UTC)
    assert due(text, 2, autumn) == ["Sun 25 Oct 08:00:00", "Mon 26 Oct 08:00:00"]


def test_what_never_comes_is_never_due():
    assert Cron.parse("0 0 30 2 *").next(START) is None
    assert Cron.parse("0 0 29 2 *").next(START) == datetime.datetime(2028, 2, 29, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("* * * *", "has 4 fields"),
        ("61 * * * *", "minute: '61' is not between 0 and 59"),
        ("* * 0 * *", "day of the month: '0'"),
        ("* * * JUX *", "month: 'JUX'"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "'0' is no step"),
        ("TZ=Mars/Olympus * * * * *", "no time zone Mars/Olympus"),
    ],
)
def test_what_is_no_expression_says_why(text, message):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        Cron.parse(text)
