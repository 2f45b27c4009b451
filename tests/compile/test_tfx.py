"""Jobs as TFX's KubeflowV2DagRunner writes them, in both schemas: read, described, checked, converted and run.

The commands are not TFX's; they hold what they are given to what TFX's programs read.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from penstock.compile import check, from_kfp
from penstock.compile.cli import penstock
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Severity
from penstock.compile.targets import local
from penstock.compile.targets.azureml import convert
from penstock.compile.targets.local.record import State

DOCS = Path(__file__).parents[2] / "docs" / "tfx.md"
SCHEMAS = ("2.0.0", "2.1.0")
NEW = {"INT": "NUMBER_INTEGER", "DOUBLE": "NUMBER_DOUBLE", "STRING": "STRING"}
FIELDS = {"INT": "intValue", "DOUBLE": "doubleValue", "STRING": "stringValue"}

# What the programs of TFX do with what they are given, as far as an engine can tell.
BEGIN = """
import json, os, sys
given = json.loads(sys.argv[-1])
outputs = given["outputs"]
def say(**said):
    os.makedirs(os.path.dirname(outputs["outputFile"]), exist_ok=True)
    json.dump(said, open(outputs["outputFile"], "w"))
def artifact(name): return outputs["artifacts"][name]["artifacts"][0]
def typed(name):
    (kind, value), = given["inputs"]["parameters"][name].items()
    return {"intValue": int, "doubleValue": float, "stringValue": str}[kind](value)
def value(name):
    return typed(name) if "parameters" in given["inputs"] else given["inputs"]["parameterValues"][name]
