"""Parquet files, read as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared.engine import identifier, literal
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.sources import File

Types = tuple[tuple[str, str], ...]  # SQL type by the name of a column


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files; a column that a file lacks is null in its rows.

    Attributes:
        own: Columns of these files, where they are some of several.
        columns: Columns of all files together.
        piece: The rows of the one file, from one place to another; None: all.
    """

    files: tuple[File, ...]
    own: Types = ()
    columns: Types = ()
    piece: tuple[int, int] | None = None

    def relation(self, bare: bool = False) -> str:
        """Return the SQL of the rows of all files, in order, bare or not."""
        paths = literal(str(file.path) for file in self.files)
        rows = f"read_parquet({paths}, union_by_name = true, hive_partitioning = false)"
        if self.piece:
            first, behind = self.piece
            # By these numbers DuckDB leaves out row groups. The limit, which is never reached, keeps the query's own
            # conditions from being asked of what is not there of the other row groups.
            numbered = f"file_row_number >= {first} AND file_row_number < {behind}"
            rows = f"(SELECT * FROM {rows} WHERE {numbered} LIMIT {behind - first})"
        if self.own == self.columns:
            return f"SELECT * FROM {rows}"
        own = {name.casefold(): (identifier(name), kind) for name, kind in self.own}
        values = []
        for name, kind in self.columns:
            value, before = own.get(name.casefold(), ("NULL", ""))
            values.append(f"{value if kind == before else f'CAST({value} AS {kind})'} AS {identifier(name)}")
        return f"SELECT {', '.join(values)} FROM {rows}"

    def only(self, number: int) -> ParquetFiles:
        """Return these files without the others."""
        return replace(self, files=(self.files[number],))


def look(file: File) -> int:
    """Return the number of rows in a file.

    Raises:
        UserError: It is no whole Parquet file.
    """
    try:
        return pq.read_metadata(file.path).num_rows
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        what = f"{file.name} is no whole Parquet file ({reason})"
        raise problem("source", what, "Write or fetch it again") from None


def types_of(connection: duckdb.DuckDBPyConnection, files: Sequence[File]) -> Types:
    """Return the columns that files have together, as DuckDB reads them."""
    described = connection.execute(f"DESCRIBE {ParquetFiles(tuple(files)).relation()}").fetchall()
    return tuple((name, kind) for name, kind, *_ in described)


def open_parquet(files: Sequence[File], looks: Sequence[int], given: dict[str, str]) -> ParquetFiles:
    """Return files, from a look at each.

    Raises:
        UserError: None has a row, or types are given.
    """
    if given:
        raise problem("columns", "Parquet files bring their own types", "Leave columns empty, and cast in query")
    if not any(looks):
        raise problem("source", "the files have columns but no rows", "Give files with rows")
    return ParquetFiles(tuple(files))
