"""Searches as pipelines, through the command and the engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = Path(sys.executable).with_name("penstock")
SPACE = '{"eta": {"type": "float", "low": 0.05, "high": 0.4}, "max_depth": {"type": "int", "low": 2, "high": 4}}'


def run(root: Path, pipeline: str, *parameters: str) -> dict:
    given = ["source=sample://taxi?rows=2000", f"space={SPACE}", "gate=[]", *parameters]
    options = [word for parameter in given for word in ("-p", parameter)]
    done = subprocess.run(
        [PENSTOCK, "run", pipeline, "--json", "--root", root, *options], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    return {task["name"]: task for task in json.loads(done.stdout)["tasks"]}


@pytest.mark.slow
def test_a_search_is_followed_by_a_model_of_its_best_hyperparameters_and_again_without_a_trial(tmp_path):
    first = run(tmp_path, "tuned_training", "max_trials=3", "study=tips.study")
    assert {task["state"] for task in first.values()} == {"SUCCEEDED"}
    found = first["tune"]["outputs"]["parameters"]
    assert set(found["hyperparameters"]) == {"eta", "max_depth"}
    assert first["train"]["metrics"]["eval_log_loss"] == found["value"]
    # A path of the user's, so that a step that is tried again finds it.
    assert (tmp_path / "tips.study").is_file()
    again = run(tmp_path, "tuned_training", "max_trials=3", "study=tips.study")
    assert again["tune"]["outputs"]["parameters"] == found


@pytest.mark.slow
def test_a_loop_trains_what_was_suggested_and_the_best_model_is_registered(tmp_path):
    done = run(tmp_path, "spread_training", "trials=2")
    assert {task["state"] for task in done.values()} == {"SUCCEEDED"}
    trained = [task["metrics"]["eval_log_loss"] for name, task in done.items() if name == "train"]
    picked = done["pick"]["outputs"]["parameters"]
    assert picked["value"] <= min(trained)
    assert done["pick"]["metrics"]["complete"] == 2
    assert done["register"]["outputs"]["parameters"]["version"] == "1"


def test_a_spread_search_converts_to_azure_ml(tmp_path):
    options = tmp_path / "options.yaml"
    options.write_text('max_iterations: {"for-loop-1": 2}\n')
    command = [PENSTOCK, "convert", "spread_training", "--to", "azureml", "--output", tmp_path / "job"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "max_iterations" in refused.stdout
    done = subprocess.run([*command, "--options", options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    job = (tmp_path / "job" / "pipeline.yml").read_text()
    assert [number for number in range(4) if f"for_loop_1__{number}__train:" in job] == [0, 1]
