"""Hyperparameters as the user gave them, held to those that the framework knows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.frameworks import Known


def check(given: Mapping[str, Any], known: Known, framework: str) -> dict[str, Any]:
    """Return the hyperparameters by the framework's first names for them, integral floats as integers.

    Args:
        given: JSON values by any name that the framework takes.
        known: What it takes.
        framework: Its name, for messages.

    Raises:
        UserError: A name is unknown, stands for an argument of `train` or is given twice, or a value is not finite.
    """
    checked: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        if name in known.owned:
            raise _refuse(f"{name!r} is an argument of its own", f"Use {known.owned[name]} instead")
        if name not in known.names:
            raise _unknown(name, known, framework)
        if not _finite(value):
            raise _refuse(f"{name} is {value!r}", "Give finite numbers")
        canonical = known.names[name]
        if canonical in checked:
            raise _refuse(f"{names[canonical]!r} and {name!r} are the same hyperparameter", "Give one of them")
        if value is None and not known.none:
            continue
        names[canonical] = name
        checked[canonical] = _whole(value, known, name)
    return checked


def by_place(name: str, value: Any, columns: Sequence[str]) -> Any:
    """Return a constraint on features with column names replaced by the columns' places.

    {"fare": 1} becomes a list with 1 at the place of fare and 0 elsewhere, [["fare", "minutes"]] a list of lists of
    places.

    Raises:
        UserError: A name is no feature.
    """

    def place(column: Any) -> Any:
        if isinstance(column, str) and column not in columns:
            raise _refuse(f"{name} names {column!r}, which is no feature", f"The features are {', '.join(columns)}")
        return columns.index(column) if isinstance(column, str) else column

    if isinstance(value, Mapping):
        given = {place(column): item for column, item in value.items()}
        return [given.get(number, 0) for number in range(len(columns))]
    if isinstance(value, list):
        return [[place(column) for column in item] if isinstance(item, list) else item for item in value]
    return value


def _unknown(name: str, known: Known, framework: str) -> UserError:
    first_names = sorted(set(known.names.values()))
    close = difflib.get_close_matches(name, first_names, n=1) or difflib.get_close_matches(name, known.names, n=1)
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    return _refuse(f"{framework} does not know {name!r}", f"{suggestion}It knows {', '.join(first_names)}")


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return True


def _whole(value: Any, known: Known, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(item, known, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item, known, name) for item in value]
    if isinstance(value, float) and value.is_integer() and known.whole(name, value):
        return int(value)
    return value


def _refuse(problem: str, remedy: str) -> UserError:
    return UserError("train", "hyperparameters", problem, remedy)
