"""Tells whether a condition is an expression of CEL, and which inputs it reads.

Platforms evaluate conditions as CEL over the task's ExecutorInput; KFP's compiler writes a small part of it, which the
launcher evaluates, TFX and others more. The grammar is that of the CEL language definition (github.com/google/cel-spec,
doc/langdef.md), without macros' meaning: they are calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>0x[0-9a-fA-F]+u?|(?:\d+\.\d+|\.\d+|\d+)(?:[eE][+-]?\d+)?u?)
    | (?P<string>[bBrR]{0,2}(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
    | (?P<word>[A-Za-z_]\w*)
    | (?P<operator>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])
    )""",
    re.VERBOSE,
)
_LITERALS = ("true", "false", "null")
_RELATIONS = ("==", "!=", "<=", ">=", "<", ">")
_INPUTS = ("parameter_values", "parameters", "artifacts")


class SyntaxProblem(ValueError):
    """Text that is no expression; says where."""


@dataclass
class Expression:
    """What was found in a condition.

    Attributes:
        parameters: Names of the input parameters that it reads.
        artifacts: Names of the input artifacts that it reads.
    """

    parameters: set[str] = field(default_factory=set)
    artifacts: set[str] = field(default_factory=set)


def parse(text: str) -> Expression:
    """Return which inputs an expression reads.

    Raises:
        SyntaxProblem: It is none.
    """
    return _Parser(text).whole()


class _Parser:
    """Recursive descent, by the levels of the grammar: conditional, or, and, relation, sum, product, unary, member."""

    def __init__(self, text: str) -> None:
        self.text, self.next, self.found = text, 0, Expression()
        self.tokens: list[tuple[str, str, int]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if not match:
                self.fail(position)
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()

    def fail(self, position: int | None = None) -> NoReturn:
        at = self.peek()[2] if position is None else position
        near = self.text[at : at + 20].strip() or "its end"
        raise SyntaxProblem(f"the condition {self.text!r} does not parse at {near!r}, character {at + 1}")

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.next] if self.next < len(self.tokens) else ("end", "", len(self.text))

    def take(self, *values: str) -> str:
        kind, value, _ = self.peek()
        if kind in ("operator", "word") and value in values:
            self.next += 1
            return value
        return ""

    def expect(self, value: str) -> None:
        if not self.take(value):
            self.fail()

    def whole(self) -> Expression:
        self.conditional()
        if self.next < len(self.tokens):
            self.fail()
        return self.found

    def conditional(self) -> None:
        self.either()
        if self.take("?"):
            self.either()
            self.expect(":")
            self.conditional()

    def either(self) -> None:
        self.both()
        while self.take("||"):
            self.both()

    def both(self) -> None:
        self.relation()
        while self.take("&&"):
            self.relation()

    def relation(self) -> None:
        self.sum()
        while self.take(*_RELATIONS, "in"):
            self.sum()

    def sum(self) -> None:
        self.product()
        while self.take("+", "-"):
            self.product()

    def product(self) -> None:
        self.unary()
        while self.take("*", "/", "%"):
            self.unary()

    def unary(self) -> None:
        while self.take("!", "-"):
            pass
        self.member()

    def member(self) -> None:
        way = [self.primary()]
        while True:
            if self.take("."):
                kind, value, _ = self.peek()
                if kind != "word":
                    self.fail()
                self.next += 1
                way.append(value)
                if self.take("("):
                    self.arguments(")")
                    way.append("()")
            elif self.take("["):
                kind, value, _ = self.peek()
                self.conditional()
                way.append(_unquoted(value) if kind == "string" else "[]")
                self.expect("]")
            else:
                break
        if way[0] == "inputs" and len(way) > 2 and way[1] in _INPUTS:
            (self.found.artifacts if way[1] == "artifacts" else self.found.parameters).add(way[2])

    def primary(self) -> str:
        kind, value, _ = self.peek()
        self.next += 1
        if kind in ("number", "string") or value in _LITERALS:
            return ""
        if kind == "word" and value != "in":
            if self.take("("):
                self.arguments(")")
                return ""
            return value
        if value == "(":
            self.conditional()
            self.expect(")")
            return ""
        if value == "[":
            self.arguments("]")
            return ""
        if value == "{":
            self.entries()
            return ""
        self.next -= 1
        self.fail()

    def arguments(self, end: str) -> None:
        if self.take(end):
            return
        self.conditional()
        while self.take(","):
            self.conditional()
        self.expect(end)

    def entries(self) -> None:
        while not self.take("}"):
            self.conditional()
            self.expect(":")
            self.conditional()
            if not self.take(","):
                self.expect("}")
                return


def _unquoted(text: str) -> str:
    return text.strip("bBrR").strip("\"'")
