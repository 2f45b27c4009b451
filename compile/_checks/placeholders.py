"""Placeholders: `{{$.inputs.parameters['x']}}` and its kin in commands, constants, environments and metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.compile import commands, graph, launcher
from penstock.compile._checks.scopes import places
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("unknown-placeholder", Severity.ERROR, "A placeholder that names nothing; the container would see it as it is."),
    ("bad-placeholder", Severity.ERROR, "Something that begins like a placeholder and is none."),
    ("choice-in-value", Severity.WARNING, "IfPresent or Concat in a value, which platforms decide in commands alone."),
)

# What every platform gives a value to.
SYSTEM = (
    "pipeline_job_name",
    "pipeline_job_resource_name",
    "pipeline_job_uuid",
    "pipeline_job_create_time_utc",
    "pipeline_job_schedule_time_utc",
    "pipeline_task_name",
    "pipeline_task_uuid",
    "pipeline_root",
    "workspace_path",
)
# What Vertex AI gives a value to as well; google-cloud-pipeline-components and AutoML's pipelines use these.
GOOGLE = (
    "pipeline_google_cloud_project_id",
    "pipeline_google_cloud_location",
    "pipeline_service_account",
    "pipeline_network",
    "pipeline_persistent_resource_id",
    "pipeline_encryption_key_name",
)
_START = re.compile(r"\{\{\$[^{}]*(?:\}\})?")
_CHANNEL = re.compile(r"\{\{channel:[^{}]*\}\}")  # KFP's own mark for a value; its compiler leaves it in some places
_ESCAPED = re.compile(r"\{\{\$[^{}]*\.json_escape\[\d+\]\}\}")  # AutoML's pipelines, on Vertex AI


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield the placeholders that name nothing."""
    for place in places(pipeline):
        found = dict.fromkeys(of(place.task))
        for steps in found:
            if not _resolvable(place.task, steps) and steps[0] not in GOOGLE:
                shown = ".".join(steps)
                known = ", ".join(sorted({*place.task.component.inputs, *place.task.inputs}))
                problem = f"the placeholder {shown} names nothing"
                yield CODES.finding("unknown-placeholder", place.path, problem, f"its inputs are {known or 'none'}")
        for text in dict.fromkeys(_texts(place.task)):
            for begin in _malformed(text):
                problem = f"{begin!r} begins like a placeholder and is none"
                remedy = "write it as {{$.inputs.parameters['name']}}"
                yield CODES.finding("bad-placeholder", place.path, problem, remedy)
            for left in _CHANNEL.findall(text) if "{{channel:" in text else ():
                problem = f"KFP's compiler has left {left!r} where a value should go"
                remedy = "give the parameter alone, or a task's output; it is not put into a text there"
                yield CODES.finding("bad-placeholder", place.path, problem, remedy)
        for name, value in values(place.task):
            if any(launcher.CHOICE.match(text) for text in _texts_in(value)):
                problem = f"input {name} holds an IfPresent or Concat, which is decided in a command, not in a value"
                remedy = "give the part a value, or decide in the component"
                yield CODES.finding("choice-in-value", place.path, problem, remedy)
        for name in _present(place.task):
            if name not in place.task.component.inputs:
                problem = f"IfPresent asks for input {name}, which component {place.task.component.name} does not have"
                known = ", ".join(sorted(place.task.component.inputs)) or "none"
                yield CODES.finding("unknown-placeholder", place.path, problem, f"it has {known}")


def unknown(task: graph.Task) -> set[tuple[str, ...]]:
    """Return the placeholders of a task that nothing gives a value to where there is no Vertex AI."""
    return {steps for steps in of(task) if not _resolvable(task, steps)}


def of(task: graph.Task) -> Iterator[tuple[str, ...]]:
    """Yield the placeholders of a task as their steps, as launcher.placeholders does."""
    for text in _texts(task):
        yield from launcher.placeholders(text)


def values(task: graph.Task) -> Iterator[tuple[str, Any]]:
    """Yield the inputs of a task that the spec gives a value, with it: a constant, or else the component's default."""
    for name, given in task.inputs.items():
        if isinstance(given.source, graph.Constant):
            yield name, given.source.value
    for name, port in task.component.inputs.parameters.items():
        if name not in task.inputs and port.default is not None:
            yield name, port.default


def within(value: object) -> Iterator[tuple[str, ...]]:
    """Yield the placeholders in the texts of a value, at any depth."""
    for text in _texts_in(value):
        yield from launcher.placeholders(text)


def _texts(task: graph.Task) -> Iterator[str]:
    """Yield the texts of a task that placeholders may be in."""
    for given in task.inputs.values():
        if isinstance(given.source, graph.Constant):
            yield from _texts_in(given.source.value)
    body = task.component.body
    if isinstance(body, graph.Container):
        yield from commands.without_source(body)
        yield from body.env.values()
        yield body.image
        yield from (each for each in vars(body.resources).values() if each)
    elif isinstance(body, graph.Importer):
        yield from _texts_in(dict(body.metadata))
        if isinstance(body.uri, graph.Constant):
            yield from _texts_in(body.uri.value)


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_in(key)
            yield from _texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)


def _malformed(text: str) -> Iterator[str]:
    for match in _START.finditer(text) if "{{$" in text else ():
        if not _ESCAPED.fullmatch(match[0]) and not any(True for _ in launcher.placeholders(match[0])):
            yield match[0][:60]


def _present(task: graph.Task) -> Iterator[str]:
    """Yield the inputs that IfPresent asks for in a task's command."""
    body = task.component.body
    for element in commands.without_source(body) if isinstance(body, graph.Container) else ():
        if '"IfPresent"' in element:
            try:
                yield from _asked(json.loads(element))
            except ValueError:
                continue  # text that only looks like it


def _asked(struct: Any) -> Iterator[str]:
    if isinstance(struct, list):
        for item in struct:
            yield from _asked(item)
    elif isinstance(struct, dict):
        if "InputName" in struct:
            yield str(struct["InputName"])
        for item in struct.values():
            yield from _asked(item)


def _resolvable(task: graph.Task, steps: tuple[str, ...]) -> bool:
    if len(steps) < 2:
        return not steps or steps[0] in (*SYSTEM, "outputMetadataUri")
    if steps == ("outputs", "output_file"):
        return True
    ports = {"inputs": task.component.inputs, "outputs": task.component.outputs}.get(steps[0])
    if ports is None or len(steps) < 3:
        return False
    name, rest = steps[2], steps[3:]
    if steps[1] == "parameters":
        known = name in ports.parameters or (steps[0] == "inputs" and name in task.inputs)
        return known and rest == (("output_file",) if steps[0] == "outputs" else ())
    readable = ((), ("uri",), ("path",), ("value",)) if steps[0] == "inputs" else ((), ("uri",), ("path",))
    artifact = rest in readable or (rest[0] == "metadata" and len(rest) <= 2)
    return steps[1] == "artifacts" and name in ports.artifacts and artifact
