"""Keeps one schedule of a name on a platform, whatever was there before."""

from __future__ import annotations

import datetime
import re
from enum import StrEnum

from penstock.compile.errors import PenstockError
from penstock.compile.submission import Platform, RemoteSchedule, Schedule, Submission

_FIELD = re.compile(r"[0-9A-Za-z*/,\-]+")
_EVERY = re.compile(r"(?:(\d+)\s*)?(minute|hour|day|week|month)s?")
_ZONE = re.compile(r"(CRON_)?TZ=(\S+)\s+")


class Outcome(StrEnum):
    """What became of a wish for a schedule."""

    MADE = "made"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"


def ensure(
    platform: Platform, submission: Submission, schedule: Schedule, replace: bool
) -> tuple[RemoteSchedule, Outcome]:
    """Return the schedule of that name, made if need be; one that is there already, and the same, stays as it is.

    Args:
        replace: Whether another one of that name gives way. The new one is made first, so that none is missing.

    Raises:
        PenstockError: there is another one of that name.
    """
    wanted = schedule.request(submission)
    there = platform.schedules(schedule.name)
    # Labels are shorter than what they stand for.
    same = [each for each in there if each.request and wanted.startswith(each.request)]
    others = [each for each in there if each not in same[:1]]
    if others and not replace:
        listed = ", ".join(f"{each.id} ({each.cron or 'no cron expression'})" for each in others)
        raise PenstockError(
            f"there is another schedule {schedule.name}: {listed}; give --replace to put this one in its place, or "
            "another --name"
        )
    kept = same[0] if same else platform.create_schedule(submission, schedule)
    for each in others:
        if each.id != kept.id:  # where names are ids, the new one has taken its place
            platform.delete_schedule(each.id)
    return kept, Outcome.REPLACED if others else Outcome.UNCHANGED if same else Outcome.MADE


def one(platform: Platform, name: str) -> RemoteSchedule:
    """Return the schedule of that name or id.

    Raises:
        PenstockError: there is none, or more than one.
    """
    there = platform.schedules()
    found = [each for each in there if name in (each.id, each.name)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(each.id for each in found)
        raise PenstockError(f"there are {len(found)} schedules {name}; give the id of one: {ids}")
    names = ", ".join(sorted({each.name for each in there})) or "none"
    raise PenstockError(f"there is no schedule {name}; there are {names}")


def zone(cron: str) -> str:
    """Return the time zone that a cron expression begins with; empty where it has none."""
    found = _ZONE.match(cron)
    return found[2] if found else ""


def checked_cron(text: str) -> str:
    """Return a cron expression, its blanks made single.

    Raises:
        PenstockError: it does not have five fields.
    """
    prefix = _ZONE.match(text)
    fields = text[prefix.end() if prefix else 0 :].split()
    if len(fields) != 5 or not all(_FIELD.fullmatch(field) for field in fields):
        raise PenstockError(
            f"--cron {text!r}: give minute, hour, day of the month, month and day of the week, such as '30 6 * * 1-5'"
        )
    return f"{prefix[0].strip()} {' '.join(fields)}" if prefix else " ".join(fields)


def checked_every(text: str | None) -> str:
    """Return how often something recurs, its blanks made single; empty where that is not said.

    Raises:
        PenstockError: it is no number and no unit of time.
    """
    if text is None:
        return ""
    found = _EVERY.fullmatch(text.strip().lower())
    if found is None or int(found[1] or 1) < 1:
        raise PenstockError(
            f"--every {text!r}: give a number and minutes, hours, days, weeks or months, as in '2 weeks'"
        )
    number = int(found[1] or 1)
    return f"{number} {found[2]}{'' if number == 1 else 's'}"


def checked_time(text: str | None, option: str) -> str | None:
    """Return a time in UTC as the platforms read it.

    Raises:
        PenstockError: it is no time, or in no time zone.
    """
    if text is None:
        return None
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise PenstockError(f"--{option} {text}: give a time and its zone, such as 2027-01-01T06:00:00Z or …+01:00")
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
