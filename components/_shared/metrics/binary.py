"""Metrics of a classifier with two classes, by scikit-learn's definitions.

Rows are sorted by score once; a weighing then costs a few passes over them, so that a bootstrap is cheap.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from penstock.components._shared.metrics.calibration import BINS, bin_of
from penstock.components._shared.metrics.metric import Metric, Undefined, ratio, sum_of_products

THRESHOLD = 0.5  # a row is predicted positive at or above it
ONE_CLASS = "the rows are all of one class"


class BinaryRows:
    """Rows in descending order of score.

    Args:
        labels: 0 or 1, (n,).
        predictions: Probabilities of both classes, (n, 2).
    """

    def __init__(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        score = predictions[:, 1]
        self.order = np.argsort(-score, kind="stable")
        self.score = score[self.order]
        self.positive = (labels[self.order] == 1).astype(np.float64)
        # Rows of equal score cannot be told apart: curves have a point for each distinct score, after its last row.
        self.ends = np.flatnonzero(np.append(np.diff(self.score) != 0, True))
        self.predicted_positive = int(np.searchsorted(-self.score, -THRESHOLD, side="right"))
        self.bins = bin_of(self.score)
        self.loss = log_loss_of(np.where(self.positive == 1, self.score, 1 - self.score))
        self.squared = (self.score - self.positive) ** 2

    def weigh(self, weights: np.ndarray | None) -> Binary:
        """See Rows."""
        return Binary(self, np.ones(len(self.score)) if weights is None else weights[self.order].astype(np.float64))


class Binary:
    """Weighted rows."""

    def __init__(self, rows: BinaryRows, weights: np.ndarray) -> None:
        self.rows = rows
        self.weights = weights
        self.seen = np.cumsum(weights)
        self.seen_positive = np.cumsum(weights * rows.positive)
        self.total = float(self.seen[-1])
        self.positives = float(self.seen_positive[-1])
        self.negatives = self.total - self.positives
        cut = rows.predicted_positive
        self.predicted = float(self.seen[cut - 1]) if cut else 0.0
        self.true_positives = float(self.seen_positive[cut - 1]) if cut else 0.0

    @cached_property
    def tp(self) -> np.ndarray:
        """True positives at or above each distinct score."""
        return self.seen_positive[self.rows.ends]

    @cached_property
    def fp(self) -> np.ndarray:
        """False positives at or above each distinct score."""
        return self.seen[self.rows.ends] - self.tp

    def require_both_classes(self) -> None:
        """Refuse rows of one class only."""
        if self.positives <= 0 or self.negatives <= 0:
            raise Undefined(ONE_CLASS)


def log_loss_of(probability: np.ndarray) -> np.ndarray:
    """Return the loss of each row, given the probability of its true class."""
    epsilon = np.finfo(np.float64).eps
    return -np.log(np.clip(probability, epsilon, 1 - epsilon))


def area_under_roc(tp: np.ndarray, fp: np.ndarray) -> float:
    """Return the area under the ROC curve through cumulative counts in descending order of score."""
    # Trapezoids: a positive and a negative row of equal score count half.
    before = np.concatenate(([0.0], tp[:-1]))
    return sum_of_products(np.diff(fp, prepend=0.0), (tp + before) / 2) / (tp[-1] * fp[-1])


def _auc(rows: Binary) -> float:
    rows.require_both_classes()
    return area_under_roc(rows.tp, rows.fp)


def _average_precision(rows: Binary) -> float:
    if rows.positives <= 0:
        raise Undefined("no row is positive")
    found = rows.tp + rows.fp
    precision = np.divide(rows.tp, found, out=np.zeros_like(found), where=found > 0)
    return sum_of_products(np.diff(rows.tp, prepend=0.0), precision) / rows.positives


def _log_loss(rows: Binary) -> float:
    return sum_of_products(rows.weights, rows.rows.loss) / rows.total


def _brier(rows: Binary) -> float:
    return sum_of_products(rows.weights, rows.rows.squared) / rows.total


def _ece(rows: Binary) -> float:
    bins, weights = rows.rows.bins, rows.weights
    gap = np.bincount(bins, weights * (rows.rows.positive - rows.rows.score), minlength=BINS)
    return float(np.abs(gap).sum() / rows.total)


def _accuracy(rows: Binary) -> float:
    false_positives = rows.predicted - rows.true_positives
    return (rows.true_positives + rows.negatives - false_positives) / rows.total


def _precision(rows: Binary) -> float:
    return ratio(rows.true_positives, rows.predicted, "no row is predicted positive")


def _recall(rows: Binary) -> float:
    return ratio(rows.true_positives, rows.positives, "no row is positive")


def _f1(rows: Binary) -> float:
    return ratio(
        2 * rows.true_positives, rows.predicted + rows.positives, "no row is positive and none is predicted so"
    )


METRICS = {
    "rows": Metric(lambda rows: rows.total, "", "number of rows", varies=False),
    "positive_rate": Metric(lambda rows: rows.positives / rows.total, "", "share of positive rows"),
    "auc": Metric(_auc, "higher", "area under the ROC curve"),
    "pr_auc": Metric(
        _average_precision, "higher", "average precision: area under the precision-recall curve, in steps"
    ),
    "log_loss": Metric(_log_loss, "lower", "mean negative log-likelihood"),
    "brier": Metric(_brier, "lower", "mean squared error of the probability"),
    "ece": Metric(_ece, "lower", f"expected calibration error, {BINS} bins of equal width"),
    "accuracy": Metric(_accuracy, "higher", f"share of right predictions at {THRESHOLD}"),
    "precision": Metric(_precision, "higher", f"share of right ones among those predicted positive at {THRESHOLD}"),
    "recall": Metric(_recall, "higher", f"share of positive rows that are predicted so at {THRESHOLD}"),
    "f1": Metric(_f1, "higher", f"harmonic mean of precision and recall at {THRESHOLD}"),
}
