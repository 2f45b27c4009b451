"""Features from files to a store, and from the store to a model: one spec with and without them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")


def run(folder: Path, pipeline: str, source: str, *more: str) -> dict[str, dict]:
    """Return the tasks of a run by what the spec calls them."""
    command = [PENSTOCK, "run", pipeline, "--json", "-p", f"source={source}", *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {task["path"].rpartition(".")[2]: task for task in json.loads(done.stdout)["tasks"]}


def checkout(folder: Path) -> Path:
    shutil.copytree(
        ROOT / "feature_repo", folder / "feature_repo", ignore=shutil.ignore_patterns("data", "__pycache__")
    )
    return folder


def test_what_reads_or_writes_the_store_is_never_reused_and_what_computes_is():
    for name in ("feature_sync", "tabular_training"):
        spec = yaml.safe_load((ROOT / "tests" / "golden" / f"{name}.yaml").read_text())
        dags = [spec["root"], *spec["components"].values()]
        tasks = {task: body for dag in dags for task, body in dag.get("dag", {}).get("tasks", {}).items()}
        cached = {task: body.get("cachingOptions", {}).get("enableCache", False) for task, body in tasks.items()}
        assert not any(cached[task] for task in cached if task.startswith(("sync-features", "retrieve-features")))
        assert cached.get("compute-features", True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_sync_changes_nothing_and_training_measures_with_and_without_features(tmp_path):
    folder = checkout(tmp_path)
    first = run(folder, "feature_sync", "sample://taxi?rows=3000")["sync-features"]["outputs"]["parameters"]
    assert first["added"] > 1000
    assert first["verified"] > 0
    assert "created feature service big_tip" in first["changes"]
    again = run(folder, "feature_sync", "sample://taxi?rows=3000")["sync-features"]["outputs"]["parameters"]
    assert (again["changes"], again["added"], again["materialized"]) == ([], 0, 0)
    params = ["--params", "feature_repo/training.yaml", "-p", 'gate=["auc >= 0.4"]']
    tasks = run(folder, "tabular_training", "sample://taxi?rows=3000", *params)
    retrieved = tasks["retrieve-features"]["outputs"]["parameters"]
    assert "tip_share_24h" in retrieved["columns"]
    assert "hour_of_week" in retrieved["columns"]
    without, with_features = tasks["evaluate"]["metrics"], tasks["evaluate-2"]["metrics"]
    assert without["rows"] == with_features["rows"]
    assert without["auc"] != with_features["auc"]
    assert tasks["register"]["state"] == "SKIPPED"
    assert tasks["register-2"]["outputs"]["parameters"]["version"] == "1"


@pytest.mark.corpus
@pytest.mark.timeout(900)
def test_the_real_months_go_the_same_way(tmp_path, taxi_months):
    folder, source = checkout(tmp_path), f"{taxi_months}/*.csv"
    synced = run(folder, "feature_sync", source)["sync-features"]["outputs"]["parameters"]
    assert synced["added"] > 600_000
    split = ["-p", "time_column=pickup_datetime", "-p", "eval_from=2019-01-01"]
    tasks = run(folder, "tabular_training", source, "--params", "feature_repo/training.yaml", *split)
    aucs = [tasks[name]["metrics"]["auc"] for name in ("evaluate", "evaluate-2")]
    assert min(aucs) > 0.6
    assert abs(aucs[1] - aucs[0]) < 0.02  # so says the page on features: they bring next to nothing here
