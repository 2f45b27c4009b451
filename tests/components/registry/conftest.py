from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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
