from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.inspection import partial_dependence, permutation_importance

from penstock.components._shared.dataset import KIND, frame_of
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model
from penstock.components._shared.sealed import new_folder, seal
from penstock.components.explanation import dependence, importance
from penstock.components.explanation import explain as logic
from penstock.components.explanation.explainers import Attributed
from tests.components.explanation.conftest import FEATURES, TARGETS, Ran

Run = Callable[..., Ran]
Make = Callable[..., Path]
Rows = Callable[..., pa.Table]
NAMES = [f"attribution_{name}" for name in FEATURES]


@pytest.mark.parametrize("task", list(TARGETS))
def test_rows_are_written_with_keys_and_add_up_to_their_predictions(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows, task: str
) -> None:
    table, model = trips(), model_of("xgboost", task)
    found = run(model, make_dataset(table), keys=["id"])
    predicted = load_model(model, "test", "model").predict(table.to_pandas())
    classes = 3 if task == "multiclass" else 1
    assert len(found.rows) == len(table) * classes
    assert list(found.rows["row"]) == list(np.repeat(np.arange(len(table)), classes))
    assert list(found.rows["id"]) == list(np.repeat(table["id"].to_numpy(), classes))
    expected = predicted[:, 1] if task == "binary" else predicted.reshape(-1)
    assert found.rows["prediction"].to_numpy() == pytest.approx(expected)
    sums = found.rows[NAMES].sum(axis=1) + found.rows["base_value"]
    assert sums.to_numpy() == pytest.approx(found.rows["output"].to_numpy(), abs=1e-4)
    if task == "binary":
        assert 1 / (1 + np.exp(-sums.to_numpy())) == pytest.approx(expected, abs=1e-4)
    if task == "multiclass":
        assert list(found.rows["class"][:4]) == ["blue", "green", "red", "blue"]
        margins = np.exp(sums.to_numpy().reshape(-1, 3))
        assert margins / margins.sum(axis=1, keepdims=True) == pytest.approx(predicted, abs=1e-4)
    assert found.result.additive is True
    assert found.result.method == "tree"
    assert found.found["additivity"]["holds"] is True


def test_averages_and_slices_are_those_of_the_rows(run: Run, model_of: Make, make_dataset: Make, trips: Rows) -> None:
    table = trips()
    found = run(model_of("lightgbm", "binary"), make_dataset(table), slices=["zone", "night"])
    frame = found.rows[NAMES].abs()
    listed = found.found["features"]
    assert [entry["mean_absolute"] for entry in listed] == pytest.approx(sorted(frame.mean(), reverse=True))
    assert sum(entry["share"] for entry in listed) == pytest.approx(1)
    for entry in listed:
        assert entry["mean_absolute"] == pytest.approx(frame[f"attribution_{entry['name']}"].mean())
        assert entry["mean"] == pytest.approx(found.rows[f"attribution_{entry['name']}"].mean())
        assert found.result.metrics[f"mean_absolute_{entry['name']}"] == entry["mean_absolute"]
    zones = table["zone"].to_pandas()
    parts = found.found["slices"]["zone"]["slices"]
    assert [part["value"] for part in parts] == ["a", "b", "c", "d", "null"]
    for part in parts:
        inside = zones.isna() if part["value"] == "null" else zones == part["value"]
        assert part["rows"] == inside.sum()
        assert part["mean_output"] == pytest.approx([found.rows["output"][inside].mean()])
        for name in FEATURES:
            assert part["mean_absolute"][name] == pytest.approx(frame[f"attribution_{name}"][inside].mean())
    assert [part["value"] for part in found.found["slices"]["night"]["slices"]] == ["false", "true"]
    assert "Slices by zone" in found.page


