"""What follows from sums of the rows of a slice: the metrics and the curves that one machine finds of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.components._shared.metrics.binary import ONE_CLASS
from penstock.components._shared.metrics.metric import Undefined, ratio
from penstock.components._shared.metrics.regression import CONSTANT
from penstock.components._shared.metrics.tasks import TASKS, Measured
from penstock.components.evaluation.curves import HISTOGRAM, by_class_of, confusion_of

AUC, PR_AUC = "auc", "pr_auc"  # names of areas


@dataclass
class Sums:
    """What TFMA found of the rows of a slice.

    Attributes:
        means: By name, see MEANS of on_beam.py; and the median of absolute errors as "median".
        areas: Under curves, by name, of a multiclass model by class.
        matrix: Rows by actual and predicted class.
        calibration: By bin of confidence: sum of confidences, rows that came true, rows.
        scores: By bin of probability: rows of the negative and of the positive class.
        curve: By threshold, the highest first: threshold, true and false positives.
    """

    rows: float = 0.0
    means: dict[str, float] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)
    matrix: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    calibration: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    curve: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def measured(task: str, sums: Sums) -> Measured:
    """Return the metrics that follow from sums."""
    values, undefined = {}, dict[str, str]()
    for name in TASKS[task].metrics:
        try:
            values[name] = float(METRICS[task][name](sums))
        except Undefined as reason:
            undefined[name] = str(reason)
    return Measured(round(sums.rows), values, undefined)


def _auc(sums: Sums) -> float:
    if not sums.matrix.sum(axis=1).all():
        raise Undefined(ONE_CLASS)
    return sums.areas[AUC]


def _pr_auc(sums: Sums) -> float:
    if not sums.matrix[1].sum():
        raise Undefined("no row is positive")
    return sums.areas[PR_AUC]


def _ece(sums: Sums) -> float:
    confidence, true, _ = sums.calibration.T
    return float(np.abs(true - confidence).sum() / sums.rows)


def _f1(sums: Sums) -> float:
    actual, predicted = sums.matrix[1].sum(), sums.matrix[:, 1].sum()
    return ratio(2 * sums.matrix[1, 1], predicted + actual, "no row is positive and none is predicted so")


def _balanced_accuracy(sums: Sums) -> float:
    actual = sums.matrix.sum(axis=1)
    return float(np.mean(np.diag(sums.matrix)[actual > 0] / actual[actual > 0]))


def _macro_f1(sums: Sums) -> float:
    seen = sums.matrix.sum(axis=1) + sums.matrix.sum(axis=0)
    return float(np.mean(2 * np.diag(sums.matrix)[seen > 0] / seen[seen > 0]))


def _auc_ovr(sums: Sums) -> float:
    if absent := int((sums.matrix.sum(axis=1) == 0).sum()):
        raise Undefined(f"{absent} of {len(sums.matrix)} classes have no row")
    return float(np.mean([sums.areas[f"{AUC}/{number}"] for number in range(len(sums.matrix))]))


def _r2(sums: Sums) -> float:
    scale = sums.means["centred_squared"]
    variance = scale - sums.means["centred"] ** 2
    if variance <= CONSTANT * scale:
        raise Undefined("the target is the same in all rows")
    return 1 - sums.means["squared"] / variance


def _mape(sums: Sums) -> float:
    if sums.means["zeros"]:
        raise Undefined("an actual value is 0")
    return sums.means["relative"]


def _accuracy(sums: Sums) -> float:
    return float(np.trace(sums.matrix) / sums.rows)


METRICS: Mapping[str, Mapping[str, Callable[[Sums], float]]] = {
    "binary": {
        "rows": lambda sums: sums.rows,
        "positive_rate": lambda sums: sums.matrix[1].sum() / sums.rows,
        "auc": _auc,
        "pr_auc": _pr_auc,
        "log_loss": lambda sums: sums.means["loss"],
        "brier": lambda sums: sums.means["squared"],
        "ece": _ece,
        "accuracy": _accuracy,
        "precision": lambda sums: ratio(sums.matrix[1, 1], sums.matrix[:, 1].sum(), "no row is predicted positive"),
        "recall": lambda sums: ratio(sums.matrix[1, 1], sums.matrix[1].sum(), "no row is positive"),
        "f1": _f1,
    },
    "multiclass": {
        "rows": lambda sums: sums.rows,
        "accuracy": _accuracy,
        "balanced_accuracy": _balanced_accuracy,
        "macro_f1": _macro_f1,
        "log_loss": lambda sums: sums.means["loss"],
        "auc_ovr": _auc_ovr,
        "ece": _ece,
    },
    "regression": {
        "rows": lambda sums: sums.rows,
        "rmse": lambda sums: np.sqrt(sums.means["squared"]),
        "mae": lambda sums: sums.means["absolute"],
        "median_ae": lambda sums: sums.means["median"],
        "r2": _r2,
        "mape": _mape,
        "bias": lambda sums: sums.means["error"],
    },
}


def curves(task: str, sums: Sums, classes: Sequence[Any]) -> dict[str, Any]:
    """Return the curves that follow from sums; of a regression there are none."""
    if task == "regression":
        return {}
    confidence, true, rows = sums.calibration[sums.calibration[:, 2] > 0].T
    found: dict[str, Any] = {
        "calibration": {
            "confidence": (confidence / rows).tolist(),
            "frequency": (true / rows).tolist(),
            "rows": rows.astype(int).tolist(),
        },
        "confusion": confusion_of(sums.matrix.astype(np.int64), classes),
    }
    if task == "multiclass":
        return found | {"by_class": by_class_of(sums.matrix.astype(np.int64), classes)}
    negative, positive = sums.scores.T.astype(int)
    edges = np.linspace(0, 1, HISTOGRAM + 1).tolist()
    scores = {"edges": edges, "negative": negative.tolist(), "positive": positive.tolist()}
    return {**_roc_and_pr(sums), **found, "scores": scores}


def _roc_and_pr(sums: Sums) -> dict[str, Any]:
    thresholds, tp, fp = sums.curve.T
    if not tp[-1] or not fp[-1]:
        return {"roc": None, "pr": None}
    shown = tp + fp > 0
    return {
        "roc": {"fpr": (fp / fp[-1]).tolist(), "tpr": (tp / tp[-1]).tolist(), "thresholds": thresholds.tolist()},
        "pr": {
            "recall": (tp / tp[-1])[shown].tolist(),
            "precision": (tp / np.maximum(tp + fp, 1))[shown].tolist(),
            "thresholds": thresholds[shown].tolist(),
        },
    }
