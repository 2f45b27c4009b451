"""Runs one task of a compiled KFP pipeline where KFP itself is not there to do it.

One file, the standard library only, Python 3.8 or later: the local engine imports it, other targets ship it as it is.
It holds the meaning of a task: its condition, its inputs, the placeholders of its command, what its outputs must be.

As a script, `python launcher.py job.json` runs what `Job.from_json` reads and writes what came of it, as JSON.
"""

from __future__ import annotations

import contextlib
import decimal
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol, Tuple  # noqa: UP035 Python 3.8 evaluates it below

if TYPE_CHECKING:
    from typing import TypeAlias

LARGEST_INTEGER = 2**53 - 1  # what a double, and so every KFP backend, can hold
OWN_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: the launcher's refusal, not the command's failure
USER_ERROR_EXIT_CODE = 65  # a component says so when its user can mend the error; its message is the line "error: …"

# Artifacts that may be nothing but metadata.
METADATA_ONLY = ("system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics")

_LOG_TAIL = 1 << 16
_LONGEST_TEMPORARY = 64


class TaskError(Exception):
    """Why a task cannot run or has failed, in one line that names it.

    Attributes:
        exit_code: Exit code of its command; None where that is not the reason.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


class Stopped(Exception):
    """The task was stopped from outside."""


# What a task is


@dataclass(frozen=True)
class Parameter:
    """A parameter port; `type` by the IR's names, such as "NUMBER_INTEGER".

    Attributes:
        typed: Whether it is one of schema 2.0.0, whose programs read values with their types.
    """

    type: str
    default: Any = None
    optional: bool = False
    literals: Sequence[Any] = ()
    typed: bool = False


@dataclass(frozen=True)
class ArtifactPort:
    """An artifact port; `type` is the IR's ArtifactTypeSchema, {"schemaTitle": …, "schemaVersion": …}."""

    type: Mapping[str, str]
    is_list: bool = False
    optional: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A task of a compiled pipeline: the ports of its component, its command, how often it is tried.

    Attributes:
        retries: Attempts after the first.
        wait: Seconds before the second attempt; grows by `factor` up to `longest_wait`.
        timeout: Seconds that an attempt may take; None: any.
        before: A command to run first, with the same input; what it says of outputs holds for the command, too.
    """

    name: str
    command: Sequence[str]
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    input_parameters: Mapping[str, Parameter] = field(default_factory=dict)
    input_artifacts: Mapping[str, ArtifactPort] = field(default_factory=dict)
    output_parameters: Mapping[str, Parameter] = field(default_factory=dict)
    output_artifacts: Mapping[str, ArtifactPort] = field(default_factory=dict)
    retries: int = 0
    wait: float = 0.0
    factor: float = 2.0
    longest_wait: float = 3600.0
    timeout: float | None = None
    before: Sequence[str] = ()


@dataclass(frozen=True)
class Artifact:
    """An artifact; `uri` is a path where it is here, `type` as in ArtifactPort."""

    name: str
    type: Mapping[str, str]
    uri: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def runtime(self) -> dict[str, Any]:
        """Return it as KFP's RuntimeArtifact."""
        return {"name": self.name, "type": dict(self.type), "uri": self.uri, "metadata": dict(self.metadata)}


