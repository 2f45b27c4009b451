"""Networks that hold a transform graph: trained and served by the same graph, whichever door rows come through.

The graphs are written by TensorFlow alone, as TensorFlow Transform writes them: a SavedModel `transform_fn` whose one
function takes a tensor of each column, sparse ones where values may be missing. Those that TensorFlow Transform wrote
itself are met in tests/containers/test_transform_graph.py.
"""

import json
import os
import shutil
from pathlib import Path

# Read at import.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from penstock.components._shared.dataset import KIND, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model
from penstock.components._shared.sealed import MANIFEST, seal
from penstock.components._shared.tabular import refuse_operations
from penstock.components.deployment.serving import payloads, served
from penstock.components.deployment.serving.refusal import Refusal
from penstock.components.deployment.serving.settings import Settings
from penstock.components.evaluation.evaluate import evaluate
from penstock.components.explanation.explain import explain
from penstock.components.prediction.predict import predict
from penstock.components.training.fit import fit

tf = pytest.importorskip("tensorflow")

WORDS = ["red", "blue"]  # and one more place for all others
MEAN = 49.5
HOLES = ("gaps", "share", "open", "note")  # columns in which values are missing


def write_graph(folder: Path, kinds: dict, function, words=WORDS, categories=()) -> Path:
    """Write a graph of columns, int64, float32 or string, and return its folder.

    Args:
        categories: Of what it makes, the integers that stand for something.
    """
    (folder / "made").mkdir(parents=True)
    vocabulary = folder / "made" / "words.txt"
    vocabulary.write_text("".join(f"{word}\n" for word in words))
    line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    initializer = tf.lookup.TextFileInitializer(str(vocabulary), tf.string, line, tf.int64, number)
    module = tf.Module()
    module.table = tf.lookup.StaticVocabularyTable(initializer, 1)
    specs = {
        name: tf.SparseTensorSpec((None, None), kind) if name in HOLES else tf.TensorSpec((None, 1), kind)
        for name, kind in kinds.items()
    }
    module.transform_fn = tf.function(lambda inputs: function(inputs, module.table), input_signature=[specs])
    tf.saved_model.save(module, str(folder / "transform_fn"))
    shutil.rmtree(folder / "made")  # the vocabulary is in the graph's folder from now on
    (folder / "transformed_metadata").mkdir()
    (folder / "transformed_metadata" / "schema.pbtxt").write_text(
        "".join(f'feature {{ name: "{name}" int_domain {{ is_categorical: true }} }}\n' for name in categories)
    )
    return folder


KINDS = {
    "size": tf.int64, "color": tf.string, "gaps": tf.int64, "share": tf.float32, "open": tf.int64, "note": tf.string,
    "late": tf.int64, "shade": tf.string, "double": tf.float32,
}  # fmt: skip


def transform(inputs, table):
    def dense(column, missing):
        shape = (column.dense_shape[0], 1)
        return tf.sparse.to_dense(tf.sparse.SparseTensor(column.indices, column.values, shape), missing)

    size = tf.cast(inputs["size"], tf.float32)
    return {
        "scaled": (size - MEAN) / 30,
        "color": table.lookup(inputs["color"]),
        "again": inputs["color"],
        "gaps": dense(inputs["gaps"], tf.constant(-1, tf.int64)),
        "share": tf.reshape(dense(inputs["share"], 0.25), (-1,)),
        "open": dense(inputs["open"], tf.constant(-1, tf.int64)),
        "length": tf.strings.length(dense(inputs["note"], "")),
        "late": inputs["late"],
        "told": inputs["late"] * 2,
        "loose": inputs["share"],
        "pair": tf.concat((size, size), axis=1),
    }


LEFT_OUT = ["told", "loose", "pair"]


def with_notes(table: pa.Table) -> pa.Table:
    notes = [None if number % 3 == 0 else "x" * (number % 4 + 1) for number in range(table.num_rows)]
    return table.append_column("note", pa.array(notes))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return write_graph(tmp_path_factory.mktemp("graph"), KINDS, transform, categories=["color"])


