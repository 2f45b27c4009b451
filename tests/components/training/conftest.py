"""Rows of which it is known what can be learned, and one model of every framework and task."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Threads that wait for each other on a busy machine cost these few rows more than they save. Read at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import KIND
from penstock.components._shared.sealed import new_folder, seal
from penstock.components.training.fit import Fitted, fit

# Enough for every framework to tell apart what a single column tells apart, from few rows.
EAGER: dict[str, dict[str, Any]] = {
    "xgboost": {"eta": 0.5, "min_child_weight": 0, "max_cat_to_onehot": 1},
    "lightgbm": {"learning_rate": 0.5, "min_data_in_leaf": 1, "min_data_per_group": 1, "cat_smooth": 0, "cat_l2": 0},
    "sklearn": {"learning_rate": 0.5, "min_samples_leaf": 1},
}


@pytest.fixture(scope="session")
def eager() -> Mapping[str, dict[str, Any]]:
    """Hyperparameters by framework that fit a few rows exactly."""
    return EAGER


@pytest.fixture(scope="session")
def rows() -> Callable[[int], pa.Table]:
    """Return a function that makes rows: three targets, each told by one column, others with gaps.

    late is size >= 50; shade is told by color alone; double is 2 * size.
    """

    def make(count: int, first: int = 0) -> pa.Table:
        numbers = range(first, first + count)
        size = [number * 37 % 100 for number in numbers]
        color = [["red", "green", "blue"][number % 3] for number in numbers]
        return pa.table(
            {
                "size": size,
                "color": color,
                "gaps": [None if number % 5 == 0 else number % 7 for number in numbers],
                "share": [None if number % 4 == 0 else number % 11 / 10 for number in numbers],
                "open": [None if number % 6 == 0 else number % 2 == 0 for number in numbers],
                "late": [value >= 50 for value in size],
                "shade": [{"red": "warm", "green": "neutral", "blue": "cold"}[name] for name in color],
                "double": [2.0 * value for value in size],
            }
        )

    return make


TARGETS = {"binary": "late", "multiclass": "shade", "regression": "double"}


@pytest.fixture(scope="session")
def train_set(make_dataset: Callable[..., Path], rows: Callable[..., pa.Table]) -> Path:
    return make_dataset(rows(200))


@pytest.fixture(scope="session")
def eval_set(make_dataset: Callable[..., Path], rows: Callable[..., pa.Table]) -> Path:
    return make_dataset(rows(60, 1000))


GROUP = 64  # rows of a row group


@pytest.fixture(scope="session")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[pa.Table | dict], Path]:
    """Return a function that writes rows as a dataset of several row groups and returns its folder."""

    def write(columns: pa.Table | dict) -> Path:
        table = pa.table(columns)
        with new_folder(tmp_path_factory.mktemp("streamed") / "dataset") as folder:
            for part in range(2):
                half = table.slice(part * table.num_rows // 2, table.num_rows // 2)
                pq.write_table(half, folder / f"part-{part}.parquet", row_group_size=GROUP)
            schema = [{"name": field.name, "type": str(field.type)} for field in table.schema]
            seal(folder, KIND, {"rows": table.num_rows, "schema": schema, "fingerprint": str(hash(str(table)))})
        return folder

    return write


@pytest.fixture
def learn(train_set: Path, eval_set: Path, tmp_path: Path) -> Callable[..., Fitted]:
    """Return `fit` with rows to learn `late` from, into the folder "model" of tmp_path."""

    def learn(**given: Any) -> Fitted:
        target = given.setdefault("target", "late")
        others = [name for name in TARGETS.values() if name != target]
        given.setdefault("exclude", [] if given.get("features") else others)
        sets = given.pop("train_set", train_set), given.pop("eval_set", eval_set)
        return fit(*sets, given.pop("model", tmp_path / "model"), **given)

    return learn


MODELS = {
    **{f"{framework}-{task}": (framework, task, EAGER[framework]) for framework in EAGER for task in TARGETS},
    "random_forest-binary": ("sklearn", "binary", {"estimator": "random_forest", "n_estimators": 10}),
    "random_forest-regression": ("sklearn", "regression", {"estimator": "random_forest", "n_estimators": 10}),
    "logistic_regression-binary": ("sklearn", "binary", {"estimator": "logistic_regression", "C": 100}),
    "logistic_regression-multiclass": ("sklearn", "multiclass", {"estimator": "logistic_regression", "C": 100}),
    "ridge-regression": ("sklearn", "regression", {"estimator": "ridge", "alpha": 0.001}),
}


@pytest.fixture(scope="session")
def models(
    tmp_path_factory: pytest.TempPathFactory, train_set: Path, eval_set: Path
) -> Callable[[str], tuple[Path, Fitted]]:
    """Return a function that gives the folder of a model, and what fit returned, by a name in MODELS."""
    fitted: dict[str, tuple[Path, Fitted]] = {}

    def model(name: str) -> tuple[Path, Fitted]:
        if name not in fitted:
            framework, task, hyperparameters = MODELS[name]
            folder = tmp_path_factory.mktemp(name) / "model"
            target = TARGETS[task]
            result = fit(
                train_set,
                eval_set,
                folder,
                target=target,
                framework=framework,
                exclude=[other for other in TARGETS.values() if other != target],
                hyperparameters=hyperparameters,
                max_rounds=60,
            )
            fitted[name] = folder, result
        return fitted[name]

    return model
