"""Curves and tables that show more of a model than a number can. All are plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.components._shared.metrics.calibration import BINS, bin_of
from penstock.components._shared.metrics.tasks import Scored
from penstock.components._shared.tabular import label_text

POINTS = 200  # of a curve
HISTOGRAM = 30  # bins
MOST_CLASSES = 30  # in a confusion matrix; the KFP and Vertex pages draw no more
GRID = 40  # cells a side of predicted by actual values


def curves_of(task: str, scored: Scored, classes: Sequence[Any]) -> dict[str, Any]:
    """Return the task's curves by name.

    Args:
        classes: Labels in the order of the predictions' columns; empty for a regression.
    """
    if task == "regression":
        return {"residuals": _residuals(scored), "predicted_by_actual": _predicted_by_actual(scored)}
    matrix = _matrix(scored, len(classes))
    shared = {"calibration": _calibration(scored), "confusion": confusion_of(matrix, classes)}
    if task == "multiclass":
        return shared | {"by_class": by_class_of(matrix, classes)}
    return {**_roc_and_pr(scored), **shared, "scores": _scores(scored)}


def _roc_and_pr(scored: Scored) -> dict[str, Any]:
    score = scored.predictions[:, 1]
    order = np.argsort(-score, kind="stable")
    positive = scored.labels[order] == 1
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    tp = np.cumsum(positive)[ends].astype(np.float64)
    fp = ends + 1 - tp
    if tp[-1] == 0 or fp[-1] == 0:
        return {"roc": None, "pr": None}
    # The curve starts where nothing is predicted positive: just above the highest score. Infinity, scikit-learn's
    # choice, is refused by KFP.
    thresholds = np.concatenate(([np.nextafter(score.max(), np.inf)], score[order][ends]))
    fpr = np.concatenate(([0.0], fp / fp[-1]))
    tpr = np.concatenate(([0.0], tp / tp[-1]))
    roc = _thin(fpr, tpr)
    recall, precision = tp / tp[-1], tp / (tp + fp)
    pr = _thin(recall, precision)
    return {
        "roc": {"fpr": fpr[roc].tolist(), "tpr": tpr[roc].tolist(), "thresholds": thresholds[roc].tolist()},
        "pr": {
            "recall": recall[pr].tolist(),
            "precision": precision[pr].tolist(),
            "thresholds": thresholds[1:][pr].tolist(),
        },
    }


def _thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return at most POINTS places, first and last among them, evenly along the curve."""
    if len(x) <= POINTS:
        return np.arange(len(x))
    length = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
    return np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)).clip(max=len(x) - 1))


def _calibration(scored: Scored) -> dict[str, Any]:
    if scored.predictions.shape[1] == 2:
        confidence, true = scored.predictions[:, 1], scored.labels == 1
    else:
        predicted = scored.predictions.argmax(axis=1)
        confidence, true = scored.predictions[np.arange(len(scored)), predicted], predicted == scored.labels
    bins = bin_of(confidence)
    rows = np.bincount(bins, minlength=BINS)
    filled = rows > 0
    return {
        "confidence": (np.bincount(bins, confidence, minlength=BINS)[filled] / rows[filled]).tolist(),
        "frequency": (np.bincount(bins, true, minlength=BINS)[filled] / rows[filled]).tolist(),
        "rows": rows[filled].tolist(),
    }


def _matrix(scored: Scored, classes: int) -> np.ndarray:
    """Return the number of rows by actual and predicted class."""
    predicted = (scored.predictions[:, 1] >= 0.5).astype(int) if classes == 2 else scored.predictions.argmax(axis=1)
    return np.bincount(scored.labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_of(matrix: np.ndarray, names: Sequence[Any]) -> dict[str, Any]:
    """Return rows by actual and predicted class with the labels beside; of many classes the smallest are one."""
    labels, classes = [label_text(name) for name in names], len(names)
    if classes > MOST_CLASSES:
        largest = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[: MOST_CLASSES - 1])
        group = np.full(classes, MOST_CLASSES - 1)
        group[largest] = np.arange(MOST_CLASSES - 1)
        folded = np.zeros((MOST_CLASSES, MOST_CLASSES), dtype=np.int64)
        np.add.at(folded, (group[:, None], group[None, :]), matrix)
        labels, matrix = [*(labels[place] for place in largest), f"{classes - MOST_CLASSES + 1} others"], folded
    return {"labels": labels, "matrix": matrix.tolist()}


def by_class_of(matrix: np.ndarray, classes: Sequence[Any]) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each class, None where there is no such row or prediction.

    Args:
        matrix: Rows by actual and predicted class.
    """
    right, actual, chosen = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        {
            "class": label_text(label),
            "rows": int(rows),
            "precision": hits / picked if picked else None,
            "recall": hits / rows if rows else None,
            "f1": 2 * hits / (rows + picked) if rows + picked else None,
        }
        for label, hits, rows, picked in zip(classes, right.tolist(), actual.tolist(), chosen.tolist(), strict=True)
    ]


def _scores(scored: Scored) -> dict[str, Any]:
    edges = np.linspace(0, 1, HISTOGRAM + 1)
    score = scored.predictions[:, 1]
    return {
        "edges": edges.tolist(),
        "negative": np.histogram(score[scored.labels == 0], edges)[0].tolist(),
        "positive": np.histogram(score[scored.labels == 1], edges)[0].tolist(),
    }


def _residuals(scored: Scored) -> dict[str, Any]:
    residual = scored.predictions - scored.labels
    # A few far out would leave one bin for all the others.
    low, high = np.quantile(residual, [0.005, 0.995])
    rows, edges = np.histogram(residual, HISTOGRAM, (low, high) if low < high else None)
    return {
        "edges": edges.tolist(),
        "rows": rows.tolist(),
        "below": int((residual < edges[0]).sum()),
        "above": int((residual > edges[-1]).sum()),
    }


def _predicted_by_actual(scored: Scored) -> dict[str, Any]:
    rows, actual, predicted = np.histogram2d(scored.labels, scored.predictions, GRID)
    return {
        "actual_edges": actual.tolist(),
        "predicted_edges": predicted.tolist(),
        "rows": rows.astype(np.int64).tolist(),
    }
