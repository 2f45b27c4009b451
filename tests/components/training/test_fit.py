import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model

FRAMEWORKS = ("lightgbm", "sklearn", "xgboost")
TASKS = ("binary", "multiclass", "regression")


def frame_of(dataset):
    return pq.read_table(open_dataset(dataset, "test", "dataset").files[0]).to_pandas()


def loaded(folder):
    return load_model(folder, "test", "model")


def log_loss(probabilities, labels, classes):
    return -np.mean([math.log(row[classes.index(label)]) for row, label in zip(probabilities, labels, strict=True)])


@pytest.mark.parametrize("name", [f"{framework}-{task}" for framework in FRAMEWORKS for task in TASKS])
def test_what_one_column_tells_is_learned(name, models, eval_set):
    folder, fitted = models(name)
    model, frame = loaded(folder), frame_of(eval_set)
    predicted, truth = model.predict(frame), list(frame[model.target])
    assert fitted.task == model.task == name.rpartition("-")[2]
    if model.task == "regression":
        assert np.abs(predicted - truth).max() < 6  # of 0 to 198
    else:
        assert [model.classes[place] for place in predicted.argmax(axis=1)] == truth


@pytest.mark.parametrize("name", ["logistic_regression-binary", "logistic_regression-multiclass"])
def test_linear_classifiers_learn_what_one_column_tells(name, models, eval_set):
    model, frame = loaded(models(name)[0]), frame_of(eval_set)
    places = model.predict(frame).argmax(axis=1)
    assert (
        np.mean([model.classes[place] == label for place, label in zip(places, frame[model.target], strict=True)]) > 0.9
    )


def test_ridge_learns_a_line(models, eval_set):
    model, frame = loaded(models("ridge-regression")[0]), frame_of(eval_set)
    assert np.abs(model.predict(frame) - frame["double"]).max() < 0.1


@pytest.mark.parametrize("name", ["xgboost-binary", "lightgbm-multiclass", "sklearn-binary", "random_forest-binary"])
def test_log_loss_is_that_of_the_saved_model(name, models, eval_set):
    folder, fitted = models(name)
    model, frame = loaded(folder), frame_of(eval_set)
    expected = log_loss(model.predict(frame), frame[model.target], model.classes)
    assert fitted.metrics["eval_log_loss"] == pytest.approx(expected, rel=1e-4)
    assert set(fitted.metrics) == {"train_log_loss", "eval_log_loss"}


