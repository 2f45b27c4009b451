from __future__ import annotations

from typing import Any

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.metrics.tasks import Measured
from penstock.components.evaluation.gate import Condition, Finding, Rival, check_metrics, judge, parse, summary


def rows(count: int = 100, **values: float | str) -> Measured:
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    reasons = {name: value for name, value in values.items() if isinstance(value, str)}
    return Measured(count, {"rows": float(count), **numbers}, reasons)


def judged(gate: str, measured: dict[Any, Measured], rival: Rival = Rival()) -> Finding:  # noqa: B008 - frozen
    columns: dict[str, list[Any]] = {}
    for place in measured:
        if place:
            columns.setdefault(place[0], []).append(place)
    [finding] = judge(parse([gate]), measured, columns, rival)
    return finding


def champion(**values: float | str) -> Rival:
    return Rival("tips version 3", "", {None: rows(**values)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auc >= 0.7", ("", None, "auc", ">=", False, 0.7)),
        ("  auc>=.7 ", ("", None, "auc", ">=", False, 0.7)),
        ("bias > -1e-3", ("", None, "bias", ">", False, -0.001)),
        ("log_loss < 0.5", ("", None, "log_loss", "<", False, 0.5)),
        ("rmse <= 2", ("", None, "rmse", "<=", False, 2.0)),
        ("rows == 100", ("", None, "rows", "==", False, 100.0)),
        ("auc >= champion", ("", None, "auc", ">=", True, 0.0)),
        ("auc >= champion - 0.005", ("", None, "auc", ">=", True, -0.005)),
        ("auc > champion+0.01", ("", None, "auc", ">", True, 0.01)),
        ("slice:weekday.auc >= 0.6", ("weekday", None, "auc", ">=", False, 0.6)),
        ("slice:weekday=3.auc >= 0.6", ("weekday", "3", "auc", ">=", False, 0.6)),
        ("slice:fare=2.5.auc >= .6", ("fare", "2.5", "auc", ">=", False, 0.6)),
        ("slice:a.b.auc >= 0.6", ("a.b", None, "auc", ">=", False, 0.6)),
        ("slice:city=St. Gallen.auc >= 0.6", ("city", "St. Gallen", "auc", ">=", False, 0.6)),
        ("slice:op=a>=b.auc >= 0.6", ("op", "a>=b", "auc", ">=", False, 0.6)),
        ("slice:fare=[0, 2.5).auc >= champion - 0.02", ("fare", "[0, 2.5)", "auc", ">=", True, -0.02)),
        ("slice:zone=.auc >= 0.6", ("zone", "", "auc", ">=", False, 0.6)),
    ],
)
def test_conditions_are_read(text: str, expected: tuple[Any, ...]) -> None:
    [found] = parse([text])
    assert found == Condition(" ".join(text.split()), *expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a condition"),
        ("auc", "is not a condition"),
        ("auc 0.7", "is not a condition"),
        ("auc >=", "is not a condition"),
        (">= 0.7", "is not a condition"),
        ("slice:.auc >= 0.7", "is not a condition"),
        ("slice:weekday >= 0.7", "is not a condition"),
        (
            "accuracies >= 0.7",
            "'accuracies' in 'accuracies >= 0.7' is not a metric. Known are rows, positive_rate, auc,",
        ),
        ("auc = 0.7", "'=' in 'auc = 0.7' is not a known operator. Known are >=, >, <=, <, =="),
        ("auc != 0.7", "is not a known operator"),
        ("auc => 0.7", "is not a known operator"),
        ("auc >= nan", "'nan' in 'auc >= nan' is not a bound"),
        ("auc >= inf", "is not a bound"),
        ("auc >= 1e999", "is not finite"),
        ("auc >= champion - nan", "is not a bound"),
        ("auc >= champion * 2", "is not a bound"),
        ("auc >= challenger", "is not a bound"),
        ("auc >= 0.7 or f1 >= 0.5", "is not a bound"),
        ("auc >= 0,7", "is not a bound"),
    ],
)
def test_malformed_condition_is_refused_with_what_is_known(text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([text])
    assert str(caught.value).startswith("evaluate: gate: ")
    assert problem in str(caught.value)


def test_metric_of_another_task_is_refused_with_those_of_this_one() -> None:
    with pytest.raises(
        UserError, match=r"'auc' in 'auc >= 0.7' is not a metric of a regression model. Known are rows, r"
    ):
        check_metrics(parse(["auc >= 0.7"]), "regression")


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("auc >= 0.7", 0.7, True),
        ("auc > 0.7", 0.7, False),
        ("auc <= 0.7", 0.7, True),
        ("auc < 0.7", 0.7, False),
        ("auc == 0.7", 0.7, True),
        ("auc == 0.7", 0.71, False),
        ("auc >= 0.7", 0.69, False),
    ],
)
def test_operators_compare(text: str, value: float, holds: bool) -> None:
    assert judged(text, {None: rows(auc=value)}).holds is holds


