"""What is materialized in bulk is, row for row, what plain Feast writes, into each online store."""

import json
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

from penstock.components.features import encode
from penstock.components.features.engine import TYPE, BulkComputeEngine
from penstock.components.features.materialize import materialize

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = 600
KINDS = {
    "small": Int32,
    "count": Int64,
    "single": Float32,
    "double": Float64,
    "text": String,
    "raw": Bytes,
    "flag": Bool,
    "moment": UnixTimestamp,
    "vector": Array(Float32),
    "words": Array(String),
}


def rows(seed: int = 0, times: int = 1) -> pa.Table:
    """Return feature rows of all kinds, with several of an entity, some made later than others of the same time."""
    random = np.random.default_rng(seed)

    def some(values: list) -> list:
        return [None if hole else value for value, hole in zip(values, random.random(ROWS) < 0.1, strict=True)]

    offsets = random.permutation(ROWS) * times
    stamps = [NOON + timedelta(seconds=int(offset) // 2, microseconds=int(offset)) for offset in offsets]
    return pa.table(
        {
            "zone": random.integers(-20, 20, ROWS),
            "company": [f"c{number}" for number in random.integers(0, 3, ROWS)],
            "happened": pa.array(stamps, pa.timestamp("us", "UTC")),
            "made": pa.array([NOON + timedelta(seconds=int(s)) for s in random.permutation(ROWS)], pa.timestamp("us")),
            "small": pa.array(some(random.integers(-1000, 1000, ROWS).tolist()), pa.int32()),
            "n": some(random.integers(-(1 << 50), 1 << 50, ROWS).tolist()),
            "single": pa.array(some(random.random(ROWS).tolist()), pa.float32()),
            "double": some(random.random(ROWS).tolist()),
            "text": some([f"é{number}" for number in range(ROWS)]),
            "raw": some([bytes([number % 256]) for number in range(ROWS)]),
            "flag": some((random.random(ROWS) < 0.5).tolist()),
            "moment": pa.array(some(stamps), pa.timestamp("us", "UTC")),
            "vector": pa.array(some(random.random((ROWS, 3)).tolist()), pa.list_(pa.float32())),
            "words": some([[f"w{number}", "x"] for number in range(ROWS)]),
        }
    )


def store_of(folder: Path, online: dict, offline: str = "file", **settings: object) -> FeatureStore:
    """Return a store, applied, whose view has two join keys, columns under other names, and all kinds of features."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "project": "bulk",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": offline},
        "online_store": online,
        "entity_key_serialization_version": 3,
        **settings,
    }
    (folder / "feature_store.yaml").write_text(json.dumps(config))
    store = FeatureStore(str(folder))
    zone = Entity(name="zone", join_keys=["zone"], value_type=ValueType.INT64)
    firm = Entity(name="firm", join_keys=["company"], value_type=ValueType.STRING)
    view = FeatureView(
        name="activity",
        entities=[zone, firm],
        ttl=timedelta(days=3650),
        schema=[
            Field(name="zone", dtype=Int64),
            Field(name="company", dtype=String),
            *(Field(name=name, dtype=kind) for name, kind in KINDS.items()),
        ],
        source=FileSource(
            path=str(folder / "rows.parquet"),
            timestamp_field="happened",
            created_timestamp_column="made",
            field_mapping={"n": "count"},
        ),
    )
    pq.write_table(rows(), folder / "rows.parquet")
    store.apply([zone, firm, view])
    return store


def answers(store: FeatureStore) -> dict:
    """Return what plain Feast reads of every entity, and one that is not there."""
    entities = [{"zone": zone, "company": f"c{number}"} for zone in range(-20, 21) for number in range(3)]
    response = FeatureStore(str(store.repo_path)).get_online_features([f"activity:{name}" for name in KINDS], entities)
    return response.to_dict(include_event_timestamps=True)


def sqlite_rows(store: FeatureStore) -> list:
    with sqlite3.connect(store.repo_path / "online.db") as connection:
        return sorted(connection.execute("SELECT * FROM bulk_activity"), key=str)


SQLITE = {"type": "sqlite", "path": "online.db"}


@pytest.fixture
def redis(redis_server) -> Callable:
    """Configurations of two databases of a Redis, and what is in one."""
    import redis as client

    address, password = redis_server.split(",password=")
    host, port = address.split(":")

    def contents(store: FeatureStore) -> dict:
        database = int(store.config.online_store.connection_string.split("db=")[1])
        connection = client.Redis(host, int(port), database, password)
        return {key: (connection.hgetall(key), connection.ttl(key) > 0) for key in connection.scan_iter()}

    def settings(number: int, **more: object) -> dict:
        client.Redis(host, int(port), number, password).flushdb()
        return {"type": "redis", "connection_string": f"{redis_server},db={number}", **more}

    settings.contents = contents
    return settings


@pytest.fixture
def postgres(postgres_server) -> Callable:
    """Configurations of schemas of a PostgreSQL, and what is in one."""
    import psycopg

    access = {name.removeprefix("POSTGRES_").lower(): value for name, value in postgres_server.items()}

    login = {("dbname" if name == "database" else name): value for name, value in access.items()}

    def table(store: FeatureStore) -> str:
        return f"{store.config.online_store.db_schema}.bulk_activity"

    def contents(store: FeatureStore) -> list:
        with psycopg.connect(**login) as connection:
            return sorted(connection.execute(f"SELECT * FROM {table(store)}").fetchall(), key=str)

    def copy(source: FeatureStore, target: FeatureStore, feature: str) -> None:
        with psycopg.connect(**login) as connection:
            rows = f"SELECT * FROM {table(source)} WHERE feature_name = %s"
            connection.execute(f"INSERT INTO {table(target)} {rows}", [feature])

    def settings(number: int) -> dict:
        return {
            "type": "postgres",
            "sslmode": "disable",
            **access,
            "port": int(access["port"]),
            "db_schema": f"schema_{os.getpid()}_{number}",
        }

    settings.contents, settings.copy = contents, copy
    return settings


def compare(tmp_path: Path, settings: Callable[[int], dict], contents: Callable[[FeatureStore], object], offline: str):
    """Materialize thrice, with plain Feast and in bulk: a range, an older one, and what has come since."""
    plain = store_of(tmp_path / "plain", settings(1), offline)
    bulk = store_of(tmp_path / "bulk", settings(2), offline)
    assert not contents(bulk)
    steps = [(NOON + timedelta(seconds=100), NOON + timedelta(seconds=250)), (NOON, NOON + timedelta(seconds=90))]
    for start, end in steps:
        plain.materialize(start, end, ["activity"])
        done = materialize(bulk, ["activity"], end, start=start)["activity"]
        assert (done.start, done.end) == (start, end)
        assert done.rows > 50
        assert contents(plain) == contents(bulk)
    for store in (plain, bulk):
        pq.write_table(rows(1, times=3), store.repo_path / "rows.parquet")
    end = NOON + timedelta(seconds=700)
    plain.materialize_incremental(end, ["activity"])
    done = materialize(bulk, ["activity"], end)["activity"]
    assert done.start == NOON + timedelta(seconds=250)  # the end of all that was materialized
    assert contents(plain) == contents(bulk)
    assert answers(plain) == answers(bulk)
    intervals = [store.get_feature_view("activity").materialization_intervals for store in (plain, bulk)]
    assert intervals[0] == intervals[1]
    return bulk


@pytest.mark.parametrize("offline", ["file", "duckdb"])
def test_sqlite_holds_what_feast_writes(tmp_path, offline):
    compare(tmp_path, lambda number: SQLITE, sqlite_rows, offline)


def test_redis_holds_what_feast_writes(tmp_path, redis):
    compare(tmp_path, redis, redis.contents, "file")


@pytest.mark.parametrize("more", [{"skip_dedup": True}, {"key_ttl_seconds": 3600}], ids=["skip_dedup", "key_ttl"])
def test_redis_is_written_as_its_settings_say(tmp_path, redis, more):
    compare(tmp_path, lambda number: redis(number, **more), redis.contents, "file")


def test_postgres_holds_what_feast_writes(tmp_path, postgres):
    compare(tmp_path, postgres, postgres.contents, "file")


def test_postgres_holds_the_times_of_feast_by_another_clock(tmp_path, postgres, monkeypatch):
    monkeypatch.setenv("PGTZ", "America/New_York")
    compare(tmp_path, lambda number: postgres(number + 2), postgres.contents, "file")


def test_postgres_takes_rows_that_another_run_has_written_since_the_table_was_empty(tmp_path, postgres, monkeypatch):
    small = {"materialization": {"online_write_batch_size": 50}}
    plain, bulk = store_of(tmp_path / "plain", postgres(5)), store_of(tmp_path / "bulk", postgres(6), **small)
    plain.materialize(NOON, NOON + HOUR, ["activity"])
    keys, calls = encode.entity_keys, []

    def beside_another(*given: object) -> list[bytes]:
        calls.append(given)
        if len(calls) == 1:
            postgres.copy(plain, bulk, "text")
        return keys(*given)

    monkeypatch.setattr(encode, "entity_keys", beside_another)
    materialize(bulk, ["activity"], NOON + HOUR, start=NOON)

    assert len(calls) > 2
    assert postgres.contents(plain) == postgres.contents(bulk)


def test_feast_itself_writes_in_bulk_where_the_repository_says_so(tmp_path):
    plain = store_of(tmp_path / "plain", SQLITE)
    bulk = store_of(tmp_path / "bulk", SQLITE, batch_engine={"type": TYPE})
    for store in (plain, bulk):
        store.materialize(NOON, NOON + HOUR, ["activity"])

    assert bulk.provider.batch_engine.rows == {"activity": len(sqlite_rows(bulk)) // len(KINDS)}
    assert sqlite_rows(plain) == sqlite_rows(bulk)


def test_a_batch_is_as_many_rows_as_the_configuration_says(tmp_path, monkeypatch):
    sizes = []
    keys = encode.entity_keys
    monkeypatch.setattr(encode, "entity_keys", lambda *given: sizes.append(len(keys(*given))) or keys(*given))
    store = store_of(tmp_path, SQLITE, materialization={"online_write_batch_size": 50})

    done = materialize(store, ["activity"], NOON + HOUR, start=NOON)["activity"]

    assert max(sizes) == 50
    assert sum(sizes) == done.rows == len(sqlite_rows(store)) // len(KINDS)


def test_an_interrupted_run_is_not_noted_and_can_be_repeated(tmp_path, monkeypatch):
    store = store_of(tmp_path, SQLITE, materialization={"online_write_batch_size": 20})
    keys, calls = encode.entity_keys, []

    def interrupted(*given: object) -> list[bytes]:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return keys(*given)

    monkeypatch.setattr(encode, "entity_keys", interrupted)
    with pytest.raises(KeyboardInterrupt):
        materialize(store, ["activity"], NOON + HOUR, start=NOON)
    assert len(sqlite_rows(store)) == 40 * len(KINDS)
    assert not store.get_feature_view("activity").materialization_intervals

    done = materialize(store, ["activity"], NOON + HOUR, start=NOON)["activity"]

    assert len(sqlite_rows(store)) == done.rows * len(KINDS) > 40 * len(KINDS)
    assert len(store.get_feature_view("activity").materialization_intervals) == 1


@pytest.mark.parametrize("cause", ["view", "store"])
def test_what_cannot_be_written_in_bulk_is_written_by_feast_and_counted(tmp_path, monkeypatch, cause):
    monkeypatch.delattr(BulkComputeEngine, "_stream")
    online = {**SQLITE, "enable_openai_compatible_store": cause == "store"}
    plain, bulk = store_of(tmp_path / "plain", online), store_of(tmp_path / "bulk", online)
    if cause == "view":  # Feast holds what it reads to the schema
        for store in (plain, bulk):
            view = store.get_feature_view("activity")
            view.enable_validation = True
            store.apply([view])
    plain.materialize(NOON, NOON + HOUR, ["activity"])

    done = materialize(bulk, ["activity"], NOON + HOUR, start=NOON)["activity"]

    assert sqlite_rows(plain) == sqlite_rows(bulk)
    assert done.rows == len(sqlite_rows(bulk)) // len(KINDS)


def test_a_source_that_is_not_there_fails_and_notes_nothing(tmp_path):
    store = store_of(tmp_path, SQLITE)
    (tmp_path / "rows.parquet").unlink()

    with pytest.raises(FileNotFoundError, match=r"rows\.parquet"):
        materialize(store, ["activity"], NOON + HOUR, start=NOON)
    assert not store.get_feature_view("activity").materialization_intervals