@pytest.mark.parametrize(
    "name", ["xgboost-regression", "lightgbm-regression", "sklearn-regression", "ridge-regression"]
)
def test_rmse_is_that_of_the_saved_model(name, models, train_set):
    folder, fitted = models(name)
    frame = frame_of(train_set)
    expected = math.sqrt(np.mean((loaded(folder).predict(frame) - frame["double"]) ** 2))
    assert fitted.metrics["train_rmse"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_missing_values_are_learned_from(framework, learn, make_dataset, eager, tmp_path):
    table = {"x": [None, 1.0, None, 2.0] * 20, "y": ["gone", "here", "gone", "here"] * 20}
    dataset = make_dataset(table)
    learn(
        train_set=dataset,
        eval_set=dataset,
        target="y",
        exclude=[],
        framework=framework,
        hyperparameters=eager[framework],
    )
    model = loaded(tmp_path / "model")
    assert model.classes == ("gone", "here")
    assert (model.predict(frame_of(dataset)).argmax(axis=1) == [0, 1] * 40).all()


@pytest.mark.parametrize(
    "name",
    [
        "xgboost-multiclass",
        "lightgbm-multiclass",
        "sklearn-multiclass",
        "random_forest-binary",
        "logistic_regression-multiclass",
    ],
)
def test_an_unseen_category_is_read_as_missing(name, models, eval_set):
    model, frame = loaded(models(name)[0]), frame_of(eval_set)
    unseen, missing = model.predict(frame.assign(color="purple")), model.predict(frame.assign(color=None))
    assert (unseen == missing).all()
    assert np.isfinite(unseen).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_early_stopping_keeps_the_best_round(framework, learn, make_dataset, tmp_path):
    generator = np.random.default_rng(1)
    columns = {"x": generator.random(400), "z": generator.random(400)}
    noisy = {**columns, "y": (columns["x"] + generator.normal(0, 0.5, 400) > 0.5)}
    half = (
        {name: values[:200] for name, values in noisy.items()},
        {name: values[200:] for name, values in noisy.items()},
    )
    given = {
        "train_set": make_dataset(half[0]),
        "eval_set": make_dataset(half[1]),
        "target": "y",
        "exclude": [],
        "framework": framework,
        "hyperparameters": {"learning_rate": 0.5},
    }
    losses = [
        learn(**given, max_rounds=rounds, early_stopping_rounds=0).metrics["eval_log_loss"] for rounds in range(1, 8)
    ]
    best = int(np.argmin(losses)) + 1
    assert best < 7
    stopped = learn(**given, max_rounds=500, early_stopping_rounds=10)
    assert stopped.rounds == best
    assert stopped.metrics["eval_log_loss"] == pytest.approx(losses[best - 1], rel=1e-6)
    predicted = loaded(tmp_path / "model").predict(frame_of(given["eval_set"]))
    assert log_loss(predicted, half[1]["y"], (False, True)) == pytest.approx(losses[best - 1], rel=1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_early_stopping_all_rounds_are_kept(framework, learn):
    assert learn(framework=framework, max_rounds=7, early_stopping_rounds=0).rounds == 7


def test_what_has_no_rounds_says_one(learn):
    assert learn(framework="sklearn", hyperparameters={"estimator": "logistic_regression"}).rounds == 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, 0.3),
        ({"class_weights": {"balanced": 1}}, 0.5),
        ({"class_weights": {"true": 7, "false": 1}}, 0.75),  # 30 * 7 : 70 * 1
        ({"weight_column": "w"}, 0.6),  # 30 * 7 : 70 * 2
        ({"weight_column": "w", "class_weights": {"True": 2}}, 0.75),  # 30 * 7 * 2 : 70 * 2
    ],
    ids=["none", "balanced", "by label", "by row", "both"],
)
def test_weights_move_the_share_of_a_class(framework, weights, expected, learn, make_dataset, eager, tmp_path):
    dataset = make_dataset({"x": [1.0, 2.0] * 50, "y": [True] * 30 + [False] * 70, "w": [7] * 30 + [2] * 70})
    learn(
        train_set=dataset,
        eval_set=dataset,
        target="y",
        features=["x"],
        framework=framework,
        max_rounds=30,
        early_stopping_rounds=0,
        hyperparameters=eager[framework],
        **weights,
    )
    assert loaded(tmp_path / "model").predict(frame_of(dataset))[:, 1].mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("framework", "hyperparameters"),
    [
        ("xgboost", {"subsample": 0.5}),
        ("lightgbm", {"bagging_fraction": 0.5, "bagging_freq": 1}),
        ("sklearn", {"max_features": 0.5}),
        ("sklearn", {"estimator": "random_forest", "n_estimators": 5}),
    ],
)
def test_the_seed_decides_every_byte(framework, hyperparameters, learn, tmp_path):
    given = {"framework": framework, "hyperparameters": hyperparameters, "max_rounds": 5, "target": "double"}
    results = [learn(model=tmp_path / name, seed=seed, **given) for name, seed in [("a", 1), ("b", 1), ("c", 2)]]
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in "abc"]  # names and hashes of all files
    assert results[0] == results[1]
    assert manifests[0] == manifests[1]
    weights = [next((tmp_path / name).glob("model.*")).read_bytes() for name in "abc"]
    assert weights[1] != weights[2]


def test_lineage_is_in_the_manifest(learn, tmp_path, train_set, eval_set):
    fitted = learn(hyperparameters={"max_depth": 3.0, "learning_rate": 0.2}, seed=5)
    facts = loaded(tmp_path / "model").facts
    assert facts["train_fingerprint"] == open_dataset(train_set, "test", "").fingerprint
    assert facts["eval_fingerprint"] == open_dataset(eval_set, "test", "").fingerprint
    assert (facts["framework"], facts["target"], facts["task"], facts["seed"]) == ("xgboost", "late", "binary", 5)
    assert facts["hyperparameters"] == {"max_depth": 3, "eta": 0.2, "objective": "binary:logistic"}
    assert facts["metrics"] == fitted.metrics
    assert facts["rounds"] == fitted.rounds
    assert {"python", "numpy", "pandas"} <= facts["versions"].keys()


def test_another_objective_is_watched_by_its_own_metric(learn):
    fitted = learn(target="double", hyperparameters={"objective": "reg:absoluteerror"})
    assert set(fitted.metrics) == {"train_mae", "eval_mae"}


