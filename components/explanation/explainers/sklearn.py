"""scikit-learn: trees by TreeSHAP, linear models by their coefficients.

A linear model of `train` reads columns that a ColumnTransformer makes of the features; what they add is summed back to
the feature that they were made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import skops.io

from penstock.components._shared.tabular import SKLEARN_TYPES
from penstock.components.explanation.explainers import (
    MARGIN,
    PREDICTION,
    Attributed,
    Explainer,
    Makers,
    Subject,
    of_classes,
)

# Visits of tree nodes that may be spent on a forest, whose trees are as deep as the data allow: minutes, not days.
FOREST_VISITS = 2e10


def makers(subject: Subject) -> Makers:
    estimator = skops.io.load(subject.folder / "model.skops", trusted=list(SKLEARN_TYPES))
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    row = ESTIMATORS.get(type(last).__name__)
    return {row[0]: lambda: row[1](estimator, subject)} if row else {}


def _boosted(estimator: Any, subject: Subject) -> Explainer:
    # shap's own reading of these trees passes over splits by category.
    import lightgbm

    from penstock.components.explanation.explainers.hist_gradient_boosting import as_lightgbm, input_places
    from penstock.components.explanation.explainers.lightgbm import of_booster

    places = input_places(estimator)
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    about = "TreeSHAP, exact: the same trees as a LightGBM model, by its pred_contrib"
    inner = of_booster(lightgbm.Booster(model_str=as_lightgbm(estimator)), base, about)

    def attribute(matrix: np.ndarray) -> Attributed:
        found = inner.attribute(estimator._preprocess_X(matrix, reset=False))
        values = np.empty_like(found.values)
        values[:, :, places] = found.values
        own = getattr(estimator, "decision_function", estimator.predict)(matrix)
        return Attributed(values, found.base, own.reshape(len(matrix), -1))

    return Explainer(attribute, about, MARGIN, tolerance=inner.tolerance)


def _forest(estimator: Any, subject: Subject) -> Explainer:
    import shap

    explainer = shap.TreeExplainer(estimator)
    trees = [tree.tree_ for tree in estimator.estimators_]
    visits = sum(tree.n_leaves * tree.max_depth**2 for tree in trees) + 1
    classes = estimator.n_outputs_ == 1 and hasattr(estimator, "classes_")

    def attribute(matrix: np.ndarray) -> Attributed:
        found = np.asarray(explainer.shap_values(matrix, check_additivity=False))
        base = np.atleast_1d(explainer.expected_value)
        predicted = estimator.predict_proba(matrix) if classes else estimator.predict(matrix)
        # (rows, features, classes) of a classifier, (rows, features) else
        values = found.transpose(0, 2, 1) if found.ndim == 3 else found[:, None, :]
        if subject.model.task == "binary":
            values, base = values[:, 1:], base[1:]
        return Attributed(values, base, of_classes(predicted, subject.model.task))

    leaves, depth = sum(tree.n_leaves for tree in trees), max(tree.max_depth for tree in trees)
    return Explainer(
        attribute,
        "TreeSHAP, exact: shap's TreeExplainer, path-dependent",
        PREDICTION,
        tolerance=1e-6,
        most_rows=max(1, int(FOREST_VISITS / visits)),
        cost=f"a forest of {leaves:,} leaves, up to {depth} levels deep, takes long to explain a row of",
    )


def _linear(estimator: Any, subject: Subject) -> Explainer:
    columns, linear = estimator[:-1], estimator[-1]
    rows, weights = subject.background()
    coefficients = np.atleast_2d(linear.coef_)
    center = np.average(_dense(columns.transform(rows)), axis=0, weights=weights)
    starts = feature_places(estimator[0], len(subject.model.features))
    classes = hasattr(linear, "classes_")

    def attribute(matrix: np.ndarray) -> Attributed:
        apart = _dense(columns.transform(matrix)) - center
        values = np.zeros((len(matrix), len(coefficients), len(subject.model.features)))
        for made, feature in enumerate(starts):
            values[:, :, feature] += apart[:, made, None] * coefficients[:, made]
        own = linear.decision_function if classes else linear.predict
        base = center @ coefficients.T + np.atleast_1d(linear.intercept_)
        return Attributed(values, base, own(columns.transform(matrix)).reshape(len(matrix), -1))

    return Explainer(
        attribute,
        "SHAP of a linear model, exact for independent columns: coefficient times distance from the background's mean",
        MARGIN,
        tolerance=1e-9,
        background_rows=len(rows),
    )


def feature_places(columns: Any, features: int) -> list[int]:
    """Return for each column that a fitted ColumnTransformer makes the place of the feature it is made of."""
    places: list[int] = []
    for name, transformer, taken in columns.transformers_:
        if name == "remainder":
            continue
        made = [1] * len(taken)
        last = transformer.steps[-1][1] if hasattr(transformer, "steps") else transformer
        if hasattr(last, "categories_"):
            made = [len(categories) for categories in last.categories_]
        for place, count in zip(taken, made, strict=True):
            places += [int(place)] * count
    assert all(place < features for place in places)
    return places


def _dense(made: Any) -> np.ndarray:
    return np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype=np.float64)


ESTIMATORS: dict[str, tuple[str, Callable[[Any, Subject], Explainer]]] = {
    "HistGradientBoostingClassifier": ("tree", _boosted),
    "HistGradientBoostingRegressor": ("tree", _boosted),
    "RandomForestClassifier": ("tree", _forest),
    "RandomForestRegressor": ("tree", _forest),
    "LogisticRegression": ("linear", _linear),
    "Ridge": ("linear", _linear),
}
