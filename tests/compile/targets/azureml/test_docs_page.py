"""Every example of docs/azureml.md that needs no Azure is a line that a test runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from penstock.compile.targets.azureml import options

PAGE = (Path(__file__).parents[4] / "docs" / "azureml.md").read_text()


@pytest.mark.slow
def test_the_examples_run(tmp_path):
    block, _ = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    commands = [line.partition("  #")[0].strip() for line in block.splitlines() if line.startswith("penstock")]
    assert len(commands) == 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "job" / "job.yml").is_file()


def test_the_examples_of_options_are_some():
    first, second = (
        options.parse(yaml.safe_load(block)) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    )
    assert len(first.machines) == 2
    assert second.outputs["train.model"].copied == "mlflow_model"
