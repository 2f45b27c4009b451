from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components._shared import slices
from penstock.components._shared.errors import UserError
from penstock.components._shared.slices import Sliced, counts_of, cut, rule_of


def sliced(values: Any, kind: pa.DataType | None = None) -> Sliced:
    return cut(pa.chunked_array([pa.array(values, kind)]), "column", "evaluate", "slices")


def by_name(found: Sliced) -> dict[str, list[int]]:
    return {part.name: part.places.tolist() for part in found.slices}


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["b", "a", None, "b"], None, {"a": [1], "b": [0, 3], "null": [2]}),
        ([10, 9, None, 10], None, {"9": [1], "10": [0, 3], "null": [2]}),
        ([True, False, True, None], None, {"false": [1], "true": [0, 2], "null": [3]}),
        ([1.0, 2.5, float("nan"), None], None, {"1": [0], "2.5": [1], "null": [2, 3]}),
        ([date(2019, 1, 2), date(2019, 1, 1)], None, {"2019-01-01": [1], "2019-01-02": [0]}),
        ([datetime(2019, 1, 2, 3, 4, 5)] * 2, pa.timestamp("us"), {"2019-01-02T03:04:05": [0, 1]}),
        ([Decimal("1.50"), Decimal("0.25")], None, {"0.25": [1], "1.50": [0]}),
        (["a", "b"], pa.dictionary(pa.int32(), pa.string()), {"a": [0], "b": [1]}),
        (["null", None], None, {"null": [0, 1]}),
        (["", " "], None, {"": [0], " ": [1]}),
        ([None, None], pa.string(), {"null": [0, 1]}),
    ],
)
def test_values_are_slices_by_their_text_in_ascending_order(
    values: Any, kind: pa.DataType | None, expected: dict[str, list[int]]
) -> None:
    found = sliced(values, kind)
    assert list(by_name(found).items()) == list(expected.items())
    assert found.note == ""


def test_many_texts_leave_the_largest_and_fold_the_rest() -> None:
    values = [f"v{i:02}" for i in range(25) for _ in range(25 - i)]
    found = sliced(values)
    assert [part.name for part in found.slices] == [f"v{i:02}" for i in range(20)] + ["other"]
    assert len(found.slices[-1].places) == 5 + 4 + 3 + 2 + 1
    assert found.note == "25 distinct values; the 5 smallest are 'other', 15 rows"
    assert sorted(np.concatenate([part.places for part in found.slices])) == list(range(len(values)))


def test_value_called_other_is_folded_with_the_rest() -> None:
    found = sliced(["other"] * 50 + [f"v{i:02}" for i in range(25)])
    assert [part.name for part in found.slices] == [f"v{i:02}" for i in range(20)] + ["other"]
    assert len(found.slices[-1].places) == 55
    assert [part.name for part in sliced(["other", "a"]).slices] == ["a", "other"]


def test_many_numbers_are_cut_into_bins_of_equal_rows() -> None:
    found = sliced([*range(100), None])
    assert {part.name: len(part.places) for part in found.slices} == {
        "[0, 20)": 20,
        "[20, 40)": 20,
        "[40, 60)": 20,
        "[60, 80)": 20,
        "[80, 99]": 20,
        "null": 1,
    }
    assert found.note == "101 distinct values, cut into bins"


def test_equal_numbers_share_a_bin() -> None:
    found = sliced([0] * 90 + list(range(1, 31)))
    assert {part.name: len(part.places) for part in found.slices} == {"[0, 7)": 96, "[7, 30]": 24}


def test_bins_of_fractions_are_told_apart_by_their_names() -> None:
    found = sliced((1e9 + np.arange(50) / 1000).tolist())
    assert len({part.name for part in found.slices}) == 5


def test_times_are_binned_too() -> None:
    found = sliced([datetime(2019, 1, day, hour) for day in range(1, 31) for hour in (0, 12)], pa.timestamp("us"))
    assert found.slices[0].name == "[2019-01-01T00:00:00, 2019-01-07T00:00:00)"
    assert len(found.slices[0].places) == 12


def test_named_value_is_found_though_it_was_folded_or_binned() -> None:
    assert sliced([*range(100), 7]).named("column", "7").places.tolist() == [7, 100]
    assert sliced([f"v{i}" for i in range(30)]).named("column", "v29").places.tolist() == [29]
    assert sliced(["a", None]).named("column", "null").places.tolist() == [1]
    assert sliced(["a", "b"]).named("column", "c").places.tolist() == []


@pytest.mark.parametrize("values", [[[1], [2]], [b"a", b"b"], [{"a": 1}]])
def test_column_without_values_to_go_by_is_refused(values: Any) -> None:
    with pytest.raises(UserError, match="evaluate: slices: 'column' is"):
        sliced(values)


@pytest.mark.parametrize(
    "name", ["few", "fractions", "whole", "texts", "times", "dates", "decimals", "folded", "nothing"]
)
def test_pieces_of_a_column_are_counted_as_the_whole_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_COUNTED", 10)  # so that counts are added up on the way, too
    some = np.random.default_rng(0)
    numbers = some.integers(0, 40, 500)
    column = {
        "few": pa.array([True, None, False] * 100),
        "fractions": pa.array([float("nan"), None, -0.0, 0.0, *some.normal(size=300)], from_pandas=False),
        "whole": pa.array(numbers),
        "texts": pa.array([f"v{number}" for number in numbers] + [None, "null", "other"]),
        "times": pa.array(numbers * 10**9, pa.timestamp("us", "UTC")),
        "dates": pa.array(numbers, pa.int32()).cast(pa.date32()),
        "decimals": pa.array([Decimal(int(number)) / 4 for number in numbers]),
        "folded": pa.array([f"v{number}" for number in numbers]).dictionary_encode(),
        "nothing": pa.nulls(30),
    }[name]
    whole = rule_of(counts_of([column], "x", "evaluate", "slices"))
    pieces = [column.slice(start, 7) for start in range(0, len(column), 7)]
    found = rule_of(counts_of(pieces, "x", "evaluate", "slices"))
    assert (found.names, found.note) == (whole.names, whole.note)
    assert found.edges == whole.edges or found.edges.equals(whole.edges)
