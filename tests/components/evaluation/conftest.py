from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.training.fit import fit


@pytest.fixture(autouse=True)
def _no_registry_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING") or name == "MLFLOW_REGISTRY_URI"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PENSTOCK_ROOT", raising=False)


@pytest.fixture(scope="session")
def trips() -> Callable[..., pa.Table]:
    """Make rows whose labels follow `distance`, with a column or two to slice by."""

    def make(rows: int = 400, seed: int = 0) -> pa.Table:
        random = np.random.default_rng(seed)
        distance = random.normal(size=rows)
        noise = random.normal(size=rows)
        zones = np.array(["a", "b", None], dtype=object)[random.integers(0, 3, rows)]
        return pa.table(
            {
                "distance": distance,
                "other": random.normal(size=rows),
                "zone": pa.array(zones, pa.string()),
                "tipped": distance + noise > 0,
                "color": pa.array(np.array(["blue", "green", "red"])[np.digitize(distance + noise, [-0.7, 0.7])]),
                "fare": 3 * distance + noise + 10,
            }
        )

    return make


@pytest.fixture(scope="session")
def fitted() -> dict[str, Path]:
    """Models by what they were fitted with, so that each is fitted once."""
    return {}


@pytest.fixture
def make_model(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_dataset: Callable[..., Path],
    trips: Callable[..., pa.Table],
    fitted: dict[str, Path],
) -> Callable[..., Path]:
    """Return a copy of a small model of trips."""

    def make(name: str = "model", target: str = "tipped", **given: Any) -> Path:
        given = {"features": ["distance", "other"], "max_rounds": 8, **given}
        key = repr((target, given))
        if key not in fitted:
            train = make_dataset(trips(seed=1))
            fitted[key] = tmp_path_factory.mktemp("models") / "model"
            fit(train, train, fitted[key], target=target, **given)
        shutil.copytree(fitted[key], tmp_path / name)
        return tmp_path / name

    return make