def test_weights_count_as_rows_that_are_there_so_often(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows
) -> None:
    table, model = trips(200), model_of("lightgbm", "regression")
    weighed = run(model, make_dataset(table), weight_column="weight", slices=["night"], repeats=3)
    repeated = table.take(pa.array(np.repeat(np.arange(200), table["weight"].to_numpy().astype(int))))
    plain = run(model, make_dataset(repeated), slices=["night"])
    for mine, theirs in zip(weighed.found["features"], plain.found["features"], strict=True):
        assert mine["name"] == theirs["name"]
        assert mine["mean_absolute"] == pytest.approx(theirs["mean_absolute"])
    for mine, theirs in zip(
        weighed.found["slices"]["night"]["slices"], plain.found["slices"]["night"]["slices"], strict=True
    ):
        assert mine["mean_absolute"] == pytest.approx(theirs["mean_absolute"])
    (name,) = weighed.found["dependence"]
    assert weighed.found["importance"]["baseline"] == pytest.approx(plain.found["importance"]["baseline"])
    assert name == weighed.found["features"][0]["name"]


def test_sample_is_stated_and_drawn_by_the_seed(run: Run, model_of: Make, make_dataset: Make, trips: Rows) -> None:
    model, rows = model_of("xgboost", "binary"), make_dataset(trips())
    first = run(model, rows, max_rows=50, sample_rows=20)
    assert first.result.rows == len(first.rows) == 50
    assert first.found["sample"] == {"rows": 50, "why": "max_rows is 50", "seed": 0, "importance_rows": 20}
    assert first.result.metrics["dataset_rows"] == 300
    assert "50 of 300 rows are explained, drawn at random: max_rows is 50." in first.page
    again, other = run(model, rows, max_rows=50), run(model, rows, max_rows=50, seed=1)
    assert list(again.rows["row"]) == list(first.rows["row"]) == sorted(first.rows["row"])
    assert list(other.rows["row"]) != list(first.rows["row"])
    assert run(model, rows, max_rows=0).result.rows == 300


