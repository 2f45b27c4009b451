"""Distances and tests, beside scipy's and beside what they are defined to be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penstock.components.monitoring.bins import NUMBERS, TEXT, Bins, Column
from penstock.components.monitoring.measures import DISTANCES, Pair, chi_squared, holm, p_value, pair, psi

COUNTS = st.lists(st.integers(0, 1000), min_size=3, max_size=30).filter(any)


def of(values, edges) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).astype(float)


@given(COUNTS, st.randoms(use_true_random=False))
def test_equal_shares_are_no_distance_and_the_order_of_the_two_does_not_matter(counts, random):
    first = np.array(counts, float)
    second = np.array(random.sample(counts, len(counts)), float)
    for name, distance in DISTANCES.items():
        for kind in (NUMBERS, TEXT):
            assert distance(Pair(kind, first, first)) == pytest.approx(0), name
        assert distance(Pair(TEXT, first, second)) == pytest.approx(distance(Pair(TEXT, second, first))), name
        assert distance(Pair(NUMBERS, first, second)) >= 0, name


def test_psi_is_what_its_formula_says():
    p, q = np.array([600.5, 400.5]) / 1001, np.array([50.5, 50.5]) / 101
    expected = ((p - q) * np.log(p / q)).sum()
    assert psi(Pair(TEXT, np.array([600.0, 400.0]), np.array([50.0, 50.0]))) == pytest.approx(expected)


def test_narrow_bins_are_taken_together_and_those_that_are_empty_in_the_reference_are_not():
    counts = Pair(NUMBERS, np.array([0.0, *[10.0] * 100, 0.0]), np.array([7.0, *[1.0] * 100, 9.0]))
    assert counts.wide.reference.tolist() == [*[50.0] * 20, 0.0, 0.0]
    assert counts.wide.current.tolist() == [*[5.0] * 20, 7.0, 9.0]


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1])
def test_the_test_of_numbers_is_scipys_where_bins_are_narrow(shift):
    random = np.random.default_rng(3)
    first, second = random.normal(size=4000), random.normal(shift, size=3000)
    edges = np.sort(first)[::4]
    counts = Pair(NUMBERS, of(first, edges), of(second, edges))
    exact = stats.ks_2samp(first, second, method="asymp")
    assert DISTANCES["ks"](counts) == pytest.approx(exact.statistic, abs=4 / len(first))
    assert p_value(counts) == pytest.approx(exact.pvalue, abs=0.05)


def test_the_test_of_text_is_scipys_with_rare_values_taken_together():
    first, second = np.array([500.0, 300, 200, 3, 2]), np.array([480.0, 330, 170, 1, 4])
    together = np.array([[500, 300, 200, 5], [480, 330, 170, 5]])
    expected = stats.chi2_contingency(together, correction=False).pvalue
    assert chi_squared(first, second) == pytest.approx(expected)
    assert p_value(Pair(TEXT, first, second)) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [([5.0, 0.0], [9.0, 0.0]), ([0.0, 0.0], [1.0, 2.0]), ([4.0], [4.0])])
def test_what_tells_nothing_is_no_surprise(counts):
    assert chi_squared(*counts) == 1.0


def test_holm_multiplies_by_the_number_of_columns_that_are_left():
    # Worked by hand: 3 × 0.01, 2 × 0.02, then 0.04, which may not be less than the one before.
    assert holm({"b": 0.02, "a": 0.01, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.04})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_without_drift_alarms_are_as_rare_as_they_are_said_to_be():
    random = np.random.default_rng(11)
    edges = stats.norm.ppf(np.arange(1, 100) / 100)
    alarms = 0
    for _ in range(400):
        chances = {}
        for column in range(10):
            if column % 2:
                shares = random.dirichlet([5] * 4)
                chances[str(column)] = p_value(Pair(TEXT, *(random.multinomial(n, shares) + 0.0 for n in (900, 700))))
            else:
                chances[str(column)] = p_value(Pair(NUMBERS, *(of(random.normal(size=n), edges) for n in (900, 700))))
        alarms += min(holm(chances).values()) <= 0.05
    assert alarms / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_a_column_that_never_had_a_value_is_paired_with_one_that_has():
    never = Column("a", Bins(TEXT), (0,), rows=9, missing=9)
    now = Column("a", Bins(NUMBERS), (4,), rows=4, missing=0)
    assert pair(never, now).current.tolist() == [4.0]
