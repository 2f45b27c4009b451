import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from penstock.components._shared import memory
from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model
from penstock.components.training.fit import fit

# A space of which every third trial is worth little: deep trees on few rounds.
GRID = {
    "eta": {"type": "categorical", "choices": [0.1, 0.5]},
    "grow_policy": {"type": "categorical", "choices": ["depthwise", "lossguide"]},
    "max_leaves": {"type": "int", "low": 2, "high": 6, "step": 2, "when": {"grow_policy": ["lossguide"]}},
}


def table(tmp_path):
    return pq.read_table(open_dataset(tmp_path / "trials", "test", "trials").files[0])


def points(tmp_path):
    """Return what a search found, but for the seconds."""
    return table(tmp_path).drop_columns(["seconds"]).to_pylist()


def test_the_best_trial_is_found_and_its_model_is_that_of_train(search, train_set, eval_set, tmp_path):
    found = search(fit_best=True)
    rows = table(tmp_path).to_pylist()
    assert [row["number"] for row in rows] == list(range(6))
    complete = [row for row in rows if row["state"] == "complete"]
    best = min(complete, key=lambda row: row["eval_log_loss"])
    assert best["best"]
    assert found.value == best["eval_log_loss"]
    assert found.hyperparameters["eta"] == best["param_eta"]
    assert all((row["param_max_leaves"] is None) == (row["param_grow_policy"] == "depthwise") for row in rows)
    hyperparameters = found.hyperparameters
    fitted = fit(train_set, eval_set, tmp_path / "other", target="late", hyperparameters=hyperparameters, max_rounds=20,
                 seed=1, early_stopping_rounds=5)  # fmt: skip
    assert fitted.metrics["eval_log_loss"] == found.value
    assert (tmp_path / "model" / "manifest.json").read_bytes() == (tmp_path / "other" / "manifest.json").read_bytes()
    assert found.metrics["complete"] + found.metrics["pruned"] == 6
    assert "Parallel coordinates" in (tmp_path / "report.html").read_text()


def test_one_worker_repeats_and_another_seed_does_not(search, tmp_path):
    search()
    first = points(tmp_path)
    search()
    assert points(tmp_path) == first
    search(seed=2)
    assert points(tmp_path) != first


def test_without_being_asked_for_no_model_is_written_and_none_is_read(search, tmp_path):
    search(max_trials=1)
    with pytest.raises(UserError, match=r"is of kind 'penstock\.no-model/1'"):
        load_model(tmp_path / "model", "evaluate", "model")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_tries_every_point_once(search, tmp_path, workers):
    search(space=GRID, sampler="grid", pruner="none", max_trials=50, parallel_trials=workers)
    tried = [(row["param_eta"], row["param_grow_policy"], row["param_max_leaves"]) for row in points(tmp_path)]
    wanted = [(eta, *rest) for eta in (0.1, 0.5)
              for rest in (("depthwise", None), ("lossguide", 2), ("lossguide", 4), ("lossguide", 6))]  # fmt: skip
    assert sorted(tried, key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("framework", ["lightgbm", "sklearn"])
def test_every_framework_is_searched_and_its_rows_kept_give_the_model_of_train(search, framework, tmp_path):
    bins = "max_bin" if framework == "lightgbm" else "max_bins"
    space = {
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.5, "log": True},
        bins: {"type": "categorical", "choices": [8, 63]},
    }
    found = search(space=space, framework=framework, fit_best=True, max_trials=5, pruner="none")
    assert load_model(tmp_path / "model", "test", "model").facts["metrics"]["eval_log_loss"] == found.value


@pytest.mark.slow
def test_a_framework_that_streams_is_searched_and_pruned_and_its_columns_stay_what_they_are(search, tmp_path):
    pytest.importorskip("tensorflow")
    space = {"learning_rate": {"type": "categorical", "choices": [0.01, 0.0000001]}}
    found = search(space=space, framework="keras", fit_best=True, sampler="grid", max_rounds=3)
    of_the_model = load_model(tmp_path / "model", "test", "model").facts["metrics"]["eval_log_loss"]
    assert of_the_model == pytest.approx(found.value, rel=1e-6)
    assert found.hyperparameters == {"learning_rate": 0.01}
    bins = {"hash_bins": {"type": "categorical", "choices": [8, 16]}}
    with pytest.raises(UserError, match="hash_bins: it changes what the columns are"):
        search(space=bins, framework="keras", max_rounds=1)


