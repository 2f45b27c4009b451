"""Passes over columns of numbers.

Counts and extremes are exact, so threads may share them. Means and deviations are sums of floats, whose last digits
depend on the order of addition: one thread adds them up, in the order of the rows. Cut points (median, deciles) come
from a sample that depends on nothing but the position of a row, and are exact where the sample is the whole; the counts
between them are exact always.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import duckdb
import numpy as np

from penstock.components._shared.rows import select, select_one
from penstock.components.validation.columns import Column

SAMPLE_ROWS = 200_000
BUCKETS = 10


@dataclass(frozen=True)
class Extremes:
    """Counts of the values, and the least and the greatest of them, NaN left out; NaN where there are none."""

    count: int
    zeros: int
    minimum: float
    maximum: float
    nans: int = 0
    negative_infinities: int = 0
    positive_infinities: int = 0
    finite_minimum: float = math.nan
    finite_maximum: float = math.nan

    @property
    def all_finite(self) -> bool:
        return not (self.nans or self.negative_infinities or self.positive_infinities)


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation (of the population) of the values that are not NaN."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Cuts:
    """Median, and the cut points from the minimum to the maximum between which equally many values lie."""

    median: float
    points: tuple[float, ...]


@dataclass(frozen=True)
class Buckets:
    """Counts of values.

    Attributes:
        edges: Edges of equally wide buckets over the finite values.
        counts: Values in [edge, next edge), the last edge included.
        below: Values at or below each distinct cut point.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: Mapping[float, int]


@dataclass(frozen=True)
class Numbers:
    """Description of a column of numbers; beyond the extremes there is something only if a value is not NaN."""

    extremes: Extremes
    moments: Moments | None = None
    cuts: Cuts | None = None
    buckets: Buckets | None = None


def measure(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column], rows: int
) -> dict[str, Numbers]:
    """Return the description of columns of numbers by name.

    Args:
        connection: From `rows.connect`.
        relation: Relation that all of the columns are in.
        columns: Columns, at least one.
        rows: Rows of the dataset.
    """
    extremes = _extremes(connection, relation, columns)
    filled = [column for column in columns if extremes[column.name].count > extremes[column.name].nans]
    if not filled:
        return {name: Numbers(found) for name, found in extremes.items()}
    moments = _moments(connection, relation, filled, extremes)
    cuts = _cuts(connection, relation, filled, extremes, rows)
    buckets = _buckets(connection, relation, filled, extremes, cuts)
    return {
        name: Numbers(found, moments.get(name), cuts.get(name), buckets.get(name)) for name, found in extremes.items()
    }


def _extremes(connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column]) -> dict[str, Extremes]:
    found = select_one(
        connection,
        (f"count({v}), count(*) FILTER ({v} = 0), min({v})::DOUBLE, max({v})::DOUBLE" for v in _values(columns)),
        relation,
    )
    extremes = {}
    for column in columns:
        count, zeros, least, most = (next(found) for _ in range(4))
        if least is None:
            extremes[column.name] = Extremes(count, zeros, math.nan, math.nan)
        elif math.isfinite(least) and math.isfinite(most):
            extremes[column.name] = Extremes(count, zeros, least, most, 0, 0, 0, least, most)
        else:  # NaN sorts above infinity, so the extremes tell of it
            extremes[column.name] = _with_non_finite(connection, relation, column.value, count, zeros)
    return extremes


def _with_non_finite(
    connection: duckdb.DuckDBPyConnection, relation: str, value: str, count: int, zeros: int
) -> Extremes:
    kinds = (f"isnan({value})", f"{value} = '-inf'::DOUBLE", f"{value} = 'inf'::DOUBLE")
    found = select_one(
        connection,
        (
            *(f"{extreme}({value}) FILTER (NOT isnan({value}))" for extreme in ("min", "max")),
            *(f"count(*) FILTER ({kind})" for kind in kinds),
            *(f"{extreme}({value}) FILTER (isfinite({value}))" for extreme in ("min", "max")),
        ),
        relation,
    )
    least, most, nans, negative, positive, finite_least, finite_most = found
    if least is None:
        return Extremes(count, zeros, math.nan, math.nan, nans)
    if finite_least is None:
        return Extremes(count, zeros, least, most, nans, negative, positive)
    return Extremes(count, zeros, least, most, nans, negative, positive, finite_least, finite_most)


