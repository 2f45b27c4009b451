"""Few rows, few rounds: a trial takes milliseconds, and the start of a worker is most of a search."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Threads that wait for each other on a busy machine cost these few rows more than they save. Read at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa
import pytest

from penstock.components.tuning.tune import Settings, Tuned, tune

SPACE: dict[str, Any] = {
    "eta": {"type": "float", "low": 0.01, "high": 0.5, "log": True},
    "max_depth": {"type": "int", "low": 1, "high": 6},
    "grow_policy": {"type": "categorical", "choices": ["depthwise", "lossguide"]},
    "max_leaves": {"type": "int", "low": 2, "high": 32, "log": True, "when": {"grow_policy": ["lossguide"]}},
}


@pytest.fixture(scope="session")
def space() -> dict[str, Any]:
    return SPACE


@pytest.fixture(scope="session")
def late_rows() -> Callable[..., dict[str, list[Any]]]:
    """Return `rows`."""
    return rows


def rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    """Return rows in which `late` follows from size and color, but for every eleventh."""
    numbers = range(first, first + count)
    size = [number * 37 % 100 for number in numbers]
    color = [["red", "green", "blue"][number % 3] for number in numbers]
    late = [(s > 60 or c == "red") != (n % 11 == 0) for n, s, c in zip(numbers, size, color, strict=True)]
    return {"size": size, "color": color, "noise": [number * 7919 % 101 / 101 for number in numbers], "late": late}


@pytest.fixture(scope="session")
def train_set(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(pa.table(rows(400)))


@pytest.fixture(scope="session")
def eval_set(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(pa.table(rows(200, 1000)))


@pytest.fixture
def search(train_set: Path, eval_set: Path, tmp_path: Path) -> Callable[..., Tuned]:
    """Return `tune` with rows to learn `late` from, its outputs in tmp_path: trials, model, report.html."""

    def search(**given: Any) -> Tuned:
        given = {"space": SPACE, "max_trials": 6, **given}
        own = {"target": "late", "max_rounds": 20, "seed": 1, "early_stopping_rounds": 5}
        settings = {
            name: given.pop(name, own.get(name)) for name in {*own, *given} & set(Settings.__dataclass_fields__)
        }
        sets = given.pop("train_set", train_set), given.pop("eval_set", eval_set)
        outputs = (tmp_path / "trials", tmp_path / "model", tmp_path / "report.html")
        return tune(*sets, *outputs, settings=Settings(**settings), **given)

    return search
