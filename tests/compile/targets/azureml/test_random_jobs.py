"""Random pipelines, converted, give what the local engine gives: every state, every value, every file."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.compile import from_kfp
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.azureml import convert, rehearsal
from penstock.compile.targets.azureml.options import parse
from tests.compile.targets.azureml.parity import compared
from tests.compile.targets.azureml.shells import SHELLS, shell_called_sh
from tests.compile.targets.local.test_random_dags import Case, drawn

BOUND = 4


@pytest.fixture
def check(tmp_path, monkeypatch) -> Callable[..., bool]:
    """Return a function that runs a case both ways and tells whether it could."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "work").write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[4])!r})\n"
        "from tests.compile.targets.azureml.programs import main\nsys.exit(main())\n"
    )
    (folder / "work").chmod(0o755)
    (tmp_path / "attempts").mkdir()
    monkeypatch.setenv("ATTEMPTS", str(tmp_path / "attempts"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)
    numbers = itertools.count()
    (tmp_path / "imported").write_text("rows")

    def check_it(case: Case, **options: Any) -> bool:
        run_id = f"r{next(numbers)}"
        fill(case.spec)
        text = json.dumps(case.spec).replace("@imported", str(tmp_path / "imported"))
        paths = {}
        for name, rows in case.artifacts.items():
            paths[name] = str(tmp_path / name)
            (tmp_path / name).write_text(rows)
        spec = tmp_path / "spec.json"
        spec.write_text(text)
        values = {**case.parameters, **paths}
        conversion = convert.convert(from_kfp.read(spec), values, parse({"max_iterations": BOUND, **options}))
        refused = {each.code for each in conversion.findings if each.severity == "error"}
        if refused:
            # What is imported may come from another task; a random list of lists may be long.
            assert refused <= {"runtime-uri", "too-many", "no-steps"}, [str(each) for each in conversion.findings]
            return False
        convert.write(conversion, tmp_path / "job")
        job = tmp_path / "job" / "job.yml"
        try:
            ours = rehearsal.run(job, root=tmp_path / "azure", jobs=case.jobs, run_id=run_id)
        except PenstockError as error:
            if not str(error).endswith("is not there"):  # one imports what is not
                raise
            return False
        if any("converted for at most" in (task.error or "") for task in ours.tasks.values()):
            assert ours.state == "Failed"
            return False
        theirs = local.run(
            spec, values, root=tmp_path / "local", jobs=case.jobs, runner="subprocess", run_id=run_id, reuse=False
        )
        problems = compared(ours, theirs)
        assert not problems, "\n".join([*problems, yaml.safe_dump(case.spec, width=120)])
        return True

    return check_it


def fill(spec: dict[str, Any]) -> None:
    """Give every nested pipeline a task: one without is refused."""
    for name, component in list(spec["components"].items()):
        if component.get("dag", {"tasks": True})["tasks"] == {}:
            filler = f"filler-{name}"
            program = {"name": filler, "parameters": [], "artifacts": [], "fails": 0, "breaks": "", "env": []}
            command = ["work", json.dumps({**program, "files": False, "folders": False}), "{{$}}"]
            spec["deploymentSpec"]["executors"][filler] = {"container": {"image": "none", "command": command}}
            spec["components"][filler] = {"executorLabel": filler}
            component["dag"]["tasks"][filler] = {"componentRef": {"name": filler}}


def test_random_pipelines_give_what_the_local_engine_gives(check):
    assert sum(check(case) for case in drawn(7, 6)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_random_pipelines_in_images_without_python_give_the_same(check, shell, tmp_path):
    shell_called_sh(shell, tmp_path / "bin")
    assert sum(check(case, launchers={"*": "sh"}) for case in drawn(11, 2)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_many_random_pipelines_give_what_the_local_engine_gives(check, seed):
    assert sum(check(case) for case in drawn(1000 + seed, 10)) >= 3
