"""Rows that are read part by part give the model that rows in memory give, and take little memory."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared import memory
from penstock.components._shared.dataset import KIND
from penstock.components._shared.errors import UserError
from penstock.components._shared.sealed import new_folder, seal

WEIGHTS = {"lightgbm": "model.txt", "xgboost": "model.ubj"}
TARGETS = {"binary": "late", "multiclass": "shade", "regression": "double"}


def with_weights(table):
    return table.append_column("weight", pa.array([1.0 + number % 3 for number in range(table.num_rows)]))


@pytest.fixture(scope="session")
def sets(streamed, rows):
    return {"train_set": streamed(with_weights(rows(500))), "eval_set": streamed(with_weights(rows(300, 1000)))}


@pytest.fixture
def both(learn, tmp_path):
    """A function that fits in memory and part by part; returns what came of each, and the bytes of the models."""

    def learned(framework, **given):
        found = [learn(model=tmp_path / str(parts), framework=framework, external_memory=parts, **given)
                 for parts in (False, True)]  # fmt: skip
        return found, [(tmp_path / str(parts) / WEIGHTS[framework]).read_bytes() for parts in (False, True)]

    return learned


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("framework", WEIGHTS)
def test_parts_give_the_model_that_all_rows_give(framework, task, both, sets, eager):
    found, models = both(
        framework,
        **sets,
        target=TARGETS[task],
        weight_column="weight",
        class_weights={} if task == "regression" else {"balanced": 1},
        hyperparameters=eager[framework],
        max_rounds=12,
        early_stopping_rounds=3,
        seed=7,
    )
    assert found[0] == found[1]  # losses to twelve digits: of few rows nothing is lost in bins
    assert models[0] == models[1]


@pytest.mark.parametrize("framework", WEIGHTS)
def test_early_stopping_ends_at_the_same_round(framework, both, streamed):
    generator = np.random.default_rng(1)
    columns = {"x": generator.random(800), "z": generator.random(800)}
    noisy = {**columns, "y": columns["x"] + generator.normal(0, 0.5, 800) > 0.5}
    halves = [streamed({name: values[cut] for name, values in noisy.items()}) for cut in (slice(500), slice(500, 800))]
    found, _ = both(
        framework, train_set=halves[0], eval_set=halves[1], target="y", exclude=[], max_rounds=200,
        early_stopping_rounds=5,
    )  # fmt: skip
    assert found[0] == found[1]
    assert found[0].rounds < 200


@pytest.mark.parametrize(
    ("framework", "hyperparameters"),
    [
        ("xgboost", {"booster": "dart", "rate_drop": 0.5}),
        ("xgboost", {"tree_method": "approx"}),
        ("xgboost", {"subsample": 0.5, "colsample_bytree": 0.5, "grow_policy": "lossguide", "max_leaves": 8}),
        ("xgboost", {"objective": "reg:absoluteerror"}),
        ("lightgbm", {"boosting": "dart"}),
        ("lightgbm", {"bagging_fraction": 0.5, "bagging_freq": 1}),
        ("lightgbm", {"data_sample_strategy": "goss"}),
    ],
)
def test_other_ways_to_boost_read_parts_too(framework, hyperparameters, both, sets):
    found, _ = both(
        framework, **sets, target="double", exclude=["late", "shade", "color"], hyperparameters=hyperparameters,
        max_rounds=5,
    )  # fmt: skip
    assert found[1].metrics == pytest.approx(found[0].metrics, rel=0.02)


def test_nothing_is_left_where_parts_were_kept(learn, sets, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    learn(**sets, exclude=["shade", "double", "weight"], external_memory=True, max_rounds=2)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"framework": "sklearn"}, "external_memory: sklearn cannot read rows part by part: it fits all rows at once"),
        ({"hyperparameters": {"tree_method": "exact"}}, "xgboost cannot read rows part by part: its tree_method 'ex"),
        (
            {"framework": "lightgbm", "hyperparameters": {"linear_trees": True}},
            "lightgbm cannot .*: its linear_tree nee",
        ),
        ({"framework": "lightgbm", "weight_column": "gaps"}, "'gaps' is null, infinite or negative in 100 of 500 rows"),
    ],
)
def test_what_cannot_be_read_part_by_part_is_refused_by_name(given, problem, learn, sets, tmp_path):
    with pytest.raises(UserError, match=problem):
        learn(**sets, external_memory=True, **given)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("framework", WEIGHTS)
def test_labels_that_only_the_evaluation_set_holds_are_refused_before_a_fit(framework, learn, streamed):
    sets = [streamed({"x": [1.0, 2.0] * 50, "y": list(labels) * 50}) for labels in ("ab", "ac")]
    with pytest.raises(UserError, match="eval_set: 'y' holds labels that train_set does not: c"):
        learn(train_set=sets[0], eval_set=sets[1], target="y", exclude=[], framework=framework, external_memory=True)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({}, "external_memory: 800 rows of 6 columns take 0 MB of memory or more, .* Give the step more, or set it to"),
        ({"framework": "sklearn"}, "external_memory: 800 .* set it to true, with one of keras, lightgbm, xgboost"),
        ({"external_memory": True}, "train_set: 800 .* Give the step more, or ingest fewer rows or columns"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_any_is_read(given, remedy, learn, sets, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "limit", memory.used)
    monkeypatch.setattr("penstock.components._shared.fitting.prepare.Tables", None)  # not even opened
    with pytest.raises(UserError, match=remedy):
        learn(**sets, **given)
    assert not (tmp_path / "model").exists()


# Fits in a process that may use so many bytes, as it believes; prints what it took at most, or why it did not start.
CHILD = """
import importlib, json, re, sys
from penstock.components._shared import memory
from penstock.components._shared.errors import UserError
from penstock.components.training.fit import fit
train_set, eval_set, model, framework, parts, most = sys.argv[1:]
memory.limit = lambda: int(most)
importlib.import_module(framework)
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = peak()
# LightGBM's sample is as large whatever the number of rows; here it is made as small as they are few.
given = {"bin_construct_sample_cnt": 20_000} if framework == "lightgbm" else {}
try:
    fit(train_set, eval_set, model, target="y", framework=framework, hyperparameters=given, max_rounds=1,
        external_memory=parts == "parts")
