"""The work of `evaluate`: a model is measured on rows that it was not fitted on, and held to a gate."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.components._shared import beam, memory
from penstock.components._shared.dataset import Dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.metrics.bootstrap import difference
from penstock.components._shared.metrics.tasks import TASKS, Task
from penstock.components._shared.mlflow_registry import check_model_name
from penstock.components._shared.model import TabularModel, load_model
from penstock.components.evaluation import document, render
from penstock.components.evaluation import measuring as measures
from penstock.components.evaluation.champion import Champion, find_champion
from penstock.components.evaluation.data import open_rows
from penstock.components.evaluation.gate import Condition, Rival, check_metrics, judge, parse, summary
from penstock.components.evaluation.measuring import SLICE_SAMPLES, Results, Sampling

COMPONENT = "evaluate"
BYTES_OF_SLICE = 12  # of a row, by each column that is sliced by: its value and its place
PACKAGE = "tensorflow_model_analysis"
ANY_VERSION = "any"
LONGEST_REASON = 2000


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
    engine: str = beam.LOCAL,
    beam_options: Mapping[str, Any] = beam.DIRECT,
    eval_set_uri: str = "",
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
        engine: "local" or "beam", where there are no intervals; see on_beam.py.
        beam_options: Of Beam, the runner among them.
        eval_set_uri: Where Beam's workers find the dataset, if they are on other machines.

    Raises:
        UserError: An argument is wrong, the rows do not fit the model, or the registry does not answer.
    """
    on = beam.chosen(COMPONENT, engine, beam_options, PACKAGE)
    sampling = _sampling(bootstrap_samples, confidence, seed)
    if on:
        sampling = replace(sampling, samples=0)
    conditions = parse(gate)
    compares = any(condition.champion for condition in conditions)
    if compares:
        _require_name(model_name)
    loaded = load_model(model, COMPONENT, "model")
    check_metrics(conditions, loaded.task)
    dataset = open_rows(eval_set, loaded)
    asked = _asked(dataset, slices, conditions)
    if not on:
        _require_memory(loaded, dataset.rows, len(asked), compares)
    measuring = (
        measures.on_beam(on, dataset, eval_set_uri, loaded, asked, conditions)
        if on
        else measures.here(dataset, loaded, asked, conditions, sampling)
    )
    task, columns = TASKS[loaded.task], measuring.columns
    results, curves_of = measuring.measure(loaded, Path(model))
    champion = (
        find_champion(registry, model_name, loaded, lambda other, folder: measuring.measure(other, folder)[0])
        if compares
        else Champion()
    )
    theirs = champion.results or {}

    measured = {place: found for place, (found, _) in results.items()}
    rival = Rival(champion.name, champion.problem, {place: found for place, (found, _) in theirs.items()})
    findings = judge(conditions, measured, columns, rival)
    blessed, reason = all(finding.holds for finding in findings), summary(findings)[:LONGEST_REASON]

    curves = curves_of()
    found = {
        "format": document.FORMAT,
        "engine": engine,
        **_subject(loaded, dataset, sampling),
        "metrics": document.described(task, document.metrics_json(task, measured[None])),
        "slices": document.slices_json(task, measured, columns, measuring.notes),
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
        'Give the step more, give ingest a smaller eval_fraction, or set engine to "beam"',
    )


def _asked(dataset: Dataset, slices: Sequence[str], conditions: Sequence[Condition]) -> dict[str, str]:
    """Return the columns to slice by, for their own sake or for the gate's, and the argument that asks for each."""
    asked = dict.fromkeys(slices, "slices")
    for condition in conditions:
        if condition.column:
            asked.setdefault(condition.column, "gate")
    for column, argument in asked.items():
        require_columns(dataset, [column], COMPONENT, argument)
    return asked


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
