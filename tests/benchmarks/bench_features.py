"""Materialization and historical retrieval beside plain Feast's, each measured in a process of its own.

Plain Feast runs with its defaults: the local engine, the file (dask) offline store. Where features are materialized,
each row is an entity of its own, so that every row is written; where they are joined, an entity has ten. The smaller
number of rows, which takes seconds, is written TURNS times, ours and plain in turn; the turn of the median ratio is
the one that counts.

PENSTOCK_BENCH_FEATURES_ROWS sets the larger number of rows, a million if it is not set; the smaller is a tenth.
PENSTOCK_BENCH_FEATURES_STORES names the online stores to write to, all three if it is not set.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from feast import FeatureStore

ROWS = int(os.environ.get("PENSTOCK_BENCH_FEATURES_ROWS", 1_000_000))
STORES = os.environ.get("PENSTOCK_BENCH_FEATURES_STORES", "SQLite Redis PostgreSQL").split()
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
FEATURES = ["trips", "mean_distance", "mean_fare", "tip_share"]
REFERENCES = [f"zone_hourly:{name}" for name in FEATURES]
MIB = 1 << 20
TURNS = 3


def run(scratch: Path) -> list[dict]:
    # Kept out of what only reads the list of benchmarks.
    from tests.components.features.conftest import serving_postgres, serving_redis

    with serving_redis() as redis, serving_postgres() as postgres:
        access = {name.removeprefix("POSTGRES_").lower(): value for name, value in postgres.items()}
        stores: dict[str, Callable[[int], dict]] = {
            "SQLite": lambda number: {"type": "sqlite", "path": "online.db"},
            "Redis": lambda number: {"type": "redis", "connection_string": f"{redis},db={number}"},
            "PostgreSQL": lambda number: {"type": "postgres", **access, "db_schema": f"bench_{number}"},
        }
        sizes = (ROWS // 10, ROWS)
        joins = [("join_plain", rows, "SQLite", store, 0) for rows in sizes for store in ("file", "duckdb")]
        joins += [("join_ours", rows, "SQLite", "file", 0) for rows in sizes]
        writes = [
            (f"materialize_{who}", rows, name, "file", turn)
            for name in STORES
            for rows, turns in zip(sizes, (TURNS, 1), strict=True)
            for turn in range(turns)
            for who in ("plain", "ours")
        ]
        repositories = [
            {
                "folder": str(scratch / str(number)),
                "rows": rows,
                "entities": rows if what.startswith("materialize") else rows // 10,
                "online": stores[name](number),
                "offline": offline,
            }
            for number, (what, rows, name, offline, _) in enumerate([*joins, *writes])
        ]
        process("write", repositories)
        found = {
            asked: process(asked[0], repository["folder"])
            for asked, repository in zip([*joins, *writes], repositories, strict=True)
        }
    results = []
    for name in STORES:
        few, many = (median(found, rows, name) for rows in sizes)
        for rows, (ours, plain) in zip(sizes, (few, many), strict=True):
            results += beside(f"materialize {rows:,} rows into {name}", "materialize", rows, ours, plain)
        results.append(flat(f"materialize into {name}", few[0], many[0]))
    for rows in sizes:
        ours = found["join_ours", rows, "SQLite", "file", 0]
        for store in ("file", "duckdb"):
            plain = found["join_plain", rows, "SQLite", store, 0]
            feast = f"get_historical_features, offline store {store}"
            results += beside(f"join features to {rows:,} rows", feast, rows, ours, plain)
    results.append(flat("join features", *(found["join_ours", rows, "SQLite", "file", 0] for rows in sizes)))
    return results


def median(found: dict[tuple, dict], rows: int, store: str) -> tuple[dict, dict]:
    """Return ours and plain of the turn whose ratio of seconds is the median."""
    turns = [
        (ours, found["materialize_plain", *which])
        for (what, *which), ours in found.items()
        if what == "materialize_ours" and which[:2] == [rows, store]
    ]
    return sorted(turns, key=lambda turn: turn[0]["seconds"] / turn[1]["seconds"])[len(turns) // 2]


def process(what: str, given: object) -> dict:
    """Return the seconds of one of DOING and the bytes of its process at their peak, Feast's own 300 MB among them."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_features", what]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def beside(what: str, feast: str, rows: int, ours: dict, plain: dict) -> list[dict]:
    rate, baseline = rows / ours["seconds"], rows / plain["seconds"]
    memory, plain_memory = ours["bytes"] / MIB, plain["bytes"] / MIB
    return [
        {
            "name": f"{what}, beside Feast's {feast}",
            "ours": rate,
            "baseline": baseline,
            "unit": "rows/s",
            "ratio": rate / baseline,
            "goal": "at least 3 times",
            "met": rate >= 3 * baseline,
        },
        {
            "name": f"peak memory: {what}, beside Feast's {feast}",
            "ours": memory,
            "baseline": plain_memory,
            "unit": "MiB",
            "ratio": memory / plain_memory,
            "goal": "–",
            "met": None,
        },
    ]


