"""The explanation as a page: the check, what matters, how it acts, where it differs, and rows one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from penstock.components._shared.report import COLORS, Report, new_figure
from penstock.components._shared.tabular import label_text

MOST_BARS = 20
MOST_IN_CLOUD = 15
MOST_CURVES = 8  # classes in one plot
MOST_STEPS = 10  # features of one row
SLICE_FEATURES = 8
UP, DOWN = COLORS[1], COLORS[0]


def page(found: Mapping[str, Any], points: tuple[np.ndarray, np.ndarray]) -> Report:
    """Return the page of an explanation.

    Args:
        found: What document.py describes.
        points: Some rows as the model read them, (rows, features), and their attributions, (rows, outputs, features),
            both in the order of the model's features.
    """
    sample = found["sample"]
    built = Report("Explanation", f"{found['target']}, {found['task']}, {sample['rows']:,} rows")
    _verdict(built, found)
    if sample["why"]:
        built.text(
            f"{sample['rows']:,} of {found['dataset']['rows']:,} rows are explained, drawn at random: {sample['why']}."
        )
    built.facts(_facts(found))
    _importance(built, found, points)
    _dependence(built, found)
    _slices(built, found)
    _local(built, found)
    return built


def _verdict(built: Report, found: Mapping[str, Any]) -> None:
    check, rows = found["additivity"], found["sample"]["rows"]
    what = "prediction" if found["method"]["explains"] == "prediction" else "prediction's margin"
    bound = f"relative tolerance {check['tolerance']:.2g}, largest gap {check['largest_gap']:.2g}"
    if check["holds"]:
        built.status(True, f"The attributions of every row add up to its {what} ({bound})")
    else:
        built.status(
            False,
            f"The attributions of {check['failed_rows']:,} of {rows:,} rows do not add up to their {what} ({bound}): "
            "do not rely on them",
        )


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    background = found["background"]
    facts = {
        "framework": found["model"].get("framework"),
        "target": found["target"],
        "classes": ", ".join(map(label_text, found["classes"])) or None,
        "method": found["method"]["about"],
        "what is explained": unit(found),
        "base value": ", ".join(f"{entry['base_value']:.4g}" for entry in found["outputs"][:MOST_CURVES]),
        "rows explained": found["sample"]["rows"],
        "rows of the dataset": found["dataset"]["rows"],
        "fingerprint of the dataset": found["dataset"]["fingerprint"],
        "background": f"{background['rows']:,} rows of {background['of']}" if background else None,
        "rows weighed by": found["weight_column"] or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def unit(found: Mapping[str, Any]) -> str:
    """Return what attributions add up to, in words."""
    if found["method"]["explains"] == "prediction":
        return {
            "binary": f"the probability of {_positive(found)}",
            "multiclass": "the probability of each class",
            "regression": found["target"],
        }[found["task"]]
    return {
        "binary": f"the log-odds of {_positive(found)}",
        "multiclass": "the margin of each class, before softmax",
        "regression": f"{found['target']}, before the model's link function if it has one",
    }[found["task"]]


def _positive(found: Mapping[str, Any]) -> str:
    return f"{found['target']} = {label_text(found['explained_class'])}"


def _importance(built: Report, found: Mapping[str, Any], points: tuple[np.ndarray, np.ndarray]) -> None:
    built.heading("What matters")
    features = found["features"]
    over = " and classes" if found["task"] == "multiclass" else ""
    built.figure(bars(features[:MOST_BARS]), f"Mean absolute attribution over the rows{over}")
    if found["task"] != "multiclass":
        built.figure(
            _cloud(found, points),
            f"Attributions of {len(points[0]):,} rows; red: high values of the column, blue: low ones, "
            "gray: categories and missing",
        )
    permuted = {entry["name"]: entry for entry in found["importance"]["features"]} if found["importance"] else {}
    columns = ["feature", "kind", "mean absolute attribution", "share", "mean attribution"]
    if permuted:
        columns += [f"loss of {found['importance']['metric']} when permuted", "±"]
    rows = []
    for entry in features:
        row = [entry["name"], entry["kind"], entry["mean_absolute"], f"{entry['share']:.1%}", entry["mean"]]
        if permuted:
            row += [permuted[entry["name"]]["mean"], permuted[entry["name"]]["deviation"]]
        rows.append(row)
    built.table(columns, rows)
    if found["importance"]:
        told = found["importance"]
        built.text(
            f"Permutation importance: {told['metric']} is {told['baseline']:.4g} on {told['rows']:,} rows; the loss is "
            f"its mean over {told['repeats']} shuffles of the column, ± their standard deviation."
        )
    else:
        built.text(f"Permutation importance was not measured: {found['importance_note']}.")
    if found["task"] == "multiclass":
        labels = list(features[0]["by_class"])
        built.table(
            ["feature", *labels],
            [[entry["name"], *entry["by_class"].values()] for entry in features[:MOST_BARS]],
            "Mean absolute attribution by class",
        )


def bars(features: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean absolute attribution of features."""
    figure = new_figure(6, 0.8 + 0.26 * len(features))
    axes = figure.subplots()
    places = np.arange(len(features))
    axes.barh(places, [entry["mean_absolute"] for entry in features], height=0.7)
    axes.set_yticks(places, [_short(entry["name"]) for entry in features])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean absolute attribution")
    return figure


