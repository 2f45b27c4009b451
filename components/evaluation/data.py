"""The evaluation rows: opened, checked, and predicted by a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components._shared.dataset import Dataset, batches_of, column_of, frame_of, open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.labels import labels_of
from penstock.components._shared.metrics.tasks import Scored
from penstock.components._shared.model import TabularModel

COMPONENT = "evaluate"
BATCH = 131_072  # rows predicted at a time


def open_rows(path: str | os.PathLike[str], model: TabularModel) -> Dataset:
    """Return the dataset, once it is known to have rows and the target.

    Raises:
        UserError: It does not, or it is no dataset.
    """
    dataset = open_dataset(path, COMPONENT, "eval_set")
    if not dataset.rows:
        raise UserError(
            COMPONENT, "eval_set", "it has no rows", "Give ingest a larger eval_fraction or an earlier eval_from"
        )
    require_columns(dataset, [model.target], COMPONENT, "eval_set")
    return dataset


def score(model: TabularModel, dataset: Dataset, labels: np.ndarray, classes: Sequence[Any]) -> Scored:
    """Return a model's predictions of all rows beside their labels.

    Args:
        labels: Of all rows.
        classes: Labels in the order wanted of the predictions' columns.

    Raises:
        UserError: The model cannot read the rows, or predicts something that is not finite.
    """
    missing = [name for name in model.features if name not in dataset.schema]
    if missing:
        raise UserError(
            COMPONENT,
            "model",
            f"it reads columns that the rows do not have: {', '.join(missing)}",
            f"The rows have {', '.join(dataset.schema)}",
        )
    parts = []
    for batch in batches_of(dataset.files, BATCH, model.features):
        parts.append(model.predict(frame_of(batch)))
    predictions = np.concatenate(parts)
    if wrong := int((~np.isfinite(predictions.reshape(len(labels), -1)).all(axis=1)).sum()):
        raise UserError(
            COMPONENT, "model", f"it predicts NaN or infinity for {wrong:,} of {len(labels):,} rows", "Train it again"
        )
    if classes:
        predictions = predictions[:, [model.classes.index(label) for label in classes]]
    return Scored(labels, predictions)


def pieces_of(dataset: Dataset, column: str) -> Iterator[pa.Array]:
    """Yield a column of all rows, no more than a row group of which is in memory."""
    for batch in batches_of(dataset.files, BATCH, [column]):
        yield batch.column(0)


def mean_label(model: TabularModel, dataset: Dataset) -> float:
    """Return the mean of the target, of classes their places; all rows are known to have a label then.

    Raises:
        UserError: As of labels_for, of the rows of a piece.
    """
    total = 0.0
    for piece in pieces_of(dataset, model.target):
        column = pa.chunked_array([piece])
        total += float(labels_of(column, model.target, model.classes, COMPONENT, "eval_set").sum())
    return total / dataset.rows


def labels_for(model: TabularModel, dataset: Dataset) -> np.ndarray:
    """Return the target of all rows, as places in the model's classes or as numbers."""
    return labels_of(column_of(dataset, model.target), model.target, model.classes, COMPONENT, "eval_set")
