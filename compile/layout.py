"""Where to draw the nodes of a directed acyclic graph: in layers, edges as short and straight as may be.

After Sugiyama, Tagawa and Toda (1981): longest-path layers, order by barycenters, then positions. Positions within a
layer are the least-squares fit to the neighbours' middles that keeps the order (isotonic regression by pooling
adjacent violators), long edges weighing more (Gansner et al., 1993). Parts that no edge joins are packed in rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SWEEPS = 12
_PASSING = "\n"  # in the names of stand-ins, and in no task's


@dataclass(frozen=True)
class Box:
    """A placed node: its corner on the top left, and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
        boxes: By node.
        paths: By edge, the points that it passes, from its source to its target.
    """

    boxes: Mapping[str, Box]
    paths: Mapping[tuple[str, str], tuple[tuple[float, float], ...]]
    width: float
    height: float


def layout(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str]],
    *,
    across: bool = False,
    widest: float = 1100,
    gap: float = 22,
    drop: float = 34,
) -> Layout:
    """Return positions for nodes of the given sizes (width, height).

    Args:
        edges: Pairs (from, to), without cycles. Those that follow from others are left out of the drawing.
        across: Whether layers go from left to right instead of from top to bottom.
        widest: Width at which a new row of parts begins.
        gap: Least distance between neighbours in a layer, and between parts.
        drop: Distance between layers.
    """
    before = _reduced(sizes, edges)
    placed = []
    for part in _parts(before):
        own = {node: sizes[node] for node in part}
        if across:
            turned = {node: (height, width) for node, (width, height) in own.items()}
            placed.append(_turned(_layered(turned, {node: before[node] for node in part}, gap, drop)))
        else:
            placed.append(_layered(own, {node: before[node] for node in part}, gap, drop))
    return _packed(placed, widest, gap)


def _packed(parts: Sequence[Layout], widest: float, gap: float) -> Layout:
    boxes: dict[str, Box] = {}
    paths: dict[tuple[str, str], tuple[tuple[float, float], ...]] = {}
    x = y = width = height = 0.0
    for part in parts:
        if x and x + part.width > widest:
            x, y = 0.0, height + gap
        boxes |= {node: Box(box.x + x, box.y + y, box.width, box.height) for node, box in part.boxes.items()}
        paths |= {edge: tuple((px + x, py + y) for px, py in points) for edge, points in part.paths.items()}
        width, height = max(width, x + part.width), max(height, y + part.height)
        x += part.width + gap
    return Layout(boxes, paths, width, height)


def _turned(flat: Layout) -> Layout:
    boxes = {node: Box(box.y, box.x, box.height, box.width) for node, box in flat.boxes.items()}
    paths = {edge: tuple((y, x) for x, y in points) for edge, points in flat.paths.items()}
    return Layout(boxes, paths, flat.height, flat.width)


def _parts(before: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the nodes in groups between which there are no edges."""
    joined: dict[str, set[str]] = {node: set(sources) for node, sources in before.items()}
    for node, sources in before.items():
        for source in sources:
            joined[source].add(node)
    parts, seen = [], set()
    for node in before:
        if node in seen:
            continue
        part, stack = {node}, [node]
        while stack:
            new = joined[stack.pop()] - part
            part |= new
            stack += new
        seen |= part
        parts.append([each for each in before if each in part])
    return parts


