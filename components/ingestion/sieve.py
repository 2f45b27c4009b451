"""Parts the good rows of a text file from the bad ones, record by record.

A file that DuckDB reads from end to end never comes here. One that it refuses is gone through piece by piece: the good
records go to a clean copy, which it then reads; the bad ones come out with line, column, reason and text. DuckDB's own
rejects tables are not used: they keep two kilobytes a bad row in memory, whatever their limit, count records for
lines, and let an open quote swallow good rows in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from penstock.components._shared.engine import identifier
from penstock.components.ingestion.rejects import Reject
from penstock.components.ingestion.types import Column

LONGEST_LINE = 2_000_000  # bytes; DuckDB's own limit
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a text file.

    Attributes:
        line: Number of its first line, from 1.
        raw: Its bytes, without the line break at its end.
        fault: What is wrong with its form; empty if nothing is.
    """

    line: int
    raw: bytes
    fault: str = ""


def sieve(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    blocks: Iterable[bytes | list[Record]],
    clean: Path,
    head: bytes,
    table: Callable[[Path], str],
    columns: Sequence[Column],
) -> Iterator[list[Reject]]:
    """Write the good records to `clean` and yield the bad ones, in order, a list for each block.

    Args:
        name: Of the file, for the rejects.
        blocks: The file in pieces: lines that are known to be good, or records to look into.
        head: What the clean file begins with.
        table: Returns the SQL that reads a file of records without `head` into VARCHAR columns, a row a record.
        columns: Those that `table` gives.
    """
    block_file = clean.with_name(clean.name + ".block")
    with clean.open("wb") as output:
        output.write(head)
        for block in blocks:
            if isinstance(block, bytes):
                output.write(block)
                continue
            good = [record for record in block if not record.fault]
            bad = [
                Reject(name, record.line, None, record.fault, _shown(record.raw)) for record in block if record.fault
            ]
            block_file.write_bytes(b"".join(record.raw + b"\n" for record in good))
            misfits = _misfits(connection, table(block_file), columns, len(good)) if good else {}
            for place, (column, reason) in misfits.items():
                bad.append(Reject(name, good[place].line, column, reason, _shown(good[place].raw)))
            output.writelines(record.raw + b"\n" for place, record in enumerate(good) if place not in misfits)
            yield sorted(bad, key=lambda reject: reject.line)
    block_file.unlink(missing_ok=True)


def _misfits(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[Column], rows: int
) -> dict[int, tuple[str, str]]:
    """Return column and reason by place of the rows that hold a value their column cannot take."""
    tests = [
        f"WHEN {identifier(column.name)} IS NOT NULL AND {column.misfits(identifier(column.name))} THEN {number}"
        for number, column in enumerate(columns)
    ]
    names = ", ".join(identifier(column.name) for column in columns)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE block AS SELECT row_number() OVER () - 1 AS place, * FROM {table}"
    )
    counted = connection.execute("SELECT count(*) FROM block").fetchall()[0][0]
    if counted != rows:  # a flaw of ours: lines and rows would not belong together
        raise RuntimeError(f"{rows} records were read as {counted} rows")
    found = connection.execute(
        f"SELECT place, number, ([{names}])[number + 1] "
        f"FROM (SELECT *, CASE {' '.join(tests)} END AS number FROM block) WHERE number IS NOT NULL"
    ).fetchall()
    return {
        place: (columns[number].name, f"{value[:100]!r} is no {columns[number].first}")
        for place, number, value in found
    }


def in_blocks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield records in lists of about a megabyte."""
    block: list[Record] = []
    size = 0
    for record in records:
        block.append(record)
        size += len(record.raw)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _shown(raw: bytes) -> str:
    return raw[:100_000].decode("utf-8", errors="backslashreplace")
