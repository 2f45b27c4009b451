"""Filters of lists as Google's APIs take them (AIP-160), as far as Vertex AI's clients use them."""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.server import ApiError

Resource = Mapping[str, Any]
Predicate = Callable[[Resource], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<sign><=|>=|!=|[=<>:(),])|(?P<word>[^\s"'=<>!:(),]+))"""
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    "<": lambda one, other: bool(one < other),
    "<=": lambda one, other: bool(one <= other),
    ">": lambda one, other: bool(one > other),
    ">=": lambda one, other: bool(one >= other),
}


def predicate(text: str, functions: Mapping[str, Callable[[Resource, str], bool]] | None = None) -> Predicate:
    """Return what tells whether a resource passes a filter.

    Args:
        text: Such as `labels.team=taxi AND state!="PIPELINE_STATE_FAILED"`; empty: everything passes.
        functions: What in_context("…") and the like mean, by name.

    Raises:
        ApiError: the text is no filter.
    """
    if not text.strip():
        return lambda resource: True
    parser = _Parser(text, functions or {})
    found = parser.any_of()
    if parser.here is not None:
        raise parser.error(f"{parser.here[1]!r} is one too many")
    return found


class _Parser:
    def __init__(self, text: str, functions: Mapping[str, Callable[[Resource, str], bool]]) -> None:
        self.text = text
        self.functions = functions
        self.tokens = list(self._tokens())
        self.at = 0

    def _tokens(self) -> Sequence[tuple[str, str]]:
        found, at = [], 0
        while at < len(self.text.rstrip()):
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.error(f"{self.text[at:]!r} cannot be read")
            kind = match.lastgroup or ""
            value = match[kind]
            found.append((kind, re.sub(r"\\(.)", r"\1", value[1:-1]) if kind == "text" else value))
            at = match.end()
        return found

    def error(self, problem: str) -> ApiError:
        return ApiError(400, f"Invalid filter {self.text!r}: {problem}")

    @property
    def here(self) -> tuple[str, str] | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, *wanted: tuple[str, str]) -> tuple[str, str] | None:
        """Return the token that comes next, and pass it, if it is one of those wanted, or if any will do."""
        here = self.here
        if here is None or (wanted and here not in wanted):
            return None
        self.at += 1
        return here

    def any_of(self) -> Predicate:
        parts = [self.all_of()]
        while self.take(("word", "OR")):
            parts.append(self.all_of())
        return lambda resource: any(part(resource) for part in parts)

    def all_of(self) -> Predicate:
        parts = [self.one()]
        while self.here not in (None, ("word", "OR"), ("sign", ")")):
            self.take(("word", "AND"))  # AND may be left out
            parts.append(self.one())
        return lambda resource: all(part(resource) for part in parts)

    def one(self) -> Predicate:
        if self.take(("word", "NOT")):
            inner = self.one()
            return lambda resource: not inner(resource)
        if self.take(("sign", "(")):
            inner = self.any_of()
            if not self.take(("sign", ")")):
                raise self.error("a parenthesis is not closed")
            return inner
        name = self.word("a field")
        if self.take(("sign", "(")):
            return self.call(name)
        if not name.startswith("labels.") and self.here and self.here[0] == "text":
            raise self.error(f"a comparison is missing after {name}")
        sign = self.take(*(("sign", each) for each in (*_SIGNS, ":")))
        if sign is None:
            raise self.error(f"a comparison is missing after {name}")
        values = [self.word("a value")]
        while sign[1] == ":" and self.take(("sign", ",")):
            values.append(self.word("a value"))
        return lambda resource: _compares(look_up(resource, name), sign[1], values)

    def word(self, what: str) -> str:
        found = self.take()
        if found is None or found[0] == "sign":
            raise self.error(f"{what} is missing")
        return found[1]

    def call(self, name: str) -> Predicate:
        if name not in self.functions:
            raise self.error(f"there is no function {name}")
        function, argument = self.functions[name], self.word("what the function is asked")
        if not self.take(("sign", ")")):
            raise self.error("a parenthesis is not closed")
        return lambda resource: function(resource, argument)


def look_up(resource: Any, name: str) -> Any:
    """Return the field of a resource that a dotted name in snake_case or camelCase leads to; None: it is not there."""
    if not isinstance(resource, Mapping):
        return None
    if name in resource:
        return resource[name]
    first, dot, rest = name.partition(".")
    for key in (first, camel(first)):
        if key in resource:
            return look_up(resource[key], rest) if dot else resource[key]
    return None


def camel(name: str) -> str:
    """Return a name in snake_case as JSON has it."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def _compares(value: Any, sign: str, wanted: Sequence[str]) -> bool:
    if sign == ":":
        if isinstance(value, list | tuple):
            return all(each in value for each in wanted)
        if isinstance(value, Mapping):
            return all(each in value for each in wanted)
        if value is None:
            return False
        return all(each == "*" or fnmatch.fnmatchcase(str(value), each) for each in wanted)
    [text] = wanted
    if value is None:
        return sign == "!="
    one, other = _comparable(value, text)
    if sign in ("=", "!=") and isinstance(one, str) and "*" in text:
        return fnmatch.fnmatchcase(one, text) is (sign == "=")
    try:
        return _SIGNS[sign](one, other)
    except TypeError:
        raise ApiError(400, f"Invalid filter: {value!r} cannot be compared with {text!r}") from None


def _comparable(value: Any, text: str) -> tuple[Any, Any]:
    if isinstance(value, bool):
        return str(value).lower(), text.lower()
    if isinstance(value, int | float):
        try:
            return float(value), float(text)
        except ValueError:
            return str(value), text
    try:
        return datetime.datetime.fromisoformat(value), datetime.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return str(value), text
