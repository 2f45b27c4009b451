"""The main job, through the command and the engine: raw trips to a registered model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = Path(sys.executable).with_name("penstock")


def run(root: Path, *arguments: str, source: str = "sample://taxi?rows=3000") -> subprocess.CompletedProcess:
    command = [PENSTOCK, "run", "tabular_training", "--json", "--root", root, "-p", f"source={source}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=root)


def tasks(run: subprocess.CompletedProcess) -> dict[str, dict]:
    """Return tasks by name; of those with one name, as in branches, the one that was run."""
    found = sorted(json.loads(run.stdout)["tasks"], key=lambda task: task["state"] != "SKIPPED")
    return {task["name"]: task for task in found}


def test_raw_trips_become_a_registered_model_and_the_next_one_must_beat_it(tmp_path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stderr
    done = tasks(first)
    record = json.loads(first.stdout)
    steps = ("ingest", "validate", "train", "evaluate", "register")
    assert {done[name]["state"] for name in steps} == {"SUCCEEDED"}
    assert {task["state"] for task in done.values()} == {"SUCCEEDED", "SKIPPED"}  # what a feature store would add
    assert done["evaluate"]["metrics"]["auc"] > 0.55
    assert done["register"]["outputs"]["parameters"]["version"] == "1"
    assert len(record["spec_sha256"]) == 64
    assert record["parameters"]["spec_sha256"] == record["spec_sha256"]
    folder = Path(record["folder"])
    assert (folder / "report.html").stat().st_size > 1000
    assert all((folder / task["log"]).exists() for task in done.values() if task["log"])

    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    again = tasks(second)
    # The same data and seed give the same model, in a run of its own.
    assert again["ingest"]["outputs"]["parameters"] == done["ingest"]["outputs"]["parameters"]
    assert again["evaluate"]["metrics"] == done["evaluate"]["metrics"]
    assert "champion" in again["evaluate"]["outputs"]["parameters"]["reason"]
    assert again["register"]["outputs"]["parameters"]["version"] == "2"
    assert again["register"]["outputs"]["parameters"]["previous_version"] == "1"


@pytest.mark.slow
def test_a_model_that_fails_the_gate_is_not_registered_and_the_run_says_why(tmp_path):
    done = run(tmp_path, "-p", 'gate=["auc >= 0.999"]')
    assert done.returncode == 0, done.stderr
    assert tasks(done)["register"]["state"] == "SKIPPED"
    evaluated = tasks(done)["evaluate"]["outputs"]["parameters"]
    assert evaluated["blessed"] is False
    assert "auc" in evaluated["reason"]
    assert "0.999" in evaluated["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["lightgbm", "sklearn"])
def test_every_framework_goes_the_same_way(tmp_path, framework):
    done = run(tmp_path, "-p", f"framework={framework}")
    assert done.returncode == 0, done.stderr
    assert tasks(done)["register"]["state"] == "SUCCEEDED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "failed", "words"),
    [
        ("query=SELECT nothing FROM source", "ingest", ["ingest: query:", "nothing"]),
        ("target=tip", "train", ["train: target:", "tip", "big_tip"]),
        ("framework=prophet", "train", ["train: framework:", "prophet", "lightgbm"]),
        ('gate=["fame >= 1"]', "evaluate", ["evaluate: gate:", "fame", "auc"]),
    ],
    ids=["bad-query", "unknown-target", "unknown-framework", "unknown-metric"],
)
def test_a_failing_step_says_in_one_line_what_is_wrong_and_where(tmp_path, parameter, failed, words):
    done = run(tmp_path, "-p", parameter)
    assert done.returncode == 1
    assert tasks(done)[failed]["state"] == "FAILED"
    assert tasks(done)[failed]["exit_code"] == 65
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert all(word in line for word in words), line
    assert "Traceback" not in done.stderr


@pytest.mark.corpus
def test_the_real_months_go_the_same_way(tmp_path, taxi_months):
    done = run(tmp_path, source=f"{taxi_months}/*.csv")
    assert done.returncode == 0, done.stderr
    ingested = tasks(done)["ingest"]["outputs"]["parameters"]
    assert ingested["train_rows"] + ingested["eval_rows"] > 90_000  # the card payments of 150,000 trips
    assert ingested["bad_rows"] == 0
    assert tasks(done)["evaluate"]["metrics"]["auc"] > 0.55
    assert tasks(done)["register"]["state"] == "SUCCEEDED"
