"""Metrics of a classifier with more than two classes, by scikit-learn's definitions."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from penstock.components._shared.metrics.binary import area_under_roc, log_loss_of
from penstock.components._shared.metrics.calibration import BINS, bin_of
from penstock.components._shared.metrics.metric import Metric, Undefined, sum_of_products


class MulticlassRows:
    """Rows as they come.

    Args:
        labels: Places in the classes, (n,).
        predictions: Probabilities, (n, classes).
    """

    def __init__(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        rows, self.classes = predictions.shape
        self.labels = labels
        self.probabilities = predictions
        self.predicted = predictions.argmax(axis=1)
        self.cells = labels * self.classes + self.predicted
        self.loss = log_loss_of(predictions[np.arange(rows), labels])
        confidence = predictions[np.arange(rows), self.predicted]
        self.bins = bin_of(confidence)
        self.overconfidence = confidence - (self.predicted == labels)

    @cached_property
    def by_score(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each class: rows in descending order of its score, last places of equal scores, whether of the class."""
        found = []
        for place in range(self.classes):
            score = self.probabilities[:, place]
            order = np.argsort(-score, kind="stable")
            ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
            found.append((order, ends, self.labels[order] == place))
        return found

    def weigh(self, weights: np.ndarray | None) -> Multiclass:
        """See Rows."""
        return Multiclass(self, np.ones(len(self.labels)) if weights is None else weights.astype(np.float64))


class Multiclass:
    """Weighted rows."""

    def __init__(self, rows: MulticlassRows, weights: np.ndarray) -> None:
        self.rows = rows
        self.weights = weights
        self.total = float(weights.sum())
        cells = np.bincount(rows.cells, weights, minlength=rows.classes**2)
        self.confusion = cells.reshape(rows.classes, rows.classes)  # actual, predicted
        self.hits = np.diag(self.confusion)
        self.actual = self.confusion.sum(axis=1)
        self.predicted = self.confusion.sum(axis=0)


def _balanced_accuracy(rows: Multiclass) -> float:
    present = rows.actual > 0
    return float(np.mean(rows.hits[present] / rows.actual[present]))


def _macro_f1(rows: Multiclass) -> float:
    seen = rows.actual + rows.predicted
    return float(np.mean(2 * rows.hits[seen > 0] / seen[seen > 0]))


def _auc_ovr(rows: Multiclass) -> float:
    if absent := int((rows.actual <= 0).sum()):
        raise Undefined(f"{absent} of {rows.rows.classes} classes have no row")
    areas = []
    for order, ends, of_class in rows.rows.by_score:
        weights = rows.weights[order]
        tp = np.cumsum(weights * of_class)[ends]
        areas.append(area_under_roc(tp, np.cumsum(weights)[ends] - tp))
    return float(np.mean(areas))


def _ece(rows: Multiclass) -> float:
    gap = np.bincount(rows.rows.bins, rows.weights * rows.rows.overconfidence, minlength=BINS)
    return float(np.abs(gap).sum() / rows.total)


METRICS = {
    "rows": Metric(lambda rows: rows.total, "", "number of rows", varies=False),
    "accuracy": Metric(lambda rows: float(rows.hits.sum() / rows.total), "higher", "share of right predictions"),
    "balanced_accuracy": Metric(_balanced_accuracy, "higher", "mean recall of the classes"),
    "macro_f1": Metric(_macro_f1, "higher", "mean F1 of the classes"),
    "log_loss": Metric(
        lambda rows: sum_of_products(rows.weights, rows.rows.loss) / rows.total, "lower", "mean negative log-likelihood"
    ),
    "auc_ovr": Metric(_auc_ovr, "higher", "mean area under the ROC curves of each class against the rest"),
    "ece": Metric(_ece, "lower", f"expected calibration error of the predicted class, {BINS} bins of equal width"),
}
