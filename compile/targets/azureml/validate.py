"""Says what is wrong with a converted job: Azure's own tools load one whose references lead nowhere.

azure-ai-ml's offline validation lets dangling bindings, cycles, misspelled inputs and wrong literals through; a
workspace would only say so when the job is sent, or runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from penstock.compile.errors import PenstockError

JOB = "job.yml"
MOST_INPUTS, MOST_OUTPUTS, MOST_TAGS = 200, 20, 50
_LONGEST_TITLE, _LONGEST_NAME, _LONGEST_TAG = 256, 255, 1000

_NODE = re.compile(r"[a-z_][a-z0-9_]*")
_COMPONENT = re.compile(r"[a-z][a-z0-9_]*")
_PORT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BINDING = re.compile(r"\$\{\{parent\.(?:(inputs|outputs)\.(\w+)|jobs\.(\w+)\.outputs\.(\w+))\}\}")
_IN_COMMAND = re.compile(r"\$\{\{(inputs|outputs)\.(\w+)\}\}")
_OPENS = re.compile(r"\$\{\{|\$\[\[")
_DATA = ("uri_folder", "uri_file", "mltable", "mlflow_model", "custom_model", "triton_model")
_LITERALS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def check(files: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with a job, in sentences; nothing where it is sound.

    Args:
        files: Its files by path, the programs among them or not.
    """
    try:
        return list(_Job(files).problems())
    except _Broken as broken:
        return [str(broken)]


def check_folder(folder: Path) -> list[str]:
    """Return what is wrong with the job in a folder.

    Raises:
        PenstockError: it cannot be read.
    """
    return check(read(folder))


