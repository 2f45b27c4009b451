"""The datasets of predictions and of bad rows while they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.components._shared.dataset import DatasetWriter
from penstock.components._shared.model import TabularModel
from penstock.components._shared.tabular import label_text
from penstock.components.prediction.scoring import PLACE, BadRows, Scored

REJECTS = pa.schema({PLACE: pa.int64(), "column": pa.string(), "reason": pa.string()})


class Written:
    """Predictions and bad rows of the batches so far.

    Attributes:
        counted: The bad rows.
    """

    def __init__(
        self,
        predictions: Path,
        rejects: Path,
        schema: pa.Schema,
        keep: Sequence[str],
        model: TabularModel,
        max_bad_rows: int,
    ) -> None:
        self.good, self.bad = DatasetWriter(predictions, schema), DatasetWriter(rejects, REJECTS)
        self.counted = BadRows(max_bad_rows)
        self._keep, self._model = keep, model

    def add(self, batch: Scored) -> None:
        """Append a batch.

        Raises:
            TooMany: There are too many bad rows.
        """
        wrong = sorted(batch.problems)
        if wrong:
            told = [
                {PLACE: batch.place + row, "column": batch.problems[row][0], "reason": batch.problems[row][1]}
                for row in wrong
            ]
            self.bad.write(pa.RecordBatch.from_pylist(told, schema=REJECTS))
            self.counted.add(batch.place, batch.problems)
        right = np.setdiff1d(np.arange(batch.rows.num_rows), wrong)
        places = pa.array(batch.place + right, pa.int64())
        columns = [
            batch.rows.column(name).take(pa.array(right)) if name in batch.rows.schema.names else places
            for name in self._keep
        ]
        found = _columns(batch.found, self._model)
        self.good.write(pa.RecordBatch.from_arrays([*columns, *found], schema=self.good.schema))


def columns_of(model: TabularModel) -> list[str]:
    """Return the names of the columns that hold predictions, as the server writes them in its log."""
    return ["prediction", *(f"probability_{label_text(label)}" for label in model.classes)]


def _columns(found: np.ndarray, model: TabularModel) -> list[pa.Array]:
    if not model.classes:
        return [pa.array(found, pa.float64())]
    labels = pa.array(list(model.classes)).take(pa.array(found.argmax(axis=1)))
    return [labels, *(pa.array(np.ascontiguousarray(found[:, place])) for place in range(found.shape[1]))]
