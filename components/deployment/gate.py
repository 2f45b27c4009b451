"""The gate of a rollout: conditions on metrics of the new version, each of which has to hold at every step.

    condition = metric operator bound
    operator  = ">=" | ">" | "<=" | "<" | "=="
    bound     = number | [ number "*" ] "current" [ ("+" | "-") number ]

`current` is the same metric of the version that had most of the traffic before: in the same step, or, where it answers
too little in that, in the last one in which it answered enough. Where it never did, there is nothing to be compared
with, and the condition is not judged.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from penstock.components._shared.errors import UserError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}
FORM = 'Write for example "error_rate <= 0.02", "error_rate <= current + 0.01", "latency_p99 <= 1.5 * current"'

_CONDITION = re.compile(r"(?P<metric>\w+)\s*(?P<operator>[<>=!~]++)\s*(?P<bound>.+)")
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUND = re.compile(
    rf"(?P<number>[+-]?{_NUMBER})"
    rf"|(?:(?P<factor>{_NUMBER})\s*\*\s*)?(?P<current>current)(?:\s*(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?"
)


@dataclass(frozen=True)
class Condition:
    """One line of the gate.

    Attributes:
        text: As it was written, but for spaces.
        factor: Times the current version's metric; 0 where the bound is a number alone.
        number: Plus this.
    """

    text: str
    metric: str
    operator: str
    factor: float
    number: float

    def bound(self, current: float | None) -> float | None:
        """Return the number to compare with, None where that is not known."""
        if not self.factor:
            return self.number
        return None if current is None else self.factor * current + self.number


@dataclass(frozen=True)
class Finding:
    """What became of a condition at one step.

    Attributes:
        holds: None where it was not judged.
        reason: What was compared, in a few words.
    """

    condition: str
    holds: bool | None
    reason: str


def parse(
    gate: Sequence[str], known: Collection[str], compared: Collection[str], component: str
) -> tuple[Condition, ...]:
    """Return the conditions of a gate.

    Args:
        known: Metrics that can be had.
        compared: Those among them that compare two versions already, and so have no `current`.

    Raises:
        UserError: One is malformed, or its metric is not known.
    """
    return tuple(_condition(text, known, compared, component) for text in gate)


def judge(
    conditions: Sequence[Condition], new: Mapping[str, float], current: Mapping[str, float], skipped: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Return what became of each condition.

    Args:
        new, current: Values by metric, where there are any.
        skipped: Metrics that are not to be judged at this step, and why.
    """
    return tuple(_judged(each, new.get(each.metric), current.get(each.metric), skipped) for each in conditions)


def is_lost(condition: Condition, bad: float, requests: float, current: float | None) -> bool:
    """Return whether a condition on a share cannot hold any more, were all further requests of a step to go well.

    Args:
        bad: Requests that count against it so far.
        requests: As many as the step waits for, or more.
    """
    bound = condition.bound(current)
    if condition.operator not in ("<=", "<") or bound is None or not requests:
        return False
    return not OPERATORS[condition.operator](bad / requests, bound)


def summary(findings: Sequence[Finding]) -> str:
    """Return the conditions that do not hold, or all of them, in one line."""
    failed = [finding.reason for finding in findings if finding.holds is False]
    return "; ".join(failed or [finding.reason for finding in findings]) or "the gate has no conditions"


def _condition(text: str, known: Collection[str], compared: Collection[str], component: str) -> Condition:
    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(component, "gate", problem, remedy)

    plain = " ".join(text.split()) if isinstance(text, str) else ""
    parts = _CONDITION.fullmatch(plain)
    if not parts:
        raise refuse(f"{text!r} is not a condition", FORM)
    if parts["operator"] not in OPERATORS:
        raise refuse(f"{parts['operator']!r} in {plain!r} is not a known operator", f"Known are {', '.join(OPERATORS)}")
    metric = parts["metric"]
    if metric not in known:
        raise refuse(f"{metric!r} in {plain!r} is not a metric here", f"Known are {', '.join(sorted(known))}")
    bound = _BOUND.fullmatch(parts["bound"])
    if not bound:
        raise refuse(f"{parts['bound']!r} in {plain!r} is not a bound", FORM)
    if bound["current"] and metric in compared:
        raise refuse(f"{metric!r} in {plain!r} compares with the current version already", "Give a number")
    factor = float(bound["factor"] or 1) if bound["current"] else 0.0
    number = float(bound["number"] or f"{bound['sign'] or ''}{bound['offset'] or 0}")
    if not (math.isfinite(factor) and math.isfinite(number)) or (bound["current"] and not factor):
        raise refuse(f"the bound in {plain!r} is zero times or infinite", "Give finite numbers")
    return Condition(plain, metric, parts["operator"], factor, number)


def _judged(condition: Condition, value: float | None, current: float | None, skipped: Mapping[str, str]) -> Finding:
    if condition.metric in skipped:
        return Finding(condition.text, None, f"{condition.metric} was not judged: {skipped[condition.metric]}")
    if value is None:
        return Finding(condition.text, False, f"{condition.metric} has no value")
    bound = condition.bound(current)
    if bound is None:
        return Finding(condition.text, None, f"{condition.metric} {value:.4g}, and nothing to be compared with")
    holds = OPERATORS[condition.operator](value, bound)
    whose = f" ({condition.text.partition(condition.operator)[2].strip()})" if condition.factor else ""
    relation = condition.operator if holds else f"is not {condition.operator}"
    return Finding(condition.text, holds, f"{condition.metric} {value:.4g} {relation} {bound:.4g}{whose}")