@pytest.mark.parametrize(("framework", "name"), [("xgboost", "eval_metric"), ("lightgbm", "metric")])
def test_the_first_metric_is_watched_and_all_are_reported(framework, name, learn):
    fitted = learn(
        framework=framework, hyperparameters={name: ["auc", "binary_logloss" if name == "metric" else "logloss"]}
    )
    assert set(fitted.metrics) == {"train_auc", "eval_auc", "train_log_loss", "eval_log_loss"}
    assert fitted.metrics["eval_auc"] == 1.0  # reached at once, so that auc stops what log loss would not
    assert fitted.rounds < 20


@pytest.mark.parametrize(
    ("framework", "monotone", "together"),
    [
        ("xgboost", "monotone_constraints", "interaction_constraints"),
        ("lightgbm", "monotone_constraints", "interaction_constraints"),
        ("sklearn", "monotonic_cst", "interaction_cst"),
    ],
)
def test_constraints_name_columns(framework, monotone, together, learn, make_dataset, eager, tmp_path):
    table = {"a b": list(range(100)), "c": [number * 37 % 100 for number in range(100)]}
    dataset = make_dataset({**table, "y": [float(number) for number in range(100)]})
    given = {"train_set": dataset, "eval_set": dataset, "target": "y", "exclude": [], "framework": framework}
    for constraint in ({monotone: {"a b": -1}}, {monotone: [-1, 0]}):
        # Against a falling constraint nothing that rises can be learned from "a b".
        learn(**given, hyperparameters={**eager[framework], **constraint, together: [["a b"], ["c"]]})
        frame = frame_of(dataset).assign(c=0)
        assert (np.diff(loaded(tmp_path / "model").predict(frame)) <= 0).all()
    with pytest.raises(UserError, match=r"names 'd', which is no feature. The features are a b, c"):
        learn(**given, hyperparameters={monotone: {"d": 1}})


def test_an_empty_eval_set_is_fine_without_early_stopping(learn, make_dataset, rows):
    fitted = learn(eval_set=make_dataset(rows(0).cast(rows(10).schema)), early_stopping_rounds=0, max_rounds=3)
    assert set(fitted.metrics) == {"train_log_loss"}


def test_names_that_frameworks_refuse_are_learned_from(learn, make_dataset, tmp_path):
    table = {
        "a [m], <b>": [1.0, 2.0] * 30,
        'a_"m": {b}': [3.0, 4.0] * 30,
        "größe": [1, 2] * 30,
        "y": [True, False] * 30,
    }
    dataset = make_dataset(table)
    for framework in FRAMEWORKS:
        learn(train_set=dataset, eval_set=dataset, target="y", exclude=[], framework=framework, max_rounds=3)
        assert loaded(tmp_path / "model").features == ("a [m], <b>", 'a_"m": {b}', "größe")


def test_rarest_categories_are_missing_where_an_estimator_counts_to_255(learn, make_dataset, eager, tmp_path):
    texts = [f"c{number:03}" for number in range(300)]
    texts = texts * 40 + texts[:250] * 40
    dataset = make_dataset({"x": texts, "y": [text < "c100" for text in texts]})
    given = {"target": "y", "exclude": [], "framework": "sklearn", "hyperparameters": eager["sklearn"]}
    learn(train_set=dataset, eval_set=dataset, max_rounds=20, **given)
    frame = frame_of(dataset)
    model = loaded(tmp_path / "model")
    assert (model.predict(frame.assign(x="c299")) == model.predict(frame.assign(x=None))).all()
    assert model.predict(frame.assign(x="c000"))[0, 1] > 0.9
    assert model.predict(frame.assign(x="c249"))[0, 1] < 0.1


def test_every_column_type_that_is_read(learn, make_dataset, tmp_path):
    columns = {
        "int": pa.array([1, 2] * 30, pa.int8()),
        "float": pa.array([1, None] * 30, pa.float32()),
        "decimal": pa.array([1, 2] * 30, pa.decimal128(10, 2)),
        "text": pa.array(["a", "b"] * 30, pa.large_string()),
        "dictionary": pa.array(["a", "b"] * 30).dictionary_encode(),
        "empty": pa.array([None, None] * 30, pa.string()),
        "void": pa.array([None, None] * 30, pa.float64()),
        "flag": pa.array([True, None] * 30),
        "y": pa.array(["n", "p"] * 30).dictionary_encode(),
    }
    dataset = make_dataset(columns)
    for framework, estimator in itertools.chain(
        itertools.product(FRAMEWORKS, [""]), [("sklearn", "logistic_regression"), ("sklearn", "random_forest")]
    ):
        hyperparameters = {"estimator": estimator} if estimator else {}
        given = {"target": "y", "exclude": [], "framework": framework, "hyperparameters": hyperparameters}
        learn(train_set=dataset, eval_set=dataset, max_rounds=3, **given)
        assert np.isfinite(loaded(tmp_path / "model").predict(frame_of(dataset))).all()


