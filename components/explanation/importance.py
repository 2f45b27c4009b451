"""Permutation importance: how much worse a metric gets when the values of a column are shuffled among the rows.

Breiman: Random forests. Machine Learning 45 (2001), for any model: Fisher, Rudin, Dominici, JMLR 20 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error, r2_score, roc_auc_score

from penstock.components._shared.errors import UserError

COMPONENT = "explain"
AUTO = "auto"


@dataclass(frozen=True)
class Metric:
    """A metric by scikit-learn's definition.

    Attributes:
        value: Takes labels, predictions and weights; labels are places in the classes, or numbers.
        higher: Whether a higher value is better.
    """

    value: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    higher: bool


@dataclass(frozen=True)
class Importance:
    """What was measured.

    Attributes:
        baseline: The metric of the untouched rows.
        drops: How much worse it got, (features, repeats); above 0 is worse.
    """

    metric: str
    higher: bool
    baseline: float
    drops: np.ndarray


def _auc(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    return float(roc_auc_score(labels, predicted[:, 1], sample_weight=weights))


def _log_loss(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    # Probabilities in single precision do not add up to 1 as closely as scikit-learn wants.
    shares = predicted / predicted.sum(axis=1, keepdims=True)
    return float(log_loss(labels, shares, sample_weight=weights, labels=np.arange(predicted.shape[1])))


def _accuracy(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    # As evaluate does: at a probability of 0.5 a row is predicted positive.
    chosen = predicted[:, 1] >= 0.5 if predicted.shape[1] == 2 else predicted.argmax(axis=1)
    return float(accuracy_score(labels, chosen, sample_weight=weights))


def _rmse(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    return math.sqrt(mean_squared_error(labels, predicted, sample_weight=weights))


def _mae(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    return float(mean_absolute_error(labels, predicted, sample_weight=weights))


def _r2(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    return float(r2_score(labels, predicted, sample_weight=weights))


# By task; the first is the one that "auto" takes.
METRICS: Mapping[str, Mapping[str, Metric]] = {
    "binary": {"auc": Metric(_auc, True), "log_loss": Metric(_log_loss, False), "accuracy": Metric(_accuracy, True)},
    "multiclass": {"log_loss": Metric(_log_loss, False), "accuracy": Metric(_accuracy, True)},
    "regression": {"rmse": Metric(_rmse, False), "mae": Metric(_mae, False), "r2": Metric(_r2, True)},
}


def choose(task: str, name: str) -> str:
    """Return the name of a metric of the task.

    Raises:
        UserError: It has no such metric.
    """
    names = METRICS[task]
    if name not in (AUTO, *names):
        raise UserError(
            COMPONENT, "metric", f"{name!r} is no metric of a {task} model", f"Choose one of auto, {', '.join(names)}"
        )
    return next(iter(names)) if name == AUTO else name


def undefined(metric: str, labels: np.ndarray) -> str:
    """Return why the metric has no value on these rows; empty if it has one."""
    if metric == "auc" and len(np.unique(labels)) < 2:
        return "the rows are all of one class, so that there is no auc"
    if metric == "r2" and len(labels) < 2:
        return "r2 needs two rows"
    return ""


def permute(
    predict: Callable[[np.ndarray], np.ndarray],
    matrix: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    task: str,
    metric: str,
    repeats: int,
    seed: int,
) -> Importance:
    """Return the permutation importance of each column of a matrix.

    Args:
        predict: The model, of such matrices.
        repeats: Shuffles of each column, 1 or more.
    """
    row = METRICS[task][metric]
    sign = 1.0 if row.higher else -1.0
    baseline = row.value(labels, predict(matrix), weights)
    drops = np.empty((matrix.shape[1], repeats))
    random = np.random.default_rng(seed)
    for feature in range(matrix.shape[1]):
        shuffled = matrix.copy()
        for repeat in range(repeats):
            shuffled[:, feature] = matrix[random.permutation(len(matrix)), feature]
            drops[feature, repeat] = sign * (baseline - row.value(labels, predict(shuffled), weights))
    return Importance(metric, row.higher, baseline, drops)
