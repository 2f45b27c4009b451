"""Point-in-time-correct training sets: entity rows and the features that were known at their time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from feast import FeatureService, FeatureStore

from penstock.components._shared.errors import UserError
from penstock.components.features.engine import OFFLINE_STORES
from penstock.components.features.offline import ROW, TYPE, Slices, StreamedJob

EVENT_TIMESTAMP = "event_timestamp"
PART_ROWS = 1 << 20  # of a part file
ROW_GROUP = 122_880
# By itself Arrow keeps all that it has read of a file until its end.
PARQUET = pads.ParquetFileFormat(default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=False))


@dataclass(frozen=True)
class Joined:
    """What a join did.

    Attributes:
        rows: Entity rows, all of which came back.
        missing: Rows without a value, by feature: none was known at their time, it was older than the TTL, or is null.
    """

    rows: int
    missing: Mapping[str, int]


def historical(
    store: FeatureStore,
    entities: pads.Dataset | Sequence[str | os.PathLike[str]],
    features: FeatureService | list[str],
    output: str | os.PathLike[str],
    *,
    timestamp: str,
) -> Joined:
    """Write entity rows with the features that were known at their time, and return what is missing.

    For each row and feature view it takes the newest feature row that is no newer than the row and no older than the
    view's TTL; of those with one time, the one created last.

    Args:
        entities: Rows with join keys, event timestamps and what on-demand views request; or Parquet files of such.
        features: A feature service, or references as "view:feature".
        output: Folder for part files (Parquet): every entity row, in order, its columns first, then the features.
        timestamp: Column of event timestamps; those without a time zone are in UTC.

    Raises:
        UserError: A key or timestamps are missing or are none, or entities have a column of a feature's name.
    """
    if not isinstance(entities, pads.Dataset):
        entities = pads.dataset([os.fspath(path) for path in entities], format=PARQUET)
    _check_times(entities, timestamp)
    _check_names(entities, features)
    rows, missing = 0, dict[str, int]()
    with _Parts(Path(output)) as parts:
        for table in _tables(store, entities, features, timestamp):
            rows += table.num_rows
            for name in table.column_names[len(entities.schema) :]:
                missing[name] = missing.get(name, 0) + table.column(name).null_count
            parts.write(table)
    return Joined(rows, missing)


def _tables(
    store: FeatureStore, entities: pads.Dataset, features: FeatureService | list[str], timestamp: str
) -> Iterator[pa.Table]:
    if store.config.offline_store.type in OFFLINE_STORES:
        config = store.config.model_copy()
        config.offline_config, config._offline_store = {"type": TYPE}, None
        store = FeatureStore(repo_path=str(store.repo_path), config=config)
        job = store.get_historical_features(_frame(entities.schema.empty_table(), timestamp), features)
        if isinstance(job, StreamedJob):
            _check_keys(entities, job)
            return job.batches(entities, timestamp)
    return _by_feast(store, entities, features, timestamp)


def _by_feast(
    store: FeatureStore, entities: pads.Dataset, features: FeatureService | list[str], timestamp: str
) -> Iterator[pa.Table]:
    """Yield what the store's own get_historical_features returns, a part of the rows a call, in their order."""
    slices = Slices(entities)
    while rows := slices.take(PART_ROWS):
        numbers = pa.array(range(rows.num_rows), pa.int64())
        frame = _frame(rows.append_column(ROW, numbers), timestamp)
        answer = store.get_historical_features(frame, features).to_arrow()
        joined = pa.table({ROW: numbers}).join(answer, ROW).sort_by(ROW)  # with the rows that a store leaves out
        for name in joined.column_names:
            if name not in (ROW, EVENT_TIMESTAMP, *rows.column_names):
                rows = rows.append_column(name, joined.column(name))
        yield rows


def _frame(rows: pa.Table, timestamp: str) -> pd.DataFrame:
    """Return rows as Feast takes them, which finds the time of a row by the name of its column.

    The column keeps its own name as well, by which an on-demand view may request it.
    """
    if timestamp != EVENT_TIMESTAMP:
        rows = rows.append_column(EVENT_TIMESTAMP, rows.column(timestamp))
    return rows.to_pandas()


def _check_times(entities: pads.Dataset, timestamp: str) -> None:
    names = entities.schema.names
    if timestamp not in names:
        raise _refusal(f"there is no column {timestamp!r} of timestamps", f"The columns are {', '.join(names)}")
    kind = entities.schema.field(timestamp).type
    if not pa.types.is_timestamp(kind):
        raise _refusal(f"column {timestamp!r} is {kind}, not timestamps", "Convert it, with its time zone")
    if nulls := sum(batch.column(0).null_count for batch in entities.to_batches(columns=[timestamp])):
        raise _refusal(
            f"{nulls:,} rows have no {timestamp!r}", "Give each the time at which its features must be known"
        )


def _check_names(entities: pads.Dataset, features: FeatureService | list[str]) -> None:
    if isinstance(features, FeatureService):
        names = [feature.name for view in features.feature_view_projections for feature in view.features]
    else:
        names = [reference.partition(":")[2] for reference in features]
    if twice := sorted(set(names) & set(entities.schema.names)):
        raise _refusal(f"{twice[0]!r} is a feature's name too", "Rename that column, or leave it out")


def _check_keys(entities: pads.Dataset, job: StreamedJob) -> None:
    names = entities.schema.names
    for key, view in job.keys().items():
        if key not in names:
            raise _refusal(f"there is no column {key!r}, a key of {view!r}", f"The columns are {', '.join(names)}")


def _refusal(problem: str, remedy: str) -> UserError:
    return UserError("retrieve_features", "entities", problem, remedy)


class _Parts:
    """Writes tables as part files whose columns have one type throughout."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._files = self._rows = 0

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def write(self, table: pa.Table) -> None:
        self._schema = self._schema or table.schema
        if self._file is None or self._rows + table.num_rows > PART_ROWS:
            self.__exit__()
            self._file = pq.ParquetWriter(self._folder / f"part-{self._files:05}.parquet", self._schema)
            self._files, self._rows = self._files + 1, 0
        self._file.write_table(table.cast(self._schema), row_group_size=ROW_GROUP)
        self._rows += table.num_rows
