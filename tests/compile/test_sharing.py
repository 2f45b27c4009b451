"""Sharing makes specs smaller and changes nothing that they mean."""

import copy
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, components, dsl

from penstock.compile import from_kfp, graph, launcher
from penstock.compile.errors import PenstockError
from penstock.compile.sharing import share, slim
from penstock.compile.targets import local
from penstock.compile.targets.local.record import State
from penstock.compile.to_kfp import compiled
from tests.compile.targets.local.test_random_dags import Pipelines, Runner


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def work(value: int) -> int:
    """Return the next."""
    return value + 1


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def other(value: int) -> int:
    return value + 2


@dsl.pipeline(name="inner")
def inner(value: int) -> int:
    with dsl.ParallelFor([1, 2]) as item:
        work(value=item)
    return work(value=value).output


def as_kfp_compiles(pipeline: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return json_format.MessageToDict(pipeline.pipeline_spec), json_format.MessageToDict(pipeline.platform_spec)


def meaning(pipeline: graph.Pipeline) -> Any:
    """Return all of a pipeline but the names of components and executors."""

    def component(one: graph.Component) -> Any:
        body: Any = one.body
        if isinstance(body, graph.Dag):
            body = {name: task(each) for name, each in body.tasks.items()}, body.outputs
        elif isinstance(body, graph.Container | graph.Importer):
            body = {**vars(body), "label": ""}
        return one.inputs, one.outputs, body, one.platforms, one.passthroughs

    def task(one: graph.Task) -> Any:
        return {**vars(one), "component": component(one.component)}

    return {**vars(pipeline), "root": component(pipeline.root)}


def scope(*tasks: str, **fields: Any) -> dict[str, Any]:
    """Return a component of tasks "name: component"."""
    pairs = [task.split(": ") for task in tasks]
    return {
        "dag": {
            "tasks": {
                name: {"componentRef": {"name": ref}, "taskInfo": {"name": name}, **fields.get(name, {})}
                for name, ref in pairs
            }
        }
    }


def spec(root: Mapping[str, Any], **found: Any) -> dict[str, Any]:
    """Return a spec of components by name: that of an executor is the executor's image."""
    return {
        "pipelineInfo": {"name": "p"},
        "schemaVersion": "2.1.0",
        "root": root,
        "components": {
            name: {"executorLabel": f"exec-{name}"} if isinstance(one, str) else one for name, one in found.items()
        },
        "deploymentSpec": {
            "executors": {
                f"exec-{name}": {"container": {"image": one}} for name, one in found.items() if isinstance(one, str)
            }
        },
    }


def names(shared: Mapping[str, Any]) -> list[str]:
    return sorted(shared["components"])


def test_a_fan_out_of_500_tasks_has_one_component_and_stays_small():
    @dsl.pipeline(name="fan-out")
    def fan_out(start: int = 0):
        for _ in range(500):
            work(value=start)

    whole, text = as_kfp_compiles(fan_out)[0], compiled(fan_out).text
    assert len(whole["components"]) == 500
    assert len(text.encode()) < 200_000
    found = yaml.safe_load(text)
    assert list(found["components"]) == ["comp-work"]
    assert list(found["deploymentSpec"]["executors"]) == ["exec-work"]
    assert found["root"]["dag"]["tasks"].keys() == whole["root"]["dag"]["tasks"].keys()
    titles = {name: task["taskInfo"] for name, task in found["root"]["dag"]["tasks"].items()}
    assert titles == {name: task["taskInfo"] for name, task in whole["root"]["dag"]["tasks"].items()}


def test_a_difference_of_one_character_is_a_difference():
    before = spec(scope("a: a", "b: b", "c: c"), a="python:3.11", b="python:3.12", c="python:3.11")
    shared, _ = share(before)
    assert names(shared) == ["a", "b"]
    assert sorted(shared["deploymentSpec"]["executors"]) == ["exec-a", "exec-b"]


def test_ports_are_compared_whole_while_executors_may_be_one():
    before = spec(scope("a: a", "b: b"), a="x", b="x")
    before["components"]["b"]["inputDefinitions"] = {"parameters": {"v": {"parameterType": "STRING"}}}
    shared, _ = share(before)
    assert {name: one["executorLabel"] for name, one in shared["components"].items()} == {"a": "exec-a", "b": "exec-a"}


@pytest.mark.parametrize("field", ["singlePlatformSpecs", "taskConfigPassthroughs"])
def test_what_components_say_of_platforms_keeps_them_apart(field):
    before = spec(scope("a: a", "b: b"), a="x", b="x")
    before["components"]["b"][field] = [{"platform": "kubernetes"}]
    assert names(share(before)[0]) == ["a", "b"]


def test_executors_with_settings_of_their_own_stay_apart_and_equal_settings_become_one():
    before = spec(scope("a: a", "b: b", "c: c", "d: d"), a="x", b="x", c="x", d="x")
    settings = {"exec-a": {"nodeSelector": "1"}, "exec-b": {"nodeSelector": "2"}, "exec-c": {"nodeSelector": "1"}}
    platforms = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}, "version": "1"}}}
    kept = copy.deepcopy((before, platforms))
    shared, after = share(before, platforms)
    assert names(shared) == ["a", "b", "d"]
    assert shared["root"]["dag"]["tasks"]["c"]["componentRef"] == {"name": "a"}
    kubernetes = after["platforms"]["kubernetes"]
    assert kubernetes == {
        "deploymentSpec": {"executors": {k: settings[k] for k in ("exec-a", "exec-b")}},
        "version": "1",
    }
    assert (before, platforms) == kept


