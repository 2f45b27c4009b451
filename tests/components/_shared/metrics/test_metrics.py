from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference

from penstock.components._shared.metrics.tasks import TASKS, values_of


def values(task: str, labels: Any, predictions: Any, weights: Any = None) -> dict[str, float]:
    return values_of(*prepared(task, labels, predictions, weights))[0]


def undefined(task: str, labels: Any, predictions: Any) -> dict[str, str]:
    return values_of(*prepared(task, labels, predictions, None))[1]


def prepared(task: str, labels: Any, predictions: Any, weights: Any) -> tuple[Any, Any]:
    predictions = np.asarray(predictions, dtype=float)
    if task == "binary" and predictions.ndim == 1:
        predictions = np.column_stack((1 - predictions, predictions))
    rows = TASKS[task].rows(np.asarray(labels), predictions)
    return TASKS[task], rows.weigh(None if weights is None else np.asarray(weights))


def test_binary_metrics_of_four_rows_are_those_computed_by_hand() -> None:
    found = values("binary", [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    assert found == pytest.approx(
        {
            "rows": 4,
            "positive_rate": 0.5,
            "auc": 0.75,  # 3 of 4 pairs are in order
            "pr_auc": (1 / 1 + 2 / 3) / 2,
            "log_loss": -(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4,
            "brier": (0.01 + 0.16 + 0.4225 + 0.04) / 4,
            # 0.35 and 0.4 share the bin (5/15, 6/15]
            "ece": (0.1 + abs(0.35 + 0.4 - 1) + 0.2) / 4,
            "accuracy": 0.75,
            "precision": 1.0,
            "recall": 0.5,
            "f1": 2 / 3,
        }
    )


def test_multiclass_metrics_of_four_rows_are_those_computed_by_hand() -> None:
    found = values("multiclass", [0, 1, 2, 2], [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.7, 0.2, 0.1]])
    assert found == pytest.approx(
        {
            "rows": 4,
            "accuracy": 0.75,
            "balanced_accuracy": (1 + 1 + 0.5) / 3,
            "macro_f1": (2 / 3 + 1 + 2 / 3) / 3,
            "log_loss": -(math.log(0.6) + math.log(0.5) + math.log(0.8) + math.log(0.1)) / 4,
            # class 0: 2 of 3 pairs; class 1: 3 of 3; class 2: 0.8 beats both, 0.1 loses to 0.3 and ties with 0.1
            "auc_ovr": (2 / 3 + 1 + 2.5 / 4) / 3,
            # confidences 0.6 (bin 9), 0.5 (8), 0.8 (12), 0.7 (11), right but for the last
            "ece": (0.4 + 0.5 + 0.2 + 0.7) / 4,
        }
    )


def test_regression_metrics_of_four_rows_are_those_computed_by_hand() -> None:
    found = values("regression", [1.0, 2.0, 4.0, 5.0], [2.0, 2.0, 3.0, 8.0])
    assert found == pytest.approx(
        {
            "rows": 4,
            "rmse": math.sqrt(11 / 4),
            "mae": 5 / 4,
            "median_ae": 1.0,
            "r2": 1 - 11 / 10,
            "mape": (1 + 0 + 0.25 + 0.6) / 4,
            "bias": 3 / 4,
        }
    )


def drawn(rows: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    random = np.random.default_rng(seed)
    return random, random.multinomial(rows, np.full(rows, 1 / rows))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 2, 12])  # few digits make ties
def test_binary_metrics_are_those_of_scikit_learn_on_resamples(seed: int, digits: int) -> None:
    random, weights = drawn(300, seed)
    labels = random.integers(0, 2, 300)
    score = np.round(np.clip(random.normal(0.4 + 0.2 * labels, 0.25), 0, 1), digits)
    found = values("binary", labels, score, weights)
    predicted = score >= 0.5
    expected = {
        "rows": 300,
        "positive_rate": np.average(labels, weights=weights),
        "auc": reference.roc_auc_score(labels, score, sample_weight=weights),
        "pr_auc": reference.average_precision_score(labels, score, sample_weight=weights),
        "log_loss": reference.log_loss(labels, score, sample_weight=weights),
        "brier": reference.brier_score_loss(labels, score, sample_weight=weights),
        "accuracy": reference.accuracy_score(labels, predicted, sample_weight=weights),
        "precision": reference.precision_score(labels, predicted, sample_weight=weights),
        "recall": reference.recall_score(labels, predicted, sample_weight=weights),
        "f1": reference.f1_score(labels, predicted, sample_weight=weights),
    }
    found.pop("ece")
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_multiclass_metrics_are_those_of_scikit_learn_on_resamples(seed: int) -> None:
    random, weights = drawn(300, seed)
    labels = random.integers(0, 4, 300)
    probabilities = random.integers(1, 9, (300, 4)) + 3.0 * (np.arange(4) == labels[:, None])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = values("multiclass", labels, probabilities, weights)
    predicted = probabilities.argmax(axis=1)
    expected = {
        "rows": 300,
        "accuracy": reference.accuracy_score(labels, predicted, sample_weight=weights),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted, sample_weight=weights),
        "macro_f1": reference.f1_score(labels, predicted, average="macro", sample_weight=weights),
        "log_loss": reference.log_loss(labels, probabilities, sample_weight=weights),
        "auc_ovr": reference.roc_auc_score(
            labels, probabilities, multi_class="ovr", average="macro", sample_weight=weights
        ),
    }
    found.pop("ece")
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [7, 300])
def test_regression_metrics_are_those_of_scikit_learn_on_resamples(seed: int, rows: int) -> None:
    random, weights = drawn(rows, seed)
    actual = random.normal(1e6, 3, rows)
    predicted = actual + random.normal(0.5, 2, rows)
    found = values("regression", actual, predicted, weights)
    repeated = np.repeat(predicted - actual, weights)
    expected = {
        "rows": rows,
        "rmse": reference.root_mean_squared_error(actual, predicted, sample_weight=weights),
        "mae": reference.mean_absolute_error(actual, predicted, sample_weight=weights),
        "median_ae": np.median(np.abs(repeated)),
        "r2": reference.r2_score(actual, predicted, sample_weight=weights),
        "mape": reference.mean_absolute_percentage_error(actual, predicted, sample_weight=weights),
        "bias": repeated.mean(),
    }
    assert found == pytest.approx(expected, rel=1e-8)


