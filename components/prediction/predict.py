"""The work of `predict_batch`: rows stream from part files through a model into a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared.dataset import Dataset, DatasetWriter, open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.sealed import new_folder
from penstock.components._shared.tabular import label_text
from penstock.components.prediction import backends
from penstock.components.prediction.scoring import COMPONENT, PLACE, BadRows, Scoring

ALL = "*"
REJECTS = pa.schema({PLACE: pa.int64(), "column": pa.string(), "reason": pa.string()})


@dataclass(frozen=True)
class Predicted:
    """How many rows were predicted, and how many the model could not read."""

    rows: int
    bad_rows: int


def predict(
    model: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    predictions: str | os.PathLike[str],
    rejects: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    max_bad_rows: int = 0,
    platform: str = "local",
    options: Mapping[str, Any] | None = None,
    max_seconds: float = 86_400.0,
    run_id: str = "",
) -> Predicted:
    """Predict the rows of a dataset, in order and batch by batch, so that memory does not grow with them.

    Args:
        model: Model folder.
        dataset: Folder of the rows.
        predictions: Folder to write: dataset of the columns of `keep` and the predictions.
        rejects: Folder to write: dataset of the rows that the model cannot read.
        keep: Columns to keep; "*" for all. Empty: the place of the row, from 0, as `row`.
        max_bad_rows: Bad rows at most.
        platform: Where: "local", in this process; "vertex" or "azureml", as a job there.
        options: The platform's own.
        max_seconds: That a job may take.
        run_id: Of the run, by which a restarted step knows its job.

    Raises:
        UserError: An input is wrong, the platform cannot do it, the model cannot read a column at all, or there are
            more bad rows. Then neither folder is left.
    """
    backend, given = backends.backend(platform), dict(options or {})
    _check_options(platform, backend.options, given)
    loaded = load_model(model, COMPONENT, "model")
    rows = open_dataset(dataset, COMPONENT, "dataset")
    require_columns(rows, list(loaded.features), COMPONENT, "model")
    kept = _kept(rows, keep, loaded)
    schema = _schema(rows, kept, loaded)
    scoring = Scoring(loaded, Path(model), rows, kept, max_bad_rows, max_seconds, run_id, given)
    if refused := backend.cannot(scoring):
        raise UserError(
            COMPONENT, "platform", f"{platform} cannot do {', '.join(refused)}", "Change it, or take another platform"
        )
    with new_folder(rejects) as rejects_folder, new_folder(predictions) as folder:
        good, bad = DatasetWriter(folder, schema), DatasetWriter(rejects_folder, REJECTS)
        counted = BadRows(max_bad_rows)
        for batch in backend.scored(scoring):
            wrong = sorted(batch.problems)
            if wrong:
                told = [
                    {PLACE: batch.place + row, "column": batch.problems[row][0], "reason": batch.problems[row][1]}
                    for row in wrong
                ]
                bad.write(pa.RecordBatch.from_pylist(told, schema=REJECTS))
                counted.add(batch.place, batch.problems)
            right = np.setdiff1d(np.arange(batch.rows.num_rows), wrong)
            places = pa.array(batch.place + right, pa.int64())
            columns = [
                batch.rows.column(name).take(pa.array(right)) if name in batch.rows.schema.names else places
                for name in kept
            ]
            good.write(pa.RecordBatch.from_arrays([*columns, *_columns(batch.found, loaded)], schema=schema))
        bad.finish()
        good.finish()
    return Predicted(good.digest.rows, bad.digest.rows)


def _check_options(platform: str, known: Mapping[str, str], given: Mapping[str, Any]) -> None:
    if unknown := sorted(given.keys() - known.keys()):
        raise UserError(
            COMPONENT,
            "options",
            f"{unknown[0]!r} is no option of the platform {platform}",
            f"It has {', '.join(known) or 'none'}",
        )


def _kept(rows: Dataset, keep: Sequence[str], model: TabularModel) -> list[str]:
    if ALL in keep:
        names = list(rows.schema)
    else:
        require_columns(rows, list(keep), COMPONENT, "keep")
        names = list(dict.fromkeys(keep)) or [PLACE]
    if taken := [name for name in names if name in _names(model)]:
        raise UserError(
            COMPONENT,
            "keep",
            f"{', '.join(taken)} would be a column twice",
            "Rename it in ingest's query, or leave it out",
        )
    return names


def _names(model: TabularModel) -> list[str]:
    """Return the names of the columns that hold predictions, as the server writes them in its log."""
    return ["prediction", *(f"probability_{label_text(label)}" for label in model.classes)]


def _schema(rows: Dataset, kept: Sequence[str], model: TabularModel) -> pa.Schema:
    fields = [pa.field(PLACE, pa.int64())]
    if list(kept) != [PLACE] or PLACE in rows.schema:
        own = pq.read_schema(rows.files[0]).remove_metadata() if rows.files else pa.schema([])
        fields = [own.field(name) for name in kept]
    label = pa.array(list(model.classes)).type if model.classes else pa.float64()
    first, *probabilities = _names(model)
    return pa.schema([*fields, pa.field(first, label), *(pa.field(name, pa.float64()) for name in probabilities)])


def _columns(found: np.ndarray, model: TabularModel) -> list[pa.Array]:
    if not model.classes:
        return [pa.array(found, pa.float64())]
    labels = pa.array(list(model.classes)).take(pa.array(found.argmax(axis=1)))
    return [labels, *(pa.array(np.ascontiguousarray(found[:, place])) for place in range(found.shape[1]))]
