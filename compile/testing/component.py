"""Runs one component alone, with artifacts as its inputs."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp, graph
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State

RUNNERS = {"process": "subprocess", "docker": "docker"}


@dataclass(frozen=True)
class Artifact:
    """An artifact that a component gave; can be given to another as an input.

    Attributes:
        path: File or folder; nothing need be there where only metadata was written.
        type: Such as "system.Dataset".
    """

    name: str
    path: Path
    type: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """What a component gave.

    Attributes:
        parameters: Values by output, of the declared types. A single unnamed output is called Output, as KFP calls it.
        artifacts: By output.
        metrics: Numbers that metrics artifacts hold, by name.
        log: What it wrote to stdout and stderr.
        folder: Folder of the run: run.json, report.html, and all that was written.
    """

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]
    metrics: Mapping[str, float]
    log: str = field(repr=False)
    folder: Path

    def __getitem__(self, name: str) -> Any:
        """Return a parameter's value or an artifact.

        Raises:
            KeyError: there is no such output; the message names those that there are.
        """
        for found in (self.parameters, self.artifacts):
            if name in found:
                return found[name]
        raise KeyError(
            f"there is no output {name}; there are {', '.join([*self.parameters, *self.artifacts]) or 'none'}"
        )

    @property
    def output(self) -> Any:
        """The single output.

        Raises:
            PenstockError: there are several, or none.
        """
        names = [*self.parameters, *self.artifacts]
        if len(names) != 1:
            raise PenstockError(f"there are {len(names)} outputs ({', '.join(names)}); take one by its name")
        return self[names[0]]


class ComponentFailed(Exception):
    """A component failed; the text is its own message.

    Attributes:
        log: What it wrote to stdout and stderr.
        exit_code: Of its process or container; None where it had none.
        folder: Folder of the run.
    """

    def __init__(self, message: str, log: str, exit_code: int | None, folder: Path) -> None:
        super().__init__(message)
        self.log = log
        self.exit_code = exit_code
        self.folder = folder


def run_component(
    component: Any,
    *,
    inputs: Mapping[str, str | Path | Artifact] | None = None,
    parameters: Mapping[str, Any] | None = None,
    runner: str = "process",
    root: Path | None = None,
    timeout: float | None = None,
) -> Outputs:
    """Run one component alone and return what it gave.

    It runs as the local engine runs a task of a pipeline: compiled, in a process or container of its own, its outputs
    collected and held to their declared types. Nothing is reused from an earlier run.

    Args:
        component: What `@dsl.component` or `@dsl.container_component` made.
        inputs: Artifact inputs by name: paths of files or folders, or artifacts that another component gave.
        parameters: Parameters by name; those with a default can be left out.
        runner: "process", or "docker" for a container of the component's image.
        root: Folder of runs, which stays; None: a temporary one, which goes when this process ends.
        timeout: Seconds after which the component is ended and has failed.

    Raises:
        ComponentFailed: it failed, with its own message.
        PenstockError: it cannot be run: an input is unknown, missing, or not there.
    """
    from penstock.compile.to_kfp import compiled, is_compilable

    if runner not in RUNNERS:
        raise PenstockError(f"there is no runner {runner}; there are {', '.join(RUNNERS)}")
    if not is_compilable(component):
        raise PenstockError(f"{component!r} is no component; decorate the function with @dsl.component")
    folder = root or temporary()
    spec = compiled(component)
    pipeline = from_kfp.parse(spec.text, spec.name)
    values = {**_artifacts(pipeline, inputs or {}), **_parameters(pipeline, parameters or {})}
    path = Path(tempfile.mkdtemp(dir=temporary())) / f"{spec.name}.yaml"
    spec.write(path)
    record = local.run(path, values, root=folder, jobs=1, runner=RUNNERS[runner], reuse=False, timeout=timeout)
    own, log = Path(record.folder), "".join(_logs(record))
    if record.state is not State.SUCCEEDED:
        codes = [task.exit_code for task in record.tasks if task.exit_code]
        message = record.error or "; ".join(task.error for task in record.tasks if task.error)
        raise ComponentFailed(message or f"{spec.name} was {record.state}", log, codes[0] if codes else None, own)
    return Outputs(
        parameters=record.outputs.parameters,
        artifacts={name: _artifact(items[0], own) for name, items in record.outputs.artifacts.items() if items},
        metrics={name: value for task in record.tasks for name, value in task.metrics.items()},
        log=log,
        folder=own,
    )


def _artifacts(pipeline: graph.Pipeline, inputs: Mapping[str, str | Path | Artifact]) -> dict[str, str]:
    for name in inputs:
        if name in pipeline.inputs.parameters:
            raise PenstockError(f"{pipeline.name}: {name} is a parameter; give it in parameters={{…}}")
    return {name: str(value.path if isinstance(value, Artifact) else value) for name, value in inputs.items()}


def _parameters(pipeline: graph.Pipeline, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in parameters:
        if name in pipeline.inputs.artifacts:
            raise PenstockError(f"{pipeline.name}: {name} is an artifact; give its path in inputs={{…}}")
    return parameters


def _artifact(record: ArtifactRecord, folder: Path) -> Artifact:
    return Artifact(record.name, folder / record.uri, record.type, record.metadata)


def _logs(record: RunRecord) -> Iterator[str]:
    for task in record.tasks:
        if task.log and (path := Path(record.folder) / task.log).is_file():
            yield path.read_text(errors="replace")


@functools.cache
def temporary() -> Path:
    """Return a folder that goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-component-"))
    atexit.register(shutil.rmtree, folder, True)
    return folder