def test_an_estimator_may_be_searched_with_the_hyperparameters_of_each(search, tmp_path):
    space = {
        "estimator": {"type": "categorical", "choices": ["logistic_regression", "random_forest"]},
        "C": {"type": "float", "low": 0.1, "high": 10, "log": True, "when": {"estimator": ["logistic_regression"]}},
        "max_depth": {"type": "int", "low": 1, "high": 4, "when": {"estimator": ["random_forest"]}},
    }
    search(space=space, framework="sklearn", max_trials=6)
    assert {row["state"] for row in points(tmp_path)} == {"complete"}
    assert {row["param_estimator"] for row in points(tmp_path)} == {"logistic_regression", "random_forest"}


@pytest.mark.parametrize(("framework", "rate"), [("xgboost", "eta"), ("lightgbm", "learning_rate")])
def test_hopeless_trials_are_pruned_by_the_callback_of_the_framework(search, framework, rate, tmp_path):
    space = {rate: {"type": "categorical", "choices": [0.3, 0.000001]}}
    search(space=space, framework=framework, sampler="random", max_trials=16, max_rounds=40, early_stopping_rounds=0)
    rows = points(tmp_path)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    assert {row[f"param_{rate}"] for row in pruned} == {0.000001}
    assert all(row["rounds"] < 40 for row in pruned)


def test_several_objectives_give_the_trials_that_none_beats(search, tmp_path):
    found = search(
        objectives={"eval_log_loss": "minimize", "rounds": "minimize"}, sampler="nsga2", max_trials=12, max_rounds=60
    )
    rows = points(tmp_path)
    pairs = {row["number"]: (row["eval_log_loss"], row["rounds"]) for row in rows}
    front = {
        number for number, (a, b) in pairs.items()
        if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in pairs.values())
    }  # fmt: skip
    assert {row["number"] for row in rows if row["front"]} == front
    assert found.value == min(a for a, _ in pairs.values())
    assert "Trade-off" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_of_several_losses_one_has_to_be_named_and_more_may_be_better(search, tmp_path):
    metrics = {"eval_metric": ["logloss", "auc"]}
    with pytest.raises(UserError, match="trials have the losses eval_auc, eval_log_loss"):
        search(hyperparameters=metrics)
    with pytest.raises(UserError, match=r"a trial has no 'eval_acu'. It has eval_auc"):
        search(hyperparameters=metrics, objectives={"eval_acu": "maximize"})
    with pytest.raises(UserError, match="of 'eval_auc' more is better"):
        search(hyperparameters={"eval_metric": "auc"})
    found = search(hyperparameters=metrics, objectives={"eval_auc": "maximize"})
    complete = [row for row in points(tmp_path) if row["state"] == "complete"]
    assert found.value == max(row["eval_auc"] for row in complete)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"max_trials": 0}, "tune: max_trials: 0 leaves nothing to do"),
        ({"max_seconds": 0}, "tune: max_seconds: 0 leaves no time"),
        ({"parallel_trials": 0}, "tune: parallel_trials: 0 leaves nothing to do"),
        ({"sampler": "cmaes"}, "tune: sampler: the backend local has no 'cmaes'. Choose one of auto, tpe, random"),
        ({"pruner": "best"}, "tune: pruner: the backend local has no 'best'. Choose one of auto, median"),
        ({"backend": "ray"}, "tune: backend: 'ray' is unknown. Choose one of local, kubeflow, vertex"),
        ({"options": {"project": "p"}}, "tune: options: 'project' is no option of the backend local"),
        ({"objectives": {"eval_auc": "up"}}, "tune: objectives: 'eval_auc' is to be 'up'. Choose one of minimize"),
        ({"framework": "torch"}, "tune: framework: 'torch' is unknown"),
        ({"target": "lat"}, "tune: target: there is no column 'lat'"),
        ({"hyperparameters": {"eta": 0.1}}, "tune: space: eta: hyperparameters gives it a value, too"),
        ({"hyperparameters": {"gamm": 0.1}}, "tune: hyperparameters: xgboost does not know 'gamm'"),
        (
            {"space": {"eat": {"type": "int", "low": 1, "high": 2}}},
            "tune: space: eat: xgboost does not know 'eat'",
        ),
        ({"space": {"max_rounds": {"type": "int", "low": 1, "high": 2}}}, "space: max_rounds: xgboost does not know"),
        ({"space": {"seed": {"type": "int", "low": 1, "high": 2}}}, "space: seed: 'seed' is an argument of its own"),
        (
            {"space": {name: {"type": "int", "low": 1, "high": 2} for name in ("eta", "learning_rate")}},
            "'eta' and 'learning_rate' are the same hyperparameter",
        ),
        (
            {"space": {"booster": {"type": "categorical", "choices": ["gbtree", "gblinear"]}}},
            "tune: space: booster: booster 'gblinear' does not fit a binary task",
        ),
        (
            {"objectives": {"eval_log_loss": "minimize", "rounds": "minimize"}, "pruner": "median"},
            "tune: backend: local cannot express pruner 'median' with several objectives",
        ),
        ({"study": "gs://bucket/study"}, "tune: study: gs:/bucket/study is a URI"),
    ],
)
def test_what_cannot_be_searched_is_one_line_that_names_it(search, given, part):
    with pytest.raises(UserError) as refused:
        search(**given)
    assert part in str(refused.value)


