"""The gate: conditions on metrics, each of which has to hold.

    condition = [ "slice:" column [ "=" value ] "." ] metric operator bound
    operator  = ">=" | ">" | "<=" | "<" | "=="
    bound     = number | "champion" [ ("+" | "-") number ]

A condition on a slice of one value is judged like one on all rows: where the metric is undefined, it does not hold. A
condition on all slices of a column leaves out those with fewer than LEAST_ROWS rows or with no value of the metric,
says so, and does not hold if that leaves none. Row counts are judged whatever they are.

A condition that compares with the champion holds while there is none, and does not hold for a champion that cannot be
measured on the same rows: whether the new model is better is then not known.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.components._shared.errors import UserError
from penstock.components._shared.metrics.tasks import TASKS, Measured

COMPONENT = "evaluate"
LEAST_ROWS = 30
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}
FORM = (
    'Write for example "auc >= 0.7", "slice:weekday.auc >= 0.6", "slice:weekday=3.auc >= 0.6", "auc >= champion - 0.01"'
)

_CONDITION = re.compile(
    r"(?:slice:(?P<column>[^=]+?)(?:=(?P<value>.*))?\.)?(?P<metric>\w+)\s*(?P<operator>[<>=!~]++)\s*(?P<bound>.+)",
    re.DOTALL,
)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUND = re.compile(rf"(?P<champion>champion)(?:\s*(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?|(?P<number>{_NUMBER})")

# A slice by column and name; None is all rows.
Place = tuple[str, str] | None


@dataclass(frozen=True)
class Condition:
    """One line of the gate.

    Attributes:
        text: As it was written, but for spaces.
        column: Column of its slice or slices; empty for all rows.
        value: Name of the one slice it is about; None for all of the column.
        champion: Whether the bound is the champion's metric, plus `number`.
    """

    text: str
    column: str
    value: str | None
    metric: str
    operator: str
    champion: bool
    number: float


@dataclass(frozen=True)
class Case:
    """A condition on one set of rows.

    Attributes:
        place: Slice; None for all rows.
        holds: None where it was not judged.
        value: The metric, where it is defined.
        bound: What it was compared with, where that is known.
        note: Why it was not judged or does not hold without a comparison; or that there is no champion yet.
    """

    place: Place
    holds: bool | None
    value: float | None = None
    bound: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What became of a condition; `reason` says it in a few words."""

    condition: Condition
    holds: bool
    reason: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Rival:
    """The champion, as the gate sees it.

    Attributes:
        name: How to call it, for example "taxi-tips version 3"; empty if there is none yet.
        problem: Why it cannot be measured on these rows; empty if it can.
        measured: Its metrics by slice.
    """

    name: str = ""
    problem: str = ""
    measured: Mapping[Place, Measured] = field(default_factory=dict)


def parse(gate: Sequence[str]) -> tuple[Condition, ...]:
    """Return the conditions of a gate.

    Raises:
        UserError: One is malformed, or its metric is none of any task.
    """
    return tuple(_condition(text) for text in gate)


def check_metrics(conditions: Iterable[Condition], task: str) -> None:
    """Refuse metrics that the task does not have."""
    for condition in conditions:
        _known(condition.metric, TASKS[task].metrics, f" of a {task} model", condition.text)


def judge(
    conditions: Iterable[Condition],
    measured: Mapping[Place, Measured],
    columns: Mapping[str, Sequence[Place]],
    rival: Rival,
) -> tuple[Finding, ...]:
    """Return what became of each condition.

    Args:
        measured: The model's metrics by slice, those of every slice that a condition names among them.
        columns: Slices by column, each row of the set in one of them.
        rival: The champion.
    """
    return tuple(_judge(condition, measured, columns, rival) for condition in conditions)


def summary(findings: Sequence[Finding]) -> str:
    """Return why a model was blessed or not, the conditions that do not hold first."""
    if not findings:
        return "the gate has no conditions"
    return "; ".join(finding.reason for finding in sorted(findings, key=lambda finding: finding.holds))


def _condition(text: str) -> Condition:
    if not isinstance(text, str) or not text.strip():
        raise _refuse(f"{text!r} is not a condition", FORM)
    plain = " ".join(text.split())
    parts = _CONDITION.fullmatch(plain)
    if not parts:
        raise _refuse(f"{plain!r} is not a condition", FORM)
    if parts["operator"] not in OPERATORS:
        raise _refuse(
            f"{parts['operator']!r} in {plain!r} is not a known operator", f"Known are {', '.join(OPERATORS)}"
        )
    metrics = {name: None for task in TASKS.values() for name in task.metrics}
    _known(parts["metric"], metrics, "", plain)
    bound = _BOUND.fullmatch(parts["bound"])
    if not bound:
        raise _refuse(
            f"{parts['bound']!r} in {plain!r} is not a bound",
            "Give a number, champion, or champion plus or minus a number",
        )
    number = (
        float(f"{bound['sign'] or ''}1") * float(bound["offset"] or 0) if bound["champion"] else float(bound["number"])
    )
    if not math.isfinite(number):
        raise _refuse(f"the bound in {plain!r} is not finite", "Give a finite number")
    return Condition(
        text=plain,
        column=(parts["column"] or "").strip(),
        value=parts["value"],
        metric=parts["metric"],
        operator=parts["operator"],
        champion=bool(bound["champion"]),
        number=number,
    )


