"""Averages of attributions over rows and slices, and the check that they add up; nothing of a row is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.components._shared.slices import Sliced
from penstock.components.explanation.explainers import Attributed


@dataclass(frozen=True)
class Averages:
    """Weighted averages of some rows.

    Attributes:
        absolute: Mean absolute attribution, (outputs, features).
        signed: Mean attribution, (outputs, features).
        outputs: Mean output of the model, (outputs,).
        rows: Number of rows, weights aside.
    """

    absolute: np.ndarray
    signed: np.ndarray
    outputs: np.ndarray
    rows: int


class Sums:
    """Sums over groups of rows, each row in one group.

    Args:
        groups: Number of groups.
    """

    def __init__(self, groups: int, outputs: int, features: int) -> None:
        self._absolute = np.zeros((groups, outputs, features))
        self._signed = np.zeros((groups, outputs, features))
        self._outputs = np.zeros((groups, outputs))
        self._weights = np.zeros(groups)
        self._rows = np.zeros(groups, dtype=np.int64)

    def add(self, found: Attributed, weights: np.ndarray, group_of: np.ndarray) -> None:
        for group in np.unique(group_of):
            chosen = group_of == group
            weighted = weights[chosen]
            values = found.values[chosen]
            self._absolute[group] += np.tensordot(weighted, np.abs(values), 1)
            self._signed[group] += np.tensordot(weighted, values, 1)
            self._outputs[group] += weighted @ found.outputs[chosen]
            self._weights[group] += weighted.sum()
            self._rows[group] += int(chosen.sum())

    def averages(self, group: int) -> Averages | None:
        """Return the averages of a group; None where its rows weigh nothing."""
        total = self._weights[group]
        if total <= 0:
            return None
        return Averages(
            self._absolute[group] / total,
            self._signed[group] / total,
            self._outputs[group] / total,
            int(self._rows[group]),
        )


class Additivity:
    """Whether the attributions of a row and the base add up to the output.

    The gap is relative to the size of what is added up: the base, and the attributions without their signs.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.failed_rows = 0
        self.largest_gap = 0.0

    def check(self, found: Attributed) -> None:
        gap = np.abs(found.values.sum(axis=2) + found.base - found.outputs)
        size = np.abs(found.values).sum(axis=2) + np.abs(found.base)
        worst = (gap / np.maximum(size, np.finfo(np.float64).tiny)).max(axis=1)
        # Where nothing is added up, any gap is as good as infinite, for which JSON has no word.
        self.largest_gap = max(self.largest_gap, min(float(worst.max(initial=0.0)), 1e9))
        self.failed_rows += int((worst > self.tolerance).sum())

    @property
    def holds(self) -> bool:
        return self.failed_rows == 0


def codes_of(sliced: Sliced, rows: int) -> np.ndarray:
    """Return for each row the place of its slice."""
    codes = np.zeros(rows, dtype=np.int16)
    for place, found in enumerate(sliced.slices):
        codes[found.places] = place
    return codes


@dataclass(frozen=True)
class Grouping:
    """Slices of one column, and the sums over them."""

    column: str
    names: Sequence[str]
    note: str
    codes: np.ndarray
    sums: Sums


def overall(absolute: np.ndarray) -> np.ndarray:
    """Return the mean absolute attribution of each feature over the outputs, (features,)."""
    return absolute.mean(axis=0)


def by_name(features: Sequence[str], values: np.ndarray) -> Mapping[str, float]:
    """Return numbers by feature."""
    return {name: float(value) for name, value in zip(features, values, strict=True)}