def test_components_that_become_equal_inside_become_one_too():
    before = spec(scope("x: outer-2", "y: outer"), **{"outer": scope("t: a"), "outer-2": scope("t: a-2")}, a="i")
    before = spec(
        scope("x: outer-2", "y: outer"), **{"outer": scope("t: a"), "outer-2": scope("t: a-2"), "a": "i", "a-2": "i"}
    )
    assert names(share(before)[0]) == ["a", "outer"]


def test_the_shortest_name_stays_then_the_first_however_the_spec_is_ordered():
    found = {"comp-work-10": "i", "comp-work-2": "i", "comp-work": "i", "comp-wor2": "j", "comp-wor1": "j"}
    for order in itertools.permutations(found):
        before = spec(scope(*(f"{name}: {name}" for name in order)), **{name: found[name] for name in order})
        assert names(share(before)[0]) == ["comp-wor1", "comp-work"]


def test_each_loop_keeps_a_component_of_its_own_unless_the_scopes_around_become_one():
    loop = {"parameterIterator": {"items": {"raw": "[1]"}, "itemInput": "i"}}
    bodies = {"body": scope("t: a"), "body-2": scope("t: a"), "a": "i"}
    two = spec(scope("x: body", "y: body-2", x=loop, y=loop), **bodies)
    assert names(share(two)[0]) == ["a", "body", "body-2"]
    nested = {"outer": scope("x: body", x=loop), "outer-2": scope("x: body-2", x=loop), **bodies}
    assert names(share(spec(scope("o: outer", "p: outer-2"), **nested))[0]) == ["a", "body", "outer"]
    apart = {**nested, "outer-2": scope("x: body-2", "y: a", x=loop)}
    assert names(share(spec(scope("o: outer", "p: outer-2"), **apart))[0]) == [
        "a",
        "body",
        "body-2",
        "outer",
        "outer-2",
    ]


def test_scopes_whose_tasks_would_take_other_retries_stay_apart():
    thrice, once = {"retryPolicy": {"maxRetryCount": 3}}, {"retryPolicy": {"maxRetryCount": 1}}
    found = {"outer": scope("t: a"), "outer-2": scope("t: a"), "a": "i"}
    root = scope("x: outer", "y: outer-2", x=thrice, y=once)
    assert names(share(spec(root, **found))[0]) == ["a", "outer", "outer-2"]
    assert names(share(spec(scope("x: outer", "y: outer-2", x=thrice, y=thrice), **found))[0]) == ["a", "outer"]
    # A policy reaches through scopes that have none.
    deep = {**found, "far": scope("x: outer"), "far-2": scope("x: outer-2", "z: a")}
    root = scope("p: far", "q: far-2", p=thrice)
    assert names(share(spec(root, **deep))[0]) == ["a", "far", "far-2", "outer", "outer-2"]


