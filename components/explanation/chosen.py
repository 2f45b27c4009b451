"""The rows to show one by one: "first 5", "highest 3", "lowest 3", "trip_id=17,day=2026-01-31"."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components._shared.dataset import Dataset, batches_of, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.slices import text_of

COMPONENT = "explain"
MOST = 20  # rows of one choice
BATCH = 65_536  # rows looked at at a time
FORMS = 'Give "first 5", "highest 3", "lowest 3", or column=value, several with commas between'
BY_SCORE = ("highest", "lowest")
ENDS = ("first", *BY_SCORE)


@dataclass(frozen=True)
class Choice:
    """Rows that were asked for.

    Attributes:
        end: "first", "highest", "lowest", or "" where they are asked for by values.
        places: Row numbers of those that are asked for by values.
    """

    text: str
    end: str = ""
    count: int = 0
    places: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))


def parse(given: Sequence[str], dataset: Dataset) -> list[Choice]:
    """Return the choices.

    Raises:
        UserError: One cannot be read, names a column that is not there, or values that no row has.
    """
    choices = []
    for text in given:
        if not isinstance(text, str):
            raise UserError(COMPONENT, "local", f"{text!r} is no text", FORMS)
        words = re.fullmatch(r"\s*(\w+)\s+(\d+)\s*", text)
        if words and words[1] in ENDS:
            count = int(words[2])
            if not 1 <= count <= MOST:
                raise UserError(COMPONENT, "local", f"{text!r} asks for {count:,} rows", f"Ask for 1 to {MOST}")
            choices.append(Choice(text, words[1], count))
            continue
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(name.strip() and sign for name, sign, _ in pairs):
            raise UserError(COMPONENT, "local", f"{text!r} is no choice of rows", FORMS)
        values = {name.strip(): value.strip() for name, _, value in pairs}
        require_columns(dataset, list(values), COMPONENT, "local")
        choices.append(Choice(text, places=_find(text, values, dataset)))
    return choices


def _find(text: str, values: Mapping[str, str], dataset: Dataset) -> np.ndarray:
    """Return the row numbers of the first MOST rows that have these values as text."""
    found: list[int] = []
    start = 0
    for batch in batches_of(dataset.files, BATCH, list(values)):
        holds = np.ones(batch.num_rows, dtype=bool)
        for name, value in values.items():
            same = pc.equal(text_of(batch.column(name)), pa.scalar(value))
            holds &= same.to_numpy(zero_copy_only=False)
        found += (start + np.flatnonzero(holds)).tolist()
        start += batch.num_rows
        if len(found) >= MOST:
            break
    if not found:
        raise UserError(
            COMPONENT,
            "local",
            f"no row has {text}",
            "Give values as they stand in the dataset, or take it out of local",
        )
    return np.array(found[:MOST])


class Extremes:
    """The rows with the highest or lowest score of all that were seen; of equal ones the first."""

    def __init__(self, choice: Choice) -> None:
        self._sign = 1 if choice.end == "highest" else -1
        self._count = choice.count
        self._best: list[tuple[float, int]] = []

    def see(self, places: np.ndarray, scores: np.ndarray) -> None:
        signed = self._sign * scores
        for row in np.argsort(-signed, kind="stable")[: self._count]:
            heapq.heappush(self._best, (float(signed[row]), -int(places[row])))
            if len(self._best) > self._count:
                heapq.heappop(self._best)

    def places(self) -> np.ndarray:
        """Return their row numbers, the most extreme first."""
        return np.array([-place for _, place in sorted(self._best, reverse=True)], dtype=np.int64)
