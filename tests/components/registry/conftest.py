from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.components._shared.mlflow_registry import open_registry
from penstock.components._shared.sealed import new_folder, seal


@pytest.fixture(autouse=True)
def _no_registry_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING") or name == "MLFLOW_REGISTRY_URI"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PENSTOCK_ROOT", raising=False)
    monkeypatch.delenv("PENSTOCK_IMAGE", raising=False)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a sealed model folder; register never looks into its weights."""

    def make(name: str = "model", weights: str = "[1, 2]") -> Path:
        with new_folder(tmp_path / name) as folder:
            (folder / "MLmodel").write_text("flavors: {}\n")
            (folder / "data").mkdir()
            (folder / "data" / "weights.json").write_text(weights)
            facts = {
                "framework": "xgboost",
                "task": "binary",
                "target": "big_tip",
                "seed": 7,
                "hyperparameters": {"eta": 0.1, "tree": {"depth": 3}},
                "train_fingerprint": "train-print",
                "eval_fingerprint": "eval-print",
            }
            seal(folder, "penstock.model/1", facts)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that holds nothing yet; creating its tables takes a second, copying them does not."""
    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    open_registry(f"sqlite:///{database}", "test")
    return database


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path) -> str:
    (tmp_path / "registry").mkdir()
    shutil.copy(empty_database, tmp_path / "registry")
    return f"sqlite:///{tmp_path}/registry/mlflow.db"
