"""Metrics of a regression, by scikit-learn's definitions."""

from __future__ import annotations

import numpy as np

from penstock.components._shared.metrics.metric import Metric, Undefined, sum_of_products

CONSTANT = 1e-14  # of the sum of squares: below it, what is left of a constant target is rounding


class RegressionRows:
    """Rows in ascending order of absolute error.

    Args:
        labels: Actual values, (n,).
        predictions: Predicted values, (n,).
    """

    def __init__(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        self.order = np.argsort(np.abs(predictions - labels), kind="stable")
        actual = labels[self.order]
        self.error = predictions[self.order] - actual
        self.absolute = np.abs(self.error)
        self.squared = self.error**2
        self.has_zero = bool((actual == 0).any())
        self.relative = self.absolute / np.where(actual == 0, 1.0, np.abs(actual))
        # Sums of squares lose digits where the mean is large.
        self.centred = actual - actual.mean() if len(actual) else actual
        self.centred_squared = self.centred**2

    def weigh(self, weights: np.ndarray | None) -> Regression:
        """See Rows."""
        return Regression(self, np.ones(len(self.error)) if weights is None else weights[self.order].astype(np.float64))


class Regression:
    """Weighted rows."""

    def __init__(self, rows: RegressionRows, weights: np.ndarray) -> None:
        self.rows = rows
        self.weights = weights
        self.total = float(weights.sum())

    def mean(self, values: np.ndarray) -> float:
        """Return the weighted mean."""
        return sum_of_products(self.weights, values) / self.total


def _r2(rows: Regression) -> float:
    scale = rows.mean(rows.rows.centred_squared)
    variance = scale - rows.mean(rows.rows.centred) ** 2
    if variance <= CONSTANT * scale:
        raise Undefined("the target is the same in all rows")
    return 1 - rows.mean(rows.rows.squared) / variance


def _median_ae(rows: Regression) -> float:
    seen = np.cumsum(rows.weights)
    half = rows.total / 2
    low, high = np.searchsorted(seen, half, side="left"), np.searchsorted(seen, half, side="right")
    return float((rows.rows.absolute[low] + rows.rows.absolute[min(high, len(seen) - 1)]) / 2)


def _mape(rows: Regression) -> float:
    if rows.rows.has_zero:
        raise Undefined("an actual value is 0")
    return rows.mean(rows.rows.relative)


METRICS = {
    "rows": Metric(lambda rows: rows.total, "", "number of rows", varies=False),
    "rmse": Metric(
        lambda rows: float(np.sqrt(rows.mean(rows.rows.squared))), "lower", "root of the mean squared error"
    ),
    "mae": Metric(lambda rows: rows.mean(rows.rows.absolute), "lower", "mean absolute error"),
    "median_ae": Metric(_median_ae, "lower", "median absolute error"),
    "r2": Metric(_r2, "higher", "share of the variance that is explained"),
    "mape": Metric(_mape, "lower", "mean absolute error relative to the actual value"),
    "bias": Metric(lambda rows: rows.mean(rows.rows.error), "", "mean of predicted minus actual"),
}
