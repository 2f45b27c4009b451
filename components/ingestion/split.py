"""Which rows are for training and which for evaluation: by a stable hash of columns, or by time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from penstock.components._shared.arrow import truths, values_of
from penstock.components._shared.rowhash import row_hashes
from penstock.components.ingestion.problems import listed, problem

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Split:
    """How rows are split.

    By hash, a row is for evaluation if the hash of its key columns (see rowhash) is below eval_fraction * 2**64: it
    stays there when rows are added, when other columns change, and on any machine.
    """

    keys: tuple[str, ...]
    fraction: float
    time_column: str
    cut: datetime | None

    @property
    def eval_may_be_empty(self) -> bool:
        """Whether no row for evaluation was asked for."""
        return self.cut is None and self.fraction == 0

    def check(self, schema: pa.Schema, of: str) -> None:
        """Refuse columns that the result does not have, and a time column that holds no times.

        Args:
            of: What has the columns, for the message.

        Raises:
            UserError: See above.
        """
        arguments = [("split_keys", name) for name in self.keys]
        arguments += [("time_column", self.time_column)] if self.time_column else []
        for argument, name in arguments:
            if name not in schema.names:
                raise problem(
                    argument, f"there is no column {name!r}", f"The columns of {of} are {listed(schema.names)}"
                )
        if self.cut is None:
            return
        kind = schema.field(self.time_column).type
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            raise problem(
                "time_column", f"{self.time_column} is {kind}, not a time", "Make it a TIMESTAMP in columns or query"
            )
        if self.cut.tzinfo and not getattr(kind, "tz", None):
            raise problem("eval_from", f"has a time zone, and {self.time_column} has none", "Leave the zone out")

    def is_eval(self, batch: pa.RecordBatch, hashes: np.ndarray) -> np.ndarray:
        """Return for every row whether it is for evaluation; a null time is not.

        Args:
            batch: Rows.
            hashes: row_hashes(batch).
        """
        if self.cut is not None:
            column = batch.column(self.time_column)
            at = self.cut if self.cut.tzinfo else self.cut.replace(tzinfo=UTC)
            micros = (at - _EPOCH) // timedelta(microseconds=1)
            times = column.cast(pa.timestamp("us", getattr(column.type, "tz", None))).cast(pa.int64())
            later: np.ndarray = values_of(times, np.int64) >= micros
            return later & truths(times.is_valid())
        if self.keys:
            hashes = row_hashes(batch, self.keys)
        return hashes < np.uint64(int(self.fraction * 2**64))

    def null_times(self, batch: pa.RecordBatch) -> int:
        """Return how many rows have no time to split by."""
        return batch.column(self.time_column).null_count if self.cut is not None else 0


def plan(split_keys: Sequence[str], eval_fraction: float, time_column: str, eval_from: str) -> Split:
    """Return the split that the arguments describe.

    Raises:
        UserError: They do not describe one.
    """
    if isinstance(eval_fraction, bool) or not isinstance(eval_fraction, int | float) or not 0 <= eval_fraction < 1:
        shown = "NaN" if isinstance(eval_fraction, float) and math.isnan(eval_fraction) else repr(eval_fraction)
        raise problem(
            "eval_fraction", f"{shown} is no share of the rows", "Give a number from 0 to below 1; 0 for no eval_set"
        )
    if time_column and not eval_from:
        raise problem("eval_from", "is missing beside time_column", "Give the first time of eval_set, like 2019-01-01")
    if eval_from and not time_column:
        raise problem("time_column", "is missing beside eval_from", "Name the column that holds the times")
    if time_column and split_keys:
        raise problem("split_keys", "means nothing beside time_column", "Leave one of the two empty")
    cut = None
    if eval_from:
        try:
            cut = datetime.fromisoformat(eval_from)
        except ValueError:
            raise problem(
                "eval_from", f"{eval_from!r} is no ISO 8601 time", "Give it like 2019-01-01 or 2019-01-01T12:00:00"
            ) from None
    return Split(tuple(dict.fromkeys(split_keys)), float(eval_fraction), time_column, cut)
