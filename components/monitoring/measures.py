"""How far two sets of counts in the same bins are apart, and whether chance could do that.

Distances:

    psi             population stability index (Siddiqi 2006, "Credit Risk Scorecards"): sum of (p - q) ln(p / q), with
                    half a value added to every bin, so that an empty one gives no infinity; 0.1 is called a small
                    change by convention, 0.2 a large one
    jensen_shannon  Jensen-Shannon divergence, base 2 (Lin 1991), 0 to 1
    ks              Kolmogorov-Smirnov statistic: largest difference of the distribution functions at the bins' edges,
                    0 to 1; that of text is l_infinity
    l_infinity      largest difference of the shares of a bin, 0 to 1

All but ks are of some 20 bins of numbers, wide enough that their shares say something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from penstock.components._shared import distances
from penstock.components.monitoring.bins import NUMBERS, Column

WIDE_BINS = 20
_LEAST_EXPECTED = 5.0  # values of a cell, for a chi-squared test to hold (Cochran 1954)


@dataclass(frozen=True)
class Pair:
    """A column's counts in two sets of rows, float64, bin by bin."""

    kind: str
    reference: np.ndarray
    current: np.ndarray

    @property
    def wide(self) -> Pair:
        """The same in wider bins; of text the same."""
        if self.kind != NUMBERS:
            return self
        total = self.reference.sum()
        before = np.cumsum(self.reference) - self.reference
        places = np.floor(before * WIDE_BINS / total) if total else np.zeros(len(before))
        # A bin that is empty in the reference stays alone: what appears in it is new.
        places = np.where(self.reference > 0, places, WIDE_BINS + np.arange(len(before)))
        _, places = np.unique(places, return_inverse=True)
        return Pair(self.kind, np.bincount(places, self.reference), np.bincount(places, self.current))


def pair(reference: Column, current: Column) -> Pair:
    """Return the counts of a column in both sets of rows."""
    if reference.bins != current.bins:  # there was no value that bins could come from
        return Pair(current.bins.kind, np.zeros(len(current.counts)), np.array(current.counts, float))
    return Pair(reference.bins.kind, np.array(reference.counts, float), np.array(current.counts, float))


def psi(counts: Pair) -> float:
    """Return the population stability index."""
    p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (counts.wide.reference, counts.wide.current))
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(counts: Pair) -> float:
    """Return the Jensen-Shannon divergence."""
    return distances.jensen_shannon(*_named(counts))


def ks(counts: Pair) -> float:
    """Return the Kolmogorov-Smirnov statistic."""
    if counts.kind != NUMBERS:
        return l_infinity(counts)
    p, q = (np.cumsum(each) / each.sum() for each in (counts.reference, counts.current))
    return float(np.abs(p - q).max())


def l_infinity(counts: Pair) -> float:
    """Return the largest difference of a bin's share."""
    return distances.l_infinity(*_named(counts))[1]


DISTANCES: dict[str, Callable[[Pair], float]] = {
    "psi": psi,
    "jensen_shannon": jensen_shannon,
    "ks": ks,
    "l_infinity": l_infinity,
}


def p_value(counts: Pair) -> float:
    """Return the probability that rows of one distribution are so far apart.

    Of numbers by Kolmogorov's and Smirnov's test with Stephens's correction (1970), which is conservative, for
    differences between edges are not seen; of text by the chi-squared test, rare values taken together.
    """
    if counts.kind != NUMBERS:
        return chi_squared(counts.reference, counts.current)
    n, m = counts.reference.sum(), counts.current.sum()
    size = np.sqrt(n * m / (n + m))
    return float(special.kolmogorov((size + 0.12 + 0.11 / size) * ks(counts)))


def chi_squared(reference: Sequence[float] | np.ndarray, current: Sequence[float] | np.ndarray) -> float:
    """Return the p-value of the chi-squared test of homogeneity of two sets of counts; 1 where all are in one cell."""
    table = np.array([reference, current], float)
    rows, total = table.sum(axis=1, keepdims=True), table.sum()
    if not rows.all():
        return 1.0
    rare = (table.sum(axis=0) * rows.min() / total) < _LEAST_EXPECTED
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    expected = rows * table.sum(axis=0) / total
    statistic = ((table - expected) ** 2 / expected).sum()
    return float(special.chdtrc(table.shape[1] - 1, statistic)) if table.shape[1] > 1 else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted by Holm's method (1979).

    Whoever calls those at most a significant has a false alarm among all with a probability of at most a, however the
    columns depend on each other.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: (item[1], item[0]))):
        largest = max(largest, min(1.0, (len(p_values) - place) * value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _named(counts: Pair) -> tuple[dict[str, float], dict[str, float]]:
    first, second = (
        {str(place): count for place, count in enumerate(each)} for each in (counts.wide.reference, counts.wide.current)
    )
    return first, second
