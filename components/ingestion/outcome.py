"""What is said of the rows in the end, or why they are refused."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import RowDigest
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.split import Split


@dataclass(frozen=True)
class Ingested:
    """What came out.

    Attributes:
        fingerprint: Of the rows of both sets together, whatever their order.
    """

    fingerprint: str
    train_rows: int
    eval_rows: int
    bad_rows: int


def check(rows: int, eval_rows: int, split: Split, query: str, bad: int, timeless: int) -> None:
    """Refuse rows that have no time to split by, and a set without rows.

    Args:
        rows: For training.
        bad: Rows that were kept aside.
        timeless: Rows without a time.

    Raises:
        UserError: See above.
    """
    if timeless:
        remedy = f"Leave them out by a query with WHERE {split.time_column} IS NOT NULL"
        raise problem("time_column", f"{split.time_column} is null in {timeless} rows", remedy)
    if not rows or not (eval_rows or split.eval_may_be_empty):
        raise _empty(rows, eval_rows, split, query, bad)


def outcome(train: RowDigest, eval_: RowDigest, schema: pa.Schema, bad: int) -> Ingested:
    """Return what is told of datasets with these rows."""
    return Ingested((train + eval_).fingerprint(schema), train.rows, eval_.rows, bad)


def _empty(rows: int, eval_rows: int, split: Split, query: str, bad: int) -> UserError:
    if not rows and not eval_rows:
        if query.strip():
            return problem("query", "the result has no rows", "Check its WHERE")
        return problem("source", f"there is no good row, and {bad} bad ones", "Mend the source")
    which = "eval_set" if rows else "train_set"
    if split.cut:
        side = "at or after" if rows else "before"
        return problem(
            "eval_from", f"no row is {side} {split.cut}, so {which} is empty", "Choose a time within the data"
        )
    keys = f", and only {' and '.join(split.keys)} decide" if split.keys else ""
    what = f"of {rows + eval_rows} rows none falls to {which}{keys}"
    return problem("eval_fraction", what, "Bring more rows, or give another share (0 for no eval_set)")
