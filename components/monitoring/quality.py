"""What is wrong with rows beside a reference, however they are spread: columns and values that are absent or new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.components.monitoring.bins import NUMBERS, Column
from penstock.components.monitoring.measures import chi_squared


@dataclass(frozen=True)
class Issue:
    """Something wrong with a column.

    Attributes:
        kind: "absent", "type", "missing", "new_values" or "out_of_range".
        share: Of the rows that it concerns, 0 to 1.
        text: What was found, in words.
    """

    column: str
    kind: str
    share: float
    text: str


def absent(name: str) -> Issue:
    """Return the issue of a column that the reference has and the rows have not."""
    return Issue(name, "absent", 1.0, "the rows have no such column")


def mistyped(name: str, before: str, now: str) -> Issue:
    """Return the issue of a column that holds another kind of values than in the reference."""
    return Issue(name, "type", 1.0, f"it is of type {now}, in the reference {before}")


def issues(reference: Column, current: Column, tolerance: float, false_alarms: float) -> Iterator[Issue]:
    """Yield what is wrong with a column.

    Args:
        tolerance: Share of the rows that may be new, out of range, or missing beyond the reference's share.
        false_alarms: Level of the test of missing values.
    """
    before, now = (column.missing / column.rows if column.rows else 0.0 for column in (reference, current))
    if abs(now - before) > tolerance:
        chance = chi_squared((reference.missing, reference.values), (current.missing, current.values))
        if chance <= false_alarms:
            yield Issue(
                current.name,
                "missing",
                abs(now - before),
                f"{now:.1%} of the rows have no value, in the reference {before:.1%}",
            )
    if not current.values:
        return
    if reference.bins.kind == NUMBERS:
        yield from _out_of_range(reference, current, tolerance)
    elif current.known and (new := current.counts[-1] / current.values) > tolerance:
        named = ", ".join(repr(value) for value, _ in current.new)
        yield Issue(current.name, "new_values", new, f"{new:.1%} of the values are not in the reference: {named}")


def _out_of_range(reference: Column, current: Column, tolerance: float) -> Iterator[Issue]:
    outside = (current.counts[0] + current.counts[-1]) / current.values
    if reference.values and outside > tolerance:
        yield Issue(
            current.name,
            "out_of_range",
            outside,
            f"{outside:.1%} of the values lie outside {reference.least:g} to {reference.most:g}, "
            f"they reach from {current.least:g} to {current.most:g}",
        )
