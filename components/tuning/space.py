"""The search space: one JSON object, whatever backend searches it.

{"eta":       {"type": "float", "low": 0.01, "high": 0.3, "log": true},
 "max_depth": {"type": "int", "low": 2, "high": 10},
 "booster":   {"type": "categorical", "choices": ["gbtree", "dart"]},
 "rate_drop": {"type": "float", "low": 0, "high": 0.5, "step": 0.1, "when": {"booster": ["dart"]}}}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.components._shared.errors import UserError

Value = None | bool | int | float | str

KEYS = {
    "float": {"type", "low", "high", "log", "step", "when"},
    "int": {"type", "low", "high", "log", "step", "when"},
    "categorical": {"type", "choices", "when"},
}
MOST_POINTS = 100_000  # of a grid


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter to search.

    Attributes:
        type: "float", "int" or "categorical".
        low, high: First and last value of a range.
        log: Whether the range is searched by its logarithm.
        step: Distance of values in a range; None: any float, every integer.
        choices: Of a categorical one.
        parent: Hyperparameter on which it depends whether this one is there; empty: it always is.
        values: Those of the parent's at which it is there.
    """

    name: str
    type: str
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    parent: str = ""
    values: tuple[Value, ...] = ()

    def holds(self, value: Value) -> bool:
        """Return whether it can have this value."""
        if self.type == "categorical":
            return _in(value, self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (self.type == "float" or float(value).is_integer())

    def grid(self) -> tuple[Value, ...] | None:
        """Return all its values, None where they cannot be counted."""
        if self.type == "categorical":
            return self.choices
        step = self.step or (1 if self.type == "int" else None)
        if step is None:
            return None
        # Rounded by steps: 0.1 added up twice is not 0.2 times anything.
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        if count > MOST_POINTS:
            return None
        values = [self.low + number * step for number in range(count)]
        return tuple(int(value) if self.type == "int" else float(f"{value:.12g}") for value in values)


@dataclass(frozen=True)
class Space:
    """The parameters, parents before those that depend on them."""

    parameters: tuple[Parameter, ...]

    def active(self, value: Callable[[Parameter], Value]) -> dict[str, Value]:
        """Return a point: the values that `value` gives of the parameters that are there."""
        point: dict[str, Value] = {}
        for parameter in self.parameters:
            parent = parameter.parent
            if not parent or (parent in point and _in(point[parent], parameter.values)):
                point[parameter.name] = value(parameter)
        return point

    def grid(self) -> list[dict[str, Value]]:
        """Return all points, in order.

        Raises:
            UserError: A parameter has more values than can be counted, or the points are too many.
        """
        points: list[dict[str, Value]] = [{}]
        for parameter in self.parameters:
            values = parameter.grid()
            if values is None:
                raise refused(parameter.name, "a grid needs its values", "Give it a step, or list values as choices")
            points = [
                point | extra
                for point in points
                for extra in ([{parameter.name: value} for value in values] if _there(parameter, point) else [{}])
            ]
            if len(points) > MOST_POINTS:
                raise refused(parameter.name, f"the grid has more than {MOST_POINTS:,} points", "Give larger steps")
        return points

    def corners(self) -> Iterator[tuple[str, dict[str, Value]]]:
        """Return points in which every choice and every condition is met once, each with the parameter it is for."""
        parents = {parameter.parent for parameter in self.parameters if parameter.parent}

        def start(parameter: Parameter) -> Value:
            return parameter.choices[0] if parameter.type == "categorical" else _number(parameter, parameter.low)

        options = {
            parameter.name: parameter.choices if parameter.type == "categorical" else _mentioned(self, parameter)
            for parameter in self.parameters
            if parameter.name in parents
        }
        for chosen in itertools.islice(itertools.product(*options.values()), 10_000):
            told = dict(zip(options, chosen, strict=True))
            base = self.active(lambda parameter, told=told: told.get(parameter.name, start(parameter)))  # type: ignore[misc]
            yield next(reversed(base)), base
            for parameter in self.parameters:
                if parameter.name in base and parameter.name not in parents:
                    others = parameter.choices[1:] if parameter.type == "categorical" else ()
                    yield from ((parameter.name, base | {parameter.name: other}) for other in others)

    def description(self) -> dict[str, Any]:
        """Return the JSON object again, every key in its one form."""
        return {parameter.name: _description(parameter) for parameter in self.parameters}


def parse(space: Mapping[str, Any]) -> Space:
    """Return the space that a JSON object describes.

    Raises:
        UserError: It is not one; the parameter is named.
    """
    if not isinstance(space, Mapping) or not space:
        raise UserError(
            "tune",
            "space",
            "it names no hyperparameter",
            'Give some: {"eta": {"type": "float", "low": 0.01, …}}',
        )
    found = {name: _parameter(name, given) for name, given in space.items()}
    for parameter in found.values():
        if parameter.parent and parameter.parent not in found:
            raise refused(
                parameter.name,
                f"its condition names {parameter.parent!r}, which is not in the space",
                f"The space has {', '.join(found)}",
            )
    ordered: list[Parameter] = []
    waiting = list(found.values())
    while waiting:
        ready = [each for each in waiting if not each.parent or any(each.parent == one.name for one in ordered)]
        if not ready:
            raise refused(waiting[0].name, "its condition depends on itself", "Take it out of the circle")
        for parameter in ready:
            _check_condition(parameter, found)
        ordered += ready
        waiting = [each for each in waiting if each not in ready]
    return Space(tuple(ordered))


def refused(name: str, problem: str, remedy: str) -> UserError:
    """Return an error about a parameter of the space."""
    return UserError("tune", "space", f"{name}: {problem}", remedy)


def _parameter(name: str, given: Any) -> Parameter:
    if not isinstance(given, Mapping):
        raise refused(name, f"it is {given!r}", 'Describe it, such as {"type": "int", "low": 2, "high": 10}')
    kind = given.get("type")
    if kind not in KEYS:
        raise refused(name, f"type {kind!r} is unknown", f"Choose one of {', '.join(KEYS)}")
    strange = [key for key in given if key not in KEYS[kind]]
    if strange:
        raise refused(name, f"{strange[0]!r} means nothing of type {kind}", f"It takes {', '.join(sorted(KEYS[kind]))}")
    parent, values = _condition(name, given.get("when"))
    if kind == "categorical":
        return Parameter(name, kind, choices=_choices(name, given.get("choices")), parent=parent, values=values)
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise refused(name, f"log is {log!r}", "Give true or false")
    low, high = (_bound(name, kind, key, given.get(key)) for key in ("low", "high"))
    if low > high:
        raise refused(name, f"the range from {low:g} to {high:g} is empty", "Give a low below the high")
    if log and low <= 0:
        raise refused(name, f"log needs a range above 0, and low is {low:g}", "Raise low, or leave log out")
    step = None if given.get("step") is None else _bound(name, kind, "step", given["step"])
    if step is not None and (step <= 0 or log):
        problem = "step and log exclude each other" if log else f"step is {step:g}"
        raise refused(name, problem, "Leave one out" if log else "Give a number above 0")
    return Parameter(name, kind, low, high, log, step, parent=parent, values=values)


def _bound(name: str, kind: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refused(name, f"{key} is {value!r}" if value is not None else f"{key} is missing", "Give a number")
    if kind == "int":
        if not float(value).is_integer():
            raise refused(name, f"{key} is {value!r}, which is no integer", "Give a whole number, or type float")
        return int(value)
    return float(value)


def _choices(name: str, given: Any) -> tuple[Value, ...]:
    if not isinstance(given, list | tuple) or not given:
        raise refused(name, "it has no choices", "Give a list of values")
    for value in given:
        if not isinstance(value, Value):
            raise refused(
                name, f"the choice {value!r} is no single value", "Choices are text, numbers, true, false or null"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise refused(name, f"the choice {value!r} is not finite", "Give finite numbers")
    choices = tuple(_plain(value) for value in given)
    texts = [str(value) for value in choices]
    if len(set(texts)) < len(texts):
        raise refused(name, "two choices read the same", "Give each once")
    return choices


def _condition(name: str, given: Any) -> tuple[str, tuple[Value, ...]]:
    if given is None:
        return "", ()
    if not isinstance(given, Mapping) or len(given) != 1:
        raise refused(name, f"its condition is {given!r}", 'Name one other: "when": {"booster": ["dart"]}')
    ((parent, values),) = given.items()
    values = values if isinstance(values, list | tuple) else [values]
    if not values:
        raise refused(name, f"its condition on {parent!r} has no values", "List those at which it is there")
    return parent, tuple(_plain(value) for value in values)


def _check_condition(parameter: Parameter, found: Mapping[str, Parameter]) -> None:
    if not parameter.parent:
        return
    parent = found[parameter.parent]
    if parent.type == "float":
        raise refused(
            parameter.name,
            f"its condition is on {parent.name!r}, a float, which never is exactly one value",
            "Make it depend on a categorical or an int",
        )
    for value in parameter.values:
        if not parent.holds(value):
            known = ", ".join(map(repr, parent.choices)) or f"integers from {parent.low} to {parent.high}"
            raise refused(parameter.name, f"{parent.name!r} is never {value!r}", f"It is one of {known}")


def _description(parameter: Parameter) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": parameter.type}
    if parameter.type == "categorical":
        entry["choices"] = list(parameter.choices)
    else:
        entry |= {"low": parameter.low, "high": parameter.high, "log": parameter.log, "step": parameter.step}
    return entry | ({"when": {parameter.parent: list(parameter.values)}} if parameter.parent else {})


def _mentioned(space: Space, parent: Parameter) -> tuple[Value, ...]:
    mentioned = [value for each in space.parameters if each.parent == parent.name for value in each.values]
    return tuple(dict.fromkeys([_number(parent, parent.low), *mentioned]))


def _there(parameter: Parameter, point: Mapping[str, Value]) -> bool:
    return not parameter.parent or (parameter.parent in point and _in(point[parameter.parent], parameter.values))


def _number(parameter: Parameter, value: float) -> Value:
    return int(value) if parameter.type == "int" else value


def _plain(value: Any) -> Any:
    """Return 6 for 6.0: engines hand over the integers of an object as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in(value: Value, values: tuple[Value, ...]) -> bool:
    # In Python True is 1.
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)
