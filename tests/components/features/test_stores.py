"""The taxi example's own configurations, against servers that really run."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from feast.repo_config import load_repo_config

from penstock.components.features.compute import compute
from penstock.components.features.retrieve import retrieve
from penstock.components.features.serving import check
from penstock.components.features.store import opened
from penstock.components.features.sync import sync

REPO = Path(__file__).parents[3] / "feature_repo"
SERVERS = {"redis.yaml": "redis_server", "postgres.yaml": "postgres_server"}
AGGREGATES = {
    "trips": "count",
    "mean_distance": "mean(trip_distance)",
    "mean_fare": "mean(fare_amount)",
    "tip_share": "ratio(tip_amount, fare_amount)",
}


@pytest.fixture
def taxi_repo(tmp_path) -> Path:
    """A copy of the example's repository, without what a checkout may keep in it."""
    return Path(shutil.copytree(REPO, tmp_path / "feature_repo", ignore=shutil.ignore_patterns("data", "__pycache__")))


@pytest.fixture
def trips(dataset) -> Path:
    """A trip each quarter of an hour for three days, from three zones in turn."""
    number = range(4 * 24 * 3)
    return dataset(
        pa.table(
            {
                "pickup_zone": [str(each % 3) for each in number],
                "pickup_datetime": pa.array([datetime(2018, 5, 1 + n // 96, n % 96 // 4, n % 4 * 15) for n in number]),
                "trip_distance": [1.0 + each % 7 for each in number],
                "fare_amount": [5.0 + each % 11 for each in number],
                "tip_amount": [each % 5 / 2 for each in number],
            }
        ),
        "trips",
    )


@pytest.mark.parametrize("config", ["feature_store.yaml", *SERVERS])
def test_every_store_is_synced_twice_and_serves_what_it_trains(
    taxi_repo, trips, tmp_path, request, monkeypatch, config
):
    if config in SERVERS:
        server = request.getfixturevalue(SERVERS[config])
        for name, value in ({"REDIS": server} if isinstance(server, str) else server).items():
            monkeypatch.setenv(name, value)
    compute(trips, tmp_path / "features", entities=["pickup_zone"], timestamp="pickup_datetime", aggregates=AGGREGATES)
    first = sync(tmp_path / "features", str(taxi_repo), config=config)
    assert first.added == 3 * 48  # the first day fills the longest window
    assert {name: done.rows for name, done in first.materialized.items()} == dict.fromkeys(
        ("zone_1h", "zone_6h", "zone_24h"), 3
    )
    assert first.verified == 3 * 3 * 4
    assert first.newest == datetime(2018, 5, 3, 23, tzinfo=UTC)
    again = sync(tmp_path / "features", str(taxi_repo), config=config)
    assert (again.changes, again.added, again.materialized, again.verified) == ((), 0, {}, 36)
    asked = {"service": "big_tip", "timestamp": "pickup_datetime", "config": config}
    done = retrieve(trips, tmp_path / "joined", str(taxi_repo), **asked)
    assert done.rows == 288
    assert done.missing["trips_24h"] == 96  # of the first day nothing is known
    assert done.missing["hour_of_week"] == 0
    checked = check(tmp_path / "joined", str(taxi_repo), **asked)
    assert (checked.entities, checked.values) == (3, 3 * 15)


def test_what_redis_and_postgres_are_logged_in_with_is_in_nothing_that_is_kept(
    taxi_repo, trips, tmp_path, redis_server, monkeypatch, capsys
):
    monkeypatch.setenv("REDIS", redis_server.replace("hidden", "wrong"))
    compute(trips, tmp_path / "features", entities=["pickup_zone"], timestamp="pickup_datetime", aggregates=AGGREGATES)
    with pytest.raises(Exception, match="cannot be") as raised:
        sync(tmp_path / "features", str(taxi_repo), config="redis.yaml")
    assert "wrong-redis-password" not in str(raised.value) + capsys.readouterr().out
    kept = b"".join(file.read_bytes() for file in (taxi_repo / "data").rglob("*") if file.is_file())
    assert b"wrong-redis-password" not in kept


VARIABLES = {
    "REDIS": "redis.example.com:6380,ssl=true,password=x",
    "AZURE_STORAGE_ACCOUNT": "account",
    "GOOGLE_CLOUD_PROJECT": "project",
    "FEATURES_BUCKET": "bucket",
    "POSTGRES_HOST": "postgres.example.com",
    "POSTGRES_PORT": "5432",
    "POSTGRES_DATABASE": "features",
    "POSTGRES_USER": "feast",
    "POSTGRES_SSLMODE": "require",
    "POSTGRES_PASSWORD": "x",
}
STORES = {
    "feature_store.yaml": ("data/registry.db", "sqlite", "duckdb"),
    "redis.yaml": ("data/registry.db", "redis", "duckdb"),
    "postgres.yaml": ("postgresql+psycopg://feast:x@postgres.example.com:5432/features", "postgres", "duckdb"),
    "azure.yaml": ("https://account.blob.core.windows.net/features/registry.db", "redis", "duckdb"),
    "vertex.yaml": ("gs://bucket/registry.db", "bigtable", "bigquery"),
}


@pytest.mark.parametrize("config", sorted({file.name for file in REPO.glob("*.yaml")} - {"training.yaml"}))
def test_every_configuration_of_the_example_is_what_feast_takes(config, monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    loaded = load_repo_config(REPO, REPO / config)
    assert (loaded.registry.path, loaded.online_store.type, loaded.offline_store.type) == STORES[config]


def test_datastore_stands_in_bigtable_s_place_as_the_configuration_says(monkeypatch, tmp_path):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    text = (REPO / "vertex.yaml").read_text()
    assert "online_store: {type: datastore, project_id: ${GOOGLE_CLOUD_PROJECT}}" in text
    config = yaml.safe_load(text) | {"online_store": {"type": "datastore", "project_id": "${GOOGLE_CLOUD_PROJECT}"}}
    (tmp_path / "vertex.yaml").write_text(yaml.safe_dump(config))
    online = load_repo_config(REPO, tmp_path / "vertex.yaml").online_store
    assert (online.type, online.project_id) == ("datastore", VARIABLES["GOOGLE_CLOUD_PROJECT"])


@pytest.mark.slow
def test_feast_s_own_command_plans_and_applies_the_example_as_it_is(taxi_repo):
    def feast(command: str) -> str:
        program = Path(sys.executable).with_name("feast")
        return subprocess.run([program, command], cwd=taxi_repo, capture_output=True, text=True, check=True).stdout

    assert "Created feature view" in feast("plan")
    assert "Created feature service" in feast("apply")
    assert "No changes to registry" in feast("plan")


def test_the_example_reads_a_table_of_bigquery_or_another_folder_where_variables_say_so(taxi_repo, monkeypatch):
    for name, value, kind, where in (
        ("FEATURES_FOLDER", "/mnt/features", "FileSource", "/mnt/features/zone_activity"),
        ("FEATURES_TABLE", "project.dataset.zone_activity", "BigQuerySource", "project.dataset.zone_activity"),
    ):
        monkeypatch.setenv(name, value)
        with opened(str(taxi_repo), "feature_store.yaml", "test") as place:
            source = place.source("")
        assert (type(source).__name__, getattr(source, "table", None) or source.path) == (kind, where)
