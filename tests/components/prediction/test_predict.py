"""Predictions of whole datasets, beside the model's own of the same rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset, write_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model
from penstock.components.prediction import scoring
from penstock.components.prediction.predict import predict
from tests.components.prediction.conftest import trips


@pytest.fixture
def predicted(make_dataset, tmp_path):
    """Return a function that predicts rows and returns the count, the predictions and the rejects."""

    def run(model: Path, rows: pa.Table, **arguments):
        outputs = tmp_path / "predictions", tmp_path / "rejects"
        result = predict(model, make_dataset(rows), *outputs, **arguments)
        return result, *(read(output) for output in outputs)

    return run


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in open_dataset(folder, "test", "rows").files])


@pytest.mark.parametrize("target", ["tipped", "kind", "fare"])
def test_predictions_are_the_models_own_in_the_order_of_the_rows_with_their_keys(
    predicted, models, target, monkeypatch
):
    monkeypatch.setattr(scoring, "BATCH", 64)
    rows = trips(300)
    result, found, rejects = predicted(models[target], rows, keep=["id", "fare"])
    assert (result.rows, result.bad_rows, rejects.num_rows) == (300, 0, 0)
    assert found["id"].to_pylist() == rows["id"].to_pylist()
    assert found["fare"].to_pylist() == rows["fare"].to_pylist()
    model = load_model(models[target], "test", "model")
    expected = model.predict(rows.to_pandas())
    if not model.classes:
        assert found["prediction"].to_pylist() == expected.tolist()
        return
    assert found["prediction"].to_pylist() == [model.classes[place] for place in expected.argmax(axis=1)]
    for place, label in enumerate(model.classes):
        name = f"probability_{str(label).lower()}"
        assert found[name].to_pylist() == expected[:, place].tolist()


def test_without_keys_the_place_of_a_row_is_kept(predicted, models):
    _, found, _ = predicted(models["fare"], trips(5))
    assert found.schema.names == ["row", "prediction"]
    assert found["row"].to_pylist() == [0, 1, 2, 3, 4]


def test_all_columns_can_be_kept(predicted, models):
    _, found, _ = predicted(models["fare"], trips(5), keep=["*"])
    assert found.schema.names == [*trips(5).schema.names, "prediction"]
    assert found.select(trips(5).schema.names).equals(trips(5))


def test_columns_that_do_not_fit_on_the_disk_are_refused_before_they_are_kept(models, small_disk, tmp_path):
    table, rows = trips(90_000), tmp_path / "rows"
    for name in ("x", "y"):
        table = table.append_column(name, pa.array(np.random.default_rng(0).random(90_000)))
    write_dataset(rows, table.schema, table.to_batches())
    outputs = small_disk / "predictions", small_disk / "rejects"
    with pytest.raises(UserError, match=r"predict_batch: keep: the columns to keep take at least . MB in ") as caught:
        predict(models["fare"], rows, *outputs, keep=["*"])
    assert str(caught.value).endswith("where 1 MB are free. Keep fewer, or give the step a larger disk.")
    assert not any(output.exists() for output in outputs)


def test_bad_rows_are_counted_and_kept_aside(predicted, models, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 4)
    rows = trips(10)
    miles = rows["miles"].to_pylist()
    miles[2], miles[7] = float("inf"), float("-inf")
    rows = rows.set_column(1, "miles", pa.array(miles))
    result, found, rejects = predicted(models["fare"], rows, max_bad_rows=2)
    assert (result.rows, result.bad_rows) == (8, 2)
    assert found["row"].to_pylist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert rejects.to_pylist() == [{"row": n, "column": "miles", "reason": "is infinite"} for n in (2, 7)]


def test_more_bad_rows_than_allowed_leave_nothing(predicted, models, tmp_path):
    rows = trips(3).set_column(1, "miles", pa.array([1.0, float("inf"), 2.0]))
    with pytest.raises(UserError, match="cannot read more than 0 of its rows: row 1, column 'miles' is infinite"):
        predicted(models["fare"], rows)
    assert not (tmp_path / "predictions").exists()
    assert not (tmp_path / "rejects").exists()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda rows: rows.drop_columns(["miles"]), {}, "model: there is no column 'miles'"),
        (
            lambda rows: rows.set_column(1, "miles", pa.array(["far"] * 5)),
            {},
            "holds text where the model learned numbers",
        ),
        (lambda rows: rows.set_column(3, "night", pa.array([0, 1, 2, 3, 4])), {}, "row 2, column 'night' is neither"),
        (lambda rows: rows, {"keep": ["nowhere"]}, "keep: there is no column 'nowhere'"),
        (
            lambda rows: rows.append_column("prediction", rows["id"]),
            {"keep": ["*"]},
            "prediction would be a column twice",
        ),
    ],
)
def test_wrong_inputs_are_refused_and_leave_nothing(predicted, models, tmp_path, change, arguments, message):
    with pytest.raises(UserError, match=message):
        predicted(models["fare"], change(trips(5)), **arguments)
    assert not (tmp_path / "predictions").exists()


def test_no_rows_give_no_predictions(predicted, models):
    result, found, _ = predicted(models["kind"], trips(0), keep=["id"])
    assert result.rows == 0
    assert found.schema.names[:2] == ["id", "prediction"]
