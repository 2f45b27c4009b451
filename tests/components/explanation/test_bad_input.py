from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.components._shared import memory
from penstock.components._shared.errors import UserError
from penstock.components.explanation.explain import explain

Make = Callable[..., Path]
Rows = Callable[..., pa.Table]


@pytest.fixture
def refused(tmp_path: Path, model_of: Make, make_dataset: Make, trips: Rows) -> Callable[..., str]:
    """Return the one line with which explain refuses what it is given; nothing is left behind."""

    def refused(model: Path | None = None, dataset: Path | None = None, **given: Any) -> str:
        model = model or model_of("lightgbm", "binary")
        dataset = dataset or make_dataset(trips())
        names = ("attributions", "explanation", "vertex", "report")
        with pytest.raises(UserError) as caught:
            explain(model, dataset, *(tmp_path / name for name in names), **given)
        assert not any((tmp_path / name).exists() for name in names)
        message = str(caught.value)
        assert message.startswith("explain: ")
        assert "\n" not in message
        return message

    return refused


def test_method_that_the_model_does_not_have_is_refused_with_those_that_it_has(refused: Any, model_of: Make) -> None:
    assert refused(method="lime") == (
        "explain: method: 'lime' is unknown. Choose one of auto, tree, linear, gradient, permutation."
    )
    assert refused(method="gradient") == (
        "explain: method: there is no 'gradient' explainer for this model of lightgbm. "
        "Choose one of auto, tree, permutation."
    )
    assert "Choose one of auto, linear, permutation." in refused(model_of("linear", "binary"), method="tree")


