"""Divides a stream of rows into two datasets, in threads beside the one that reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from penstock.components._shared.arrow import numbers
from penstock.components._shared.dataset import DatasetWriter
from penstock.components._shared.rowhash import row_hashes
from penstock.components.ingestion.split import Split

AHEAD = 8  # batches that are read before the first of them is written

_Part = tuple[pa.RecordBatch, np.ndarray]


def divide(
    batches: Iterable[pa.RecordBatch],
    fit: Callable[[pa.RecordBatch], pa.RecordBatch],
    split: Split,
    train: DatasetWriter,
    eval_: DatasetWriter,
) -> int:
    """Write every row to one of two datasets, in the order they come; return how many have no time to split by.

    Args:
        fit: What is to be done with each batch first.
    """
    timeless = 0
    with ThreadPoolExecutor(2) as dividers, ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        divisions: deque[Future[tuple[_Part, _Part]]] = deque()
        writes: deque[Future[None]] = deque()

        def pass_on() -> None:
            train_part, eval_part = divisions.popleft().result()
            writes.append(first.submit(train.write, *train_part))
            writes.append(second.submit(eval_.write, *eval_part))
            while len(writes) > 2 * AHEAD:
                writes.popleft().result()

        for batch in batches:
            timeless += split.null_times(batch)
            divisions.append(dividers.submit(_divided, batch, fit, split))
            if len(divisions) > AHEAD:
                pass_on()
        while divisions:
            pass_on()
        for write in writes:
            write.result()
    return timeless


def _divided(
    batch: pa.RecordBatch, fit: Callable[[pa.RecordBatch], pa.RecordBatch], split: Split
) -> tuple[_Part, _Part]:
    batch = fit(batch)
    hashes = row_hashes(batch)
    is_eval = split.is_eval(batch, hashes)
    return _part(batch, hashes, ~is_eval), _part(batch, hashes, is_eval)


def _part(batch: pa.RecordBatch, hashes: np.ndarray, wanted: np.ndarray) -> _Part:
    places = np.flatnonzero(wanted)
    if len(places) == len(wanted):
        return batch, hashes
    return batch.take(numbers(places)), hashes[places]
