"""`penstock run --each` runs every compiled pipeline below a folder and says what came of each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.compile.cli import penstock
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local import each
from penstock.compile.targets.local.record import State

COMMAND = [sys.executable, "-m", "penstock.compile.cli", "run", "--runner", "subprocess"]


def write_spec(path: Path, *scripts: str) -> None:
    """Write a compiled pipeline whose tasks are shell scripts, one after another."""
    names = [f"step-{index}" for index in range(len(scripts))]
    spec = {
        "pipelineInfo": {"name": path.stem},
        "schemaVersion": "2.1.0",
        "root": {
            "dag": {
                "tasks": {
                    name: {"componentRef": {"name": name}, "dependentTasks": names[:index][-1:]}
                    for index, name in enumerate(names)
                }
            }
        },
        "components": {name: {"executorLabel": name} for name in names},
        "deploymentSpec": {
            "executors": {
                name: {"container": {"image": "none", "command": ["sh", "-c", script]}}
                for name, script in zip(names, scripts, strict=True)
            }
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of specs of every kind, and files that are none."""
    monkeypatch.chdir(tmp_path)
    specs = tmp_path / "specs"
    write_spec(specs / "good.yaml", "true", "true")
    write_spec(specs / "deep/er/bad.json", "true", "echo no luck; exit 3", "true")
    write_spec(specs / "endless.yml", "sleep 60")
    (specs / "parameters.yaml").write_text("rows: 7\n")
    (specs / "readme.txt").write_text("not looked at")
    write_spec(specs / ".hidden/good.yaml", "true")
    return specs


def call(*arguments: object) -> Result:
    return CliRunner().invoke(penstock, ["run", "--runner", "subprocess", *map(str, arguments)], prog_name="penstock")


def test_each_spec_is_run_and_told_of_by_file_state_tasks_and_reason(folder, tmp_path):
    result = call("--each", folder, "--timeout", 2, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    shown = [(one["file"], one["state"], one["tasks"], one["reason"]) for one in found]
    assert shown == [
        ("deep/er/bad.json", "failed", 2, "step-1: exit code 3: no luck"),
        ("endless.yml", "timed out", 0, "took too long: ended after 2 s"),
        ("good.yaml", "succeeded", 2, ""),
        ("parameters.yaml", "refused", 0, "not a compiled pipeline: there is no pipelineInfo; compile it first"),
    ]
    assert found[1]["seconds"] < 10
    runs = tmp_path / "penstock-out/runs"
    assert sorted(path.name for path in runs.iterdir()) == sorted(one["run"] for one in found if one["run"])
    assert json.loads((runs / found[1]["run"] / "run.json").read_text())["state"] == "CANCELLED"


def test_people_get_a_line_for_each_as_it_ends_and_then_a_table(folder):
    result = call("--each", folder, "--timeout", 2)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[2].startswith("3/4  good.yaml: succeeded in ")
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert lines[0] == ["file", "state", "tasks", "seconds", "reason"]
    assert lines[1][:3] == ["deep/er/bad.json", "failed", "2"]
    summary = " ".join(lines[-1])
    assert summary.startswith("4 pipelines in ")
    assert summary.endswith(": 1 succeeded, 1 failed, 1 refused, 1 timed out")


def test_all_that_succeed_make_it_exit_with_0_and_specs_of_runs_are_not_run_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_spec(tmp_path / "good.yaml", "true")
    assert call("--each", ".").exit_code == 0
    again = call("--each", ".", "--json")
    assert (again.exit_code, [one["file"] for one in json.loads(again.stdout)]) == (0, ["good.yaml"])


def test_a_folder_without_specs_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(PenstockError, match=r"there is no file \*\.yaml, \*\.yml, \*\.json in it"):
        each.specs(tmp_path, tmp_path / "penstock-out")
    result = call("--each", tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("more", [["good.yaml"], ["--events", "x"], ["--resume", "x"]])
def test_what_is_for_one_pipeline_does_not_go_with_it(folder, more):
    assert call("--each", folder, *more).exit_code == 2


def test_parameters_go_to_the_pipelines_that_have_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("with", "without"):
        write_spec(tmp_path / "specs" / f"{name}.json", "true")
    spec = json.loads((tmp_path / "specs/with.json").read_text())
    spec["root"]["inputDefinitions"] = {
        "parameters": {"n": {"parameterType": "NUMBER_INTEGER"}, "text": {"parameterType": "STRING"}}
    }
    (tmp_path / "specs/with.json").write_text(json.dumps(spec))
    (tmp_path / "values.yaml").write_text("text: a\nother: 1\n")

    def states(*arguments: object) -> list[str]:
        return [one["state"] for one in json.loads(call("--each", "specs", "--json", *arguments).stdout)]

    assert states() == ["refused", "succeeded"]
    assert states("-p", "n=1", "--params", "values.yaml") == ["succeeded", "succeeded"]
    assert states("-p", "n=x", "--params", "values.yaml") == ["refused", "succeeded"]


def test_a_run_of_one_pipeline_may_be_timed_too(folder, tmp_path):
    begin = time.monotonic()
    record = local.run(folder / "endless.yml", {}, root=tmp_path / "root", jobs=1, runner="subprocess", timeout=0.3)
    assert time.monotonic() - begin < 50
    assert (record.state, record.error) == (State.CANCELLED, "took too long: ended after 0.3 s")
    record = local.run(folder / "good.yaml", {}, root=tmp_path / "root", jobs=1, runner="subprocess", timeout=60)
    assert record.state is State.SUCCEEDED


@pytest.mark.parametrize("as_json", [True, False])
def test_a_signal_ends_what_runs_and_shows_the_table_so_far(folder, tmp_path, as_json):
    write_spec(folder / "endless.yml", f"touch {tmp_path}/begun; sleep 60")
    options = ["--json"] if as_json else []
    command = [*COMMAND, "--each", str(folder), *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped by SIGINT; 2 more were not begun"
    assert "Traceback" not in errors
    if as_json:
        shown = [(one["file"], one["state"], one["reason"]) for one in json.loads(output)]
        assert shown[1:] == [("endless.yml", "stopped", "by SIGINT")]
    else:
        assert output.splitlines()[-1].endswith(": 1 failed, 1 stopped")
