"""Datasets of a few rows, a small feature repository, and servers of stores on loopback."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.components._shared.dataset import write_dataset

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONFIG = """\
project: shops
provider: local
registry: data/registry.db
offline_store: {type: duckdb}
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""
DEFINITIONS = """\
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, UnixTimestamp

shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
sales = FileSource(
    name="sales", path="data/sales", file_format=ParquetFormat(), timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
counts = FeatureView(
    name="counts", entities=[shop], ttl=timedelta(hours=2), source=sales, schema=[Field(name="sold", dtype=Int64)]
)
prices = FeatureView(
    name="prices", entities=[shop], ttl=timedelta(hours=24), source=sales, schema=[Field(name="price", dtype=Float64)]
)
request = RequestSource(name="request", schema=[Field(name="time", dtype=UnixTimestamp)])


@on_demand_feature_view(sources=[request], schema=[Field(name="hour", dtype=Int64)])
def clock(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"hour": pd.to_datetime(inputs["time"], utc=True).dt.hour.astype("int64")})


shops = FeatureService(name="shops", features=[counts, prices, clock])
"""


@pytest.fixture
def dataset(tmp_path) -> Callable[..., Path]:
    """Return a function that writes a table as a dataset."""

    def write(table: pa.Table, name: str = "dataset") -> Path:
        write_dataset(tmp_path / name, table.schema, table.to_batches())
        return tmp_path / name

    return write


@pytest.fixture
def repo(tmp_path) -> Path:
    """A feature repository of two views over one source, and one on demand."""
    return write_repo(tmp_path / "repo")


def write_repo(folder: Path, config: str = CONFIG, definitions: str = DEFINITIONS) -> Path:
    folder.mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(config)
    (folder / "definitions.py").write_text(definitions)
    return folder


def features(rows: Sequence[tuple[str, datetime, int | None, float | None]], created: datetime = NOON) -> pa.Table:
    """Return feature rows of shop, event time, sold, price."""
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
    kinds = {
        "shop": pa.string(),
        "event_timestamp": pa.timestamp("us", "UTC"),
        "sold": pa.int64(),
        "price": pa.float64(),
    }
    table = pa.table(
        {name: pa.array(list(values), kind) for (name, kind), values in zip(kinds.items(), columns, strict=True)}
    )
    return table.append_column("created", pa.array([created] * len(table), pa.timestamp("us", "UTC")))


def entities(rows: Sequence[tuple[str | None, datetime | None]]) -> pa.Table:
    """Return entity rows of shop and time."""
    shops, times = zip(*rows, strict=True)
    return pa.table({"shop": list(shops), "time": pa.array(list(times), pa.timestamp("us", "UTC"))})


ROWS = [
    ("a", NOON - 2 * HOUR, 1, 1.5),
    ("a", NOON - HOUR, 2, 2.5),
    ("a", NOON, 3, None),
    ("b", NOON - HOUR, 10, 0.1),
]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[object], port: int, log: Path, **settings: object) -> Iterator[None]:
    """Run a server until the end of the block, from when it answers on its port."""
    with log.open("w") as output:
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=output, **settings)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL would wait for its clients after SIGTERM
        process.wait(20)


@contextlib.contextmanager
def serving_redis() -> Iterator[str]:
    """Run a Redis with a password and yield its address, as Feast writes it."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; on Debian: apt-get install redis-server")
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "requirepass": "hidden-redis-password"}
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", value))]
    with tempfile.TemporaryDirectory() as folder, running(command, port, Path(folder, "log"), cwd=folder):
        yield f"127.0.0.1:{port},password=hidden-redis-password"


@contextlib.contextmanager
def serving_postgres() -> Iterator[dict[str, str]]:
    """Run a PostgreSQL of one's own and yield variables that name a database of it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    programs, port = found[-1].parent, free_port()
    # Not in a folder of pytest, which each of its sessions closes to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_user: dict[str, object] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(folder, "nobody", "nogroup")
        secret = folder / "password"
        secret.write_text("hidden-postgres-password")
        secret.chmod(0o644)
        init = [programs / "initdb", "--no-sync", "-D", folder / "data", "-U", "feast", "-A", "scram-sha-256"]
        init += ["--pwfile", secret]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        made = {"env": environment, "cwd": folder, **as_user}
        done = subprocess.run([*map(str, init)], capture_output=True, text=True, **made)
        assert done.returncode == 0, done.stderr
        command = [programs / "postgres", "-D", folder / "data", "-p", port, "-h", "127.0.0.1", "-k", folder, "-F"]
        with running(command, port, folder / "log", **made):
            yield {
                "POSTGRES_HOST": "127.0.0.1",
                "POSTGRES_PORT": str(port),
                "POSTGRES_DATABASE": "postgres",
                "POSTGRES_USER": "feast",
                "POSTGRES_SSLMODE": "disable",
                "POSTGRES_PASSWORD": "hidden-postgres-password",
            }


@pytest.fixture(scope="module")
def redis_server() -> Iterator[str]:
    """Address of a Redis with a password, as Feast writes it."""
    with serving_redis() as address:
        yield address


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[dict[str, str]]:
    """Variables that name a database of a PostgreSQL of one's own."""
    with serving_postgres() as variables:
        yield variables