def _cloud(found: Mapping[str, Any], points: tuple[np.ndarray, np.ndarray]) -> Figure:
    shown = found["features"][:MOST_IN_CLOUD]
    names = found["model"]["features"]
    figure = new_figure(6, 0.9 + 0.34 * len(shown))
    axes = figure.subplots()
    axes.axvline(0, linewidth=1, color="gray")
    for line, entry in enumerate(shown):
        feature = names.index(entry["name"])
        values, attributions = points[0][:, feature], points[1][:, 0, feature]
        colored = ~np.isnan(values) & (entry["kind"] not in ("category", "text"))
        heights = line + _spread(attributions)
        axes.scatter(attributions[~colored], heights[~colored], s=5, color="gray", linewidths=0, rasterized=True)
        if colored.any():
            low, high = np.quantile(values[colored], (0.05, 0.95))
            share = np.clip((values[colored] - low) / (high - low), 0, 1) if high > low else values[colored] * 0 + 0.5
            axes.scatter(
                attributions[colored],
                heights[colored],
                s=5,
                c=share,
                cmap="coolwarm",
                vmin=0,
                vmax=1,
                linewidths=0,
                rasterized=True,
            )
    axes.set_yticks(np.arange(len(shown)), [_short(entry["name"]) for entry in shown])
    axes.invert_yaxis()
    axes.set_xlabel("attribution")
    return figure


def _spread(values: np.ndarray) -> np.ndarray:
    """Return heights, within ±0.4, at which points of about equal value lie beside each other."""
    low, high = values.min(initial=0), values.max(initial=0)
    if not high > low:
        return np.zeros(len(values))
    bins = np.clip(((values - low) / (high - low) * 60).astype(int), 0, 59)
    heights = np.zeros(len(values))
    fullest = np.bincount(bins).max()
    for place in np.unique(bins):
        inside = np.flatnonzero(bins == place)
        heights[inside] = (np.arange(len(inside)) - (len(inside) - 1) / 2) / max(fullest, 8) * 0.8
    return heights


def _dependence(built: Report, found: Mapping[str, Any]) -> None:
    if not found["dependence"]:
        return
    built.heading("How it acts")
    built.text(
        f"Partial dependence on {found['sample']['importance_rows']:,} rows: the mean prediction when a column "
        "holds the same value in each of them."
    )
    for name, entry in found["dependence"].items():
        built.figure(PLOTS[entry["kind"]](name, entry, found), f"{name}{': ' if entry['note'] else ''}{entry['note']}")


def _curve(name: str, entry: Mapping[str, Any], found: Mapping[str, Any]) -> Figure:
    figure = new_figure(4, 3)
    axes = figure.subplots()
    predicted = np.array(entry["predicted"])
    for output, label in _outputs(found, predicted):
        if entry["values"] == [None]:
            axes.axhline(predicted[0, output], label=label)
        else:
            axes.plot(entry["values"], predicted[:, output], marker="o", markersize=3, label=label)
    axes.set(xlabel=_short(name), ylabel=_predicted(found))
    if found["task"] == "multiclass":
        axes.legend(frameon=False, fontsize=8)
    return figure


