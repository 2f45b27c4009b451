"""A pipeline that gives something else when it is converted is found out, and one that gives the same is not."""

import json
from pathlib import Path

import pytest
import yaml
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from penstock.compile import from_kfp
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import convert
from penstock.testing import assert_same_run, run_azureml_job


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def save(rows: int, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write("x" * rows)
    data.metadata["rows"] = rows


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def count(data: Input[Dataset], most: int = 10) -> int:
    with open(data.path) as file:
        found = len(file.read())
    if found > most:
        raise ValueError(f"{found} are more than {most}")
    return found


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def draw(data: Output[Dataset]) -> float:
    import random

    with open(data.path, "w") as file:
        file.write(str(random.random()))
    data.metadata["drawn"] = random.random()
    return random.random()


@dsl.pipeline(name="counting")
def counting(rows: int = 3) -> int:
    return count(data=save(rows=rows).outputs["data"]).output


@dsl.pipeline(name="drawing")
def drawing() -> float:
    return draw().outputs["Output"]


def test_what_gives_the_same_is_returned(tmp_path):
    record = assert_same_run(counting, {"rows": 4}, root=tmp_path)
    assert (record.state, record.outputs) == ("Completed", {"Output": 4})
    assert Path(record.tasks["save"].artifacts["data"].location).read_text() == "xxxx"
    assert record.tasks["save"].artifacts["data"].metadata == {"rows": 4}


def test_what_fails_in_both_is_the_same():
    record = assert_same_run(counting, {"rows": 11})
    assert record.state == "Failed"
    assert record.tasks["count"].error == "ValueError: 11 are more than 10"


def test_every_difference_is_named(tmp_path):
    with pytest.raises(AssertionError) as caught:
        assert_same_run(drawing, root=tmp_path)
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"drawing: {tmp_path}/azureml-runs/run-")
    assert [line.split(": ")[0].strip() for line in lines] == ["draw.Output", "draw.data", "draw.data", "Output"]
    assert "bytes with sha256" in lines[2]
    assert assert_same_run(drawing, apart_from=["draw.*", "Output"]).state == "Completed"


def test_what_is_refused_is_an_error_with_the_reason(tmp_path):
    @dsl.pipeline(name="p")
    def pipeline():
        dsl.importer(artifact_uri="gs://bucket/x", artifact_class=Dataset)
        save(rows=1)

    with pytest.raises(PenstockError, match=r"p: .*gs://bucket/x"):
        assert_same_run(pipeline)
    with pytest.raises(PenstockError, match="is no pipeline; decorate"):
        assert_same_run(3)


def test_a_job_runs_with_other_inputs_and_keeps_its_folder(compiled, tmp_path):
    convert.write(convert.convert(from_kfp.read(compiled(counting))), tmp_path / "job")
    record = run_azureml_job(tmp_path / "job", inputs={"rows": "12"}, root=tmp_path)
    assert (record.state, record.tasks["count"].exit_code) == ("Failed", 1)
    said = json.loads((tmp_path / "azureml-runs" / record.id / "run.json").read_text())
    assert (said["format"], said["inputs"]) == ("penstock.azureml-run/1", {"rows": "12"})
    assert {step["name"]: step["state"] for step in said["steps"]} == {
        "count": "Failed", "penstock_outputs": "NotStarted", "save": "Completed",
    }  # fmt: skip


def test_limits_compute_and_failures_are_as_the_job_says(compiled, tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def sleep(seconds: int):
        import time

        time.sleep(seconds)

    @dsl.pipeline(name="p")
    def pipeline():
        save(rows=2).after(save(rows=1).after(sleep(seconds=60)))
        count(data=save(rows=3).outputs["data"])

    job = tmp_path / "job"
    convert.write(convert.convert(from_kfp.read(compiled(pipeline))), job)
    document = yaml.safe_load((job / "pipeline.yml").read_text())
    limited = {**document["jobs"].pop("sleep"), "limits": {"timeout": 2}, "compute": "azureml:nobody-knows"}
    document["jobs"] = {"sleep": limited, **document["jobs"]}
    (job / "pipeline.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    record = run_azureml_job(job, root=tmp_path)
    steps = {step.name: step for step in record.steps}
    assert {name: step.state for name, step in steps.items()} == {
        "count": "Completed", "save": "NotStarted", "save_2": "NotStarted", "save_3": "Completed", "sleep": "Failed",
    }  # fmt: skip
    assert (steps["sleep"].error, record.tasks["sleep"].state) == ("timed out after 2 s", "FAILED")
    assert steps["sleep"].seconds < 15
    assert steps["sleep"].compute == "azureml:nobody-knows"
    assert steps["count"].compute == "azureml:serverless"
    settings = yaml.safe_load((job / "job.yml").read_text())
    settings["settings"]["continue_on_step_failure"] = False
    (job / "job.yml").write_text(yaml.safe_dump(settings))
    stopped = run_azureml_job(job, root=tmp_path, jobs=1)
    assert stopped.state == "Failed"
    assert [step.state for step in stopped.steps] == ["Failed", *["NotStarted"] * 4]
