"""Draws tasks as SVG: boxes, boxes in boxes, and what waits for what."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.compile.layout import Layout, layout

_PAD = 14
_HEAD = 50  # of a group: its name, and a line of detail
_WIDEST = 1120  # of a drawing before it turns from top to bottom, in pixels
_LONGEST = 42  # characters of a label

# Of what is drawn; the colours are the page's: --ink, --quiet, --paper, --soft, --group, --off, and --state of a class.
STYLE = """
svg { display: block; font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .quiet { fill: var(--quiet); font-size: 11.5px; } svg .mark { fill: var(--state);
  font-weight: 700; }
svg .box { fill: var(--paper); stroke: var(--state); stroke-width: 1.5; }
svg .group { fill: var(--group); stroke: var(--state); stroke-width: 1.2; }
svg .SKIPPED > a > rect, svg .PENDING > a > rect { stroke-dasharray: 5 4; }
svg .edge { fill: none; stroke: var(--off); stroke-width: 1.4; } svg .tip { fill: var(--off); }
svg .waits { stroke-dasharray: 3 4; }
svg a:hover { text-decoration: none; } svg a:hover .box { fill: var(--soft); }
svg a:focus-visible > rect { stroke-width: 3; }
"""


@dataclass(frozen=True)
class Node:
    """A task to draw.

    Attributes:
        path: Unique in the drawing.
        name: First line in its box.
        mark: Sign before the name.
        detail: Second line; cut where it is long, and whole in the title.
        style: Class of its box.
        link: Where its box leads; empty: nowhere.
        given: Paths of tasks of the same scope whose outputs it takes.
        waits: Paths of those that it waits for only.
        children: The tasks in it.
    """

    path: str
    name: str
    mark: str = ""
    detail: str = ""
    style: str = ""
    link: str = ""
    given: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()


@dataclass(frozen=True)
class _Shape:
    """A task with the room it takes, and where those it holds go."""

    node: Node
    width: float
    height: float
    inner: Layout | None
    shapes: dict[str, _Shape]


def drawing(forest: Sequence[Node], head: str = "", margin: float = 2) -> str:
    """Return the graph as an SVG element.

    Args:
        forest: The outermost tasks, in the order in which they should stand where nothing else decides.
        head: Elements that come first, such as a style.
        margin: Room around, in pixels.
    """
    # From left to right while that fits a page, else from top to bottom.
    across = True
    shapes, placed = _arranged(forest, across, _WIDEST)
    if placed.width > _WIDEST:
        across = False
        shapes, placed = _arranged(forest, across, _WIDEST)
    width, height = placed.width + 2 * margin, placed.height + 2 * margin
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="-{margin:g} -{margin:g} {width:.1f} {height:.1f}" role="group" aria-label="Graph of the tasks">\n',
        head,
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>\n',
        *_drawn(shapes, placed, 0, 0, across),
        "</svg>\n",
    ]
    return "".join(parts)


def _arranged(forest: Sequence[Node], across: bool, widest: float) -> tuple[dict[str, _Shape], Layout]:
    shapes = {node.path: _shape(node, across, widest - 2 * _PAD) for node in forest}
    sizes = {path: (shape.width, shape.height) for path, shape in shapes.items()}
    edges = [(source, node.path) for node in forest for source in (*node.given, *node.waits)]
    return shapes, layout(sizes, edges, across=across, widest=widest)


def _shape(node: Node, across: bool, widest: float) -> _Shape:
    if not node.children:
        return _Shape(node, _text_width(node) + 2 * _PAD, 46, None, {})
    shapes, inner = _arranged(node.children, across, widest)
    width = max(inner.width, _text_width(node)) + 2 * _PAD
    return _Shape(node, width, inner.height + _HEAD + _PAD, inner, shapes)


def _drawn(shapes: dict[str, _Shape], placed: Layout, x: float, y: float, across: bool) -> Iterator[str]:
    for (source, target), points in placed.paths.items():
        curve = _curve([(x + px, y + py) for px, py in points], across)
        style = "edge" if source in shapes[target].node.given else "edge waits"
        yield f'<path class="{style}" marker-end="url(#tip)" d="{curve}"/>\n'
    for path, shape in shapes.items():
        box = placed.boxes[path]
        yield from _task(shape, x + box.x, y + box.y, across)


def _task(shape: _Shape, x: float, y: float, across: bool) -> Iterator[str]:
    node = shape.node
    label = html.escape(f"{node.path}: {node.detail}" if node.detail else node.path)
    link = f' href="{html.escape(node.link)}"' if node.link else ""
    yield f'<g class="{node.style}"><a{link} aria-label="{label}">'
    kind = "box" if shape.inner is None else "group"
    yield f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" rx="7"/>'
    yield f"<title>{label}</title>"
    mark = f'<tspan class="mark">{node.mark}</tspan> ' if node.mark else ""
    # Alone in a box, a name stands in its middle.
    down = 20 if node.detail or shape.inner is not None else 28
    yield f'<text x="{x + _PAD:.1f}" y="{y + down:.1f}">{mark}{html.escape(_cut(node.name))}</text>'
    yield f'<text class="quiet" x="{x + _PAD:.1f}" y="{y + 36:.1f}">{html.escape(_cut(node.detail))}</text></a>\n'
    if shape.inner is not None:
        left = x + (shape.width - shape.inner.width) / 2
        yield from _drawn(shape.shapes, shape.inner, left, y + _HEAD, across)
    yield "</g>\n"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _text_width(node: Node) -> float:
    # System fonts differ; these widths a character are on the wide side.
    return max(7.4 * len(_cut(node.name)) + 20, 6.4 * len(_cut(node.detail)), 90)


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
