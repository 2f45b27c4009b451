"""The validator finds what Azure's own tools let through."""

import json
import re
from collections.abc import Callable

import pytest
import yaml

from penstock.compile import from_kfp
from penstock.compile.targets.azureml import convert, validate
from penstock.compile.targets.azureml.options import parse
from tests.compile.rich import rich

Files = dict[str, bytes]


@pytest.fixture
def job(compiled) -> Files:
    """Files of a sound job."""
    settings = parse({"has_python": ["alpine:*"], "max_iterations": 2, "uri_map": {"gs://": "azureml://"}})
    return dict(convert.convert(from_kfp.read(compiled(rich)), {}, settings).files)


def change(files: Files, path: str, edit: Callable[[dict], object]) -> None:
    document = yaml.safe_load(files[path])
    edit(document)
    files[path] = yaml.safe_dump(document).encode()


LOOK = "components/look.yml"
BREAKS = {
    "there is no step nobody": (
        "pipeline.yml",
        lambda found: found["jobs"]["tell_3"]["inputs"].update(c0="${{parent.jobs.nobody.outputs.control}}"),
    ),
    "step finish has no output metrics": (
        "pipeline.yml",
        lambda found: found["jobs"]["tell_3"]["inputs"].update(c0="${{parent.jobs.finish.outputs.metrics}}"),
    ),
    "there is no input rowz of the pipeline": (
        "pipeline.yml",
        lambda found: found["jobs"]["tell_3"]["inputs"].update(c0="${{parent.inputs.rowz}}"),
    ),
    "takes uri_folder and is given the pipeline's rows, integer": (
        "pipeline.yml",
        lambda found: found["jobs"]["tell_3"]["inputs"].update(c0="${{parent.inputs.rows}}"),
    ),
    "its component has no input extra": (
        "pipeline.yml",
        lambda found: found["jobs"]["look"]["inputs"].update(extra="${{parent.inputs.rows}}"),
    ),
    "its input a0 is not given": ("pipeline.yml", lambda found: found["jobs"]["look"]["inputs"].pop("a0")),
    "has more than a mode and a path": (
        "pipeline.yml",
        lambda found: found["jobs"]["look"].update(outputs={"control": {"path": "azureml://x", "name": "a"}}),
    ),
    "its output control is uri_folder, and the pipeline's penstock_outputs is mlflow_model": (
        "pipeline.yml",
        lambda found: found["outputs"]["penstock_outputs"].update(type="mlflow_model"),
    ),
    "job.yml: the output penstock_outputs has another type than that of the pipeline": (
        "job.yml",
        lambda found: found["outputs"]["penstock_outputs"].update(type="mlflow_model"),
    ),
    "is no binding": ("pipeline.yml", lambda found: found["jobs"]["look"]["inputs"].update(a0="gs://x")),
    "is no name that a step can have": (
        "pipeline.yml",
        lambda found: found["jobs"].update({"Look-2": found["jobs"].pop("look")}),
    ),
    "no step gives the output penstock_outputs": (
        "pipeline.yml",
        lambda found: found["jobs"]["penstock_outputs"].pop("outputs"),
    ),
    "steps wait for each other: exit_handler_1__best": (
        "pipeline.yml",
        lambda found: [
            found["jobs"]["exit_handler_1__split"].update(
                inputs={**found["jobs"]["exit_handler_1__split"]["inputs"],
                        "c9": "${{parent.jobs.exit_handler_1__best.outputs.control}}"}
            )
        ],
    ),
    "is there twice, but for the case of its letters": (
        "pipeline.yml",
        lambda found: found["inputs"].update(ROWS={"type": "integer"}),
    ),
    "has the type 'table'": ("pipeline.yml", lambda found: found["inputs"].update(t={"type": "table"})),
    "'3' is no integer": ("pipeline.yml", lambda found: found["inputs"]["rows"].update(default="3")),
    "the pipeline has no input row": ("job.yml", lambda found: found["inputs"].update(row=1)),
    "True is no integer": ("job.yml", lambda found: found["inputs"].update(rows=True)),
    "an empty text is dropped by Azure": ("job.yml", lambda found: found["inputs"].update(greeting="")),
    "the data input import_importer is not given": ("job.yml", lambda found: found["inputs"].pop("import_importer")),
    "is no data of type uri_folder": (
        "job.yml",
        lambda found: found["inputs"].update(import_importer={"type": "uri_file", "path": "azureml://x"}),
    ),
    "step look: has no compute": ("job.yml", lambda found: found["settings"].pop("default_compute")),
    "more than 256 characters": ("job.yml", lambda found: found.update(display_name="x" * 257)),
    "component look: has no image": (LOOK, lambda found: found["environment"].pop("image")),
    "does not name each of its inputs and outputs once": (
        LOOK,
        lambda found: found.update(command=found["command"].replace("@@a0@@${{inputs.a0}}\n", "")),
    ),
    "an expression that is none of its inputs or outputs": (
        LOOK,
        lambda found: found.update(command=found["command"] + "${{parent.inputs.rows}}"),
    ),
    "code/other/step.json is not there": (LOOK, lambda found: found.update(code="../code/other")),
    "has more than 20 outputs": (
        LOOK,
        lambda found: found["outputs"].update({f"x{index}": {"type": "uri_folder"} for index in range(20)}),
    ),
    "has more than 200 inputs": (
        LOOK,
        lambda found: found["inputs"].update({f"x{index}": {"type": "uri_folder"} for index in range(200)}),
    ),
    "the name 'Look' is none that a component can have": (LOOK, lambda found: found.update(name="Look")),
}  # fmt: skip


def test_a_converted_job_is_sound(job):
    assert validate.check(job) == []


@pytest.mark.parametrize("said", BREAKS)
def test_what_is_wrong_is_said(job, said):
    path, edit = BREAKS[said]
    change(job, path, edit)
    assert any(re.search(re.escape(said), problem) for problem in validate.check(job)), validate.check(job)


def test_a_component_that_is_missing_or_no_yaml_is_named(job):
    broken = {**job, LOOK: b"a: ["}
    assert "components/look.yml: not YAML" in validate.check(broken)[0]
    del job[LOOK]
    assert validate.check(job) == ["components/look.yml is not there"]


def test_a_step_that_reads_other_inputs_than_its_component_has_is_named(job):
    step = json.loads(job["code/look/step.json"])
    step["artifacts"] = {}
    job["code/look/step.json"] = json.dumps(step).encode()
    assert validate.check(job) == ["component look: its inputs are not those of code/look/step.json"]
