"""The examples of docs/testing.md are a project whose tests pass."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs" / "testing.md"


@pytest.mark.slow
def test_the_examples_are_a_project_whose_tests_pass(tmp_path):
    pytest.importorskip("google.cloud.aiplatform")
    pytest.importorskip("azure.ai.ml")
    files = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS.read_text(), re.DOTALL))
    tests = {"test_total.py", "test_converted.py", "test_shop.py", "test_azureml.py", "test_shop_on_azure.py"}
    assert set(files) == {"shop.py", "conftest.py", *tests}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout
