from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as reference

from penstock.components._shared import memory
from penstock.components._shared.dataset import KIND
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model
from penstock.components._shared.sealed import new_folder, seal
from penstock.components.evaluation.evaluate import Evaluated, evaluate

Make = Callable[..., Path]
Rows = Callable[..., pa.Table]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Evaluated, dict[str, Any]]]:
    """Evaluate into a folder of its own, and read what was written."""

    def run(model: Path, rows: Path, **given: Any) -> tuple[Evaluated, dict[str, Any]]:
        out = tmp_path / "out"
        result = evaluate(model, rows, out / "evaluation", out / "report", **{"bootstrap_samples": 20, **given})
        assert sorted(path.name for path in out.iterdir()) == ["evaluation", "report"]
        assert "<html" in (out / "report").read_text()
        return result, json.loads((out / "evaluation").read_text(), parse_constant=lambda name: pytest.fail(name))

    return run


def refused(tmp_path: Path, model: Path, rows: Path, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        evaluate(model, rows, tmp_path / "evaluation", tmp_path / "report", **given)
    assert not (tmp_path / "evaluation").exists()
    assert not (tmp_path / "report").exists()
    message = str(caught.value)
    assert message.startswith("evaluate: ")
    assert "\n" not in message
    return message


def test_metrics_are_those_of_the_models_predictions(
    run: Any, make_model: Make, make_dataset: Make, trips: Rows
) -> None:
    from_conftest = trips()
    model = make_model()
    result, found = run(model, make_dataset(from_conftest))
    frame = from_conftest.to_pandas()
    score = load_model(model, "test", "model").predict(frame)[:, 1]
    assert result.metrics["auc"] == pytest.approx(reference.roc_auc_score(frame["tipped"], score))
    assert result.metrics["brier"] == pytest.approx(reference.brier_score_loss(frame["tipped"], score))
    assert found["metrics"]["auc"]["value"] == result.metrics["auc"]
    assert found["metrics"]["auc"]["low"] < result.metrics["auc"] < found["metrics"]["auc"]["high"]
    assert found["positive_class"] is True
    assert found["format"] == "penstock.evaluation/1"


def test_multiclass_columns_are_the_classes_in_order(
    run: Any, make_model: Make, make_dataset: Make, trips: Rows
) -> None:
    model, rows = make_model(target="color"), trips()
    result, found = run(model, make_dataset(rows))
    frame = rows.to_pandas()
    predicted = np.array(["blue", "green", "red"])[load_model(model, "test", "model").predict(frame).argmax(axis=1)]
    assert result.metrics["accuracy"] == pytest.approx((predicted == frame["color"]).mean())
    assert result.roc is None
    assert result.confusion == (
        ["blue", "green", "red"],
        reference.confusion_matrix(frame["color"], predicted).tolist(),
    )
    assert [entry["class"] for entry in found["curves"]["by_class"]] == ["blue", "green", "red"]


def test_regression_has_no_classification_curves(run: Any, make_model: Make, make_dataset: Make, trips: Rows) -> None:
    model, rows = make_model(target="fare"), trips()
    result, found = run(model, make_dataset(rows), slices=["zone"])
    frame = rows.to_pandas()
    error = load_model(model, "test", "model").predict(frame) - frame["fare"]
    assert result.metrics["rmse"] == pytest.approx(math.sqrt((error**2).mean()))
    assert result.roc is None
    assert result.confusion is None
    assert set(found["curves"]) == {"residuals", "predicted_by_actual"}


def test_slices_are_measured_on_their_own_rows(run: Any, make_model: Make, make_dataset: Make, trips: Rows) -> None:
    model, rows = make_model(), trips()
    _, found = run(model, make_dataset(rows), slices=["zone"])
    frame = rows.to_pandas()
    score = load_model(model, "test", "model").predict(frame)[:, 1]
    parts = found["slices"]["zone"]["slices"]
    assert [part["value"] for part in parts] == ["a", "b", "null"]
    for part in parts:
        chosen = frame["zone"].isna() if part["value"] == "null" else frame["zone"] == part["value"]
        assert part["rows"] == chosen.sum()
        expected = reference.roc_auc_score(frame["tipped"][chosen], score[chosen])
        assert part["metrics"]["auc"]["value"] == pytest.approx(expected)
        assert part["metrics"]["auc"]["low"] < expected < part["metrics"]["auc"]["high"]


def test_dataset_of_several_parts_is_one_set(
    run: Any, make_model: Make, make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trips: Rows
) -> None:
    model, rows = make_model(), trips()
    whole, _ = run(model, make_dataset(rows), slices=["zone"])
    with new_folder(tmp_path / "parts") as folder:
        for place in range(4):
            pq.write_table(rows.slice(place * 100, 100), folder / f"part-{place:05}.parquet")
        schema = [{"name": field.name, "type": str(field.type)} for field in rows.schema]
        seal(folder, KIND, {"rows": rows.num_rows, "schema": schema, "fingerprint": "same"})
    monkeypatch.setattr("penstock.components.evaluation.data.BATCH", 33)
    parts, _ = run(model, tmp_path / "parts", slices=["zone"])
    assert parts.metrics == whole.metrics


def test_metrics_that_are_undefined_are_null_with_a_reason_and_not_returned(
    run: Any, make_model: Make, make_dataset: Make, trips: Rows
) -> None:
    rows = trips().filter(pc.field("tipped"))
    result, found = run(make_model(), make_dataset(rows), slices=["zone"])
    assert "auc" not in result.metrics
    assert result.roc is None
    assert found["metrics"]["auc"]["value"] is None
    assert found["metrics"]["auc"]["reason"] == "the rows are all of one class"
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_evaluation_names_model_rows_and_bootstrap(run: Any, make_model: Make, make_dataset: Make, trips: Rows) -> None:
    rows = make_dataset(trips())
    _, found = run(make_model(), rows, confidence=0.9, seed=5, bootstrap_samples=150)
    fingerprint = json.loads((rows / "manifest.json").read_text())["fingerprint"]
    assert found["eval_set"] == {"fingerprint": fingerprint, "rows": 400}
    assert found["model"]["framework"] == "xgboost"
    assert found["bootstrap"] == {"samples": 150, "slice_samples": 100, "confidence": 0.9, "seed": 5}


def test_same_input_gives_the_same_bytes(make_model: Make, make_dataset: Make, tmp_path: Path, trips: Rows) -> None:
    model, rows = make_model(), make_dataset(trips())
    for name in "ab":
        evaluate(model, rows, tmp_path / f"{name}.json", tmp_path / f"{name}.html", slices=["zone"])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_intervals_of_a_slice_do_not_depend_on_the_other_slices(
    run: Any, make_model: Make, make_dataset: Make, trips: Rows
) -> None:
    model, rows = make_model(), make_dataset(trips())
    _, one = run(model, rows, slices=["zone"])
    _, two = run(model, rows, slices=["color", "zone"])
    assert one["slices"]["zone"] == two["slices"]["zone"]


@pytest.mark.parametrize(
    ("gate", "blessed", "reason"),
    [
        ([], True, "the gate has no conditions"),
        (["rows >= 400"], True, "rows 400 >= 400"),
        (["auc >= 0.1", "rows > 400"], False, "rows 400 is not > 400; auc 0."),
        (["slice:zone.rows >= 1"], True, "the closest of 3 slices"),
        (["slice:zone=z.auc >= 0.1"], False, "does not hold (undefined: there are no such rows)"),
        (["slice:other=0.5.rows >= 1"], False, "slice:other=0.5.rows 0 is not >= 1"),
    ],
)
def test_gate_blesses_or_not(
    run: Any, make_model: Make, make_dataset: Make, gate: list[str], blessed: bool, reason: str, trips: Rows
) -> None:
    result, found = run(make_model(), make_dataset(trips()), gate=gate)
    assert (result.blessed, found["blessed"]) == (blessed, blessed)
    assert reason in result.reason
    assert result.champion_version == "any"
    assert [entry["condition"] for entry in found["gate"]] == gate


def test_slices_that_only_the_gate_names_are_measured(
    run: Any, make_model: Make, make_dataset: Make, trips: Rows
) -> None:
    _, found = run(make_model(), make_dataset(trips()), gate=["slice:zone.auc >= 0.1"])
    assert len(found["slices"]["zone"]["slices"]) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bootstrap_samples": -1}, "evaluate: bootstrap_samples: -1 is negative"),
        ({"confidence": 0.0}, "evaluate: confidence: 0.0 is not between 0 and 1"),
        ({"confidence": 1.0}, "evaluate: confidence: 1.0 is not between 0 and 1"),
        ({"confidence": float("nan")}, "evaluate: confidence: nan is not between 0 and 1"),
        ({"confidence": float("inf")}, "evaluate: confidence: inf is not between 0 and 1"),
        ({"seed": -1}, "evaluate: seed: -1 is negative"),
        ({"slices": ["zon"]}, "evaluate: slices: there is no column 'zon'. The columns are distance, other, zone,"),
        ({"gate": ["slice:zon.auc >= 0.5"]}, "evaluate: gate: there is no column 'zon'. The columns are distance,"),
        ({"gate": ["auc >="]}, "evaluate: gate: 'auc >=' is not a condition"),
        ({"gate": ["rmse <= 1"]}, "'rmse' in 'rmse <= 1' is not a metric of a binary model. Known are rows,"),
        ({"gate": ["auc >= champion"]}, "evaluate: model_name: the gate compares with the champion, but no registered"),
        ({"gate": ["auc >= champion"], "model_name": "a/b"}, "evaluate: model_name: 'a/b' contains /"),
        ({"gate": ["auc >= champion"], "model_name": "tips"}, "evaluate: registry: no registry is given"),
        (
            {"gate": ["auc >= champion"], "model_name": "tips", "registry": "ftp://x"},
            "evaluate: registry: 'ftp://x' is not a URI of a known form",
        ),
    ],
)
def test_wrong_argument_is_refused_in_one_line(
    make_model: Make, make_dataset: Make, tmp_path: Path, given: dict[str, Any], message: str, trips: Rows
) -> None:
    assert message in refused(tmp_path, make_model(), make_dataset(trips()), **given)