@pytest.mark.parametrize(
    ("given", "argument", "parts"),
    [
        ({"framework": "catboost"}, "framework", ["'catboost'", "lightgbm, sklearn, xgboost"]),
        ({"task": "ranking"}, "task", ["'ranking'", "binary, multiclass, regression"]),
        ({"task": "regression"}, "task", ["no number"]),
        ({"target": "shade", "task": "binary"}, "task", ["3 distinct values", "multiclass"]),
        ({"target": "tip"}, "target", ["'tip'", "size, color"]),
        ({"features": ["size", "hue"]}, "features", ["'hue'", "size, color"]),
        ({"features": ["size", "late"]}, "features", ["'late'"]),
        ({"features": ["size", "size"]}, "features", ["twice"]),
        ({"features": ["size"], "exclude": ["size"]}, "features", ["'size'"]),
        ({"exclude": ["hue"]}, "exclude", ["'hue'", "size, color"]),
        ({"exclude": ["size", "color", "gaps", "share", "open", "shade", "double"]}, "features", ["no column"]),
        ({"weight_column": "heft"}, "weight_column", ["'heft'", "size, color"]),
        ({"weight_column": "late"}, "weight_column", ["target"]),
        ({"weight_column": "color"}, "weight_column", ["string"]),
        ({"weight_column": "gaps"}, "weight_column", ["null, infinite or negative in 40 of 200 rows"]),
        ({"class_weights": {"yes": 2}}, "class_weights", ["'yes'", "false, true"]),
        ({"class_weights": {"true": -1}}, "class_weights", ["-1"]),
        ({"class_weights": {"true": math.nan}}, "class_weights", ["nan"]),
        ({"class_weights": {"balanced": 1, "true": 2}}, "class_weights", ["balanced"]),
        ({"class_weights": {"a": 1}, "target": "double"}, "class_weights", ["regression"]),
        ({"max_rounds": 0}, "max_rounds", ["0"]),
        ({"max_rounds": 2.5}, "max_rounds", ["2.5"]),
        ({"early_stopping_rounds": -1}, "early_stopping_rounds", ["-1"]),
        ({"seed": -1}, "seed", ["-1"]),
        ({"train_set": "/nowhere"}, "train_set", ["no such folder"]),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_arguments_are_refused(given, argument, parts, learn, tmp_path):
    with pytest.raises(UserError) as refused:
        learn(**given)
    assert (refused.value.component, refused.value.argument) == ("train", argument)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)
    assert not (tmp_path / "model").exists()


def bad(**columns):
    """Sixty rows with a good column x and target y, but for what is given."""
    return {"x": list(range(60)), "y": [True, False] * 30, **columns}


@pytest.mark.parametrize(
    ("table", "argument", "parts"),
    [
        (bad(y=[1] * 60), "target", ["'y' is 1 in every row"]),
        (bad(y=["a"] * 60), "target", ["'y' is 'a' in every row"]),
        (bad(y=pa.array([None] * 60, pa.bool_())), "target", ["null in every row"]),
        (bad(y=[True, False, None] * 20), "target", ["null in 20 of 60 rows", "WHERE y IS NOT NULL"]),
        (bad(y=[1.0, math.nan, 3.0] * 20), "target", ["null in 20 of 60 rows"]),
        (bad(y=[1.0, math.inf, 3.0] * 20), "target", ["infinite"]),
        (bad(y=[f"id{number}" for number in range(60)]), "target", ["60 distinct values in 60 rows"]),
        (bad(y=pa.array(range(60), pa.timestamp("us"))), "target", ["timestamp[us]"]),
        (bad(x=[1.0, -math.inf] * 30), "train_set", ["infinite", "x"]),
        (bad(at=pa.array(range(60), pa.timestamp("us"))), "features", ["'at' (timestamp[us])", "exclude: ['at']"]),
        (bad(list=[[1]] * 60, day=pa.array(range(60), pa.date32())), "features", ["'list'", "['list', 'day']"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_rows_are_refused(table, argument, parts, learn, make_dataset, tmp_path):
    dataset = make_dataset(table)
    with pytest.raises(UserError) as refused:
        learn(train_set=dataset, eval_set=dataset, target="y", exclude=[])
    assert refused.value.argument == argument
    for part in parts:
        assert part in str(refused.value)
    assert not (tmp_path / "model").exists()


def test_text_that_names_rows_is_refused_as_a_feature(learn, make_dataset):
    dataset = make_dataset({"id": [f"id{number}" for number in range(150)], "y": [True, False] * 75})
    with pytest.raises(UserError, match=r"'id' has 150.*exclude: \['id'\]"):
        learn(train_set=dataset, eval_set=dataset, target="y", exclude=[])


def test_labels_of_eval_set_that_were_never_seen_are_named(learn, make_dataset):
    train = make_dataset({"x": [1, 2] * 10, "y": ["a", "b"] * 10})
    with pytest.raises(UserError, match=r"eval_set: 'y' holds labels that train_set does not: c, d"):
        learn(train_set=train, eval_set=make_dataset({"x": [1, 2, 3], "y": ["a", "c", "d"]}), target="y", exclude=[])


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"x": [1.0]}, "there is no column 'y'"),
        ({"x": ["a"], "y": [True]}, "column 'x' is string, but double in train_set"),
        ({"x": [1.0], "y": [1]}, "'y' is int64, but bool in train_set"),
        ({"x": [math.inf], "y": [True]}, "infinite"),
        ({"x": pa.array([], pa.float64()), "y": pa.array([], pa.bool_())}, "no rows for early stopping"),
    ],
)
def test_an_eval_set_that_does_not_match_is_refused(table, problem, learn, make_dataset):
    train = make_dataset({"x": [1.0, 2.0] * 10, "y": [True, False] * 10})
    with pytest.raises(UserError, match=problem) as refused:
        learn(train_set=train, eval_set=make_dataset(table), target="y", exclude=[])
    assert refused.value.argument == "eval_set"


def test_a_train_set_without_rows_is_refused(learn, make_dataset, rows):
    with pytest.raises(UserError, match="train_set: there are no rows"):
        learn(train_set=make_dataset(rows(10).slice(0, 0)))


@pytest.mark.parametrize("harm", ["truncate", "flip", "add", "unfinished"])
def test_a_harmed_dataset_is_refused(harm, learn, make_dataset, rows, tmp_path):
    dataset = make_dataset(rows(20))
    part = dataset / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    if harm == "truncate":
        part.write_bytes(content[:-10])
    elif harm == "flip":
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    elif harm == "add":
        (dataset / "part-00001.parquet").write_bytes(content)
    else:
        (dataset / "manifest.json").unlink()
    with pytest.raises(UserError, match="train: train_set"):
        learn(train_set=dataset)
    assert not (tmp_path / "model").exists()


def test_a_fit_that_fails_leaves_no_earlier_model(learn, tmp_path, monkeypatch):
    learn(max_rounds=2)
    monkeypatch.setattr("penstock.components._shared.fitting.folder._write_environment", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        learn(max_rounds=2)
    assert not (tmp_path / "model").exists()


def test_a_fit_that_diverges_is_refused(learn):
    with pytest.raises(UserError, match="not finite"):
        learn(target="double", hyperparameters={"eta": 1e30, "lambda": 0}, max_rounds=50, early_stopping_rounds=0)


# Fits with the arguments given as JSON; runs in a process of its own.
FIT = (
    "import json, sys; from penstock.components.training.fit import fit; fit(*sys.argv[1:4], **json.loads(sys.argv[4]))"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "hyperparameters"),
    [
        ("xgboost", {"subsample": 0.5}),
        ("lightgbm", {"bagging_fraction": 0.5, "bagging_freq": 1}),
        ("sklearn", {"max_features": 0.5}),
        ("sklearn", {"estimator": "random_forest", "n_estimators": 5}),
        ("sklearn", {"estimator": "logistic_regression"}),
    ],
)
def test_threads_and_hash_seeds_change_no_byte(framework, hyperparameters, make_dataset, tmp_path):
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(5_000, 3))
    text = [f"c{number}" for number in generator.integers(0, 40, 5_000)]
    label = numbers.sum(axis=1) + generator.normal(size=5_000) > 0
    dataset = make_dataset({"a": numbers[:, 0], "b": numbers[:, 1], "c": numbers[:, 2], "text": text, "y": label})
    given = {"target": "y", "framework": framework, "hyperparameters": hyperparameters, "max_rounds": 20}
    manifests = set()
    for number in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": number, "PYTHONHASHSEED": number}
        command = [sys.executable, "-c", FIT, dataset, dataset, tmp_path / number, json.dumps(given)]
        subprocess.run(command, env=environment, check=True, timeout=120)
        manifests.add((tmp_path / number / "manifest.json").read_bytes())
    assert len(manifests) == 1
