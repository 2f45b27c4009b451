"""Networks of Keras: what they learn, that all doors of a model give the same, and that a killed fit goes on.

TensorFlow takes seconds to import and more to build a model: models are few here, and asked much.
"""

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
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

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting import frameworks, learning, prepare
from penstock.components._shared.model import load_model
from penstock.components.deployment.serving import served
from penstock.components.deployment.serving.settings import Settings
from penstock.components.training.fit import fit
from tests.components._shared.test_model import reseal

pytest.importorskip("tensorflow")

EAGER = {"learning_rate": 0.02, "batch_size": 32}
TARGETS = {"binary": "late", "multiclass": "shade", "regression": "double"}


def with_names(table: pa.Table) -> pa.Table:
    """Return rows with a text that names more than it groups, and a column with a name that TensorFlow refuses."""
    names = [None if number % 9 == 0 else f"name {number % 150}" for number in range(table.num_rows)]
    return table.append_column("name", pa.array(names)).rename_columns({"share": "größe / m²"})


@pytest.fixture(scope="module")
def sets(streamed, rows):
    return streamed(with_names(rows(200))), streamed(with_names(rows(60, 1000)))


@pytest.fixture(scope="module")
def models(sets, tmp_path_factory):
    """A function that returns the folder of a model of a task, and what fit returned."""
    fitted = {}

    def model(task):
        if task not in fitted:
            folder = tmp_path_factory.mktemp(task) / "model"
            others = [name for name in TARGETS.values() if name != TARGETS[task]]
            others += ["name"] if task != "binary" else []
            given = {"target": TARGETS[task], "exclude": others, "framework": "keras", "max_rounds": 120}
            fitted[task] = folder, fit(*sets, folder, hyperparameters={**EAGER, "hash_bins": 64}, **given)
        return fitted[task]

    return model


@pytest.fixture
def learn(tmp_path, streamed):
    """A function that fits a network to columns, both sets the same, and returns what fit returned."""

    def learn(columns, name="model", **given):
        dataset = columns if isinstance(columns, Path) else streamed(columns)
        given = {"target": "y", "framework": "keras", "early_stopping_rounds": 0, **given}
        return fit(dataset, dataset, tmp_path / name, **given)

    return learn


def loaded(folder):
    return load_model(folder, "test", "model")


def frame_of(dataset):
    return pa.concat_tables(map(pq.read_table, open_dataset(dataset, "test", "dataset").files)).to_pandas()


