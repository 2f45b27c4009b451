"""What options say of outputs: copies with a type and a name of their own, how and where files are written."""

import json
from pathlib import Path

import pytest
import yaml
from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from penstock.compile.errors import PenstockError
from penstock.compile.findings import Severity
from penstock.compile.targets.azureml import convert, options, rehearsal
from tests.compile.targets.azureml.test_second_opinion import accepted


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def fit(model: Output[Model], table: Output[Dataset], name: str = "MLmodel"):
    from pathlib import Path

    Path(model.path).mkdir()
    Path(model.path, name).write_text("flavors: {}")
    Path(table.path).write_text("a,b")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def look(model: Input[Model], table: Input[Dataset]) -> str:
    from pathlib import Path

    return ",".join([*(path.name for path in Path(model.path).iterdir()), Path(table.path).read_text()])


@dsl.pipeline(name="p", pipeline_root="gs://bucket/runs")
def pipeline(name: str = "MLmodel") -> Model:
    made = fit(name=name)
    look(model=made.outputs["model"], table=made.outputs["table"])
    return made.outputs["model"]


RULES = {
    "fit.model": {
        "type": "mlflow_model",
        "name": "trips",
        "version": "3",
        "path": "azureml://datastores/d/paths/models",
    },
    "*.table": {"type": "uri_file", "mode": "rw_mount"},
}


def run(done, tmp_path, **inputs) -> rehearsal.Record:
    convert.write(done, tmp_path / "job")
    return rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=2, inputs=inputs)


def test_a_copy_has_the_type_that_the_options_say_and_nothing_of_ours_in_it(converted, tmp_path):
    done = converted(pipeline, outputs=RULES)
    job = yaml.safe_load(done.files["job.yml"])
    assert job["outputs"]["fit_model"] == {"mode": "upload", **RULES["fit.model"]}
    assert job["outputs"]["fit_table"] == {"type": "uri_file", "mode": "rw_mount"}
    declared = yaml.safe_load(done.files["components/fit.yml"])["outputs"]
    assert declared["t0"] == {"type": "mlflow_model", "mode": "upload"}
    assert declared["t1"] == {"type": "uri_file", "mode": "rw_mount"}
    record = run(done, tmp_path)
    assert record.state == "Completed"
    assert record.tasks["look"].parameters == {"Output": "MLmodel,a,b"}
    outputs = Path(record.folder) / "steps" / "fit" / "outputs"
    assert [path.name for path in (outputs / "t0").iterdir()] == ["MLmodel"]
    [table] = [path for path in (outputs / "t1", outputs / "t1" / "table") if path.is_file()]
    assert table.read_text() == "a,b"
    assert [each.name for each in record.artifacts["Output"]] == ["model"]


def test_what_is_not_what_the_options_say_fails_its_task(converted, tmp_path):
    record = run(converted(pipeline, outputs=RULES), tmp_path, name="weights")
    assert record.state == "Failed"
    said = "fit: output 'model': the options ask for a mlflow_model of it, and there is no MLmodel in it"
    assert record.tasks["fit"].error == said


def test_a_skipped_task_leaves_its_copies_too(converted, tmp_path):
    @dsl.pipeline(name="p")
    def maybe(yes: bool = False):
        with dsl.If(yes == True):  # noqa: E712 kfp compares
            fit()

    record = run(converted(maybe, outputs={"*.model": {"name": "trips"}}), tmp_path)
    assert record.state == "Completed"
    [copy] = (Path(record.folder) / "steps" / "condition_1__fit" / "outputs" / "t0").iterdir()
    assert json.loads(copy.read_text()) == {"state": "SKIPPED"}


def test_the_place_of_outputs_is_that_of_the_options_or_of_the_pipeline_root(converted):
    rule = {"mode": "rw_mount", "path": "azureml://datastores/d/paths/x"}
    done = converted(pipeline, outputs={"fit.table": rule}, uri_map={"gs://bucket/": "azureml://datastores/d/paths/b/"})
    root = "azureml://datastores/d/paths/b/runs/${{name}}/${{output_name}}"
    fitted = yaml.safe_load(done.files["pipeline.yml"])["jobs"]["fit"]["outputs"]
    assert fitted == {"o0": "${{parent.outputs.Output}}", "o1": rule}
    given = yaml.safe_load(done.files["job.yml"])["outputs"]
    assert given == {"Output": {"type": "uri_folder", "mode": "upload", "path": root}}
    assert yaml.safe_load(done.files["components/fit.yml"])["outputs"]["o1"]["mode"] == "rw_mount"
    assert "pipeline-root" not in {found.code for found in done.findings}
    assert "pipeline-root" in {found.code for found in converted(pipeline).findings}


def test_one_version_is_not_registered_twice(converted):
    @dsl.pipeline(name="p")
    def twice():
        with dsl.ParallelFor(["a", "MLmodel"]) as name:
            fit(name=name)

    rule = {"type": "custom_model", "name": "trips"}
    assert not converted(twice, outputs={"*.model": rule}).refused
    [found] = [
        each
        for each in converted(twice, outputs={"*.model": {**rule, "version": "1"}}).findings
        if each.severity is Severity.ERROR
    ]
    assert found.code == "registered-twice"
    assert ".fit: model would be version 1 of trips, and " in str(found)


def test_rules_of_outputs_are_checked():
    with pytest.raises(PenstockError) as wrong:
        options.parse(
            {
                "outputs": {
                    "a": {"type": "table", "mode": "download", "kind": "x"},
                    "b": {"version": "1", "path": "gs://b"},
                    "c": {"name": "a b"},
                }
            }
        )
    said = str(wrong.value)
    assert "outputs.a.type is none of uri_folder, uri_file, mltable, mlflow_model, custom_model, triton_model" in said
    assert "outputs.a.mode is neither upload nor rw_mount" in said
    assert "unknown option outputs.a.kind" in said
    assert "outputs.b has a version and no name" in said
    assert "outputs.b.path is no azureml:// URI of a datastore" in said
    assert "outputs.c.name 'a b' is none that an asset can have" in said
    with pytest.raises(PenstockError, match="outputs is not a map of maps"):
        options.parse({"outputs": {"train.model": "mlflow_model"}})


@pytest.mark.slow
def test_azures_client_registers_what_has_a_name(converted, tmp_path):
    sent = accepted(converted(pipeline, outputs=RULES), tmp_path / "job").properties.outputs["fit_model"]
    assert dict(sent) == {
        "assetName": "trips",
        "assetVersion": "3",
        "jobOutputType": "mlflow_model",
        "mode": "Upload",
        "uri": RULES["fit.model"]["path"],
    }
