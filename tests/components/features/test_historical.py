"""Point-in-time joins, held to plain Feast and to a search row by row."""

import importlib.util
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

from penstock.components._shared.errors import UserError
from penstock.components.features import historical as module
from penstock.components.features.historical import Joined, historical
from penstock.components.features.offline import TYPE

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UTC_TIME = pa.timestamp("us", "UTC")


def times(hours: Sequence[float]) -> pa.Array:
    return pa.array([NOON + hour * HOUR for hour in hours], UTC_TIME)


def store_of(folder: Path, offline: str = "file", **columns: pa.Table) -> FeatureStore:
    """Return a store, applied, of a view a table, each with a TTL of three hours."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "project": "joins",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": offline},
        "online_store": {"type": "sqlite", "path": "online.db"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(json.dumps(config))
    store, zone = FeatureStore(str(folder)), Entity(name="zone", join_keys=["zone"], value_type=ValueType.INT64)
    objects: list = [zone]
    for name, table in columns.items():
        pq.write_table(table, folder / f"{name}.parquet")
        created = "made" if "made" in table.column_names else None
        kinds = {pa.int64(): Int64, pa.float64(): Float64, pa.string(): String}
        objects.append(
            FeatureView(
                name=name,
                entities=[zone],
                ttl=3 * HOUR,
                schema=[
                    Field(name=field.name, dtype=kinds[field.type]) for field in table.schema if field.type in kinds
                ],
                source=FileSource(
                    path=str(folder / f"{name}.parquet"), timestamp_field="at", created_timestamp_column=created or ""
                ),
            )
        )
    store.apply(objects)
    return store


def joined(store: FeatureStore, rows: pa.Table, features: list[str] | FeatureService) -> tuple[pa.Table, Joined]:
    output = store.repo_path / "joined"
    answer = historical(store, pads.dataset(rows), features, output, timestamp="time")
    return pa.concat_tables(pq.read_table(part) for part in sorted(output.glob("part-*.parquet"))), answer


def test_the_newest_row_within_the_ttl_is_taken_and_every_entity_row_comes_back_in_order(tmp_path):
    store = store_of(tmp_path, counts=pa.table({"zone": [1, 1, 2], "at": times([0, 1, 0]), "trips": [10, 11, 20]}))
    rows = pa.table({"zone": [2, 1, 1, 1, 1, 9, None, 2], "time": times([3, 1, 0.5, -1, 4.01, 1, 1, 3.01])})

    table, answer = joined(store, rows, ["counts:trips"])

    assert table.select(["zone", "time"]).equals(rows)
    assert table["trips"].to_pylist() == [20, 11, 10, None, None, None, None, None]
    assert answer == Joined(rows=8, missing={"trips": 5})


def test_of_rows_of_one_time_that_made_last_is_taken(tmp_path):
    counts = pa.table({"zone": [1] * 3, "at": times([0] * 3), "made": times([1, 3, 2]), "trips": [10, 30, 20]})
    table, _ = joined(store_of(tmp_path, counts=counts), pa.table({"zone": [1], "time": times([1])}), ["counts:trips"])

    assert table["trips"].to_pylist() == [30]


def test_equal_entity_rows_all_come_back(tmp_path):
    store = store_of(tmp_path, counts=pa.table({"zone": [1], "at": times([0]), "trips": [10]}))

    table, _ = joined(store, pa.table({"zone": [1, 1], "time": times([1, 1]), "tip": [0.5, 0.7]}), ["counts:trips"])

    assert table.to_pydict()["tip"] == [0.5, 0.7]
    assert table.to_pydict()["trips"] == [10, 10]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms", "America/New_York")], ids=str
)
def test_columns_of_entities_keep_their_types(tmp_path, kind):
    store = store_of(tmp_path, counts=pa.table({"zone": [1], "at": times([0]).cast(pa.timestamp("us")), "trips": [10]}))
    rows = pa.table({"time": times([0]).cast(pa.timestamp("us")).cast(kind), "zone": pa.array([1], pa.int32())})
    if kind.tz:
        rows = rows.set_column(0, "time", times([0]).cast(kind))

    table, _ = joined(store, rows, ["counts:trips"])

    assert table.schema.field("time").type == kind
    assert table.schema.field("zone").type == pa.int32()
    assert table["trips"].to_pylist() == [10]


def some_features(random: np.random.Generator, rows: int) -> pa.Table:
    return pa.table(
        {
            "zone": random.integers(0, 20, rows),
            "at": times((random.permutation(rows) / 40).tolist()),
            "trips": pa.array([int(n) if n else None for n in random.integers(0, 4, rows)], pa.int64()),
            "fare": random.random(rows),
            "word": [f"é{number}" for number in range(rows)],
        }
    )


def test_a_join_of_two_views_is_that_of_feast_and_of_a_search_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.components.features.offline.BATCH", 128)  # so that there are many
    random = np.random.default_rng(5)
    one, two = some_features(random, 500), some_features(random, 500).rename_columns({"fare": "tip"})
    store = store_of(tmp_path, "duckdb", one=one, two=two)
    rows = pa.table({"ride": range(700), "zone": random.integers(0, 21, 700), "time": times(random.random(700) * 14)})
    features = ["one:trips", "one:fare", "one:word", "two:tip"]

    table, answer = joined(store, rows, features)

    frame = rows.to_pandas().rename(columns={"time": "event_timestamp"})
    plain = store.get_historical_features(frame, features).to_arrow().sort_by("ride")
    assert table.column_names == ["ride", "zone", "time", "trips", "fare", "word", "tip"]
    for name in ("ride", "trips", "fare", "word", "tip"):
        assert table[name].to_pylist() == plain[name].to_pylist(), name
    for ride in table.to_pylist():
        known = [
            row
            for row in one.to_pylist()
            if row["zone"] == ride["zone"] and ride["time"] - 3 * HOUR <= row["at"] <= ride["time"]
        ]
        assert ride["word"] == (max(known, key=lambda row: row["at"])["word"] if known else None)
    assert answer.rows == 700
    assert answer.missing == {name.split(":")[1]: table[name.split(":")[1]].null_count for name in features}


def test_features_on_demand_are_those_of_feast(tmp_path):
    store = store_of(tmp_path, counts=pa.table({"zone": [1], "at": times([0]), "trips": [10], "fare": [2.5]}))
    request = RequestSource(name="request", schema=[Field(name="miles", dtype=Float64)])
    counts = store.get_feature_view("counts")

    @on_demand_feature_view(sources=[counts, request], schema=[Field(name="fare_a_mile", dtype=Float64)])
    def rates(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"fare_a_mile": inputs["fare"] / inputs["miles"]})

    service = FeatureService(name="both", features=[counts[["trips"]], rates])
    store.apply([rates, service])
    rows = pa.table({"zone": [1, 1], "time": times([1, -1]), "miles": [2.0, 2.0]})

    table, answer = joined(store, rows, store.get_feature_service("both"))

    assert table["fare_a_mile"].to_pylist() == [1.25, None]
    assert answer.missing["fare_a_mile"] == 1
    with pytest.raises(Exception, match="miles"):
        joined(store, rows.drop_columns(["miles"]), store.get_feature_service("both"))


def test_a_view_may_be_joined_by_columns_and_features_of_other_names(tmp_path):
    store = store_of(tmp_path, "duckdb")
    pq.write_table(pa.table({"place": [1, 2], "at": times([0, 0]), "n": [10, 20]}), tmp_path / "renamed.parquet")
    source = FileSource(
        path=str(tmp_path / "renamed.parquet"), timestamp_field="at", field_mapping={"place": "zone", "n": "trips"}
    )
    view = FeatureView(
        name="renamed", entities=[store.get_entity("zone")], schema=[Field(name="trips", dtype=Int64)], source=source
    )
    service = FeatureService(name="ends", features=[view.with_join_key_map({"zone": "dropoff"})])
    store.apply([view, service])

    table, _ = joined(store, pa.table({"dropoff": [2], "time": times([1])}), store.get_feature_service("ends"))

    assert table["trips"].to_pylist() == [20]


def test_part_files_are_cut_at_a_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 1000)
    monkeypatch.setattr("penstock.components.features.offline.BATCH", 512)
    store = store_of(tmp_path, counts=pa.table({"zone": [1], "at": times([0]), "trips": [10]}))

    rows = pa.table({"zone": [1] * 5000, "time": times([1] * 5000), "ride": range(5000)})
    table, answer = joined(store, rows, ["counts:trips"])

    assert len(list((tmp_path / "joined").iterdir())) > 2
    assert table["ride"].to_pylist() == list(range(5000))
    assert answer.missing == {"trips": 0}


class UnorderedOfflineStoreConfig(DuckDBOfflineStoreConfig):
    type: str = "tests.components.features.test_historical.UnorderedOfflineStore"


class UnorderedOfflineStore(DuckDBOfflineStore):
    """A store of another type, which leaves out rows without features and returns the others backwards."""

    @staticmethod
    def get_historical_features(*arguments: object, **options: object):
        job = DuckDBOfflineStore.get_historical_features(*arguments, **options)
        job.table = job.table.filter(job.table.trips.notnull()).order_by(job.table.zone.desc())
        return job


def test_a_store_of_another_type_joins_itself_and_all_rows_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 2)
    counts = pa.table({"zone": [1, 2, 3], "at": times([0, 0, 0]), "trips": [10, 20, 30]})
    store = store_of(tmp_path, UnorderedOfflineStoreConfig().type, counts=counts)
    rows = pa.table({"zone": [1, 9, 3, 2, 3], "time": times([1] * 5)})

    table, answer = joined(store, rows, ["counts:trips"])

    assert table.to_pydict() == {**rows.to_pydict(), "trips": [10, None, 30, 20, 30]}
    assert answer == Joined(rows=5, missing={"trips": 1})


def test_feast_itself_streams_where_the_repository_says_so(tmp_path):
    store = store_of(tmp_path, TYPE, counts=pa.table({"zone": [1, 2], "at": times([0, 0]), "trips": [10, 20]}))
    frame = pd.DataFrame({"zone": [2, 9, 1], "event_timestamp": [NOON] * 3})

    answer = store.get_historical_features(frame, ["counts:trips"], full_feature_names=True).to_df()

    assert answer["zone"].tolist() == [2, 9, 1]
    assert answer["counts__trips"].tolist()[::2] == [20, 10]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pa.table({"zone": [1]}), "there is no column 'time' of timestamps. The columns are zone."),
        (pa.table({"zone": [1], "time": ["noon"]}), "column 'time' is string, not timestamps"),
        (pa.table({"zone": [1, 2], "time": pa.array([NOON, None], UTC_TIME)}), "1 rows have no 'time'"),
        (pa.table({"time": times([0])}), "there is no column 'zone', a key of 'counts'. The columns are time."),
        (pa.table({"zone": [1], "time": times([0]), "trips": [1]}), "'trips' is a feature's name too"),
    ],
    ids=["no column", "text", "null", "no key", "same name"],
)
def test_entities_that_cannot_be_joined_are_refused_in_a_line(tmp_path, rows, message):
    store = store_of(tmp_path, counts=pa.table({"zone": [1], "at": times([0]), "trips": [10]}))

    with pytest.raises(UserError) as error:
        joined(store, rows, ["counts:trips"])

    assert message in str(error.value)


PAGE = Path(__file__).parents[3] / "docs" / "features.md"
ENGINES = re.findall(r"^\| `(\S+)` \| `(\S+)` \| `feast\[\w+\]` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("offline", "engine", "tried"), ENGINES, ids=[row[0] for row in ENGINES])
def test_engines_past_one_machine_load_as_far_as_the_page_says(tmp_path, offline, engine, tried):
    config = {"offline_store": {"type": offline}, "batch_engine": {"type": engine}}
    more = {"project": "p", "provider": "local", "registry": str(tmp_path / "registry.db"), "repo_path": tmp_path}
    missing = re.search(r"no (\w+) here", tried)

    def load() -> FeatureStore:
        store = FeatureStore(config=RepoConfig(**more, **config))
        assert store.provider.offline_store
        assert store.provider.batch_engine
        return store

    if missing and importlib.util.find_spec({"driver": "snowflake"}.get(missing[1], missing[1])) is None:
        with pytest.raises(Exception, match="Could not import module"):
            load()
    else:
        assert load().config.offline_store.type == offline


def test_there_is_a_row_an_engine():
    assert [row[0] for row in ENGINES] == ["bigquery", "snowflake.offline", "spark", "ray"]


def test_feast_takes_the_settings_of_the_page(tmp_path):
    block = PAGE.read_text().split("```yaml\nbatch_engine")[1].split("```")[0]
    settings = yaml.safe_load("batch_engine" + block)
    more = {"project": "p", "provider": "local", "registry": str(tmp_path / "registry.db"), "repo_path": tmp_path}

    provider = FeatureStore(config=RepoConfig(**more, **settings)).provider

    assert type(provider.batch_engine).__name__ == "BulkComputeEngine"
    assert type(provider.offline_store).__name__ == "StreamingOfflineStore"