def test_where_every_trial_fails_the_first_error_is_told(search):
    with pytest.raises(UserError) as refused:
        search(space={"max_depth": {"type": "int", "low": -9, "high": -2}}, sampler="grid", max_trials=8)
    message = str(refused.value)
    assert "all 8 trials failed, the first with: hyperparameters: xgboost refuses them" in message
    assert "-9" in message


def test_trials_that_fail_are_told_and_the_others_go_on(search, tmp_path):
    search(space={"max_depth": {"type": "int", "low": -1, "high": 2}}, sampler="grid")
    rows = points(tmp_path)
    assert [row["state"] for row in rows] == ["failed", *["complete"] * 3]
    assert "max_depth" in rows[0]["error"]
    assert "Failed trials" in (tmp_path / "report.html").read_text()


def test_the_time_budget_gives_up_what_still_runs(search):
    started = time.monotonic()
    with pytest.raises(UserError, match="no trial was completed in time"):
        search(max_rounds=1_000_000, early_stopping_rounds=0, max_seconds=5, pruner="none")
    assert time.monotonic() - started < 60


PROGRAM = """
import json, sys
from penstock.components.tuning.tune import Settings, tune
given = json.loads(sys.argv[1])
tune(*given.pop("paths"), settings=Settings(**given.pop("settings")), **given)
"""


@pytest.fixture
def start(train_set, eval_set, space, tmp_path):
    """Return a function that starts a search in a process of its own."""
    processes = []

    def start(study, trials):
        outputs = [str(tmp_path / name) for name in ("trials", "model", "report.html")]
        given = {
            "paths": [str(train_set), str(eval_set), *outputs],
            "settings": {"target": "late", "max_rounds": 20, "seed": 1, "early_stopping_rounds": 5},
            "space": space,
            "max_trials": trials,
            "study": str(study),
            "pruner": "none",
        }
        command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_a_kill_loses_no_finished_trial_and_what_follows_is_as_if_there_had_been_none(search, start, tmp_path):
    search(max_trials=20, pruner="none")
    whole = points(tmp_path)
    study = tmp_path / "deep" / "study.log"
    for _ in range(3):
        process = start(study, 400)
        told = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
        process.wait()
        finished = [int(line.split()[2]) for line in told if line.startswith("tune: trial")]
    assert finished[0] >= 8  # two earlier attempts had finished four each
    with study.open("ab") as file:
        file.write(b'{"op_code": 4, "half a')  # what a kill within a write leaves
    trials = max(finished) + 3
    search(max_trials=trials, study=str(study), pruner="none")
    assert points(tmp_path)[:20] == whole[: min(20, trials)]
    assert len(points(tmp_path)) == trials


def test_a_finished_study_is_told_again_without_a_fit(search, tmp_path):
    study = str(tmp_path / "study.log")
    first = search(study=study, parallel_trials=2)
    size = Path(study).stat().st_size
    assert search(study=study).value == first.value
    assert Path(study).stat().st_size == size


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (
            {"space": {"eta": {"type": "float", "low": 0.01, "high": 0.9}}},
            "space (eta, grow_policy, max_depth",
        ),
        ({"max_rounds": 21}, "max_rounds differs"),
        ({"hyperparameters": {"gamma": 1}}, "hyperparameters (gamma) differs"),
        ({"framework": "lightgbm", "space": {"num_leaves": {"type": "int", "low": 2, "high": 9}}}, "differs"),
    ],
)
def test_the_study_of_another_search_is_refused(search, given, part, tmp_path):
    study = str(tmp_path / "study.log")
    search(study=study, max_trials=1)
    with pytest.raises(UserError) as refused:
        search(study=study, **given)
    assert "is the study of another search" in str(refused.value)
    assert part in str(refused.value)


