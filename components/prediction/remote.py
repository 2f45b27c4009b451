"""Predictions by a job of another service: rows go there as lines of JSON, predictions come back by the row's place.

    {"penstock_row": 17, "miles": 3.2, "zone": "a"}                             an instance
    {"key": 17, "prediction": {"prediction": true, "probability_false": 0.25, …}}    a prediction

What the model could not read here is not sent. Predictions come in any order; what has none in the end is a bad row.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from penstock.components._shared.clouds.jobs import FAILED, WAITING, Jobs, JobService
from penstock.components._shared.dataset import frame_of
from penstock.components._shared.model import TabularModel
from penstock.components._shared.tabular import label_text
from penstock.components.prediction.scoring import COMPONENT, BadRows, Problems, Scored, Scoring, checked

KEY = "penstock_row"
LABEL = "penstock-batch"
FILE_ROWS = 250_000  # rows a file: what one machine of a job takes at a time
SUFFIX = ".jsonl"
MOST_ERRORS = 1000  # that are remembered row by row


@dataclass(frozen=True)
class Instances:
    """Rows on their way.

    Attributes:
        folder: Of the files on this machine.
        files: Their names.
        rows: How many there are.
        label: Same for the same rows, model and run.
    """

    folder: Path
    files: tuple[str, ...]
    rows: int
    label: str


class Batch(JobService, Protocol):
    """What differs between the services."""

    def prepare(self) -> None:
        """Put the instances where a job finds them, and make what it needs; done before may be done again."""

    def results(self, name: str, folder: Path) -> Sequence[Path]:
        """Return the files of lines that a job left, fetched into a folder; errors are among them."""


def scored(
    scoring: Scoring,
    service: Callable[[Scoring, Instances], Batch],
    more: Callable[[Scoring, pd.DataFrame], Problems] = lambda scoring, frame: {},
) -> Iterator[Scored]:
    """Yield the batches with the predictions of the service's one job.

    Args:
        service: Makes the service for the instances.
        more: Returns rows that the service reads less of than the model does.

    Raises:
        UserError: The service refuses or does not answer, the job failed, or there are too many bad rows.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-batch-") as name:
        folder = Path(name)
        instances = _written(scoring, folder / "instances", more)
        values = Predictions(folder / "values", scoring)
        if instances.rows:
            batch = service(scoring, instances)
            (folder / "results").mkdir()
            for file in _job(batch, scoring, instances, folder / "results"):
                values.read(file)
        for place, rows in scoring.batches():
            problems = _problems(scoring, rows, more)
            right = np.setdiff1d(np.arange(rows.num_rows), list(problems))
            missing = values.missing(place + right)
            for row in right[missing]:
                problems[int(row)] = ("prediction", values.reason(place + int(row)))
            yield Scored(place, rows, values.of(place + right[~missing]), problems)


def _job(batch: Batch, scoring: Scoring, instances: Instances, folder: Path) -> Sequence[Path]:
    jobs = Jobs(batch, COMPONENT, "platform")
    batch.prepare()
    job = jobs.finished(instances.label, scoring.max_seconds)
    if job.state == WAITING:
        problem = f"the job {job.name} was still at work after {scoring.max_seconds:g} s, and was ended"
        raise jobs.calls.refusal(problem, "Give a larger max_seconds, or more machines")
    if job.state == FAILED:
        raise jobs.calls.refusal(f"the job {job.name} failed: {job.error}", "Look at its logs there")
    return batch.results(job.name, folder)


def label_of(scoring: Scoring) -> str:
    """Return what a job is known by: the same for the same rows, model, run and options."""
    told = json.dumps([scoring.run_id, scoring.rows.fingerprint, dict(scoring.options)], sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode())
    digest.update((scoring.folder / "MLmodel").read_bytes())
    return digest.hexdigest()[:24]


