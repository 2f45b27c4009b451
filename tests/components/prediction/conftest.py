"""Trips, and models of them of every kind."""

import os
from pathlib import Path

# Threads that wait for each other on a busy machine cost these few rows more than they save. Read at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.training.fit import fit


def trips(rows: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    miles = random.exponential(3, rows)
    zone = random.choice(["a", "b", "c"], rows)
    night = random.random(rows) < 0.3
    return pa.table(
        {
            "id": [f"trip-{n}" for n in range(rows)],
            "miles": miles,
            "zone": zone,
            "night": night,
            "tipped": random.random(rows) < 1 / (1 + np.exp(miles - 3)),
            "kind": np.where(zone == "a", "short", np.where(night, "late", "long")),
            "fare": 3 + 2.5 * miles + night,
        }
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory, make_dataset) -> dict[str, Path]:
    data = make_dataset(trips(400, seed=1))
    folder = tmp_path_factory.mktemp("models")
    for target in ("tipped", "kind", "fare"):
        framework = "lightgbm" if target == "kind" else "xgboost"
        fit(
            data,
            data,
            folder / target,
            target=target,
            framework=framework,
            features=["miles", "zone", "night"],
            max_rounds=5,
        )
    return {target: folder / target for target in ("tipped", "kind", "fare")}
