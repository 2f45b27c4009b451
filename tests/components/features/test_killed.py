"""SIGKILL at every step of a sync: nothing is lost, and the next run finishes it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.components._shared.dataset import write_dataset
from tests.components.features.conftest import ROWS, features, write_repo

PLACES = 12


@pytest.mark.slow
def test_killed_at_any_step_it_is_finished_by_the_next_run_and_a_third_changes_nothing(tmp_path):
    table = features(ROWS)
    write_dataset(tmp_path / "features", table.schema, table.to_batches())
    for number in range(PLACES):
        write_repo(tmp_path / f"repo-{number}")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.components.features.killing", tmp_path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    assert len(outcomes) == PLACES
    for place, outcome in outcomes.items():
        assert outcome["ended"] == signal.SIGKILL, (place, done.stderr[-2000:])
        second, third = outcome["runs"]
        for found in (second, third):
            assert found["online"] == [{"sold": 3, "price": None}, {"sold": 10, "price": 0.1}], place
            assert found["rows"] == 4, place
            assert found["files"] == ["part-"], place
        assert (third["changes"], third["added"], third["materialized"], third["resumed"]) == (0, 0, [], False), place
    # Each place is where it says it is.
    seconds = {place: outcome["runs"][0] for place, outcome in outcomes.items()}
    assert seconds["while the registry's file is replaced"]["changes"] == 8
    assert seconds["after the definitions"]["changes"] == 0
    assert seconds["while rows are put in place"]["added"] == 4
    assert (seconds["after rows are in place"]["added"], seconds["after rows are in place"]["resumed"]) == (0, True)
    assert seconds["online but not noted"]["materialized"] == ["counts", "prices"]
