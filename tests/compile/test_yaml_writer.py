"""What is written reads back as it was, by every reader at hand."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.compile.yaml_writer import printable, to_yaml

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(st.sampled_from(" \n\t\r#:-'\"{}[]|>&*!%@`yn01.ex_~é\u2028\x85\ufeff🙂"), max_size=12),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """Return `value` with types beside values, since 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), value


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
@given(value=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_reads_back_the_same(loader: Any, value: Any) -> None:
    assert typed(yaml.load(to_yaml(value), loader)) == typed(value)


@pytest.mark.parametrize(
    "text",
    ["\nx\n", "\n\n", " x\ny", "x\n\n", "x\n y\n", "\tx\ny\t", "x\n\ty  ", "# x\n---\n...\n", "a: b\n- c", "x\r\ny"],
)
def test_text_of_several_lines_reads_back_at_every_depth(text: str) -> None:
    value = {"a": text, "b": [text, {"c": text, "d": [[text]]}]}
    assert yaml.safe_load(to_yaml(value)) == value


@pytest.mark.parametrize(
    "text",
    ["y", "No", "on", "null", "~", "", "1", "1_000", "0x1f", "1e3", "12:30:45", "2019-01-01", ".inf", "=", "<<", "a: b",
     "a #b", "- a", "{{$}}", "key:", "a\u2028b", "\ufeffa"],
)  # fmt: skip
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert yaml.safe_load(to_yaml({text: [text]})) == {text: [text]}


def test_code_is_written_as_a_block() -> None:
    assert to_yaml({"b": ["def f():\n    return 1\n"], "a": {}}) == (
        "a: {}\nb:\n  - |\n    def f():\n        return 1\n"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, b"x", {"a": object()}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        to_yaml(value)


def test_comment_keeps_no_line_break_of_any_kind() -> None:
    assert printable("a\u2028b\x85c\rd\x00é") == "a b c d é"
