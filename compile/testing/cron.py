"""Cron expressions of schedules: what they mean, and when they are due next."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from dataclasses import dataclass

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_RANGES = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day of the month": (1, 31),
    "month": (1, 12),
    "day of the week": (0, 7),
}
_NAMES = {"month": {name: number for number, name in enumerate(_MONTHS, 1)}, "day of the week": dict(
    zip(_DAYS, range(7), strict=True)
)}  # fmt: skip
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")
_FURTHEST = 366 * 8  # days to look ahead: a 29th of February may be eight years away


@dataclass(frozen=True)
class Cron:
    """When something is due: the values that each part of a time may have, in a time zone."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: datetime.tzinfo

    @classmethod
    def parse(cls, text: str, *, seconds: bool = False) -> Cron:
        """Return what an expression means.

        Args:
            text: Five fields, from minute to day of the week, and a time zone before them or none, such as
                "TZ=Europe/Paris 0 9 * * *".
            seconds: Whether there is a field for seconds before the others, as in Kubeflow.

        Raises:
            ValueError: it means nothing; the message says which field.
        """
        zone: datetime.tzinfo = datetime.UTC
        rest = text.strip()
        if found := _ZONE.fullmatch(rest):
            try:
                zone = zoneinfo.ZoneInfo(found[1])
            except (zoneinfo.ZoneInfoNotFoundError, ValueError):
                raise ValueError(f"there is no time zone {found[1]}") from None
            rest = found[2]
        if rest in _SHORTHANDS:
            rest = ("0 " if seconds else "") + _SHORTHANDS[rest]
        fields = rest.split()
        names = list(_RANGES) if seconds else list(_RANGES)[1:]
        if len(fields) != len(names):
            raise ValueError(f"{text!r} has {len(fields)} fields; {', '.join(names)} make {len(names)}")
        values = {name: _values(name, field) for name, field in zip(names, fields, strict=True)}
        by_name = dict(zip(names, fields, strict=True))
        return cls(
            seconds=values.get("second", frozenset({0})),
            minutes=values["minute"],
            hours=values["hour"],
            days=values["day of the month"],
            months=values["month"],
            weekdays=frozenset(day % 7 for day in values["day of the week"]),
            any_day=by_name["day of the month"][0] in "*?",
            any_weekday=by_name["day of the week"][0] in "*?",
            zone=zone,
        )

    def next(self, after: datetime.datetime) -> datetime.datetime | None:
        """Return the first time after another at which it is due, in UTC; None: never."""
        local = after.astimezone(self.zone)
        day, first = local.date(), True
        for _ in range(_FURTHEST):
            if self._on(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        if first and (hour, minute) < (local.hour, local.minute):
                            continue
                        for second in sorted(self.seconds):
                            due = datetime.datetime.combine(day, datetime.time(hour, minute, second), self.zone)
                            # Compared in UTC: in spring some local times do not exist, in autumn some come twice.
                            if due.astimezone(datetime.UTC) > after:
                                return due.astimezone(datetime.UTC)
            day, first = day + datetime.timedelta(days=1), False
        return None

    def _on(self, day: datetime.date) -> bool:
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        # Where both are given, either will do.
        return by_month and by_week if self.any_day or self.any_weekday else by_month or by_week


def _values(name: str, field: str) -> frozenset[int]:
    low, high = _RANGES[name]
    found: set[int] = set()
    for part in field.split(","):
        text, slash, step_text = part.partition("/")
        if slash and not (step_text.isdigit() and int(step_text)):
            raise ValueError(f"{name}: {step_text!r} is no step")
        step = int(step_text) if slash else 1
        if text in ("*", "?"):
            start, end = low, high
        else:
            first, dash, last = text.partition("-")
            start = _number(name, first)
            end = _number(name, last) if dash else (high if slash else start)
            if end < start:
                raise ValueError(f"{name}: {text} ends before it begins")
        found.update(range(start, end + 1, step))
    return frozenset(found)


def _number(name: str, text: str) -> int:
    low, high = _RANGES[name]
    known = _NAMES.get(name, {})
    if text.upper() in known:
        return known[text.upper()]
    if not text.isdigit() or not low <= int(text) <= high:
        raise ValueError(f"{name}: {text!r} is not between {low} and {high}")
    return int(text)
