"""What a worker says of many rows: tables of sums by key, which are added up by slice before TFMA sees them.

A key of scores is one of some 10,000 cells between 0 and 1, and what came true. Of a cell, TFMA, which counts in such
cells itself, needs to know no more than its rows and the sum of their scores: it takes a score with a weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.components._shared.metrics.binary import THRESHOLD
from penstock.components._shared.metrics.calibration import BINS
from penstock.components.evaluation.curves import HISTOGRAM

TFMA_BUCKETS = 10_000
# Where cells begin: wherever TFMA's buckets, ours of a plot, or predictions of another class do.
CELLS = np.unique([*(k / n for n in (TFMA_BUCKETS, BINS, HISTOGRAM) for k in range(n)), THRESHOLD])
GRAIN = 40  # bits of a float64 that are left out where rows are counted by their error, of 52 of its fraction
_KEYS = 1 << (63 - GRAIN)  # more than there are keys of a table: those of errors are the most

Tally = Mapping[str, np.ndarray]  # tables by name: float64 of shape (keys, 2 + sums), each row key, rows and sums


@dataclass(frozen=True)
class Entries:
    """What rows bring into a table.

    Attributes:
        keys: By row, from 0 to below 2**23.
        values: To be summed by key, each an array by row.
    """

    keys: np.ndarray
    values: Sequence[np.ndarray] = ()


def scores(score: np.ndarray, true: np.ndarray) -> Entries:
    """Return entries by cell of scores from 0 to 1, but for rounding, and by what came true: 0 or 1."""
    cell = np.searchsorted(CELLS, np.clip(score, 0, 1), side="right") - 1
    return Entries(cell * 2 + true.astype(np.int64), [score])


def errors(absolute: np.ndarray) -> Entries:
    """Return entries by the grain of absolute errors, the bits of a float64 but for the last: they are in order."""
    return Entries(absolute.astype(np.float64).view(np.int64) >> GRAIN)


def by_code(codes: np.ndarray, entries: Mapping[str, Entries]) -> Iterator[tuple[int, Tally]]:
    """Yield the tables of the rows of each code.

    Args:
        codes: By row, 0 or more.
        entries: By name of the table.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, each in entries.items() if len(codes) else ():
        joint, place = np.unique(codes.astype(np.int64) * _KEYS + each.keys, return_inverse=True)
        sums = [np.bincount(place, of_row, len(joint)) for of_row in (np.ones(len(codes)), *each.values)]
        table = np.column_stack([joint % _KEYS, *sums])
        starts = np.flatnonzero(np.diff(joint // _KEYS, prepend=-1))
        for start, part in zip(starts, np.split(table, starts[1:]), strict=True):
            found.setdefault(int(joint[start] // _KEYS), {})[name] = part
    yield from found.items()


def together(tallies: Iterable[Tally]) -> Tally:
    """Return the tables of all rows of tallies, which have the same tables."""
    given = list(tallies)
    if len(given) < 2:
        return given[0] if given else {}
    return {name: _sum([each[name] for each in given]) for name in given[0]}


def _sum(tables: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.concatenate(tables)
    keys, place = np.unique(stacked[:, 0], return_inverse=True)
    return np.column_stack([keys, *(np.bincount(place, column, len(keys)) for column in stacked.T[1:])])


def pairs(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what came true, the mean score, and the rows of each cell of a table of scores."""
    keys, rows, total = table.T
    cell, true = np.divmod(keys.astype(np.int64), 2)
    ends = np.append(CELLS[1:], np.nextafter(1, 2))
    # A mean of scores of a cell is in it, but for how sums are rounded.
    return true, np.clip(total / rows, CELLS[cell], np.nextafter(ends[cell], 0)), rows


def matrix(table: np.ndarray, classes: int) -> np.ndarray:
    """Return rows by actual and predicted class of a table whose keys are actual * classes + predicted."""
    keys, rows = table.T
    return np.bincount(keys.astype(np.int64), rows, classes**2).reshape(classes, classes)


def median(table: np.ndarray) -> float:
    """Return the median of numbers of 0 or more, within 1 / 2**13 of its value, from a table of errors."""
    grains, rows = table.T
    seen = np.cumsum(rows)
    places = [np.searchsorted(seen, seen[-1] / 2, side=side) for side in ("left", "right")]
    middle = grains.astype(np.int64)[np.minimum(places, len(grains) - 1)]
    values = ((middle << GRAIN) + (1 << GRAIN - 1)).view(np.float64)
    return float(np.where(middle == 0, 0.0, values).mean())
