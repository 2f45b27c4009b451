"""Corruptions of a valid spec, each with the code that has to catch it.

A corruption changes the spec in place, at the first place that it applies to, and returns whether there was one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]
Corruption = Callable[[Spec], bool]

CORRUPTIONS: dict[str, tuple[str, Corruption]] = {}


def caught_by(code: str) -> Callable[[Corruption], Corruption]:
    def register(corruption: Corruption) -> Corruption:
        CORRUPTIONS[corruption.__name__] = (code, corruption)
        return corruption

    return register


def dags(spec: Spec) -> Iterator[Spec]:
    """Yield the root and every component with tasks that is used: the root's tasks lead to it."""
    waiting, seen = [spec["root"]], set()
    while waiting:
        scope = waiting.pop(0)
        yield scope
        for task in scope["dag"]["tasks"].values():
            name = task["componentRef"]["name"]
            if name not in seen and "dag" in spec["components"][name]:
                seen.add(name)
                waiting.append(spec["components"][name])


def tasks(spec: Spec) -> Iterator[tuple[Spec, str, Spec]]:
    for scope in dags(spec):
        for name, task in scope["dag"]["tasks"].items():
            yield scope, name, task


def component(spec: Spec, task: Spec) -> Spec:
    return spec["components"][task["componentRef"]["name"]]


def containers(spec: Spec) -> Iterator[tuple[Spec, Spec]]:
    """Yield the tasks that run a container, each with it."""
    for _, _, task in tasks(spec):
        label = component(spec, task).get("executorLabel")
        container = spec["deploymentSpec"]["executors"].get(label, {}).get("container")
        if container is not None and not container["image"].startswith("argostub/"):
            yield task, container


def inputs(spec: Spec, kind: str) -> Iterator[tuple[Spec, Spec, str, Spec]]:
    for scope, _, task in tasks(spec):
        for name, given in task.get("inputs", {}).get(kind, {}).items():
            yield scope, task, name, given


def channels(spec: Spec, kind: str, source: str) -> Iterator[tuple[Spec, Spec, str, Spec]]:
    """Yield the inputs of one kind that come from one kind of source."""
    for scope, task, name, given in inputs(spec, kind):
        if source in given:
            yield scope, task, name, given


def declared(spec: Spec, task: Spec, kind: str, name: str) -> Spec | None:
    return component(spec, task).get("inputDefinitions", {}).get(kind, {}).get(name)


def loops(spec: Spec) -> Iterator[tuple[Spec, Spec]]:
    for _, _, task in tasks(spec):
        if "parameterIterator" in task:
            yield task, task["parameterIterator"]


def conditions(spec: Spec) -> Iterator[Spec]:
    for _, _, task in tasks(spec):
        if task.get("triggerPolicy", {}).get("condition"):
            yield task


# Documents


@caught_by("not-a-pipeline")
def lose_pipeline_info(spec: Spec) -> bool:
    return spec.pop("pipelineInfo") is not None


@caught_by("bad-name")
def empty_pipeline_name(spec: Spec) -> bool:
    spec["pipelineInfo"]["name"] = ""
    return True


@caught_by("bad-name")
def name_task_like_a_path(spec: Spec) -> bool:
    found = spec["root"]["dag"]["tasks"]
    found["../up"] = json.loads(json.dumps(next(iter(found.values()))))
    return True


@caught_by("schema-version")
def future_schema_version(spec: Spec) -> bool:
    spec["schemaVersion"] = "9.9.9"
    return True


@caught_by("schema-version")
def no_schema_version(spec: Spec) -> bool:
    return spec.pop("schemaVersion") is not None


@caught_by("no-tasks")
def no_tasks(spec: Spec) -> bool:
    spec["root"]["dag"]["tasks"] = {}
    return True


@caught_by("unknown-field")
def misspelled_field_of_a_task(spec: Spec) -> bool:
    next(tasks(spec))[2]["dependantTasks"] = []
    return True


