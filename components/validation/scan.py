"""What the rows say: DuckDB passes over a dataset's part files, numbers out.

Every result is the same from run to run, whatever the number of threads. Counts, extremes and value frequencies are
exact, so threads may share them; what is not is told in numeric.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from penstock.components._shared.dataset import Dataset
from penstock.components._shared.rows import connect, select, select_one
from penstock.components.validation.columns import Column, columns
from penstock.components.validation.numeric import Numbers, measure

RANKED_VALUES = 1000
_COLUMNS_A_PASS = 25  # what a query of many more aggregates takes in memory is out of proportion
_FREQUENCY_BYTES = 256 << 20  # of the table of one pass over a column's distinct values


@dataclass(frozen=True)
class Valency:
    """In how many rows a column is present, and how many rows hold how many values."""

    present: int
    missing: int
    lengths: Mapping[int, int]


@dataclass(frozen=True)
class Values:
    """Description of values that are counted one by one.

    Attributes:
        length: Mean length in bytes.
        invalid: Values that are not UTF-8.
        ranked: The most frequent values and their counts, most frequent first, ties by value downwards.
    """

    count: int
    length: float
    unique: int
    invalid: int
    ranked: tuple[tuple[str | bytes, int], ...]


@dataclass(frozen=True)
class Described:
    """A column with what is known of it."""

    column: Column
    valency: Valency
    numbers: Numbers | None = None
    values: Values | None = None


def scan(dataset: Dataset, schema: Schema | None = None) -> list[Described]:
    """Describe every column of a dataset.

    Args:
        dataset: Rows.
        schema: Says which numbers are categorical, and which times are text. None: neither.

    Raises:
        UserError: A column is of a type that cannot be described.
    """
    if not dataset.files:
        return []
    with connect(dataset.files) as connection:
        found = columns(connection, schema)
        numbers: dict[str, Numbers] = {}
        values: dict[str, Values] = {}
        for relation, group in _groups(column for column in found if not column.counted):
            numbers |= measure(connection, relation, group, dataset.rows)
        for relation, group in _groups(column for column in found if column.counted):
            values |= _count(connection, relation, group)
        return [
            _described(connection, column, numbers.get(column.name), values.get(column.name), dataset.rows)
            for column in found
        ]


def _described(
    connection: duckdb.DuckDBPyConnection, column: Column, numbers: Numbers | None, values: Values | None, rows: int
) -> Described:
    if column.listed:
        lengths = _lengths(connection, column)
    else:
        present = numbers.extremes.count if numbers else values.count if values else 0
        lengths = {1: present} if present else {}
    present = sum(lengths.values())
    return Described(column, Valency(present, rows - present, lengths), numbers, values)


def _groups(columns: Iterable[Column]) -> Iterator[tuple[str, list[Column]]]:
    for relation, group in itertools.groupby(sorted(columns, key=_relation), key=_relation):
        together = list(group)
        for start in range(0, len(together), _COLUMNS_A_PASS):
            yield relation, together[start : start + _COLUMNS_A_PASS]


def _relation(column: Column) -> str:
    return column.relation


def _lengths(connection: duckdb.DuckDBPyConnection, column: Column) -> dict[int, int]:
    cell = column.cell
    return dict(select(connection, f"len({cell}), count(*)", f"rows WHERE {cell} IS NOT NULL GROUP BY 1"))


def _count(connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column]) -> dict[str, Values]:
    facts: list[str] = []
    for column in columns:
        value = column.value
        length = f"octet_length({value})" if column.binary else f"strlen({value})"
        invalid = f"count(*) FILTER (try(decode({value})) IS NULL AND {value} IS NOT NULL)" if column.binary else "0"
        facts += (f"count({value})", f"coalesce(sum({length}), 0)", f"approx_count_distinct({value})", invalid)
    found = select_one(connection, facts, relation)
    values = {}
    for column in columns:
        count, total, distinct, invalid = (next(found) for _ in range(4))
        width = total / count if count else 0.0
        unique, ranked = _frequencies(connection, column, distinct * (width + 64))
        values[column.name] = Values(count, width, unique, invalid, ranked)
    return values


def _frequencies(
    connection: duckdb.DuckDBPyConnection, column: Column, size: float
) -> tuple[int, tuple[tuple[str | bytes, int], ...]]:
    value = column.value
    # As many passes as keep the table of values small; each counts its share of the values, so the counts are exact.
    passes = max(1, math.ceil(size / _FREQUENCY_BYTES))
    unique = 0
    ranked: list[tuple[str | bytes, int]] = []
    for turn in range(passes):
        frequencies = (
            f"FROM {column.relation} SELECT {value} AS value, count(*) AS n "
            f"WHERE {value} IS NOT NULL AND hash({value}) % {passes} = {turn} GROUP BY ALL"
        )
        rows = connection.execute(
            f"WITH frequencies AS MATERIALIZED ({frequencies}) "
            "FROM frequencies SELECT value, n, (FROM frequencies SELECT count(*)) "
            f"ORDER BY n DESC, value DESC LIMIT {RANKED_VALUES}"
        ).fetchall()
        unique += rows[0][2] if rows else 0
        ranked += [(row[0], row[1]) for row in rows]
    ranked.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
    return unique, tuple(ranked[:RANKED_VALUES])
