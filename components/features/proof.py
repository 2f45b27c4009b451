"""Goes through a feature store from end to end in a temporary folder: the proof that an environment holds all of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from penstock.components._shared.dataset import write_dataset
from penstock.components.features.compute import compute
from penstock.components.features.retrieve import retrieve
from penstock.components.features.serving import check
from penstock.components.features.sync import sync

CONFIG = """\
project: proof
provider: local
registry: data/registry.db
offline_store: {type: duckdb}
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""
DEFINITIONS = """\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.field import Field
from feast.types import Float64, Int64

shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
sales = FileSource(
    name="sales", path="data/sales", file_format=ParquetFormat(), timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
shop_2h = FeatureView(
    name="shop_2h", entities=[shop], ttl=timedelta(hours=2), source=sales,
    schema=[Field(name="sales_2h", dtype=Int64), Field(name="mean_price_2h", dtype=Float64)],
)
shops = FeatureService(name="shops", features=[shop_2h])
"""


def prove() -> int:
    """Return how many values of a training set were found to be those of the online store."""
    first = datetime(2024, 1, 1)
    times = [first + timedelta(minutes=10 * number) for number in range(60)]
    rows = pa.table(
        {
            "shop": [f"shop {number % 3}" for number in range(60)],
            "time": pa.array(times, pa.timestamp("us")),
            "price": [1.5 * number for number in range(60)],
        }
    )
    with TemporaryDirectory(prefix="penstock-proof-") as scratch:
        folder = Path(scratch)
        repo = folder / "repo"
        repo.mkdir()
        (repo / "feature_store.yaml").write_text(CONFIG, encoding="utf-8")
        (repo / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
        write_dataset(folder / "rows", rows.schema, rows.to_batches())
        compute(
            folder / "rows",
            folder / "features",
            entities=["shop"],
            timestamp="time",
            aggregates={"sales": "count", "mean_price": "mean(price)"},
            windows=["2h"],
        )
        sync(folder / "features", str(repo))
        retrieve(folder / "rows", folder / "joined", str(repo), service="shops", timestamp="time")
        return check(folder / "joined", str(repo), service="shops", timestamp="time").values
