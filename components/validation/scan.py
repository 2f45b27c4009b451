"""What the rows say: DuckDB passes over a dataset's part files, numbers out.

Every result is the same from run to run, whatever the number of threads. Counts, extremes and value frequencies are
exact, so threads may share them; what is not is told in numeric.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from penstock.components._shared.dataset import Dataset
from penstock.components.validation.columns import Column, columns, connect, select, select_one
from penstock.components.validation.numeric import Numbers, measure

RANKED_VALUES = 1000
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
    with connect(dataset) as connection:
        found = columns(connection, schema)
        valency = {column.name: _valency(connection, column, dataset.rows) for column in found if column.listed}
        scalars = [column for column in found if not column.listed]
        valency |= _presence(connection, scalars, dataset.rows)
        numbers: dict[str, Numbers] = {}
        for relation, group in _by_relation(column for column in found if not column.counted).items():
            numbers |= measure(connection, relation, group, dataset.rows)
        return [
            Described(
                column,
                valency[column.name],
                numbers.get(column.name),
                _values(connection, column) if column.counted else None,
            )
            for column in found
        ]


def _by_relation(columns: Iterable[Column]) -> dict[str, list[Column]]:
    groups: dict[str, list[Column]] = {}
    for column in columns:
        groups.setdefault(column.relation, []).append(column)
    return groups


def _presence(connection: duckdb.DuckDBPyConnection, columns: Sequence[Column], rows: int) -> dict[str, Valency]:
    if not columns:
        return {}
    counts = select_one(connection, (f"count({column.cell})" for column in columns), "rows")
    return {
        column.name: Valency(present, rows - present, {1: present} if present else {})
        for column, present in zip(columns, counts, strict=True)
    }


def _valency(connection: duckdb.DuckDBPyConnection, column: Column, rows: int) -> Valency:
    cell = column.cell
    lengths = dict(select(connection, f"len({cell}), count(*)", f"rows WHERE {cell} IS NOT NULL GROUP BY 1"))
    present = sum(lengths.values())
    return Valency(present, rows - present, lengths)


def _values(connection: duckdb.DuckDBPyConnection, column: Column) -> Values:
    value = column.value
    length = f"octet_length({value})" if column.binary else f"strlen({value})"
    invalid = f"count(*) FILTER (try(decode({value})) IS NULL AND {value} IS NOT NULL)" if column.binary else "0"
    facts = (f"count({value})", f"coalesce(sum({length}), 0)", f"approx_count_distinct({value})", invalid)
    count, total, distinct, bad = select_one(connection, facts, column.relation)
    width = total / count if count else 0.0
    # As many passes as keep the table of values small; each counts its share of the values, so the counts are exact.
    passes = max(1, math.ceil(distinct * (width + 64) / _FREQUENCY_BYTES))
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
    return Values(count, width, unique, bad, tuple(ranked[:RANKED_VALUES]))