def _layered(
    sizes: Mapping[str, tuple[float, float]], before: Mapping[str, Sequence[str]], gap: float, drop: float
) -> Layout:
    layer_of = _layers(before)
    layers: list[list[str]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for node, layer in layer_of.items():
        layers[layer].append(node)

    # An edge over several layers goes through a thin stand-in in each, so that it is kept clear of nodes.
    width = {node: size[0] for node, size in sizes.items()}
    above: dict[str, list[str]] = {node: [] for node in sizes}
    chains: dict[tuple[str, str], list[str]] = {}
    for target, sources in before.items():
        for source in sources:
            chain = [source]
            for layer in range(layer_of[source] + 1, layer_of[target]):
                stand_in = f"{source}{_PASSING}{target}{_PASSING}{layer}"
                width[stand_in], above[stand_in] = 2, [chain[-1]]
                layers[layer].append(stand_in)
                chain.append(stand_in)
            above[target].append(chain[-1])
            chains[source, target] = [*chain, target]
    below: dict[str, list[str]] = {node: [] for node in width}
    for node, sources in above.items():
        for source in sources:
            below[source].append(node)

    _order(layers, above, below)
    middle = _middles(layers, above, below, width, gap)
    left = min((middle[node] - width[node] / 2 for node in width), default=0)

    boxes: dict[str, Box] = {}
    tops, bottoms, y = [], [], 0.0
    for nodes in layers:
        height = max((sizes[node][1] for node in nodes if node in sizes), default=0)
        for node in nodes:
            if node in sizes:
                own = sizes[node][1]
                boxes[node] = Box(middle[node] - width[node] / 2 - left, y + (height - own) / 2, width[node], own)
        tops.append(y)
        bottoms.append(y + height)
        y += height + drop
    paths = {}
    for (source, target), chain in chains.items():
        start, end = boxes[source], boxes[target]
        points = [(start.middle, start.y + start.height), (start.middle, bottoms[layer_of[source]])]
        for offset, stand_in in enumerate(chain[1:-1], layer_of[source] + 1):
            x = middle[stand_in] - left
            points += [(x, tops[offset]), (x, bottoms[offset])]
        points += [(end.middle, tops[layer_of[target]]), (end.middle, end.y)]
        paths[source, target] = tuple(point for i, point in enumerate(points) if i == 0 or point != points[i - 1])
    right = max((middle[node] + width[node] / 2 for node in width), default=0) - left
    return Layout(boxes, paths, right, max(y - drop, 0))


def _reduced(nodes: Mapping[str, object], edges: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return each node's direct predecessors, without those that another predecessor comes after."""
    direct: dict[str, set[str]] = {node: set() for node in nodes}
    for source, target in edges:
        if source in direct and target in direct and source != target:
            direct[target].add(source)
    earlier: dict[str, frozenset[str]] = {}

    def ancestors(node: str) -> frozenset[str]:
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [source for source in sorted(direct[top]) if source not in earlier]
            if missing:
                stack += missing
            else:
                earlier[top] = frozenset(direct[top]).union(*(earlier[source] for source in direct[top]))
                stack.pop()
        return earlier[node]

    place = {node: index for index, node in enumerate(nodes)}
    return {
        node: sorted(
            (source for source in sources if not any(source in ancestors(other) for other in sources)),
            key=place.__getitem__,
        )
        for node, sources in direct.items()
    }


def _layers(before: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return each node's longest distance from a node without predecessors."""
    layer: dict[str, int] = {}
    for node in before:
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [source for source in before[top] if source not in layer]
            if missing:
                stack += missing
            else:
                layer[top] = 1 + max((layer[source] for source in before[top]), default=-1)
                stack.pop()
    return {node: layer[node] for node in before}


def _order(layers: list[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]) -> None:
    """Sort each layer by the mean place of the neighbours, downwards and upwards, and keep the best order seen."""
    best, fewest = [list(nodes) for nodes in layers], _crossings(layers, above)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        neighbours = above if down else below
        for index in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            place = {node: i for i, node in enumerate(layers[index - 1 if down else index + 1])}
            here = {node: i for i, node in enumerate(layers[index])}

            mean = {
                node: sum(place[other] for other in neighbours[node]) / len(neighbours[node])
                if neighbours[node]
                else here[node]
                for node in layers[index]
            }
            layers[index].sort(key=mean.__getitem__)
        crossings = _crossings(layers, above)
        if crossings < fewest:
            best, fewest = [list(nodes) for nodes in layers], crossings
    layers[:] = best


def _crossings(layers: Sequence[Sequence[str]], above: Mapping[str, Sequence[str]]) -> int:
    """Return how many pairs of edges between neighbouring layers cross."""
    count = 0
    for upper, lower in itertools.pairwise(layers):
        place = {node: i for i, node in enumerate(upper)}
        ends: list[int] = []
        for node in lower:
            starts = sorted(place[source] for source in above[node])
            count += sum(end > start for start in starts for end in ends)
            ends += starts
    return count


def _middles(
    layers: Sequence[Sequence[str]],
    above: Mapping[str, Sequence[str]],
    below: Mapping[str, Sequence[str]],
    width: Mapping[str, float],
    gap: float,
) -> dict[str, float]:
    """Return each node's middle: near its neighbours' middles, in order, at least `gap` apart."""
    middle: dict[str, float] = {}
    for nodes in layers:
        total = sum(width[node] for node in nodes) + gap * (len(nodes) - 1)
        x = -total / 2
        for node in nodes:
            middle[node] = x + width[node] / 2
            x += width[node] + gap
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        placed = above if down else below
        for nodes in layers if down else reversed(layers):
            wanted, offset, x = [], [], 0.0
            for i, node in enumerate(nodes):
                if i:
                    x += (width[nodes[i - 1]] + width[node]) / 2 + gap
                # Both sides count, the side that was just placed for more, and edges that pass by for much more.
                pull = [
                    (middle[other], (2 if side is placed else 1) * (8 if _PASSING in node and _PASSING in other else 1))
                    for side in (above, below)
                    for other in side[node]
                ]
                total = sum(weight for _, weight in pull)
                goal = sum(at * weight for at, weight in pull) / total if total else middle[node]
                wanted.append(goal - x)
                offset.append(x)
            for node, start, shift in zip(nodes, _isotonic(wanted), offset, strict=True):
                middle[node] = start + shift
    return middle


def _isotonic(values: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence that is nearest to `values` in least squares."""
    pools: list[list[float]] = []  # sum, count
    for value in values:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    return [total / count for total, count in pools for _ in range(int(count))]
