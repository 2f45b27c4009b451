"""What every component promises; a new one is held to it the day its folder appears."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kfp.dsl.base_component import BaseComponent

from penstock import components

ROOT = Path(__file__).parents[2]
STAGES = sorted(path.parent for path in ROOT.glob("components/*/component.py"))
COMPONENTS = [
    component
    for stage in STAGES
    for component in vars(importlib.import_module(f"penstock.components.{stage.name}.component")).values()
    if isinstance(component, BaseComponent)
]


def named(component) -> str:
    return component.name


def test_every_folder_that_declares_components_is_found():
    assert len(COMPONENTS) >= len(STAGES) >= 5


@pytest.mark.parametrize("component", COMPONENTS, ids=named)
def test_it_is_exported_under_its_own_name(component):
    assert getattr(components, component.python_func.__name__) is component
    assert component.python_func.__name__ in components.__all__


@pytest.mark.parametrize("component", COMPONENTS, ids=named)
def test_its_docstring_opens_with_a_sentence_and_explains_every_port(component):
    opening = component.description.split("\n")[0]
    assert opening.endswith(".")
    ports = {**(component.component_spec.inputs or {}), **(component.component_spec.outputs or {})}
    silent = [name for name, port in ports.items() if not getattr(port, "description", None)]
    documented = inspect.getdoc(component.python_func)
    assert [name for name in silent if f"    {name}: " not in documented] == []


@pytest.mark.parametrize("component", COMPONENTS, ids=named)
def test_its_image_is_an_environment_in_containers_and_installs_nothing_at_run_time(component):
    container = component.component_spec.implementation.container
    name = container.image.removeprefix("penstock/").partition(":")[0]
    assert (ROOT / "containers" / name / "requirements.in").is_file()
    assert not any("pip install" in part for part in container.command)


@pytest.mark.parametrize("component", COMPONENTS, ids=named)
def test_its_body_is_a_few_statements(component):
    function = ast.parse(inspect.cleandoc("\n" + inspect.getsource(component.python_func))).body[0]
    statements = [
        node for top in function.body[1:] for node in ast.walk(top) if isinstance(node, ast.stmt)
    ]  # without the docstring
    assert len(statements) <= 12


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_its_stage_has_prose_a_ports_table_and_tests(stage):
    readme = (stage / "README.md").read_text()
    assert "<!-- ports -->\n" in readme
    assert "<!-- /ports -->\n" in readme
    assert list((ROOT / "tests" / "components" / stage.name).glob("test_*.py"))


def test_importing_the_components_loads_nothing_but_kfp_and_the_standard_library():
    script = "import sys, kfp, kfp.dsl; before = set(sys.modules); import penstock.components; "
    script += "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= {"penstock", "kfp"}


@pytest.mark.parametrize("folder", ["components", "pipelines", "compile"])
def test_importing_a_folder_by_its_bare_name_is_refused_in_one_clear_line(folder):
    run = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"this package is penstock.{folder}" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_its_logic_can_be_imported_where_a_task_runs(stage):
    """KFP's executor has no decorators: a body that imports its logic must not pull in the declarations."""
    body = [
        line.strip()
        for line in (stage / "component.py").read_text().splitlines()
        if line.startswith("    from penstock.components.")
    ]
    assert body
    run = subprocess.run(
        [sys.executable, "-c", "; ".join(body)],
        env={**os.environ, "_KFP_RUNTIME": "true"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
