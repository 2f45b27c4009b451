"""The rows to explain: which they are, and read in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.components._shared.dataset import Dataset, batches_of
from penstock.components._shared.errors import UserError

COMPONENT = "explain"


@dataclass(frozen=True)
class Sample:
    """Some rows of a dataset.

    Attributes:
        places: Their row numbers in ascending order.
        why: Why they are not all rows; empty if they are.
    """

    dataset: Dataset
    places: np.ndarray
    why: str

    def __len__(self) -> int:
        return len(self.places)

    def batches(self, columns: Sequence[str], size: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Yield the rows in order, at most `size` at a time, each batch with its row numbers."""
        yield from batches(self.dataset, self.places, columns, size)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of the rows."""
        parts = [batch.column(0) for _, batch in self.batches([name], 1 << 16)]
        return pa.chunked_array(parts)

    def thinned(self, most: int, seed: int) -> np.ndarray:
        """Return places in the sample, in ascending order, of at most so many of its rows."""
        return _chosen(len(self), most, seed)


def draw(dataset: Dataset, most: int | None, seed: int, why: str) -> Sample:
    """Return at most `most` rows, drawn at random where there are more."""
    places = _chosen(dataset.rows, dataset.rows if most is None else most, seed)
    return Sample(dataset, places, why if len(places) < dataset.rows else "")


def batches(
    dataset: Dataset, places: np.ndarray, columns: Sequence[str], size: int
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """Yield some rows of a dataset in order; see Sample.batches.

    Args:
        places: Row numbers in ascending order.
    """
    start = 0
    names = list(dict.fromkeys(columns))
    for batch in batches_of(dataset.files, size, names):
        low, high = np.searchsorted(places, (start, start + batch.num_rows))
        here = places[low:high]
        if len(here) == batch.num_rows:
            yield here, batch.select(names)
        elif len(here):
            yield here, batch.take(pa.array(here - start)).select(names)
        start += batch.num_rows


def weights_of(column: pa.Array, name: str) -> np.ndarray:
    """Return row weights, float64.

    Raises:
        UserError: The column is no number, or a weight is missing, infinite or negative.
    """
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise UserError(COMPONENT, "weight_column", f"{name!r} is {kind}, which is no number", "Choose another column")
    weights: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if bad := int((~np.isfinite(weights) | (weights < 0)).sum()):
        raise UserError(
            COMPONENT,
            "weight_column",
            f"{name!r} is null, infinite or negative in {bad:,} rows",
            "Weights are numbers, 0 or more; filter or mend the rows in ingest's query",
        )
    return weights


def _chosen(rows: int, most: int, seed: int) -> np.ndarray:
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=most, replace=False, shuffle=False))
