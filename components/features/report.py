"""What the components of this stage tell of their work, as Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.components.features.retrieve import Retrieved
from penstock.components.features.serving import Checked
from penstock.components.features.sync import Synced

MOST_CHANGES = 50  # parameters of one run together have 10,000 bytes


def write(path: str | os.PathLike[str], title: str, lines: Iterable[str]) -> None:
    """Write a page, as a whole."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.write_text("\n".join([f"# {title}", "", *lines, ""]), encoding="utf-8")
    unfinished.replace(target)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table."""
    head = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    return [*head, *(f"| {' | '.join(shown(cell) for cell in row)} |" for row in rows)]


def shown(value: object) -> str:
    """Return a value as people read it."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|")


def of_sync(result: Synced) -> list[str]:
    """Return what a run of sync_features changed."""
    lines = ["## Definitions", "", *(f"- {change}" for change in result.changes)]
    if not result.changes:
        lines.append("No change.")
    lines += ["", "## Rows", "", f"{result.added:,} rows were added to the offline store."]
    if result.newest:
        lines.append(f"The newest is of {shown(result.newest)}, {result.age:,.0f} seconds old.")
    if result.resumed:
        lines.append("Rows of an earlier run, which was interrupted, went online now.")
    lines += ["", "## Online", ""]
    rows = [(name, max(done.rows, 0), done.start, done.end) for name, done in result.materialized.items()]
    lines += table(["feature view", "entities written", "rows from", "to"], rows) if rows else ["Up to date."]
    return [*lines, "", f"{result.verified:,} values were held to the offline store, and are the same."]


def of_retrieve(result: Retrieved) -> list[str]:
    """Return how complete a training set is."""
    share = result.incomplete / result.rows if result.rows else 0
    counts = [(name, count, f"{count / result.rows:.1%}") for name, count in result.missing.items()]
    return [
        f"{result.rows:,} rows, each with the features that were known at its time; "
        f"{result.incomplete:,} ({share:.1%}) lack at least one.",
        "",
        *table(["feature", "rows without a value", "share"], counts),
        "",
        "A value is missing where no feature row was known at that time, where it was older than the TTL of its "
        "feature view, or where it is null itself.",
    ]


def of_check(result: Checked) -> list[str]:
    """Return what was compared of training and serving."""
    return [
        f"{result.repeated:,} values of the training set, retrieved again, are the same.",
        f"{result.values:,} values that the online store returned for {result.entities:,} of its entities are those "
        "that a training set has at the same time.",
        f"{result.expired:,} more were older than the TTL of their feature view, and not compared.",
    ]


def summary(result: Synced) -> tuple[Any, ...]:
    """Return the output parameters of sync_features."""
    changes = [str(change) for change in result.changes]
    if len(changes) > MOST_CHANGES:
        changes = [*changes[: MOST_CHANGES - 1], f"and {len(changes) - MOST_CHANGES + 1} more"]
    return (
        changes,
        result.added,
        sum(max(done.rows, 0) for done in result.materialized.values()),
        result.verified,
        result.first.isoformat() if result.first else "",
        result.newest.isoformat() if result.newest else "",
        result.age,
    )