@caught_by("unknown-field")
def unknown_field_of_a_container(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["entrypoint"] = ["sh"]
        return True
    return False


@caught_by("unknown-field")
def unknown_field_at_the_top(spec: Spec) -> bool:
    spec["apiVersion"] = "v1"
    return True


@caught_by("malformed")
def tasks_as_a_list(spec: Spec) -> bool:
    spec["root"]["dag"]["tasks"] = [*spec["root"]["dag"]["tasks"].values()]
    return True


@caught_by("malformed")
def unknown_parameter_type(spec: Spec) -> bool:
    for each in spec["components"].values():
        for port in each.get("inputDefinitions", {}).get("parameters", {}).values():
            port["parameterType"] = "NUMBER_COMPLEX"
            return True
    return False


# References


@caught_by("missing-component")
def reference_to_no_component(spec: Spec) -> bool:
    next(tasks(spec))[2]["componentRef"]["name"] = "comp-ghost"
    return True


@caught_by("missing-component")
def no_component_reference(spec: Spec) -> bool:
    del next(tasks(spec))[2]["componentRef"]
    return True


@caught_by("missing-executor")
def lose_an_executor(spec: Spec) -> bool:
    for _, _, task in tasks(spec):
        if label := component(spec, task).get("executorLabel"):
            del spec["deploymentSpec"]["executors"][label]
            return True
    return False


@caught_by("missing-executor")
def component_without_body(spec: Spec) -> bool:
    return any(component(spec, task).pop("executorLabel", None) for _, _, task in tasks(spec))


@caught_by("missing-executor")
def empty_executor(spec: Spec) -> bool:
    for _, _, task in tasks(spec):
        if label := component(spec, task).get("executorLabel"):
            spec["deploymentSpec"]["executors"][label] = {}
            return True
    return False


@caught_by("recursion")
def component_inside_itself(spec: Spec) -> bool:
    for scope, _, task in tasks(spec):
        inner = component(spec, task)
        if "dag" in inner and scope is spec["root"]:
            inner["dag"]["tasks"]["again"] = {"componentRef": dict(task["componentRef"]), "taskInfo": {"name": "again"}}
            return True
    return False


@caught_by("dangling-producer")
def parameter_from_no_task(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "parameters", "taskOutputParameter"):
        given["taskOutputParameter"]["producerTask"] = "ghost"
        return True
    return False


@caught_by("dangling-producer")
def artifact_from_no_task(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "artifacts", "taskOutputArtifact"):
        given["taskOutputArtifact"]["producerTask"] = "ghost"
        return True
    return False


@caught_by("dangling-producer")
def output_from_no_task(spec: Spec) -> bool:
    for scope in dags(spec):
        for output in scope["dag"].get("outputs", {}).get("parameters", {}).values():
            if "valueFromParameter" in output:
                output["valueFromParameter"]["producerSubtask"] = "ghost"
                return True
        for output in scope["dag"].get("outputs", {}).get("artifacts", {}).values():
            output["artifactSelectors"][0]["producerSubtask"] = "ghost"
            return True
    return False


@caught_by("dangling-producer")
def status_of_no_task(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "parameters", "taskFinalStatus"):
        given["taskFinalStatus"]["producerTask"] = "ghost"
        return True
    return False


@caught_by("unknown-output")
def wrong_parameter_key(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "parameters", "taskOutputParameter"):
        given["taskOutputParameter"]["outputParameterKey"] += "s"
        return True
    return False


@caught_by("unknown-output")
def wrong_artifact_key(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "artifacts", "taskOutputArtifact"):
        given["taskOutputArtifact"]["outputArtifactKey"] += "s"
        return True
    return False


@caught_by("unknown-scope-input")
def input_that_is_not_around(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "parameters", "componentInputParameter"):
        given["componentInputParameter"] = "ghost"
        return True
    return False


@caught_by("unknown-scope-input")
def artifact_that_is_not_around(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "artifacts", "componentInputArtifact"):
        given["componentInputArtifact"] = "ghost"
        return True
    return False


@caught_by("unknown-dependency")
def dependency_on_no_task(spec: Spec) -> bool:
    task = next(tasks(spec))[2]
    task["dependentTasks"] = [*task.get("dependentTasks", []), "ghost"]
    return True


@caught_by("cycle")
def task_after_itself(spec: Spec) -> bool:
    _, name, task = next(tasks(spec))
    task["dependentTasks"] = [*task.get("dependentTasks", []), name]
    return True


@caught_by("cycle")
def two_tasks_after_each_other(spec: Spec) -> bool:
    for scope, name, task in tasks(spec):
        for before in task.get("dependentTasks", []):
            other = scope["dag"]["tasks"][before]
            other["dependentTasks"] = [*other.get("dependentTasks", []), name]
            return True
    return False


@caught_by("undeclared-output")
def undeclared_output(spec: Spec) -> bool:
    for scope in dags(spec):
        for kind in ("parameters", "artifacts"):
            for name in scope.get("outputDefinitions", {}).get(kind, {}):
                del scope["outputDefinitions"][kind][name]
                return True
    return False


@caught_by("unconnected-output")
def unconnected_output(spec: Spec) -> bool:
    found = spec["root"].setdefault("outputDefinitions", {}).setdefault("parameters", {})
    found["ghost"] = {"parameterType": "STRING"}
    return True


@caught_by("no-source")
def input_from_nowhere(spec: Spec) -> bool:
    for _, _, _, given in inputs(spec, "parameters"):
        given.clear()
        return True
    return False


# Inputs and types


@caught_by("missing-input")
def required_parameter_not_given(spec: Spec) -> bool:
    for _, task, name, _ in inputs(spec, "parameters"):
        port = declared(spec, task, "parameters", name)
        iterated = task.get("parameterIterator", {}).get("itemInput") == name
        if port is None or iterated or port.get("parameterType") == "TASK_CONFIG":
            continue
        if not port.get("isOptional") and "defaultValue" not in port:
            del task["inputs"]["parameters"][name]
            return True
    return False


@caught_by("missing-input")
def required_artifact_not_given(spec: Spec) -> bool:
    for _, task, name, _ in inputs(spec, "artifacts"):
        port = declared(spec, task, "artifacts", name)
        if port and not port.get("isOptional"):
            del task["inputs"]["artifacts"][name]
            return True
    return False


@caught_by("unknown-input")
def misspelled_input(spec: Spec) -> bool:
    for task, _ in containers(spec):
        found = task.setdefault("inputs", {}).setdefault("parameters", {})
        found["ghost"] = {"runtimeValue": {"constant": "x"}}
        return True
    return False


@caught_by("type-mismatch")
def parameter_of_another_type(spec: Spec) -> bool:
    for scope, task, name, given in channels(spec, "parameters", "taskOutputParameter"):
        port = declared(spec, task, "parameters", name)
        producer = scope["dag"]["tasks"][given["taskOutputParameter"]["producerTask"]]
        output = component(spec, producer)["outputDefinitions"]["parameters"]
        kind = output[given["taskOutputParameter"]["outputParameterKey"]].get("parameterType")
        if port and kind and "parameterExpressionSelector" not in given:
            port["parameterType"] = "BOOLEAN" if kind != "BOOLEAN" else "LIST"
            port.pop("defaultValue", None)
            return True
    return False


@caught_by("type-mismatch")
def artifact_of_another_type(spec: Spec) -> bool:
    for scope, task, name, given in channels(spec, "artifacts", "taskOutputArtifact"):
        port = declared(spec, task, "artifacts", name)
        producer = scope["dag"]["tasks"][given["taskOutputArtifact"]["producerTask"]]
        output = component(spec, producer)["outputDefinitions"]["artifacts"]
        title = output[given["taskOutputArtifact"]["outputArtifactKey"]]["artifactType"].get("schemaTitle")
        if port and title and title != "system.Artifact":
            port["artifactType"] = {"schemaTitle": "system.Markdown", "schemaVersion": "0.0.1"}
            return True
    return False


@caught_by("type-mismatch")
def list_where_one_artifact_is_given(spec: Spec) -> bool:
    for _, task, name, _ in channels(spec, "artifacts", "taskOutputArtifact"):
        port = declared(spec, task, "artifacts", name)
        if port:
            port["isArtifactList"] = not port.get("isArtifactList", False)
            return True
    return False


@caught_by("type-mismatch")
def artifact_where_a_parameter_is_wanted(spec: Spec) -> bool:
    for _, task, name, _ in channels(spec, "artifacts", "taskOutputArtifact"):
        definitions = component(spec, task)["inputDefinitions"]
        if name in definitions["artifacts"]:
            del definitions["artifacts"][name]
            definitions.setdefault("parameters", {})[name] = {"parameterType": "STRING"}
            return True
    return False


@caught_by("type-mismatch")
def collected_taken_for_one(spec: Spec) -> bool:
    for _, _, task in tasks(spec):
        if "parameterIterator" in task:
            for port in component(spec, task).get("outputDefinitions", {}).get("parameters", {}).values():
                if port.get("parameterType") == "LIST":
                    port["parameterType"] = "NUMBER_INTEGER"
                    return True
    return False


@caught_by("bad-constant")
def constant_of_another_type(spec: Spec) -> bool:
    for _, task, name, given in channels(spec, "parameters", "runtimeValue"):
        port = declared(spec, task, "parameters", name)
        if port and port.get("parameterType") not in (None, "STRING", "STRUCT"):
            given["runtimeValue"] = {"constant": {"a": 1.0}}
            return True
    return False


@caught_by("bad-default")
def default_of_another_type(spec: Spec) -> bool:
    for port in spec["root"].get("inputDefinitions", {}).get("parameters", {}).values():
        port["defaultValue"] = {"a": 1.0}
        port["parameterType"] = "NUMBER_INTEGER"
        return True
    return False


@caught_by("no-type")
def parameter_without_type(spec: Spec) -> bool:
    for _, _, task in tasks(spec):
        for port in component(spec, task).get("inputDefinitions", {}).get("parameters", {}).values():
            if port.pop("parameterType", None):
                return True
    return False


@caught_by("bad-selector")
def selector_that_is_none(spec: Spec) -> bool:
    for _, _, _, given in channels(spec, "parameters", "taskOutputParameter"):
        given["parameterExpressionSelector"] = "string_value.key"
        return True
    return False


# Flow


@caught_by("condition-syntax")
def condition_that_does_not_parse(spec: Spec) -> bool:
    for task in conditions(spec):
        task["triggerPolicy"]["condition"] += " =="
        return True
    return False


@caught_by("condition-syntax")
def condition_with_an_open_quote(spec: Spec) -> bool:
    for task in conditions(spec):
        task["triggerPolicy"]["condition"] = "inputs.parameter_values['x'] == 'it's'"
        return True
    return False


@caught_by("condition-input")
def condition_on_no_input(spec: Spec) -> bool:
    for task in conditions(spec):
        task["triggerPolicy"]["condition"] = "inputs.parameter_values['ghost'] == 'x'"
        return True
    return False


@caught_by("condition-type")
def condition_that_compares_types(spec: Spec) -> bool:
    for _, _, task in tasks(spec):
        for name, port in component(spec, task).get("inputDefinitions", {}).get("parameters", {}).items():
            if port.get("parameterType") == "STRING" and name in task.get("inputs", {}).get("parameters", {}):
                task["triggerPolicy"] = {"condition": f"inputs.parameter_values['{name}'] == 5"}
                return True
    return False


@caught_by("never-runs")
def condition_that_is_never_true(spec: Spec) -> bool:
    next(tasks(spec))[2]["triggerPolicy"] = {"condition": "1 == 2"}
    return True


@caught_by("never-runs")
def loop_over_nothing(spec: Spec) -> bool:
    for _, iterator in loops(spec):
        if "raw" in iterator["items"]:
            iterator["items"]["raw"] = "[]"
            return True
    return False


@caught_by("bad-loop-items")
def loop_over_what_is_no_json(spec: Spec) -> bool:
    for _, iterator in loops(spec):
        iterator["items"] = {"raw": "[1, 2"}
        return True
    return False


@caught_by("bad-loop-items")
def loop_over_an_object(spec: Spec) -> bool:
    for _, iterator in loops(spec):
        iterator["items"] = {"raw": '{"a": 1}'}
        return True
    return False


@caught_by("unknown-loop-input")
def loop_over_no_input(spec: Spec) -> bool:
    for _, iterator in loops(spec):
        iterator["items"] = {"inputParameter": "ghost"}
        return True
    return False


@caught_by("unknown-loop-input")
def loop_item_to_no_input(spec: Spec) -> bool:
    for _, iterator in loops(spec):
        iterator["itemInput"] = "ghost"
        return True
    return False


@caught_by("loop-over-scalar")
def loop_over_a_number(spec: Spec) -> bool:
    for task, iterator in loops(spec):
        name = iterator["items"].get("inputParameter")
        port = declared(spec, task, "parameters", name) if name else None
        if port:
            port["parameterType"] = "NUMBER_INTEGER"
            return True
    return False


@caught_by("bad-loop-item")
def loop_item_of_another_type(spec: Spec) -> bool:
    for task, iterator in loops(spec):
        port = declared(spec, task, "parameters", iterator["itemInput"])
        if "raw" in iterator["items"] and port and port["parameterType"].startswith("NUMBER"):
            iterator["items"]["raw"] = '["a", "b"]'
            return True
    return False


@caught_by("bad-loop-limit")
def negative_parallelism(spec: Spec) -> bool:
    for task, _ in loops(spec):
        task["iteratorPolicy"] = {"parallelismLimit": -1}
        return True
    return False


@caught_by("bad-retry")
def negative_retries(spec: Spec) -> bool:
    next(tasks(spec))[2]["retryPolicy"] = {"maxRetryCount": -3}
    return True


@caught_by("status-of-success-only")
def exit_task_without_its_trigger(spec: Spec) -> bool:
    for _, task, _, _ in channels(spec, "parameters", "taskFinalStatus"):
        del task["triggerPolicy"]
        return True
    return False


@caught_by("waits-for-nothing")
def exit_task_without_upstreams(spec: Spec) -> bool:
    for _, _, task in tasks(spec):
        given = task.get("inputs", {})
        sources = [*given.get("parameters", {}).values(), *given.get("artifacts", {}).values()]
        if not task.get("dependentTasks") and not any(key.startswith("task") for each in sources for key in each):
            task["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
            return True
    return False


@caught_by("not-exclusive")
def alternative_without_condition(spec: Spec) -> bool:
    for scope in dags(spec):
        for output in scope["dag"].get("outputs", {}).get("parameters", {}).values():
            for selector in output.get("valueFromOneof", {}).get("parameterSelectors", []):
                del scope["dag"]["tasks"][selector["producerSubtask"]]["triggerPolicy"]
                return True
    return False


@caught_by("unknown-output")
def alternative_that_is_not_there(spec: Spec) -> bool:
    for scope in dags(spec):
        for output in scope["dag"].get("outputs", {}).get("parameters", {}).values():
            for selector in output.get("valueFromOneof", {}).get("parameterSelectors", []):
                selector["outputParameterKey"] += "s"
                return True
    return False


@caught_by("unused-input")
def input_that_nothing_reads(spec: Spec) -> bool:
    found = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    found["ghost"] = {"parameterType": "STRING", "isOptional": True}
    return True


@caught_by("unused-component")
def component_without_tasks(spec: Spec) -> bool:
    spec["components"]["comp-ghost"] = json.loads(json.dumps(next(iter(spec["components"].values()))))
    return True


@caught_by("unused-executor")
def executor_without_component(spec: Spec) -> bool:
    found = spec["deploymentSpec"]["executors"]
    found["exec-ghost"] = json.loads(json.dumps(next(iter(found.values()))))
    return True


# Containers


@caught_by("no-image")
def container_without_image(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["image"] = ""
        return True
    return False


@caught_by("bad-image")
def image_in_upper_case(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["image"] = "My Registry/Train:latest"
        return True
    return False


@caught_by("mutable-image")
def image_by_tag(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["image"] = "python:latest"
        return True
    return False


@caught_by("unknown-placeholder")
def placeholder_of_no_input(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["args"] = [*container.get("args", []), "{{$.inputs.parameters['ghost']}}"]
        return True
    return False


@caught_by("unknown-placeholder")
def placeholder_of_no_system_value(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["args"] = [*container.get("args", []), "{{$.pipeline_job_nmae}}"]
        return True
    return False


@caught_by("bad-placeholder")
def placeholder_that_is_not_closed(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["args"] = [*container.get("args", []), "{{$.inputs.parameters['x']}"]
        return True
    return False


@caught_by("choice-in-value")
def choice_in_a_constant(spec: Spec) -> bool:
    for _, task, name, given in channels(spec, "parameters", "runtimeValue"):
        port = declared(spec, task, "parameters", name)
        if port and port.get("parameterType") == "STRING":
            given["runtimeValue"] = {"constant": '{"IfPresent": {"InputName": "x", "Then": "a"}}'}
            return True
    return False


@caught_by("bad-variable")
def variable_with_a_space(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["env"] = [*container.get("env", []), {"name": "MY VARIABLE", "value": "x"}]
        return True
    return False


@caught_by("duplicate-variable")
def variable_given_twice(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["env"] = [{"name": "MODE", "value": "a"}, {"name": "MODE", "value": "b"}]
        return True
    return False


@caught_by("bad-quantity")
def memory_in_words(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["resources"] = {"resourceMemoryLimit": "lots"}
        return True
    return False


@caught_by("request-over-limit")
def request_above_its_limit(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["resources"] = {"resourceMemoryRequest": "4Gi", "resourceMemoryLimit": "4G"}
        return True
    return False


@caught_by("secret")
def secret_in_a_variable(spec: Spec) -> bool:
    for _, container in containers(spec):
        container["env"] = [{"name": "DATABASE_PASSWORD", "value": "correct-horse-battery"}]
        return True
    return False


@caught_by("secret")
def secret_in_a_parameter(spec: Spec) -> bool:
    found = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    found["source"] = {"parameterType": "STRING", "defaultValue": "postgres://me:hunter2@db/trips"}
    return True
