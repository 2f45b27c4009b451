"""The table of tasks and their metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.components._shared.metrics import binary, multiclass, regression
from penstock.components._shared.metrics.metric import Metric, Rows, Undefined


@dataclass(frozen=True)
class Task:
    """What is measured of models of a task.

    Attributes:
        headline: The metric that stands for the model where there is room for one.
        bytes_of_row: Of a row's label and of what its metrics are made of, at least.
        bytes_of_output: The same of each of a row's predictions.
    """

    rows: type[Rows]
    metrics: Mapping[str, Metric]
    headline: str
    bytes_of_row: int
    bytes_of_output: int

    def bytes(self, rows: int, outputs: int) -> int:
        """Return how much memory it takes, at least, to measure so many rows of a model with so many outputs."""
        return rows * (self.bytes_of_row + self.bytes_of_output * outputs)


TASKS = {
    "binary": Task(binary.BinaryRows, binary.METRICS, "auc", 130, 8),
    "multiclass": Task(multiclass.MulticlassRows, multiclass.METRICS, "auc_ovr", 100, 25),
    "regression": Task(regression.RegressionRows, regression.METRICS, "rmse", 76, 8),
}


@dataclass(frozen=True)
class Scored:
    """Labels and a model's predictions of the same rows, as the task's rows take them."""

    labels: np.ndarray
    predictions: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: np.ndarray) -> Scored:
        """Return some of the rows."""
        return Scored(self.labels[places], self.predictions[places])


@dataclass(frozen=True)
class Measured:
    """Metrics of some rows.

    Attributes:
        values: Value by metric, where there is one.
        undefined: Why there is no value, by metric.
        intervals: Low and high end of the confidence interval by metric, where there is one.
    """

    rows: int
    values: Mapping[str, float]
    undefined: Mapping[str, str]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def values_of(task: Task, weighted: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Return the values of weighted rows by metric, and the reasons where there is none."""
    values, undefined = {}, {}
    for name, metric in task.metrics.items():
        try:
            values[name] = float(metric.function(weighted))
        except Undefined as reason:
            undefined[name] = str(reason)
    return values, undefined
