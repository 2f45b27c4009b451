"""What was found, as a page to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from penstock.components._shared.report import COLORS, Report, new_figure
from penstock.components.monitoring import measures
from penstock.components.monitoring.bins import NUMBERS, Column, Counted

MOST_FIGURES = 12
MOST_BARS = 20
LONGEST_LABEL = 24
LEAST_CHANCE = 0.0001


def drift(found: Mapping[str, Any], reference: Counted, current: Counted) -> Report:
    """Return the page of a drift document (see drift.py)."""
    limits = found["limits"]
    drifted = [each for each in found["columns"] if each["drifted"]]
    built = Report("Drift", f"{found['current']['rows']:,} rows beside {found['reference']['rows']:,} of the reference")
    names = ", ".join(each["name"] for each in drifted)
    built.status(
        not drifted, f"{len(drifted)} of {len(found['columns'])} columns drifted: {names}" if drifted else "No drift"
    )
    moved = found["attributions"]
    if moved:
        text = f"NDCG {moved['ndcg']:.3f}, threshold {moved['threshold']:g}"
        built.status(
            not moved["drifted"], f"{'Attributions drifted' if moved['drifted'] else 'No attribution drift'}: {text}"
        )
    if found["issues"]:
        built.status(False, f"Wrong with the data: {len(found['issues'])}, see below")
    built.facts(
        {
            "reference": found["reference"].get("fingerprint", "statistics"),
            "fingerprint of the rows": found["current"]["fingerprint"],
            "a column has drifted": f"{limits['distance']} above its threshold, and not by chance",
            "chance of any false alarm": f"at most {limits['false_alarms']:g} over all columns (Holm)",
        }
    )
    built.heading("Columns")
    others = [name for name in measures.DISTANCES if name != limits["distance"]]
    built.table(
        ["column", "", limits["distance"], "threshold", *others, "p, adjusted", "missing", "missing before"],
        [
            [
                each["name"] + (" (prediction)" if each["prediction"] else ""),
                "drifted" if each["drifted"] else "",
                each["distance"],
                each["threshold"],
                *(each["distances"][name] for name in others),
                _chance(each["adjusted_p_value"]),
                each["missing"]["current"],
                each["missing"]["reference"],
            ]
            for each in found["columns"]
        ],
    )
    if found["issues"]:
        built.heading("Wrong with the data")
        built.table(
            ["column", "kind", "share", "what"],
            [
                [issue["column"], issue["kind"].replace("_", " "), issue["share"], issue["text"]]
                for issue in found["issues"]
            ],
        )
    if moved:
        _attributions(moved, built)
    built.heading("Distributions")
    shown = [each for each in found["columns"] if each["distance"] is not None]
    for each in shown[:MOST_FIGURES]:
        name = each["name"]
        built.figure(
            _bars(reference.columns[name], current.columns[name]),
            f"{name}: {limits['distance']} {each['distance']:.3g}",
        )
    if len(shown) > MOST_FIGURES:
        built.text(f"The {MOST_FIGURES} that are furthest apart of {len(shown)}.")
    if found["not_compared"]:
        built.heading("Not compared")
        built.table(["column", "why"], [list(item) for item in found["not_compared"].items()])
    return built


def _attributions(moved: Mapping[str, Any], built: Report) -> None:
    sides = " and ".join(f"{moved[name]['rows']:,} {text}" for name, text in _ATTRIBUTED.items())
    built.heading("What columns add to predictions")
    built.text(f"Mean absolute attributions, of {sides}; the columns in the order of the reference.")
    built.table(
        ["column", "rank before", "rank", "before", "now", "change", "relative"],
        [
            [
                each["name"],
                each["rank"]["reference"],
                each["rank"]["current"],
                each["mean_absolute"]["reference"],
                each["mean_absolute"]["current"],
                each["change"],
                None if each["relative_change"] is None else f"{each['relative_change']:+.1%}",
            ]
            for each in moved["columns"]
        ],
    )
    shown = moved["columns"][:MOST_BARS]
    figure = new_figure(6, 1 + 0.3 * len(shown))
    axes = figure.subplots()
    for side, (name, text) in enumerate(_ATTRIBUTED.items()):
        values = [each["mean_absolute"][name] for each in shown]
        axes.barh(np.arange(len(shown)) + 0.4 * side, values, 0.4, color=COLORS[side], label=text)
    axes.set_yticks(np.arange(len(shown)) + 0.2, [each["name"][:LONGEST_LABEL] for each in shown])
    axes.invert_yaxis()
    axes.set_xlabel("mean absolute attribution")
    axes.legend(loc="lower right")
    built.figure(figure, f"NDCG {moved['ndcg']:.3f}")


_ATTRIBUTED = {"reference": "rows of the reference", "current": "current rows"}


def _chance(value: float | None) -> float | str | None:
    return value if value is None or value >= LEAST_CHANCE else f"< {LEAST_CHANCE}"


def _bars(reference: Column, current: Column) -> Figure:
    counts = measures.pair(reference, current)
    figure = new_figure(6, 2.6)
    axes = figure.subplots()
    if reference.bins.kind == NUMBERS:
        # Equally many values of the reference lie between edges, so a density would hide what a step shows.
        edges = reference.bins.edges
        places = np.array(edges[1:])
        for values, color, label in _sides(counts):
            axes.step(places, np.cumsum(values)[1 : len(edges)] / values.sum(), where="post", color=color, label=label)
        axes.set_ylabel("share at or below")
        if places.size > 2 and places[-1] - places[0] > 10 * max(places[-2] - places[0], 1e-300):
            axes.set_xlim(places[0], places[-2])
    else:
        order = np.argsort(-(counts.reference + counts.current), kind="stable")[:MOST_BARS]
        labels = [*(value[:LONGEST_LABEL] for value in reference.bins.values), "(others)"]
        for side, (values, color, label) in enumerate(_sides(counts)):
            axes.bar(np.arange(len(order)) + 0.4 * side, values[order] / values.sum(), 0.4, color=color, label=label)
        axes.set_xticks(np.arange(len(order)) + 0.2, [labels[place] for place in order], rotation=60, ha="right")
        axes.set_ylabel("share")
    axes.legend()
    return figure


def _sides(counts: measures.Pair) -> list[tuple[np.ndarray, str, str]]:
    return [(counts.reference, COLORS[0], "reference"), (counts.current, COLORS[1], "rows")]


def performance(found: Mapping[str, Any]) -> Report:
    """Return the page of a performance document (see performance.py)."""
    metric, rows = found["metric"], found["predictions"]["rows"]
    built = Report(
        "Performance", f"{found['target']}, {found['task']}, {found['labelled']:,} of {rows:,} rows labelled"
    )
    built.status(not found["degraded"], ("Degraded: " if found["degraded"] else "Not degraded: ") + found["reason"])
    built.facts(
        {
            "metric that decides": metric,
            "in the evaluation": found["baseline"],
            "degraded beyond": found["limit"],
            "fingerprint of the predictions": found["predictions"]["fingerprint"],
            "fingerprint of the labels": found["labels"]["fingerprint"],
        }
    )
    built.heading("Metrics of all labelled rows")
    interval = f"{found['confidence']:.0%} interval"
    built.table(
        ["metric", "value", interval, "better"],
        [
            [name, entry["value"], _interval(entry), entry["better"] or None]
            for name, entry in found["metrics"].items()
            if name != "rows"
        ],
    )
    if found["windows"]:
        built.heading(f"By {found['window']}")
        built.figure(_over_time(found), f"{metric} by {found['window']}, with {interval}s")
        built.table(
            ["from", "rows", "labelled", metric, interval],
            [[each["start"], each["rows"], each["labelled"], *_of(each, metric)] for each in found["windows"]],
        )
    return built


def _of(window: Mapping[str, Any], metric: str) -> tuple[float | None, str | None]:
    entry = window["metrics"].get(metric, {"value": None, "low": None})
    return entry["value"], _interval(entry)


def _interval(entry: Mapping[str, Any]) -> str | None:
    return None if entry["low"] is None else f"{entry['low']:.4g} – {entry['high']:.4g}"


def _over_time(found: Mapping[str, Any]) -> Figure:
    metric = found["metric"]
    measured = [each for each in found["windows"] if each["metrics"] and each["metrics"][metric]["value"] is not None]
    figure = new_figure(7, 3)
    axes = figure.subplots()
    places = np.arange(len(measured))
    entries = [each["metrics"][metric] for each in measured]
    for place, entry in zip(places, entries, strict=True):
        if entry["low"] is not None:
            axes.plot([place, place], [entry["low"], entry["high"]], color=COLORS[0])
    axes.plot(places, [entry["value"] for entry in entries], "o-", color=COLORS[0], markersize=4, label=metric)
    for value, color, label in ((found["baseline"], COLORS[2], "evaluation"), (found["limit"], COLORS[1], "limit")):
        if value is not None:
            axes.axhline(value, color=color, linestyle="--", linewidth=1, label=label)
    shown = places[:: max(1, len(places) // 12)]
    axes.set_xticks(shown, [measured[place]["start"][:16] for place in shown], rotation=45, ha="right")
    axes.set_ylabel(metric)
    axes.legend()
    return figure