except UserError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"before": before, "peak": peak()}))
"""
COLUMNS, PART = 50, 10_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Datasets of 300,000 and 10,000 rows, 120 MB as numbers, in parts of 4 MB."""
    generator = np.random.default_rng(0)
    schema = pa.schema([*((f"n{place}", pa.float64()) for place in range(COLUMNS)), ("y", pa.float64())])

    def write(parts):
        with new_folder(tmp_path_factory.mktemp("wide") / "dataset") as folder:
            with pq.ParquetWriter(folder / "part-0.parquet", schema, compression="none", use_dictionary=False) as file:
                for _ in range(parts):
                    values = generator.random((PART, COLUMNS))
                    columns = [*values.T.copy(), values[:, 0] + values[:, 1] * values[:, 2]]
                    file.write_table(pa.table(columns, schema=schema), row_group_size=PART)
            facts = [{"name": field.name, "type": str(field.type)} for field in schema]
            seal(folder, KIND, {"rows": parts * PART, "schema": facts, "fingerprint": "wide"})
        return folder

    return write(30), write(1)


@pytest.mark.slow
@pytest.mark.parametrize("framework", WEIGHTS)
def test_memory_stays_under_a_limit_that_the_rows_are_several_times_as_large_as(framework, wide, tmp_path):
    def measured(how, most):
        command = [sys.executable, "-c", CHILD, *wide, tmp_path / how, framework, how, str(most)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    whole = measured("whole", 10**12)
    room = 170 * 10**6  # beside libraries
    limit = whole["before"] + room
    assert whole["peak"] - whole["before"] > 2.5 * room
    assert measured("parts", limit)["peak"] < limit
    refused = measured("whole", limit)["error"]
    assert "external_memory: 310,000 rows of 50 columns take 373 MB of memory or more" in refused
