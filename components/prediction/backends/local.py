"""Predictions in this very step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from penstock.components._shared.dataset import frame_of
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel
from penstock.components.prediction.scoring import Backend, Problems, Scored, Scoring, unreadable


def scored(scoring: Scoring) -> Iterator[Scored]:
    """Yield the batches as the model predicts them."""
    for place, batch in scoring.batches():
        yield score(scoring.model, place, batch)


def score(model: TabularModel, place: int, batch: pa.RecordBatch) -> Scored:
    """Return a batch as the model predicts it.

    Args:
        place: Of its first row in the dataset.
    """
    return Scored(place, batch, *_predicted(model, frame_of(batch.select(list(model.features)))))


def _predicted(model: TabularModel, frame: pd.DataFrame) -> tuple[np.ndarray, Problems]:
    """Return the predictions of the rows that the model can read, and for the others, by place, column and reason."""
    problems: Problems = {}
    try:
        found = model.predict(frame)
    except UserError:
        problems = unreadable(model, frame)
        if not problems:
            raise  # a column as a whole is of another kind
        found = model.predict(frame.drop(index=list(problems)))
    strange = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1) if len(found) else np.zeros(0, bool)
    if strange.any():
        right = np.setdiff1d(np.arange(len(frame)), list(problems))
        problems |= {int(row): ("prediction", "the model predicts no finite number") for row in right[strange]}
        found = found[~strange]
    return found, problems


BACKEND = Backend(options={}, cannot=lambda scoring: [], scored=scored)
