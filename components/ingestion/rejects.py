"""The bad rows: kept aside, counted, and refused when there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from penstock.components._shared.dataset import DatasetWriter
from penstock.components._shared.errors import UserError

SCHEMA = pa.schema(
    {"file": pa.string(), "line": pa.int64(), "column": pa.string(), "reason": pa.string(), "text": pa.string()}
)
COUNTED = 10_000  # bad rows beyond those allowed that are still counted
NOT_UTF8 = "is not utf-8"


@dataclass(frozen=True)
class Reject:
    """A bad row.

    Attributes:
        file: Name of the file, as the user knows it.
        line: Number of its first line, from 1.
        column: Column whose value is wrong; None where the form of the row is.
        text: The row as it stands in the file, what is not UTF-8 as \\xNN.
    """

    file: str
    line: int
    column: str | None
    reason: str
    text: str


class Rejects:
    """The rejects dataset while it is written.

    Attributes:
        count: Bad rows so far.
        first: The first of them.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.count = 0
        self.first: Reject | None = None
        self.writer = DatasetWriter(folder, SCHEMA)
        self._most = most

    def add(self, rejects: Sequence[Reject]) -> None:
        """Keep bad rows.

        Raises:
            TooMany: There are so many more than allowed that counting on is of no use.
        """
        if not rejects:
            return
        self.first = self.first or rejects[0]
        kept = rejects[: max(0, self._most - self.count)]
        self.count += len(rejects)
        if kept:
            rows = {name: [getattr(reject, name) for reject in kept] for name in SCHEMA.names}
            self.writer.write(pa.RecordBatch.from_pydict(rows, SCHEMA))
        if self.count > self._most + COUNTED:
            raise too_many(self.count, self._most, self.first)

    def check(self) -> None:
        """Refuse more bad rows than allowed.

        Raises:
            TooMany: Naming their number and the first of them.
        """
        if self.first and self.count > self._most:
            raise too_many(self.count, self._most, self.first)


class TooMany(UserError):
    """There are more bad rows than are put up with."""


def too_many(count: int, most: int, first: Reject) -> TooMany:
    """Return the refusal of so many bad rows."""
    counted = count <= most + COUNTED
    where = f"{first.file}:{first.line}" + (f", column {first.column}" if first.column else "")
    argument = "source"
    if NOT_UTF8 in first.reason:
        argument = "encoding"
        remedy = f"Give encoding='latin-1' if that is what {first.file} is, or mend it"
    else:
        remedy = "Mend the source" + (f", put up with them by max_bad_rows={count}" if counted else "")
        if first.column:
            remedy += f", or read the column as text by columns={{{first.column!r}: 'VARCHAR'}}"
    shown = str(count) if counted else f"more than {most + COUNTED}"
    rows = "bad row" if shown == "1" else "bad rows"
    what = f"{shown} {rows}, {most} allowed by max_bad_rows; the first is {where}: {first.reason}"
    return TooMany("ingest", argument, what, remedy)
