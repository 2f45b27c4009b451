"""Every example of the README is a line that a test runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [
    line.partition("#")[0].strip()
    for block in examples("sh")
    for line in block.splitlines()
    if line.startswith("penstock")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder such as the examples suppose: trips, compiled specs, a pipeline of one's own, the feature repository."""
    path = tmp_path_factory.mktemp("readme")
    [mine] = examples("python")
    (path / "mine.py").write_text(mine)
    shutil.copytree(ROOT / "feature_repo", path / "feature_repo", ignore=shutil.ignore_patterns("data", "__pycache__"))
    for command in ("penstock sample taxi --rows 2000 --output trips", "penstock compile --all --output compiled"):
        run(path, command)
    return path


def run(folder: Path, command: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_there_are_examples():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_runs(folder, command):
    run(folder, command)


@pytest.mark.parametrize("target", ["run", "test"])
def test_the_two_commands_are_make_targets(target):
    assert f"make {target} " in examples("sh")[0]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
