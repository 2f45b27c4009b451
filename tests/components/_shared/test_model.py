import io
import json
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io

from penstock.components._shared import model as module
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import KIND, load_model
from penstock.components._shared.sealed import MANIFEST, seal
from penstock.components.training.fit import fit

ROWS = {"x": [1.0, 2.0] * 40, "flag": [True, None] * 40, "z": ["a", "b"] * 40, "y": [0, 1] * 40}


@pytest.fixture
def folder(make_dataset, tmp_path):
    return trained(make_dataset, tmp_path, "xgboost")


def trained(make_dataset, tmp_path, framework):
    dataset = make_dataset(ROWS)
    fit(dataset, dataset, tmp_path / "model", target="y", framework=framework, max_rounds=5)
    return tmp_path / "model"


def reseal(folder):
    """Seal an altered folder anew, as whoever altered it could."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).unlink()
    seal(folder, KIND, {name: value for name, value in manifest.items() if name not in ("kind", "files")})


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm", "sklearn"])
def test_predictions_are_probabilities_in_the_order_of_classes(framework, make_dataset, tmp_path):
    model = load_model(trained(make_dataset, tmp_path, framework), "test", "model")
    assert (model.task, model.target, model.classes, model.features) == ("binary", "y", (0, 1), ("x", "flag", "z"))
    predicted = model.predict(pd.DataFrame(ROWS))
    assert predicted.dtype == np.float64
    assert predicted.shape == (80, 2)
    assert predicted.sum(axis=1) == pytest.approx(1)
    assert (predicted.argmax(axis=1) == ROWS["y"]).all()


def test_no_rows_give_no_predictions(folder):
    assert load_model(folder, "test", "model").predict(pd.DataFrame(ROWS)[:0]).shape == (0, 2)


def test_columns_that_it_does_not_read_are_ignored_in_any_order(folder):
    frame = pd.DataFrame(ROWS)
    model = load_model(folder, "test", "model")
    shuffled = frame.assign(more="x")[["more", "z", "y", "flag", "x"]]
    assert (model.predict(shuffled) == model.predict(frame)).all()


def test_an_index_of_rows_does_not_matter(folder):
    frame = pd.DataFrame(ROWS)
    model = load_model(folder, "test", "model")
    assert (model.predict(frame[10:20]) == model.predict(frame)[10:20]).all()


def test_a_missing_column_is_named(folder):
    with pytest.raises(UserError, match=r"scorer: rows: it reads columns .* not have: flag, z. The rows have x, y"):
        load_model(folder, "scorer", "rows").predict(pd.DataFrame(ROWS)[["x", "y"]])


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"x": ["a"]}, "column 'x': holds text"),
        ({"x": [np.inf]}, "column 'x': holds an infinite value"),
        ({"z": [3]}, "column 'z': holds integer values where the model learned text"),
        ({"flag": [2.0]}, "column 'flag': holds values other than true and false"),
        ({"flag": ["yes"]}, "column 'flag'"),
    ],
)
def test_values_of_another_kind_are_refused(columns, problem, folder):
    row = {"x": [1.0], "flag": [True], "z": ["a"], **columns}
    with pytest.raises(UserError, match=problem):
        load_model(folder, "test", "model").predict(pd.DataFrame(row))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("x", pd.Series([1, 2] * 40, dtype="Int64")),
        ("x", pd.Series([1, 2] * 40, dtype="float32")),
        ("flag", pd.Series([True, None] * 40, dtype="boolean")),
        ("flag", pd.Series([1.0, None] * 40)),
        ("z", pd.Series(["a", "b"] * 40, dtype="category")),
        ("z", pd.Series(["a", "b"] * 40, dtype="string")),
        ("z", pd.Categorical(["a", "b"] * 40, categories=["c", "b", "a"])),
    ],
)
def test_the_same_values_in_another_dtype_predict_the_same(column, values, folder):
    frame = pd.DataFrame(ROWS)
    model = load_model(folder, "test", "model")
    assert (model.predict(frame.assign(**{column: values})) == model.predict(frame)).all()


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete", "unfinished", "other kind"])
def test_a_harmed_model_is_refused(harm, folder):
    weights = folder / "model.ubj"
    content = bytearray(weights.read_bytes())
    if harm == "truncate":
        weights.write_bytes(content[:-1])
    elif harm == "flip":
        content[100] ^= 1
        weights.write_bytes(content)
    elif harm == "delete":
        weights.unlink()
    elif harm == "unfinished":
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).unlink()
        seal(folder, "penstock.dataset/1", {})
    with pytest.raises(UserError, match="test: model"):
        load_model(folder, "test", "model")


@pytest.mark.parametrize("name", ["model.pkl", "python_model.pkl", "code/helper.py", "notes.txt"])
def test_files_that_are_no_part_of_a_model_are_refused_even_if_sealed(name, folder, tmp_path):
    (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(UserError, match="is not in the manifest"):
        load_model(folder, "test", "model")
    reseal(folder)
    with pytest.raises(UserError, match=f"holds {name}, no part of a model"):
        load_model(folder, "test", "model")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm", "sklearn"])
def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(framework, make_dataset, tmp_path):
    folder = trained(make_dataset, tmp_path, framework)
    (weights,) = folder.glob("model.*")
    weights.write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    reseal(folder)
    with pytest.raises(UserError, match="cannot be read"):
        load_model(folder, "test", "model")
    assert not (tmp_path / "canary").exists()


def test_a_skops_file_that_holds_other_types_is_refused_and_not_run(make_dataset, tmp_path):
    folder = trained(make_dataset, tmp_path, "sklearn")
    skops.io.dump(Canary(tmp_path / "canary"), folder / "model.skops")
    reseal(folder)
    with pytest.raises(UserError, match="cannot be read"):
        load_model(folder, "test", "model")
    assert not (tmp_path / "canary").exists()


def test_a_pickle_inside_a_skops_file_is_refused_and_not_run(make_dataset, tmp_path):
    folder = trained(make_dataset, tmp_path, "sklearn")
    harmful = io.BytesIO()
    np.save(harmful, np.array([Canary(tmp_path / "canary")], dtype=object), allow_pickle=True)
    weights = folder / "model.skops"
    with zipfile.ZipFile(weights) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(weights, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, harmful.getvalue() if name.endswith(".npy") else content)
    reseal(folder)
    with pytest.raises(UserError, match="cannot be read"):
        load_model(folder, "test", "model")
    assert not (tmp_path / "canary").exists()


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    (code,) = (folder / "code").glob("*.py")
    code.write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nraise SystemExit")
    reseal(folder)
    assert load_model(folder, "test", "model").predict(pd.DataFrame(ROWS)).shape == (80, 2)
    assert not (tmp_path / "canary").exists()


def test_a_description_of_another_format_is_refused(folder):
    path = folder / "features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    reseal(folder)
    with pytest.raises(UserError, match="format 2, not 1"):
        load_model(folder, "test", "model")


def test_the_code_that_travels_imports_nothing_of_penstock():
    source = (module.Path(module.__file__).with_name("tabular.py")).read_text()
    assert "import penstock" not in source
    assert "from penstock" not in source
