"""From the graph to what the launcher takes, of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.compile import commands, graph, launcher, to_launcher

Imported = dict[str, launcher.Artifact]

_LONGEST_FOLDER = 180  # of 255 bytes that file systems allow


def task(task: graph.Task, *, installs: bool = False) -> launcher.Task:
    """Return a task as the launcher takes it.

    Args:
        task: The task.
        installs: Whether its command keeps the part that installs packages.
    """
    body = task.component.body
    if not isinstance(body, graph.Container):
        return to_launcher.task(task, ())
    command = body.command if installs else commands.without_install(body.command)
    return dataclasses.replace(to_launcher.task(task, command), before=body.pre_cache_check)


def import_source(
    task: graph.Task, body: graph.Importer, parameters: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """Return the URI of what an importer takes in, and the metadata that it gives it.

    Raises:
        TaskError: a placeholder has no value, or there is no URI.
    """
    given = {"inputs": {"parameterValues": parameters}}
    uri = body.uri.value if isinstance(body.uri, graph.Constant) else parameters.get(body.uri.name)
    try:
        uri = launcher.fill(uri, given, names)
        metadata = launcher.fill(dict(body.metadata), given, names)
    except launcher.TaskError as error:
        raise launcher.TaskError(f"{task.name}: {error}") from error
    if not isinstance(uri, str) or not uri:
        raise launcher.TaskError(f"{task.name}: its URI is {uri!r}")
    return uri, metadata


def is_remote(uri: str) -> bool:
    """Return whether a URI names something that is not on this machine."""
    return "://" in uri.removeprefix("file://")


def imported(task: graph.Task, body: graph.Importer, uri: str, metadata: Mapping[str, Any], here: Path) -> Imported:
    """Return the artifact of this machine that an importer takes in, by the name of its output.

    Raises:
        TaskError: it is not there.
    """
    name = next(iter(task.component.outputs.artifacts), "artifact")
    try:
        return {name: local_artifact(name, body.type, uri, here, metadata)}
    except launcher.TaskError as error:
        raise launcher.TaskError(f"{task.name}: {error}") from error


def local_artifact(
    name: str, kind: graph.ArtifactType, uri: str, here: Path, metadata: Mapping[str, Any] | None = None
) -> launcher.Artifact:
    """Return a file or folder of this machine as an artifact.

    Raises:
        TaskError: the URI is remote, or nothing is there.
    """
    path = uri.removeprefix("file://")
    if is_remote(uri):
        raise launcher.TaskError(f"{uri.partition('?')[0]} is remote; give a path on this machine, or import it")
    whole = here / Path(path).expanduser()
    if not whole.exists():
        raise launcher.TaskError(f"{whole} is not there")
    return launcher.Artifact(name, to_launcher.artifact_type(kind), str(whole), dict(metadata or {}))


def iterations(
    task_: graph.Task,
    loop: graph.Loop,
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, list[launcher.Artifact]],
) -> Iterator[tuple[dict[str, Any], dict[str, list[launcher.Artifact]]]]:
    """Yield what each iteration of a loop is given.

    Raises:
        TaskError: there is nothing to loop over, or an item is of another type.
    """
    if loop.kind == "artifact":
        assert isinstance(loop.items, str)
        for artifact in artifacts.get(loop.items, []):
            yield dict(parameters), {**artifacts, loop.item: [artifact]}
        return
    items: Any = parameters.get(loop.items) if isinstance(loop.items, str) else list(loop.items)
    if isinstance(items, str):
        with contextlib.suppress(ValueError):
            items = json.loads(items)
    if not isinstance(items, list):
        raise launcher.TaskError(f"{task_.name}: loops over {loop.items}, which is not a list but {items!r}")
    for item in items:
        yield launcher.bind(task(task_), {**parameters, loop.item: item}), dict(artifacts)


def folder_name(path: str) -> str:
    """Return the folder of a task, shortened where a file system would not take the path."""
    if len(path.encode()) <= _LONGEST_FOLDER:
        return path
    return f"{path[:40]}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
