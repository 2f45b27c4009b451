"""An offline store for Feast that joins in bounded memory.

Name it in feature_store.yaml in place of `duckdb`, and get_historical_features itself uses it:

    offline_store:
      type: penstock.components.features.offline.StreamingOfflineStore

It joins Parquet files by DuckDB's ASOF join. Every entity row comes back, and in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.saved_dataset import SavedDatasetStorage

from penstock.components._shared.engine import identifier
from penstock.components.features.source import BATCH, bounded, is_parquet, open_source, relation

TYPE = "penstock.components.features.offline.StreamingOfflineStore"
ROW, TIME = "__penstock_row", "__penstock_time"


class StreamingOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Its part of feature_store.yaml."""

    type: Literal["penstock.components.features.offline.StreamingOfflineStore"] = TYPE  # type: ignore[assignment]


class StreamingOfflineStore(DuckDBOfflineStore):
    """Feast's DuckDB store, whose historical retrieval is a stream where the sources are Parquet files."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **options: Any,
    ) -> RetrievalJob:
        """Return a job that streams, or that of Feast's DuckDB store where it cannot."""
        if (
            options
            or filter_by_created_timestamp
            or not isinstance(entity_df, pd.DataFrame)
            or not all(is_parquet(view.batch_source) and view.entity_columns for view in feature_views)
        ):
            return DuckDBOfflineStore.get_historical_features(
                config,
                feature_views,
                feature_refs,
                entity_df,
                registry,
                project,
                full_feature_names,
                filter_by_created_timestamp,
                **options,
            )
        return StreamedJob(
            config,
            feature_views,
            feature_refs,
            OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names,
            entity_df,
        )


class StreamedJob(RetrievalJob):
    """A retrieval of the features of entity rows, which may be a data frame or, by batches(), many more rows."""

    def __init__(
        self,
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        on_demand_feature_views: list[OnDemandFeatureView],
        full_feature_names: bool,
        entity_df: pd.DataFrame,
    ) -> None:
        super().__init__()
        self._config = config
        self._views = feature_views
        self._refs = feature_refs
        self._on_demand_feature_views = on_demand_feature_views
        self._full_feature_names = full_feature_names
        self._entities = entity_df

    @property
    def full_feature_names(self) -> bool:
        """Whether features bear the names of their views."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that Feast computes of what was joined."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata:
        """Features, keys and time range."""
        timestamp = self._timestamp()
        times = self._entities[timestamp]
        return RetrievalMetadata(
            self._refs, [name for name in self._entities.columns if name != timestamp], times.min(), times.max()
        )

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Refuse: what a data frame holds, to_arrow() gives."""
        raise NotImplementedError(f"{TYPE} keeps no saved datasets; write what to_arrow() returns")

    def _timestamp(self) -> str:
        return infer_event_timestamp_from_entity_df(dict(self._entities.dtypes))

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        rows = pa.Table.from_pandas(self._entities, preserve_index=False)
        return pa.concat_tables(self._joined(pads.dataset(rows), self._timestamp())) if rows else rows

    def batches(self, entities: pads.Dataset, timestamp: str) -> Iterator[pa.Table]:
        """Yield entity rows in their order with their features, those on demand too.

        Args:
            timestamp: The entities' column of event timestamps.
        """
        for table in self._joined(entities, timestamp):
            yield _Part(table, self).to_arrow()

    def keys(self) -> dict[str, str]:
        """Return the columns that entities are found by, and of each a view that needs it."""
        return {key: view.name for view in self._views for key in _keys(view).values()}

    def feature_names(self) -> list[str]:
        """Return the names of the columns that batches() adds, without those on demand."""
        return [name for view in self._views for name, _ in self._features(view)]

    def _features(self, view: FeatureView) -> list[tuple[str, str]]:
        """Return the requested features of a view: the name of the column that comes out, and of the source's."""
        prefix = view.projection.name_to_use() + ":"
        renamed = {new: old for old, new in (view.batch_source.field_mapping or {}).items()}
        names = [reference.removeprefix(prefix) for reference in self._refs if reference.startswith(prefix)]
        full = f"{view.projection.name_alias or view.name}__" if self._full_feature_names else ""
        return [(full + name, renamed.get(name, name)) for name in dict.fromkeys(names)]

    def _joined(self, entities: pads.Dataset, timestamp: str) -> Iterator[pa.Table]:
        with bounded() as connection:
            connection.register("entities", _numbered(entities, list(self.keys()), timestamp))
            joins, columns = [], []
            for place, view in enumerate(self._views):
                join, names = self._join(place, view, connection)
                joins.append(join)
                columns += names
            connection.execute(
                f"SELECT {', '.join([*columns, f'entities.{ROW}'])} FROM entities {' '.join(joins)} "
                f"ORDER BY entities.{ROW}"
            )
            rest = Slices(entities)
            for batch in connection.to_arrow_reader(BATCH):
                table = rest.take(batch.num_rows)
                for name in self.feature_names():
                    table = table.append_column(name, batch.column(name))
                yield table

    def _join(self, place: int, view: FeatureView, connection: Any) -> tuple[str, list[str]]:
        """Return the join of a view to the entities, and the columns that come of it."""
        source, name = view.batch_source, f"view_{place}"
        renamed = {new: old for old, new in (source.field_mapping or {}).items()}

        def column(renamed_to: str) -> str:
            return identifier(renamed.get(renamed_to, renamed_to))

        keys, features = _keys(view), self._features(view)
        time = f"epoch_us({column(source.timestamp_field)})"
        picked = [f"{column(key)} AS key_{number}" for number, key in enumerate(keys)]
        picked += [f"{identifier(old)} AS feature_{number}" for number, (_, old) in enumerate(features)]
        latest = ""
        if source.created_timestamp_column:
            latest = (
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(map(column, keys))}, {time} "
                f"ORDER BY {column(source.created_timestamp_column)} DESC NULLS LAST) = 1"
            )
        rows = relation(connection, f"source_{place}", open_source(source, self._config.repo_path))
        same = [f"entities.{identifier(key)} = {name}.key_{number}" for number, key in enumerate(keys.values())]
        join = (
            f"ASOF LEFT JOIN (SELECT {', '.join(picked)}, {time} AS time FROM {rows} {latest}) {name} "
            f"ON {' AND '.join(same)} AND entities.{TIME} >= {name}.time"
        )
        alive = ""
        if view.ttl:
            alive = f" AND {name}.time >= entities.{TIME} - {view.ttl // np.timedelta64(1, 'us').item()}"
        columns = [
            f"CASE WHEN {name}.time IS NOT NULL{alive} THEN {name}.feature_{number} END AS {identifier(new)}"
            for number, (new, _) in enumerate(features)
        ]
        return join, columns


