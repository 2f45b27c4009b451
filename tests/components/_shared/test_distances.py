"""Distances against numbers worked out by hand, and against SciPy."""

import itertools
import math

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0.statistics_pb2 import Histogram

from penstock.components._shared.distances import (
    jensen_shannon,
    jensen_shannon_of_histograms,
    l_infinity,
    normalized_absolute_difference,
)


def histogram(*buckets: tuple[float, float, float], nans: int = 0) -> Histogram:
    made = Histogram(num_nan=nans)
    for low, high, count in buckets:
        made.buckets.add(low_value=low, high_value=high, sample_count=count)
    return made


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({}, {}, ("", 0)),
        ({"hello": 1, "world": 9}, {"hello": 30, "world": 70}, ("world", 0.2)),
        ({"b": 9, "c": 1}, {"a": 3, "b": 7}, ("a", 0.3)),
        ({"a": 3, "b": 7}, {"b": 9, "c": 1}, ("a", 0.3)),
    ],
)
def test_l_infinity_is_the_largest_difference_of_shares(a, b, expected):
    value, distance = l_infinity(a, b)
    assert value == expected[0]
    assert distance == pytest.approx(expected[1])


def test_normalized_absolute_difference_is_of_all_counts_together():
    value, distance = normalized_absolute_difference({"a": 10, "b": 5}, {"a": 4, "b": 1})
    assert (value, distance) == ("a", pytest.approx(6 / 20))


def test_jensen_shannon_of_frequencies_by_hand():
    # p = (1/2, 1/2), q = (1, 0), m = (3/4, 1/4)
    expected = (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2) + math.log2(4 / 3)) / 2
    assert jensen_shannon({"a": 5, "b": 5}, {"a": 3}) == pytest.approx(expected)
    assert jensen_shannon({"a": 1}, {"b": 1}) == 1


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=12))
def test_jensen_shannon_of_frequencies_is_the_square_of_scipys_distance(pairs):
    a, b = np.array(pairs, float).T
    if not a.sum() or not b.sum():
        return
    names = [str(i) for i in range(len(pairs))]
    ours = jensen_shannon(dict(zip(names, a, strict=True)), dict(zip(names, b, strict=True)))
    assert ours == pytest.approx(jensenshannon(a, b, base=2) ** 2, abs=1e-9)


def test_histograms_with_other_edges_are_cut_at_all_of_them():
    a = histogram((1, 2, 2), (2, 3, 2))
    b = histogram((2, 4, 2), (4, 6, 2))
    # Over [1, 2), [2, 3), [3, 4), [4, 6]: (1/2, 1/2, 0, 0) and (0, 1/4, 1/4, 1/2).
    expected = jensenshannon([0.5, 0.5, 0, 0], [0, 0.25, 0.25, 0.5], base=2) ** 2
    assert expected == pytest.approx(0.65563906222)
    assert jensen_shannon_of_histograms(a, b) == pytest.approx(expected)
    assert jensen_shannon_of_histograms(b, a) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (histogram((0, 1, 2), (1, 2, 2)), histogram((3, 4, 2), (4, 6, 2))),
        (histogram((1, 1, 4)), histogram((2, 4, 2), (4, 6, 2))),
        (histogram((1, 1, 4)), histogram((2, 2, 4))),
        (histogram((10, 10, 21)), histogram((0, 4, 150), (4, 12, 200), (12, 20, 20))),
        (histogram((math.inf, math.inf, 4)), histogram((-math.inf, -math.inf, 4))),
    ],
)
def test_histograms_without_a_common_value_are_one_apart(a, b):
    assert jensen_shannon_of_histograms(a, b) == pytest.approx(1)


def test_nan_is_a_value_like_any():
    a, b = histogram((1, 2, 3), nans=1), histogram((1, 2, 4))
    assert jensen_shannon_of_histograms(a, b) == pytest.approx(0.13792538096)
    assert jensen_shannon_of_histograms(a, a) == 0


def test_an_empty_histogram_has_no_distance():
    some = histogram((0, 4, 10))
    assert jensen_shannon_of_histograms(Histogram(), some) is None
    assert jensen_shannon_of_histograms(some, histogram((0, 4, 0))) is None


BUCKETS = st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 50)), min_size=2, max_size=10)


@given(BUCKETS, BUCKETS)
def test_divergence_of_histograms_is_symmetric_from_nought_to_one(first, second):
    def chained(points):
        points = sorted(points)
        return histogram(*((low, high, count) for (low, count), (high, _) in itertools.pairwise(points)))

    a, b = chained(first), chained(second)
    there, back = jensen_shannon_of_histograms(a, b), jensen_shannon_of_histograms(b, a)
    assert (there is None) == (back is None)
    if there is not None:
        assert there == pytest.approx(back, abs=1e-9)
        assert 0 <= there <= 1
        assert jensen_shannon_of_histograms(a, text_format.Parse(str(a), Histogram())) == pytest.approx(0, abs=1e-9)
