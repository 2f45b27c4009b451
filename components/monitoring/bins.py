"""A column's values counted in bins, of rows or of statistics, so that other rows are counted in the same bins.

Those of numbers lie between quantiles of the reference, as many values in each; of text every frequent value has one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, FeatureNameStatistics, Histogram

from penstock.components._shared.rows import connect, select, select_one

QUANTILES = 100
SAMPLE_ROWS = 200_000  # that quantiles are taken of
MOST_VALUES = 1000  # of text that have a bin of their own
NEW_VALUES = 5  # that are named
_COLUMNS_A_PASS = 25
_HEAD = 20_000  # rows that tell whether a column holds few different values

NUMBERS, TEXT = "numbers", "text"
_INTEGERS = [f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")]
# Type of DuckDB, without its parameters: how its values are counted.
_KINDS = {
    **dict.fromkeys((*_INTEGERS, "FLOAT", "DOUBLE", "DECIMAL"), NUMBERS),
    **dict.fromkeys(("VARCHAR", "BOOLEAN", "ENUM", "UUID"), TEXT),
}
_TIMES = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE")


@dataclass(frozen=True)
class Bins:
    """Where values are counted.

    Attributes:
        kind: NUMBERS or TEXT.
        edges: Of numbers: the highest value of each bin but the last, which has no end.
        values: Of text: the value of each bin but the last, which has all others.
    """

    kind: str
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column, counted.

    Attributes:
        counts: Values in each bin of `bins`, one more than it has edges or values.
        rows: Rows, with and without a value.
        missing: Rows without a value, or with NaN.
        least, most: Of numbers; None where there is none.
        type: Its type, in words.
        known: Of text: whether every value that there was has a bin, so that any other is new.
        new: Of text: the most frequent values without a bin of their own, with their counts.
    """

    name: str
    bins: Bins
    counts: tuple[int, ...]
    rows: int
    missing: int
    least: float | None = None
    most: float | None = None
    type: str = ""
    known: bool = False
    new: tuple[tuple[str, int], ...] = ()

    @property
    def values(self) -> int:
        """Rows that have a value."""
        return self.rows - self.missing


@dataclass(frozen=True)
class Counted:
    """Columns of one set of rows.

    Attributes:
        left_out: Why, by name, for columns that cannot be counted in bins.
    """

    rows: int
    columns: Mapping[str, Column]
    left_out: Mapping[str, str] = field(default_factory=dict)


def of_rows(files: Sequence[Path], names: Iterable[str] | None = None) -> Counted:
    """Count the columns of Parquet files in bins of their own.

    Args:
        names: Columns to count. None: all.
    """
    with connect(files) as connection:
        cells, left_out = _cells(connection, names)
        rows: int = select(connection, "count(*)", "rows")[0][0]
        edges = _edges(connection, {name: cell for name, cell in cells.items() if cell.kind == NUMBERS}, rows)
        bins: dict[str, Bins] = {}
        known: dict[str, bool] = {}
        for name, cell in cells.items():
            if cell.kind == NUMBERS:
                bins[name] = Bins(NUMBERS, edges=edges[name])
                continue
            ranked = select(connection, f"{cell.text} AS value, count(*)", f"rows WHERE value IS NOT NULL {_RANKED}")
            bins[name] = Bins(TEXT, values=tuple(value for value, _ in ranked[:MOST_VALUES]))
            known[name] = len(ranked) <= MOST_VALUES
        return Counted(rows, _count(connection, cells, bins, rows, known), left_out)


def of_statistics(statistics: DatasetFeatureStatistics) -> Counted:
    """Return what statistics of a dataset tell of its columns: deciles of numbers, the most frequent values of text."""
    columns, left_out = {}, {}
    for feature in statistics.features:
        name = feature.name or ".".join(feature.path.step)
        column = _described(name, feature, statistics.num_examples)
        if isinstance(column, Column):
            columns[name] = column
        else:
            left_out[name] = column
    return Counted(statistics.num_examples, columns, left_out)


def like(reference: Counted, files: Sequence[Path], names: Iterable[str]) -> tuple[Counted, dict[str, str]]:
    """Count columns of Parquet files in the bins that a reference has.

    Args:
        names: Columns to count, all of them in the reference.

    Returns:
        The columns, and the types of those that hold another kind of values than in the reference.
    """
    with connect(files) as connection:
        cells, left_out = _cells(connection, names)
        rows: int = select(connection, "count(*)", "rows")[0][0]
        bins, strange = {}, {}
        for name, cell in cells.items():
            before = reference.columns[name]
            if not before.values:  # then its type says nothing
                bins[name] = Bins(cell.kind)
            elif cell.kind == before.bins.kind or cell.type == "BOOLEAN" or (cell.whole and before.type == "INT"):
                bins[name] = before.bins
            else:
                strange[name] = cell.type
        known = {name: reference.columns[name].known for name in bins}
        return Counted(rows, _count(connection, cells, bins, rows, known, named=True), left_out), strange


