"""Conditions of a rollout: what is understood, what is refused, and what holds."""

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment.gate import Condition, is_lost, judge, parse, summary

KNOWN = ("agreement", "error_rate", "latency_p99")


def parsed(*gate: str) -> tuple[Condition, ...]:
    return parse(gate, KNOWN, ["agreement"], "roll_out")


def holds(text: str, value: float | None, current: float | None = None) -> bool | None:
    new = {} if value is None else {parsed(text)[0].metric: value}
    [finding] = judge(parsed(text), new, {} if current is None else {parsed(text)[0].metric: current}, {})
    return finding.holds


def test_a_bound_is_a_number_or_made_of_the_current_version():
    assert parsed("error_rate <= 0.02") == (Condition("error_rate <= 0.02", "error_rate", "<=", 0.0, 0.02),)
    assert parsed(" error_rate<=current+.01 ")[0] == Condition("error_rate<=current+.01", "error_rate", "<=", 1.0, 0.01)
    [condition] = parsed("latency_p99 < 1.5 * current - 0.002")
    assert (condition.factor, condition.number) == (1.5, -0.002)
    assert condition.bound(0.1) == pytest.approx(0.148)


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        (
            "errors <= 0.1",
            "'errors' in 'errors <= 0.1' is not a metric here. Known are agreement, error_rate, latency_p99",
        ),
        ("error_rate", "'error_rate' is not a condition"),
        ("error_rate != 1", "'!=' in 'error_rate != 1' is not a known operator. Known are >=, >, <=, <, =="),
        ("error_rate <= champion", "'champion' in 'error_rate <= champion' is not a bound"),
        ("error_rate <= current * 2", "'current * 2' in 'error_rate <= current * 2' is not a bound"),
        ("error_rate <= 0 * current", "is zero times or infinite"),
        ("error_rate <= 1e999", "is zero times or infinite"),
        ("agreement >= current", "compares with the current version already"),
        (7, "7 is not a condition"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_by_name(condition, problem):
    with pytest.raises(UserError) as refused:
        parsed(condition)
    assert problem in str(refused.value)
    assert "roll_out: gate: " in str(refused.value)


def test_what_holds():
    assert holds("error_rate <= 0.02", 0.02) is True
    assert holds("error_rate <= 0.02", 0.021) is False
    assert holds("error_rate <= current + 0.01", 0.05, 0.045) is True
    assert holds("error_rate <= current + 0.01", 0.06, 0.045) is False
    assert holds("latency_p99 <= 2 * current", 0.3, 0.1) is False


def test_without_a_value_nothing_holds_and_without_a_current_version_nothing_is_judged():
    assert holds("error_rate <= 0.02", None) is False
    assert holds("error_rate <= current", 0.5) is None
    [finding] = judge(parsed("agreement >= 0.9"), {}, {}, {"agreement": "no request goes to both versions"})
    assert (finding.holds, finding.reason) == (
        None,
        "agreement was not judged: no request goes to both versions",
    )


def test_the_summary_says_what_does_not_hold_and_why():
    findings = judge(
        parsed("error_rate <= current + 0.01", "latency_p99 <= 0.1"),
        {"error_rate": 0.25, "latency_p99": 0.02},
        {"error_rate": 0.0},
        {},
    )
    assert summary(findings) == "error_rate 0.25 is not <= 0.01 (current + 0.01)"
    assert summary(findings[1:]) == "latency_p99 0.02 <= 0.1"
    assert summary(()) == "the gate has no conditions"


def test_a_condition_is_lost_when_nothing_that_may_come_can_save_it():
    [condition] = parsed("error_rate <= current + 0.01")
    assert not is_lost(condition, bad=1, requests=100, current=0.0)
    assert is_lost(condition, bad=2, requests=100, current=0.0)
    assert not is_lost(condition, bad=2, requests=100, current=None)
    assert not is_lost(parsed("error_rate >= 0.5")[0], bad=90, requests=100, current=None)
