"""Hold predictions to the labels that came later: metrics over time, beside those of the model's evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from penstock.components._shared import memory
from penstock.components._shared.dataset import Dataset, open_dataset, require_columns
from penstock.components._shared.engine import identifier
from penstock.components._shared.errors import UserError
from penstock.components._shared.metrics.bootstrap import measure
from penstock.components._shared.metrics.tasks import TASKS, Scored, Task
from penstock.components.monitoring import exposition, render
from penstock.components.monitoring.drift import write_json

COMPONENT = "monitor_performance"
FORMAT = 1
EVALUATION = "penstock.evaluation/1"
WINDOWS = ("hour", "day", "week", "month")
MOST_WINDOWS = 1000
BYTES_OF_NUMBER, BYTES_OF_TEXT = 9, 60  # of a row, as the join gives them
_PREDICTION, _PROBABILITY = "prediction", "probability_"
_SHOWN = 5


@dataclass(frozen=True)
class Demands:
    """When a model counts as degraded.

    Attributes:
        metric: Metric that decides; empty: the task's headline (auc, auc_ovr, rmse).
        tolerance: By what share of the evaluation's value it may be worse, 0 or more.
        least_rows: Labelled rows below which nothing is decided.
        samples: Bootstrap resamples behind an interval.
        confidence: Coverage of the intervals, 0 to 1.
        seed: Of the bootstrap.
    """

    metric: str = ""
    tolerance: float = 0.05
    least_rows: int = 100
    samples: int = 200
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Monitored:
    """What `monitor_performance` found.

    Attributes:
        degraded: Whether the metric is worse than tolerated, and not by chance.
        labelled_share: Share of the predictions that have a label, 0 to 1.
        reason: Why, one line.
        metrics: Metrics of all labelled rows that have a value, by name.
    """

    degraded: bool
    labelled_share: float
    reason: str
    metrics: Mapping[str, float]


def monitor(
    predictions: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    performance: str | os.PathLike[str],
    report: str | os.PathLike[str],
    prometheus: str | os.PathLike[str],
    *,
    target: str,
    keys: Sequence[str] = ("request_id", "row"),
    time_column: str = "time",
    window: str = "day",
    evaluation: str | os.PathLike[str] | None = None,
    demands: Demands = Demands(),
) -> Monitored:
    """Join predictions with labels, measure them as evaluate does, and write down what was found.

    Args:
        predictions: Dataset with `keys`, `prediction` and, of a classifier, `probability_CLASS` for every class.
        labels: Dataset with `keys` and the target; rows without a label may be absent.
        performance: File to write: everything, as JSON.
        report: File to write: HTML page.
        prometheus: File to write: gauges in Prometheus's text format.
        target: Column of the labels.
        keys: Columns that tell which label belongs to which prediction.
        time_column: Column of the predictions that windows are cut by. Empty: none are.
        window: "hour", "day", "week" or "month", in UTC.
        evaluation: Evaluation of the model, to compare with. None: nothing is decided.
        demands: When the model is degraded.

    Raises:
        UserError: An input is wrong, labels contradict each other or are unknown to the model, or none fits.
    """
    if window not in WINDOWS:
        raise UserError(COMPONENT, "window", f"{window!r} is no window", f"Give one of {', '.join(WINDOWS)}")
    if not keys:
        raise UserError(COMPONENT, "keys", "there are none", "Name the columns that predictions and labels share")
    told, known = open_dataset(predictions, COMPONENT, "predictions"), open_dataset(labels, COMPONENT, "labels")
    require_columns(told, [*keys, _PREDICTION, *([time_column] if time_column else [])], COMPONENT, "predictions")
    require_columns(known, [*keys, target], COMPONENT, "labels")
    classes = [name.removeprefix(_PROBABILITY) for name in told.schema if name.startswith(_PROBABILITY)]
    kind = ("binary" if len(classes) == 2 else "multiclass") if classes else "regression"
    task = TASKS[kind]
    metric = demands.metric or task.headline
    _check(demands, task, kind)
    baseline = _baseline(evaluation, metric, kind)

    _require_memory(told.rows, classes, time_column)
    joined = _joined(told, known, target, keys, time_column, window, classes)
    if not joined.labelled:
        raise UserError(
            COMPONENT,
            "labels",
            f"none belongs to any of the {told.rows:,} predictions",
            f"Check the keys {', '.join(keys)}",
        )
    whole = _measured(task, joined.scored, demands)
    windows = [
        {
            "start": start,
            "rows": rows,
            "labelled": len(places),
            "metrics": _measured(task, joined.scored.take(places), demands) if len(places) else {},
        }
        for start, rows, places in joined.windows
    ]
    degraded, reason, limit = _judged(whole, metric, task, baseline, joined.labelled, demands)
    found = {
        "format": FORMAT,
        "task": kind,
        "classes": classes,
        "target": target,
        "predictions": {"fingerprint": told.fingerprint, "rows": told.rows},
        "labels": {"fingerprint": known.fingerprint, "rows": known.rows},
        "labelled": joined.labelled,
        "metrics": whole,
        "metric": metric,
        "baseline": baseline,
        "limit": limit,
        "window": window if time_column else "",
        "windows": windows,
        "confidence": demands.confidence,
        "degraded": degraded,
        "reason": reason,
    }
    write_json(found, performance)
    exposition.performance(found, prometheus)
    render.performance(found).write(report)
    values = {name: entry["value"] for name, entry in whole.items() if entry["value"] is not None}
    return Monitored(degraded, joined.labelled / told.rows, reason, values)


def _require_memory(rows: int, classes: Sequence[str], time_column: str) -> None:
    """Refuse predictions that would not fit beside their labels and windows, before any is read."""
    of_row = BYTES_OF_NUMBER * (len(classes) or 1) + BYTES_OF_TEXT * (bool(classes) + bool(time_column))
    memory.require(
        rows * of_row,
        COMPONENT,
        "predictions",
        f"{rows:,} predictions with their labels and windows",
        "Give the step more, or predictions of a shorter time",
    )


@dataclass(frozen=True)
class _Joined:
    """The labelled rows, and by window its start, how many predictions it has, and places among the labelled rows."""

    labelled: int
    scored: Scored
    windows: list[tuple[str, int, np.ndarray]]


def _joined(
    told: Dataset,
    known: Dataset,
    target: str,
    keys: Sequence[str],
    time_column: str,
    window: str,
    classes: Sequence[str],
) -> _Joined:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        for name, dataset in (("told", told), ("known", known)):
            files = ", ".join("'" + str(file).replace("'", "''") + "'" for file in dataset.files)
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet([{files}])")
        names = ", ".join(map(identifier, keys))
        value = identifier(target)
        _refuse_contradictions(connection, names, value, keys)
        label = f"any_value({value}{'::VARCHAR' if classes else '::DOUBLE'})"
        start = f"date_trunc('{window}', {identifier(time_column)})::VARCHAR" if time_column else "''"
        columns = [identifier(_PROBABILITY + name) for name in classes] or [identifier(_PREDICTION)]
        parts = ", ".join(f"{column}::DOUBLE AS p{place}" for place, column in enumerate(columns))
        try:
            found = connection.execute(
                f"SELECT start, label, {', '.join(f'p{place}' for place in range(len(columns)))} "
                f"FROM (FROM told SELECT {names}, {start} AS start, {parts}) "
                f"LEFT JOIN (FROM known SELECT {names}, {label} AS label WHERE {value} IS NOT NULL GROUP BY {names}) "
                f"USING ({names})"
            ).fetchnumpy()
        except duckdb.Error as error:
            raise UserError(
                COMPONENT,
                "labels",
                " ".join(str(error).split())[:200],
                "Give keys and target of the types that the predictions have",
            ) from None
    absent = np.ma.getmaskarray(found["label"])
    labels = np.ma.getdata(found["label"])[~absent]
    predicted = np.column_stack([np.ma.filled(found[f"p{place}"], np.nan) for place in range(len(columns))])[~absent]
    if not np.isfinite(predicted).all():
        raise UserError(COMPONENT, "predictions", "some are missing or infinite", "Filter them in ingest's query")
    if classes:
        places = {name: place for place, name in enumerate(classes)}
        if strange := sorted({str(label) for label in labels} - places.keys()):
            shown = ", ".join(strange[:_SHOWN]) + (" …" if len(strange) > _SHOWN else "")
            raise UserError(
                COMPONENT,
                "labels",
                f"{target!r} holds labels that the model does not know: {shown}",
                f"It knows {', '.join(classes)}",
            )
        labels = np.array([places[str(label)] for label in labels], dtype=np.int64)
    elif not np.isfinite(labels.astype(np.float64)).all():
        raise UserError(COMPONENT, "labels", f"{target!r} holds infinite values", "Filter them in ingest's query")
    scored = Scored(labels, predicted if classes else predicted[:, 0])
    windows: list[tuple[str, int, np.ndarray]] = []
    if time_column:
        starts: np.ndarray = np.ma.filled(np.ma.asarray(found["start"], dtype=object), "")
        mine = starts[~absent]
        for each in sorted({str(value) for value in starts})[-MOST_WINDOWS:]:
            windows.append((each, int((starts == each).sum()), np.flatnonzero(mine == each)))
    return _Joined(len(labels), scored, windows)


def _refuse_contradictions(connection: duckdb.DuckDBPyConnection, names: str, value: str, keys: Sequence[str]) -> None:
    twice = connection.execute(
        f"FROM known SELECT {names} GROUP BY ALL HAVING count(DISTINCT {value}) > 1 ORDER BY ALL LIMIT 1"
    ).fetchone()
    if twice:
        key = ", ".join(f"{name} {part}" for name, part in zip(keys, twice, strict=True))
        raise UserError(COMPONENT, "labels", f"{key} has labels that contradict each other", "Leave one of them")


def _measured(task: Task, scored: Scored, demands: Demands) -> dict[str, Any]:
    measured, _ = measure(task, scored, demands.samples, demands.confidence, [demands.seed])
    found: dict[str, Any] = {}
    for name, metric in task.metrics.items():
        low, high = measured.intervals.get(name, (None, None))
        found[name] = {"value": measured.values.get(name), "low": low, "high": high, "better": metric.better}
    return found


def _judged(
    whole: Mapping[str, Any], metric: str, task: Task, baseline: float | None, labelled: int, demands: Demands
) -> tuple[bool, str, float | None]:
    """Return whether the model is degraded, why, and the value at which it would be."""
    if baseline is None:
        return False, "there is no evaluation to compare with", None
    entry = whole[metric]
    higher = task.metrics[metric].better == "higher"
    limit = baseline - demands.tolerance * abs(baseline) if higher else baseline + demands.tolerance * abs(baseline)
    if labelled < demands.least_rows:
        return False, f"{labelled:,} labelled rows are fewer than {demands.least_rows:,}", limit
    if entry["value"] is None:
        return False, f"{metric} has no value on these rows", limit
    beyond = entry["value"] < limit if higher else entry["value"] > limit
    nearest = entry["high" if higher else "low"]
    by_chance = nearest is not None and (nearest >= baseline if higher else nearest <= baseline)
    compared = f"{metric} is {entry['value']:.4g}, {baseline:.4g} in the evaluation"
    if not beyond:
        return False, f"{compared}, within the tolerance", limit
    if by_chance:
        return False, f"{compared}, but its interval reaches that", limit
    return True, f"{compared}, {'below' if higher else 'above'} {limit:.4g}", limit


def _baseline(path: str | os.PathLike[str] | None, metric: str, kind: str) -> float | None:
    if path is None:
        return None
    remedy = "Give the evaluation that evaluate wrote of this model"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(COMPONENT, "evaluation", f"{path} cannot be read: {error}", remedy) from None
    if not isinstance(found, dict) or found.get("format") != EVALUATION:
        raise UserError(COMPONENT, "evaluation", f"{path} is no {EVALUATION}", remedy)
    if found["task"] != kind:
        raise UserError(
            COMPONENT, "evaluation", f"it is of a {found['task']} model, the predictions of a {kind} one", remedy
        )
    value = found["metrics"].get(metric, {}).get("value")
    if value is None:
        raise UserError(COMPONENT, "evaluation", f"it has no value of {metric}", "Give another metric")
    return float(value)


def _check(demands: Demands, task: Task, kind: str) -> None:
    judged = {name for name, metric in task.metrics.items() if metric.better}
    if demands.metric and demands.metric not in judged:
        known = ", ".join(sorted(judged))
        raise UserError(
            COMPONENT, "metric", f"{demands.metric!r} is no metric of a {kind} model", f"Give one of {known}"
        )
    for argument, value, fits, expected in (
        ("tolerance", demands.tolerance, demands.tolerance >= 0, "0 or more"),
        ("least_rows", demands.least_rows, demands.least_rows >= 0, "0 or more"),
        ("bootstrap_samples", demands.samples, demands.samples >= 0, "0 for no intervals, or about 200"),
        ("confidence", demands.confidence, 0 < demands.confidence < 1, "a number between 0 and 1"),
        ("seed", demands.seed, demands.seed >= 0, "0 or more"),
    ):
        if not fits:
            raise UserError(COMPONENT, argument, f"{value} is out of range", f"Give {expected}")