@dataclass(frozen=True)
class _Cell:
    """A column of the view `rows` as SQL."""

    sql: str
    type: str

    @property
    def kind(self) -> str:
        return _KINDS[self.type]

    @property
    def whole(self) -> bool:
        return self.type in _INTEGERS

    @property
    def number(self) -> str:
        return f"{self.sql}::TINYINT::DOUBLE" if self.type == "BOOLEAN" else f"{self.sql}::DOUBLE"

    @property
    def real(self) -> str:
        """Filter of an aggregate that takes no NaN, which min, max and histogram would take for a number."""
        return f" FILTER (NOT isnan({self.sql}))" if self.type in ("FLOAT", "DOUBLE") else ""

    @property
    def text(self) -> str:
        return f"{self.sql}::VARCHAR"


_RANKED = f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MOST_VALUES + 1}"


def _cells(
    connection: duckdb.DuckDBPyConnection, names: Iterable[str] | None
) -> tuple[dict[str, _Cell], dict[str, str]]:
    wanted = None if names is None else set(names)
    cells, left_out = {}, {}
    for place, (name, type_name, *_) in enumerate(connection.execute("DESCRIBE parts").fetchall()):
        if wanted is not None and name not in wanted:
            continue
        kind = "ENUM" if type_name.startswith("ENUM") else type_name.partition("(")[0]
        if kind in _KINDS:
            cells[name] = _Cell(f"c{place}", kind)
        else:
            left_out[name] = (
                "times move on by themselves" if kind in _TIMES else f"values of type {type_name} have no bins"
            )
    return cells, left_out


def _edges(
    connection: duckdb.DuckDBPyConnection, cells: Mapping[str, _Cell], rows: int
) -> dict[str, tuple[float, ...]]:
    """Return the quantiles of a sample that depends on nothing but the positions of rows, between the true extremes."""
    if not cells:
        return {}
    found = (f"min({cell.number}){cell.real}, max({cell.number}){cell.real}" for cell in cells.values())
    extremes = select_one(connection, found, "rows")
    chosen = f" WHERE hash(file, row) < {SAMPLE_ROWS * 2**64 // rows}::UBIGINT" if rows > SAMPLE_ROWS else ""
    parts = ", ".join(f"{cell.number} AS v{place}" for place, cell in enumerate(cells.values()))
    sample = connection.execute(f"FROM rows SELECT {parts}{chosen}").fetchnumpy()
    edges = {}
    for place, name in enumerate(cells):
        values = np.ma.compressed(sample[f"v{place}"])
        values = np.sort(values[~np.isnan(values)])
        places = np.ceil(np.arange(1, QUANTILES) * values.size / QUANTILES).astype(int) - 1
        least, most = next(extremes), next(extremes)
        quantiles = values[places].tolist() if values.size else []
        edges[name] = _between(least, quantiles, most) if least is not None else ()
    return edges


def _between(least: float, quantiles: Sequence[float], most: float) -> tuple[float, ...]:
    """Return edges, the first just below the least value and the last at the greatest: what is outside is new."""
    return tuple(sorted({math.nextafter(least, -math.inf), *quantiles, most}))


def _count(
    connection: duckdb.DuckDBPyConnection,
    cells: Mapping[str, _Cell],
    bins: Mapping[str, Bins],
    rows: int,
    known: Mapping[str, bool],
    *,
    named: bool = False,
) -> dict[str, Column]:
    few = _few(connection, {name: cells[name] for name in bins})
    counted: dict[str, Column] = {}
    for name, place in bins.items():
        if place.kind == TEXT:
            counted[name] = _text(connection, name, cells[name], place, rows, known.get(name, False), named)
        elif name in few:
            counted[name] = _value_by_value(connection, name, cells[name], place, rows)
    for group in _groups([name for name in bins if name not in counted]):
        parts: list[str] = []
        for name in group:
            value, real = cells[name].number, cells[name].real
            edges = ", ".join(f"'{edge!r}'::DOUBLE" for edge in bins[name].edges) or "0::DOUBLE"
            parts += [f"{aggregate}({value}){real}" for aggregate in ("count", "min", "max")]
            # histogram() counts values up to each edge; those beyond the last it adds as one more, where there are any.
            parts.append(f"map_values(histogram({value}, [{edges}]){real})")
        found = select_one(connection, parts, "rows")
        for name in group:
            values, least, most, steps = (next(found) for _ in range(4))
            low = tuple(int(step) for step in (steps or ()))[: len(bins[name].edges)] or (0,) * len(bins[name].edges)
            counts = (*low, values - sum(low))
            counted[name] = Column(name, bins[name], counts, rows, rows - values, least, most, cells[name].type)
    return {name: counted[name] for name in bins}


