"""The evaluation as a page: verdict, metrics, gate, plots, slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from penstock.components._shared.metrics.tasks import TASKS
from penstock.components._shared.report import COLORS, Report, new_figure
from penstock.components._shared.tabular import label_text

# The metric of the slice plot where the headline has no value.
FALLBACK = {"binary": "accuracy", "multiclass": "accuracy", "regression": "mae"}
MOST_ROWS = 60  # slices in a plot


def page(found: Mapping[str, Any]) -> Report:
    """Return the page of an evaluation.

    Args:
        found: What document.py describes.
    """
    built = Report("Evaluation", f"{found['target']}, {found['task']}, {found['rows']:,} rows")
    built.status(found["blessed"], ("Blessed: " if found["blessed"] else "Not blessed: ") + found["reason"])
    built.facts(_facts(found))
    _metrics(built, found)
    _gate(built, found)
    if found["curves"]:
        built.heading("Curves" if found["classes"] else "Predictions")
    for name, draw in PLOTS.items():
        if found["curves"].get(name):
            figure, caption = draw(found["curves"][name], found)
            built.figure(figure, caption)
    if by_class := found["curves"].get("by_class"):
        built.table(list(by_class[0]), [list(entry.values()) for entry in by_class])
    _slices(built, found)
    return built


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        "framework": found["model"].get("framework"),
        "target": found["target"],
        "classes": ", ".join(map(label_text, found["classes"])) or None,
        "positive class": label_text(found["positive_class"]) if found["task"] == "binary" else None,
        "rows": found["rows"],
        "fingerprint of the rows": found["eval_set"]["fingerprint"],
        "champion": found["champion"]["name"] if found["champion"] else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _metrics(built: Report, found: Mapping[str, Any]) -> None:
    built.heading("Metrics")
    theirs = found["champion"]["metrics"] if found["champion"] else {}
    columns = ["metric", "value", _interval_title(found), *(["champion", "difference"] if theirs else []), "better", ""]
    rows = []
    for name, entry in found["metrics"].items():
        if name == "rows":
            continue
        row = [name, entry["value"], _range(entry)]
        if theirs:
            apart = theirs[name].get("difference")
            row += [theirs[name]["value"], f"{apart['value']:+.4g} {_bracketed(apart)}" if apart else None]
        rows.append([*row, entry["better"] or None, entry.get("reason") or entry["about"]])
    built.table(columns, rows)
    if found["champion"] and found["champion"]["problem"]:
        built.text(f"{found['champion']['name']} cannot be measured on these rows: {found['champion']['problem']}.")
    bootstrap = found["bootstrap"]
    if found["engine"] == "beam":
        built.text(
            "Measured on Beam by TensorFlow Model Analysis: areas under curves are interpolated between 10,000 "
            "thresholds, and there are no confidence intervals."
        )
    if bootstrap["samples"]:
        built.text(
            f"Intervals: percentiles of {bootstrap['samples']:,} bootstrap resamples "
            f"({bootstrap['slice_samples']:,} for slices)"
            + (", of differences those of paired resamples." if theirs else ".")
        )


def _gate(built: Report, found: Mapping[str, Any]) -> None:
    if not found["gate"]:
        return
    built.heading("Gate")
    rows = [[entry["condition"], entry["holds"], entry["reason"]] for entry in found["gate"]]
    built.table(["condition", "holds", "because"], rows)
    for entry in found["gate"]:
        left_out = [f"{case['slice']} ({case['note']})" for case in entry["cases"] if case["holds"] is None]
        if left_out:
            built.text(f"Not judged for {entry['condition']}: {', '.join(left_out)}.")


def _slices(built: Report, found: Mapping[str, Any]) -> None:
    for column, entry in found["slices"].items():
        built.heading(f"Slices by {column}")
        if entry["note"]:
            built.text(f"{entry['note'].capitalize()}.")
        names = [name for name in found["metrics"] if name != "rows"]
        rows = [
            [part["value"], part["rows"], *(part["metrics"][name]["value"] for name in names)]
            for part in entry["slices"]
        ]
        built.table([column, "rows", *names], rows)
        for metric in (TASKS[found["task"]].headline, FALLBACK[found["task"]]):
            shown = [part for part in entry["slices"] if part["metrics"][metric]["value"] is not None]
            if shown:
                built.figure(_forest(shown[:MOST_ROWS], metric, found), _forest_caption(metric, found))
                break


def _forest(parts: list[dict[str, Any]], metric: str, found: Mapping[str, Any]) -> Figure:
    figure = new_figure(6, 1 + 0.25 * len(parts))
    axes = figure.subplots()
    places = np.arange(len(parts))
    values = np.array([part["metrics"][metric]["value"] for part in parts])
    for place, part in zip(places, parts, strict=True):
        if part["metrics"][metric]["low"] is not None:
            axes.plot(
                [part["metrics"][metric]["low"], part["metrics"][metric]["high"]], [place, place], color=COLORS[0]
            )
    axes.plot(values, places, "o", color=COLORS[0], markersize=4)
    axes.axvline(found["metrics"][metric]["value"], color=COLORS[1], linestyle="--", linewidth=1)
    axes.set_yticks(places, [str(part["value"])[:40] for part in parts])
    axes.invert_yaxis()
    axes.set_xlabel(metric)
    return figure


def _forest_caption(metric: str, found: Mapping[str, Any]) -> str:
    intervals = f" with {found['bootstrap']['confidence']:.0%} intervals" if found["bootstrap"]["samples"] else ""
    return f"{metric} by slice{intervals}; dashed: all rows"


def _roc(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(4, 3.6)
    axes = figure.subplots()
    axes.plot(curve["fpr"], curve["tpr"])
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color="gray")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    return figure, "ROC curve"


def _pr(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(4, 3.6)
    axes = figure.subplots()
    axes.step(curve["recall"], curve["precision"], where="pre")
    axes.axhline(found["metrics"]["positive_rate"]["value"], linestyle="--", linewidth=1, color="gray")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    return figure, "Precision-recall curve; dashed: the share of positive rows"


def _calibration(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(4, 3.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color="gray")
    axes.plot(curve["confidence"], curve["frequency"], linewidth=1)
    rows = np.array(curve["rows"])
    axes.scatter(curve["confidence"], curve["frequency"], s=4 + 60 * rows / rows.max())
    axes.set(xlabel="mean predicted probability", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    of = "of the positive class" if found["task"] == "binary" else "of the predicted class"
    return figure, f"Calibration {of}, bins of equal width, points as large as their rows"


def _scores(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(5, 3)
    axes = figure.subplots()
    for label, rows in zip(found["classes"], (curve["negative"], curve["positive"]), strict=True):
        axes.stairs(rows, curve["edges"], fill=True, alpha=0.5, label=label_text(label))
    axes.set(xlabel="predicted probability of the positive class", ylabel="rows", xlim=(0, 1))
    axes.legend(frameon=False)
    return figure, "Predicted probabilities by actual class"


def _confusion(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    matrix = np.array(curve["matrix"])
    count = len(matrix)
    figure = new_figure(2 + 0.5 * min(count, 14), 1.4 + 0.45 * min(count, 14))
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if count <= 12:
        for row, column in np.ndindex(matrix.shape):
            color = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
    labels = [label[:20] for label in curve["labels"]]
    axes.set_xticks(range(count), labels, rotation=45 if count > 3 else 0, ha="right" if count > 3 else "center")
    axes.set_yticks(range(count), labels)
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="actual")
    return figure, "Rows by actual and predicted class; shaded by share of the actual class"


def _predicted_by_actual(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(4.5, 3.8)
    axes = figure.subplots()
    rows = np.array(curve["rows"], dtype=float).T
    drawn = axes.pcolormesh(
        curve["actual_edges"], curve["predicted_edges"], np.log10(np.where(rows > 0, rows, np.nan)), cmap="Blues"
    )
    drawn.set_rasterized(True)
    low = max(curve["actual_edges"][0], curve["predicted_edges"][0])
    high = min(curve["actual_edges"][-1], curve["predicted_edges"][-1])
    if low < high:
        axes.plot([low, high], [low, high], linestyle="--", linewidth=1, color="gray")
    axes.set(xlabel=f"actual {found['target']}", ylabel="predicted")
    return figure, "Rows by actual and predicted value, shaded by the logarithm of their number; dashed: equal"


def _residuals(curve: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(5, 3)
    axes = figure.subplots()
    axes.stairs(curve["rows"], curve["edges"], fill=True, alpha=0.7)
    axes.axvline(0, linestyle="--", linewidth=1, color="gray")
    axes.set(xlabel="predicted minus actual", ylabel="rows")
    beyond = f"; {curve['below']:,} rows are below, {curve['above']:,} above"
    return figure, "Residuals" + (beyond if curve["below"] or curve["above"] else "")


PLOTS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Figure, str]]] = {
    "roc": _roc,
    "pr": _pr,
    "calibration": _calibration,
    "scores": _scores,
    "confusion": _confusion,
    "predicted_by_actual": _predicted_by_actual,
    "residuals": _residuals,
}


def _interval_title(found: Mapping[str, Any]) -> str:
    return f"{found['bootstrap']['confidence']:.0%} interval"


def _range(entry: Mapping[str, Any]) -> str | None:
    return None if entry.get("low") is None else f"{entry['low']:.4g} to {entry['high']:.4g}"


def _bracketed(entry: Mapping[str, Any]) -> str:
    text = _range(entry)
    return f"({text})" if text else ""