def test_a_pipeline_used_twice_is_there_once_with_its_loop():
    @dsl.pipeline(name="outer")
    def outer():
        inner(value=1)
        inner(value=2)
        other(value=3)

    before = as_kfp_compiles(outer)
    shared, platforms = share(*before)
    assert names(shared) == ["comp-for-loop-2", "comp-inner", "comp-other", "comp-work"]
    assert meaning(from_kfp.parse(shared)) == meaning(from_kfp.parse(before[0]))
    assert share(shared, platforms) == (shared, platforms)


def test_random_pipelines_mean_the_same_when_shared(tmp_path, monkeypatch):
    run = launcher.run
    monkeypatch.setattr(launcher, "run", lambda *args, **options: run(*args, **options | {"runner": Runner()}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imported").write_text("rows")
    numbers = random.Random(3)
    fewer = 0
    for number in range(30):
        case = Pipelines(lambda most: numbers.randint(0, most)).case()
        before = json.loads(json.dumps(case.spec).replace("@imported", str(tmp_path / "imported")))
        # Random pipelines hold nothing twice: all of one is put in another, twice.
        twice = {name: copy.deepcopy(one) for name, one in before["components"].items()}
        again = {f"{name}-again": _suffixed(one) for name, one in copy.deepcopy(twice).items()}
        whole = {**before, "components": {**twice, **again}}
        whole["components"]["all"], whole["components"]["all-again"] = before["root"], _suffixed(before["root"])
        executors = before["deploymentSpec"]["executors"]
        whole["deploymentSpec"] = {
            "executors": {**executors, **{f"{name}-again": executors[name] for name in executors}}
        }
        ports = before["root"].get("inputDefinitions", {})
        inputs = {
            "parameters": {name: {"componentInputParameter": name} for name in ports.get("parameters", {})},
            "artifacts": {name: {"componentInputArtifact": name} for name in ports.get("artifacts", {})},
        }
        whole["root"] = scope("one: all", "two: all-again", one={"inputs": inputs}, two={"inputs": inputs})
        whole["root"]["inputDefinitions"] = ports
        shared, _ = share(whole)
        assert meaning(from_kfp.parse(shared)) == meaning(from_kfp.parse(whole))
        assert share(shared)[0] == shared
        fewer += len(shared["components"]) <= len(before["components"]) + 1
        records = []
        for name, one in (("whole", whole), ("shared", shared)):
            paths = {}
            for port, rows in case.artifacts.items():
                (tmp_path / port).write_text(rows)
                paths[port] = str(tmp_path / port)
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(one))
            record = local.run(
                path,
                {**case.parameters, **paths},
                root=tmp_path / name,
                jobs=2,
                runner="subprocess",
                run_id=f"r{number}",
            )
            records.append([(task.path, task.state, task.outputs.parameters) for task in record.tasks])
        assert sorted(records[0]) == sorted(records[1])
    assert fewer > 15


def _suffixed(component: Mapping[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(dict(component))
    if "executorLabel" in found:
        found["executorLabel"] += "-again"
    for task in found.get("dag", {}).get("tasks", {}).values():
        task["componentRef"]["name"] += "-again"
    return found


@pytest.mark.corpus
def test_specs_of_others_mean_the_same_when_slimmed(kfp_specs):
    smaller = 0
    for path in sorted((kfp_specs / "valid").rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        slimmed = slim(text, str(path))
        assert meaning(from_kfp.parse(slimmed)) == meaning(from_kfp.parse(text)), path
        assert slim(slimmed) == slimmed, path
        assert len(slimmed) <= len(text), path
        smaller += len(slimmed) < len(text)
    assert smaller > 10


@dsl.pipeline(name="several")
def several(start: int = 1) -> int:
    task = work(value=start)
    for _ in range(3):
        task = work(value=task.output)
    return task.output


def test_a_slimmed_spec_runs_here_and_gives_what_the_whole_one_gives(tmp_path):
    whole = tmp_path / "whole.yaml"
    compiler.Compiler().compile(several, str(whole))
    (tmp_path / "slim.yaml").write_text(slim(whole.read_text()))
    given = [
        local.run(tmp_path / f"{name}.yaml", {}, root=tmp_path, jobs=2, runner="subprocess")
        for name in ("whole", "slim")
    ]
    assert [record.state for record in given] == [State.SUCCEEDED] * 2
    assert [record.outputs.parameters for record in given] == [{"Output": 5}] * 2


def test_kfp_loads_a_slimmed_spec_and_compiles_it_again(tmp_path):
    path = tmp_path / "slim.yaml"
    path.write_text(compiled(several).text)
    loaded = components.load_component_from_file(str(path))
    assert list(loaded.component_spec.inputs) == ["start"]
    assert meaning(from_kfp.parse(json_format.MessageToDict(loaded.pipeline_spec))) == meaning(from_kfp.read(path))
    compiler.Compiler().compile(loaded, str(tmp_path / "again.yaml"))
    assert meaning(from_kfp.read(tmp_path / "again.yaml")) == meaning(from_kfp.read(path))

    @dsl.pipeline(name="around")
    def around() -> int:
        return loaded(start=1).output

    assert from_kfp.parse(compiled(around).text).outputs


LOCALLY = """
import sys
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
print("gave", components.load_component_from_file(sys.argv[1])(start=1).output)
"""


@pytest.mark.slow
def test_kfp_local_runs_a_slimmed_spec(tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def successor(value: int) -> int:
        return value + 1

    @dsl.pipeline(name="chain")
    def chain(start: int = 1) -> int:
        return successor(value=successor(value=start).output).output

    path = tmp_path / "slim.yaml"
    path.write_text(compiled(chain).text)
    assert len(yaml.safe_load(path.read_text())["components"]) == 1
    command = [sys.executable, "-c", LOCALLY, path, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "gave 3"


@pytest.mark.slow
def test_vertex_takes_a_slimmed_spec(tmp_path):
    aiplatform = pytest.importorskip("google.cloud.aiplatform")
    from google.auth.credentials import AnonymousCredentials

    path = tmp_path / "slim.yaml"
    path.write_text(compiled(several).text)
    job = aiplatform.PipelineJob(
        display_name="several",
        template_path=str(path),
        pipeline_root="gs://bucket/root",
        project="project",
        location="europe-west4",
        credentials=AnonymousCredentials(),
        parameter_values={"start": 2},
    )
    sent = json_format.MessageToDict(job._gca_resource._pb.pipeline_spec)
    assert meaning(from_kfp.parse(sent)) == meaning(from_kfp.read(path))


def test_a_spec_comes_out_in_the_form_it_came_in():
    found = json_format.MessageToDict(several.pipeline_spec)
    job = {"displayName": "x", "pipelineSpec": found, "runtimeConfig": {"parameterValues": {"start": 1}}}
    after = json.loads(slim(json.dumps(job)))
    assert {**after, "pipelineSpec": 0} == {**job, "pipelineSpec": 0}
    assert len(after["pipelineSpec"]["components"]) == 1
    version = {
        "apiVersion": "pipelines.kubeflow.org/v2beta1",
        "kind": "PipelineVersion",
        "spec": {"pipelineSpec": found},
    }
    pipeline = {"kind": "Pipeline", "metadata": {"name": "x"}}
    written = list(yaml.safe_load_all(slim(yaml.safe_dump_all([pipeline, version]))))
    assert written[0] == pipeline
    assert len(written[1]["spec"]["pipelineSpec"]["components"]) == 1
    commented = "# PIPELINE DEFINITION\n# Description: Mine.\n" + yaml.safe_dump(found)
    assert slim(commented).startswith("# PIPELINE DEFINITION\n# Description: Mine.\ncomponents:\n")


def test_a_spec_with_the_names_of_the_message_is_shared_too():
    message = json_format.MessageToDict(several.pipeline_spec, preserving_proto_field_name=True)
    assert len(json.loads(slim(json.dumps(message)))["components"]) == 1


def test_a_spec_with_nothing_to_share_stays_as_it_is():
    text = "# mine\n" + yaml.safe_dump(spec(scope("a: a"), a="i"), default_flow_style=True)
    assert slim(text) == text


def test_a_broken_spec_is_refused():
    with pytest.raises(PenstockError, match=r"mine\.yaml: task a: its component b is missing"):
        slim(json.dumps(spec(scope("a: b"), a="i")), "mine.yaml")
