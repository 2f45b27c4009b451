"""The work of `predict_batch`: rows stream from part files through a model into a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared.dataset import Dataset, DatasetWriter, frame_of, open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.sealed import new_folder
from penstock.components._shared.tabular import label_text

COMPONENT = "predict_batch"
BATCH = 131_072  # rows at a time
ALL = "*"
PLACE = "row"
REJECTS = pa.schema({PLACE: pa.int64(), "column": pa.string(), "reason": pa.string()})
_SHOWN = 3


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
) -> Predicted:
    """Predict the rows of a dataset, in order and batch by batch, so that memory does not grow with them.

    Args:
        model: Model folder.
        dataset: Folder of the rows.
        predictions: Folder to write: dataset of the columns of `keep` and the predictions.
        rejects: Folder to write: dataset of the rows that the model cannot read.
        keep: Columns to keep; "*" for all. Empty: the place of the row, from 0, as `row`.
        max_bad_rows: Bad rows at most.

    Raises:
        UserError: An input is wrong, the model cannot read a column at all, or there are more bad rows. Then neither
            folder is left.
    """
    loaded = load_model(model, COMPONENT, "model")
    rows = open_dataset(dataset, COMPONENT, "dataset")
    require_columns(rows, list(loaded.features), COMPONENT, "model")
    kept = _kept(rows, keep, loaded)
    schema = _schema(rows, kept, loaded)
    with new_folder(rejects) as rejects_folder, new_folder(predictions) as folder:
        good, bad = DatasetWriter(folder, schema), DatasetWriter(rejects_folder, REJECTS)
        first: list[dict[str, Any]] = []
        for place, batch in _batches(rows, [*dict.fromkeys((*loaded.features, *kept))]):
            frame = frame_of(batch.select(list(loaded.features)))
            found, problems = _predicted(loaded, frame)
            wrong = sorted(problems)
            if wrong:
                told = [{PLACE: place + row, "column": problems[row][0], "reason": problems[row][1]} for row in wrong]
                first = (first + told)[:_SHOWN]
                bad.write(pa.RecordBatch.from_pylist(told, schema=REJECTS))
                if bad.digest.rows > max_bad_rows:
                    raise _too_many(first, max_bad_rows)
            right = np.setdiff1d(np.arange(batch.num_rows), wrong)
            places = pa.array(place + right, pa.int64())
            columns = [
                batch.column(name).take(pa.array(right)) if name in batch.schema.names else places for name in kept
            ]
            good.write(pa.RecordBatch.from_arrays([*columns, *_columns(found, loaded)], schema=schema))
        bad.finish()
        good.finish()
    return Predicted(good.digest.rows, bad.digest.rows)


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


def _batches(rows: Dataset, names: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows with the place of the first of each batch."""
    place = 0
    read = [name for name in names if name in rows.schema]
    for file in rows.files:
        with pq.ParquetFile(file) as parts:
            for batch in parts.iter_batches(BATCH, columns=read):
                yield place, batch
                place += batch.num_rows


def _predicted(model: TabularModel, frame: pd.DataFrame) -> tuple[np.ndarray, dict[int, tuple[str, str]]]:
    """Return the predictions of the rows that the model can read, and for the others, by place, column and reason."""
    problems: dict[int, tuple[str, str]] = {}
    try:
        found = model.predict(frame)
    except UserError:
        problems = _problems(model, frame)
        if not problems:
            raise  # a column as a whole is of another kind
        found = model.predict(frame.drop(index=list(problems)))
    strange = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1) if len(found) else np.zeros(0, bool)
    if strange.any():
        right = np.setdiff1d(np.arange(len(frame)), list(problems))
        problems |= {int(row): ("prediction", "the model predicts no finite number") for row in right[strange]}
        found = found[~strange]
    return found, problems


def _problems(model: TabularModel, frame: pd.DataFrame) -> dict[int, tuple[str, str]]:
    problems: dict[int, tuple[str, str]] = {}
    for column in model.columns:
        if column["name"] in frame.columns and column["kind"] in _WRONG:
            reason, wrong = _WRONG[column["kind"]]
            values = frame[column["name"]]
            if values.dtype.kind in "iufb":
                for row in np.flatnonzero(wrong(values.to_numpy(dtype=np.float64))):
                    problems.setdefault(int(row), (column["name"], reason))
    return problems


_WRONG: Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "number": ("is infinite", np.isinf),
    "boolean": ("is neither true nor false", lambda values: ~(np.isnan(values) | (values == 0) | (values == 1))),
}


def _columns(found: np.ndarray, model: TabularModel) -> list[pa.Array]:
    if not model.classes:
        return [pa.array(found, pa.float64())]
    labels = pa.array(list(model.classes)).take(pa.array(found.argmax(axis=1)))
    return [labels, *(pa.array(np.ascontiguousarray(found[:, place])) for place in range(found.shape[1]))]


def _too_many(first: Sequence[Mapping[str, Any]], most: int) -> UserError:
    shown = "; ".join(f"row {each[PLACE]}, column {each['column']!r} {each['reason']}" for each in first)
    return UserError(
        COMPONENT,
        "dataset",
        f"the model cannot read more than {most:,} of its rows: {shown}",
        "Mend them in ingest's query, or give a larger max_bad_rows",
    )
