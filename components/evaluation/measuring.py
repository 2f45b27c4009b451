"""How models are measured on rows, by slice: on this machine, or on Beam."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.components._shared import beam
from penstock.components._shared.dataset import Dataset, column_of
from penstock.components._shared.metrics.bootstrap import Resampled, measure
from penstock.components._shared.metrics.tasks import TASKS, Measured, Scored, Task
from penstock.components._shared.model import TabularModel
from penstock.components._shared.slices import Sliced, counts_of, cut, rule_of
from penstock.components.evaluation.curves import curves_of
from penstock.components.evaluation.data import labels_for, mean_label, pieces_of, score
from penstock.components.evaluation.gate import Condition, Place

COMPONENT = "evaluate"
SLICE_SAMPLES = 100  # resamples of a slice at most

Results = dict[Place, tuple[Measured, Resampled | None]]
Curves = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn."""

    samples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class Measuring:
    """Rows on which models are measured in one way.

    Attributes:
        columns: Slices of each column.
        notes: What was folded or binned of each column; empty if nothing was.
        measure: Returns a model's metrics by slice, and what gives its curves. Takes the model and its folder.
    """

    columns: dict[str, list[Place]]
    notes: dict[str, str]
    measure: Callable[[TabularModel, Path], tuple[Results, Curves]]


def here(
    dataset: Dataset,
    like: TabularModel,
    asked: Mapping[str, str],
    conditions: Sequence[Condition],
    sampling: Sampling,
) -> Measuring:
    """Return how rows are measured on this machine.

    Args:
        like: Model that the others are compared with; they have to predict the same.
        asked: By column to slice by, the argument that asks for it.
        conditions: Of the gate, which may name further slices.
    """
    cuts = {column: cut(column_of(dataset, column), column, COMPONENT, argument) for column, argument in asked.items()}
    rows, labels, task = _rows(cuts, conditions), labels_for(like, dataset), TASKS[like.task]

    def measured(model: TabularModel, folder: Path) -> tuple[Results, Curves]:
        scored = score(model, dataset, labels, like.classes)
        return _measure(task, scored, rows, sampling), lambda: curves_of(like.task, scored, like.classes)

    columns: dict[str, list[Place]] = {
        column: [(column, found.name) for found in sliced.slices] for column, sliced in cuts.items()
    }
    return Measuring(columns, {column: sliced.note for column, sliced in cuts.items()}, measured)


def on_beam(
    engine: beam.Engine,
    dataset: Dataset,
    uri: str,
    like: TabularModel,
    asked: Mapping[str, str],
    conditions: Sequence[Condition],
) -> Measuring:
    """Return how rows are measured on Beam: without intervals.

    Args:
        engine: Runner and options.
        uri: Where workers on other machines find the dataset's folder.
        like: As of `here`; so are the others.
    """
    from penstock.components.evaluation.on_beam import Membership, measure_on_beam

    rules = {
        column: rule_of(counts_of(pieces_of(dataset, column), column, COMPONENT, argument))
        for column, argument in asked.items()
    }
    columns: dict[str, list[Place]] = {
        column: [(column, name) for name in rule.names] for column, rule in rules.items()
    }
    named = [(each.column, each.value) for each in conditions if each.value is not None]
    others = [place for place in dict.fromkeys(named) if place not in columns[place[0]]]
    memberships = [
        *(Membership(column, rule) for column, rule in rules.items()),
        *(Membership(*each) for each in others),
    ]
    centre = mean_label(like, dataset)
    task = TASKS[like.task]
    absent = Measured(0, {"rows": 0.0}, {name: "there are no such rows" for name in task.metrics if name != "rows"})

    def measured(model: TabularModel, folder: Path) -> tuple[Results, Curves]:
        found, curves = measure_on_beam(engine, model, folder, dataset, uri, like.classes, centre, memberships)
        places: list[Place] = [None, *(place for places in columns.values() for place in places), *others]
        return {place: (found.get(place, absent), None) for place in places}, lambda: curves

    return Measuring(columns, {column: rule.note for column, rule in rules.items()}, measured)


def _rows(cuts: Mapping[str, Sliced], conditions: Sequence[Condition]) -> dict[Place, np.ndarray | None]:
    """Return the row numbers of every slice to measure; None is all rows."""
    rows: dict[Place, np.ndarray | None] = {None: None}
    for column, sliced in cuts.items():
        rows |= {(column, found.name): found.places for found in sliced.slices}
    for condition in conditions:
        if condition.value is not None:
            named = cuts[condition.column].named(condition.column, condition.value)
            rows.setdefault((condition.column, condition.value), named.places)
    return rows


def _measure(task: Task, scored: Scored, rows: Mapping[Place, np.ndarray | None], sampling: Sampling) -> Results:
    """Return the metrics of every slice. Models that are measured so on the same rows meet the same resamples."""
    results: Results = {}
    for place, chosen in rows.items():
        if chosen is None or place is None:
            results[place] = measure(task, scored, sampling.samples, sampling.confidence, [sampling.seed])
            continue
        seed = [sampling.seed, *(zlib.crc32(part.encode()) for part in place)]
        samples = min(sampling.samples, SLICE_SAMPLES)
        results[place] = measure(task, scored.take(chosen), samples, sampling.confidence, seed)
    return results