@dataclass(frozen=True)
class Outputs:
    """What a task gave: parameters by name, artifacts by name."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


# Conditions


Expression = Tuple[Any, ...]  # noqa: UP006 ("==", left, right), ("input", name), ("literal", value), …

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<input>inputs\.parameter_values\[(?:'(?P<single>[^'\]]+)'|"(?P<double>[^"\]]+)")\])
    | inputs\.artifacts\[(?:'(?P<a_single>[^'\]]+)'|"(?P<a_double>[^"\]]+)")\]\.artifacts\[0\]
      (?P<artifact>\.uri|\.metadata\[(?:'(?P<k_single>[^'\]]+)'|"(?P<k_double>[^"\]]+)")\])
    | (?P<number>-?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
    | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    | (?P<word>[A-Za-z_]\w*)
    | (?P<operator>&&|\|\||==|!=|<=|>=|<|>|!|\(|\))
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPED = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}


class ConditionError(ValueError):
    """A condition that does not parse, or cannot be evaluated over the values it meets."""


def parse_condition(text: str) -> Expression:
    """Return the tree of a condition as the compilers of KFP and TFX write them, a subset of CEL.

    Raises:
        ConditionError: it is not in that subset.
    """
    return _Parser(text).whole()


def condition_inputs(expression: Expression) -> frozenset[str]:
    """Return the names of the inputs that a condition reads, parameters and artifacts."""
    if expression[0] in ("input", "artifact"):
        return frozenset([expression[1]])
    parts = [condition_inputs(part) for part in expression[1:] if isinstance(part, tuple)]
    return frozenset().union(*parts)


def evaluate(
    expression: Expression, parameters: Mapping[str, Any], artifacts: Mapping[str, Sequence[Artifact]] | None = None
) -> Any:
    """Return the value of a condition's tree over a task's inputs.

    Integers and doubles compare by value; values of different kinds are unequal and have no order, nor have lists and
    objects.

    Raises:
        ConditionError: an input has no value, or an operator meets values that it does not take.
    """
    kind = expression[0]
    if kind == "literal":
        return expression[1]
    if kind == "input":
        if expression[1] not in parameters:
            raise ConditionError(f"input {expression[1]} has no value")
        return parameters[expression[1]]
    if kind == "artifact":
        return _of_artifact(expression[1], expression[2], artifacts or {})
    if kind in ("&&", "||"):
        decided, problem = kind == "||", None
        for part in expression[1:]:
            try:
                if _boolean(kind, evaluate(part, parameters, artifacts)) is decided:
                    return decided
            except ConditionError as error:
                problem = problem or error
        if problem:  # as in CEL, it does not count where another part decides
            raise problem
        return not decided
    values = [evaluate(part, parameters, artifacts) for part in expression[1:]]
    if kind == "!":
        return not _boolean("!", values[0])
    if kind in ("int", "double"):
        return _converted(kind, values[0])
    left, right = values
    alike = _kind(left) == _kind(right)
    if kind in ("==", "!="):
        return _COMPARE[kind](left, right) if alike else kind == "!="
    if alike and isinstance(left, (bool, int, float, str)):
        return _COMPARE[kind](left, right)
    raise ConditionError(f"{_shown(left)} {kind} {_shown(right)} compares {_kind(left)} with {_kind(right)}")


def condition_holds(
    text: str, parameters: Mapping[str, Any], artifacts: Mapping[str, Sequence[Artifact]] | None = None
) -> bool:
    """Return whether a condition holds for a task's inputs.

    Raises:
        ConditionError: it does not parse, or cannot be evaluated.
    """
    return _boolean("the condition", evaluate(parse_condition(text), parameters, artifacts))


def _of_artifact(name: str, key: str, artifacts: Mapping[str, Sequence[Artifact]]) -> Any:
    """Return what a condition reads of an input artifact: a value of its metadata, or its URI where there is no key."""
    if not artifacts.get(name):
        raise ConditionError(f"input {name} has no artifact")
    artifact = artifacts[name][0]
    if not key:
        return artifact.uri
    if key not in artifact.metadata:
        raise ConditionError(f"the artifact of input {name} has no metadata {key!r}")
    return artifact.metadata[key]


class _Parser:
    """Recursive descent: or, and, not, comparison, operand."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, Any, int]] = []
        self.next = 0
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if not match:
                self.fail(position)
            kind = str(match.lastgroup)
            value: Any = match.group(kind)
            if kind == "input":
                value = match.group("single") or match.group("double")
            elif kind == "artifact":
                key = match.group("k_single") or match.group("k_double") or ""
                value = (match.group("a_single") or match.group("a_double"), key)
            self.tokens.append((kind, value, match.start(kind)))
            position = match.end()

    def fail(self, position: int) -> NoReturn:
        near = self.text[position : position + 20].strip() or "its end"
        raise ConditionError(f"the condition {self.text!r} does not parse at {near!r}, character {position + 1}")

    def peek(self) -> tuple[str, Any, int]:
        return self.tokens[self.next] if self.next < len(self.tokens) else ("end", None, len(self.text))

    def take(self, *operators: str) -> str | None:
        kind, value, _ = self.peek()
        if kind == "operator" and value in operators:
            self.next += 1
            return str(value)
        return None

    def expect(self, operator: str) -> None:
        if not self.take(operator):
            self.fail(self.peek()[2])

    def whole(self) -> Expression:
        expression = self.either()
        if self.next < len(self.tokens):
            self.fail(self.peek()[2])
        return expression

    def either(self) -> Expression:
        parts = [self.both()]
        while self.take("||"):
            parts.append(self.both())
        return ("||", *parts) if len(parts) > 1 else parts[0]

    def both(self) -> Expression:
        parts = [self.comparison()]
        while self.take("&&"):
            parts.append(self.comparison())
        return ("&&", *parts) if len(parts) > 1 else parts[0]

    def comparison(self) -> Expression:
        left = self.unary()
        operator = self.take(*_COMPARE)
        return (operator, left, self.unary()) if operator else left

    def unary(self) -> Expression:
        return ("!", self.unary()) if self.take("!") else self.operand()

    def operand(self) -> Expression:
        if self.take("("):
            inner = self.either()
            self.expect(")")
            return inner
        kind, value, position = self.peek()
        self.next += 1
        if kind == "input":
            return ("input", value)
        if kind == "artifact":
            return ("artifact", *value)
        if kind == "number":
            return ("literal", float(value) if re.search(r"[.eE]", value) else int(value))
        if kind == "string":
            return ("literal", _ESCAPE.sub(lambda match: self.unescape(match, position), value[1:-1]))
        if kind == "word" and value in ("true", "false"):
            return ("literal", value == "true")
        if kind == "word" and value in ("int", "double"):
            self.expect("(")
            inner = self.either()
            self.expect(")")
            return (value, inner)
        self.fail(position)

    def unescape(self, match: re.Match[str], position: int) -> str:
        short, four, eight, octal, letter = match.groups()
        if letter is None:
            code = int(octal, 8) if octal else int(short or four or eight, 16)
            if code <= 0x10FFFF:
                return chr(code)
        elif letter in _ESCAPED:
            return _ESCAPED[letter]
        self.fail(position)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _shown(value: Any, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _boolean(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConditionError(f"{what} needs a boolean, not {_shown(value)}")
    return value


def _converted(kind: str, value: Any) -> int | float:
    convert: Any = int if kind == "int" else float
    if isinstance(value, str) and not re.fullmatch(
        r"[+-]?\d+" if kind == "int" else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value
    ):
        raise ConditionError(f"{kind}({_shown(value)}): not a number")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ConditionError(f"{kind}({_shown(value)}): {_kind(value)} is not a number")
    try:
        return convert(value)  # type: ignore[no-any-return]
    except (OverflowError, ValueError) as error:
        raise ConditionError(f"{kind}({_shown(value)}): {error}") from error


# Values


_SELECTOR = re.compile(r"\s*parseJson\(string_value\)((?:\[(?:\"[^\"]*\"|'[^']*'|\d+)\])+)\s*")
_SELECTED = re.compile(r"\[(?:\"([^\"]*)\"|'([^']*)'|(\d+))\]")

# How Go's strconv.ParseBool, which reads the output files on Kubeflow, understands a boolean.
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_TYPE_NAMES = {
    "STRING": "text",
    "NUMBER_INTEGER": "an integer",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "a boolean",
    "LIST": "a list",
    "STRUCT": "an object",
    "TASK_FINAL_STATUS": "a final status",
    "TASK_CONFIG": "a task configuration",
}
_PLAIN_TYPES = {"BOOLEAN": bool, "LIST": list, "STRUCT": dict, "TASK_FINAL_STATUS": dict, "TASK_CONFIG": dict}


def selector_path(selector: str) -> tuple[str | int, ...]:
    """Return the keys that a parameterExpressionSelector follows: the compiler writes parseJson(string_value)["key"].

    Raises:
        ValueError: it is another expression.
    """
    match = _SELECTOR.fullmatch(selector)
    if not match:
        raise ValueError(f"the selector {selector!r} does not parse")
    found = _SELECTED.findall(match.group(1))
    return tuple(int(index) if index else double or single for double, single, index in found)


def select(value: Any, selector: str) -> Any:
    """Return the part of a value, or of the JSON text it is, that a selector names.

    Raises:
        ValueError: the selector does not parse, or the value has no such part.
    """
    for key in selector_path(selector):
        if isinstance(value, str):
            value = json.loads(value)
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{_shown(value)} has no {key!r}") from None
    return value


def check_value(value: Any, kind: str, *, lenient: bool = False) -> Any:
    """Return a value as its type wants it; an integral double is an integer where one is expected, and the reverse.

    Args:
        value: JSON value.
        kind: The IR's name of the type.
        lenient: Whether text takes any value, as JSON text; so it is for inputs.

    Raises:
        ValueError: it is of another type, not finite, or an integer beyond 2^53-1; the message lacks the name.
    """
    check_json(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "STRING":
        if isinstance(value, str):
            return value
        if lenient and value is not None:
            return to_text(value)
    elif kind == "NUMBER_INTEGER" and is_number:
        if isinstance(value, int) or value.is_integer():
            if abs(value) > LARGEST_INTEGER:
                raise ValueError(f"{value} is beyond 2^53-1, which no KFP backend can hold; give it as text")
            return int(value)
    elif kind == "NUMBER_DOUBLE" and is_number:
        return float(value)
    elif kind in _PLAIN_TYPES and isinstance(value, _PLAIN_TYPES[kind]):
        return value
    raise ValueError(f"expected {_TYPE_NAMES.get(kind, kind)}, got {_kind(value)}: {_shown(value)}")


def check_json(value: Any) -> None:
    """Refuse, at any depth, what JSON or a double cannot carry.

    Raises:
        ValueError: NaN, an infinity, an integer beyond 2^53-1, a key that is not text, or no JSON value at all.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError(f"{value} is beyond 2^53-1, which no KFP backend can hold; give it as text")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not text")
            check_json(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_json(item)
    elif not (value is None or isinstance(value, (str, int, float))):
        raise ValueError(f"{type(value).__name__} is not a JSON value")


def to_text(value: Any) -> str:
    """Return how a command line shows a value: numbers without exponent or trailing zeros, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        number = format(decimal.Decimal(repr(value)), "f")
        return number.rstrip("0").rstrip(".") if "." in number else number
    return json.dumps(value)


def from_text(text: str, kind: str) -> Any:
    """Return the value that a file of an output parameter holds.

    Raises:
        ValueError: the text is no such value.
    """
    if kind == "STRING":
        return text
    text = text.strip()
    if kind == "BOOLEAN":
        if text not in _BOOLEANS:
            raise ValueError(f"expected true or false, got {_shown(text)}")
        return _BOOLEANS[text]
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError(f"expected {_TYPE_NAMES.get(kind, kind)}, got {_shown(text)}") from None
    return check_value(value, kind)


# Placeholders


_PLACEHOLDER = re.compile(r"\{\{\$((?:\.[A-Za-z_]\w*|\['[^']*'\]|\[\"[^\"]*\"\])*)\}\}")
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\['([^']*)'\]|\[\"([^\"]*)\"\]")
CHOICE = re.compile(r'\s*\{\s*"(?:Concat|IfPresent)"\s*:')  # begins an element of a command
_VARIABLE = re.compile(r"(\$?)\$\(([A-Za-z_.-][\w.-]*)\)")


def placeholders(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the placeholders in a text as their steps: () for {{$}}, ("inputs", "parameters", "x"), …"""
    for match in _PLACEHOLDER.finditer(text):
        yield _steps(match)


def fill(value: Any, executor_input: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """Return a constant of the spec with its placeholders replaced, also inside lists and dicts.

    A text that is one placeholder and nothing else becomes the value itself, not its text.
    """
    if isinstance(value, dict):
        return {fill(key, executor_input, names): fill(item, executor_input, names) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, executor_input, names) for item in value]
    if not isinstance(value, str) or "{{$" not in value:
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole and _steps(whole)[:2] == ("inputs", "parameters"):
        found = executor_input.get("inputs", {}).get("parameterValues", {})
        if _steps(whole)[2] in found:
            return found[_steps(whole)[2]]
    return fill_text(value, executor_input, names)


def fill_text(text: str, executor_input: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return a text with its placeholders replaced, once: what they bring in is not looked through again.

    Args:
        text: An element of a command, or a constant.
        executor_input: KFP's ExecutorInput as JSON.
        names: What is not in there, such as pipeline_job_name.

    Raises:
        TaskError: a placeholder refers to an input that has no value.
    """

    def replaced(match: re.Match[str]) -> str:
        steps = _steps(match)
        if not steps:
            return json.dumps(executor_input)
        if len(steps) == 1:
            return names.get(steps[0], match.group())
        if steps in (("outputs", "output_file"), ("outputMetadataUri",)):
            return str(executor_input["outputs"]["outputFile"])
        return _port_value(steps, executor_input, match.group())

    return _PLACEHOLDER.sub(replaced, text)


def command_line(
    task: Task, executor_input: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[list[str], list[str], dict[str, str]]:
    """Return a task's command, its arguments and its own environment variables, with nothing left to replace.

    Raises:
        TaskError: a placeholder refers to an input that has no value.
    """
    env = {name: fill_text(value, executor_input, names) for name, value in task.env.items()}
    inputs = executor_input.get("inputs", {})
    present = {name for name, value in inputs.get("parameterValues", {}).items() if value is not None}
    present.update(name for name, value in inputs.get("artifacts", {}).items() if value)

    def filled(elements: Sequence[str]) -> list[str]:
        parts = [part for element in elements for part in _chosen(_expanded(element, env), present)]
        return [fill_text(part, executor_input, names) for part in parts]

    return filled(task.command), filled(task.args), env


def _steps(match: re.Match[str]) -> tuple[str, ...]:
    return tuple(a or b or c for a, b, c in _STEP.findall(match.group(1)))


def _expanded(element: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) of the task's own variables as Kubernetes does; $$(NAME) stands for itself."""

    def value(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return match.group()[1:] if name in env else match.group()
        return env.get(name, match.group())

    return _VARIABLE.sub(value, element) if env else element


def _chosen(element: str, present: set[str]) -> list[str]:
    """Return the elements that stand for one of a command: Concat joined, IfPresent decided."""
    if not CHOICE.match(element):
        return [element]
    try:
        struct = json.loads(element)
    except ValueError:
        return [element]
    return _struct(struct, present) if isinstance(struct, dict) and len(struct) == 1 else [element]


def _struct(struct: Any, present: set[str]) -> list[str]:
    if isinstance(struct, str):
        return [struct]
    if isinstance(struct, list):
        return [part for item in struct for part in _struct(item, present)]
    if "Concat" in struct:
        return ["".join(_struct(struct["Concat"], present))]
    branch = struct["IfPresent"]
    chosen = branch["Then"] if branch["InputName"] in present else branch.get("Else")
    return [] if chosen is None else _struct(chosen, present)


def _port_value(steps: tuple[str, ...], executor_input: Mapping[str, Any], text: str) -> str:
    side, kind, name, rest = steps[0], steps[1], steps[2] if len(steps) > 2 else "", steps[3:]
    ports = executor_input.get(side, {})
    if side == "inputs" and kind == "parameters" and not rest:
        values = ports.get("parameterValues", {})
        if values.get(name) is None:
            raise TaskError(f"the placeholder {text} refers to the input {name!r}, which has no value")
        return to_text(values[name])
    if side == "outputs" and kind == "parameters" and rest == ("output_file",):
        if name in ports.get("parameters", {}):
            return str(ports["parameters"][name]["outputFile"])
    elif kind == "artifacts" and side in ("inputs", "outputs"):
        artifacts = ports.get("artifacts", {}).get(name, {}).get("artifacts", [])
        if not artifacts:
            raise TaskError(f"the placeholder {text} refers to the artifact {name!r}, which is not there")
        if not rest:
            return json.dumps(artifacts)
        if rest in (("uri",), ("path",)):
            return str(artifacts[0]["uri"])
        if rest == ("value",):
            return _content(str(artifacts[0]["uri"]), text)
        if rest[0] == "metadata":
            metadata = artifacts[0].get("metadata", {})
            if len(rest) == 1:
                return json.dumps(metadata)
            if rest[1] in metadata:
                return to_text(metadata[rest[1]])
            raise TaskError(f"the placeholder {text}: the artifact {name!r} has no metadata {rest[1]!r}")
    return text


def _content(uri: str, placeholder: str) -> str:
    """Return the text of an artifact that is a value: of the file, or of the file of that name in the folder."""
    path = Path(uri)
    try:
        return (path / "value" if path.is_dir() else path).read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise TaskError(f"the placeholder {placeholder}: {uri} cannot be read as a value: {error}") from error


# Inputs and outputs


def bind(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a task's input parameters, checked and with defaults filled in.

    Values of names that the task does not declare pass unchecked: constants refer to them.

    Raises:
        TaskError: a value is missing or of another type.
    """
    values = {name: value for name, value in parameters.items() if value is not None}
    for name, port in task.input_parameters.items():
        if name not in values:
            if port.default is not None:
                values[name] = port.default
            elif not port.optional:
                raise TaskError(f"{task.name}: input {name!r}: has no value")
            else:
                continue
        try:
            values[name] = check_value(values[name], port.type, lenient=True)
        except ValueError as error:
            raise TaskError(f"{task.name}: input {name!r}: {error}") from error
        if port.literals and values[name] not in port.literals:
            allowed = ", ".join(repr(literal) for literal in port.literals)
            raise TaskError(f"{task.name}: input {name!r}: {values[name]!r} is not one of {allowed}")
    return values


def executor_input(
    task: Task, parameters: Mapping[str, Any], artifacts: Mapping[str, Sequence[Artifact]], outputs: Path
) -> dict[str, Any]:
    """Return KFP's ExecutorInput, as JSON.

    Args:
        task: The task.
        parameters: Values as `bind` returns them.
        artifacts: Input artifacts by port.
        outputs: Folder that outputs go to, each by its port's name.

    Raises:
        TaskError: an artifact is missing, or there are several where one is expected.
    """
    for name, port in task.input_artifacts.items():
        found = len(artifacts.get(name, ()))
        if not found and not port.optional and not port.is_list:
            raise TaskError(f"{task.name}: input {name!r}: has no artifact")
        if found > 1 and not port.is_list:
            raise TaskError(f"{task.name}: input {name!r}: takes one artifact, was given {found}")
    typed = {
        name: _typed(parameters[name], port.type)
        for name, port in task.input_parameters.items()
        if port.typed and parameters.get(name) is not None
    }
    return {
        "inputs": {
            "parameterValues": dict(parameters),
            **({"parameters": typed} if typed else {}),
            "artifacts": {
                name: {"artifacts": [item.runtime() for item in items]}
                for name, items in artifacts.items()
                if items or (name in task.input_artifacts and task.input_artifacts[name].is_list)
            },
        },
        "outputs": {
            "parameters": {name: {"outputFile": str(outputs / name)} for name in task.output_parameters},
            "artifacts": {
                name: {"artifacts": [Artifact(name, port.type, str(outputs / name), port.metadata).runtime()]}
                for name, port in task.output_artifacts.items()
            },
            "outputFile": str(outputs / "executor_output.json"),
        },
    }


def _typed(value: Any, kind: str) -> dict[str, Any]:
    """Return a value in the form of schema 2.0.0, whose JSON has 64-bit integers as text."""
    if kind == "NUMBER_INTEGER":
        return {"intValue": str(value)}
    return {"doubleValue": value} if kind == "NUMBER_DOUBLE" else {"stringValue": value}


def collect(task: Task, given: Mapping[str, Any]) -> Outputs:
    """Return what a task's command left, checked against what the task declares. Only artifacts stay on disk.

    Args:
        task: The task.
        given: The ExecutorInput that its command was given.

    Raises:
        TaskError: an output is missing, empty, of another type, or holds what no KFP backend can.
    """
    file = Path(given["outputs"]["outputFile"])
    said = _said(task, file)
    outputs = Outputs(
        {name: _output_parameter(task, name, given, said) for name in task.output_parameters},
        {name: _output_artifact(task, name, given, said) for name in task.output_artifacts},
    )
    for written in (file, *(Path(port["outputFile"]) for port in given["outputs"]["parameters"].values())):
        with contextlib.suppress(FileNotFoundError):
            written.unlink()
    return outputs


def _said(task: Task, file: Path) -> dict[str, Any]:
    said = _written(task, file)
    for kind, ports in (("parameterValues", task.output_parameters), ("artifacts", task.output_artifacts)):
        unknown = sorted(set(said.get(kind, {})) - set(ports))
        if unknown:
            known = ", ".join(ports) or "none"
            raise TaskError(f"{task.name}: output {unknown[0]!r}: was written but is not declared; declared: {known}")
    return said


def _written(task: Task, file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        said = json.loads(text)
    except ValueError as error:
        raise TaskError(f"{task.name}: wrote an executor output that is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise TaskError(f"{task.name}: wrote an executor output that is not an object")
    return said


def _updated(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ExecutorInput with what the command before the task's own said of the output artifacts."""
    said = _written(task, Path(given["outputs"]["outputFile"]))
    artifacts = {}
    for name, port in given["outputs"]["artifacts"].items():
        listed = said.get("artifacts", {}).get(name, {}).get("artifacts", [])
        metadata = {**port["artifacts"][0]["metadata"], **((listed[0].get("metadata") or {}) if listed else {})}
        artifacts[name] = {"artifacts": [{**port["artifacts"][0], "metadata": metadata}]}
    return {**given, "outputs": {**given["outputs"], "artifacts": artifacts}}


def _output_parameter(task: Task, name: str, given: Mapping[str, Any], said: Mapping[str, Any]) -> Any:
    kind = task.output_parameters[name].type
    try:
        if name in said.get("parameterValues", {}):
            return check_value(said["parameterValues"][name], kind)
        # As bytes: text mode would change line ends.
        text = Path(given["outputs"]["parameters"][name]["outputFile"]).read_bytes().decode("utf-8")
        return from_text(text, kind)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise TaskError(f"{task.name}: output {name!r}: is declared but was not written") from None
    except (ValueError, OSError) as error:
        raise TaskError(f"{task.name}: output {name!r}: {error}") from error


def _output_artifact(task: Task, name: str, given: Mapping[str, Any], said: Mapping[str, Any]) -> Artifact:
    port, where = task.output_artifacts[name], f"{task.name}: output {name!r}"
    before = given["outputs"]["artifacts"][name]["artifacts"][0]
    listed = said.get("artifacts", {}).get(name, {}).get("artifacts", [])
    after = listed[0] if listed else {}
    artifact = Artifact(
        after.get("name") or before["name"],
        port.type,
        after.get("uri") or before["uri"],
        {**before["metadata"], **(after.get("metadata") or {})},
    )
    try:
        check_json(artifact.metadata)
    except ValueError as error:
        raise TaskError(f"{where}: metadata: {error}") from error
    elsewhere = after.get("custom_path") or after.get("customPath")
    if "://" in artifact.uri:
        return artifact
    path = Path(artifact.uri)
    if elsewhere and Path(elsewhere) != path:
        _copy(where, Path(elsewhere), path)
    title = port.type.get("schemaTitle", "")
    if title in METADATA_ONLY or (not title.startswith("system.") and artifact.metadata):
        return artifact
    if not path.exists():
        raise TaskError(f"{where}: is declared but nothing was written to its path")
    if _empty(path):
        raise TaskError(f"{where}: is an empty {'folder' if path.is_dir() else 'file'}")
    return artifact


def _empty(path: Path) -> bool:
    if path.is_dir():
        return next(path.iterdir(), None) is None
    return path.is_file() and path.stat().st_size == 0


def _copy(where: str, source: Path, target: Path) -> None:
    if not source.exists():
        raise TaskError(f"{where}: its custom path {source} is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists():
        target.unlink()
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


# Processes


class Endable(Protocol):
    """What `Stop` takes charge of: a process, wherever it runs."""

    def end(self, grace: float) -> None:
        """Send it SIGTERM, and SIGKILL after so many seconds; 0: SIGKILL at once. Called from any thread; no wait."""


class Stop:
    """Ends, from any thread, all processes that were started under it, and all waits.

    Args:
        grace: Seconds between SIGTERM and SIGKILL.
        watch: Told of each process group: True when it begins, False when nothing of it is left.
    """

    def __init__(self, grace: float = 10.0, watch: Callable[[int, bool], None] | None = None) -> None:
        self.grace = grace
        self.watch = watch or (lambda group, alive: None)
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._processes: set[Endable] = set()

    def request(self) -> None:
        """Send SIGTERM to every process group now, and SIGKILL when the grace is over."""
        self._requested.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            process.end(self.grace)

    def kill(self) -> None:
        """Send SIGKILL to every process group now."""
        self._requested.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            process.end(0)

    def requested(self) -> bool:
        """Return whether to stop."""
        return self._requested.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, and return early with True when asked to stop."""
        return self._requested.wait(seconds)

    def add(self, process: Endable) -> None:
        """Take charge of a process."""
        with self._lock:
            self._processes.add(process)
        if self.requested():
            process.end(self.grace)

    def remove(self, process: Endable) -> None:
        """Let go of a process that has ended."""
        with self._lock:
            self._processes.discard(process)


class Process:
    """A command in a session and process group of its own, so that nothing it starts outlives it."""

    def __init__(self, line: Sequence[str], env: Mapping[str, str], folder: Path, output: Any, stop: Stop) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._over = False
        self._timers: list[threading.Timer] = []
        self._popen = subprocess.Popen(
            list(line),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=str(folder),
            env=dict(env),
            start_new_session=True,
        )
        self.stdout = self._popen.stdout
        stop.watch(self._popen.pid, True)

    def wait(self) -> int:
        """Return its exit code, negative for a signal, once it has ended and what it left running is killed."""
        if hasattr(os, "waitid"):
            # It stays a zombie meanwhile, so that its group's number cannot belong to anyone else.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._popen.wait()
        with self._lock:
            self._signal(signal.SIGKILL)
            self._stop.watch(self._popen.pid, False)
            code = self._popen.wait()
            self._over = True
        for timer in self._timers:
            timer.cancel()
        return code

    def end(self, grace: float) -> None:
        """Send SIGTERM to its group, and SIGKILL after so many seconds; 0: SIGKILL at once."""
        with self._lock:
            if not self._over:
                self._signal(signal.SIGTERM if grace else signal.SIGKILL)
                if grace:
                    self._later(grace, lambda: self.end(0))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something unless it has ended by then."""
        with self._lock:
            self._later(seconds, action)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)


def run_process(
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    log: Path,
    *,
    stop: Stop,
    timeout: float | None = None,
    stream: BinaryIO | None = None,
) -> int:
    """Run a command to its end and return its exit code, negative for a signal.

    Args:
        command: The command.
        args: Its arguments.
        env: Its whole environment.
        folder: Its working folder.
        log: File that its output is appended to.
        stop: Ends it early.
        timeout: Seconds after which it is ended.
        stream: Where its output goes as well.

    Raises:
        TaskError: it cannot be started, or the time is over.
        Stopped: it was ended through `stop`.
    """
    if not command:
        raise TaskError("has no command; what its image would run is not known here")
    if stop.requested():
        raise Stopped
    late = threading.Event()
    with log.open("ab") as file:
        try:
            process = Process([*command, *args], env, folder, subprocess.PIPE if stream else file, stop)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "is not there" if missing else f"cannot be started: {getattr(error, 'strerror', None) or error}"
            raise TaskError(f"the command {command[0]!r} {reason}", 127 if missing else 126) from error
        stop.add(process)
        try:
            if timeout:

                def over() -> None:
                    late.set()
                    process.end(stop.grace)

                process.after(timeout, over)
            pump = threading.Thread(target=_copy_output, args=(process.stdout, file, stream), daemon=True)
            if stream:
                pump.start()
            code = process.wait()
            if stream:
                pump.join(5)  # what left the process group may still hold the pipe
        finally:
            stop.remove(process)
    if stop.requested():
        raise Stopped
    if late.is_set():
        raise TaskError(f"timed out after {timeout:g} s", code)
    return code


Runner: TypeAlias = "Callable[..., int]"  # what has the arguments of run_process and does the same in another place


def _copy_output(source: Any, *targets: BinaryIO) -> None:
    with source:
        while True:
            chunk = os.read(source.fileno(), 1 << 16)
            if not chunk:
                return
            for target in targets:
                target.write(chunk)
                target.flush()


def failure(code: int, log: Path, start: int = 0) -> str:
    """Return why a command failed, from its exit code and what it said last.

    Args:
        code: Its exit code, negative for a signal.
        log: What it said.
        start: Where in the log its output starts, in bytes.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _LOG_TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    lines = [line.rstrip() for line in _without_executor(lines) if line.strip()]
    if code == USER_ERROR_EXIT_CODE:
        own = [line for line in lines if line.startswith("error: ")]
        if own:
            return own[-1][len("error: ") :]
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    traces = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if traces:
        ends = [index for index in range(traces[-1] + 1, len(lines)) if not lines[index].startswith((" ", "\t"))]
        if ends:
            return " ".join(" ".join(lines[ends[0] : ends[0] + 3]).split())[:1000]
    return f"exit code {code}" + (f": {lines[-1].strip()[:500]}" if lines else "")


def _without_executor(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines without what KFP's executor says, its input over several of them."""
    inside = False
    for line in lines:
        inside = inside or line.endswith("Got executor_input:")
        if not inside and not line.startswith("[KFP Executor "):
            yield line
        inside = inside and line != "}"


# The whole


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _short(folder: Path) -> Path:
    """Return a path by which a folder can hold sockets, of whose paths systems take little more than 100 bytes."""
    if len(os.fsencode(folder)) <= _LONGEST_TEMPORARY:
        return folder
    while True:
        link = Path(tempfile.gettempdir(), f"penstock-{os.urandom(4).hex()}")
        with contextlib.suppress(FileExistsError):
            link.symlink_to(folder, target_is_directory=True)
            return link


def run(
    task: Task,
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Artifact]],
    folder: Path,
    *,
    names: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    stop: Stop | None = None,
    stream: BinaryIO | None = None,
    runner: Runner = run_process,
    own_tmpdir: bool = True,
    remove: Callable[[Path], object] = _remove,
    again: Callable[[TaskError], object] = lambda error: None,
) -> Outputs:
    """Run a task, as often as it may be tried, and return its outputs.

    Leaves in the folder log.txt and, when it succeeded, outputs/; of a failed task's outputs nothing is left.

    Args:
        task: The task.
        parameters: Input parameters.
        artifacts: Input artifacts by port.
        folder: The task's own folder, absolute.
        names: Values of placeholders such as pipeline_job_name.
        env: Environment to run in, in place of this process's own.
        stop: Ends it early.
        stream: Where the command's output goes as well as to the log.
        runner: Runs the command; see `run_process`.
        own_tmpdir: Whether TMPDIR is set, to the folder that the command works in.
        remove: Removes the folder that the command worked in, now or later.
        again: Told why an attempt failed, where another one follows.

    Raises:
        TaskError: it failed.
        Stopped: it was ended through `stop`.
    """
    stop, names = stop or Stop(), names or {}
    outputs, work, log = folder / "outputs", folder / "work", folder / "log.txt"
    given = executor_input(task, bind(task, parameters), artifacts, outputs)
    try:
        command, args, own = command_line(task, given, names)
        first = [fill_text(part, given, names) for part in task.before]
    except TaskError as error:
        raise TaskError(f"{task.name}: {error}") from error
    temporary = _short(work) if own_tmpdir else None
    whole = {**(os.environ if env is None else env), **({"TMPDIR": str(temporary)} if temporary else {}), **own}

    def attempt(number: int) -> Outputs:
        for path in (outputs, work):
            _remove(path)
            path.mkdir(parents=True)
        if task.retries:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"--- attempt {number + 1} of {task.retries + 1}\n")
        start = log.stat().st_size if log.exists() else 0

        def carry_out(command: Sequence[str], args: Sequence[str]) -> None:
            try:
                code = runner(command, args, whole, work, log, stop=stop, timeout=task.timeout, stream=stream)
            except TaskError as error:
                raise TaskError(f"{task.name}: {error}", error.exit_code) from error
            if code:
                raise TaskError(failure(code, log, start), code)

        if not first:
            carry_out(command, args)
            return collect(task, given)
        carry_out(first, ())
        updated = _updated(task, given)
        carry_out(*command_line(task, updated, names)[:2])
        return collect(task, updated)

    found, wait = None, task.wait
    try:
        for number in range(task.retries + 1):
            if number:
                if stop.wait(min(wait, task.longest_wait)):
                    raise Stopped
                wait = min(wait * task.factor, task.longest_wait)
            try:
                found = attempt(number)
                return found
            except TaskError as error:
                if number == task.retries:
                    raise
                again(error)
        raise AssertionError("unreachable")
    finally:
        if found is None:
            _remove(outputs)
        if temporary and temporary != work:
            temporary.unlink()
        remove(work)


# The script


@dataclass(frozen=True)
class Job:
    """A task with all it needs, as a file holds it: the script's one argument.

    Attributes:
        condition: Runs only where it holds; empty: always.
        result: File to write what came of it to, as JSON: state, parameters, artifacts, error.
    """

    task: Task
    folder: str
    result: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Sequence[Artifact]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    condition: str = ""

    @staticmethod
    def from_json(job: Mapping[str, Any]) -> Job:
        """Return the job that `dataclasses.asdict` made a mapping of."""
        task = dict(job["task"])
        for side in ("input", "output"):
            for kind, port in (("parameters", Parameter), ("artifacts", ArtifactPort)):
                ports = task.get(f"{side}_{kind}", {})
                task[f"{side}_{kind}"] = {name: port(**value) for name, value in ports.items()}
        artifacts = {name: [Artifact(**item) for item in items] for name, items in job.get("artifacts", {}).items()}
        return Job(**{**job, "task": Task(**task), "artifacts": artifacts})


def run_job(job: Job, stop: Stop, stream: BinaryIO | None) -> dict[str, Any]:
    """Return what came of a job, as its result file holds it."""
    try:
        if job.condition and not condition_holds(job.condition, bind(job.task, job.parameters), job.artifacts):
            return {"state": "SKIPPED", "reason": job.condition}
        folder = Path(job.folder).absolute()
        found = run(job.task, job.parameters, job.artifacts, folder, names=job.names, stop=stop, stream=stream)
    except (TaskError, ConditionError) as error:
        return {"state": "FAILED", "error": str(error), "exit_code": getattr(error, "exit_code", None)}
    except Stopped:
        return {"state": "CANCELLED"}
    return {"state": "SUCCEEDED", **asdict(found)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job file that the command line names and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print("usage: python launcher.py job.json", file=sys.stderr)
        return 2
    job = Job.from_json(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=stop.request).start())
    result = run_job(job, stop, sys.stdout.buffer)
    target = Path(job.result)
    half = target.with_name(f"{target.name}.{os.getpid()}.{time.time_ns()}")
    half.write_text(json.dumps(result, indent=1), encoding="utf-8")
    os.replace(half, target)
    if result["state"] == "FAILED":
        print(f"error: {result['error']}", file=sys.stderr)
        code = result["exit_code"]
        return code if code and 0 < code < 126 else OWN_EXIT_CODE
    return 143 if result["state"] == "CANCELLED" else 0


if __name__ == "__main__":
    sys.exit(main())
