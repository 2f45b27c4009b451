"""The main job in our image: the very results of a process, with everything that a container can be denied denied."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.components.images import image

PENSTOCK = Path(sys.executable).with_name("penstock")

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def trips(tmp_path_factory) -> Path:
    """Folder in which data/ holds synthetic trips."""
    folder = tmp_path_factory.mktemp("trips")
    command = [PENSTOCK, "sample", "taxi", "--rows", "2000", "--output", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def run(here: Path, runner: str, *parameters: str) -> tuple[Path, dict[str, dict]]:
    """Return the folder of a run on the trips and its tasks by name; runs in one folder have one registry."""
    given = [word for text in ("source=data/*.csv", *parameters) for word in ("-p", text)]
    command = [PENSTOCK, "run", "tabular_training", "--json", "--no-cache", "--runner", runner, *given]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    return Path(record["folder"]), {task["name"]: task for task in record["tasks"]}


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the fingerprint of each dataset that a run wrote, by its path in the run's folder."""
    manifests = {file: json.loads(file.read_text()) for file in folder.glob("tasks/*/outputs/**/manifest.json")}
    return {
        str(file.parent.relative_to(folder)): content["fingerprint"]
        for file, content in manifests.items()
        if "fingerprint" in content
    }


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm", "sklearn"])
def test_containers_give_the_metrics_and_fingerprints_that_processes_give(built, trips, tmp_path, framework):
    built("tabular")
    (tmp_path / "data").symlink_to(trips / "data")
    parameters = (f"framework={framework}", 'gate=["auc >= 0.4"]')
    there, contained = run(tmp_path, "docker", *parameters)
    here, process = run(tmp_path, "subprocess", *parameters)
    assert contained["train"]["runner"] == "container"
    assert process["train"]["runner"] == "process"
    assert contained["ingest"]["outputs"]["parameters"] == process["ingest"]["outputs"]["parameters"]
    assert contained["train"]["metrics"] == process["train"]["metrics"]
    assert contained["evaluate"]["metrics"] == process["evaluate"]["metrics"]
    assert contained["evaluate"]["metrics"]["auc"] > 0.5
    assert fingerprints(there) == fingerprints(here)
    assert {"train_set", "eval_set"} <= {Path(path).name for path in fingerprints(there)}
    # Both know the registry of the root: the process takes the place of what the container registered.
    assert contained["register"]["outputs"]["parameters"]["version"] == "1"
    assert process["register"]["outputs"]["parameters"]["previous_version"] == "1"
    with sqlite3.connect(tmp_path / "penstock-out" / "registry" / "mlflow.db") as database:
        rows = database.execute("SELECT value FROM model_version_tags WHERE key = 'penstock.image' AND version = 1")
        assert rows.fetchall() == [(image("tabular"),)]
