"""Gradients of a small network of the form that train's Keras models have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from penstock.components.explanation.explainers import Explainer, Subject

COLUMNS = [
    {"name": "distance", "kind": "number", "optional": True},
    {"name": "zone", "kind": "category", "categories": ["a", "b", "c"], "optional": True},
    {"name": "night", "kind": "boolean", "optional": False},
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Explainer, Any, np.ndarray]]:
    """Return the explainer of a network with random weights, the network from matrix to margin, and rows."""
    import keras
    from keras import layers, ops

    from penstock.components.explanation.explainers import keras as explainers

    def make(task: str, hidden: int) -> tuple[Explainer, Any, np.ndarray]:
        keras.utils.set_random_seed(3)
        matrix = keras.Input((3,), dtype="float64", name="encoded_matrix")
        numbers = ops.take(matrix, [0, 2], axis=1)
        missing = ops.isnan(numbers)
        filled = ops.cast(ops.where(missing, 0.0, numbers), "float32")
        gap = ops.cast(ops.take(missing, [0], axis=1), "float32")
        code = ops.take(matrix, [1], axis=1)
        code = ops.cast(ops.where(ops.isnan(code), 0.0, code + 1.0), "int32")
        inner = layers.Concatenate()([filled, gap, layers.CategoryEncoding(4, output_mode="one_hot")(code)])
        if hidden:
            inner = layers.Dense(hidden, "relu")(inner)
        margin = layers.Dense(3 if task == "multiclass" else 1, name="margin", bias_initializer="ones")(inner)
        ends = {
            "binary": layers.Activation("sigmoid"),
            "multiclass": layers.Activation("softmax"),
            "regression": layers.Rescaling(3.0, 10.0),
        }
        encoded = keras.Model(matrix, ends[task](margin), name="encoded")
        raw = keras.Input((3,), dtype="float64")
        folder = tmp_path_factory.mktemp("keras")
        keras.Model(raw, encoded(raw)).save(folder / "model.keras")
        random = np.random.default_rng(0)
        rows = np.column_stack((random.normal(size=200), random.integers(0, 3, 200), random.integers(0, 2, 200)))
        rows[random.random(200) < 0.2, 0] = np.nan
        rows[random.random(200) < 0.2, 1] = np.nan
        names = tuple(column["name"] for column in COLUMNS)
        model: Any = SimpleNamespace(task=task, features=names, encoded=tuple(COLUMNS))
        subject = Subject(Path(folder), model, lambda: (rows, np.ones(len(rows))), 10**7, len(rows), 0)
        own = encoded if task == "regression" else keras.Model(matrix, margin)
        return explainers.makers(subject)["gradient"](), own, rows

    return make


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_linear_network_is_given_its_shapley_values(network: Any, task: str) -> None:
    explainer, own, rows = network(task, hidden=0)
    found = explainer.attribute(rows)
    drawn = rows[np.sort(np.random.default_rng(0).choice(200, size=32, p=np.full(200, 1 / 200)))]
    assert found.base == pytest.approx(own(drawn).numpy().mean(axis=0), abs=1e-5)
    for place in range(3):
        varied = np.repeat(rows, 32, axis=0)
        varied[:, place] = np.tile(drawn[:, place], len(rows))
        apart = own(rows).numpy() - own(varied).numpy().reshape(len(rows), 32, -1).mean(axis=1)
        assert found.values[:, :, place] == pytest.approx(apart, abs=1e-4)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_attributions_of_a_deep_network_add_up_to_its_margin(network: Any, task: str) -> None:
    explainer, own, rows = network(task, hidden=16)
    found = explainer.attribute(rows)
    assert found.outputs == pytest.approx(own(rows).numpy(), abs=1e-5)
    gap = np.abs(found.values.sum(axis=2) + found.base - found.outputs)
    size = np.abs(found.values).sum(axis=2) + np.abs(found.base)
    assert (gap / size).max() < explainer.tolerance
    assert np.abs(found.values).mean() > 0.05


def test_rows_are_as_many_as_the_budget_pays_for(network: Any) -> None:
    explainer, _, _ = network("multiclass", hidden=0)
    assert explainer.most_rows == 10**7 // (32 * 32 * 3)


def test_model_that_train_has_fitted_is_explained_with_its_hashed_texts(
    run: Callable[..., Any], make_dataset: Callable[..., Path], trips: Callable[..., Any], tmp_path: Path
) -> None:
    from penstock.components.training.fit import fit

    table = trips(200)
    many = [zone and f"{zone}-{row}" for row, zone in enumerate(table["zone"].to_pylist())]
    rows = make_dataset(table.set_column(table.column_names.index("zone"), "zone", pa.array(many)))
    fit(
        rows,
        rows,
        tmp_path / "model",
        target="tipped",
        features=["distance", "other", "zone"],
        framework="keras",
        hyperparameters={"hash_bins": 6, "hidden_units": [8]},
        max_rounds=3,
    )
    found = run(tmp_path / "model", rows, local=["first 1"], dependence_features=3)
    assert found.result.method == "gradient"
    assert found.result.additive is True
    assert {entry["kind"] for entry in found.found["features"]} == {"number", "text"}
    assert None in found.found["dependence"]["zone"]["values"]
    sums = (found.rows.filter(like="attribution_").sum(axis=1) + found.rows["base_value"]).to_numpy()
    assert 1 / (1 + np.exp(-sums)) == pytest.approx(found.rows["prediction"].to_numpy(), abs=0.01)
