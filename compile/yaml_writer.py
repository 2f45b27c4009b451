"""Writes JSON-like values as YAML whose bytes depend on the values alone.

PyYAML's emitters fold lines, and the one in C folds them elsewhere than the one in Python. Here every scalar has one
form: a block for text of several lines, plain where no reader of YAML 1.1 or 1.2 can take it for anything else, else
JSON's quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Letters first, so that it is no number, date or indicator; ":" and "#" only where they mean nothing.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./()-]*(?:(?:, |[ :@=+])[A-Za-z0-9_./()-]+)*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_PRINTABLE = r"\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_BLOCK = re.compile(rf"[\t\n{_PRINTABLE}]*[\t{_PRINTABLE}]\n*")
_ESCAPED = re.compile(rf"[^{_PRINTABLE}]")


def to_yaml(value: Any) -> str:
    """Return `value` as one YAML document, mappings sorted by key.

    Args:
        value: Made of dicts with string keys, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: For anything else.
    """
    return "\n".join(_lines(value, 0)) + "\n"


def printable(text: str) -> str:
    """Return `text` with what YAML does not allow in a comment replaced by spaces."""
    return _ESCAPED.sub(" ", text)


def _lines(value: Any, indent: int) -> Iterator[str]:
    space = "  " * indent
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            if not isinstance(key, str):
                raise TypeError(f"keys are strings, not {type(key).__name__}: {key!r}")
            yield from _entry(f"{space}{_scalar(key)}:", value[key], indent)
    elif isinstance(value, list | tuple) and value:
        for item in value:
            yield from _entry(f"{space}-", item, indent)
    else:
        yield space + _scalar(value)


def _entry(head: str, value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        yield head
        yield from _lines(value, indent + 1)
    elif isinstance(value, str) and "\n" in value and _BLOCK.fullmatch(value):
        # A first line that is empty or indented would hide how far the block is.
        depth = "2" if value[0] in " \n\t" else ""
        rest = value[len(value.rstrip("\n")) :]
        yield f"{head} |{depth}" + ("-" if not rest else "" if rest == "\n" else "+")
        space = "  " * (indent + 1)
        yield from (space + line if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        if not text.lstrip("-")[0].isdigit():
            raise TypeError(f"{text} has no place in a spec")
        # YAML 1.1 reads 1e+16 as a string.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        return _ESCAPED.sub(_escape, json.dumps(value, ensure_ascii=False))
    if isinstance(value, Mapping | list | tuple):
        return "{}" if isinstance(value, Mapping) else "[]"
    raise TypeError(f"{type(value).__name__} has no place in a spec: {value!r}")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
