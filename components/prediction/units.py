"""The same predictions by units: each row group is predicted by itself, anywhere, and put together in order."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared import places
from penstock.components._shared.dataset import Dataset
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.parts import Gathering, Spread, deliver, publish
from penstock.components.prediction import scoring
from penstock.components.prediction.backends.local import score
from penstock.components.prediction.scoring import COMPONENT, BadRows, Scoring, TooMany
from penstock.components.prediction.written import REJECTS, Written


@dataclass(frozen=True)
class _Task:
    """What is to be done with every row group.

    Attributes:
        run: Tells the model from others that were at the same place.
        model: Path or URI of its folder.
        read: Columns to read.
        schema: Of the predictions.
        targets: Where the parts of predictions and rejects go.
    """

    run: str
    model: str
    read: Sequence[str]
    keep: Sequence[str]
    schema: pa.Schema
    most_bad: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """A row group to predict.

    Attributes:
        path: Path or URI of its file.
        group: Its number in the file.
        place: Of its first row in the dataset.
    """

    task: _Task
    number: int
    path: str
    group: int
    place: int


def by_units(
    wanted: Scoring, schema: pa.Schema, model: str, dataset: str, gathered: Sequence[Gathering], spread: Spread
) -> tuple[int, int]:
    """Predict the rows of a dataset, and return how many were predicted and how many could not be.

    Args:
        schema: Of the predictions.
        model: Path or URI of the model's folder.
        dataset: Path or URI of the dataset's folder.
        gathered: Predictions and rejects.
        spread: Has row groups predicted.

    Raises:
        UserError: The model cannot read a column, or too many rows.
    """
    targets = tuple(to.place for to in gathered)
    task = _Task(uuid.uuid4().hex, model, wanted.read, wanted.keep, schema, wanted.max_bad_rows, targets)
    told = spread(list(_groups(wanted.rows, dataset, task)), _predicted)
    counted = BadRows(wanted.max_bad_rows)
    for each in told:
        counted.also(each["bad"], each["first"])
    (good, _), (bad, _) = (
        publish(to, [each["parts"][port] for each in told], kind)
        for port, (to, kind) in enumerate(zip(gathered, (schema, REJECTS), strict=True))
    )
    return good.rows, bad.rows


def _groups(rows: Dataset, folder: str, task: _Task) -> Iterator[_Group]:
    number = place = 0
    for file in rows.files:
        metadata = pq.read_metadata(file)
        path = f"{folder}/{file.relative_to(rows.folder).as_posix()}"
        for group in range(metadata.num_row_groups):
            yield _Group(task, number, path, group, place)
            number, place = number + 1, place + metadata.row_group(group).num_rows


def _predicted(unit: _Group) -> dict[str, Any]:
    """Write a row group's predictions to parts, and return what is to be known of them, as JSON values."""
    task, parts = unit.task, []
    model = _model(task.model, task.run)
    with tempfile.TemporaryDirectory(prefix="penstock-predict-") as scratch, places.opened(unit.path) as file:
        folders = [Path(scratch, name) for name in ("predictions", "rejects")]
        for folder in folders:
            folder.mkdir()
        written = Written(folders[0], folders[1], task.schema, task.keep, model, task.most_bad)
        place = unit.place
        try:
            for batch in pq.ParquetFile(file).iter_batches(scoring.BATCH, row_groups=[unit.group], columns=task.read):
                written.add(score(model, place, batch))
                place += batch.num_rows
        except TooMany:  # how many there are in all is known when all are counted
            pass
        else:
            writers = written.good, written.bad
            parts = [deliver(writer, to, unit.number) for writer, to in zip(writers, task.targets, strict=True)]
    return {"parts": parts, "bad": written.counted.count, "first": written.counted.first}


@lru_cache(maxsize=1)
def _model(place: str, run: str) -> TabularModel:
    if not places.is_remote(place):
        return load_model(place, COMPONENT, "model")
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as folder:
        places.fetch(place, Path(folder))
        return load_model(folder, COMPONENT, "model")
