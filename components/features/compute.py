"""The work of `compute_features`: aggregates over sliding windows, of which none looks ahead.

Time goes in steps, an hour for example. A row of the result stands for one entity at one step and is made of rows of
the dataset that lie strictly before it: [t - window, t). So a row at the very time t is not in it, and what happens
later changes nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.components._shared.dataset import Dataset, open_dataset, require_columns, write_dataset
from penstock.components._shared.engine import connect, identifier, literal, one_line
from penstock.components._shared.errors import UserError
from penstock.components.features.aggregates import Aggregate, Part, parse
from penstock.components.features.problems import listed
from penstock.components.features.times import duration, instant

COMPONENT = "compute_features"
EVENT, CREATED = "event_timestamp", "created"
MOST_STEPS = 2000  # steps that a window may have: each row of the dataset stands in so many rows of the result
BATCH = 61_440


@dataclass(frozen=True)
class Computed:
    """What was computed.

    Attributes:
        columns: Names of the features.
        first: Time of the first row; None where there is none.
        last: Time of the last row.
    """

    rows: int
    columns: tuple[str, ...]
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True)
class _Plan:
    """What to compute, checked."""

    entities: tuple[str, ...]
    timestamp: str
    aggregates: Mapping[str, Aggregate]
    windows: Mapping[str, timedelta]
    step: timedelta

    @property
    def parts(self) -> dict[Part, str]:
        """Return the column of each part; aggregates share them."""
        distinct = dict.fromkeys(part for aggregate in self.aggregates.values() for part in aggregate.parts)
        return {part: f"part_{number}" for number, part in enumerate(distinct)}

    @property
    def longest(self) -> timedelta:
        return max(self.windows.values())


def compute(
    dataset: str | os.PathLike[str],
    features: str | os.PathLike[str],
    *,
    entities: Sequence[str],
    timestamp: str,
    aggregates: Mapping[str, str],
    windows: Sequence[str] = ("1h", "6h", "24h"),
    step: str = "1h",
    start: str = "",
    end: str = "",
) -> Computed:
    """Write a dataset with a row for each entity and step, and return what it holds.

    Columns are the entities, `event_timestamp`, `created` (when it was computed), and `<aggregate>_<window>` for each
    aggregate and window. An entity has rows from its first step on until every window over it is empty: the last of
    them says so. Aggregates of an empty window are null, counts 0.

    Args:
        dataset: Rows with a time.
        features: Folder to write to.
        entities: Columns that say what a row is about.
        timestamp: Column of times; UTC where it has no time zone.
        aggregates: What to compute, by name; see aggregates.py.
        windows: How far back, such as "6h"; multiples of the step.
        step: How often.
        start: First time of the result, ISO 8601. Empty: the first whose longest window the dataset covers.
        end: Last time of the result. Empty: the last that the dataset covers.

    Raises:
        UserError: An argument is wrong, rows have no entity or time, or nothing comes out.
    """
    opened = open_dataset(dataset, COMPONENT, "dataset")
    plan = _plan(opened, entities, timestamp, aggregates, windows, step)
    with tempfile.TemporaryDirectory(prefix="penstock-features-") as scratch:
        connection = connect(Path(scratch), (file.resolve() for file in opened.files))
        files = [str(file.resolve()) for file in opened.files]
        try:
            connection.execute(f"CREATE VIEW given AS SELECT * FROM read_parquet({literal(files)})")
            first, last = _span(connection, plan, start, end)
            sql = _sql(plan, _largest(connection, plan), first, last, datetime.now(UTC))
            reader = connection.execute(sql).to_arrow_reader(BATCH)
            counted = _Counted(reader)
            write_dataset(features, counted.schema, counted)
        except duckdb.OutOfMemoryException as error:
            remedy = "Give the step more memory, or compute fewer aggregates at a time"
            raise UserError(COMPONENT, "aggregates", one_line(error), remedy) from None
        except duckdb.Error as error:
            remedy = "Aggregates are made of columns of numbers; make them so in the query of ingest"
            raise UserError(COMPONENT, "aggregates", one_line(error), remedy) from None
        finally:
            connection.close()
    columns = tuple(f"{name}_{window}" for name in plan.aggregates for window in plan.windows)
    return Computed(counted.rows, columns, counted.first, counted.last)


def _plan(
    dataset: Dataset,
    entities: Sequence[str],
    timestamp: str,
    aggregates: Mapping[str, str],
    windows: Sequence[str],
    step: str,
) -> _Plan:
    if not entities:
        raise UserError(
            COMPONENT, "entities", "there are none", f"Name columns; there are {listed(dataset.schema, 40)}"
        )
    require_columns(dataset, list(entities), COMPONENT, "entities")
    require_columns(dataset, [timestamp], COMPONENT, "timestamp")
    if not dataset.schema[timestamp].startswith("timestamp"):
        raise UserError(
            COMPONENT,
            "timestamp",
            f"{timestamp} is {dataset.schema[timestamp]}, no time",
            "CAST it to TIMESTAMP, or to TIMESTAMPTZ where it has time zones, in the query of ingest",
        )
    length = duration(step, COMPONENT, "step")
    found = {str(window): duration(window, COMPONENT, "windows") for window in windows}
    if not found:
        raise UserError(COMPONENT, "windows", "there are none", 'Give for example ["1h", "24h"]')
    for text, window in found.items():
        if window % length:
            raise UserError(
                COMPONENT,
                "windows",
                f"{text} is no multiple of the step {step}",
                "Give a shorter step, or other windows",
            )
        if window // length > MOST_STEPS:
            raise UserError(
                COMPONENT,
                "windows",
                f"{text} is {window // length:,} steps of {step}, {MOST_STEPS:,} at most are allowed",
                "Give a longer step",
            )
    plan = _Plan(tuple(entities), timestamp, parse(aggregates, dataset.schema, COMPONENT), found, length)
    taken = {EVENT, CREATED, *plan.aggregates}
    if clash := [name for name in entities if name in taken]:
        raise UserError(
            COMPONENT, "entities", f"{listed(clash)} is the name of another column of the result", "Rename it"
        )
    return plan


def _span(connection: duckdb.DuckDBPyConnection, plan: _Plan, start: str, end: str) -> tuple[datetime, datetime]:
    """Check that the rows are whole, and return the first and last time of the result: UTC, without a time zone."""
    moment = f"CAST({identifier(plan.timestamp)} AS TIMESTAMP)"
    empty = {name: f"count(*) FILTER ({identifier(name)} IS NULL)" for name in (*plan.entities, plan.timestamp)}
    floor = [f"time_bucket({_interval(plan.step)}, {extreme}({moment}))" for extreme in ("min", "max")]
    first, last, *counts = connection.execute(f"SELECT {', '.join([*floor, *empty.values()])} FROM given").fetchone()
    for name, count in zip(empty, counts, strict=True):
        if count:
            raise UserError(
                COMPONENT,
                "timestamp" if name == plan.timestamp else "entities",
                f"{name} is null in {count:,} rows",
                f"Leave them out by a query with WHERE {name} IS NOT NULL",
            )
    if first is None:
        raise UserError(COMPONENT, "dataset", "it has no rows", "Give one that has")
    given = [instant(start, COMPONENT, "start"), instant(end, COMPONENT, "end")]
    bounds = [moment.replace(tzinfo=None) if moment else None for moment in given]
    from_, to = bounds[0] or first + plan.longest, bounds[1] or last
    if from_ > to:
        raise UserError(
            COMPONENT,
            "start" if start else "windows",
            f"the dataset covers {first} to {last} UTC, and the first row would be for {from_}, after the last",
            "Bring more rows, or give start, end or shorter windows",
        )
    return from_, to


def _largest(connection: duckdb.DuckDBPyConnection, plan: _Plan) -> dict[Part, float]:
    """Return the largest finite absolute value of each part; 0 where there is none."""
    asked = [
        f"max(abs({part.value})) FILTER (isfinite({part.value}))" if part.function == "sum" else "0"
        for part in plan.parts
    ]
    found = connection.execute(f"SELECT {', '.join(asked)} FROM given").fetchone() or ()
    return {part: value or 0.0 for part, value in zip(plan.parts, found, strict=True)}


def _interval(length: timedelta) -> str:
    return f"to_microseconds({length // timedelta(microseconds=1)})"


def _sql(plan: _Plan, largest: Mapping[Part, float], first: datetime, last: datetime, now: datetime) -> str:
    keys = ", ".join(map(identifier, plan.entities))
    parts, step = plan.parts, _interval(plan.step)
    moment = f"CAST({identifier(plan.timestamp)} AS TIMESTAMP)"
    of_rows = ", ".join(f"{part.of_rows(largest[part])} AS {column}" for part, column in parts.items())
    frames = ", ".join(
        f"{identifier('over_' + name)} AS (PARTITION BY {keys} ORDER BY step_at "
        f"RANGE BETWEEN {_interval(window - plan.step)} PRECEDING AND CURRENT ROW)"
        for name, window in plan.windows.items()
    )
    values = ", ".join(
        f"{_value(aggregate, parts, window)} AS {identifier(f'{name}_{window}')}"
        for name, aggregate in plan.aggregates.items()
        for window in plan.windows
    )
    return f"""
