"""Confidence intervals by bootstrap.

Percentile intervals: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979. A
resample of n rows is a weight for each row, how often it was drawn, so nothing is copied or sorted again.

Many rows make that slow without making it better. Above BAG rows, a random bag of so many rows stands for them all and
its weights add up to about n, as they would in a resample of n rows: one bag of Kleiner, Talwalkar, Sarkar and Jordan,
"A scalable bootstrap for massive data", JRSS B 76, 2014, with Poisson weights. The interval is moved from the bag's own
value to that of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from penstock.components._shared.metrics.tasks import Measured, Scored, Task, values_of

BAG = 50_000
LEAST_SHARE = 0.5  # of the resamples in which a metric has to have a value


@dataclass(frozen=True)
class Resampled:
    """A model's metrics on resamples of its rows.

    Attributes:
        values: Value by metric, (samples,); NaN where undefined.
        centre: Value by metric on the rows that were resampled.
    """

    values: Mapping[str, np.ndarray]
    centre: Mapping[str, float]


def resample(task: Task, scored: Scored, samples: int, seed: list[int]) -> Resampled:
    """Return the metrics on resamples; the same seed draws the same rows, so that two models can be paired.

    Args:
        scored: n rows.
        samples: Number of resamples.
        seed: Numbers from 0 up.
    """
    random = np.random.default_rng(seed)
    total = len(scored)
    if total > BAG:
        scored = scored.take(np.sort(random.choice(total, BAG, replace=False)))
    rows = task.rows(scored.labels, scored.predictions)
    centre, _ = values_of(task, rows.weigh(None))
    drawn = {name: np.full(samples, np.nan) for name, metric in task.metrics.items() if metric.varies}
    for sample in range(samples):
        if total > BAG:
            weights = random.poisson(total / BAG, BAG)
        else:
            weights = np.bincount(random.integers(0, total, total), minlength=total)
        values, _ = values_of(task, rows.weigh(weights))
        for name, found in drawn.items():
            if name in values:
                found[sample] = values[name]
    return Resampled(drawn, centre)


def interval(values: np.ndarray, shift: float, confidence: float) -> tuple[float, float] | None:
    """Return the percentile interval of resampled values, moved by `shift`; None where too few have a value."""
    defined = values[np.isfinite(values)]
    if not len(defined) or len(defined) < LEAST_SHARE * len(values):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low + shift), float(high + shift)


def measure(
    task: Task, scored: Scored, samples: int, confidence: float, seed: list[int]
) -> tuple[Measured, Resampled | None]:
    """Return the metrics of rows with their intervals, and the resamples behind them.

    Args:
        samples: Number of resamples; 0 for no intervals.
        confidence: Coverage of the intervals, 0 to 1.
    """
    if not len(scored):
        absent = {name: "there are no such rows" for name in task.metrics if name != "rows"}
        return Measured(0, {"rows": 0.0}, absent), None
    values, undefined = values_of(task, task.rows(scored.labels, scored.predictions).weigh(None))
    if not samples:
        return Measured(len(scored), values, undefined), None
    resampled = resample(task, scored, samples, seed)
    intervals = {}
    for name, drawn in resampled.values.items():
        if name in values and name in resampled.centre:
            found = interval(drawn, values[name] - resampled.centre[name], confidence)
            if found:
                intervals[name] = found
    return Measured(len(scored), values, undefined, intervals), resampled


def difference(
    ours: tuple[Measured, Resampled | None], theirs: tuple[Measured, Resampled | None], confidence: float
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Return by metric how far the first model is above the second, with the interval of paired resamples."""
    (measured, drawn), (other, other_drawn) = ours, theirs
    found: dict[str, tuple[float, tuple[float, float] | None]] = {}
    for name, value in measured.values.items():
        if name not in other.values:
            continue
        apart = value - other.values[name]
        found[name] = (apart, None)
        if drawn and other_drawn and name in drawn.values and name in drawn.centre and name in other_drawn.centre:
            shift = apart - (drawn.centre[name] - other_drawn.centre[name])
            found[name] = (apart, interval(drawn.values[name] - other_drawn.values[name], shift, confidence))
    return found