"""
DRIVER = """
artifact("examples")["metadata"]["span"] = 3
say(parameterValues={"span": 3, "input_config": "{}"}, artifacts={"examples": {"artifacts": [artifact("examples")]}})
"""
EXAMPLES = """
assert json.load(open(outputs["outputFile"]))["parameterValues"]["span"] == 3  # which the executor reads
assert artifact("examples")["metadata"] == {"span": 3}
assert "title: tfx.Examples" in artifact("examples")["type"]["instanceSchema"]
assert (value("input_base"), value("buckets"), value("share")) == ("/data", 7, 0.5)
open(artifact("examples")["uri"], "w").write("rows")
artifact("examples")["metadata"]["split_names"] = '["train"]'
say(artifacts={"examples": {"artifacts": [artifact("examples")]}})
"""
EVALUATOR = """
examples = given["inputs"]["artifacts"]["examples"]["artifacts"][0]
assert examples["metadata"] == {"span": 3, "split_names": '["train"]'}
open(artifact("rows")["uri"], "w").write("4")
artifact("blessing")["metadata"]["blessed"] = value("blessed")
say(artifacts={"blessing": {"artifacts": [artifact("blessing")]}})
"""
PUSHER = """
open(artifact("pushed")["uri"], "w").write(sys.argv[1])
"""


def constant(schema, value):
    kind = {int: "INT", float: "DOUBLE", str: "STRING"}[type(value)]
    if schema == "2.1.0":
        return {"runtimeValue": {"constant": value}}
    return {"runtimeValue": {"constantValue": {FIELDS[kind]: str(value) if kind == "INT" else value}}}


def kind_of(name, *properties):
    lines = [f"title: tfx.{name}", "type: object", *(["properties:"] if properties else [])]
    lines += [line for each in properties for line in (f"  {each}:", "    type: integer")]
    return {"artifactType": {"instanceSchema": "\n".join([*lines, ""])}}


def component(schema, name, parameters, inputs, outputs):
    field, names = ("parameterType", NEW) if schema == "2.1.0" else ("type", dict(zip(NEW, NEW, strict=True)))
    return {
        "executorLabel": f"{name}_executor",
        "inputDefinitions": {
            "parameters": {port: {field: names[kind]} for port, kind in parameters.items()},
            "artifacts": inputs,
        },
        "outputDefinitions": {"artifacts": outputs},
    }


def container(*programs, args=()):
    executor, *driver = [["python3", "-c", BEGIN + program] for program in programs]
    more = {"lifecycle": {"preCacheCheck": {"command": driver[0], "args": ["{{$}}"]}}} if driver else {}
    return {"container": {"image": "tfx:1.21.0", "command": executor, "args": [*args, "{{$}}"], **more}}


def output(task, port):
    return {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": port}}


def job(schema):
    """Return a job: a file-based ExampleGen, an Evaluator, an importer, and a Pusher for models that are blessed."""
    examples, blessing = kind_of("Examples", "span"), kind_of("ModelBlessing")
    parameters = {"input_base": "STRING", "buckets": "INT", "share": "DOUBLE"}
    condition = (
        "!((inputs.artifacts['schema'].artifacts[0].uri == '')) && "
        "(inputs.artifacts['_Evaluator.blessing'].artifacts[0].metadata['blessed'] == 1.0)"
    )
    root = {"buckets": "INT", "blessed": "INT", "schema_file": "STRING"}
    values = {"buckets": 7, "blessed": 1, "schema_file": "schema.pbtxt"}
    old = {name: {FIELDS[root[name]]: str(value) if root[name] == "INT" else value} for name, value in values.items()}

    def given(**ports):
        return {name: {"componentInputParameter": port} for name, port in ports.items()}

    def task(name, parameters=None, artifacts=None, **more):
        inputs = {"parameters": parameters or {}, "artifacts": artifacts or {}}
        return {"taskInfo": {"name": name}, "componentRef": {"name": name}, "inputs": inputs, **more}

    return {
        "displayName": "taxi",
        "labels": {"tfx_runner": "kubeflow_v2", "tfx_version": "1-21-0", "tfx_py_version": "3-13"},
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://bucket/root",
            **({"parameterValues": values} if schema == "2.1.0" else {"parameters": old}),
        },
        "pipelineSpec": {
            "pipelineInfo": {"name": "taxi"},
            "schemaVersion": schema,
            "sdkVersion": "tfx-1.21.0",
            "deploymentSpec": {
                "executors": {
                    "CsvExampleGen_executor": container(EXAMPLES, DRIVER),
                    "Evaluator_executor": container(EVALUATOR),
                    "schema_executor": {
                        "importer": {
                            "artifactUri": {"runtimeParameter": "artifact_uri"},
                            "typeSchema": kind_of("Schema")["artifactType"],
                        }
                    },
                    "Pusher_executor": container(PUSHER, args=["{{$.inputs.artifacts['rows'].value}}"]),
                }
            },
            "components": {
                "CsvExampleGen": component(schema, "CsvExampleGen", parameters, {}, {"examples": examples}),
                "Evaluator": component(
                    schema, "Evaluator", {"blessed": "INT"}, {"examples": examples},
                    {"blessing": blessing, "rows": kind_of("Integer")},
                ),
                "schema": component(schema, "schema", {"artifact_uri": "STRING"}, {}, {"result": kind_of("Schema")}),
                "Pusher": component(
                    schema, "Pusher", {},
                    {"rows": kind_of("Integer"), "schema": kind_of("Schema"), "_Evaluator.blessing": blessing},
                    {"pushed": kind_of("PushedModel")},
                ),
            },
            "root": {
                "inputDefinitions": component(schema, "", root, {}, {})["inputDefinitions"],
                "dag": {
                    "tasks": {
                        "CsvExampleGen": task(
                            "CsvExampleGen",
                            {
                                "input_base": constant(schema, "/data"),
                                "share": constant(schema, 0.5),
                                **given(buckets="buckets"),
                            },
                        ),
                        "Evaluator": task(
                            "Evaluator", given(blessed="blessed"), {"examples": output("CsvExampleGen", "examples")},
                            dependentTasks=["CsvExampleGen"],
                        ),
                        "schema": task("schema", given(artifact_uri="schema_file")),
                        "Pusher": task(
                            "Pusher", {},
                            {
                                "rows": output("Evaluator", "rows"),
                                "schema": output("schema", "result"),
                                "_Evaluator.blessing": output("Evaluator", "blessing"),
                            },
                            dependentTasks=["Evaluator", "schema"],
                            triggerPolicy={"condition": condition},
                        ),
                    }
                },
            },
        },
    }  # fmt: skip


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A function that writes a job and returns its path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.pbtxt").write_text('feature { name: "fare_amount" type: FLOAT }\n')

    def write(job):
        path = tmp_path / "pipeline.json"
        path.write_text(json.dumps(job))
        return path

    return write


def content(record, task, port):
    (found,) = [each for each in record.tasks if each.path == task]
    (artifact,) = found.outputs.artifacts[port]
    return Path(record.folder, artifact.uri).read_text()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_job_runs_with_its_values_its_drivers_and_its_conditions(schema, file, tmp_path):
    record = local.run(file(job(schema)), {}, root=tmp_path / "root", jobs=2, runner="subprocess")
    assert record.state is State.SUCCEEDED, [task.error for task in record.tasks]
    assert content(record, "Pusher", "pushed") == "4"
    assert {each.type for task in record.tasks for ports in task.outputs.artifacts.values() for each in ports} == {
        "tfx.Examples", "tfx.Integer", "tfx.ModelBlessing", "tfx.PushedModel", "tfx.Schema",
    }  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_value_of_the_command_line_counts_before_the_job_s_own(schema, file, tmp_path):
    record = local.run(file(job(schema)), {"blessed": 0}, root=tmp_path / "root", jobs=2, runner="subprocess")
    assert record.state is State.SUCCEEDED
    assert {task.path: task.state for task in record.tasks}["Pusher"] is State.SKIPPED


@pytest.mark.parametrize("schema", SCHEMAS)
def test_values_and_root_of_a_job_are_defaults(schema):
    pipeline = from_kfp.parse(job(schema))
    assert {name: port.default for name, port in pipeline.inputs.parameters.items()} == {
        "buckets": 7, "blessed": 1, "schema_file": "schema.pbtxt",
    }  # fmt: skip
    assert pipeline.default_root == "gs://bucket/root"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_job_is_described_with_types_and_defaults_that_people_know(schema, file):
    shown = CliRunner().invoke(penstock, ["describe", str(file(job(schema))), "--json"])
    ports = {port["name"]: port for port in json.loads(shown.output)["ports"]}
    assert (ports["buckets"]["type"], ports["buckets"]["default"], ports["buckets"]["required"]) == ("int", 7, False)
    assert ports["schema_file"]["type"] == "str"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_job_is_without_fault(schema):
    found = check.check(json.dumps(job(schema)))
    assert {finding.code for finding in found} == {"mutable-image"}


def test_a_job_for_azure_says_what_stands_in_its_way():
    done = convert.convert_text(json.dumps(job("2.1.0")), "pipeline.json", {})
    refused = {(each.path, each.code) for each in done.findings if each.severity is Severity.ERROR}
    assert ("CsvExampleGen", "executor") in refused
    assert any("reads _Evaluator.blessing, schema, an artifact" in each.message for each in done.findings)


def test_what_only_vertex_has_is_refused_before_anything_starts(file, tmp_path):
    own = job("2.0.0")
    query = {"outputArtifactQueries": {"examples": {"filter": 'schema_title="tfx.Examples" AND state=LIVE'}}}
    own["pipelineSpec"]["deploymentSpec"]["executors"]["CsvExampleGen_executor"] = {"resolver": query}
    with pytest.raises(PenstockError, match=r"task CsvExampleGen: resolver .* the metadata of Vertex AI; import what"):
        local.run(file(own), {}, root=tmp_path / "root", jobs=1, runner="subprocess")
    assert not (tmp_path / "root" / "runs").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("metadata['blessed'] == 1.0", "metadata['span'] == 1.0"), "input _Evaluator.blessing has no metadata 'span'"),
        (("artifacts['schema']", "artifacts['nothing']"), "it reads nothing, not among the task's inputs"),
    ],
)
def test_a_condition_over_what_is_not_there_fails_by_name(change, problem, file, tmp_path):
    own = json.loads(json.dumps(job("2.1.0")).replace(*change))
    try:
        record = local.run(file(own), {}, root=tmp_path / "root", jobs=2, runner="subprocess")
        said = " ".join(task.error or "" for task in record.tasks)
    except PenstockError as error:
        said = str(error)
    assert problem in said


def test_a_driver_that_fails_fails_its_task(file, tmp_path):
    own = job("2.1.0")
    check = own["pipelineSpec"]["deploymentSpec"]["executors"]["CsvExampleGen_executor"]["container"]["lifecycle"]
    check["preCacheCheck"]["command"] = ["python3", "-c", "raise ValueError('no files match the pattern')"]
    record = local.run(file(own), {}, root=tmp_path / "root", jobs=1, runner="subprocess")
    failed = {task.path: task.error for task in record.tasks if task.state is State.FAILED}
    assert failed == {"CsvExampleGen": "ValueError: no files match the pattern"}


def test_an_artifact_that_is_no_value_is_named(file, tmp_path):
    own = json.loads(json.dumps(job("2.1.0")).replace("artifacts['rows'].value", "artifacts['schema'].value"))
    (tmp_path / "schema.pbtxt").write_bytes(b"\xff")
    record = local.run(file(own), {}, root=tmp_path / "root", jobs=1, runner="subprocess")
    assert any("schema.pbtxt cannot be read as a value" in (task.error or "") for task in record.tasks)


def test_the_example_of_both_in_one_pipeline_is_checked_and_run(file, tmp_path):
    file({})
    _, example = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "both.py").write_text(example)
    # In the place of TFX's own, which tests/containers runs.
    spec = job("2.1.0")["pipelineSpec"]
    ports = spec["root"]["inputDefinitions"]["parameters"]
    ports |= {"trips": {"parameterType": "STRING"}}
    ports |= {name: {**ports[name], "defaultValue": value} for name, value in (("buckets", 7), ("blessed", 1))}
    (tmp_path / "taxi.yaml").write_text(yaml.safe_dump(spec))
    assert CliRunner().invoke(penstock, ["check", "both.py:both"]).exit_code == 0
    given = ["-p", "trips=sample://taxi?rows=300", "-p", "schema_file=schema.pbtxt"]
    done = CliRunner().invoke(penstock, ["run", "both.py:both", "--runner", "subprocess", "--json", *given])
    assert done.exit_code == 0, done.output
    states = {task["path"]: task["state"] for task in json.loads(done.stdout)["tasks"]}
    assert states["validate"] == states["taxi.CsvExampleGen"] == states["taxi.Pusher"] == "SUCCEEDED"
