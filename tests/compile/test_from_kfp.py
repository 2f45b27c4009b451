"""Compiled IR becomes a graph, or is refused naming what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import dsl

from penstock.compile import from_kfp, graph
from penstock.compile.errors import PenstockError


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(a: int, b: int = 1) -> int:
    return a + b


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus):
    print(status.state)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def total(numbers: list, rows: dsl.Input[dsl.Dataset] = None) -> float:
    return float(sum(numbers))


@dsl.pipeline(name="sums", description="Adds up.")
def sums(x: int = 3, ratio: float = 2, names: list = [1, 2.5]) -> int:  # noqa: B006 kfp copies it
    """Adds up.

    Args:
        x: The first number.
    """
    leave = finish()
    with dsl.ExitHandler(leave):
        first = add(a=x)
        with dsl.If(first.output > 2, name="big"):
            add(a=first.output).set_retry(3, "5s", 2.0, "60s").set_env_variable("MODE", "fast").set_cpu_limit("2")
    last = add(a=x, b=10)
    with dsl.ParallelFor([1, 2, 3], parallelism=2) as item:
        each = add(a=item)
    total(numbers=dsl.Collected(each.output))
    return last.output


@pytest.fixture
def spec(compiled) -> dict:
    return yaml.safe_load(compiled(sums).read_text())


def test_a_compiled_pipeline_is_read_with_all_its_references_resolved(compiled):
    pipeline = from_kfp.read(compiled(sums))
    assert pipeline.name == "sums"
    assert pipeline.description == "Adds up."
    assert pipeline.inputs.parameters["x"] == graph.Parameter(
        "x", graph.Type.INTEGER, default=3, optional=True, description="The first number."
    )
    tasks = dict(pipeline.walk())
    inner = tasks["exit-handler-1.condition-2.add-2"]
    assert inner.retry == graph.Retry(3, 5.0, 2.0, 60.0)
    assert inner.component.body.env == {"MODE": "fast"}
    assert inner.component.body.resources.cpu_limit == "2"
    assert isinstance(inner.component.body, graph.Container)
    assert tasks["finish"].trigger == graph.Trigger(whatever_upstream=True)
    assert tasks["finish"].inputs["status"] == graph.Input(graph.FinalStatus("exit-handler-1"))
    assert tasks["finish"].depends_on == ("exit-handler-1",)
    assert tasks["for-loop-4"].loop == graph.Loop("parameter", "pipelinechannel--loop-item-param-3", (1, 2, 3), 2)
    assert tasks["total"].inputs["numbers"].source == graph.TaskOutput("for-loop-4", "pipelinechannel--add-4-Output")
    condition = tasks["exit-handler-1.condition-2"].trigger.condition
    assert condition == "int(inputs.parameter_values['pipelinechannel--add-Output']) > 2"


def test_integers_are_integers_and_doubles_doubles(compiled):
    inputs = from_kfp.read(compiled(sums)).inputs.parameters
    assert (inputs["x"].default, type(inputs["x"].default)) == (3, int)
    assert (inputs["ratio"].default, type(inputs["ratio"].default)) == (2.0, float)
    assert [type(item) for item in inputs["names"].default] == [int, float]


def test_tasks_come_after_those_they_depend_on(compiled):
    seen = set()
    for path, task in from_kfp.read(compiled(sums)).walk():
        scope = path.rpartition(".")[0]
        assert {f"{scope}.{name}".lstrip(".") for name in task.depends_on} <= seen
        seen.add(path)


def test_an_input_makes_a_dependency_even_where_none_is_said(spec):
    spec["root"]["dag"]["tasks"]["total"].pop("dependentTasks")
    assert from_kfp.parse(spec).dag.tasks["total"].depends_on == ("for-loop-4",)


def test_numbers_of_a_json_spec_may_have_exponents(spec):
    spec["root"]["inputDefinitions"]["parameters"]["ratio"]["defaultValue"] = "RATIO"
    text = json.dumps(spec)
    assert from_kfp.parse(text.replace('"RATIO"', "1e-7")).inputs.parameters["ratio"].default == 1e-7
    with pytest.raises(PenstockError, match="key 'name' is given twice"):
        from_kfp.parse(text.replace('{"name":', '{"name": "x", "name":', 1))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(spec, value):
    spec["root"]["inputDefinitions"]["parameters"]["ratio"]["defaultValue"] = value
    for text in (yaml.safe_dump(spec), json.dumps(spec)):
        with pytest.raises(PenstockError, match=r"^mine\.yaml: a value is none that JSON has, such as NaN"):
            from_kfp.parse(text, "mine.yaml")


def test_json_and_the_wrappers_of_others_are_read_alike(compiled, spec, tmp_path):
    direct = from_kfp.read(compiled(sums))
    assert from_kfp.parse(json.dumps(spec)) == direct
    assert from_kfp.parse({"pipelineSpec": spec, "runtimeConfig": {}, "displayName": "x"}) == direct
    manifest = {
        "apiVersion": "pipelines.kubeflow.org/v2beta1",
        "kind": "PipelineVersion",
        "spec": {"pipelineSpec": spec},
    }
    assert from_kfp.parse(yaml.safe_dump(manifest)) == direct


def test_the_second_document_holds_platform_settings(compiled):
    label = "exec-add"
    platform = {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {"executors": {label: {"nodeSelector": {"labels": {"pool": "big"}}}}},
                "pipelineConfig": {"resourceTtlOnCompletion": 60},
            }
        }
    }
    text = compiled(sums).read_text() + "\n---\n" + yaml.safe_dump(platform)
    pipeline = from_kfp.parse(text)
    assert pipeline.platforms == {"kubernetes": {"pipelineConfig": {"resourceTtlOnCompletion": 60}}}
    found = [task.component.platforms for _, task in pipeline.walk() if task.component.platforms]
    assert found == [{"kubernetes": {"nodeSelector": {"labels": {"pool": "big"}}}}]


def change(path: str, value):
    def apply(spec: dict) -> None:
        *way, last = path.split("/")
        for step in way:
            spec = spec[step]
        if value is None:
            del spec[last]
        else:
            spec[last] = value

    return apply


TASK = "root/dag/tasks/total"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("pipelineInfo/name", ""), "the pipeline has no name"),
        (change("schemaVersion", "3.0.0"), r"schemaVersion: '3.0.0' is not known; 2.0.0 and 2.1.0 are"),
        (change("pipelineInfo/owner", "me"), "pipelineInfo: schema version 2.1.0 has no field named 'owner'"),
        (change(f"{TASK}/colour", "red"), r"tasks\[total\]: schema version 2.1.0 has no field named 'colour'"),
        (
            change("deploymentSpec/executors/exec-add/container/shell", "sh"),
            r"deploymentSpec.executors\[exec-add\].container: .* named 'shell'",
        ),
        (change(f"{TASK}/componentRef/name", "comp-nope"), "task total: its component comp-nope is missing"),
        (change("deploymentSpec/executors/exec-total", None), "comp-total: its executor exec-total is missing"),
        (
            change(f"{TASK}/inputs/parameters/numbers/taskOutputParameter/producerTask", "ghost"),
            "task total: input numbers: comes from task ghost, which is not there; there are add",
        ),
        (
            change(f"{TASK}/inputs/parameters/numbers/taskOutputParameter/outputParameterKey", "ghost"),
            "task total: input numbers: task for-loop-.* has no output ghost; it has pipelinechannel",
        ),
        (change(f"{TASK}/dependentTasks", ["ghost"]), "task total: depends on ghost"),
        (
            change("root/dag/tasks/exit-handler-1/inputs/parameters/pipelinechannel--x/componentInputParameter", "y"),
            "task exit-handler-1: input pipelinechannel--x: there is no input y around it; there are names, ratio, x",
        ),
        (
            change("root/dag/outputs/parameters/Output/valueFromParameter/producerSubtask", "ghost"),
            "output Output: comes from task ghost, which is not there",
        ),
        (change("root/dag", None), "root: has no tasks"),
        (change("components/comp-total/executorLabel", None), "comp-total: has neither tasks nor an executor"),
        (
            lambda spec: spec["root"]["dag"]["tasks"].update({"../up": {"componentRef": {"name": "comp-total"}}}),
            "name '../up' cannot be the name of a file",
        ),
    ],
)  # fmt: skip
def test_broken_specs_are_refused_naming_the_place(spec, edit, message):
    edit(spec)
    with pytest.raises(PenstockError, match=message):
        from_kfp.parse(spec)


def test_a_cycle_is_refused_naming_its_tasks(spec):
    tasks = spec["root"]["dag"]["tasks"]
    tasks["add-3"]["dependentTasks"] = ["total"]
    tasks["total"]["dependentTasks"] = [*tasks["total"]["dependentTasks"], "add-3"]
    with pytest.raises(
        PenstockError, match=r"component root: its tasks wait for each other: .*(add-3 → total|total → add-3)"
    ):
        from_kfp.parse(spec)


def test_a_component_that_contains_itself_is_refused(spec):
    inner = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    inner["again"] = {"componentRef": {"name": "comp-exit-handler-1"}}
    with pytest.raises(PenstockError, match=r"contains itself: .*comp-exit-handler-1 → comp-exit-handler-1"):
        from_kfp.parse(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("- a\n- b\n", "found list"),
        ("{unclosed", "not YAML"),
        ("name: Add\nimplementation: {}\n", "there is no pipelineInfo"),
        ("pipelineInfo: {name: a}\npipelineInfo: {name: b}\n", "'pipelineInfo' is given twice"),
        ("pipelineInfo: {name: a}\n---\n{}\n---\n{}\n", "3 documents"),
        ("pipelineInfo: {name: a}\nroot: &r {dag: *r}\n", "an alias stands inside what it names"),
        (
            "pipelineInfo: {name: a}\na0: &a0 []\n"
            + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 9)),
            "its aliases stand for [0-9,]+ values",
        ),
        *(
            (text, "nested deeper")
            for text in (
                "pipelineInfo: {name: a}\nroot: " + "[" * 3000 + "]" * 3000,
                "pipelineInfo: {name: a}\nroot: " + "[" * 100_000 + "]" * 100_000,
                "pipelineInfo: {name: a}\nroot:\n  " + "- " * 100_000 + "a\n",
                '{"pipelineInfo": {"name": "a"}, "root": ' + "[" * 100_000 + "]" * 100_000 + "}",
            )
        ),
    ],
    ids=lambda value: value[-40:],
)
def test_what_is_no_compiled_pipeline_is_refused(text, message):
    with pytest.raises(PenstockError, match=message):
        from_kfp.parse(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PenstockError, match=r"nowhere\.yaml: cannot be read"):
        from_kfp.read(tmp_path / "nowhere.yaml")


def test_reading_does_not_import_the_whole_of_kfp(compiled):
    path = compiled(sums)
    code = (
        "import sys; from pathlib import Path; from penstock.compile import from_kfp;"
        f"from_kfp.read(Path({str(path)!r})); assert 'kfp' not in sys.modules;"
        "from kfp.pipeline_spec import pipeline_spec_pb2; from kfp import dsl"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.corpus
def test_every_valid_pipeline_of_others_is_read_and_every_invalid_one_refused(kfp_specs):
    valid = sorted((kfp_specs / "valid").rglob("*.yaml"))
    assert len(valid) > 50
    for path in valid:
        assert list(from_kfp.read(path).walk()), path
    for path in sorted((kfp_specs / "invalid").rglob("*.yaml")):
        with pytest.raises(PenstockError, match=Path(path).name):
            from_kfp.read(path)
