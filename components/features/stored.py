"""Adds rows to the offline store, each once.

A row is there already if the store's latest version of it, by entity and event time, has the same values; numbers that
differ by rounding alone are the same. What differs is added as a later version, as Feast has it: the row created last
counts.

Parquet files on a disk are written here: a whole file appears at once. Until its rows are online, too, its name begins
with `new-`; so a run that was interrupted before shows what it left, and the next one begins there. Other stores are
written through Feast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.utils import _utc_now

from penstock.components._shared.dataset import Dataset
from penstock.components._shared.engine import connect, identifier, literal, one_line
from penstock.components.features.problems import listed
from penstock.components.features.store import OpenStore

ROUNDING = 1e-9  # relative difference of two numbers that are the same
NEW, DONE = "new-", "part-"
PARQUET = {"compression": "zstd"}


@dataclass(frozen=True)
class Added:
    """What was added.

    Attributes:
        rows: Rows that were not there, or not so.
        pending: Earliest event time of rows that are not online yet, of an interrupted run before, too; None for none.
        interrupted: Whether there were such of a run before.
        earliest: First event time in the whole source; None where it is empty.
        newest: Its last.
    """

    rows: int
    pending: datetime | None
    interrupted: bool
    earliest: datetime | None
    newest: datetime | None


@dataclass(frozen=True)
class Columns:
    """The columns of a source: what a row is about, when, and its values."""

    keys: tuple[str, ...]
    event: str
    created: str
    values: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.keys, self.event, *([self.created] if self.created else []), *self.values)


def columns_of(place: OpenStore, source: DataSource, views: Sequence[FeatureView]) -> Columns:
    """Return the columns that the views of a source read."""
    back = {new: old for old, new in source.field_mapping.items()}
    keys = dict.fromkeys(back.get(key, key) for view in views for key in place.join_keys(view))
    values = dict.fromkeys(back.get(each.name, each.name) for view in views for each in view.features)
    return Columns(
        tuple(keys),
        source.timestamp_field,
        source.created_timestamp_column or "",
        tuple(name for name in values if name not in keys),
    )


class OfflineSource:
    """The rows of one source."""

    def __init__(self, place: OpenStore, source: DataSource, views: Sequence[FeatureView]) -> None:
        self.place, self.source, self.views = place, source, views
        self.columns = columns_of(place, source, views)
        self.folder = _folder(place, source)

    def check_columns(self, dataset: Dataset) -> None:
        """Refuse a dataset that lacks a column which views read, or has it in no usable form."""
        for view in self.views:
            read = columns_of(self.place, self.source, [view])
            if missing := [name for name in read.all if name not in dataset.schema]:
                raise self.place.refuse(
                    "features",
                    f"feature view {view.name} reads {listed(missing)}, which the rows do not have",
                    f"They have {listed(dataset.schema, 40)}; compute it, or take it out of the view",
                )
        for name in filter(None, (self.columns.event, self.columns.created)):
            if not dataset.schema[name].startswith("timestamp"):
                problem = f"{name} is {dataset.schema[name]}, no time"
                raise self.place.refuse("features", problem, "CAST it to TIMESTAMPTZ")

    def add(self, dataset: Dataset) -> Added:
        """Add the rows of a dataset that are not there yet.

        Raises:
            UserError: Columns do not go with those that are there, or the store cannot be written.
        """
        with self._engine(dataset) as connection:
            before = self._waiting()
            rows = self._write(connection, dataset)
            waiting = [self._read(file) for file in self._waiting()]
            if rows and self.folder is None:
                waiting = ["fresh"]
            firsts = [first for relation in waiting if (first := self._span(connection, relation)[0])]
            earliest, newest = self._span(connection, self._stored(connection))
        return Added(rows, min(firsts, default=None), bool(before), earliest, newest)

    def settle(self) -> None:
        """Note that all rows are online."""
        for file in self._waiting():
            file.rename(file.with_name(file.name.removeprefix(NEW)))

    def latest(self, view: FeatureView, until: datetime, count: int) -> pa.Table:
        """Return the newest row at `until` of so many entities of a view; the same ones for the same rows."""
        columns = columns_of(self.place, self.source, [view])
        keys, event = ", ".join(map(identifier, columns.keys)), identifier(columns.event)
        order = f"{event} DESC" + (f", {identifier(columns.created)} DESC" if columns.created else "")
        chosen = ", ".join(map(identifier, (*columns.keys, columns.event, *columns.values)))
        with self._engine() as connection:
            stored = self._stored(connection, until=until)
            return connection.execute(
                f"""WITH known AS (SELECT * FROM {stored} WHERE CAST({event} AS TIMESTAMPTZ) <= {_instant(until)}),
                picked AS (SELECT {keys} FROM known GROUP BY {keys} ORDER BY hash({keys}), {keys} LIMIT {count})
                SELECT {chosen} FROM known JOIN picked USING ({keys})
                QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1 ORDER BY {keys}"""
            ).to_arrow_table()

    def extent(self) -> tuple[datetime | None, datetime | None]:
        """Return the first and the last event time of all rows; None where there are none."""
        if self.folder is not None and not self._files():
            return None, None
        with self._engine() as connection:
            return self._span(connection, self._stored(connection))

    # What follows differs between files on a disk and all others.

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet")) if self.folder and self.folder.is_dir() else []

    def _waiting(self) -> list[Path]:
        return [file for file in self._files() if file.name.startswith(NEW)]

    @contextmanager
    def _engine(self, dataset: Dataset | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        given = [file.resolve() for file in dataset.files] if dataset else []
        with TemporaryDirectory(prefix="penstock-offline-") as scratch:
            self._scratch = Path(scratch).resolve()
            # The folder grows while the connection is open: links lead to its files.
            allowed = [*given, *(file.resolve() for file in self._files())]
            if self.folder is not None:
                allowed += [self._target(self.folder, dataset)] if dataset else []
            connection = connect(self._scratch, allowed)
            try:
                if given:
                    files = literal([str(file) for file in given])
                    connection.execute(f"CREATE VIEW given AS SELECT * FROM read_parquet({files})")
                yield connection
            except duckdb.Error as error:
                raise self.place.refuse("features", one_line(error), "Give rows like those that are there") from None
            finally:
                connection.close()

    def _stored(
        self, connection: duckdb.DuckDBPyConnection, since: datetime | None = None, until: datetime | None = None
    ) -> str:
        """Return what stands after FROM for the rows that are in the store."""
        if self.folder is not None:
            files = [str(file.resolve()) for file in self._files()]
            return f"read_parquet({literal(files)})" if files else "(SELECT * FROM given LIMIT 0)"
        with self.place.speaking("the offline store cannot be read, nothing was written"):
            job = self.place.store.provider.offline_store.pull_all_from_table_or_query(
                config=self.place.store.config,
                data_source=self.source,
                join_key_columns=list(self.columns.keys),
                feature_name_columns=list(self.columns.values),
                timestamp_field=self.columns.event,
                created_timestamp_column=self.columns.created or None,
                start_date=since or datetime(1970, 1, 1),
                end_date=until or _utc_now(),
            )
            connection.register("stored", job.to_arrow())
        return "stored"

    def _write(self, connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> int:
        columns = self.columns
        keys, event = ", ".join(map(identifier, columns.keys)), identifier(columns.event)
        names = [*columns.all, *(name for name in dataset.schema if name not in columns.all)]
        if self.folder is not None:
            self._align(names, dataset)
        else:
            names = list(columns.all)
        since, until = connection.execute(f"SELECT min({event}), max({event}) FROM given").fetchone()
        if since is None:
            return 0
        stored = self._stored(connection, since, until)
        same = " AND ".join(_same(identifier(name), dataset.schema[name]) for name in columns.values) or "true"
        version = f"ORDER BY {identifier(columns.created)} DESC" if columns.created else ""
        keyed = [identifier(name) for name in (*columns.keys, columns.event)]
        connection.execute(
            f"""CREATE TEMP TABLE fresh AS
            WITH span AS (SELECT min({event}) AS first, max({event}) AS last FROM given),
            old AS (
                SELECT * FROM {stored} WHERE {event} BETWEEN (SELECT first FROM span) AND (SELECT last FROM span)
                QUALIFY row_number() OVER (PARTITION BY {keys}, {event} {version}) = 1
            )
            SELECT {", ".join(f"given.{identifier(name)}" for name in names)}
            FROM given LEFT JOIN old ON {" AND ".join(f"given.{name} = old.{name}" for name in keyed)}
            WHERE old.{event} IS NULL OR NOT ({same})
            ORDER BY given.{event}, {", ".join(f"given.{name}" for name in keyed)}"""
        )
        rows = int(connection.execute("SELECT count(*) FROM fresh").fetchone()[0])
        if rows:
            self._append(connection, dataset)
        return rows

    def _append(self, connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
        if self.folder is None:
            view, config = self.views[0], self.place.store.config
            provider = self.place.store.provider
            order = [
                name for name, _ in provider.get_table_column_names_and_types_from_data_source(config, self.source)
            ]
            fresh = connection.execute(f"SELECT {', '.join(map(identifier, order))} FROM fresh").to_arrow_table()
            with self.place.speaking("the offline store cannot be written", "Rows may be there in part; run it again"):
                provider.ingest_df_to_offline_store(view, fresh)
            return
        written = self._scratch / "fresh.parquet"
        connection.execute(f"COPY fresh TO {literal(str(written))} (FORMAT parquet, COMPRESSION zstd)")
        self.folder.mkdir(parents=True, exist_ok=True)
        _put(written, self._target(self.folder, dataset))

    def _target(self, folder: Path, dataset: Dataset) -> Path:
        numbers = [int(file.name.removeprefix(NEW).split("-")[1]) for file in self._files() if _ours(file)]
        return folder / f"{NEW}{DONE}{max(numbers, default=0) + 1:06d}-{dataset.fingerprint[:12]}.parquet"

    def _align(self, names: Sequence[str], dataset: Dataset) -> None:
        """Give the files that are there the columns of a dataset that they lack: readers take those of the first."""
        for file in self._files():
            there = pq.read_schema(file)
            if lost := [name for name in there.names if name not in names]:
                raise self.place.refuse(
                    "features",
                    f"the rows of source {self.source.name} have {listed(lost)}, and those of this dataset do not",
                    "Compute it as before, or begin a source of another name",
                )
            other = [
                f"{name} ({there.field(name).type}, now {dataset.schema[name]})"
                for name in there.names
                if str(there.field(name).type) != dataset.schema[name]
            ]
            if other:
                problem = f"columns of source {self.source.name} have another type: {listed(other)}"
                raise self.place.refuse("features", problem, "Give them the type they had, or begin another source")
            lacking = [name for name in names if name not in there.names]
            if lacking:
                table = pq.read_table(file)
                example = pq.read_schema(dataset.files[0])
                for name in lacking:
                    table = table.append_column(example.field(name), pa.nulls(len(table), example.field(name).type))
                pq.write_table(table.select(list(names)), self._scratch / "wider.parquet", **PARQUET)
                _put(self._scratch / "wider.parquet", file)

    @staticmethod
    def _read(file: Path) -> str:
        return f"read_parquet({literal(str(file.resolve()))})"

    def _span(self, connection: duckdb.DuckDBPyConnection, relation: str) -> tuple[datetime | None, datetime | None]:
        moment = f"CAST({identifier(self.columns.event)} AS TIMESTAMPTZ)"
        first, last = connection.execute(f"SELECT min({moment}), max({moment}) FROM {relation}").fetchone()
        return first, last


def _folder(place: OpenStore, source: DataSource) -> Path | None:
    """Return the folder of a source of Parquet files on a disk; None of any other."""
    if not isinstance(source, FileSource) or not isinstance(source.file_format or ParquetFormat(), ParquetFormat):
        return None
    path = place.path(source)
    if "://" in path:
        return None
    if path.endswith(".parquet"):
        raise place.refuse(
            "source",
            f"{source.name} is the one file {source.path}, which cannot grow as a whole",
            "Name a folder in its path; files are added to it",
        )
    return Path(path)


def _ours(file: Path) -> bool:
    parts = file.name.removeprefix(NEW).split("-")
    return file.name.removeprefix(NEW).startswith(DONE) and parts[1].isdecimal()


def _put(written: Path, target: Path) -> None:
    """Move a file to its place as a whole, from whatever disk it is on."""
    unfinished = target.parent.with_name(f".{target.parent.name}.unfinished")
    with written.open("rb") as source, unfinished.open("wb") as copy:
        while chunk := source.read(1 << 22):
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    unfinished.replace(target)


def _same(name: str, kind: str) -> str:
    """Return the SQL of whether a column has the same value in both rows."""
    one, other = f"given.{name}", f"old.{name}"
    equal = f"{one} IS NOT DISTINCT FROM {other}"
    if kind in ("double", "float", "halffloat"):
        close = f"abs({one} - {other}) <= {ROUNDING} * greatest(abs({one}), abs({other}))"
        return f"({equal} OR coalesce({close}, false))"
    return equal


def _instant(moment: datetime) -> str:
    return f"TIMESTAMPTZ {literal(moment.isoformat())}"
