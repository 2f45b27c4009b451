"""Files predicted by a model of the registry, and held to the statistics of its training rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = Path(sys.executable).with_name("penstock")


def run(folder: Path, *arguments: str) -> dict[str, dict]:
    """Return the tasks of a run by what the spec calls them."""
    done = subprocess.run([PENSTOCK, "run", *arguments, "--json"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {task["path"].rpartition(".")[2]: task for task in json.loads(done.stdout)["tasks"]}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_champion_predicts_new_files_and_drift_is_looked_for_where_there_are_statistics(tmp_path):
    run(tmp_path, "tabular_training", "-p", "source=sample://taxi?rows=3000", "-p", 'gate=["auc >= 0.4"]')
    [statistics] = tmp_path.glob("penstock-out/runs/*/tasks/*validate/outputs/statistics")
    given = ["-p", "model=models:/taxi-tips@champion", "-p", "source=sample://taxi?rows=2000", "-p", 'keep=["*"]']
    tasks = run(tmp_path, "batch_scoring", *given, "-p", f"statistics={statistics}")
    assert tasks["fetch-model"]["outputs"]["parameters"] == {"uri": "models:/taxi-tips/1", "version": "1"}
    predicted = tasks["predict-batch"]["outputs"]["parameters"]
    assert predicted["rows"] == tasks["ingest"]["outputs"]["parameters"]["train_rows"]
    assert predicted["bad_rows"] == 0
    assert tasks["detect-drift"]["state"] == "SUCCEEDED"
    tasks = run(tmp_path, "batch_scoring", *given)
    assert tasks["predict-batch"]["outputs"]["parameters"] == predicted
    assert tasks["detect-drift"]["state"] == "SKIPPED"
