"""Hold rows to a reference: how far each column has moved, whether that is chance, and what is missing or new."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.components._shared.dataset import Dataset, open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.messages import read_statistics
from penstock.components.monitoring import attributions as attributed
from penstock.components.monitoring import bins, exposition, measures, quality, render
from penstock.components.monitoring.bins import Column, Counted

COMPONENT = "detect_drift"
FORMAT = 1


@dataclass(frozen=True)
class Limits:
    """When a column counts as drifted, and when something as wrong with it.

    Attributes:
        distance: Name of the distance that decides; see measures.py.
        threshold: Distance above which a column has drifted.
        thresholds: The same for single columns.
        false_alarms: Probability of calling any column drifted when none is, 0 to 1.
        tolerance: Share of rows that may be new, out of range, or missing beyond the reference's share, 0 to 1.
        attribution_threshold: NDCG below which attributions have drifted, 0 to 1; see attributions.py.
    """

    distance: str = "psi"
    threshold: float = 0.2
    thresholds: Mapping[str, float] | None = None
    false_alarms: float = 0.01
    tolerance: float = 0.01
    attribution_threshold: float = 0.9


@dataclass(frozen=True)
class Detected:
    """What `detect_drift` found.

    Attributes:
        drifted: Columns that have drifted, furthest first.
        predictions: Those of them that are predictions.
        faulty: Columns that something is wrong with.
        attributions: Whether attributions have drifted; False without any.
        metrics: Numbers of the whole, by name.
    """

    drifted: tuple[str, ...]
    predictions: tuple[str, ...]
    faulty: tuple[str, ...]
    attributions: bool
    metrics: Mapping[str, float]


def detect(
    current: str | os.PathLike[str],
    drift: str | os.PathLike[str],
    report: str | os.PathLike[str],
    prometheus: str | os.PathLike[str],
    *,
    reference: str | os.PathLike[str] | None = None,
    reference_statistics: str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    predictions: Sequence[str] = (),
    attributions: str | os.PathLike[str] | None = None,
    reference_attributions: str | os.PathLike[str] | None = None,
    limits: Limits = Limits(),
) -> Detected:
    """Compare rows with a reference, and write down what was found.

    Args:
        current: Dataset of the rows.
        drift: File to write: everything, as JSON.
        report: File to write: HTML page.
        prometheus: File to write: gauges in Prometheus's text format.
        reference: Dataset to compare with.
        reference_statistics: DatasetFeatureStatisticsList of it, in its place.
        columns: Columns to compare. Empty: all that both have.
        exclude: Columns to leave out.
        predictions: Columns that hold predictions. Empty: `prediction` and those that begin with `probability_`.
        attributions: Dataset that explain wrote of the rows, or of some of them.
        reference_attributions: The same of the reference.
        limits: When a column has drifted.

    Raises:
        UserError: An input is wrong, or there is nothing to compare.
    """
    _check(limits)
    data = open_dataset(current, COMPONENT, "current")
    if not data.rows:
        raise UserError(COMPONENT, "current", "it has no rows", "Wait for some, or take a longer time")
    before, origin = _reference(reference, reference_statistics)
    _check_names(before, data, columns, "columns")
    _check_names(before, data, exclude, "exclude")
    _check_names(before, data, list(limits.thresholds or ()), "thresholds")
    wanted = [name for name in before.columns if (not columns or name in columns) and name not in exclude]
    moved = _attributions(reference_attributions, attributions, limits)
    now, strange = bins.like(before, data.files, wanted)

    compared = [_compared(before.columns[name], now.columns[name], limits) for name in wanted if name in now.columns]
    if not compared:
        raise UserError(
            COMPONENT,
            "current",
            "it has no column that the reference has",
            f"The reference has {', '.join(before.columns)}",
        )
    adjusted = measures.holm({each["name"]: each["p_value"] for each in compared if each["p_value"] is not None})
    for each in compared:
        each["adjusted_p_value"] = adjusted.get(each["name"])
        each["prediction"] = is_prediction(each["name"], predictions)
        far = each["distance"] is not None and each["distance"] > each["threshold"]
        each["drifted"] = bool(far and adjusted[each["name"]] <= limits.false_alarms)
    compared.sort(key=lambda each: (not each["drifted"], -(each["distance"] or 0.0), each["name"]))
    found_issues = [
        *(quality.absent(name) for name in wanted if name not in data.schema),
        *(quality.mistyped(name, before.columns[name].type, kind) for name, kind in strange.items()),
        *(
            issue
            for name in now.columns
            for issue in quality.issues(before.columns[name], now.columns[name], limits.tolerance, limits.false_alarms)
        ),
    ]
    found = {
        "format": FORMAT,
        "reference": {**origin, "rows": before.rows},
        "current": {"fingerprint": data.fingerprint, "rows": data.rows},
        "limits": {**asdict(limits), "thresholds": dict(limits.thresholds or {})},
        "columns": compared,
        "attributions": moved,
        "issues": [asdict(issue) for issue in found_issues],
        "not_compared": _not_compared(before, now, data, exclude),
    }
    detected = _detected(found)
    write_json(found, drift)
    exposition.drift(found, prometheus)
    render.drift(found, before, now).write(report)
    return detected


def _not_compared(before: Counted, now: Counted, data: Dataset, exclude: Sequence[str]) -> dict[str, str]:
    reasons = {name: "it is not in the reference" for name in data.schema if name not in before.columns}
    reasons |= {**now.left_out, **before.left_out}
    return {name: reason for name, reason in sorted(reasons.items()) if name not in exclude}


def is_prediction(name: str, predictions: Sequence[str]) -> bool:
    """Return whether a column holds predictions; without names those that the server and predict_batch write."""
    return name in predictions if predictions else name == "prediction" or name.startswith("probability_")


def _compared(reference: Column, current: Column, limits: Limits) -> dict[str, Any]:
    counts = measures.pair(reference, current)
    comparable = reference.values > 0 and current.values > 0
    distances = {name: measure(counts) if comparable else None for name, measure in measures.DISTANCES.items()}
    return {
        "name": current.name,
        "kind": reference.bins.kind,
        "distance": distances[limits.distance],
        "threshold": (limits.thresholds or {}).get(current.name, limits.threshold),
        "distances": distances,
        "p_value": measures.p_value(counts) if comparable else None,
        "missing": {"reference": _share(reference), "current": _share(current)},
    }


def _share(column: Column) -> float:
    return column.missing / column.rows if column.rows else 0.0


def _reference(
    rows: str | os.PathLike[str] | None, statistics: str | os.PathLike[str] | None
) -> tuple[Counted, dict[str, Any]]:
    if (rows is None) == (statistics is None):
        problem = "both are given" if rows is not None else "neither is given"
        raise UserError(COMPONENT, "reference and reference_statistics", problem, "Give one of the two")
    if statistics is not None:
        return bins.of_statistics(read_statistics(statistics, COMPONENT, "reference_statistics")), {
            "kind": "statistics"
        }
    assert rows is not None
    data = open_dataset(rows, COMPONENT, "reference")
    if not data.rows:
        raise UserError(COMPONENT, "reference", "it has no rows", "Give the rows that the model was trained on")
    return bins.of_rows(data.files), {"kind": "dataset", "fingerprint": data.fingerprint}


def _attributions(
    reference: str | os.PathLike[str] | None, current: str | os.PathLike[str] | None, limits: Limits
) -> dict[str, Any] | None:
    if reference is None and current is None:
        return None
    if reference is None or current is None:
        missing = "reference_attributions" if reference is None else "attributions"
        raise UserError(COMPONENT, missing, "it is not given, the other is", "Give both, or neither")
    return attributed.compare(reference, current, limits.attribution_threshold)


def _check(limits: Limits) -> None:
    if limits.distance not in measures.DISTANCES:
        known = ", ".join(measures.DISTANCES)
        raise UserError(COMPONENT, "distance", f"{limits.distance!r} is no distance", f"Give one of {known}")
    for argument, value, most in (
        ("threshold", limits.threshold, math.inf),
        *(("thresholds", value, math.inf) for value in (limits.thresholds or {}).values()),
        ("false_alarms", limits.false_alarms, 1.0),
        ("tolerance", limits.tolerance, 1.0),
        ("attribution_threshold", limits.attribution_threshold, 1.0),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            expected = "a number from 0 to 1" if most == 1.0 else "a number of 0 or more"
            raise UserError(COMPONENT, argument, f"{value!r} is no such limit", f"Give {expected}")


def _check_names(before: Counted, data: Dataset, names: Sequence[str], argument: str) -> None:
    """Refuse names that neither the reference nor the rows know."""
    unknown = [name for name in names if name not in before.columns and name not in before.left_out]
    require_columns(data, unknown, COMPONENT, argument)


def _detected(found: Mapping[str, Any]) -> Detected:
    columns = found["columns"]
    drifted = [each for each in columns if each["drifted"]]
    faulty = dict.fromkeys(issue["column"] for issue in found["issues"])
    distances = [each["distance"] for each in columns if each["distance"] is not None]
    moved = found["attributions"]
    return Detected(
        drifted=tuple(each["name"] for each in drifted),
        predictions=tuple(each["name"] for each in drifted if each["prediction"]),
        faulty=tuple(faulty),
        attributions=bool(moved and moved["drifted"]),
        metrics={
            "rows": float(found["current"]["rows"]),
            "columns": float(len(columns)),
            "drifted_columns": float(len(drifted)),
            "faulty_columns": float(len(faulty)),
            f"largest_{found['limits']['distance']}": max(distances, default=0.0),
            **({"attribution_ndcg": moved["ndcg"]} if moved else {}),
        },
    )


def write_json(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a document, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.write_text(json.dumps(found, indent=1, allow_nan=False), encoding="utf-8")
    unfinished.replace(target)
