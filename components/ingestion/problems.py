"""The errors of ingest that a user can mend."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.components._shared.errors import UserError


def problem(argument: str, what: str, remedy: str) -> UserError:
    """Return the error of one argument of ingest."""
    return UserError("ingest", argument, what, remedy)


def listed(names: Iterable[str], most: int = 40) -> str:
    """Return names as a list for a message, shortened where there are very many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