def _moments(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column], extremes: Mapping[str, Extremes]
) -> dict[str, Moments]:
    parts, scales = [], []
    for column in columns:
        known = extremes[column.name]
        largest = max(abs(known.finite_minimum), abs(known.finite_maximum))
        # Squares of numbers beyond 1e150 leave the range of a double.
        scales.append(2.0 ** (math.frexp(largest)[1] - 1) if largest > 1e100 else 1.0)
        value = f"{column.value}::DOUBLE" + (f" / {_literal(scales[-1])}" if scales[-1] > 1 else "")
        finite = "" if known.all_finite else f" FILTER (isfinite({column.value}))"
        parts.append(f"favg({value}){finite}, stddev_pop({value}){finite}")
    threads = select(connection, "current_setting('threads')", "range(1)")[0][0]
    connection.execute("SET threads = 1")
    found = select_one(connection, parts, relation)
    connection.execute(f"SET threads = {threads}")
    moments = {}
    for column, scale in zip(columns, scales, strict=True):
        mean, deviation = next(found), next(found)
        known = extremes[column.name]
        if math.isinf(known.minimum) or math.isinf(known.maximum):
            moments[column.name] = Moments(known.minimum + known.maximum, math.nan)
        else:
            moments[column.name] = Moments(mean * scale, deviation * scale)
    return moments


def _cuts(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: Sequence[Column],
    extremes: Mapping[str, Extremes],
    rows: int,
) -> dict[str, Cuts]:
    chosen = f" WHERE hash(file, row) < {SAMPLE_ROWS * 2**64 // rows}::UBIGINT" if rows > SAMPLE_ROWS else ""
    parts = ", ".join(f"{value}::DOUBLE AS v{i}" for i, value in enumerate(_values(columns)))
    sample = connection.execute(f"FROM {relation} SELECT {parts}{chosen}").fetchnumpy()
    cuts = {}
    for i, column in enumerate(columns):
        values = np.ma.compressed(sample[f"v{i}"])
        values = np.sort(values[~np.isnan(values)])
        known = extremes[column.name]
        if not values.size:  # a column so sparse that the sample missed it
            values = np.array([known.minimum, known.maximum])
        low, high = values[(values.size - 1) // 2], values[values.size // 2]
        places = [math.ceil(Fraction(i * values.size, BUCKETS)) - 1 for i in range(1, BUCKETS)]
        cuts[column.name] = Cuts(
            median=float(low if low == high else low / 2 + high / 2),
            points=(known.minimum, *values[places].tolist(), known.maximum),
        )
    return cuts


def _buckets(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: Sequence[Column],
    extremes: Mapping[str, Extremes],
    cuts: Mapping[str, Cuts],
) -> dict[str, Buckets]:
    edges = {name: _edges(known.finite_minimum, known.finite_maximum) for name, known in extremes.items()}
    points = {name: sorted(set(cut.points)) for name, cut in cuts.items()}
    parts = []
    for column in columns:
        known, value = extremes[column.name], f"{column.value}::DOUBLE"
        finite = "" if known.all_finite else f" FILTER (isfinite({column.value}))"
        number = "" if not known.nans else f" FILTER (NOT isnan({column.value}))"
        # histogram() counts values at or below each bound; of negated values, that is at or above each edge.
        lower = ", ".join(_literal(-edge) for edge in reversed(edges[column.name][:-1])) or "0::DOUBLE"
        upper = ", ".join(_literal(point) for point in points[column.name])
        parts.append(f"map_values(histogram(-{value}, [{lower}]){finite})")
        parts.append(f"map_values(histogram({value}, [{upper}]){number})")
    found = select_one(connection, parts, relation)
    buckets = {}
    for column in columns:
        counts, steps = next(found), next(found)
        running = np.cumsum(steps).tolist()
        buckets[column.name] = Buckets(
            edges=edges[column.name],
            counts=tuple(reversed(counts or ())),
            below=dict(zip(points[column.name], running, strict=True)),
        )
    return buckets


def _edges(low: float, high: float) -> tuple[float, ...]:
    if math.isnan(low):
        return ()
    if low == high:
        return (low, high)
    if math.isfinite(high - low):
        steps = np.linspace(low, high, BUCKETS + 1)
    else:
        steps = np.linspace(low / 2, high / 2, BUCKETS + 1) * 2
    return (low, *(edge for edge in np.unique(steps).tolist() if low < edge < high), high)


def _values(columns: Sequence[Column]) -> list[str]:
    return [column.value for column in columns]


def _literal(number: float) -> str:
    return f"'{number!r}'::DOUBLE"
