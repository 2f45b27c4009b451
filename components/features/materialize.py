"""Materialize feature views as Feast does, by the engine of this package where Feast's own local one would run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from feast import FeatureStore

from penstock.components.features.engine import TYPE, BulkComputeEngine


@dataclass(frozen=True)
class Materialized:
    """What a feature view's materialization did.

    Attributes:
        rows: Entities whose row was written to the online store; -1 where the engine of the store does not tell.
        start: Begin of the time range of event timestamps, included.
        end: Its end, included.
    """

    rows: int
    start: datetime
    end: datetime


def materialize(
    store: FeatureStore, views: Sequence[str], end: datetime, *, start: datetime | None = None
) -> Mapping[str, Materialized]:
    """Write the latest feature values of each entity to the online store, and return what was written, by view.

    It is Feast's own `materialize` or `materialize_incremental`, with its checks and what it notes in the registry;
    only the local engine is replaced, see penstock.components.features.engine. An interrupted one has written some
    entities and noted nothing: the next one writes the same time range again.

    Args:
        views: Names of feature views.
        end: Latest event timestamp, included.
        start: Earliest event timestamp, included. Without it, a view's range begins where its last materialization
            ended, or its TTL before now.
    """
    bulk = _with_bulk_engine(store)
    done = {}
    try:
        for name in views:
            if start is None:
                bulk.materialize_incremental(end, [name])
            else:
                bulk.materialize(start, end, [name])
            intervals = bulk.get_feature_view(name).materialization_intervals
            engine = bulk.provider.batch_engine
            rows = engine.rows[name] if isinstance(engine, BulkComputeEngine) else -1
            done[name] = Materialized(rows, *intervals[-1])
    finally:
        store.refresh_registry()
    return done


def _with_bulk_engine(store: FeatureStore) -> FeatureStore:
    configured = store.config.batch_engine_config
    if (configured["type"] if isinstance(configured, dict) else configured) != "local":
        return store
    config = store.config.model_copy()
    config.batch_engine_config = {"type": TYPE}
    return FeatureStore(repo_path=str(store.repo_path), config=config)
