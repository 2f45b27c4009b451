"""A compute engine for Feast that materializes in bulk.

Name it in feature_store.yaml, and `feast materialize` itself uses it:

    batch_engine:
      type: penstock.components.features.engine.BulkComputeEngine

It streams the latest row of each entity out of Parquet files with DuckDB, and writes in the form of Feast's own online
store. What it cannot do it leaves to the local engine of Feast, which it derives from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.backends.pandas_backend import PandasBackend
from feast.infra.compute_engines.dag.context import ColumnInfo, ExecutionContext
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry

from penstock.components._shared.engine import identifier
from penstock.components.features import encode
from penstock.components.features.source import bounded, instant, is_parquet, open_source, relation
from penstock.components.features.writers import Rows, Writer, writer_for

TYPE = "penstock.components.features.engine.BulkComputeEngine"
WRITTEN = 16_384  # rows a call of a writer, while which the next ones are encoded
OFFLINE_STORES = ("dask", "file", "duckdb")  # those that read the files which DuckDB reads here


class BulkComputeEngineConfig(LocalComputeEngineConfig):
    """Its part of feature_store.yaml."""

    type: Literal["penstock.components.features.engine.BulkComputeEngine"] = TYPE  # type: ignore[assignment]


class BulkComputeEngine(LocalComputeEngine):
    """Materializes Parquet files into SQLite, PostgreSQL or Redis in batches.

    Attributes:
        rows: How many entities it wrote, by feature view.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.rows: dict[str, int] = {}

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **options: Any
    ) -> LocalMaterializationJob:
        self.rows[task.feature_view.name] = 0
        writer = writer_for(self.repo_config)
        if writer is None or not self._reads(task):
            return super()._materialize_one(registry, task, **options)
        name = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            self._stream(registry, task, writer)
        except Exception as error:
            return LocalMaterializationJob(job_id=name, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=name, status=MaterializationJobStatus.SUCCEEDED)

    def get_execution_context(self, registry: BaseRegistry, task: Any) -> ExecutionContext:
        """Return what Feast's own nodes run in, with an online store that counts."""
        context = super().get_execution_context(registry, task)
        return dataclasses.replace(context, online_store=_Counted(context.online_store, self.rows))

    def _reads(self, task: MaterializationTask) -> bool:
        view = task.feature_view
        return (
            type(view) is FeatureView
            and self.repo_config.offline_store.type in OFFLINE_STORES
            and is_parquet(view.batch_source)
            and view.stream_source is None
            and not view.source_views
            and bool(view.entity_columns and view.features)
            and view.online
            and not view.offline
            and task.only_latest
            and not any(
                getattr(view, extra, None)
                for extra in ("filter", "aggregations", "feature_transformation", "enable_validation")
            )
            and not any(field.vector_index for field in view.features)
        )

    def _stream(self, registry: BaseRegistry, task: MaterializationTask, writer: Writer) -> None:
        view = task.feature_view
        columns = LocalFeatureBuilder(registry, task, PandasBackend()).get_column_info(view)
        found = self._formed(task, columns, writer)
        # The next rows are made while the store takes these.
        opened = writer.open(self.repo_config, view, self.online_store)
        with opened as write, closing(found), ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(next, found, None)
            while batch := coming.result():
                coming = ahead.submit(next, found, None)
                count, rows = batch
                write(rows)
                self.rows[view.name] += count

    def _formed(
        self, task: MaterializationTask, columns: ColumnInfo, writer: Writer
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield the rows of `_latest` as the writer takes them, and how many."""
        view, version = task.feature_view, self.repo_config.entity_key_serialization_version
        kinds = {entity.name: entity.dtype.to_value_type() for entity in view.entity_columns}
        created = columns.created_timestamp_column
        for batch in self._latest(task, columns):
            rows = Rows(
                encode.entity_keys({name: batch.column(name) for name in kinds}, kinds, version),
                {
                    feature.name: encode.values(batch.column(feature.name), feature.dtype.to_value_type())
                    for feature in view.features
                },
                encode.instants(batch.column(columns.timestamp_column)),
                encode.instants(batch.column(created)) if created else None,
            )
            yield len(rows.keys), writer.form(rows)

    def _latest(self, task: MaterializationTask, columns: ColumnInfo) -> Iterator[pa.RecordBatch]:
        """Yield the latest row of each entity in the time range, both ends included, under the names of the view."""
        dataset = open_source(task.feature_view.batch_source, self.repo_config.repo_path)
        times = identifier(columns.ts_col)
        kind = dataset.schema.field(columns.ts_col).type
        order = [times, *([identifier(columns.created_ts_col)] if columns.created_ts_col else [])]
        wanted = dict.fromkeys((*columns.join_keys, *columns.feature_cols, columns.ts_col, columns.created_ts_col))
        mapping = columns.field_mapping or {}
        keys = sorted(columns.join_keys, key=lambda name: mapping.get(name, name))
        with bounded() as connection:
            picked = [f"{identifier(name)} AS {identifier(mapping.get(name, name))}" for name in wanted if name]
            connection.execute(
                f"SELECT {', '.join(picked)} "
                f"FROM {relation(connection, 'source', dataset)} "
                f"WHERE {times} BETWEEN {instant(task.start_time, kind)} AND {instant(task.end_time, kind)} "
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(map(identifier, keys))} "
                f"ORDER BY {', '.join(f'{column} DESC NULLS LAST' for column in order)}) = 1 "
                f"ORDER BY {', '.join(_index_order(name, dataset.schema.field(name).type) for name in keys)}"
            )
            size = self.repo_config.materialization_config.online_write_batch_size or WRITTEN
            yield from connection.to_arrow_reader(size)


def _index_order(key: str, kind: pa.DataType) -> str:
    """Return what orders rows about as a store's index orders serialized keys, so that a batch meets few of its pages.

    Integers are serialized from the lowest byte up, texts after their length.
    """
    name = identifier(key)
    if pa.types.is_integer(kind):
        return f"(({name} & 255) << 16) | ({name} & 65280) | (({name} >> 16) & 255)"
    return f"strlen({name}), {name}" if pa.types.is_string(kind) else name


class _Counted:
    """An online store that counts the rows it is given."""

    def __init__(self, store: Any, rows: dict[str, int]) -> None:
        self._store, self._rows = store, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def online_write_batch(self, config: Any, table: Any, data: list, progress: Any) -> None:
        self._store.online_write_batch(config, table, data, progress)
        self._rows[table.name] += len(data)