@pytest.mark.parametrize("task", TARGETS)
def test_what_one_column_tells_is_learned_and_its_loss_is_that_of_the_saved_model(task, models, sets):
    folder, fitted = models(task)
    model, frame = loaded(folder), frame_of(sets[1])
    predicted, truth = model.predict(frame), list(frame[model.target])
    assert fitted.task == model.task == task
    if task == "regression":
        errors = predicted - truth
        assert np.abs(errors).max() < 20  # of 0 to 198
        assert fitted.metrics["eval_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
        assert set(fitted.metrics) == {"train_rmse", "eval_rmse"}
    else:
        assert [model.classes[place] for place in predicted.argmax(axis=1)] == truth
        chosen = predicted[np.arange(len(truth)), [model.classes.index(label) for label in truth]]
        assert fitted.metrics["eval_log_loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-2, abs=1e-6)
        assert set(fitted.metrics) == {"train_log_loss", "eval_log_loss"}


def raw(model, frame):
    """Return rows as the model's own inputs take them."""
    import tensorflow as tf

    columns = {}
    for column, name in zip(model.columns, ("size", "color", "gaps", "feature_3_gre___m", "open", "name"), strict=True):
        values = frame[column["name"]]
        text = column["kind"] in ("category", "text")
        columns[name] = tf.constant(
            np.array(values.fillna("") if text else values, dtype=object if text else float)[:, None]
        )
    return columns


def test_the_keras_file_the_saved_model_and_mlflow_predict_what_penstock_predicts(models, sets):
    import keras
    import mlflow.pyfunc
    import tensorflow as tf

    folder = models("binary")[0]
    model, frame = loaded(folder), frame_of(sets[1]).astype({"open": object})
    frame.loc[:3, "color"] = ["purple", None, "blue", "red"]
    frame.loc[:3, "name"] = ["never seen", None, "", "name 7"]
    assert [column["kind"] for column in model.columns][-1] == "text"
    expected = model.predict(frame)[:, 1]
    assert expected[:60].std() > 0.1

    columns = raw(model, frame)
    from_file = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(from_file(columns).numpy()[:, 0], expected, atol=1e-6)
    exported = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    np.testing.assert_allclose(exported(**columns)["output_0"].numpy()[:, 0], expected, atol=1e-6)
    columns_read = frame[list(model.features)].astype({"gaps": float})
    by_mlflow = mlflow.pyfunc.load_model(str(folder)).predict(columns_read)
    np.testing.assert_array_equal(by_mlflow["probability_true"], expected)
    flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    assert flavors["tensorflow"]["saved_model_dir"] == "saved_model"


def test_a_server_predicts_what_penstock_predicts(models, sets):
    folder = models("binary")[0]
    frame = frame_of(sets[1])[:8].astype(object).where(lambda values: values.notna(), None)
    frame.loc[:2, "name"] = ["never seen", None, ""]
    server = served.load(Settings.read({}, model=str(folder)))
    matrix = server.signature.matrix({name: list(frame[name]) for name in server.model.features}, len(frame))
    np.testing.assert_array_equal(server.model.predict_matrix(matrix), server.model.predict(frame))


def test_early_stopping_keeps_the_best_round_and_reports_each(streamed, tmp_path):
    generator = np.random.default_rng(1)
    columns = {"x": generator.random(400), "z": generator.random(400)}
    noisy = {**columns, "y": columns["x"] + generator.normal(0, 0.5, 400) > 0.5}
    halves = [streamed({name: values[cut] for name, values in noisy.items()}) for cut in (slice(200), slice(200, 400))]
    given = prepare.Settings(target="y", framework="keras", max_rounds=200, early_stopping_rounds=5)
    prepared = prepare.prepare(*halves, given, {"learning_rate": 0.05, "batch_size": 32})
    losses = []
    job = dataclasses.replace(prepared.job, report=lambda number, found: losses.append(found["log_loss"]))
    learned = learning.learn(prepared.row, "keras", job)
    assert len(losses) == learned.rounds + 5 < 200
    assert learned.rounds == int(np.argmin(losses)) + 1
    assert learned.metrics["eval_log_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_weights_of_rows_and_classes_move_the_share_of_a_class(learn, tmp_path):
    rows = {"x": [1.0, 2.0] * 50, "y": [True] * 30 + [False] * 70, "w": [7] * 30 + [2] * 70}
    weights = {"weight_column": "w", "class_weights": {"True": 2}}  # 30 * 7 * 2 : 70 * 2
    learn(rows, features=["x"], max_rounds=150, hyperparameters={**EAGER, "batch_size": 100}, **weights)
    predicted = loaded(tmp_path / "model").predict(pd.DataFrame({"x": [1.0, 2.0]}))
    assert predicted[:, 1] == pytest.approx(0.75, abs=0.02)


@pytest.mark.slow
def test_the_seed_decides_every_byte_of_the_model_and_a_stopped_fit_goes_on_where_it_was(
    learn, rows, streamed, tmp_path
):
    dataset = streamed(rows(200))
    given = {
        "target": "double",
        "max_rounds": 6,
        "early_stopping_rounds": 3,
        "hyperparameters": {**EAGER, "dropout": 0.3},
    }
    learn(dataset, "a", seed=1, **given)
    learn(dataset, "c", seed=2, **given)

    class Killed(Exception):
        pass

    def stop(number, losses):
        if number == 4:
            raise Killed

    place = tmp_path / "checkpoints"
    settings = {"target": "double", "framework": "keras", "max_rounds": 6, "early_stopping_rounds": 3, "seed": 1}
    prepared = prepare.prepare(
        dataset, dataset, prepare.Settings(**settings, checkpoint=str(place)), given["hyperparameters"]
    )
    with pytest.raises(Killed):
        learning.learn(prepared.row, "keras", dataclasses.replace(prepared.job, report=stop))
    (file,) = place.iterdir()
    with np.load(file) as arrays:
        assert arrays["round"][0] == 3
    learn(dataset, "b", seed=1, checkpoint=str(place), **given)
    assert list(place.iterdir()) == []
    manifests = [(tmp_path / name / "model.keras").read_bytes() for name in "abc"]
    assert manifests[0] == manifests[1]
    assert manifests[0] != manifests[2]


@pytest.mark.parametrize(
    ("hyperparameters", "problem"),
    [
        ({"hidden_layers": [3]}, "keras does not know 'hidden_layers'. Did you mean 'hidden_units'"),
        ({"hidden_units": [64, 0]}, r"hidden_units is \[64, 0\]. Give a list of up to 16 whole numbers"),
        ({"dropout": 1.0}, "dropout is 1. Give a number from 0 up to 1"),
        ({"activation": "lambda"}, "activation is 'lambda'. Give one of relu, elu"),
        ({"learning_rate": True}, "learning_rate is True. Give a number above 0"),
        ({"epochs": 3}, "'epochs' is an argument of its own. Use max_rounds"),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(hyperparameters, problem, learn, streamed):
    with pytest.raises(UserError, match=problem):
        learn(streamed({"x": [1.0, 2.0], "y": [True, False]}), hyperparameters=hyperparameters)


@pytest.mark.parametrize(
    ("columns", "given", "problem"),
    [
        ({"x": [1.0] * 200, "y": [None] + [1, 2] * 99 + [1]}, {}, "'y' is null in 1 of 200 rows"),
        ({"x": [np.inf] + [1.0] * 199, "y": [1, 2] * 100}, {}, "train_set: columns hold infinite values: x"),
        (
            {"x": [str(number) for number in range(200)], "y": [1, 2] * 100},
            {},
            "too many distinct texts in 200 rows to learn from: 'x' has 200",
        ),
        (
            {"x": [1.0] * 200, "y": [1, 2] * 100, "w": [-1.0] + [1.0] * 199},
            {"weight_column": "w"},
            "'w' is null, infinite or negative in 1 of 200 rows of train_set",
        ),
        ({"x": [1.0] * 200, "y": [0.5, 2] * 100}, {"task": "binary"}, "'y' holds fractions, not labels"),
    ],
)
def test_rows_that_are_streamed_are_held_to_what_others_are_held_to(columns, given, problem, learn):
    with pytest.raises(UserError, match=problem):
        learn(columns, **given)


def test_labels_that_only_the_evaluation_set_holds_are_refused_before_anything_is_learned(streamed, tmp_path):
    sets = [streamed({"x": [1.0, 2.0] * 50, "y": list(labels) * 50}) for labels in ("ab", "ac")]
    with pytest.raises(UserError, match="'y' holds labels that train_set does not: c"):
        fit(*sets, tmp_path / "model", target="y", framework="keras")


def test_a_model_that_holds_what_train_does_not_write_is_refused_and_not_run(models, tmp_path):
    import shutil

    leave = shutil.ignore_patterns("__pycache__")  # who served it for another test has compiled its code
    folder = Path(shutil.copytree(models("binary")[0], tmp_path / "model", ignore=leave))
    with zipfile.ZipFile(folder / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    harmful = {"module": "os", "class_name": "system", "config": f"touch {tmp_path / 'canary'}"}
    config["config"]["layers"][-1]["config"]["activity_regularizer"] = harmful
    members["config.json"] = json.dumps(config).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (folder / "model.keras").write_bytes(written.getvalue())
    reseal(folder)
    with pytest.raises(UserError, match=r"model.keras holds os.system, no part of a model that train writes"):
        loaded(folder)
    assert not (tmp_path / "canary").exists()


def test_without_tensorflow_the_image_that_has_it_is_named(models, learn, monkeypatch):
    folder = models("binary")[0]
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(
        UserError, match=r"a model of keras, which needs keras, .* Run it in the image penstock/tensorf"
    ):
        loaded(folder)
    monkeypatch.delitem(sys.modules, f"{frameworks.__name__}.keras")
    with pytest.raises(UserError, match=r"framework: keras needs keras, .* image penstock/tensorflow, or pip install"):
        learn({"x": [1.0, 2.0], "y": [True, False]})


def test_a_framework_that_writes_no_checkpoints_says_so(learn):
    with pytest.raises(UserError, match="checkpoint: xgboost writes no checkpoints"):
        learn({"x": [1.0, 2.0], "y": [True, False]}, framework="xgboost", checkpoint="somewhere")


FIT = """
import json, sys
from penstock.components.training.fit import fit
fitted = fit(sys.argv[1], sys.argv[2], sys.argv[3], framework="keras", **json.loads(sys.argv[4]))
print(json.dumps([fitted.rounds, fitted.metrics]))
"""


def started(sets, model, given, **environment):
    """Return a process that fits a model."""
    command = [sys.executable, "-c", FIT, *map(str, sets), str(model), json.dumps(given)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, **pipes)


def ended(process):
    """Return rounds and metrics of a process that fits a model."""
    said, complaints = process.communicate(timeout=280)
    assert process.returncode == 0, complaints
    assert complaints == ""
    return json.loads(said)


@pytest.mark.slow
def test_a_killed_fit_goes_on_from_its_last_round_and_gives_the_model_it_would_have_given(sets, tmp_path):
    given = {"target": "late", "exclude": ["shade", "double", "name"], "max_rounds": 150, "early_stopping_rounds": 0}
    given["hyperparameters"] = {**EAGER, "dropout": 0.2}
    whole = ended(started(sets, tmp_path / "whole", given))
    given["checkpoint"] = str(tmp_path / "checkpoints")
    process = started(sets, tmp_path / "killed", given)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/checkpoint-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (file,) = tmp_path.glob("checkpoints/checkpoint-*.npz")
    with np.load(file) as arrays:
        assert 0 < arrays["round"][0] < 150
    assert not (tmp_path / "killed").exists()
    assert ended(started(sets, tmp_path / "killed", given)) == whole
    files = [(tmp_path / name / "model.keras").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert not file.exists()


@pytest.mark.slow
def test_two_workers_fit_the_model_that_one_fits_and_only_the_chief_writes(sets, tmp_path):
    given = {"target": "late", "exclude": ["shade", "double"], "max_rounds": 8, "early_stopping_rounds": 3}
    given["hyperparameters"] = {"learning_rate": 0.005, "batch_size": 50, "hash_bins": 16, "l2": 0.001}
    alone = ended(started(sets, tmp_path / "alone", given))
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    pools = {"cluster": {"workerpool0": hosts[:1], "workerpool1": hosts[1:]}, "environment": "cloud"}
    specs = [json.dumps({**pools, "task": {"type": f"workerpool{place}", "index": 0}}) for place in range(2)]
    processes = [
        started(sets, tmp_path / f"worker-{place}", given, CLUSTER_SPEC=spec) for place, spec in enumerate(specs)
    ]
    try:
        together = [ended(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert together[0] == together[1]
    assert together[0][0] == alone[0]
    assert together[0][1] == pytest.approx(alone[1], rel=1e-3)
    assert (tmp_path / "worker-0" / "manifest.json").exists()
    assert not (tmp_path / "worker-1").exists()
    frame = frame_of(sets[1])
    expected = loaded(tmp_path / "alone").predict(frame)
    np.testing.assert_allclose(loaded(tmp_path / "worker-0").predict(frame), expected, atol=1e-3)