@pytest.fixture(scope="module")
def sets(streamed, rows):
    return streamed(with_notes(rows(200))), streamed(with_notes(rows(60, 1000)))


GIVEN = {"target": "late", "framework": "keras", "exclude": LEFT_OUT, "max_rounds": 12,
         "hyperparameters": {"learning_rate": 0.05, "batch_size": 32}}  # fmt: skip


@pytest.fixture(scope="module")
def folder(graph, sets, tmp_path_factory):
    """A model, moved from where it was written, its graph gone."""
    place = tmp_path_factory.mktemp("model")
    shutil.copytree(graph, place / "graph")
    fit(*sets, place / "written", transform_graph=place / "graph", **GIVEN)
    shutil.rmtree(place / "graph")
    return (place / "written").rename(place / "model")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, "test", "model")


def strange() -> pd.DataFrame:
    """Rows as they are asked about: with texts that training has not seen, and with nothing where that may be."""
    return pd.DataFrame(
        {
            "size": [0, 99, 50, 7, 2**40],
            "color": ["red", "blue", "green", "purple", ""],
            "gaps": [1.0, np.nan, 3.0, np.nan, 0.0],
            "share": [0.5, np.nan, 1.0, 0.0, np.nan],
            "open": [True, None, False, None, True],
            "note": ["abc", None, "é", "", "x"],
        }
    )


