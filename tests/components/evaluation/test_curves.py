from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference

from penstock.components._shared.metrics.tasks import Scored
from penstock.components.evaluation.curves import POINTS, curves_of


def binary(labels: list[int] | np.ndarray, score: list[float] | np.ndarray) -> Scored:
    score = np.asarray(score)
    return Scored(np.asarray(labels), np.column_stack((1 - score, score)))


def test_roc_of_four_rows_is_that_computed_by_hand() -> None:
    roc = curves_of("binary", binary([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), [False, True])["roc"]
    assert roc["fpr"] == [0, 0, 0.5, 0.5, 1]
    assert roc["tpr"] == [0, 0.5, 0.5, 1, 1]
    assert roc["thresholds"][1:] == [0.8, 0.4, 0.35, 0.1]
    assert 0.8 < roc["thresholds"][0] < 0.8001


def test_rows_of_equal_score_make_one_point() -> None:
    roc = curves_of("binary", binary([0, 1, 1], [0.5, 0.5, 0.9]), [0, 1])["roc"]
    assert (roc["fpr"], roc["tpr"]) == ([0, 0, 1], [0, 0.5, 1])


def test_long_curves_are_thinned_to_their_shape() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 5000)
    scored = binary(labels, np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1))
    curves = curves_of("binary", scored, [0, 1])
    roc, pr = curves["roc"], curves["pr"]
    assert len(roc["fpr"]) == len(roc["tpr"]) == len(roc["thresholds"]) <= POINTS
    assert all(math.isfinite(threshold) for threshold in roc["thresholds"])
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)
    assert len(pr["recall"]) == len(pr["precision"]) == len(pr["thresholds"]) <= POINTS
    area = reference.roc_auc_score(labels, scored.predictions[:, 1])
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(area, abs=0.001)


def test_rows_of_one_class_have_no_roc() -> None:
    curves = curves_of("binary", binary([1, 1], [0.5, 0.9]), [0, 1])
    assert curves["roc"] is None
    assert curves["pr"] is None


def test_confusion_counts_actual_by_predicted() -> None:
    curves = curves_of("binary", binary([0, 0, 1, 1], [0.1, 0.6, 0.35, 0.8]), [False, True])
    assert curves["confusion"] == {"labels": ["false", "true"], "matrix": [[1, 1], [1, 1]]}
    scored = Scored(np.array([0, 1, 2]), np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))
    assert curves_of("multiclass", scored, ["x", "y", "z"])["confusion"]["matrix"] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_classes_beyond_what_a_page_draws_are_folded() -> None:
    labels = np.repeat(np.arange(40), np.arange(40, 0, -1))
    scored = Scored(labels, np.eye(40)[labels])
    confusion = curves_of("multiclass", scored, [f"c{i}" for i in range(40)])["confusion"]
    assert confusion["labels"] == [*(f"c{i}" for i in range(29)), "11 others"]
    assert np.array(confusion["matrix"]).sum() == len(labels)
    assert confusion["matrix"][29][29] == sum(range(1, 12))


def test_classes_have_precision_recall_and_f1() -> None:
    scored = Scored(np.array([0, 0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]))
    assert curves_of("multiclass", scored, ["x", "y", "z"])["by_class"] == [
        {"class": "x", "rows": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)},
        {"class": "y", "rows": 1, "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)},
        {"class": "z", "rows": 0, "precision": None, "recall": None, "f1": None},
    ]


def test_calibration_gives_the_mean_and_the_share_of_each_bin() -> None:
    curve = curves_of("binary", binary([0, 1, 1, 0], [0.91, 0.93, 0.92, 0.1]), [0, 1])["calibration"]
    assert curve["confidence"] == pytest.approx([0.1, 0.92])
    assert curve["frequency"] == pytest.approx([0, 2 / 3])
    assert curve["rows"] == [1, 3]


def test_residuals_far_out_are_counted_beside_the_histogram() -> None:
    actual = np.zeros(1000)
    predicted = np.linspace(-1, 1, 1000)
    predicted[0], predicted[-1] = -1e6, 1e6
    residuals = curves_of("regression", Scored(actual, predicted), [])["residuals"]
    assert residuals["edges"][0] > -1.1
    assert residuals["edges"][-1] < 1.1
    assert sum(residuals["rows"]) + residuals["below"] + residuals["above"] == 1000


def test_perfect_regression_has_curves_too() -> None:
    curves = curves_of("regression", Scored(np.ones(5), np.ones(5)), [])
    assert sum(curves["residuals"]["rows"]) == 5
    assert sum(map(sum, curves["predicted_by_actual"]["rows"])) == 5
