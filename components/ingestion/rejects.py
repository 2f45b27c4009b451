"""The bad rows: kept aside, counted, and refused when there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from penstock.components._shared.dataset import DatasetWriter
from penstock.components._shared.errors import UserError
from penstock.components.ingestion.problems import problem

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
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.count = 0
        self._most = most
        self._first: Reject | None = None
        self._writer = DatasetWriter(folder, SCHEMA)

    def add(self, rejects: Sequence[Reject]) -> None:
        """Keep bad rows.

        Raises:
            UserError: There are so many more than allowed that counting on is of no use.
        """
        if not rejects:
            return
        self._first = self._first or rejects[0]
        kept = rejects[: max(0, self._most - self.count)]
        self.count += len(rejects)
        if kept:
            rows = {name: [getattr(reject, name) for reject in kept] for name in SCHEMA.names}
            self._writer.write(pa.RecordBatch.from_pydict(rows, SCHEMA))
        if self.count > self._most + COUNTED:
            raise self._refusal(f"more than {self._most + COUNTED}", "")

    def check(self) -> None:
        """Refuse more bad rows than allowed.

        Raises:
            UserError: Naming their number and the first of them.
        """
        if self.count > self._most:
            raise self._refusal(str(self.count), f", put up with them by max_bad_rows={self.count}")

    def finish(self) -> None:
        """Write the manifest."""
        self._writer.finish()

    def _refusal(self, count: str, way_out: str) -> UserError:
        first = self._first
        assert first
        where = f"{first.file}:{first.line}" + (f", column {first.column}" if first.column else "")
        argument = "source"
        if NOT_UTF8 in first.reason:
            argument = "encoding"
            remedy = f"Give encoding='latin-1' if that is what {first.file} is, or mend it"
        else:
            remedy = f"Mend the source{way_out}"
            if first.column:
                remedy += f", or read the column as text by columns={{{first.column!r}: 'VARCHAR'}}"
        rows = "bad row" if count == "1" else "bad rows"
        what = f"{count} {rows}, {self._most} allowed by max_bad_rows; the first is {where}: {first.reason}"
        return problem(argument, what, remedy)
