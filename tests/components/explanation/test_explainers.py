"""Attributions against their definition, and against shap's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shap
import skops.io

from penstock.components._shared.dataset import frame_of
from penstock.components._shared.model import load_model
from penstock.components._shared.tabular import SKLEARN_TYPES
from penstock.components.explanation.explainers import Explainer, Subject, choose, of_classes
from tests.components.explanation.brute_force import TREES, conditional, interventional, shapley
from tests.components.explanation.conftest import FEATURES, TARGETS

TASKS = list(TARGETS)
ROWS = 12


@pytest.fixture
def ready(model_of: Callable[..., Path], trips: Callable[..., Any]) -> Callable[..., tuple[Subject, Explainer, Any]]:
    """Return a model's subject, an explainer of it, and rows as it reads them."""

    def ready(name: str, task: str, method: str = "auto", **given: Any) -> tuple[Subject, Explainer, np.ndarray]:
        folder = model_of(name, task, **given)
        model = load_model(folder, "test", "model")
        rows = trips(60, seed=5)
        matrix = model.matrix(frame_of(rows.combine_chunks().to_batches()[0]))
        assert np.isnan(matrix[:ROWS]).any()
        subject = Subject(folder, model, lambda: (matrix, np.ones(len(matrix))), 10**7, len(matrix), 0)
        chosen, explainer = choose(subject, method)
        assert method in ("auto", chosen)
        return subject, explainer, matrix

    return ready


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", list(TREES))
def test_tree_attributions_are_the_shapley_values_of_what_the_trees_expect(ready: Any, name: str, task: str) -> None:
    subject, explainer, matrix = ready(name, task, "tree")
    found = explainer.attribute(matrix)
    assert found.values.shape == (len(matrix), 3 if task == "multiclass" else 1, len(FEATURES))
    outputs, base = TREES[name](subject.folder, found.values.shape[1])
    close = 1e-5 if name == "xgboost" else 1e-9
    for row in range(ROWS):
        for output, trees in enumerate(outputs):
            game = lambda known: sum(conditional(tree, matrix[row], known) for tree in trees)  # noqa: B023, E731
            values, empty = shapley(game, len(FEATURES))
            assert found.values[row, output] == pytest.approx(values, abs=close)
            assert found.base[output] == pytest.approx(empty + base[output], abs=close)
            assert found.outputs[row, output] == pytest.approx(empty + base[output] + values.sum(), abs=close)


@pytest.mark.parametrize("task", TASKS)
def test_linear_attributions_are_the_shapley_values_over_the_background(ready: Any, task: str) -> None:
    subject, explainer, matrix = ready("linear", task, "linear")
    estimator = skops.io.load(subject.folder / "model.skops", trusted=list(SKLEARN_TYPES))
    own = estimator.predict if task == "regression" else estimator.decision_function
    found = explainer.attribute(matrix)
    for row in range(ROWS):
        game = lambda known: interventional(own, matrix, matrix[row], known)  # noqa: B023, E731
        values, empty = shapley(game, len(FEATURES))
        assert pytest.approx(values.reshape(len(FEATURES), -1), abs=1e-9) == found.values[row].T
        assert found.base == pytest.approx(np.atleast_1d(empty), abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_permutation_attributions_are_near_the_shapley_values_of_its_background(ready: Any, task: str) -> None:
    subject, explainer, matrix = ready("xgboost", task, "permutation")
    found = explainer.attribute(matrix[:ROWS])
    # The rows that it has drawn, by the same seed.
    chosen = np.random.default_rng(0).choice(len(matrix), size=50, p=np.full(len(matrix), 1 / len(matrix)))
    background = matrix[np.sort(chosen)]
    predict = lambda rows: of_classes(subject.model.predict_matrix(rows), task)  # noqa: E731
    for row in range(ROWS):
        game = lambda known: interventional(predict, background, matrix[row], known)  # noqa: B023, E731
        values, empty = shapley(game, len(FEATURES))
        scale = 0.05 * np.abs(values).max()
        assert pytest.approx(values, abs=scale) == found.values[row].T
        assert found.base == pytest.approx(empty)
        assert found.values[row].sum(axis=1) + found.base == pytest.approx(predict(matrix[row : row + 1])[0])


def test_shaps_own_linear_explainer_agrees(ready: Any) -> None:
    subject, explainer, matrix = ready("linear", "binary", "linear")
    estimator = skops.io.load(subject.folder / "model.skops", trusted=list(SKLEARN_TYPES))
    made = estimator[:-1].transform(matrix)
    made = made.toarray() if hasattr(made, "toarray") else made
    theirs = shap.LinearExplainer(estimator[-1], shap.maskers.Independent(made, max_samples=len(made)))(made)
    found = explainer.attribute(matrix)
    # distance, other and night are the numbers, each a column; the four of zone add up to its own.
    assert found.values[:, 0, [0, 1, 3]] == pytest.approx(theirs.values[:, :3], abs=1e-9)
    assert found.values[:, 0, 2] == pytest.approx(theirs.values[:, 3:].sum(axis=1), abs=1e-9)


def test_shaps_own_tree_explainer_agrees_where_it_reads_the_trees_right(ready: Any) -> None:
    numbers = ["distance", "other", "night"]
    for name in ("lightgbm", "xgboost"):
        subject, explainer, matrix = ready(name, "binary", "tree", features=numbers)
        native: Any
        if name == "lightgbm":
            import lightgbm

            native = lightgbm.Booster(model_file=str(subject.folder / "model.txt"))
        else:
            import xgboost

            native = xgboost.Booster(model_file=str(subject.folder / "model.ubj"))
        theirs = shap.TreeExplainer(native).shap_values(matrix)
        assert explainer.attribute(matrix).values[:, 0] == pytest.approx(np.asarray(theirs), abs=1e-5)
    subject, explainer, matrix = ready("hist_gradient_boosting", "binary", "tree", features=numbers)
    estimator = skops.io.load(subject.folder / "model.skops", trusted=list(SKLEARN_TYPES))
    theirs = shap.TreeExplainer(estimator).shap_values(matrix)
    assert explainer.attribute(matrix).values[:, 0] == pytest.approx(theirs, abs=1e-9)


def test_dart_and_forests_of_the_boosting_frameworks_add_up(ready: Any) -> None:
    for name, hyperparameters in (
        ("xgboost", {"booster": "dart", "rate_drop": 0.5}),
        ("lightgbm", {"boosting": "dart", "drop_rate": 0.5}),
        ("lightgbm", {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
        ("xgboost", {"objective": "count:poisson"}),
    ):
        task = "regression" if "objective" in hyperparameters else "binary"
        _, explainer, matrix = ready(name, task, "tree", hyperparameters=hyperparameters, early_stopping_rounds=0)
        found = explainer.attribute(matrix)
        assert found.values.sum(axis=2) + found.base == pytest.approx(found.outputs, abs=1e-4), hyperparameters


def test_linear_leaves_of_lightgbm_are_left_to_permutation(ready: Any) -> None:
    subject, _, _ = ready("lightgbm", "binary", hyperparameters={"linear_tree": True})
    assert choose(subject, "auto")[0] == "permutation"


def test_cost_of_a_forest_and_of_permutation_bounds_the_rows(ready: Any) -> None:
    _, forest, _ = ready("random_forest", "binary", "tree")
    assert forest.most_rows is not None
    assert forest.most_rows > 1000
    _, agnostic, _ = ready("xgboost", "binary", "permutation")
    assert agnostic.most_rows == 10**7 // (50 * 10 * (2 * len(FEATURES) + 1))
