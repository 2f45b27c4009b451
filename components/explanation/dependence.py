"""Partial dependence: the mean prediction when a column holds the same value in every row.

Friedman: Greedy function approximation: a gradient boosting machine. Annals of Statistics 29 (2001).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

POINTS = 20  # values of a number
ENDS = (0.05, 0.95)  # quantiles between which they lie
MOST_CATEGORIES = 20


@dataclass(frozen=True)
class Dependence:
    """Partial dependence on one column.

    Attributes:
        values: What the column was set to: numbers, texts, booleans; None is missing.
        shares: Share of the rows by value, of categories and booleans; empty of numbers.
        predicted: Mean prediction, (values, outputs).
        note: What was left out; empty if nothing was.
    """

    values: list[Any]
    shares: list[float]
    predicted: np.ndarray
    note: str


def depend(
    predict: Callable[[np.ndarray], np.ndarray],
    matrix: np.ndarray,
    weights: np.ndarray,
    feature: int,
    column: Mapping[str, Any],
) -> Dependence:
    """Return the partial dependence on a feature.

    Args:
        predict: The model, of such matrices: (rows, outputs).
        feature: The place of its column in the matrix.
        column: What features.json says of it.
    """
    codes, values, shares, note = GRIDS[column["kind"]](matrix[:, feature], weights, column)
    varied = matrix.copy()
    predicted = []
    for code in codes:
        varied[:, feature] = code
        predicted.append(np.average(predict(varied), axis=0, weights=weights))
    return Dependence(values, shares, np.array(predicted), note)


Grid = tuple[np.ndarray, list[Any], list[float], str]


def _numbers(values: np.ndarray, weights: np.ndarray, column: Mapping[str, Any]) -> Grid:
    present = values[~np.isnan(values)]
    if not len(present):
        return np.array([np.nan]), [None], [], "missing in all rows"
    points = np.unique(present)
    if len(points) > POINTS:
        points = np.unique(np.quantile(present, np.linspace(*ENDS, POINTS)))
        note = f"{POINTS} quantiles from {ENDS[0]:.0%} to {ENDS[1]:.0%}"
    else:
        note = ""
    if len(present) < len(values):
        note = f"{note}; missing in {1 - len(present) / len(values):.1%} of the rows".removeprefix("; ")
    return points, points.tolist(), [], note


def _codes(values: np.ndarray, weights: np.ndarray, names: list[Any]) -> Grid:
    known = np.where(np.isnan(values), len(names), values).astype(np.int64)
    counts = np.bincount(known, weights, minlength=len(names) + 1)
    shares = counts / counts.sum()
    order = [int(code) for code in np.argsort(-shares, kind="stable") if shares[code] > 0]
    kept = order[:MOST_CATEGORIES]
    note = f"the {len(kept)} most frequent of {len(order):,} values" if len(kept) < len(order) else ""
    codes = np.array([np.nan if code == len(names) else code for code in kept], dtype=np.float64)
    return codes, [None if code == len(names) else names[code] for code in kept], [float(shares[c]) for c in kept], note


def _categories(values: np.ndarray, weights: np.ndarray, column: Mapping[str, Any]) -> Grid:
    return _codes(values, weights, list(column["categories"]))


def _texts(values: np.ndarray, weights: np.ndarray, column: Mapping[str, Any]) -> Grid:
    return _codes(values, weights, [f"bin {number}" for number in range(column["bins"])])


def _booleans(values: np.ndarray, weights: np.ndarray, column: Mapping[str, Any]) -> Grid:
    return _codes(values, weights, [False, True])


GRIDS: Mapping[str, Callable[[np.ndarray, np.ndarray, Mapping[str, Any]], Grid]] = {
    "number": _numbers,
    "category": _categories,
    "boolean": _booleans,
    "text": _texts,
}
