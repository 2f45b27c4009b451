"""Times as the services write them."""

from __future__ import annotations

import datetime


def now() -> str:
    """Return the time."""
    return stamp(datetime.datetime.now(datetime.UTC))


def stamp(time: datetime.datetime) -> str:
    """Return a time in UTC, such as 2026-01-31T12:00:00.250000Z."""
    return time.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
