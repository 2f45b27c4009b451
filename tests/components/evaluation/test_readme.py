from __future__ import annotations

import re
from pathlib import Path

from penstock.components._shared.metrics.tasks import TASKS
from penstock.components.evaluation.gate import parse

README = (Path(__file__).parents[3] / "components" / "evaluation" / "README.md").read_text()


def test_table_of_metrics_is_the_one_that_runs() -> None:
    written = re.findall(r"^\| (\w+) \| `(\w+)` \| (.*?) \| ?(\w*) ?\|$", README, re.MULTILINE)
    assert written == [
        (task, name, metric.about, metric.better) for task, row in TASKS.items() for name, metric in row.metrics.items()
    ]


def test_conditions_are_read() -> None:
    conditions = re.search(r"```\n(.*?)```", README, re.DOTALL)
    assert conditions
    assert len(parse(conditions[1].splitlines())) == 10
