"""A rollout as a page to look at."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from penstock.components._shared.report import COLORS, Report, new_figure

_MEANT = {
    "promoted": "has all traffic",
    "unchanged": "had all traffic already",
    "rolled_back": "was rolled back",
    "abandoned": "was left alone: someone else changed the traffic",
    "failed": "did not come to an end",
}
_PLOTTED = ("error_rate", "refusal_rate", "latency_p50", "latency_p99", "prediction_distance", "agreement")


def rollout(document: Mapping[str, Any]) -> Report:
    """Return the page of a rollout's history (see roll_out.py)."""
    version, outcome = document["version"], document["outcome"]
    built = Report(
        f"Rollout of {document['endpoint']}", f"{document['strategy']} to {version} on {document['platform']}"
    )
    built.status(outcome in ("promoted", "unchanged"), f"{version} {_MEANT[outcome]}: {document['reason']}")
    built.facts(
        {
            "new version": version,
            "current version": document["current_version"] or None,
            "traffic before": _shares(document["before"]),
            "traffic after": _shares(document["after"]),
            "began": document["started"],
            "ended": document["ended"],
            "a step is": f"{document['hold']['requests']:g} requests, or {document['hold']['seconds']:g} s",
            "gate": "; ".join(document["gate"]) or "no conditions",
        }
    )
    for note in document["notes"]:
        built.text(note)
    steps = document["steps"]
    if not steps:
        return built
    built.heading("Steps")
    built.table(
        ["step", "", "seconds", "requests to new", "to current", "why"],
        [
            [
                step["step"],
                "passed" if step["passed"] else "failed",
                step["seconds"],
                step["new"].get("requests"),
                _last(step, "current_requests"),
                step["problem"] or "; ".join(finding["reason"] for finding in step["findings"]),
            ]
            for step in steps
        ],
    )
    built.figure(_traffic(steps, document), "Per cent of the traffic that the new version got")
    if any(
        point.get(f"{whose}_errors")
        for step in steps
        for point in step.get("points", [])
        for whose in ("new", "current")
    ):
        built.figure(_errors(steps), "Per cent of the requests since the step began that failed")
    built.heading("Metrics")
    names = [name for name in _PLOTTED if any(name in step["new"] for step in steps)]
    for name in names:
        if any(step[whose].get(name) for step in steps for whose in ("new", "current")):
            built.figure(_bars(name, steps), name)
    built.table(
        ["step", "version", *names],
        [
            [step["step"], whose, *(step[whose].get(name) for name in names)]
            for step in steps
            for whose in ("new", "current")
        ],
    )
    return built


def _shares(traffic: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {share} %" for version, share in sorted(traffic.items())) or "none"


def _last(step: Mapping[str, Any], name: str) -> float | None:
    points = step.get("points")
    return points[-1].get(name) if points else None


def _begun(steps: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return when each step began, in seconds since the first."""
    times = [datetime.datetime.fromisoformat(step["started"]) for step in steps]
    return [(time - times[0]).total_seconds() for time in times]


def _traffic(steps: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> Figure:
    figure = new_figure(5, 2.8)
    axes = figure.add_subplot()
    version, begun = document["version"], _begun(steps)
    end = begun[-1] + steps[-1]["seconds"]
    shares = [step["traffic"].get(version, 0) for step in steps]
    axes.step(
        [*begun, end, end], [*shares, shares[-1], document["after"].get(version, 0)], where="post", color=COLORS[0]
    )
    for start, step in zip(begun, steps, strict=True):
        if not step["passed"]:
            axes.axvspan(start, start + step["seconds"], color=COLORS[1], alpha=0.15)
    axes.set(xlabel="seconds", ylabel="% of the traffic", ylim=(-3, 103))
    return figure


def _errors(steps: Sequence[Mapping[str, Any]]) -> Figure:
    figure = new_figure(5, 2.8)
    axes = figure.add_subplot()
    for color, whose in zip(COLORS, ("current", "new"), strict=False):
        times, shares = [], []
        for start, step in zip(_begun(steps), steps, strict=True):
            for point in step.get("points", []):
                if point.get(f"{whose}_requests"):
                    times.append(start + point["seconds"])
                    shares.append(100 * point[f"{whose}_errors"] / point[f"{whose}_requests"])
        axes.plot(times, shares, ".-", color=color, label=whose, markersize=3, linewidth=1)
    axes.set(xlabel="seconds", ylabel="% of the requests failed", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def _bars(name: str, steps: Sequence[Mapping[str, Any]]) -> Figure:
    figure = new_figure(5, 2.8)
    axes = figure.add_subplot()
    for place, whose in enumerate(("current", "new")):
        values = [step[whose].get(name, 0.0) for step in steps]
        axes.bar([at + 0.38 * place for at in range(len(steps))], values, 0.36, color=COLORS[place], label=whose)
    axes.set_xticks([at + 0.19 for at in range(len(steps))], [step["step"] for step in steps])
    axes.legend(frameon=False)
    return figure
