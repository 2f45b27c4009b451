"""Parquet files, read as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared.engine import literal
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.sources import File


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files; a column that a file lacks is null in its rows."""

    files: tuple[File, ...]

    def relation(self, bare: bool = False) -> str:
        """Return the SQL of the rows of all files, in order, bare or not."""
        paths = literal(str(file.path) for file in self.files)
        return f"SELECT * FROM read_parquet({paths}, union_by_name = true, hive_partitioning = false)"

    def only(self, number: int) -> ParquetFiles:
        """Return these files without the others."""
        return replace(self, files=(self.files[number],))


def open_parquet(files: Sequence[File], given: dict[str, str]) -> ParquetFiles:
    """Check the footers and return the files.

    Raises:
        UserError: One is no whole Parquet file, none has a row, or types are given.
    """
    if given:
        raise problem("columns", "Parquet files bring their own types", "Leave columns empty, and cast in query")
    rows = 0
    for file in files:
        try:
            rows += pq.read_metadata(file.path).num_rows
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise problem(
                "source", f"{file.name} is no whole Parquet file ({reason})", "Write or fetch it again"
            ) from None
    if rows == 0:
        raise problem("source", "the files have columns but no rows", "Give files with rows")
    return ParquetFiles(tuple(files))