def flat(what: str, few: dict, many: dict) -> dict:
    return {
        "name": f"peak memory: {what}, {ROWS:,} rows beside {ROWS // 10:,}",
        "ours": many["bytes"] / MIB,
        "baseline": few["bytes"] / MIB,
        "unit": "MiB",
        "ratio": many["bytes"] / few["bytes"],
        "goal": "at most 2 times",
        "met": many["bytes"] <= 2 * few["bytes"],
    }


def write(repositories: list[dict]) -> None:
    for repository in repositories:
        folder = Path(repository.pop("folder"))
        write_one(folder, **repository)
    print("{}")


def write_one(folder: Path, rows: int, entities: int, online: dict, offline: str) -> None:
    """Write a repository, its features and rows to join them to."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32, Float64, Int64

    folder.mkdir()
    random = np.random.default_rng(7)
    month = int((END - START).total_seconds())

    def moments() -> pa.Array:
        seconds = pa.array(int(START.timestamp()) + random.integers(0, month, rows), pa.int64())
        return seconds.cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))

    features = {
        "zone": random.permutation(rows) % entities,
        "event_timestamp": moments(),
        "trips": random.integers(0, 500, rows),
        "mean_distance": random.gamma(2, 2, rows),
        "mean_fare": random.gamma(3, 5, rows).astype(np.float32),
        "tip_share": random.random(rows),
    }
    pq.write_table(pa.table(features), folder / "features.parquet")
    rides = {"ride": np.arange(rows), "zone": random.integers(0, entities, rows), "event_timestamp": moments()}
    pq.write_table(pa.table(rides), folder / "rides.parquet")
    config = {
        "project": "bench",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": offline},
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(json.dumps(config))
    zone = Entity(name="zone", join_keys=["zone"], value_type=ValueType.INT64)
    kinds = {"trips": Int64, "mean_distance": Float64, "mean_fare": Float32, "tip_share": Float64}
    view = FeatureView(
        name="zone_hourly",
        entities=[zone],
        ttl=timedelta(days=7),
        schema=[Field(name="zone", dtype=Int64), *(Field(name=name, dtype=kind) for name, kind in kinds.items())],
        source=FileSource(path=str(folder / "features.parquet"), timestamp_field="event_timestamp"),
    )
    FeatureStore(str(folder)).apply([zone, view])


def materialize_plain(folder: str) -> None:
    from feast import FeatureStore

    store = loaded(FeatureStore(folder))
    with doing():
        store.materialize(START, END, ["zone_hourly"])


def materialize_ours(folder: str) -> None:
    from feast import FeatureStore

    from penstock.components.features.materialize import materialize

    store = loaded(FeatureStore(folder))
    with doing():
        materialize(store, ["zone_hourly"], END, start=START)


def join_plain(folder: str) -> None:
    import pandas as pd
    from feast import FeatureStore

    store = loaded(FeatureStore(folder))
    with doing():
        rides = pd.read_parquet(Path(folder, "rides.parquet"))
        job = store.get_historical_features(rides, REFERENCES)
        pq.write_table(job.to_arrow(), Path(folder, "joined.parquet"))


def join_ours(folder: str) -> None:
    from feast import FeatureStore

    from penstock.components.features.historical import historical

    store = loaded(FeatureStore(folder))
    with doing():
        rides = [Path(folder, "rides.parquet")]
        historical(store, rides, REFERENCES, Path(folder, "joined"), timestamp="event_timestamp")


def loaded(store: "FeatureStore") -> "FeatureStore":
    """Return a store whose modules are imported, which Feast does at their first use."""
    assert store.provider.offline_store
    assert store.provider.online_store
    assert store.provider.batch_engine
    return store


@contextlib.contextmanager
def doing() -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "bytes": int(peak.split()[1]) * 1024}))


DOING = {action.__name__: action for action in (write, materialize_plain, materialize_ours, join_plain, join_ours)}

if __name__ == "__main__":
    DOING[sys.argv[1]](json.loads(sys.stdin.read()))
