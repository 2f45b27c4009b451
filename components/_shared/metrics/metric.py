"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Undefined(Exception):
    """A metric has no value on these rows; the message says why."""


@dataclass(frozen=True)
class Metric:
    """A number that tells something of a model on some rows.

    Attributes:
        function: Takes weighted rows of its task; raises Undefined where there is no value.
        better: "higher", "lower", or "" where neither is better.
        about: Its definition in a few words.
        varies: Whether another sample of rows would give another value.
    """

    function: Callable[[Any], float]
    better: str
    about: str
    varies: bool = True


class Rows(Protocol):
    """Labels and predictions of some rows, prepared for being weighed many times."""

    def __init__(self, labels: np.ndarray, predictions: np.ndarray) -> None: ...

    def weigh(self, weights: np.ndarray | None) -> Any:
        """Return what the task's metrics take; weights are whole numbers in the order of `labels`, None is all 1."""
        ...


def ratio(part: float, whole: float, reason: str) -> float:
    """Return part / whole, undefined for `reason` where the whole is 0."""
    if whole <= 0:
        raise Undefined(reason)
    return float(part / whole)


def sum_of_products(left: np.ndarray, right: np.ndarray) -> float:
    """Return their dot product; BLAS would share even short ones among threads, which stalls on a busy machine."""
    return float((left * right).sum())
