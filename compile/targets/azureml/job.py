"""A job as what runs it takes it: read from the folder that penstock convert wrote, or put together from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from penstock.compile import graph
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import emit, validate

_BINDING = re.compile(r"\$\{\{parent\.(?:inputs\.(\w+)|jobs\.(\w+)\.outputs\.(\w+))\}\}")
_DATA = ("uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model")


@dataclass(frozen=True)
class Node:
    """A step of a job: its component, and what the job gives it.

    Attributes:
        command: Script for bash, with ${{inputs.x}} and ${{outputs.x}} where paths and values go.
        image: Its environment.
        code: Folder of its code snapshot, on this machine.
        inputs: By port: ${{parent.inputs.x}}, ${{parent.jobs.step.outputs.x}}, or a value.
        outputs: By port: ${{parent.outputs.x}}; empty where nothing outside is bound.
        env: Its environment variables.
        compute: Its compute; empty: the job's.
        shm_size: Size of /dev/shm, such as "2g"; empty: the engine's own.
        docker_args: Further options of `docker run`.
        timeout: Seconds that it may take; None: any.
    """

    name: str
    command: str
    image: str
    code: Path
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    compute: str = ""
    shm_size: str = ""
    docker_args: str = ""
    timeout: float | None = None

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        """What step.json in its snapshot holds; nothing where the conversion did not write it."""
        file = self.code / emit.STEP
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    @property
    def body(self) -> graph.Container | None:
        """The command of the task that it runs; None where it runs none itself."""
        if self.plan.get("mode") != "task" or self.plan.get("steps"):
            return None  # a step before it, made for sh, has run it
        task = self.plan["task"]
        return graph.Container(self.image, "", tuple(task["command"]), tuple(task["args"]))

    @property
    def path(self) -> str:
        """Path of the task that it runs; empty where it runs none."""
        return str(self.plan.get("path", ""))

    @property
    def before(self) -> set[str]:
        """The names of the steps whose outputs it takes."""
        found = (_BINDING.fullmatch(str(binding)) for binding in self.inputs.values())
        return {match[2] for match in found if match and match[2]}


@dataclass(frozen=True)
class Job:
    """A pipeline job.

    Attributes:
        pipeline: Name of its pipeline.
        nodes: Its steps by name.
        inputs: Values of its inputs; a Path, absolute, for data.
        compute: What steps run on that name none.
        where: How errors call it.
    """

    pipeline: str
    nodes: Mapping[str, Node]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    compute: str = ""
    continue_on_step_failure: bool = False
    where: str = "the job"

    def source(self, binding: Any) -> Any:
        """Return what an input of a step is given: (step, output), or a value."""
        match = _BINDING.fullmatch(str(binding))
        if not match:
            return binding
        return (match[2], match[3]) if match[2] else self.inputs[match[1]]


def read(path: Path, given: Mapping[str, str] | None = None) -> Job:
    """Return the job of a folder that `penstock convert` wrote.

    Args:
        path: Its job.yml, or the folder.
        given: Texts of inputs in place of those in job.yml.

    Raises:
        PenstockError: it is none, or not sound; an input is missing, unknown, or data that are not here.
    """
    path = path / emit.JOB if path.is_dir() else path
    if path.name != emit.JOB or not path.is_file():
        raise PenstockError(
            f"{path}: is no converted job; give the folder, or the {emit.JOB}, that penstock convert wrote"
        )
    home = path.parent.absolute()
    files = validate.read(home)
    try:
        problems = validate.check(files)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problems = [f"it is not as penstock convert writes jobs ({type(error).__name__}: {error}); convert it again"]
    if problems:
        raise PenstockError(f"{path}: is not sound: {'; '.join(problems)}")
    job = validate.load(files[emit.JOB])
    pipeline = validate.load(files[emit.PIPELINE])
    nodes = {}
    for name, node in pipeline["jobs"].items():
        component = validate.load(files[node["component"].removeprefix("./")])
        nodes[name] = _node(name, node, component, home / "code" / name)
    settings = job.get("settings", {})
    return Job(
        pipeline["name"],
        nodes,
        _inputs(path, job, pipeline.get("inputs", {}), given or {}),
        settings.get("default_compute", ""),
        settings.get("continue_on_step_failure", False),
        str(path),
    )


def _node(name: str, node: Mapping[str, Any], component: Mapping[str, Any], code: Path) -> Node:
    resources = {**component.get("resources", {}), **node.get("resources", {})}
    limits = {**component.get("limits", {}), **node.get("limits", {})}
    options = resources.get("docker_args", "")
    bound = {port: value for port, value in node.get("outputs", {}).items() if isinstance(value, str)}
    return Node(
        name,
        component["command"],
        component["environment"]["image"],
        code,
        inputs=node.get("inputs", {}),
        outputs={port: bound.get(port, "") for port in component.get("outputs", {})},
        env={key: str(value) for key, value in node.get("environment_variables", {}).items()},
        compute=node.get("compute", ""),
        shm_size=str(resources.get("shm_size", "")),
        docker_args=" ".join(options) if isinstance(options, list) else options,
        timeout=limits.get("timeout"),
    )


def _inputs(path: Path, job: Mapping[str, Any], ports: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the pipeline's inputs.

    Raises:
        PenstockError: one is missing, unknown, or data that are not here.
    """
    if unknown := sorted({*texts} - {*ports}):
        raise PenstockError(f"{path}: there is no input {unknown[0]}; there are {', '.join(ports) or 'none'}")
    found: dict[str, Any] = {}
    for name, port in ports.items():
        value = job.get("inputs", {}).get(name, port.get("default"))
        if isinstance(value, Mapping):
            value = value["path"]
        value = texts.get(name, value)
        if value is None:
            raise PenstockError(f"{path}: input {name} is not given; give it as -p {name}=VALUE")
        found[name] = _data(path, name, str(value)) if port["type"] in _DATA else value
    return found


def _data(path: Path, name: str, uri: str) -> Path:
    if "://" in uri or uri.startswith("azureml:"):
        raise PenstockError(f"{path}: input {name} is {uri}, which is not here; give a path as -p {name}=PATH")
    there = path.parent.absolute() / uri
    if not there.exists():
        raise PenstockError(f"{path}: input {name}: {there} is not there")
    return there
