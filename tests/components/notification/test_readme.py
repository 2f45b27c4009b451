"""The example of the stage's README."""

import importlib.util
import re
from pathlib import Path

import yaml
from kfp import compiler

import penstock.components.notification

README = (Path(penstock.components.notification.__file__).parent / "README.md").read_text()


def test_the_pipeline_compiles_and_notify_runs_however_it_ends(tmp_path):
    [text] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "tips.py").write_text(text)
    module = importlib.util.spec_from_file_location("tips", tmp_path / "tips.py")
    example = importlib.util.module_from_spec(module)
    module.loader.exec_module(example)
    compiler.Compiler().compile(example.tips, str(tmp_path / "tips.yaml"))
    tasks = yaml.safe_load((tmp_path / "tips.yaml").read_text())["root"]["dag"]["tasks"]
    assert tasks["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert tasks["notify"]["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"
