"""The report of a search: how it went, what it tried, and what mattered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from penstock.components._shared.report import COLORS, Report, new_figure
from penstock.components.tuning.importance import importances
from penstock.components.tuning.search import COMPLETE, FAILED, PRUNED, Objective, Search, Trial
from penstock.components.tuning.space import Parameter, Space

SHOWN = 20  # rows of the table of trials


def write_report(
    path: Path,
    backend: str,
    search: Search,
    trials: Sequence[Trial],
    best: Trial,
    front: Collection[int],
    names: Sequence[str],
) -> None:
    """Write the page.

    Args:
        best: The trial that was chosen.
        front: Numbers of the trials that no other one beats.
        names: Of the objectives, among the metrics of a trial.
    """
    count = {state: sum(trial.state == state for trial in trials) for state in (COMPLETE, PRUNED, FAILED)}
    page = Report("Search of hyperparameters", f"{search.settings.framework}, to predict {search.settings.target}")
    found = ", ".join(f"{name} {best.metrics[name]:.6g}" for name in names)
    page.status(True, f"Trial {best.number} is the best of {len(trials)}: {found}")
    page.facts(
        {
            "Backend": backend,
            "Sampler": search.sampler,
            "Pruner": search.pruner,
            "Objectives": ", ".join(
                f"{each.direction} {name}" for each, name in zip(search.objectives, names, strict=True)
            ),
            "Completed, pruned, failed": " · ".join(str(each) for each in count.values()),
            "Trials at a time": search.parallel_trials,
            "Seed": search.settings.seed,
        }
    )
    page.heading("Best hyperparameters")
    page.facts({**search.hyperparameters, **best.parameters})
    complete = [trial for trial in trials if trial.state == COMPLETE]
    page.heading("History")
    for objective, name in zip(search.objectives, names, strict=True):
        page.figure(_history(trials, objective, name), f"{name} by trial; what lies beyond is drawn at the edge")
    if len(names) > 1:
        page.heading("Trade-off")
        page.figure(_front(complete, front, names), "Filled: no other trial is better in every objective")
    page.heading("Parallel coordinates")
    page.figure(
        _coordinates(search.space, complete, names[0], search.objectives[0]),
        f"A line a completed trial, the darker the better in {names[0]}",
    )
    page.heading("Importance")
    found_importances, reason = importances(search.space, complete, names[0], search.settings.seed)
    if found_importances:
        page.figure(_bars(found_importances), f"Share of the variance of {names[0]} that a parameter explains (fANOVA)")
    if reason:
        page.text(reason)
    page.heading("Trials")
    _table(page, search, trials, best, names)
    failed = [trial for trial in trials if trial.state == FAILED]
    if failed:
        page.heading("Failed trials")
        page.table(["trial", "error"], [[trial.number, trial.error] for trial in failed[:SHOWN]])
    page.write(path)


def _history(trials: Sequence[Trial], objective: Objective, name: str) -> Figure:
    figure = new_figure(7, 3)
    axes = figure.add_subplot()
    complete = [trial for trial in trials if trial.state == COMPLETE]
    values = [trial.metrics[name] for trial in complete]
    # A few fits that went wrong would flatten all the rest.
    shares = [0, 0.95] if objective.direction == "minimize" else [0.05, 1]
    low, high = np.quantile(values, shares)
    margin = (high - low) * 0.1 or abs(high) * 0.1 or 1
    low, high = low - margin, high + margin
    axes.set_ylim(low, high)
    for state, color, marker in ((COMPLETE, COLORS[0], "o"), (PRUNED, COLORS[3], "x")):
        shown = [trial for trial in trials if trial.state == state and name in trial.metrics]
        if shown:
            heights = np.clip([trial.metrics[name] for trial in shown], low, high)
            numbers = [trial.number for trial in shown]
            axes.scatter(numbers, heights, s=18, color=color, marker=marker, label=state, clip_on=False, zorder=3)
    running = np.minimum if objective.direction == "minimize" else np.maximum
    best = running.accumulate(values)
    axes.step([trial.number for trial in complete], best, where="post", color=COLORS[1], label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(name)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _front(trials: Sequence[Trial], front: Collection[int], names: Sequence[str]) -> Figure:
    figure = new_figure(5, 3.5)
    axes = figure.add_subplot()
    for trial in trials:
        best = trial.number in front
        axes.scatter(
            trial.metrics[names[0]], trial.metrics[names[1]], s=22, edgecolors=COLORS[0],
            facecolors=COLORS[0] if best else "none",
        )  # fmt: skip
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return figure


def _coordinates(space: Space, trials: Sequence[Trial], name: str, objective: Objective) -> Figure:
    figure = new_figure(max(6.0, 1.3 * (len(space.parameters) + 1)), 3.6)
    axes = figure.add_subplot()
    sign = 1 if objective.direction == "minimize" else -1
    costs = np.array([sign * trial.metrics[name] for trial in trials])
    ranks = costs.argsort().argsort() / max(1, len(costs) - 1)
    places = range(len(space.parameters) + 1)
    for place in np.argsort(-ranks):  # the best are drawn last, above the others
        trial, rank = trials[place], ranks[place]
        heights = [_height(parameter, trial.parameters) for parameter in space.parameters] + [1 - rank]
        axes.plot(places, heights, color=COLORS[0], alpha=float(0.12 + 0.8 * (1 - rank) ** 3), linewidth=1.2)
    axes.set_xticks(list(places), [*(parameter.name for parameter in space.parameters), f"rank of\n{name}"])
    axes.set_yticks([])
    axes.set_ylim(-0.16, 1.12)
    for place, parameter in enumerate(space.parameters):
        for height, text in _ticks(parameter):
            axes.annotate(text, (place, height), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
        if parameter.parent:
            axes.annotate(
                "not there", (place, -0.1), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center"
            )
    axes.annotate("best", (places[-1], 1), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    axes.grid(visible=False, axis="y")
    return figure


def _height(parameter: Parameter, point: Mapping[str, Any]) -> float:
    if parameter.name not in point:
        return -0.1
    value = point[parameter.name]
    if parameter.type == "categorical":
        return parameter.choices.index(value) / max(1, len(parameter.choices) - 1)
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = np.log([low, high, value])
    return float((value - low) / (high - low)) if high > low else 0.5


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.type == "categorical":
        return [(_height(parameter, {parameter.name: choice}), str(choice)) for choice in parameter.choices[:8]]
    ends = dict.fromkeys((parameter.low, parameter.high))
    return [(_height(parameter, {parameter.name: value}), f"{value:.4g}") for value in ends]


def _bars(found: Mapping[str, float]) -> Figure:
    figure = new_figure(6, 0.6 + 0.3 * len(found))
    axes = figure.add_subplot()
    names = list(found)[::-1]
    bars = axes.barh(names, [found[name] for name in names], color=COLORS[0])
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_xlim(0, max(found.values()) * 1.15 or 1)
    axes.grid(visible=False, axis="y")
    return figure


def _table(page: Report, search: Search, trials: Sequence[Trial], best: Trial, names: Sequence[str]) -> None:
    sign = 1 if search.objectives[0].direction == "minimize" else -1
    complete = [trial for trial in trials if trial.state == COMPLETE]
    complete.sort(key=lambda trial: sign * trial.metrics[names[0]])
    parameters = [parameter.name for parameter in search.space.parameters]
    columns = list(dict.fromkeys([*names, "rounds", "seconds"]))
    rows = [
        [
            trial.number,
            *(trial.metrics.get(name) for name in columns),
            *(trial.parameters.get(name) for name in parameters),
        ]
        for trial in complete[:SHOWN]
    ]
    more = f"; the {SHOWN} best of {len(complete)}, all are in the dataset of trials" if len(complete) > SHOWN else ""
    page.table(["trial", *columns, *parameters], rows, f"Completed trials, the best first{more}")
