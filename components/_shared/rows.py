"""Rows of Parquet part files as a view of DuckDB, within a memory that does not grow with them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from penstock.components._shared import memory

MEMORY = 1 << 30
MOST_THREADS = 16  # each holds buffers of its own, and the limit is for all of them together


@contextmanager
def connect(paths: Iterable[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database with the view `rows` of part files: columns c0, c1, … and the position of rows."""
    files = ", ".join("'" + str(file).replace("'", "''") + "'" for file in paths)
    parts = f"read_parquet([{files}])"
    with tempfile.TemporaryDirectory(prefix="penstock-") as spill, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{memory.share(MEMORY)}B'")
        connection.execute(f"SET temp_directory = '{spill}'")
        _set_up(connection)
        threads = select(connection, "current_setting('threads')", "range(1)")[0][0]
        connection.execute(f"SET threads = {min(threads, MOST_THREADS)}")
        connection.execute(f"CREATE VIEW parts AS FROM {parts}")
        cells = _cells(connection)
        # The position of a row in all of them; it does not change with the threads or the folder.
        connection.execute(
            f"CREATE VIEW rows AS FROM {parts} SELECT {cells}, file_index AS file, file_row_number AS row"
        )
        yield connection


@contextmanager
def view(table: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database with a table that is in memory as the view `rows`: columns c0, c1, …"""
    with duckdb.connect() as connection:
        _set_up(connection)
        connection.execute("SET threads = 1")
        connection.register("parts", table)
        connection.execute(f"CREATE VIEW rows AS FROM parts SELECT {_cells(connection)}")
        yield connection


def _set_up(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")


def _cells(connection: duckdb.DuckDBPyConnection) -> str:
    names = [name for name, *_ in connection.execute("DESCRIBE parts").fetchall()]
    return ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" AS c{i}' for i, name in enumerate(names))


def select(connection: duckdb.DuckDBPyConnection, what: str, source: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query whose parts were put together here; names from outside are quoted in `connect`."""
    return connection.execute(f"SELECT {what} FROM {source}").fetchall()


def select_one(connection: duckdb.DuckDBPyConnection, expressions: Iterable[str], source: str) -> Iterator[Any]:
    """Return the values of the one row that aggregates make."""
    return iter(select(connection, ", ".join(expressions), source)[0])
