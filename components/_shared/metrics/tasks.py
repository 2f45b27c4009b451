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
    """

    rows: type[Rows]
    metrics: Mapping[str, Metric]
    headline: str


TASKS = {
    "binary": Task(binary.BinaryRows, binary.METRICS, "auc"),
    "multiclass": Task(multiclass.MulticlassRows, multiclass.METRICS, "auc_ovr"),
    "regression": Task(regression.RegressionRows, regression.METRICS, "rmse"),
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