def _levels(name: str, entry: Mapping[str, Any], found: Mapping[str, Any]) -> Figure:
    figure = new_figure(4, 1 + 0.24 * len(entry["values"]))
    axes = figure.subplots()
    predicted = np.array(entry["predicted"])
    places = np.arange(len(entry["values"]))
    for output, label in _outputs(found, predicted):
        axes.plot(predicted[:, output], places, "o", markersize=5, label=label)
    texts = ["missing" if value is None else label_text(value) for value in entry["values"]]
    shown = [f"{_short(text)} ({share:.0%})" for text, share in zip(texts, entry["shares"], strict=True)]
    axes.set_yticks(places, shown)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=4)
    axes.set(xlabel=_predicted(found), ylabel=_short(name))
    if found["task"] == "multiclass":
        axes.legend(frameon=False, fontsize=8)
    return figure


PLOTS: Mapping[str, Callable[[str, Mapping[str, Any], Mapping[str, Any]], Figure]] = {
    "number": _curve,
    "category": _levels,
    "boolean": _levels,
    "text": _levels,
}


def _outputs(found: Mapping[str, Any], predicted: np.ndarray) -> list[tuple[int, str]]:
    """Return which outputs to draw, those that vary most, each with its name."""
    if found["task"] != "multiclass":
        return [(0, "")]
    order = np.argsort(-np.ptp(predicted, axis=0), kind="stable")[:MOST_CURVES]
    return [(int(output), label_text(found["classes"][output])) for output in sorted(order)]


def _predicted(found: Mapping[str, Any]) -> str:
    return {
        "binary": "probability",
        "multiclass": "probability",
        "regression": _short(found["target"]),
    }[found["task"]]


def _slices(built: Report, found: Mapping[str, Any]) -> None:
    shown = [entry["name"] for entry in found["features"][:SLICE_FEATURES]]
    for column, entry in found["slices"].items():
        built.heading(f"Slices by {column}")
        if entry["note"]:
            built.text(f"{entry['note'].capitalize()}.")
        single = len(found["outputs"]) == 1
        columns = [column, "rows", *(["mean output"] if single else []), *shown]
        rows = []
        for part in entry["slices"]:
            means = part["mean_absolute"]
            row = [part["value"], part["rows"]]
            if single:
                row.append(part["mean_output"][0] if part["mean_output"] else None)
            rows.append([*row, *((means[name] for name in shown) if means else [None] * len(shown))])
        of_all = f"the {len(shown)} most important of {len(found['features']):,} columns"
        built.table(columns, rows, f"Mean absolute attribution by slice, {of_all}")


def _local(built: Report, found: Mapping[str, Any]) -> None:
    if not found["local"]:
        return
    built.heading("Rows one by one")
    for entry in found["local"]:
        named = ", ".join(f"{name} = {value}" for name, value in entry["keys"].items()) or f"row {entry['row']:,}"
        of_class = f" of {label_text(entry['class'])}" if entry["class"] is not None else ""
        caption = f"{entry['choice']}: {named}; prediction{of_class} {entry['prediction']:.4g}"
        built.figure(_steps(entry), caption)


def _steps(entry: Mapping[str, Any]) -> Figure:
    """Draw how attributions lead from the base value to the output, the largest first."""
    shown = entry["values"][:MOST_STEPS]
    rest = entry["values"][MOST_STEPS:]
    steps = [(f"{_short(part['feature'])} = {_value(part['value'])}", part["attribution"]) for part in shown]
    if rest:
        steps.append((f"{len(rest)} more", sum(part["attribution"] for part in rest)))
    figure = new_figure(5, 0.9 + 0.26 * len(steps))
    axes = figure.subplots()
    axes.use_sticky_edges = False
    at = entry["base_value"]
    for place, (_, step) in enumerate(steps):
        axes.barh(place, step, left=at, color=UP if step > 0 else DOWN, height=0.7)
        at += step
    axes.axvline(entry["base_value"], linestyle="--", linewidth=1, color="gray")
    axes.axvline(entry["output"], linewidth=1, color="gray")
    axes.set_yticks(np.arange(len(steps)), [f"{name}   {step:+.3g}" for name, step in steps])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"from {entry['base_value']:.4g} (dashed) to {entry['output']:.4g}")
    return figure


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float):
        return f"{value:.4g}"
    return _short(label_text(value))


def _short(text: str) -> str:
    return text if len(text) <= 28 else text[:27] + "…"
