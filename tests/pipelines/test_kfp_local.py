"""KFP's own local runner and our engine give the same outputs, where KFP's is right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from kfp import local
from penstock.pipelines import tabular_training
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
tabular_training(source="sample://taxi?rows=3000", registry="sqlite:///" + sys.argv[2])
"""


def evaluation(folder: Path) -> dict:
    [path] = [path for path in folder.rglob("evaluation") if path.is_file()]
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_same_spec_gives_the_same_evaluation_under_both(tmp_path):
    theirs = tmp_path / "kfp-local"
    subprocess.run([sys.executable, "-c", SCRIPT, theirs, tmp_path / "registry.db"], check=True, cwd=tmp_path)
    ours = tmp_path / "penstock"
    penstock = Path(sys.executable).with_name("penstock")
    command = [penstock, "run", "tabular_training", "--root", ours, "-p", "source=sample://taxi?rows=3000"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert evaluation(ours)["metrics"] == evaluation(theirs)["metrics"]