def _keys(view: FeatureView) -> dict[str, str]:
    """Return the entities' column by the view's join key."""
    return view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}


def _numbered(entities: pads.Dataset, keys: list[str], timestamp: str) -> pa.RecordBatchReader:
    """Return keys, microseconds since 1970 and the number of each row, in order."""
    schema = pa.schema([*(entities.schema.field(key) for key in keys), (TIME, pa.int64()), (ROW, pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in entities.to_batches(columns=list(dict.fromkeys([*keys, timestamp]))):
            times = batch.column(timestamp)
            micros = times.cast(pa.timestamp("us", times.type.tz), safe=False).cast(pa.int64())
            numbers = pa.array(np.arange(row, row + batch.num_rows))
            yield pa.record_batch([*(batch.column(key) for key in keys), micros, numbers], schema=schema)
            row += batch.num_rows

    return pa.RecordBatchReader.from_batches(schema, batches())


class Slices:
    """Rows of a dataset in order, in slices of the length asked for."""

    def __init__(self, dataset: pads.Dataset) -> None:
        self._schema = dataset.schema
        self._batches = dataset.to_batches(batch_readahead=1, fragment_readahead=1)
        self._left: pa.RecordBatch | None = None

    def take(self, rows: int) -> pa.Table:
        """Return so many rows, or those that are left."""
        taken = []
        while rows and (batch := self._left or next(self._batches, None)):
            taken.append(batch.slice(0, rows))
            self._left = batch.slice(rows) if batch.num_rows > rows else None
            rows -= taken[-1].num_rows
        return pa.Table.from_batches(taken, self._schema).combine_chunks()


class _Part(RetrievalJob):
    """Rows that are joined already, to which Feast adds the features on demand."""

    def __init__(self, table: pa.Table, whole: StreamedJob) -> None:
        super().__init__()
        self._table, self._whole = table, whole

    @property
    def full_feature_names(self) -> bool:
        return self._whole.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._whole.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata:
        return RetrievalMetadata(self._whole._refs, [])

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        raise NotImplementedError

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table
