"""Draws the tasks of a run as SVG: boxes, boxes in boxes, and what waits for what."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from penstock.compile.targets.local.layout import Layout, layout
from penstock.compile.targets.local.look import MARKS, seconds_text
from penstock.compile.targets.local.outline import Outline, short
from penstock.compile.targets.local.record import State, TaskRecord

_PAD = 14
_HEAD = 50  # of a group: its name, and a line on its state and condition
_WIDEST = 1120  # of a drawing before it turns from top to bottom, in pixels
_LONGEST = 42  # characters of a label

Anchor = Callable[[TaskRecord], str]


@dataclass(frozen=True)
class _Shape:
    """A task with the room it takes, and where those it holds go."""

    node: Outline
    width: float
    height: float
    inner: Layout | None
    shapes: dict[str, _Shape]


def drawing(forest: Sequence[Outline], anchor: Anchor) -> str:
    """Return the graph as an SVG element; boxes link to `anchor(task)` in the page that it is part of."""
    # From left to right while that fits a page, else from top to bottom.
    across = True
    shapes, placed = _arranged(forest, across, _WIDEST)
    if placed.width > _WIDEST:
        across = False
        shapes, placed = _arranged(forest, across, _WIDEST)
    width, height = placed.width + 4, placed.height + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="-2 -2 {width:.1f} {height:.1f}" role="group" aria-label="Graph of the tasks">\n',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>\n',
        *_drawn(shapes, placed, 0, 0, across, anchor),
        "</svg>\n",
    ]
    return "".join(parts)


def _arranged(forest: Sequence[Outline], across: bool, widest: float) -> tuple[dict[str, _Shape], Layout]:
    shapes = {node.task.path: _shape(node, across, widest - 2 * _PAD) for node in forest}
    sizes = {path: (shape.width, shape.height) for path, shape in shapes.items()}
    edges = [(source, node.task.path) for node in forest for source in node.task.depends_on]
    return shapes, layout(sizes, edges, across=across, widest=widest)


def _shape(node: Outline, across: bool, widest: float) -> _Shape:
    if not node.children:
        return _Shape(node, _text_width(node.task) + 2 * _PAD, 46, None, {})
    shapes, inner = _arranged(node.children, across, widest)
    width = max(inner.width, _text_width(node.task)) + 2 * _PAD
    return _Shape(node, width, inner.height + _HEAD + _PAD, inner, shapes)


def _drawn(
    shapes: dict[str, _Shape], placed: Layout, x: float, y: float, across: bool, anchor: Anchor
) -> Iterator[str]:
    for points in placed.paths.values():
        curve = _curve([(x + px, y + py) for px, py in points], across)
        yield f'<path class="edge" marker-end="url(#tip)" d="{curve}"/>\n'
    for path, shape in shapes.items():
        box = placed.boxes[path]
        yield from _task(shape, x + box.x, y + box.y, across, anchor)


def _task(shape: _Shape, x: float, y: float, across: bool, anchor: Anchor) -> Iterator[str]:
    task = shape.node.task
    detail = _detail(task)
    label = html.escape(f"{task.path}: {detail}")
    yield f'<g class="{task.state}"><a href="#{html.escape(anchor(task))}" aria-label="{label}">'
    kind = "box" if shape.inner is None else "group"
    yield f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" rx="7"/>'
    yield f"<title>{label}</title>"
    yield (
        f'<text x="{x + _PAD:.1f}" y="{y + 20:.1f}"><tspan class="mark">{MARKS[task.state]}</tspan> '
        f"{html.escape(_cut(task.name))}</text>"
        f'<text class="quiet" x="{x + _PAD:.1f}" y="{y + 36:.1f}">{html.escape(_cut(detail))}</text></a>\n'
    )
    if shape.inner is not None:
        left = x + (shape.width - shape.inner.width) / 2
        yield from _drawn(shape.shapes, shape.inner, left, y + _HEAD, across, anchor)
    yield "</g>\n"


def _detail(task: TaskRecord) -> str:
    took = seconds_text(task.seconds) if task.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED) else ""
    state = "" if task.state is State.SUCCEEDED and took else task.state.lower()
    condition = f"if {short(task.condition)}" if task.condition else ""
    return ", ".join(part for part in (state, took, condition) if part)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _text_width(task: TaskRecord) -> float:
    # System fonts differ; these widths a character are on the wide side.
    return max(7.4 * len(_cut(task.name)) + 20, 6.4 * len(_cut(_detail(task))), 90)


def _curve(points: Sequence[tuple[float, float]], across: bool) -> str:
    (x, y), *rest = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        if abs(to_x - x) < 0.1 or abs(to_y - y) < 0.1:
            parts.append(f"L{to_x:.1f} {to_y:.1f}")
        elif across:
            half = (x + to_x) / 2
            parts.append(f"C{half:.1f} {y:.1f} {half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        else:
            half = (y + to_y) / 2
            parts.append(f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(parts)