def test_model_that_no_explainer_reads_is_refused(refused: Any, model_of: Make, tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nothing")
    shutil.copytree(model_of("lightgbm", "binary"), tmp_path / "model")
    (tmp_path / "model" / "model.pkl").write_bytes(b"")
    assert "model.pkl is not in the manifest" in refused(tmp_path / "model")


def test_rows_that_lack_a_column_of_the_model_are_refused(refused: Any, make_dataset: Make, trips: Rows) -> None:
    rows = make_dataset(trips().drop_columns(["zone", "other"]))
    assert refused(dataset=rows) == (
        "explain: dataset: it lacks columns that the model reads: other, zone. "
        "The columns are id, distance, night, weight, tipped, color, fare."
    )
    assert refused(background=rows, method="permutation").startswith("explain: background: it lacks columns")


def test_column_of_another_type_is_refused(refused: Any, make_dataset: Make, trips: Rows) -> None:
    table = trips()
    rows = make_dataset(table.set_column(1, "distance", pa.array(["far"] * len(table))))
    assert "column 'distance': holds text where the model learned numbers" in refused(dataset=rows)
    rows = make_dataset(table.set_column(3, "zone", pa.array([1] * len(table))))
    assert "column 'zone': holds integer values where the model learned text" in refused(dataset=rows)


def test_empty_dataset_is_refused(refused: Any, make_dataset: Make, trips: Rows) -> None:
    empty = make_dataset(trips().slice(0, 0))
    assert refused(dataset=empty) == ("explain: dataset: it has no rows. Check the source, query and split of ingest.")
    assert refused(background=empty, method="permutation").startswith("explain: background: it has no rows")


def test_columns_that_are_not_there_are_refused_with_those_that_are(refused: Any) -> None:
    listed = "The columns are id, distance, other, zone, night, weight, tipped, color, fare."
    for argument in ("keys", "slices"):
        assert refused(**{argument: ["zones"]}) == f"explain: {argument}: there is no column 'zones'. {listed}"
    assert refused(weight_column="weights") == f"explain: weight_column: there is no column 'weights'. {listed}"
    assert refused(local=["zones=a"]) == f"explain: local: there is no column 'zones'. {listed}"


def test_key_that_no_row_has_is_refused(refused: Any) -> None:
    assert refused(local=["id=7"]) == (
        "explain: local: no row has id=7. Give values as they stand in the dataset, or take it out of local."
    )
    assert "no row has id=1001,zone=nowhere" in refused(local=["id=1001,zone=nowhere"])


@pytest.mark.parametrize("choice", ["", "best 3", "highest", "id", "=3", "highest -1", "first 2.5"])
def test_choice_that_cannot_be_read_is_refused_with_the_forms(refused: Any, choice: str) -> None:
    assert f"{choice!r} is no choice of rows. Give" in refused(local=[choice])


def test_too_many_rows_one_by_one_are_refused(refused: Any) -> None:
    assert "'first 21' asks for 21 rows. Ask for 1 to 20." in refused(local=["first 21"])
    assert "asks for 0 rows" in refused(local=["first 0"])


def test_key_by_a_name_of_ours_is_refused(refused: Any, make_dataset: Make, trips: Rows) -> None:
    table = trips()
    rows = make_dataset(table.append_column("prediction", table["fare"]))
    assert "'prediction' is the name of a column that explain writes" in refused(dataset=rows, keys=["prediction"])


def test_weights_that_are_none_are_refused(refused: Any, make_dataset: Make, trips: Rows) -> None:
    table = trips()
    assert "'zone' is string, which is no number" in refused(weight_column="zone")
    assert "'distance' is null, infinite or negative in" in refused(weight_column="distance")
    zeros = make_dataset(table.set_column(5, "weight", pa.array([0.0] * len(table))))
    message = refused(dataset=zeros, weight_column="weight")
    assert message == "explain: weight_column: 'weight' is 0 in every row. Choose another column."


def test_columns_without_values_to_go_by_are_not_sliced(refused: Any, make_dataset: Make, trips: Rows) -> None:
    table = trips()
    rows = make_dataset(table.append_column("list", pa.array([[1]] * len(table))))
    assert "explain: slices: 'list' is list<" in refused(dataset=rows, slices=["list"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"max_rows": -1}, "max_rows: -1 is not in range"),
        ({"sample_rows": 0}, "sample_rows: 0 is not in range"),
        ({"repeats": 1.5}, "repeats: 1.5 is not in range"),
        ({"max_evaluations": 0}, "max_evaluations: 0 is not in range"),
        ({"seed": -1}, "seed: -1 is not in range"),
        ({"tolerance": -0.1}, "tolerance: -0.1 is not 0 or more"),
        ({"tolerance": float("nan")}, "tolerance: nan is not 0 or more"),
        ({"metric": "rmse"}, "metric: 'rmse' is no metric of a binary model. Choose one of auto, auc"),
    ],
)
def test_numbers_out_of_range_are_refused(refused: Any, given: dict[str, Any], problem: str) -> None:
    assert refused(**given).startswith(f"explain: {problem}")


def test_dataset_that_was_altered_is_refused(refused: Any, make_dataset: Make, trips: Rows, tmp_path: Path) -> None:
    shutil.copytree(make_dataset(trips()), tmp_path / "rows")
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    manifest["files"][0]["bytes"] += 1
    (tmp_path / "rows" / "manifest.json").write_text(json.dumps(manifest))
    assert "was truncated or extended" in refused(dataset=tmp_path / "rows")


@pytest.mark.parametrize(
    ("most", "given", "message"),
    [
        (300 * 8, {"max_rows": 0, "slices": ["zone"]}, "explain: max_rows: 300 rows and their slices take 0 MB of mem"),
        (200 * 8, {"max_rows": 200}, "explain: sample_rows: 200 rows of 4 columns take 0 MB of memory or more"),
        (100 * 64 - 1, {"sample_rows": 100}, "explain: sample_rows: 100 rows of 4 columns take 0 MB of memory or more"),
    ],
)
def test_more_rows_than_there_is_memory_for_are_refused_before_they_are_read(
    refused: Any, monkeypatch: pytest.MonkeyPatch, most: int, given: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(memory, "used", lambda: 0)
    monkeypatch.setattr(memory, "limit", lambda: most)
    monkeypatch.setattr("penstock.components.explanation.explain.draw", None)
    found = refused(**given)
    assert found.startswith(message)
    assert found.endswith("Give the step more, or a smaller number.")
