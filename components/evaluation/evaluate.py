"""The work of `evaluate`: a model is measured on rows that it was not fitted on, and held to a gate."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.components._shared import memory
from penstock.components._shared.dataset import Dataset, column_of, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.metrics.bootstrap import Resampled, difference, measure
from penstock.components._shared.metrics.tasks import TASKS, Measured, Scored, Task
from penstock.components._shared.mlflow_registry import check_model_name
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.slices import Sliced, cut
from penstock.components.evaluation import document, render
from penstock.components.evaluation.champion import Champion, find_champion
from penstock.components.evaluation.curves import curves_of
from penstock.components.evaluation.data import labels_for, open_rows, score
from penstock.components.evaluation.gate import (
    Condition,
    Place,
    Rival,
    check_metrics,
    judge,
    parse,
    summary,
)

COMPONENT = "evaluate"
SLICE_SAMPLES = 100  # resamples of a slice at most
BYTES_OF_SLICE = 12  # of a row, by each column that is sliced by: its value and its place
ANY_VERSION = "any"
LONGEST_REASON = 2000

Results = dict[Place, tuple[Measured, Resampled | None]]


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate` found.

    Attributes:
        metrics: Metrics of the whole set that have a value, by name.
        roc: False and true positive rates with their thresholds, of a binary model.
        confusion: Labels, and rows by actual and predicted label, of a classifier.
        blessed: Whether every condition of the gate holds.
        reason: Why, one line.
        champion_version: Version that the gate compared with; empty if there was none yet, "any" if it did not compare.
    """

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]] | None
    confusion: tuple[list[str], list[list[int]]] | None
    blessed: bool
    reason: str
    champion_version: str


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn."""

    samples: int
    confidence: float
    seed: int


def evaluate(
    model: str | os.PathLike[str],
    eval_set: str | os.PathLike[str],
    evaluation: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    slices: Sequence[str] = (),
    gate: Sequence[str] = (),
    model_name: str = "",
    registry: str = "",
    bootstrap_samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluated:
    """Return a model's metrics on a dataset, and whether they pass the gate.

    Args:
        model: Model folder.
        eval_set: Dataset with the target.
        evaluation: Where everything that was found goes, as JSON; see document.py.
        report: Where the page goes.
        slices: Columns to measure by value; see slices.py.
        gate: Conditions; see gate.py.
        model_name: Registered model whose champion the gate compares with.
        registry: URI of the MLflow registry; see open_registry.
        bootstrap_samples: Resamples behind each interval; 0 for none.
        confidence: Coverage of the intervals, 0 to 1.
        seed: Of the bootstrap, 0 or more.

    Raises:
        UserError: An argument is wrong, the rows do not fit the model, or the registry does not answer.
    """
    sampling = _sampling(bootstrap_samples, confidence, seed)
    conditions = parse(gate)
    compares = any(condition.champion for condition in conditions)
    if compares:
        _require_name(model_name)
    loaded = load_model(model, COMPONENT, "model")
    check_metrics(conditions, loaded.task)
    dataset = open_rows(eval_set, loaded)
    sliced = {*slices, *(condition.column for condition in conditions if condition.column)}
    _require_memory(loaded, dataset.rows, len(sliced), compares)
    cuts = _cut(dataset, slices, conditions)

    task, labels = TASKS[loaded.task], labels_for(loaded, dataset)
    scored = score(loaded, dataset, labels, loaded.classes)
    champion = find_champion(registry, model_name, loaded, dataset, labels) if compares else Champion()
    rows = _rows(cuts, conditions)
    results = _measure(task, scored, rows, sampling)
    theirs = _measure(task, champion.scored, rows, sampling) if champion.scored else {}

    measured = {place: found for place, (found, _) in results.items()}
    columns: dict[str, list[Place]] = {
        column: [(column, found.name) for found in sliced.slices] for column, sliced in cuts.items()
    }
    rival = Rival(champion.name, champion.problem, {place: found for place, (found, _) in theirs.items()})
    findings = judge(conditions, measured, columns, rival)
    blessed, reason = all(finding.holds for finding in findings), summary(findings)[:LONGEST_REASON]

    curves = curves_of(loaded.task, scored, loaded.classes)
    found = {
        "format": document.FORMAT,
        **_subject(loaded, dataset, sampling),
        "metrics": document.described(task, document.metrics_json(task, measured[None])),
        "slices": document.slices_json(task, measured, columns, {name: sliced.note for name, sliced in cuts.items()}),
        "curves": curves,
        "champion": _champion(task, champion, results, theirs, confidence),
        "gate": document.findings_json(findings),
        "blessed": blessed,
        "reason": reason,
    }
    render.page(found).write(report)
    _write(found, Path(evaluation))
    roc, confusion = curves.get("roc"), curves.get("confusion")
    return Evaluated(
        metrics=dict(measured[None].values),
        roc=(roc["fpr"], roc["tpr"], roc["thresholds"]) if roc else None,
        confusion=(confusion["labels"], confusion["matrix"]) if confusion else None,
        blessed=blessed,
        reason=reason,
        champion_version=champion.version if compares else ANY_VERSION,
    )


def _sampling(samples: int, confidence: float, seed: int) -> Sampling:
    if samples < 0:
        raise UserError(
            COMPONENT, "bootstrap_samples", f"{samples} is negative", "Give 0 for no intervals, or about 200"
        )
    if not (math.isfinite(confidence) and 0 < confidence < 1):
        raise UserError(COMPONENT, "confidence", f"{confidence} is not between 0 and 1", "Give for example 0.95")
    if seed < 0:
        raise UserError(COMPONENT, "seed", f"{seed} is negative", "Give 0 or more")
    return Sampling(samples, confidence, seed)


def _require_name(model_name: str) -> None:
    if not model_name:
        raise UserError(
            COMPONENT,
            "model_name",
            "the gate compares with the champion, but no registered model is named",
            "Give model_name, or take champion out of the gate",
        )
    check_model_name(model_name, COMPONENT)


def _require_memory(model: TabularModel, rows: int, slices: int, compares: bool) -> None:
    """Refuse rows of which predictions and metrics would not fit, before any is read."""
    outputs = len(model.classes) or 1
    of_row = BYTES_OF_SLICE * slices + 8 * outputs * compares  # the champion's predictions
    memory.require(
        TASKS[model.task].bytes(rows, outputs) + rows * of_row,
        COMPONENT,
        "eval_set",
        f"labels, predictions and metrics of {rows:,} rows",
        "Give the step more, or give ingest a smaller eval_fraction",
    )


def _cut(dataset: Dataset, slices: Sequence[str], conditions: Sequence[Condition]) -> dict[str, Sliced]:
    """Return the slices of each column that is sliced by, for its own sake or for the gate's."""
    asked = dict.fromkeys(slices, "slices")
    for condition in conditions:
        if condition.column:
            asked.setdefault(condition.column, "gate")
    for column, argument in asked.items():
        require_columns(dataset, [column], COMPONENT, argument)
    return {column: cut(column_of(dataset, column), column, COMPONENT, argument) for column, argument in asked.items()}


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


def _subject(model: TabularModel, dataset: Dataset, sampling: Sampling) -> dict[str, Any]:
    return {
        "task": model.task,
        "target": model.target,
        "classes": list(model.classes),
        "positive_class": model.classes[1] if model.task == "binary" else None,
        "rows": dataset.rows,
        "eval_set": {"fingerprint": dataset.fingerprint, "rows": dataset.rows},
        "model": model.facts,
        "bootstrap": {
            "samples": sampling.samples,
            "slice_samples": min(sampling.samples, SLICE_SAMPLES),
            "confidence": sampling.confidence,
            "seed": sampling.seed,
        },
    }


def _champion(
    task: Task, champion: Champion, ours: Results, theirs: Results, confidence: float
) -> dict[str, Any] | None:
    if not champion.version:
        return None
    if not theirs:
        return document.champion_json(champion.name, champion.version, champion.problem, {}, {})
    differences = difference(ours[None], theirs[None], confidence)
    metrics = document.metrics_json(task, theirs[None][0])
    return document.champion_json(champion.name, champion.version, "", metrics, differences)


def _write(found: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