def read(folder: Path) -> dict[str, bytes]:
    """Return the YAML and JSON files of a job by path.

    Raises:
        PenstockError: they cannot be read.
    """
    try:
        found = [path for path in folder.rglob("*") if path.suffix in (".yml", ".json") and path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    except OSError as error:
        raise PenstockError(f"{folder}: cannot be read: {error}") from error


def load(content: bytes) -> Any:
    """Return what YAML holds."""
    return yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 both are safe


class _Broken(Exception):
    pass


class _Job:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.job = self.document(JOB)
        self.pipeline_path = str(self.job.get("component", "")).removeprefix("./")
        self.pipeline = self.document(self.pipeline_path)
        self.inputs: Mapping[str, Any] = self.pipeline.get("inputs", {})
        self.outputs: Mapping[str, Any] = self.pipeline.get("outputs", {})
        self.nodes: Mapping[str, Any] = self.pipeline.get("jobs", {})
        self.components = {
            name: self.document(str(node.get("component", "")).removeprefix("./")) for name, node in self.nodes.items()
        }

    def document(self, path: str) -> Mapping[str, Any]:
        if path not in self.files:
            raise _Broken(f"{path or 'a component'} is not there")
        try:
            found = load(self.files[path])
        except yaml.YAMLError as error:
            raise _Broken(f"{path}: not YAML: {error}") from error
        if not isinstance(found, Mapping):
            raise _Broken(f"{path}: is no mapping")
        return found

    def problems(self) -> Iterator[str]:
        yield from self.job_problems()
        yield from _ports(self.pipeline_path, self.pipeline)
        if not self.nodes:
            yield f"{self.pipeline_path}: has no steps"
        bound: dict[str, str] = {}
        for name, node in self.nodes.items():
            yield from self.node_problems(name, node)
            yield from self.component_problems(name, self.components[name])
            for port, binding in node.get("outputs", {}).items():
                if isinstance(binding, Mapping):
                    if not {*binding} <= {"mode", "path"}:
                        yield f"step {name}: its output {port} has more than a mode and a path"
                    continue
                match = _BINDING.fullmatch(str(binding))
                if not match or match[1] != "outputs" or match[2] not in self.outputs:
                    yield f"step {name}: its output {port} is bound to {binding}, which is not there"
                elif match[2] in bound:
                    yield f"step {name}: the output {match[2]} is given by {bound[match[2]]} as well"
                else:
                    bound[match[2]] = name
                    given, taken = self.components[name]["outputs"][port]["type"], self.outputs[match[2]]["type"]
                    if given != taken:
                        yield f"step {name}: its output {port} is {given}, and the pipeline's {match[2]} is {taken}"
        for name in self.outputs:
            if name not in bound:
                yield f"{self.pipeline_path}: no step gives the output {name}"
        yield from self.cycle()

    def job_problems(self) -> Iterator[str]:
        yield from _title(JOB, self.job)
        if not _COMPONENT.fullmatch(str(self.pipeline.get("name"))) or len(self.pipeline["name"]) > _LONGEST_NAME:
            yield f"{self.pipeline_path}: the name {self.pipeline.get('name')!r} is none that a component can have"
        for name, value in self.job.get("inputs", {}).items():
            if name not in self.inputs:
                yield f"{JOB}: the pipeline has no input {name}"
            elif problem := _misfit(value, self.inputs[name]["type"], self.inputs[name].get("enum")):
                yield f"{JOB}: input {name}: {problem}"
        for name, port in self.inputs.items():
            if "default" in port and (problem := _misfit(port["default"], port["type"], port.get("enum"))):
                yield f"{self.pipeline_path}: input {name}: {problem}"
            if port["type"] in _DATA and name not in self.job.get("inputs", {}):
                yield f"{JOB}: the data input {name} is not given"
        for name, given in self.job.get("outputs", {}).items():
            if name not in self.outputs:
                yield f"{JOB}: the pipeline has no output {name}"
            elif given["type"] != self.outputs[name]["type"]:
                yield f"{JOB}: the output {name} has another type than that of the pipeline"
        if len([name for name, port in self.inputs.items() if port["type"] in _DATA]) > MOST_INPUTS:
            yield f"{JOB}: has more than {MOST_INPUTS} data inputs"

    def node_problems(self, name: str, node: Mapping[str, Any]) -> Iterator[str]:
        component, where = self.components[name], f"step {name}"
        if not _NODE.fullmatch(name):
            yield f"{where}: is no name that a step can have"
        declared, given = component.get("inputs", {}), node.get("inputs", {})
        for port in sorted({*given} - {*declared}):
            yield f"{where}: its component has no input {port}"
        for port, about in declared.items():
            if port not in given:
                if not about.get("optional") and "default" not in about:
                    yield f"{where}: its input {port} is not given"
                continue
            yield from self.binding_problems(f"{where}: its input {port}", str(given[port]), about["type"])
        for port in sorted({*node.get("outputs", {})} - {*component.get("outputs", {})}):
            yield f"{where}: its component has no output {port}"
        if not node.get("compute") and not self.job.get("settings", {}).get("default_compute"):
            yield f"{where}: has no compute"
        tags = node.get("tags", {})
        if len(tags) > MOST_TAGS:
            yield f"{where}: has more than {MOST_TAGS} tags"
        for tag, value in tags.items():
            if len(str(value)) > _LONGEST_TAG:
                yield f"{where}: its tag {tag} has more than {_LONGEST_TAG} characters"

    def binding_problems(self, where: str, binding: str, kind: str) -> Iterator[str]:
        match = _BINDING.fullmatch(binding)
        if match and match[1] == "inputs":
            if match[2] not in self.inputs:
                yield f"{where}: there is no input {match[2]} of the pipeline"
            elif self.inputs[match[2]]["type"] != kind:
                yield f"{where}: takes {kind} and is given the pipeline's {match[2]}, {self.inputs[match[2]]['type']}"
            elif self.inputs[match[2]].get("optional"):
                yield f"{where}: is bound to the optional input {match[2]}"
        elif match and match[3]:
            if match[3] not in self.nodes:
                yield f"{where}: there is no step {match[3]}"
            elif match[4] not in self.components[match[3]].get("outputs", {}):
                yield f"{where}: step {match[3]} has no output {match[4]}"
            elif self.components[match[3]]["outputs"][match[4]]["type"] != kind:
                yield f"{where}: takes {kind}, and step {match[3]} gives another type"
        else:
            yield f"{where}: {binding!r} is no binding"

    def component_problems(self, name: str, component: Mapping[str, Any]) -> Iterator[str]:
        where = f"component {name}"
        yield from _ports(where, component)
        yield from _title(where, component)
        if not _COMPONENT.fullmatch(str(component.get("name"))) or len(component["name"]) > _LONGEST_NAME:
            yield f"{where}: the name {component.get('name')!r} is none that a component can have"
        if not component.get("environment", {}).get("image"):
            yield f"{where}: has no image"
        inputs, outputs = component.get("inputs", {}), component.get("outputs", {})
        if len([port for port in inputs.values() if port["type"] in _DATA]) > MOST_INPUTS:
            yield f"{where}: has more than {MOST_INPUTS} inputs"
        if len(outputs) > MOST_OUTPUTS:
            yield f"{where}: has more than {MOST_OUTPUTS} outputs"
        command = str(component.get("command", ""))
        used = [(side, port) for side, port in _IN_COMMAND.findall(command)]
        if len(_OPENS.findall(command)) != len(used):
            yield f"{where}: its command has an expression that is none of its inputs or outputs"
        ports = {*(("inputs", port) for port in inputs), *(("outputs", port) for port in outputs)}
        if ports != {*used} or len(used) != len(ports):
            yield f"{where}: its command does not name each of its inputs and outputs once"
        code = f"{component.get('code', '')}".removeprefix("../")
        yield from self.step_problems(where, f"{code}/step.json", {*inputs}, {*outputs})

    def step_problems(self, where: str, path: str, inputs: set[str], outputs: set[str]) -> Iterator[str]:
        if path not in self.files:
            yield f"{where}: {path} is not there"
            return
        step = json.loads(self.files[path])
        expected = {*step["controls"], *step["artifacts"], *step["parameters"]}
        if inputs != expected.union(step.get("steps", ()), step.get("gathered", ())):
            yield f"{where}: its inputs are not those of {path}"
        if outputs != {"control", *step["outputs"], *step.get("copies", ())}:
            yield f"{where}: its outputs are not those of {path}"

    def cycle(self) -> Iterator[str]:
        waiting = {
            name: {match[3] for binding in node.get("inputs", {}).values() if (match := _BINDING.match(str(binding)))}
            - {None}
            for name, node in self.nodes.items()
        }
        while ready := [name for name, before in waiting.items() if not before & waiting.keys()]:
            for name in ready:
                del waiting[name]
        if waiting:
            yield f"{self.pipeline_path}: steps wait for each other: {', '.join(sorted(waiting))}"


def _ports(where: str, component: Mapping[str, Any]) -> Iterator[str]:
    for side in ("inputs", "outputs"):
        seen: set[str] = set()
        for name, port in component.get(side, {}).items():
            if not _PORT.fullmatch(name):
                yield f"{where}: {side}: the name {name!r} is none that Azure takes"
            if name.lower() in seen:
                yield f"{where}: {side}: the name {name!r} is there twice, but for the case of its letters"
            seen.add(name.lower())
            if port.get("type") not in (*_LITERALS, *_DATA) or (side == "outputs" and port["type"] in _LITERALS):
                yield f"{where}: {side}: {name} has the type {port.get('type')!r}"


def _title(where: str, document: Mapping[str, Any]) -> Iterator[str]:
    if len(str(document.get("display_name", ""))) > _LONGEST_TITLE:
        yield f"{where}: its display name has more than {_LONGEST_TITLE} characters"


def _misfit(value: Any, kind: str, allowed: Any = None) -> str:
    """Return why a value does not fit a type; empty where it does."""
    if kind in _DATA:
        fits = isinstance(value, Mapping) and value.get("type") == kind and bool(value.get("path"))
        return "" if fits else f"is no data of type {kind}"
    if isinstance(value, bool) and kind != "boolean":
        return f"{value!r} is no {kind}"
    if not isinstance(value, _LITERALS[kind]):
        return f"{value!r} is no {kind}"
    if allowed and value not in allowed:
        return f"{value!r} is none of {', '.join(map(str, allowed))}"
    return "an empty text is dropped by Azure" if value == "" else ""
