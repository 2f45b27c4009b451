"""Lists of Kubeflow Pipelines: filters, orders, pages."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.testing.server import ApiError, Request

Resource = Mapping[str, Any]

_PAGE = 20  # resources a page where a client asks for no other number
_LARGEST_PAGE = 200
_OPERATIONS: dict[Any, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda one, other: bool(one == other),
    "NOT_EQUALS": lambda one, other: bool(one != other),
    "GREATER_THAN": lambda one, other: bool(one > other),
    "GREATER_THAN_EQUALS": lambda one, other: bool(one >= other),
    "LESS_THAN": lambda one, other: bool(one < other),
    "LESS_THAN_EQUALS": lambda one, other: bool(one <= other),
    "IN": lambda one, other: one in other,
    "IS_SUBSTRING": lambda one, other: str(other) in str(one),
}
_NUMBERS = {
    1: "EQUALS", 2: "NOT_EQUALS", 3: "GREATER_THAN", 5: "GREATER_THAN_EQUALS", 6: "LESS_THAN", 7: "LESS_THAN_EQUALS",
    8: "IN", 9: "IS_SUBSTRING",
}  # fmt: skip
_VALUES = (
    "stringValue", "intValue", "longValue", "timestampValue", "stringValues", "intValues", "longValues",
    "string_value", "int_value", "long_value", "timestamp_value", "string_values", "int_values", "long_values",
)  # fmt: skip


def listed(noun: str, found: Iterable[Resource], request: Request, fields: Sequence[str]) -> dict[str, Any]:
    """Return the answer to a list, as the request filters, sorts and pages it.

    Args:
        noun: What the answer calls the resources.
        found: All there are, the oldest first.
        fields: Those that a filter may name, and an order.

    Raises:
        ApiError: the filter, the order or the page is none.
    """
    passing = [each for each in found if _passes(each, request.query.get("filter", ""), fields)]
    ordered = _ordered(passing, request.query.get("sort_by", "") or "created_at", fields)
    try:
        size = min(int(request.query.get("page_size") or _PAGE) or _PAGE, _LARGEST_PAGE)
        start = int(base64.b64decode(request.query.get("page_token", "")) or b"0")
    except ValueError as error:
        raise ApiError(400, f"Invalid page_size or page_token: {error}") from error
    if size < 0:
        raise ApiError(400, f"The page size should be greater than 0. Got {size}")
    answer: dict[str, Any] = {"total_size": len(ordered)}
    if page := ordered[start : start + size]:
        answer[noun] = page
    if start + size < len(ordered):
        answer["next_page_token"] = base64.b64encode(str(start + size).encode()).decode()
    return answer


def _passes(resource: Resource, text: str, fields: Sequence[str]) -> bool:
    if not text:
        return True
    try:
        predicates = json.loads(text).get("predicates", [])
    except (ValueError, AttributeError) as error:
        raise ApiError(400, f"Invalid filter: {text!r} is not JSON with predicates") from error
    return all(_holds(resource, predicate, fields) for predicate in predicates)


def _holds(resource: Resource, predicate: Mapping[str, Any], fields: Sequence[str]) -> bool:
    key = _field(predicate.get("key", ""), fields)
    asked = predicate.get("operation", predicate.get("op"))
    operation = _OPERATIONS.get(_NUMBERS.get(asked, asked) if isinstance(asked, int) else asked)
    if operation is None:
        raise ApiError(400, f"Invalid filter: there is no operation {asked!r}; there are {', '.join(_OPERATIONS)}")
    given = [predicate[name] for name in _VALUES if name in predicate]
    if len(given) != 1:
        raise ApiError(400, f"Invalid filter: {key} needs one value, such as stringValue")
    wanted, value = given[0], resource.get(key)
    if isinstance(wanted, Mapping):
        wanted = wanted.get("values", [])
    if value is None:
        return operation is _OPERATIONS["NOT_EQUALS"]
    if key.endswith("_at"):
        value, wanted = _time(value), _time(wanted)
    try:
        return operation(value, wanted)
    except TypeError as error:
        raise ApiError(400, f"Invalid filter: {key}: {error}") from error


def _time(text: Any) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise ApiError(400, f"Invalid filter: {text!r} is no time, such as 2026-01-31T12:00:00Z") from None


def _field(name: str, fields: Sequence[str]) -> str:
    if name == "name" and "display_name" in fields:  # what the first API called it
        name = "display_name"
    if name == "id":
        name = fields[0]
    if name not in fields:
        raise ApiError(400, f"Invalid field: {name!r}; there are {', '.join(fields)}")
    return name


def _ordered(found: list[Resource], order: str, fields: Sequence[str]) -> list[Resource]:
    words = order.split()
    if len(words) > 2 or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
        raise ApiError(400, f"Invalid sort_by: {order!r}; for example 'created_at desc'")
    name = _field(words[0], fields)
    ordered = sorted(found, key=lambda each: str(each.get(name, "")))
    return ordered[::-1] if len(words) == 2 and words[1].lower() == "desc" else ordered
