"""Times and lengths of time as users write them. All times are UTC, in microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from penstock.components._shared.errors import UserError
from penstock.components.features.problems import duration_problem

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def duration(text: str, component: str, argument: str) -> timedelta:
    """Return the length of time that a text such as "15m", "24h" or "7d" says.

    Raises:
        UserError: It says none.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})([mhd])", str(text).strip())
    if found is None:
        raise duration_problem(component, argument, text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def instant(text: str, component: str, argument: str) -> datetime | None:
    """Return the time that an ISO 8601 text says, in UTC; a text without a time zone is UTC, an empty one None.

    Raises:
        UserError: It is no such text.
    """
    if not text.strip():
        return None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UserError(
            component, argument, f"{text!r} is no time", "Write it as ISO 8601, for example 2019-01-01T12:00:00"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
