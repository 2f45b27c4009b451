"""Draws the tasks of a run: what they did, and how long it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.compile import drawing as boxes
from penstock.compile.targets.local.look import MARKS, seconds_text
from penstock.compile.targets.local.outline import Outline, short
from penstock.compile.targets.local.record import State, TaskRecord

Anchor = Callable[[TaskRecord], str]


def drawing(forest: Sequence[Outline], anchor: Anchor) -> str:
    """Return the graph as an SVG element; boxes link to `anchor(task)` in the page that it is part of."""
    return boxes.drawing([_node(each, anchor) for each in forest])


def _node(each: Outline, anchor: Anchor) -> boxes.Node:
    task = each.task
    return boxes.Node(
        path=task.path,
        name=task.name,
        mark=MARKS[task.state],
        detail=_detail(task),
        style=task.state,
        link=f"#{anchor(task)}",
        given=tuple(task.depends_on),
        children=tuple(_node(child, anchor) for child in each.children),
    )


def _detail(task: TaskRecord) -> str:
    took = seconds_text(task.seconds) if task.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED) else ""
    state = "" if task.state is State.SUCCEEDED and took else task.state.lower()
    condition = f"if {short(task.condition)}" if task.condition else ""
    return ", ".join(part for part in (state, took, condition) if part)