def _problems(scoring: Scoring, rows: pa.RecordBatch, more: Callable[[Scoring, pd.DataFrame], Problems]) -> Problems:
    frame = frame_of(rows.select(list(scoring.model.features)))
    return {**more(scoring, frame), **checked(scoring.model, frame)}


def _written(scoring: Scoring, folder: Path, more: Callable[[Scoring, pd.DataFrame], Problems]) -> Instances:
    """Write the rows that the model can read, some a file."""
    folder.mkdir()
    bad, written = BadRows(scoring.max_bad_rows), 0
    files: list[str] = []
    for place, rows in scoring.batches():
        problems = _problems(scoring, rows, more)
        bad.add(place, problems)
        right = np.setdiff1d(np.arange(rows.num_rows), list(problems))
        columns = {name: _values(scoring.model, name, rows.column(name).take(pa.array(right)))
                   for name in scoring.model.features}  # fmt: skip
        columns[KEY] = (place + right).tolist()
        names = list(columns)
        for first in range(0, len(right), FILE_ROWS):
            files.append(f"rows-{len(files):05d}{SUFFIX}")
            with (folder / files[-1]).open("w", encoding="utf-8") as file:
                for values in zip(*(column[first : first + FILE_ROWS] for column in columns.values()), strict=True):
                    file.write(json.dumps(dict(zip(names, values, strict=True)), allow_nan=False) + "\n")
        written += len(right)
    return Instances(folder, tuple(files), written, label_of(scoring))


def _values(model: TabularModel, name: str, column: pa.Array) -> list[Any]:
    """Return a column as JSON has it: numbers, true and false, texts, null for what is missing."""
    kind = next(each["kind"] for each in model.columns if each["name"] == name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind in ("category", "text"):
        return list(column.cast(pa.string()).to_pylist())
    values = column.cast(pa.float64()).to_pylist()
    if kind == "boolean":
        return [None if value is None or math.isnan(value) else bool(value) for value in values]
    return [None if value is None or math.isnan(value) else _number(value) for value in values]


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


class Predictions:
    """Predictions by the place of their row, on disk: they come in any order."""

    def __init__(self, path: Path, scoring: Scoring) -> None:
        self._model = scoring.model
        self._names = [f"probability_{label_text(label)}" for label in scoring.model.classes] or ["prediction"]
        self._errors: dict[int, str] = {}
        self._said = ""  # of rows that are not named
        shape = (max(scoring.rows.rows, 1), len(self._names))
        self._found = np.memmap(path, dtype=np.float64, mode="w+", shape=shape)
        self._found[:] = np.nan

    def read(self, file: Path) -> None:
        """Take up the lines of a file."""
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    self._take(json.loads(line))

    def _take(self, line: Any) -> None:
        if isinstance(line, list):  # Vertex AI's summary of errors: a text, and of how many rows
            self._said = self._said or _short(line[0])
            return
        instance = line.get("instance")
        key = line.get("key", instance.get(KEY) if isinstance(instance, dict) else line.get(KEY))
        if key is None or not 0 <= int(key) < len(self._found):
            return
        if isinstance(line.get("prediction"), dict):
            self._found[int(key)] = [float(line["prediction"][name]) for name in self._names]
        elif len(self._errors) < MOST_ERRORS:
            error = line.get("error")
            self._errors[int(key)] = _short(error.get("message", "") if isinstance(error, dict) else error)

    def missing(self, places: np.ndarray) -> np.ndarray:
        """Return whether there is no prediction of each of some rows."""
        return np.asarray(~np.isfinite(self._found[places]).all(axis=1))

    def reason(self, place: int) -> str:
        """Return why there is none."""
        said = self._errors.get(place, self._said)
        return f"the service says: {said}" if said else "the service gave no prediction"

    def of(self, places: np.ndarray) -> np.ndarray:
        """Return the predictions of some rows, as TabularModel.predict does."""
        found = np.array(self._found[places])
        return found if self._model.classes else found[:, 0]


def _short(text: object) -> str:
    return " ".join(str(text or "").split())[:200]
