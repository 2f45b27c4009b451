"""The errors of this stage that a user can mend."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.components._shared.errors import UserError


def listed(names: Iterable[object], most: int = 20) -> str:
    """Return names as a list for a message, shortened where there are very many."""
    known = [str(name) for name in names]
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "") or "none"


def duration_problem(component: str, argument: str, text: object) -> UserError:
    """Return the error of a text that is no length of time."""
    return UserError(component, argument, f"{text!r} is no length of time", "Write for example 15m, 1h, 24h or 7d")