def transformed_by_hand(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what the graph says that it makes, by NumPy and Python."""
    notes = ["" if note is None else note for note in frame["note"]]
    return {
        "scaled": ((frame["size"].to_numpy(np.float32) - np.float32(MEAN)) / np.float32(30)).astype(float),
        # Its place in the vocabulary stands for a word, and is as good as one.
        "color": np.array(
            [str(WORDS.index(color) if color in WORDS else len(WORDS)) for color in frame["color"]], object
        ),
        "again": frame["color"].to_numpy(object),
        "gaps": frame["gaps"].fillna(-1).to_numpy(float),
        "share": frame["share"].astype(np.float32).fillna(0.25).to_numpy(float),
        "open": np.array([-1 if flag is None or flag != flag else int(flag) for flag in frame["open"]], float),
        "length": np.array([len(note.encode()) for note in notes], float),
    }


def frame_of(dataset):
    return pa.concat_tables(map(pq.read_table, open_dataset(dataset, "test", "dataset").files)).to_pandas()


@pytest.fixture(params=["seen", "strange"])
def frame(request, sets):
    return frame_of(sets[1]) if request.param == "seen" else strange()


def test_what_the_model_says_of_raw_rows_is_what_its_network_says_of_transformed_ones(model, folder, frame):
    import keras

    network = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    made = transformed_by_hand(frame)
    assert set(made) == {spec.name for spec in network.inputs}
    wanted = network({name: tf.constant(column[:, None]) for name, column in made.items()}).numpy()[:, 0]
    assert wanted.max() - wanted.min() > 0.01  # it tells rows apart
    np.testing.assert_allclose(model.predict(frame)[:, 1], wanted, rtol=1e-5, atol=1e-7)


def test_the_saved_model_says_the_same_of_raw_rows_by_itself(model, folder, frame):
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    raw = {
        "size": frame["size"].to_numpy(np.int64),
        "color": frame["color"].to_numpy(object),
        "note": np.array(["" if note is None else note for note in frame["note"]], object),
        **{name: frame[name].astype(float).to_numpy() for name in ("gaps", "share", "open")},
    }
    given = {name: tf.constant(column[:, None]) for name, column in raw.items()}
    signature = loaded.signatures["serving_default"]
    assert set(signature.structured_input_signature[1]) == set(given)
    np.testing.assert_allclose(
        signature(**given)["output_0"].numpy()[:, 0], model.predict(frame)[:, 1], rtol=1e-5, atol=1e-7
    )


def test_mlflow_says_the_same_of_raw_rows_and_holds_them_to_the_signature(model, folder, frame):
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    found = pyfunc.load_model(str(folder)).predict(frame.astype({"size": "int64"}))
    np.testing.assert_allclose(found["probability_true"], model.predict(frame)[:, 1], rtol=1e-5, atol=1e-7)


def test_the_signature_is_of_the_raw_columns_that_the_network_needs(folder):
    written = yaml.safe_load((folder / "MLmodel").read_text())["signature"]
    inputs = {entry["name"]: (entry["type"], entry["required"]) for entry in json.loads(written["inputs"])}
    assert inputs == {
        "color": ("string", True),
        "gaps": ("double", False),
        "note": ("string", False),
        "open": ("any", False),
        "share": ("double", False),
        "size": ("long", True),
    }
    example = json.loads((folder / "input_example.json").read_text())
    assert set(example["columns"]) == set(inputs)
    assert "red" in example["data"][0]


def test_the_vocabulary_lies_in_the_model(folder):
    assert (folder / "saved_model" / "assets" / "words.txt").read_text().split() == WORDS


def test_what_was_learned_is_measured_on_the_raw_rows_too(folder, sets, tmp_path):
    found = evaluate(folder, sets[1], tmp_path / "e.json", tmp_path / "r.html", gate=["auc >= 0.9"], slices=["color"],
                     bootstrap_samples=0)  # fmt: skip
    assert found.blessed, found.reason


def test_every_row_is_predicted_in_bulk_and_one_without_a_text_that_it_needs_is_told(folder, model, sets, tmp_path,
                                                                                   make_dataset):  # fmt: skip
    predict(folder, sets[1], tmp_path / "predictions", tmp_path / "rejects")
    found = frame_of(tmp_path / "predictions")
    np.testing.assert_allclose(found["probability_true"], model.predict(frame_of(sets[1]))[:, 1], rtol=1e-5, atol=1e-7)
    broken = make_dataset(pa.Table.from_pandas(strange().assign(color=["red", None, "blue", "red", "red"])))
    with pytest.raises(UserError, match="row 1, column 'color' is null"):
        predict(folder, broken, tmp_path / "others", tmp_path / "rejects")


def test_the_server_says_the_same_and_refuses_what_the_graph_cannot_take(folder, model):
    serving = served.load(Settings(model=str(folder)))
    rows = json.loads(strange().to_json(orient="records"))

    def answer(instances):
        body = json.dumps({"instances": instances}).encode()
        return serving.predict(payloads.read(payloads.PROTOCOLS["vertex"], payloads.JSON, body, serving.signature))

    np.testing.assert_allclose(answer(rows)["probability_true"], model.predict(strange())[:, 1], rtol=1e-5, atol=1e-7)
    for field, value in (("color", None), ("color", 3), ("size", 0.5), ("note", 1)):
        with pytest.raises(Refusal, match=f"row 0, field '{field}'"):
            answer([{**rows[0], field: value}])


def test_it_is_explained_by_what_the_graph_makes(folder, sets, tmp_path):
    paths = [tmp_path / name for name in ("attributions", "explanation.json", "vertex.json", "report.html")]
    found = explain(folder, sets[1], *paths, max_rows=20, sample_rows=20, repeats=1, local=["highest 1"])
    assert (found.method, found.additive) == ("gradient", True)
    told = json.loads(paths[1].read_text())
    assert {feature["name"] for feature in told["features"]} == set(transformed_by_hand(strange()))
    assert told["features"][0]["name"] == "scaled"  # late is size >= 50
    values = {entry["feature"]: entry["value"] for entry in told["local"][0]["values"]}
    assert values["again"] in ("red", "green", "blue")
    assert values["color"] in ("0", "1", "2")


def test_the_same_graph_seed_and_rows_give_the_same_model(folder, graph, sets, tmp_path):
    fit(*sets, tmp_path / "model", transform_graph=graph, **GIVEN)
    assert (tmp_path / "model" / "model.keras").read_bytes() == (folder / "model.keras").read_bytes()
    ids = [yaml.safe_load((place / "MLmodel").read_text())["model_uuid"] for place in (folder, tmp_path / "model")]
    assert ids[0] == ids[1]


def test_a_framework_that_cannot_hold_a_graph_says_so_before_it_reads_a_row(graph, tmp_path):
    with pytest.raises(UserError, match=r"train: transform_graph: a model of xgboost cannot hold .* Choose keras"):
        fit("no rows", "no rows", tmp_path / "model", target="late", transform_graph=graph)


def refusal(sets, graph, tmp_path, **given):
    with pytest.raises(UserError) as error:
        fit(*sets, tmp_path / "model", transform_graph=graph, **{**GIVEN, **given})
    assert not (tmp_path / "model").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"exclude": ["loose", "pair"]}, "it makes told of 'late', which is not known where the model is served"),
        ({"exclude": ["told", "pair"]}, "'loose' holds any number of them"),
        ({"exclude": ["told", "loose"]}, "'pair' is of shape (None, 2)"),
        ({"features": ["size"], "exclude": []}, "there is no column 'size'. The columns are again, color, gaps,"),
        ({"target": "lateness"}, "train: target: there is no column 'lateness'"),
    ],
)
def test_columns_that_cannot_be_learned_from_are_refused_by_name(sets, graph, tmp_path, given, words):
    assert words in refusal(sets, graph, tmp_path, **given)


def test_rows_that_are_transformed_already_are_refused(sets, graph, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(sets[0], again)
    facts = json.loads((again / MANIFEST).read_text())
    (again / MANIFEST).unlink()
    seal(again, KIND, {**{name: facts[name] for name in ("rows", "schema", "fingerprint")}, "transformed": "abc"})
    assert "train: train_set: its rows are transformed already" in refusal((again, sets[1]), graph, tmp_path)
    assert "train: eval_set: its rows are transformed already" in refusal((sets[0], again), graph, tmp_path)


def test_rows_of_other_types_are_refused(streamed, rows, sets, graph, tmp_path):
    table = with_notes(rows(60))
    numbers = table.set_column(table.schema.get_field_index("color"), "color", pa.array(range(60)))
    assert "it takes 'color' as string of shape (None, 1), and the rows have int64" in refusal(
        (streamed(numbers), sets[1]), graph, tmp_path
    )
    holes = table.set_column(0, "size", pa.array([None, *range(59)]))
    assert "train: eval_set: column 'size': holds no value in some rows" in refusal(
        (sets[0], streamed(holes)), graph, tmp_path
    )


def test_a_folder_without_a_graph_and_one_that_is_damaged_are_refused(sets, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "has no transform_fn/saved_model.pb" in refusal(sets, tmp_path / "nothing", tmp_path)
    (tmp_path / "damaged" / "transform_fn").mkdir(parents=True)
    (tmp_path / "damaged" / "transform_fn" / "saved_model.pb").write_bytes(b"\xff" * 50)
    assert "cannot be read: saved_model.pb is not TensorFlow's" in refusal(sets, tmp_path / "damaged", tmp_path)
    strange = write_graph(tmp_path / "strange", KINDS, transform)
    (strange / "transformed_metadata" / "schema.pbtxt").write_text("feature {")
    assert "transformed_metadata/schema.pbtxt cannot be read: " in refusal(sets, strange, tmp_path)


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda inputs, table: {"x": tf.fill((1, 1), tf.io.read_file("/etc/passwd"))}, "ReadFile"),
        (lambda inputs, table: {"x": tf.numpy_function(lambda x: x, [inputs["size"]], tf.int64)}, "PyFunc"),
    ],
)
def test_a_graph_that_reads_files_or_calls_python_is_not_loaded(sets, tmp_path, function, operation):
    graph = write_graph(tmp_path / "graph", {"size": tf.int64}, function)
    assert f"its graph has the operation {operation}, which reaches out of it" in refusal(sets, graph, tmp_path)
    with pytest.raises(ValueError, match=operation):
        refuse_operations(graph / "transform_fn")


def test_a_graph_that_fails_on_rows_says_on_what(sets, tmp_path):
    graph = write_graph(
        tmp_path / "graph", {"color": tf.string}, lambda inputs, table: {"x": tf.strings.to_number(inputs["color"])}
    )
    told = refusal(sets, graph, tmp_path, exclude=[])
    assert "train: train_set: the transform graph fails: StringToNumberOp could not correctly convert string:" in told
    assert "\n" not in told
