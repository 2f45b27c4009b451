"""Compiled specs are compared whole: whatever changes in them is seen and meant."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from penstock.compile import catalog
from penstock.compile.to_kfp import compiled

GOLDEN = Path(__file__).parents[1] / "golden"
ENTRIES = [entry for entry in catalog.entries() if entry.package == "penstock"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_spec_is_the_golden_one(entry: catalog.Entry) -> None:
    path = GOLDEN / f"{entry.name}.yaml"
    golden = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = compiled(entry.function).text
    if text != golden:
        lines = list(
            difflib.unified_diff(golden.splitlines(), text.splitlines(), str(path), "compiled", lineterm="", n=2)
        )
        pytest.fail(
            "\n".join([*lines[:60], "If this is meant: `make golden`, then read the difference like code."]), False
        )


def test_every_golden_spec_is_of_something() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {entry.name for entry in ENTRIES}
