"""The evaluation as JSON, format penstock.evaluation/1.

engine        where rows were measured: "local" or "beam"
task, target, classes, positive_class, rows
eval_set      fingerprint and rows of the dataset
model         lineage of the model, as train wrote it
bootstrap     samples, slice_samples, confidence, seed
metrics       by name: value, low and high end of the interval, better, about; or value null and a reason
slices        by column: note on what was folded or binned, and slices with value, rows and metrics
curves        by name; see curves.py
champion      name, version, why it could not be measured, or its metrics with the difference from the model's
gate          by condition: whether it holds, the reason, and the cases that were judged
blessed, reason
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.components._shared.metrics.tasks import Measured, Task
from penstock.components.evaluation.gate import Finding, Place

FORMAT = "penstock.evaluation/1"


def metrics_json(task: Task, measured: Measured) -> dict[str, Any]:
    """Return the metrics of some rows by name."""
    found: dict[str, Any] = {}
    for name in task.metrics:
        if name not in measured.values:
            found[name] = {"value": None, "reason": measured.undefined[name]}
            continue
        low, high = measured.intervals.get(name, (None, None))
        found[name] = {"value": measured.values[name], "low": low, "high": high}
    return found


def described(task: Task, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics with what they mean."""
    return {
        name: {**entry, "better": task.metrics[name].better, "about": task.metrics[name].about}
        for name, entry in metrics.items()
    }


def slices_json(
    task: Task, measured: Mapping[Place, Measured], columns: Mapping[str, Sequence[Place]], notes: Mapping[str, str]
) -> dict[str, Any]:
    """Return the slices of each column; those that only the gate names come after the column's own."""
    found: dict[str, Any] = {}
    for column, places in columns.items():
        others = [place for place in measured if place and place[0] == column and place not in places]
        found[column] = {
            "note": notes[column],
            "slices": [
                {"value": place[1], "rows": measured[place].rows, "metrics": metrics_json(task, measured[place])}
                for place in [*places, *others]
                if place
            ],
        }
    return found


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return what became of each condition."""
    return [
        {
            "condition": finding.condition.text,
            "holds": finding.holds,
            "reason": finding.reason,
            "cases": [
                {
                    "column": case.place[0] if case.place else None,
                    "slice": case.place[1] if case.place else None,
                    "holds": case.holds,
                    "value": case.value,
                    "bound": case.bound,
                    "note": case.note,
                }
                for case in finding.cases
            ],
        }
        for finding in findings
    ]


def champion_json(
    name: str,
    version: str,
    problem: str,
    metrics: dict[str, Any],
    differences: Mapping[str, tuple[float, tuple[float, float] | None]],
) -> dict[str, Any]:
    """Return the champion; a difference is the model's metric less the champion's."""
    for metric, (value, found) in differences.items():
        low, high = found or (None, None)
        metrics[metric] = {**metrics[metric], "difference": {"value": value, "low": low, "high": high}}
    return {"name": name, "version": version, "problem": problem, "metrics": metrics}
