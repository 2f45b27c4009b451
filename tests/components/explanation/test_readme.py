from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from penstock.components._shared.dataset import open_dataset
from penstock.components.explanation.chosen import parse
from penstock.components.explanation.explainers import FRAMEWORKS, METHODS

README = (Path(__file__).parents[3] / "components" / "explanation" / "README.md").read_text()


def test_choices_of_rows_are_read(make_dataset: Callable[..., Path]) -> None:
    table = pa.table({"trip_id": list(range(30)), "zone": ["132"] * 30, "day": ["2026-01-31"] * 30})
    written = re.search(r"```\n(.*?)```", README, re.DOTALL)
    assert written
    choices = parse(written[1].splitlines(), open_dataset(make_dataset(table), "test", "dataset"))
    assert [(choice.end, len(choice.places)) for choice in choices] == [
        ("first", 0),
        ("highest", 0),
        ("lowest", 0),
        ("", 1),
        ("", 20),
    ]


def test_table_names_every_framework_and_method() -> None:
    rows = re.findall(r"^\| (\w+).*? \| `(\w+)`", README, re.MULTILINE)
    assert {name for name, _ in rows} >= set(FRAMEWORKS)
    assert {method for _, method in rows} >= set(METHODS)
