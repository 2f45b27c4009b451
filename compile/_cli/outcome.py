"""Shows what came of a run: outputs, metrics, what went wrong, and where everything lies."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.compile._cli.output import console, table
from penstock.compile.targets.local.look import seconds_text
from penstock.compile.targets.local.outline import flat, message, outline, titles
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord, Values

_METRICS_SHOWN = 12
_VERDICTS = {State.SUCCEEDED: "green", State.RUNNING: "cyan"}


def show(record: RunRecord, verdict: str = "") -> None:
    """Print outputs, metrics, how it ended, in the words of `verdict` if given, and where everything lies."""
    out = console()
    names = titles(record.tasks)
    rows = [
        row for task, _ in flat(outline(record.tasks)) if task.path in names for row in _rows(task, names[task.path])
    ]
    if rows:
        out.print()
        out.print(table(["step", "output", "value"], rows))
    outputs = [["", name, one_line(value)] for name, value in record.outputs.parameters.items()]
    outputs += _artifact_rows("", record.outputs)
    if outputs:
        out.print()
        out.print(table(["pipeline", "output", "value"], outputs))
    folder = Path(record.folder)
    out.print()
    verdict = verdict or f"{record.state.lower()} in {seconds_text(record.seconds)}"
    out.print(verdict, style=_VERDICTS.get(record.state, "bold red"))
    out.print(f"run     {near(folder)}", soft_wrap=True, markup=False)
    if (folder / "report.html").exists():
        out.print(f"report  {near(folder / 'report.html')}", soft_wrap=True, markup=False)


def problems(record: RunRecord) -> list[str]:
    """Return what went wrong, each failed step by its own message and with its log."""
    lines = []
    names = titles(record.tasks)
    for task in record.tasks:
        if task.state is State.FAILED and task.kind != "dag":
            lines.append(f"error: {names[task.path]}: {message(task)}")
            if task.log:
                lines.append(f"  log: {near(Path(record.folder) / task.log)}")
    if not lines and record.state in (State.FAILED, State.CANCELLED):
        lines.append(f"error: {record.error or f'the run ended {record.state}'}")
    return lines


def resumption(record: RunRecord) -> str:
    """Return the command that takes up a run which did not succeed."""
    root = Path(record.folder).parents[1]
    at = "" if root == Path("penstock-out").absolute() else f" --root {shlex.quote(near(root))}"
    return f"penstock run --resume {record.id}{at}"


def one_line(value: Any, longest: int = 200) -> str:
    """Return a value as text without line breaks, at most that long."""
    text = " ".join(str(value).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def near(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _rows(task: TaskRecord, title: str) -> Iterator[list[str]]:
    outputs = task.outputs.parameters
    for name, value in outputs.items():
        yield [title, name, one_line(value)]
    # What is both, under one name, is told once.
    metrics = [(name, number) for name, number in task.metrics.items() if outputs.get(name) != number]
    for name, number in metrics[:_METRICS_SHOWN]:
        yield [title, name, f"{number:.6g}"]
    if len(metrics) > _METRICS_SHOWN:
        yield [title, "…", f"{len(metrics) - _METRICS_SHOWN} more in the report"]


def _artifact_rows(step: str, values: Values) -> list[list[str]]:
    return [[step, name, artifact.uri] for name, artifacts in values.artifacts.items() for artifact in artifacts]
