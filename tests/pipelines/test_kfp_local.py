"""KFP's own local runner and our engine give the same outputs, where KFP's is right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of branches that end in one output, as tabular_training has, KFP's runner takes none.
SMOKE = Path(__file__).parents[2] / "containers" / "tabular"
SCRIPT = """
import sys
from kfp import local
sys.path.insert(0, sys.argv[2])
from smoke import raw_to_registered
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
raw_to_registered(source="sample://taxi?rows=3000", seed=7)
"""


def evaluation(folder: Path) -> dict:
    [path] = [path for path in folder.rglob("evaluation") if path.is_file()]
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_same_spec_gives_the_same_evaluation_under_both(tmp_path):
    theirs = tmp_path / "kfp-local"
    env = {**os.environ, "MLFLOW_REGISTRY_URI": f"sqlite:///{tmp_path}/registry.db"}
    subprocess.run([sys.executable, "-c", SCRIPT, theirs, SMOKE], check=True, cwd=tmp_path, env=env)
    ours = tmp_path / "penstock"
    penstock = Path(sys.executable).with_name("penstock")
    command = [penstock, "run", f"{SMOKE}/smoke.py:raw_to_registered", "--root", ours]
    command += ["-p", "source=sample://taxi?rows=3000", "-p", "seed=7"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert evaluation(ours)["metrics"] == evaluation(theirs)["metrics"]