def test_classes_absent_from_the_rows_do_not_count_in_balanced_accuracy_and_f1() -> None:
    labels, probabilities = [0, 0, 1], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]]
    found = values("multiclass", labels, probabilities)
    predicted = [0, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["balanced_accuracy"] == reference.balanced_accuracy_score(labels, predicted)
        assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert undefined("multiclass", labels, probabilities) == {"auc_ovr": "1 of 3 classes have no row"}


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "reasons"),
    [
        (
            "binary",
            [0, 0],
            [0.1, 0.9],
            {
                "auc": "the rows are all of one class",
                "pr_auc": "no row is positive",
                "recall": "no row is positive",
            },
        ),
        ("binary", [1, 1], [0.6, 0.9], {"auc": "the rows are all of one class"}),
        ("binary", [0, 1], [0.1, 0.2], {"precision": "no row is predicted positive"}),
        (
            "binary",
            [0],
            [0.1],
            {
                "auc": "the rows are all of one class",
                "pr_auc": "no row is positive",
                "precision": "no row is predicted positive",
                "recall": "no row is positive",
                "f1": "no row is positive and none is predicted so",
            },
        ),
        ("regression", [3.0, 3.0, 3.0], [1.0, 2.0, 3.0], {"r2": "the target is the same in all rows"}),
        ("regression", [0.1], [0.2], {"r2": "the target is the same in all rows"}),
        ("regression", [0.0, 1.0], [1.0, 2.0], {"mape": "an actual value is 0"}),
    ],
)
def test_metric_without_a_value_has_a_reason(task: str, labels: Any, predictions: Any, reasons: dict[str, str]) -> None:
    assert undefined(task, labels, predictions) == reasons
    found = values(task, labels, predictions)
    assert found.keys() | reasons.keys() == TASKS[task].metrics.keys()
    assert all(math.isfinite(value) for value in found.values())


def test_certain_and_wrong_predictions_keep_the_loss_finite() -> None:
    assert values("binary", [0, 1], [1.0, 0.0])["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps))


def test_score_of_one_half_counts_as_positive() -> None:
    assert values("binary", [1, 0], [0.5, 0.4999])["accuracy"] == 1.0