def test_same_input_gives_the_same_bytes_however_it_is_cut_into_files_and_batches(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, table = model_of("hist_gradient_boosting", "multiclass"), trips()
    given: dict[str, Any] = {"keys": ["zone"], "slices": ["distance"], "local": ["highest 2", "id=1007"]}
    given["max_rows"] = 99
    whole = run(model, make_dataset(table), **given)
    files = {file.name: file.read_bytes() for file in whole.folder.rglob("*") if file.is_file()}
    again = run(model, make_dataset(table), **given)
    assert {file.name: file.read_bytes() for file in again.folder.rglob("*") if file.is_file()} == files
    with new_folder(tmp_path / "parts") as folder:
        for place in range(3):
            pq.write_table(table.slice(place * 100, 100), folder / f"part-{place:05}.parquet")
        schema = [{"name": field.name, "type": str(field.type)} for field in table.schema]
        seal(folder, KIND, {"rows": 300, "schema": schema, "fingerprint": "same"})
    monkeypatch.setattr(logic, "BATCH", 7)
    parts = run(model, tmp_path / "parts", **given)
    pd.testing.assert_frame_equal(parts.rows.reset_index(drop=True), whole.rows.reset_index(drop=True), rtol=1e-12)
    assert [entry["row"] for entry in parts.found["local"]] == [entry["row"] for entry in whole.found["local"]]


def test_attributions_that_do_not_add_up_are_told_everywhere(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(subject: Any, method: str) -> Any:
        name, explainer = choose(subject, method)

        def attribute(matrix: np.ndarray) -> Attributed:
            found = explainer.attribute(matrix)
            found.values[np.isnan(matrix[:, 1]), 0, 0] += 0.01
            return found

        return name, replace(explainer, attribute=attribute)

    choose = logic.choose
    monkeypatch.setattr(logic, "choose", broken)
    table = trips()
    missing = table["other"].null_count
    found = run(model_of("lightgbm", "binary"), make_dataset(table))
    assert found.result.additive is False
    assert found.result.metrics["additivity_failed_rows"] == found.found["additivity"]["failed_rows"] == missing > 0
    assert 1e-3 < found.found["additivity"]["largest_gap"] < 0.1
    assert f"The attributions of {missing} of 300 rows do not add up" in found.page
    assert 'class="status bad"' in found.page
    assert run(model_of("lightgbm", "binary"), make_dataset(table), tolerance=0.5).result.additive is True


@pytest.mark.parametrize(("part", "problem"), [("outputs", "model: it gives"), ("values", "method: it attributes")])
def test_nan_is_refused(
    run: Run,
    model_of: Make,
    make_dataset: Make,
    trips: Rows,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    problem: str,
) -> None:
    def broken(subject: Any, method: str) -> Any:
        name, explainer = choose(subject, method)

        def attribute(matrix: np.ndarray) -> Attributed:
            found = explainer.attribute(matrix)
            getattr(found, part)[0] = np.nan
            return found

        return name, replace(explainer, attribute=attribute)

    choose = logic.choose
    monkeypatch.setattr(logic, "choose", broken)
    with pytest.raises(UserError, match=f"explain: {problem} NaN or infinity for 1 of 300 rows"):
        run(model_of("lightgbm", "regression"), make_dataset(trips()))


def test_chosen_rows_are_explained_with_their_values(run: Run, model_of: Make, make_dataset: Make, trips: Rows) -> None:
    table = trips()
    choices = ["first 2", "highest 2", "lowest 1", "id=1007", "zone=a,night=true"]
    found = run(model_of("xgboost", "binary"), make_dataset(table), keys=["id"], local=choices, max_rows=250)
    frame = table.to_pandas()
    by_choice: dict[str, list[dict[str, Any]]] = {}
    for entry in found.found["local"]:
        by_choice.setdefault(entry["choice"], []).append(entry)
    assert list(by_choice) == choices
    assert [entry["row"] for entry in by_choice["first 2"]] == [0, 1]
    ranked = found.rows.sort_values("prediction", ascending=False, kind="stable")
    assert [entry["row"] for entry in by_choice["highest 2"]] == list(ranked["row"][:2])
    assert by_choice["lowest 1"][0]["prediction"] == found.rows["prediction"].min()
    (seventh,) = by_choice["id=1007"]
    assert seventh["row"] == 7
    assert seventh["keys"] == {"id": 1007}
    values = {entry["feature"]: entry["value"] for entry in seventh["values"]}
    assert values["distance"] == frame["distance"][7]
    assert values["night"] == bool(frame["night"][7])
    total = sum(entry["attribution"] for entry in seventh["values"])
    assert total + seventh["base_value"] == pytest.approx(seventh["output"], abs=1e-5)
    sizes = [abs(entry["attribution"]) for entry in seventh["values"]]
    assert sizes == sorted(sizes, reverse=True)
    inside = frame[(frame["zone"] == "a") & frame["night"]]
    assert [entry["row"] for entry in by_choice["zone=a,night=true"]] == list(inside.index[:20])
    assert "id = 1007" in found.page


def test_local_rows_of_a_multiclass_model_are_of_the_predicted_class(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows
) -> None:
    found = run(model_of("lightgbm", "multiclass"), make_dataset(trips()), local=["highest 1"])
    (entry,) = found.found["local"]
    assert entry["prediction"] == found.rows["prediction"].max()
    same = found.rows[(found.rows["row"] == entry["row"]) & (found.rows["class"] == entry["class"])]
    assert same["prediction"].item() == entry["prediction"]


def test_importance_is_left_out_with_the_reason_where_it_cannot_be_measured(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows
) -> None:
    model, table = model_of("xgboost", "binary"), trips()
    without = run(model, make_dataset(table.drop_columns(["tipped"])))
    assert without.found["importance"] is None
    assert without.found["importance_note"] == "the rows do not have the target 'tipped'"
    assert "Permutation importance was not measured: the rows do not have the target" in without.page
    nulls = table.set_column(6, "tipped", pa.array([None, *table["tipped"].to_pylist()[1:]]))
    assert "'tipped' is null in 1 of 300 rows" in run(model, make_dataset(nulls)).found["importance_note"]
    one = table.set_column(6, "tipped", pa.array([True] * 300))
    assert "all of one class" in run(model, make_dataset(one)).found["importance_note"]
    assert run(model, make_dataset(table), repeats=0).found["importance_note"] == "repeats is 0"


@pytest.mark.parametrize(
    ("task", "metric", "theirs"),
    [
        ("binary", "auc", "roc_auc"),
        ("binary", "log_loss", "neg_log_loss"),
        ("multiclass", "accuracy", "accuracy"),
        ("regression", "rmse", "neg_root_mean_squared_error"),
        ("regression", "r2", "r2"),
    ],
)
def test_permutation_importance_is_near_scikit_learns(
    model_of: Make, trips: Rows, task: str, metric: str, theirs: str
) -> None:
    model = load_model(model_of("lightgbm", task), "test", "model")
    table = trips()
    matrix = model.matrix(frame_of(table.combine_chunks().to_batches()[0]))
    labels = table[TARGETS[task]].to_numpy()
    if task != "regression":
        labels = np.array([model.classes.index(label) for label in labels.tolist()])
    weights = table["weight"].to_numpy()
    ours = importance.permute(model.predict_matrix, matrix, labels, weights, task, metric, 60, seed=0)
    estimator = _regressor(model) if task == "regression" else _classifier(model)
    reference = permutation_importance(
        estimator, matrix, labels, scoring=theirs, n_repeats=60, random_state=1, sample_weight=weights
    )
    error = 4 * np.hypot(ours.drops.std(axis=1), reference.importances_std) / np.sqrt(60) + 1e-12
    assert (np.abs(ours.drops.mean(axis=1) - reference.importances_mean) <= error).all()
    assert ours.drops.mean(axis=1).max() > 0.05


def _regressor(model: Any) -> Any:
    class Regressor(RegressorMixin, BaseEstimator):
        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, matrix: np.ndarray, labels: np.ndarray) -> Any:
            return self

        def predict(self, matrix: np.ndarray) -> np.ndarray:
            return model.predict_matrix(matrix)

    return Regressor()


def _classifier(model: Any) -> Any:
    class Classifier(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(len(model.classes))

        def fit(self, matrix: np.ndarray, labels: np.ndarray) -> Any:
            return self

        def predict_proba(self, matrix: np.ndarray) -> np.ndarray:
            return model.predict_matrix(matrix)

        def predict(self, matrix: np.ndarray) -> np.ndarray:
            return model.predict_matrix(matrix).argmax(axis=1)

    return Classifier()


def test_partial_dependence_is_scikit_learns(model_of: Make, trips: Rows) -> None:
    model = load_model(model_of("xgboost", "regression"), "test", "model")
    matrix = model.matrix(frame_of(trips().combine_chunks().to_batches()[0]))
    ours = dependence.depend(
        lambda rows: model.predict_matrix(rows)[:, None], matrix, np.ones(len(matrix)), 0, model.columns[0]
    )
    points = np.array(ours.values)
    assert len(points) == 20
    assert points[[0, -1]] == pytest.approx(np.quantile(matrix[:, 0], [0.05, 0.95]))
    reference = partial_dependence(
        _regressor(model), matrix, [0], kind="average", method="brute", custom_values={0: points}
    )
    assert ours.predicted[:, 0] == pytest.approx(reference["average"][0])


def test_dependence_on_categories_has_shares_and_the_missing(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows
) -> None:
    table, model = trips(), model_of("lightgbm", "binary")
    found = run(model, make_dataset(table), dependence_features=4)
    assert set(found.found["dependence"]) == set(FEATURES)
    zone = found.found["dependence"]["zone"]
    assert set(zone["values"]) == {"a", "b", "c", "d", None}
    assert sum(zone["shares"]) == pytest.approx(1)
    frame = table.to_pandas()
    for value, share, predicted in zip(zone["values"], zone["shares"], zone["predicted"], strict=True):
        same = frame["zone"].isna() if value is None else frame["zone"] == value
        assert share == pytest.approx(same.mean())
        means = load_model(model, "test", "model").predict(frame.assign(zone=value)).mean(axis=0)
        assert predicted == pytest.approx([means[1]])
    assert found.found["dependence"]["night"]["values"] in ([False, True], [True, False])
    assert re.search(r"20 quantiles from 5% to 95%; missing in 1\d\.\d% of the rows", found.page)


@pytest.mark.slow  # Google's libraries take long to import
def test_vertex_ai_reads_the_averages(run: Run, model_of: Make, make_dataset: Make, trips: Rows) -> None:
    from google.cloud import aiplatform_v1
    from google_cloud_pipeline_components.container._implementation.model_evaluation import import_model_evaluation

    found = run(model_of("xgboost", "multiclass"), make_dataset(trips()))
    (first, *classes) = found.vertex["explanation"]["attributions"]
    assert first["featureAttributions"] == {entry["name"]: entry["mean_absolute"] for entry in found.found["features"]}
    # As Google's own component does with the file that it is given.
    explanation = aiplatform_v1.ModelExplanation(
        mean_attributions=[{"feature_attributions": import_model_evaluation.to_value(first["featureAttributions"])}]
    )
    assert set(explanation.mean_attributions[0].feature_attributions) == set(FEATURES)
    sliced = import_model_evaluation.sliced_explanation_to_dict(str(found.folder / "vertex"), {})
    assert set(sliced) == {"blue", "green", "red"}
    by_class = found.rows.groupby("class")[NAMES].agg(lambda values: values.abs().mean())
    assert classes[0]["featureAttributions"]["distance"] == pytest.approx(
        by_class.loc["blue", "attribution_distance"], rel=1e-6
    )


@pytest.mark.slow
def test_model_agnostic_rows_are_as_many_as_the_budget_pays_for(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows
) -> None:
    cost = 50 * 10 * (2 * len(FEATURES) + 1)
    found = run(
        model_of("lightgbm", "binary"), make_dataset(trips()), method="permutation", max_evaluations=5 * cost + 1
    )
    assert found.result.rows == 5
    assert found.result.method == "permutation"
    assert found.result.additive is True
    assert found.found["background"] == {"rows": 50, "of": "dataset"}
    assert f"each row costs {cost:,} predictions, and max_evaluations is {5 * cost + 1:,}" in found.page


def test_background_of_its_own_is_what_linear_models_are_compared_with(
    run: Run, model_of: Make, make_dataset: Make, trips: Rows
) -> None:
    table, model = trips(), model_of("linear", "regression")
    other = make_dataset(table.filter(table["night"]))
    found = run(model, make_dataset(table), background=other)
    assert found.found["background"] == {"rows": table["night"].to_numpy().sum(), "of": "background"}
    nights = load_model(model, "test", "model").predict(table.filter(table["night"]).to_pandas())
    assert found.rows["base_value"][0] == pytest.approx(nights.mean())


def test_names_and_texts_of_all_kinds_come_out_as_they_are(
    run: Run, make_dataset: Make, trips: Rows, tmp_path: Path
) -> None:
    from penstock.components.training.fit import fit

    odd = '<b>"ä", [x]'
    table = trips().rename_columns(["id", odd, "other", "zone", "night", "weight", "tipped", "color", "fare"])
    rows = make_dataset(table)
    fit(rows, rows, tmp_path / "model", target="fare", features=[odd, "zone"], max_rounds=3)
    found = run(tmp_path / "model", rows, local=["first 1"], slices=[odd])
    assert f"attribution_{odd}" in found.rows.columns
    assert odd not in found.page
    assert "&lt;b&gt;" in found.page


def test_keys_of_any_type_are_kept(run: Run, model_of: Make, make_dataset: Make, trips: Rows) -> None:
    times = pa.array(np.arange(300) * 10**6, pa.timestamp("us", tz="UTC"))
    decimals = pa.array([None, *range(299)], pa.int64()).cast(pa.decimal128(24, 2))
    labels = pa.array(["x", None, "z"] * 100).dictionary_encode()
    table = trips().append_column("at", times).append_column("price", decimals).append_column("label", labels)
    found = run(
        model_of("xgboost", "multiclass"), make_dataset(table), keys=["at", "price", "label"], local=["first 1"]
    )
    written = pq.read_table(next((found.folder / "attributions").glob("*.parquet")))
    for name in ("at", "price"):
        assert written[name].type == table[name].type
        assert written[name].to_pylist() == np.repeat(np.array(table[name].to_pylist(), dtype=object), 3).tolist()
    assert written["label"].to_pylist()[:9] == ["x"] * 3 + [None] * 3 + ["z"] * 3
    assert found.found["local"][0]["keys"] == {"at": "1970-01-01T00:00:00+00:00", "price": None, "label": "x"}
