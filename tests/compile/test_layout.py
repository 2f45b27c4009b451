"""Nothing overlaps, edges go forwards, and a drawing is the same each time."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compile.layout import Box, Layout, layout

SIZE = (100.0, 40.0)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]:
    count = draw(st.integers(1, 12))
    sizes = {f"n{i}": (draw(st.integers(20, 300)) * 1.0, draw(st.integers(20, 90)) * 1.0) for i in range(count)}
    pairs = list(itertools.combinations(sizes, 2))
    edges = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    return sizes, edges


def overlap(one: Box, other: Box) -> bool:
    across = one.x < other.x + other.width - 0.01 and other.x < one.x + one.width - 0.01
    return across and one.y < other.y + other.height - 0.01 and other.y < one.y + one.height - 0.01


@settings(deadline=None)
@given(graphs(), st.booleans())
def test_boxes_do_not_overlap_and_are_in_the_frame(
    graph: tuple[dict[str, tuple[float, float]], list[tuple[str, str]]], across: bool
) -> None:
    sizes, edges = graph
    drawn = layout(sizes, edges, across=across)
    assert {name: (box.width, box.height) for name, box in drawn.boxes.items()} == sizes
    for one, other in itertools.combinations(drawn.boxes.values(), 2):
        assert not overlap(one, other)
    for box in drawn.boxes.values():
        assert box.x >= -0.01
        assert box.y >= -0.01
        assert box.x + box.width <= drawn.width + 0.01
        assert box.y + box.height <= drawn.height + 0.01


@settings(deadline=None)
@given(graphs(), st.booleans())
def test_paths_go_forwards_from_box_to_box(
    graph: tuple[dict[str, tuple[float, float]], list[tuple[str, str]]], across: bool
) -> None:
    sizes, edges = graph
    drawn = layout(sizes, edges, across=across)
    for (source, target), points in drawn.paths.items():
        assert (source, target) in edges
        start, end = drawn.boxes[source], drawn.boxes[target]
        along = [point[0] if across else point[1] for point in points]
        assert along == sorted(along)
        assert along[0] == pytest.approx(start.x + start.width if across else start.y + start.height)
        assert along[-1] == pytest.approx(end.x if across else end.y)


def test_edges_that_follow_from_others_are_left_out() -> None:
    drawn = layout(dict.fromkeys("abc", SIZE), [("a", "b"), ("b", "c"), ("a", "c")])
    assert set(drawn.paths) == {("a", "b"), ("b", "c")}


def test_chain_is_straight() -> None:
    drawn = layout({"a": (60.0, 40.0), "b": (200.0, 40.0), "c": SIZE}, [("a", "b"), ("b", "c")])
    assert {box.x + box.width / 2 for box in drawn.boxes.values()} == {100.0}
    assert [box.y for box in drawn.boxes.values()] == [0.0, 74.0, 148.0]


def test_crossing_is_undone_by_order() -> None:
    drawn = layout(dict.fromkeys(["a", "b", "x", "y"], SIZE), [("a", "y"), ("b", "x"), ("a", "x"), ("b", "y")])
    assert crossings(drawn) == 1  # as few as this graph can have
    drawn = layout(dict.fromkeys(["a", "b", "x", "y"], SIZE), [("a", "y"), ("b", "x")])
    assert crossings(drawn) == 0


def crossings(drawn: Layout) -> int:
    ends = [(points[0][0], points[-1][0]) for points in drawn.paths.values()]
    return sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))


def test_parts_that_nothing_joins_wrap_into_rows() -> None:
    drawn = layout({f"n{i}": SIZE for i in range(30)}, [])
    assert drawn.width <= 1100
    assert len({box.y for box in drawn.boxes.values()}) == 4


def test_thousand_tasks_are_drawn_the_same_each_time_and_soon() -> None:
    dice = random.Random(1)
    names = [f"n{i}" for i in range(1000)]
    edges = [(names[dice.randrange(max(i - 20, 0), i)], names[i]) for i in range(1, 1000)]
    assert layout(dict.fromkeys(names, SIZE), edges) == layout(dict.fromkeys(names, SIZE), edges)


def test_nothing_takes_no_room() -> None:
    assert layout({}, []) == Layout({}, {}, 0.0, 0.0)