def test_a_file_that_is_no_study_and_one_in_use_are_refused(search, start, tmp_path):
    for text in ("milk\n", "two lines\nof which one does not end"):
        (tmp_path / "notes.txt").write_text(text)
        with pytest.raises(UserError, match=r"notes.txt is no study of tune"):
            search(study=str(tmp_path / "notes.txt"))
        assert (tmp_path / "notes.txt").read_text() == text
    with pytest.raises(UserError, match="cannot be written"):
        search(study=str(tmp_path))
    process = start(tmp_path / "study.log", 10_000)
    process.stdout.readline()
    with pytest.raises(UserError, match="is in use by another search"):
        search(study=str(tmp_path / "study.log"))


def test_workers_end_with_the_process_that_started_them(start, tmp_path):
    process = start(tmp_path / "study.log", 10_000)
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{child}") for child in children):
            return
        time.sleep(0.1)
    pytest.fail(f"workers are still there: {children}")


def test_a_worker_that_dies_fails_its_trial_and_another_takes_its_place(search, tmp_path, monkeypatch):
    from penstock.components.tuning.backends import local

    heard, killed = local._Run._heard, []

    def killing(run, worker):
        answer = heard(run, worker)
        if not killed:
            killed.append(worker.process.pid)
            worker.process.kill()
        return answer

    monkeypatch.setattr(local._Run, "_heard", killing)
    search()
    rows = points(tmp_path)
    assert [row["state"] for row in rows].count("failed") == 1
    assert len(rows) == 6
    assert "signal 9; it may have run out of memory" in next(row["error"] for row in rows if row["error"])


def test_workers_that_are_not_needed_end(search, tmp_path, monkeypatch):
    from penstock.components.tuning.backends import local

    started, workers = [], local._Workers

    def noted(of):
        started.append(workers(of))
        return started[-1]

    monkeypatch.setattr(local, "_Workers", noted)
    with pytest.raises(UserError, match="eta"):
        search(space={"etta": {"type": "float", "low": 0, "high": 1}}, parallel_trials=3)
    [refused] = started
    assert [worker.process.poll() for worker in refused._all] == [-9, -9, -9]


def test_rare_categories_are_missing_to_an_estimator_that_takes_few(search, make_dataset, late_rows, tmp_path):
    sets = []
    for count, first in ((400, 0), (200, 1000)):
        columns = late_rows(count, first)
        columns["place"] = [f"p{(n * n) % 23}" for n in range(count)]
        sets.append(make_dataset(columns))
    space = {"max_bins": {"type": "categorical", "choices": [4, 9, 40]}}
    found = search(train_set=sets[0], eval_set=sets[1], framework="sklearn", space=space, sampler="grid", fit_best=True)
    losses = {row["param_max_bins"]: row["eval_log_loss"] for row in points(tmp_path)}
    for most, loss in losses.items():
        fitted = fit(*sets, tmp_path / "one", target="late", framework="sklearn", hyperparameters={"max_bins": most},
                     max_rounds=20, seed=1, early_stopping_rounds=5)  # fmt: skip
        assert fitted.metrics["eval_log_loss"] == loss
    assert found.value == min(losses.values())


def test_trials_are_logged_to_mlflow(search, registry, tmp_path):
    from mlflow import MlflowClient

    found = search(tracking=registry, hyperparameters={"gamma": 0.5})
    client = MlflowClient(tracking_uri=registry)
    experiment = client.get_experiment_by_name("penstock")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if run.info.run_name == "tune")
    assert parent.data.metrics["eval_log_loss"] == found.value
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 6
    best = next(run for run in children if run.data.tags["best"] == "true")
    assert best.data.params["gamma"] == "0.5"
    assert float(best.data.params["eta"]) == found.hyperparameters["eta"]


def test_a_tracking_server_that_is_not_there_is_told_before_the_first_trial(search, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as refused:
        search(tracking="http://127.0.0.1:9", study=str(tmp_path / "study.log"))
    assert str(refused.value).startswith("tune: tracking: http://127.0.0.1:9 does not answer")
    assert not (tmp_path / "study.log").exists()


def test_more_trials_at_a_time_than_there_is_memory_for_are_refused_before_the_first(search, monkeypatch):
    held = []
    monkeypatch.setattr(memory, "used", lambda: 0)
    monkeypatch.setattr(memory, "limit", lambda: 10**9 if not held else 1000)
    monkeypatch.setattr("penstock.components.tuning.tune.write_rows", lambda folder, job: held.append(job) or job)
    problem = r"^tune: parallel_trials: 3 trials at a time on \d+ rows of 3 columns take 0 MB .* or fewer trials"
    with pytest.raises(UserError, match=problem):
        search(parallel_trials=3)
    assert held
