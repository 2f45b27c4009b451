"""What a pipeline or component takes and gives, read from its compiled spec."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from penstock.compile.catalog import python_function
from penstock.compile.documents import Documents
from penstock.compile.errors import PenstockError
from penstock.compile.graph import ArtifactType

_TYPES = {
    "STRING": "str",
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "dict",
    "TASK_FINAL_STATUS": "PipelineTaskFinalStatus",
    "TASK_CONFIG": "TaskConfig",
    "INT": "int",  # of schema 2.0.0, like DOUBLE
    "DOUBLE": "float",
}


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        direction: "input" or "output".
        type: Python's name of a parameter's type (str, int, float, bool, list, dict), or an artifact's (Dataset,
            Model, google.VertexModel, list[Dataset]).
        default: Value where none is given; None where there is no default.
        required: Whether an input has to be given.
    """

    name: str
    direction: str
    type: str
    default: Any
    required: bool
    description: str


@dataclass(frozen=True)
class Description:
    """A pipeline or component as `penstock describe` shows it.

    Attributes:
        kind: "pipeline" or "component".
        images: Container images that its tasks run in.
    """

    name: str
    kind: str
    description: str
    images: tuple[str, ...]
    ports: tuple[Port, ...]


def describe(spec: Mapping[str, Any], function: Any = None) -> Description:
    """Return what a spec says of itself.

    Args:
        spec: The PipelineSpec, as read from YAML.
        function: What it was compiled from, if known: its signature gives the order of the ports, its docstring the
            descriptions that kfp leaves out.
    """
    root = spec["root"]
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    images = {executor["container"].get("image", "") for executor in executors.values() if "container" in executor}
    code = python_function(function)
    docs = documented(inspect.getdoc(code) or "") if code else {}
    interface = function.component_spec if function is not None else None
    ports = [
        *_ports(root.get("inputDefinitions", {}), "input", docs, (interface and interface.inputs) or ()),
        *_ports(root.get("outputDefinitions", {}), "output", docs, (interface and interface.outputs) or ()),
    ]
    info = spec["pipelineInfo"]
    described = (function.description if function is not None else info.get("description")) or ""
    kind = "component" if _is_one_task(spec) else "pipeline"
    return Description(info["name"], kind, described.strip(), tuple(sorted(images - {""})), tuple(ports))


def read_spec(path: Path) -> dict[str, Any]:
    """Return the PipelineSpec in a YAML or JSON file, as `parse_spec` does; a platform spec beside it is left out.

    Raises:
        PenstockError: Where the file is missing or holds no PipelineSpec.
    """
    if not path.is_file():
        raise PenstockError(f"{path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PenstockError(f"{path}: not YAML: {error}") from error
    return parse_spec(text, str(path))


def parse_spec(text: str, origin: str) -> dict[str, Any]:
    """Return the PipelineSpec in YAML or JSON; `origin` is where it came from.

    Of a PipelineJob, the values that it has for parameters are their defaults.

    Raises:
        PenstockError: Where it holds none.
    """
    try:
        document = next(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), None)
    except yaml.YAMLError as error:
        raise PenstockError(f"{origin}: not YAML: {error}") from error
    values: Mapping[str, Any] = {}
    if isinstance(document, dict) and "pipelineSpec" in document:  # a PipelineJob, as TFX and older kfp write it
        values = Documents(document["pipelineSpec"], runtime=document.get("runtimeConfig") or {}).values
        document = document["pipelineSpec"]
    if not isinstance(document, dict) or not isinstance(document.get("root"), dict) or "pipelineInfo" not in document:
        raise PenstockError(f"{origin}: no compiled pipeline: it has no pipelineInfo and root")
    for name, definition in document["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if name in values:
            definition["defaultValue"] = values[name]
    return document


def documented(docstring: str) -> dict[str, str]:
    """Return the descriptions in the Args and Returns sections of a docstring, by name."""
    found: dict[str, str] = {}
    section = name = ""
    depth = 0
    for line in docstring.split("\n"):
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text and indent == 0:
            section, name, depth = text.rstrip(":"), "", 0
        elif section in ("Args", "Returns") and text:
            depth = depth or indent
            start = re.match(r"(\w+)(?: ?\([^)]*\))?:(?: (.*))?$", text) if indent == depth else None
            if start:
                name = start[1]
                found[name] = start[2] or ""
            elif name:
                found[name] = f"{found[name]} {text}".strip()
    return found


def shown(value: Any) -> str:
    """Return a default as one line: text as in JSON, so that empty and several lines can be told."""
    return json.dumps(value, ensure_ascii=False)


def _ports(
    definitions: Mapping[str, Any], direction: str, docs: Mapping[str, str], order: Iterable[str]
) -> Iterable[Port]:
    artifacts, parameters = definitions.get("artifacts", {}), definitions.get("parameters", {})
    place = {name: index for index, name in enumerate(order)}
    names = [*sorted(artifacts), *sorted(parameters)]
    for name in sorted(names, key=lambda name: place.get(name, len(place))):
        definition = artifacts.get(name) or parameters[name]
        yield Port(
            name=name,
            direction=direction,
            type=_artifact_type(definition) if name in artifacts else _parameter_type(definition),
            default=_default(definition),
            required=direction == "input" and not definition.get("isOptional") and "defaultValue" not in definition,
            description=" ".join((definition.get("description") or docs.get(name, "")).split()),
        )


def _artifact_type(definition: Mapping[str, Any]) -> str:
    kind = definition.get("artifactType", {})
    name = ArtifactType(str(kind.get("schemaTitle") or ""), instance=str(kind.get("instanceSchema") or "")).name
    name = (name or str(kind.get("instanceSchema") or "Artifact")).removeprefix("system.")
    return f"list[{name}]" if definition.get("isArtifactList") else name


def _parameter_type(definition: Mapping[str, Any]) -> str:
    kind = str(definition.get("parameterType") or definition.get("type") or "")
    return _TYPES.get(kind, kind)


def _default(definition: Mapping[str, Any]) -> Any:
    value = definition.get("defaultValue")
    return value if _parameter_type(definition) == "float" else _with_integers(value)


def _with_integers(value: Any) -> Any:
    """Return a value whose whole numbers are integers; a spec holds every number as a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    if isinstance(value, dict):
        return {name: _with_integers(item) for name, item in value.items()}
    return value


def _is_one_task(spec: Mapping[str, Any]) -> bool:
    """Return whether this is a component that was compiled alone."""
    tasks = spec["root"].get("dag", {}).get("tasks", {})
    return len(tasks) == 1 and spec["pipelineInfo"]["name"] in tasks
