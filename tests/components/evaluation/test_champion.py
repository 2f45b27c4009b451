from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import open_registry
from penstock.components._shared.sealed import MANIFEST
from penstock.components.evaluation.evaluate import Evaluated, evaluate
from penstock.components.registry.register import register

Make = Callable[..., Path]
Rows = Callable[..., pa.Table]


@pytest.fixture
def compare(
    tmp_path: Path, registry: str, make_dataset: Make, trips: Rows
) -> Callable[..., tuple[Evaluated, dict[str, Any]]]:
    """Evaluate a model against the champion of `tips`, and read what was written."""

    def compare(model: Path, gate: list[str], **given: Any) -> tuple[Evaluated, dict[str, Any]]:
        rows = make_dataset(given.pop("rows", trips(seed=3)))
        result = evaluate(
            model,
            rows,
            tmp_path / "evaluation",
            tmp_path / "report",
            gate=gate,
            model_name="tips",
            registry=registry,
            bootstrap_samples=20,
            **given,
        )
        return result, json.loads((tmp_path / "evaluation").read_text())

    return compare


def crown(model: Path, registry: str, run_id: str = "first") -> str:
    return register(model, {}, model_name="tips", registry=registry, run_id=run_id).version


def test_without_a_champion_the_condition_holds(compare: Any, make_model: Make) -> None:
    result, found = compare(make_model(), ["auc >= champion - 0.01"])
    assert result.blessed
    assert result.reason.endswith("(no champion yet)")
    assert result.champion_version == ""
    assert found["champion"] is None


def test_worse_model_does_not_pass_the_champion(compare: Any, make_model: Make, registry: str) -> None:
    crown(make_model("good"), registry)
    result, found = compare(make_model("poor", features=["other"]), ["auc >= champion - 0.01"])
    assert not result.blessed
    assert "is not >= champion 0." in result.reason
    assert result.reason.endswith("- 0.01 (tips version 1)")
    assert result.champion_version == "1"
    assert found["champion"]["name"] == "tips version 1"
    apart = found["champion"]["metrics"]["auc"]["difference"]
    assert apart["value"] == found["metrics"]["auc"]["value"] - found["champion"]["metrics"]["auc"]["value"] < 0
    assert apart["low"] < apart["value"] < apart["high"] < 0


def test_better_model_passes_and_registers_in_the_champions_place(
    compare: Any, make_model: Make, registry: str
) -> None:
    crown(make_model("poor", features=["other"]), registry)
    good = make_model("good")
    result, _ = compare(good, ["auc >= champion + 0.05", "slice:zone.auc >= champion"])
    assert result.blessed
    registered = register(
        good,
        result.metrics,
        model_name="tips",
        registry=registry,
        run_id="second",
        expected_version=result.champion_version,
    )
    assert (registered.version, registered.previous_version) == ("2", "1")


def test_champion_that_changed_since_the_evaluation_is_not_replaced(
    compare: Any, make_model: Make, registry: str, trips: Rows
) -> None:
    crown(make_model("poor", features=["other"]), registry)
    good = make_model("good")
    result, _ = compare(good, ["auc >= champion"])
    crown(make_model("other", max_rounds=3), registry, run_id="meanwhile")
    with pytest.raises(UserError, match="now version 2, not version 1"):
        register(good, {}, model_name="tips", registry=registry, expected_version=result.champion_version)


def test_model_is_as_good_as_itself(compare: Any, make_model: Make, registry: str) -> None:
    model = make_model()
    crown(model, registry)
    result, found = compare(model, ["auc >= champion", "slice:zone.log_loss == champion"])
    assert result.blessed
    assert found["champion"]["metrics"]["auc"]["difference"] == {"value": 0, "low": 0, "high": 0}


def test_classes_are_matched_whatever_the_frameworks(compare: Any, make_model: Make, registry: str) -> None:
    crown(make_model("boosted", target="color"), registry)
    result, _ = compare(make_model("forest", target="color", framework="sklearn"), ["accuracy >= champion - 0.2"])
    assert result.blessed


@pytest.mark.parametrize(
    ("champion", "problem"),
    [
        ({"target": "fare"}, "its task is regression, not binary"),
        ({"features": ["distance", "zone"]}, "it reads columns that the rows do not have: zone"),
    ],
)
def test_champion_that_cannot_be_measured_keeps_its_place(
    compare: Any, make_model: Make, registry: str, champion: dict[str, Any], problem: str, trips: Rows
) -> None:
    crown(make_model("champion", **champion), registry)
    result, found = compare(make_model(), ["auc >= champion"], rows=trips(seed=3).drop_columns(["zone"]))
    assert not result.blessed
    assert f"tips version 1 cannot be measured on these rows: {problem}" in result.reason
    assert found["champion"]["problem"] == problem
    assert result.champion_version == "1"


def test_champion_that_was_altered_in_the_registry_cannot_be_measured(
    compare: Any, make_model: Make, registry: str
) -> None:
    crown(make_model("champion"), registry)
    source = open_registry(registry, "test").client.get_model_version("tips", "1").source
    with (Path(source.removeprefix("file://")) / MANIFEST).open("a") as file:
        file.write("{")
    result, _ = compare(make_model(), ["auc >= champion"])
    assert not result.blessed
    assert "tips version 1 cannot be measured on these rows: " in result.reason
    assert "/" not in result.reason


def test_registry_that_does_not_answer_stops_the_evaluation(
    make_model: Make, make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trips: Rows
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"evaluate: registry: http://127.0.0.1:9 does not answer"):
        evaluate(
            make_model(),
            make_dataset(trips()),
            tmp_path / "evaluation",
            tmp_path / "report",
            gate=["auc >= champion"],
            model_name="tips",
            registry="http://127.0.0.1:9",
        )
    assert not (tmp_path / "evaluation").exists()