def test_malformed_gate_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    assert "evaluate: gate: " in refused(tmp_path, tmp_path / "no-model", tmp_path / "no-rows", gate=["auc => 1"])


def test_empty_set_is_refused(make_model: Make, make_dataset: Make, tmp_path: Path, trips: Rows) -> None:
    assert "evaluate: eval_set: it has no rows" in refused(tmp_path, make_model(), make_dataset(trips().slice(0, 0)))


@pytest.mark.parametrize(
    ("of_row", "given"),
    [
        (130 + 2 * 8, {}),
        (130 + 2 * 8 + 2 * 12, {"slices": ["zone"], "gate": ["slice:other.auc >= 0.1"]}),
        (130 + 4 * 8, {"gate": ["auc >= champion"], "model_name": "tips"}),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_any_is_read(
    make_model: Make,
    make_dataset: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trips: Rows,
    of_row: int,
    given: dict[str, Any],
) -> None:
    monkeypatch.setattr(memory, "used", lambda: 0)
    monkeypatch.setattr(memory, "limit", lambda: 400 * of_row - 1)
    monkeypatch.setattr("penstock.components.evaluation.measuring.here", None)
    model, rows = make_model(), make_dataset(trips())
    message = refused(tmp_path, model, rows, **given)
    assert message.startswith("evaluate: eval_set: labels, predictions and metrics of 400 rows take 0 MB of memory or")
    assert message.endswith('Give the step more, give ingest a smaller eval_fraction, or set engine to "beam".')
    monkeypatch.setattr(memory, "limit", lambda: 400 * of_row)
    with pytest.raises(TypeError):  # they fit, and are measured next
        evaluate(model, rows, tmp_path / "evaluation", tmp_path / "report", **given)


def test_missing_target_is_refused(make_model: Make, make_dataset: Make, tmp_path: Path, trips: Rows) -> None:
    rows = make_dataset(trips().drop_columns(["tipped"]))
    assert "evaluate: eval_set: there is no column 'tipped'" in refused(tmp_path, make_model(), rows)


def test_missing_feature_is_refused(make_model: Make, make_dataset: Make, tmp_path: Path, trips: Rows) -> None:
    rows = make_dataset(trips().drop_columns(["other"]))
    assert "it reads columns that the rows do not have: other" in refused(tmp_path, make_model(), rows)


def replaced(rows: pa.Table, column: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(column), column, pa.array(values))


@pytest.mark.parametrize(
    ("target", "values", "message"),
    [
        ("tipped", [None, *[True] * 399], "'tipped' is null in 1 of 400 rows. Filter in ingest's query"),
        ("tipped", ["yes"] * 400, "'tipped' is string, not like the labels of the model. The model knows false, true"),
        ("color", ["blue", "violet"] * 200, "holds labels that the model does not know: violet. The model knows blue,"),
        ("color", list(range(400)), "'color' is int64, not like the labels of the model"),
        ("fare", [float("nan"), *[1.0] * 399], "'fare' is null in 1 of 400 rows"),
        ("fare", [float("inf"), *[1.0] * 399], "'fare' holds infinite values"),
        ("fare", ["1"] * 400, "'fare' is string, but the model predicts numbers"),
    ],
)
def test_target_that_does_not_fit_the_model_is_refused(
    make_model: Make, make_dataset: Make, tmp_path: Path, target: str, values: Any, message: str, trips: Rows
) -> None:
    message_found = refused(tmp_path, make_model(target=target), make_dataset(replaced(trips(), target, values)))
    assert message_found.startswith("evaluate: eval_set: ")
    assert message in message_found


def test_altered_model_and_dataset_are_refused(
    make_model: Make, make_dataset: Make, tmp_path: Path, trips: Rows
) -> None:
    model, rows = make_model(), make_dataset(trips())
    with next(rows.glob("*.parquet")).open("ab") as file:
        file.write(b"x")
    assert "truncated or extended" in refused(tmp_path, model, rows)
    with (model / "MLmodel").open("ab") as file:
        file.write(b"x")
    assert "evaluate: model: " in refused(tmp_path, model, rows)


def test_predictions_that_are_not_finite_are_refused(
    make_model: Make, make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trips: Rows
) -> None:
    def broken(self: Any, frame: Any) -> np.ndarray:
        return np.full((len(frame), 2), np.nan)

    model, rows = make_model(), make_dataset(trips())
    monkeypatch.setattr("penstock.components._shared.tabular.Predictor.predict_matrix", broken)
    assert "it predicts NaN or infinity for 400 of 400 rows" in refused(tmp_path, model, rows)


def test_component_logs_what_kfp_can_hold(make_model: Make, make_dataset: Make, tmp_path: Path, trips: Rows) -> None:
    from kfp import dsl

    from penstock.components import evaluate as component

    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    curves = dsl.ClassificationMetrics(uri=str(tmp_path / "curves"))
    found = component.python_func(
        model=dsl.Model(uri=str(make_model())),
        eval_set=dsl.Dataset(uri=str(make_dataset(trips()))),
        metrics=metrics,
        classification_metrics=curves,
        evaluation=dsl.Artifact(uri=str(tmp_path / "evaluation")),
        report=dsl.HTML(uri=str(tmp_path / "report")),
        gate=["rows >= 1"],
        bootstrap_samples=5,
    )
    assert found == (True, "rows 400 >= 1", "any")
    assert metrics.metadata["rows"] == 400
    written = json.dumps([metrics.metadata, curves.metadata], allow_nan=False)
    assert len(json.loads(written)[1]["confidenceMetrics"]) <= 200
    assert [row["displayName"] for row in curves.metadata["confusionMatrix"]["annotationSpecs"]] == ["false", "true"]