WITH intervals AS (
    -- The first step strictly after a row is the first whose windows hold it.
    SELECT {keys}, time_bucket({step}, {moment}) + {step} AS step_at, {of_rows}
    FROM given GROUP BY {keys}, step_at
), steps AS (
    SELECT DISTINCT {keys}, step_at + {step} * ahead AS step_at
    FROM intervals, range({plan.longest // plan.step + 1}) AS steps(ahead)
), valued AS (
    SELECT {keys}, step_at, {values}
    FROM steps LEFT JOIN intervals USING ({keys}, step_at)
    WINDOW {frames}
)
SELECT {keys}, step_at AT TIME ZONE 'UTC' AS {EVENT}, TIMESTAMPTZ {literal(now.isoformat())} AS {CREATED},
       * EXCLUDE ({keys}, step_at)
FROM valued
WHERE step_at BETWEEN TIMESTAMP {literal(str(first))} AND TIMESTAMP {literal(str(last))}
ORDER BY step_at, {keys}"""


def _value(aggregate: Aggregate, parts: Mapping[Part, str], window: str) -> str:
    sums = [f"{part.again}({parts[part]}) OVER {identifier('over_' + window)}" for part in aggregate.parts]
    return aggregate.value.format(*sums)


class _Counted:
    """Batches as they pass, counted, with the first and the last time."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self.schema = reader.schema
        self.rows = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._reader = reader

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> pa.RecordBatch:
        batch = self._reader.read_next_batch()
        if batch.num_rows:
            times = batch.column(EVENT)
            self.first = self.first or times[0].as_py()
            self.last = times[-1].as_py()
            self.rows += batch.num_rows
        return batch
