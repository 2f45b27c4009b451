"""What a request is refused with: a status, a kind that is counted, one line, and where the fault is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 20  # problems that an answer lists
LONGEST = 60  # characters of a value that an answer repeats


@dataclass(frozen=True)
class Problem:
    """A value that the model cannot read.

    Attributes:
        row: Its row in the request, counted from 0; None: all rows.
        field: Its column.
        text: What is wrong with it.
    """

    row: int | None
    field: str
    text: str

    def __str__(self) -> str:
        row = "" if self.row is None else f"row {self.row}, "
        return f"{row}field {self.field!r}: {self.text}"


class Refusal(Exception):
    """A request that is not answered with a prediction."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        problems: Sequence[Problem] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.problems, self.headers = tuple(problems), dict(headers)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body of the answer."""
        found: dict[str, Any] = {"error": self.message, "kind": self.kind, "request_id": request_id}
        if self.problems:
            found["problems"] = [
                {"row": each.row, "field": each.field, "problem": each.text} for each in self.problems[:SHOWN]
            ]
        return found


def malformed(message: str) -> Refusal:
    """Return the refusal of a request that is not of its protocol's form."""
    return Refusal(400, "malformed", message)


def invalid(problems: Sequence[Problem]) -> Refusal:
    """Return the refusal of rows that the model cannot read."""
    count = "more" if len(problems) > SHOWN else f"{len(problems) - 1} more"
    return Refusal(400, "invalid", f"{problems[0]}; and {count}" if len(problems) > 1 else str(problems[0]), problems)


def shown(value: Any) -> str:
    """Return a value as an error tells it, shortened; of arrays and objects only that they are such."""
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else ascii(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
