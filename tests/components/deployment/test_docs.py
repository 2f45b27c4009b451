"""docs/serving.md says what the server does."""

import re
from dataclasses import fields
from pathlib import Path

from penstock.components.deployment.serving.metrics import Metrics
from penstock.components.deployment.serving.request_log import OURS
from penstock.components.deployment.serving.settings import Settings

TEXT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()


def test_every_setting_is_listed_with_its_default():
    rows = dict(re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| (.*?) \|", TEXT, re.MULTILINE))
    documented = {name: default for names, default in rows.items() for name in re.findall(r"`(\w+)`", names)}
    variables = [(name, each) for each in fields(Settings) for name in each.metadata["variables"]]
    assert set(documented) == {name for name, _ in variables}
    for name, each in variables:
        if each.name not in ("threads", "model_version", "token", "log"):  # their defaults are words
            default = int(each.default) if isinstance(each.default, float) else each.default
            assert str(default) in re.findall(r"`([^`]*)`", documented[name]), name


def test_every_metric_and_column_of_the_log_is_listed():
    metrics = set(re.findall(r"^# TYPE (penstock_\w+)", Metrics().text().decode(), re.MULTILINE))
    metrics = {name for name in metrics if not name.endswith("_created")} | {"penstock_predictions"}
    assert metrics == set(re.findall(r"`(penstock_\w+)`", TEXT))
    assert [name for name in OURS if f"| `{name}` |" not in TEXT] == []
