from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components.explanation.explain import Explained, explain
from penstock.components.training.fit import fit

FEATURES = ["distance", "other", "zone", "night"]
TARGETS = {"binary": "tipped", "multiclass": "color", "regression": "fare"}
# Each row of the table of explainers, small enough for every subset of columns to be tried.
MODELS: dict[str, dict[str, Any]] = {
    "xgboost": {"framework": "xgboost", "max_rounds": 4},
    "lightgbm": {"framework": "lightgbm", "max_rounds": 4},
    "hist_gradient_boosting": {"framework": "sklearn", "max_rounds": 4},
    "random_forest": {
        "framework": "sklearn",
        "hyperparameters": {"estimator": "random_forest", "n_estimators": 4, "max_depth": 5, "n_jobs": 1},
    },
    "linear": {"framework": "sklearn", "hyperparameters": {"estimator": "logistic_regression"}},
}


@pytest.fixture(scope="session")
def trips() -> Callable[..., pa.Table]:
    """Make rows with numbers, a category and a boolean, some of them missing, and three targets."""

    def make(rows: int = 300, seed: int = 0) -> pa.Table:
        random = np.random.default_rng(seed)
        distance = random.normal(size=rows)
        other = random.normal(size=rows)
        zone = np.array(["a", "b", "c", "d", None], dtype=object)[random.integers(0, 5, rows)]
        night = random.random(rows) < 0.4
        noise = random.normal(size=rows) * 0.3
        score = distance * (1 + night) + np.where(zone == "a", 1.5, 0) - np.where(zone == None, 1, 0) + noise  # noqa: E711
        score += np.where(other > 1, 0.8, 0)
        return pa.table(
            {
                "id": np.arange(rows) + 1000,
                "distance": distance,
                "other": pa.array(other, mask=random.random(rows) < 0.15),
                "zone": pa.array(zone, pa.string()),
                "night": night,
                "weight": random.integers(0, 3, rows).astype(float),
                "tipped": score > 0.3,
                "color": pa.array(np.array(["blue", "green", "red"])[np.digitize(score, [-0.7, 0.7])]),
                "fare": np.abs(3 * score + 10),
            }
        )

    return make


@pytest.fixture(scope="session")
def model_of(
    tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path], trips: Callable[..., pa.Table]
) -> Callable[..., Path]:
    """Return a model folder; what was fitted once is not fitted again."""
    fitted: dict[str, Path] = {}
    train: list[Path] = []

    def make(name: str, task: str, **given: Any) -> Path:
        spec = {**MODELS[name], **given}
        if name == "linear" and task == "regression":
            spec["hyperparameters"] = {"estimator": "ridge"}
        key = repr((sorted(spec.items()), task))
        if key not in fitted:
            if not train:
                train.append(make_dataset(trips(600, seed=1)))
            fitted[key] = tmp_path_factory.mktemp("models") / "model"
            features = spec.pop("features", FEATURES)
            fit(train[0], train[0], fitted[key], target=TARGETS[task], features=features, **spec)
        return fitted[key]

    return make


@dataclass(frozen=True)
class Ran:
    """What `explain` returned and wrote."""

    result: Explained
    rows: pd.DataFrame
    found: dict[str, Any]
    vertex: dict[str, Any]
    page: str
    folder: Path


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """Explain into a folder of its own, and read what was written."""

    def run(model: Path, dataset: Path, **given: Any) -> Ran:
        out = tmp_path / "out"
        given = {"local": [], "repeats": 1, "dependence_features": 1, **given}
        result = explain(
            model, dataset, out / "attributions", out / "explanation", out / "vertex", out / "report", **given
        )
        written = open_dataset(out / "attributions", "test", "attributions")
        return Ran(
            result,
            pd.concat([pq.read_table(file).to_pandas() for file in written.files]),
            json.loads((out / "explanation").read_text(), parse_constant=lambda name: pytest.fail(name)),
            json.loads((out / "vertex").read_text()),
            (out / "report").read_text(),
            out,
        )

    return run