def test_reason_shows_value_and_bound() -> None:
    assert judged("auc >= 0.7", {None: rows(auc=0.73123)}).reason == "auc 0.7312 >= 0.7"
    assert judged("auc >= 0.7", {None: rows(auc=0.65)}).reason == "auc 0.65 is not >= 0.7"


def test_value_that_rounding_would_put_on_the_other_side_is_shown_in_full() -> None:
    assert judged("auc >= 0.7", {None: rows(auc=0.69999999)}).reason == "auc 0.69999999 is not >= 0.7"


def test_champion_is_compared_with_an_offset() -> None:
    better = judged("auc >= champion - 0.005", {None: rows(auc=0.721)}, champion(auc=0.725))
    assert better.holds
    assert better.reason == "auc 0.721 >= champion 0.725 - 0.005 (tips version 3)"
    worse = judged("auc > champion", {None: rows(auc=0.721)}, champion(auc=0.725))
    assert not worse.holds
    assert worse.reason == "auc 0.721 is not > champion 0.725 (tips version 3)"


def test_no_champion_yet_holds() -> None:
    found = judged("auc >= champion - 0.005", {None: rows(auc=0.5)})
    assert found.holds
    assert found.reason == "auc 0.5 >= champion - 0.005 (no champion yet)"


def test_champion_that_cannot_be_measured_does_not_hold() -> None:
    rival = Rival("tips version 3", "it knows other classes")
    found = judged("auc >= champion", {None: rows(auc=0.9)}, rival)
    assert not found.holds
    assert "tips version 3 cannot be measured on these rows: it knows other classes" in found.reason


def test_metric_that_is_undefined_for_the_champion_does_not_hold() -> None:
    found = judged("precision >= champion", {None: rows(precision=0.9)}, champion(precision="no row"))
    assert not found.holds
    assert "undefined for tips version 3" in found.reason


def test_undefined_metric_does_not_hold_on_all_rows_or_on_a_named_slice() -> None:
    found = judged("auc >= 0.1", {None: rows(auc="one class")})
    assert (found.holds, found.reason) == (False, "auc >= 0.1 does not hold (undefined: one class)")
    assert not judged("slice:day=1.auc >= 0.1", {("day", "1"): rows(auc="one class")}).holds


def test_every_slice_of_a_column_has_to_hold() -> None:
    measured = {("day", "1"): rows(auc=0.7), ("day", "2"): rows(auc=0.58), ("day", "3"): rows(auc=0.55)}
    found = judged("slice:day.auc >= 0.6", measured)
    assert not found.holds
    assert found.reason == "slice:day=3.auc 0.55 is not >= 0.6, in 2 of 3 slices"
    found = judged("slice:day.auc >= 0.5", measured)
    assert found.holds
    assert found.reason == "slice:day=3.auc 0.55 >= 0.5, the closest of 3 slices"


def test_one_slice_is_judged_by_itself_however_small() -> None:
    measured = {("day", "1"): rows(2, auc=0.7), ("day", "2"): rows(auc=0.1)}
    assert judged("slice:day=1.auc >= 0.6", measured).reason == "slice:day=1.auc 0.7 >= 0.6"


def test_slices_that_say_too_little_are_left_out_and_told() -> None:
    measured = {
        ("day", "1"): rows(30, auc=0.7),
        ("day", "2"): rows(29, auc=0.1),
        ("day", "3"): rows(auc="the rows are all of one class"),
    }
    found = judged("slice:day.auc >= 0.6", measured)
    assert found.holds
    assert found.reason == "slice:day=1.auc 0.7 >= 0.6, the closest of 1 slice, 2 not judged"
    assert [(case.holds, case.note) for case in found.cases] == [
        (True, ""),
        (None, "fewer than 30 rows"),
        (None, "the rows are all of one class"),
    ]


def test_column_none_of_whose_slices_can_be_judged_does_not_hold() -> None:
    found = judged("slice:day.auc >= 0.6", {("day", "1"): rows(3, auc=0.9), ("day", "2"): rows(4, auc=0.9)})
    assert (found.holds, found.reason) == (False, "slice:day.auc >= 0.6 could not be judged in any of 2 slices")


def test_row_counts_of_small_slices_are_judged() -> None:
    assert not judged("slice:day.rows >= 10", {("day", "1"): rows(100), ("day", "2"): rows(3)}).holds


def test_slices_are_compared_with_the_champions_own() -> None:
    rival = Rival("tips version 3", "", {("day", "1"): rows(auc=0.8), ("day", "2"): rows(auc=0.6)})
    measured = {("day", "1"): rows(auc=0.75), ("day", "2"): rows(auc=0.75)}
    found = judged("slice:day.auc >= champion", measured, rival)
    assert found.reason == "slice:day=1.auc 0.75 is not >= champion 0.8 (tips version 3), in 1 of 2 slices"


def test_summary_puts_what_fails_first() -> None:
    findings = judge(parse(["auc >= 0.6", "f1 >= 0.9"]), {None: rows(auc=0.7, f1=0.5)}, {}, Rival())
    assert summary(findings) == "f1 0.5 is not >= 0.9; auc 0.7 >= 0.6"
    assert summary([]) == "the gate has no conditions"
