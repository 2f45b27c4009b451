"""Counting in bins, beside numpy."""

import datetime
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components.monitoring.bins import MOST_VALUES, NUMBERS, TEXT, like, of_rows, of_statistics
from penstock.components.validation.statistics import describe


@pytest.fixture
def files_of(make_dataset):
    return lambda columns: open_dataset(make_dataset(columns), "test", "rows").files


@pytest.fixture
def statistics_of(make_dataset):
    return lambda columns: describe(open_dataset(make_dataset(columns), "test", "rows")).datasets[0]


def test_numbers_lie_between_quantiles_and_all_are_counted(files_of):
    random = np.random.default_rng(5)
    values = random.lognormal(size=5000)
    column = of_rows(files_of({"x": values})).columns["x"]
    assert column.bins.kind == NUMBERS
    assert len(column.bins.edges) == 101
    expected = np.bincount(np.searchsorted(column.bins.edges, values), minlength=102)
    assert column.counts == tuple(expected)
    assert column.counts[0] == column.counts[-1] == 0
    assert column.counts[1:-1] == (50,) * 100
    assert (column.least, column.most) == (values.min(), values.max())


def test_other_rows_are_counted_in_the_same_bins_and_what_is_outside_is_apart(files_of):
    before = of_rows(files_of({"x": [1.0, 2.0, 3.0, 4.0]}))
    now, strange = like(before, files_of({"x": [0.0, -math.inf, 2.5, 4.0, 5.0, math.inf, math.nan, None]}), ["x"])
    column = now.columns["x"]
    assert strange == {}
    assert (column.counts[0], column.counts[-1]) == (2, 2)
    assert sum(column.counts) == 6
    assert (column.rows, column.missing) == (8, 2)


@pytest.mark.parametrize(
    "values",
    [
        [True, False, None],
        [7, 7, 7],
        [None, None],
        [math.nan, 1.0],
        [math.inf, -math.inf, 0.0],
        [decimal.Decimal("1.5")],
    ],
    ids=repr,
)
def test_counts_and_missing_values_add_up_to_the_rows(files_of, values):
    if not any(values):
        values = pa.array(values, pa.float64())
    files = files_of({"x": values})
    before = of_rows(files)
    after, strange = like(before, files, ["x"])
    assert strange == {}
    for column in (before.columns["x"], after.columns["x"]):
        assert sum(column.counts) + column.missing == column.rows == len(values)


def test_a_value_beside_a_constant_has_a_bin_of_its_own(files_of):
    before = of_rows(files_of({"x": [5] * 50}))
    for other in (4, 6):
        now, _ = like(before, files_of({"x": [other] * 50}), ["x"])
        assert [a * b for a, b in zip(before.columns["x"].counts, now.columns["x"].counts, strict=True)] == [0, 0, 0]


def test_text_has_a_bin_a_value_and_new_values_are_named(files_of):
    before = of_rows(files_of({"x": ["b", "a", "b", "it's", None]}))
    column = before.columns["x"]
    assert (column.bins.kind, column.bins.values, column.counts, column.known) == (
        TEXT,
        ("b", "a", "it's"),
        (2, 1, 1, 0),
        True,
    )
    now, _ = like(before, files_of({"x": ["it's", "z", "z", "y", None]}), ["x"])
    assert now.columns["x"].counts == (0, 0, 1, 3)
    assert now.columns["x"].new == (("z", 2), ("y", 1))


def test_of_too_many_values_the_frequent_ones_have_bins(files_of):
    values = [f"id{i}" for i in range(MOST_VALUES + 50)] + ["id7"]
    column = of_rows(files_of({"x": values})).columns["x"]
    assert column.bins.values[0] == "id7"
    assert (len(column.bins.values), column.counts[-1], column.known) == (MOST_VALUES, 50, False)


def test_what_has_no_bins_is_left_out_with_the_reason(files_of):
    now = datetime.datetime(2026, 1, 1)
    counted = of_rows(files_of({"at": [now], "list": [[1]], "n": [1]}))
    assert list(counted.columns) == ["n"]
    assert counted.left_out == {"at": "times move on by themselves", "list": "values of type BIGINT[] have no bins"}


def test_another_kind_of_values_is_told(files_of):
    before = of_rows(files_of({"x": [1, 2], "y": ["a", "b"]}))
    now, strange = like(before, files_of({"x": ["1", "2"], "y": [1.5, 2.5]}), ["x", "y"])
    assert now.columns == {}
    assert strange == {"x": "VARCHAR", "y": "DOUBLE"}


def test_statistics_give_deciles_and_the_values_that_they_list(statistics_of, files_of):
    random = np.random.default_rng(6)
    numbers = random.normal(size=1000)
    numbers[:10] = math.nan
    columns = {"x": numbers, "s": ["a"] * 600 + ["b"] * 399 + [None], "flag": [True] * 250 + [False] * 750}
    counted = of_statistics(statistics_of(columns))
    x, s, flag = (counted.columns[name] for name in ("x", "s", "flag"))
    assert (x.rows, x.missing, sum(x.counts)) == (1000, 10, 990)
    assert x.counts == (0, *[99] * 10, 0)
    assert (s.bins.values, s.counts, s.missing, s.known) == (("a", "b"), (600, 399, 0), 1, True)
    again, strange = like(counted, files_of(columns), counted.columns)
    assert strange == {}
    assert again.columns["x"].counts == x.counts
    assert again.columns["s"].counts == s.counts
    assert again.columns["flag"].counts == flag.counts


def test_a_column_that_never_had_a_value_may_have_any(statistics_of, files_of):
    never = {"x": pa.array([None, None], pa.string())}
    for before in (of_statistics(statistics_of(never)), of_rows(files_of(never))):
        now, strange = like(before, files_of({"x": [1.5, 2.5]}), ["x"])
        assert strange == {}
        assert now.columns["x"].counts == (2,)