def _few(connection: duckdb.DuckDBPyConnection, cells: Mapping[str, _Cell]) -> set[str]:
    """Return the columns that seem to hold few different values, which are counted faster one by one than in bins."""
    if not cells:
        return set()
    parts = ", ".join(f"count(DISTINCT {cell.sql})" for cell in cells.values())
    [distinct] = select(connection, parts, f"(FROM rows LIMIT {_HEAD})")
    return {name for name, count in zip(cells, distinct, strict=True) if count <= _HEAD / 4}


def _value_by_value(connection: duckdb.DuckDBPyConnection, name: str, cell: _Cell, bins: Bins, rows: int) -> Column:
    found = connection.execute(f"FROM rows SELECT {cell.number} AS value, count(*) AS n GROUP BY 1").fetchnumpy()
    values, n = np.ma.getdata(found["value"]), found["n"]
    real = ~np.ma.getmaskarray(found["value"]) & ~np.isnan(values)
    values, n = values[real], n[real]
    counts = np.bincount(np.searchsorted(bins.edges, values), n, len(bins.edges) + 1).astype(int)
    least, most = (float(values.min()), float(values.max())) if values.size else (None, None)
    return Column(name, bins, tuple(counts.tolist()), rows, rows - int(n.sum()), least, most, cell.type)


def _text(
    connection: duckdb.DuckDBPyConnection, name: str, cell: _Cell, bins: Bins, rows: int, known: bool, named: bool
) -> Column:
    # The bins' own values, and all others as NULL; those without a value are none of them.
    own = "IN (SELECT unnest(?::VARCHAR[]))"
    source = f"(FROM rows SELECT {cell.text} AS value WHERE {cell.sql} IS NOT NULL)"
    found = dict(
        connection.execute(
            f"FROM (FROM {source} SELECT value, count(*) AS n GROUP BY 1) "
            f"SELECT CASE WHEN value {own} THEN value END, sum(n)::BIGINT GROUP BY 1",
            [list(bins.values)],
        ).fetchall()
    )
    other = found.pop(None, 0)
    counts = tuple(found.get(value, 0) for value in bins.values)
    values = sum(counts) + other
    new: list[tuple[str, int]] = []
    if named and known and other:
        most = f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {NEW_VALUES}"
        new = connection.execute(
            f"FROM {source} SELECT value, count(*) WHERE value NOT {own} {most}", [list(bins.values)]
        ).fetchall()
    return Column(name, bins, (*counts, other), rows, rows - values, type=cell.type, known=known, new=tuple(new))


def _groups(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _COLUMNS_A_PASS):
        yield names[start : start + _COLUMNS_A_PASS]


def _described(name: str, feature: FeatureNameStatistics, rows: int) -> Column | str:
    common = (feature.num_stats if feature.HasField("num_stats") else feature.string_stats).common_stats
    kind = FeatureNameStatistics.Type.Name(feature.type)
    if common.max_num_values > 1:
        return "lists have no bins"
    missing = rows - int(common.num_non_missing)
    if feature.HasField("string_stats"):
        buckets = feature.string_stats.rank_histogram.buckets
        values = tuple(bucket.label for bucket in buckets)
        counts = tuple(int(bucket.sample_count) for bucket in buckets)
        other = max(rows - missing - sum(counts), 0)
        known = len(values) == feature.string_stats.unique
        return Column(name, Bins(TEXT, values=values), (*counts, other), rows, missing, type=kind, known=known)
    if not feature.HasField("num_stats"):
        return "the statistics tell nothing of its values"
    numbers = feature.num_stats
    quantiles = next((each for each in numbers.histograms if each.type == Histogram.QUANTILES), None)
    if quantiles is None or not quantiles.buckets:
        if rows - missing:
            return "the statistics have no quantiles of it"
        return Column(name, Bins(NUMBERS), (0,), rows, missing, type=kind)
    nans = int(quantiles.num_nan)
    edges: list[float] = []
    running: list[float] = []
    total = 0.0
    for bucket in quantiles.buckets:
        total += bucket.sample_count
        if edges and bucket.high_value == edges[-1]:  # several quantiles that are one value
            running[-1] = total
        else:
            edges.append(bucket.high_value)
            running.append(total)
    # Statistics count in fractions: what lies up to each edge is rounded, and every value counted once.
    scale = (rows - missing - nans) / total if total else 0.0
    counts = np.diff(np.rint(np.array(running) * scale), prepend=0).astype(int).tolist()
    least = quantiles.buckets[0].low_value
    return Column(
        name=name,
        bins=Bins(NUMBERS, edges=_between(least, edges, edges[-1])),
        counts=(0, *counts, 0),
        rows=rows,
        missing=missing + nans,
        least=least,
        most=edges[-1],
        type=kind,
    )
