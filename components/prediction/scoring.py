"""What is predicted, and what the platforms have in common: rows by the batch, bad rows, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from penstock.components._shared.dataset import Dataset, batches_of
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel
from penstock.components._shared.tabular import WHOLE

COMPONENT = "predict_batch"
BATCH = 131_072  # rows at a time
PLACE = "row"
SHOWN = 3

Problems = dict[int, tuple[str, str]]  # of rows of a batch, by their place: column and reason


@dataclass(frozen=True)
class Scoring:
    """A dataset to predict, as it was asked for.

    Attributes:
        folder: Of the model.
        keep: Columns to keep.
        max_seconds: That a job of another service may take.
        run_id: Of the run, by which a restarted step knows its job.
        options: The platform's own.
    """

    model: TabularModel
    folder: Path
    rows: Dataset
    keep: Sequence[str]
    max_bad_rows: int
    max_seconds: float = 86_400.0
    run_id: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows, in order, with the place of the first of each batch."""
        place = 0
        for batch in batches_of(self.rows.files, BATCH, self.read):
            yield place, batch
            place += batch.num_rows

    @property
    def read(self) -> list[str]:
        """The columns that are read of the rows."""
        wanted = dict.fromkeys((*self.model.features, *self.keep))
        return [name for name in wanted if name in self.rows.schema]


@dataclass(frozen=True)
class Scored:
    """A batch with its predictions.

    Attributes:
        place: Of its first row in the dataset.
        found: Predictions of the rows that are not bad, as TabularModel.predict returns them.
        problems: The bad rows.
    """

    place: int
    rows: pa.RecordBatch
    found: np.ndarray
    problems: Problems


@dataclass(frozen=True)
class Backend:
    """A row of the table of platforms.

    Attributes:
        options: Names of its own options, with what each is.
        cannot: Returns what it cannot do of a scoring, each by name; empty: all is well.
        scored: Yields the batches of a scoring with their predictions, in order.
    """

    options: Mapping[str, str]
    cannot: Callable[[Scoring], Sequence[str]]
    scored: Callable[[Scoring], Iterator[Scored]]


class BadRows:
    """Counts bad rows, and ends the step at the first that is one too many.

    Attributes:
        first: Up to SHOWN of them, as they are told.
    """

    def __init__(self, most: int) -> None:
        self.count = 0
        self.first: list[str] = []
        self._most = most

    def add(self, place: int, problems: Problems) -> None:
        """Count those of a batch.

        Raises:
            TooMany: There are too many; it tells the first.
        """
        shown = [f"row {place + row}, column {problems[row][0]!r} {problems[row][1]}" for row in sorted(problems)]
        self.also(len(problems), shown)

    def also(self, count: int, shown: Sequence[str]) -> None:
        """Count some that follow, as `add` does.

        Args:
            shown: The first of them, as they are told.
        """
        self.first += shown[: SHOWN - len(self.first)]
        self.count += count
        if self.count > self._most:
            raise TooMany(
                COMPONENT,
                "dataset",
                f"the model cannot read more than {self._most:,} of its rows: {'; '.join(self.first)}",
                "Mend them in ingest's query, or give a larger max_bad_rows",
            )


class TooMany(UserError):
    """There are more bad rows than are put up with."""


def checked(model: TabularModel, frame: pd.DataFrame) -> Problems:
    """Return the rows that the model cannot read.

    Raises:
        UserError: A column as a whole is of another kind.
    """
    try:
        model.matrix(frame)
    except UserError:
        problems = unreadable(model, frame)
        if not problems:
            raise  # a column as a whole is of another kind
        model.matrix(frame.drop(index=list(problems)))
        return problems
    return {}


def unreadable(model: TabularModel, frame: pd.DataFrame) -> Problems:
    """Return the rows with values that the model cannot read."""
    problems: Problems = {}
    for column in model.columns:
        if column["name"] not in frame.columns:
            continue
        values = frame[column["name"]]
        if model.transforms and not column["optional"] and column["kind"] in (*WHOLE, "text"):
            for row in np.flatnonzero(values.isna()):
                problems.setdefault(int(row), (column["name"], "is null"))
        if column["kind"] in _WRONG:
            reason, wrong = _WRONG[column["kind"]]
            if values.dtype.kind in "iufb":
                for row in np.flatnonzero(wrong(values.to_numpy(dtype=np.float64))):
                    problems.setdefault(int(row), (column["name"], reason))
    return problems


_WRONG: Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "number": ("is infinite", np.isinf),
    "whole": ("is no whole number", lambda values: np.isinf(values) | (np.floor(values) < values)),
    "boolean": ("is neither true nor false", lambda values: ~(np.isnan(values) | (values == 0) | (values == 1))),
}