def _known(metric: str, metrics: Iterable[str], whose: str, text: str) -> None:
    if metric not in metrics:
        raise _refuse(f"{metric!r} in {text!r} is not a metric{whose}", f"Known are {', '.join(metrics)}")


def _judge(
    condition: Condition,
    measured: Mapping[Place, Measured],
    columns: Mapping[str, Sequence[Place]],
    rival: Rival,
) -> Finding:
    if not condition.column or condition.value is not None:
        place = (condition.column, condition.value) if condition.value is not None else None
        case = _case(condition, place, measured[place], rival)
        return Finding(condition, bool(case.holds), _told(condition, case, rival), (case,))
    cases = tuple(_among_others(condition, place, measured[place], rival) for place in columns[condition.column])
    judged = [case for case in cases if case.holds is not None]
    failing = [case for case in judged if not case.holds]
    left_out = f", {len(cases) - len(judged)} not judged" if len(judged) < len(cases) else ""
    if failing:
        reason = f"{_told(condition, _worst(failing), rival)}, in {len(failing)} of {_slices(len(judged))}{left_out}"
    elif judged and condition.champion and not rival.name:
        reason = f"{condition.text} (no champion yet)"
    elif judged:
        closest = _worst(judged)
        reason = f"{_told(condition, closest, rival)}, the closest of {_slices(len(judged))}{left_out}"
    else:
        reason = f"{condition.text} could not be judged in any of {_slices(len(cases))}"
    return Finding(condition, bool(judged) and not failing, reason, cases)


def _among_others(condition: Condition, place: Place, rows: Measured, rival: Rival) -> Case:
    """Judge one slice of several: one that says too little is left out."""
    if condition.metric == "rows":
        return _case(condition, place, rows, rival)
    value = rows.values.get(condition.metric)
    if rows.rows < LEAST_ROWS:
        return Case(place, None, value, note=f"fewer than {LEAST_ROWS} rows")
    if value is None:
        return Case(place, None, note=rows.undefined[condition.metric])
    return _case(condition, place, rows, rival)


def _case(condition: Condition, place: Place, rows: Measured, rival: Rival) -> Case:
    value = rows.values.get(condition.metric)
    if value is None:
        return Case(place, False, note=f"undefined: {rows.undefined[condition.metric]}")
    bound = condition.number
    if condition.champion:
        if not rival.name:
            return Case(place, True, value, note="no champion yet")
        if rival.problem:
            return Case(place, False, value, note=f"{rival.name} cannot be measured on these rows: {rival.problem}")
        theirs = rival.measured[place].values.get(condition.metric)
        if theirs is None:
            return Case(place, False, value, note=f"undefined for {rival.name}")
        bound += theirs
    return Case(place, OPERATORS[condition.operator](value, bound), value, bound)


def _worst(cases: Sequence[Case]) -> Case:
    def margin(case: Case) -> float:
        if case.value is None or case.bound is None:
            return -math.inf if not case.holds else math.inf
        apart = abs(case.value - case.bound)
        return apart if case.holds else -apart

    return min(cases, key=margin)


def _told(condition: Condition, case: Case, rival: Rival) -> str:
    where = f"slice:{case.place[0]}={case.place[1]}." if case.place else ""
    subject = f"{where}{condition.metric}"
    if case.value is None:
        return f"{condition.text} does not hold ({case.note})"
    bound, whose = _number(condition.number), ""
    if condition.champion:
        theirs = f"{_number(case.bound - condition.number)} " if case.bound is not None else ""
        offset = f"{'-' if condition.number < 0 else '+'} {_number(abs(condition.number))} " if condition.number else ""
        bound = f"champion {theirs}{offset}".rstrip()
        whose = f" ({case.note or rival.name})"
    relation = condition.operator if case.holds else f"is not {condition.operator}"
    value = _number(case.value)
    if case.bound is not None and OPERATORS[condition.operator](float(value), case.bound) != case.holds:
        value = repr(case.value)  # as rounded, it would seem to be on the other side of the bound
    return f"{subject} {value} {relation} {bound}{whose}"


def _slices(count: int) -> str:
    return f"{count} slice{'' if count == 1 else 's'}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _refuse(problem: str, remedy: str) -> UserError:
    return UserError(COMPONENT, "gate", problem, remedy)
