"""Persistent volumes as folders, ROOT/volumes/NAME: what claims of a cluster are on this machine.

KFP creates and deletes claims in tasks of two images that do not exist; Kubeflow's driver carries them out, and so does
the engine.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.compile import commands, graph
from penstock.compile.launcher import TaskError

_CREATE = "argostub/createpvc"
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")  # as Kubernetes has it, so never a path
_LONGEST_NAME = 253


def is_volume_task(component: graph.Component) -> bool:
    """Return whether tasks of a component create or delete a volume, in place of running a command."""
    return isinstance(component.body, graph.Container) and component.body.image in commands.VOLUME_IMAGES


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a volume.

    Raises:
        ValueError: so it is; the message says why.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a volume: small letters, digits, '-' and '.' make one, at most 253")


def find(volumes: Path, name: str) -> Path:
    """Return the folder of a volume.

    Args:
        volumes: Folder of all volumes. What is in it may be links to folders elsewhere.
        name: Name of the volume.

    Raises:
        ValueError: there is no such volume; the message says what to do.
    """
    check_name(name)
    whole = volumes / name
    if not whole.is_dir():
        raise ValueError(f"there is no volume {name}; make the folder {whole}, or a link there to where its content is")
    return whole


def part(volumes: Path, name: str, sub_path: str) -> Path:
    """Return a folder in a volume, made where it is not there; of an empty path, the volume's own.

    Raises:
        ValueError: there is no such volume, or the path leads out of it; the message says what to do.
    """
    whole = find(volumes, name)
    inner = (whole / sub_path).resolve()
    if Path(sub_path).is_absolute() or not inner.is_relative_to(whole.resolve()):
        raise ValueError(f"the path {sub_path} leads out of the volume {name}")
    try:
        inner.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{inner}: cannot be made: {error.strerror}") from error
    return inner if sub_path else whole


def created(pipeline: graph.Pipeline) -> Iterator[str | None]:
    """Yield the names of the volumes that a pipeline creates; None where only the run will tell."""
    for _, task in pipeline.walk():
        body = task.component.body
        if isinstance(body, graph.Container) and body.image == _CREATE:
            given = task.inputs.get("pvc_name")
            source = given.source if given else None
            yield str(source.value) if isinstance(source, graph.Constant) and source.value else None


def carry_out(
    task: graph.Task, parameters: Mapping[str, Any], volumes: Path, names: Mapping[str, str]
) -> dict[str, Any]:
    """Create or delete a volume as a task asks for it, and return the task's output parameters.

    Sizes, access modes, storage classes and annotations say nothing to a folder.

    Args:
        task: One for which `is_volume_task` holds.
        parameters: Its input parameters, bound.
        volumes: Folder of all volumes.
        names: Values of the system placeholders.

    Raises:
        TaskError: the volume is there already, or is not there, or its name cannot be one.
    """
    assert isinstance(task.component.body, graph.Container)
    try:
        if task.component.body.image == _CREATE:
            return {"name": _create(parameters, volumes, names)}
        _delete(str(parameters.get("pvc_name") or ""), volumes)
        return {}
    except ValueError as error:
        raise TaskError(f"{task.name}: {error}") from error
    except OSError as error:
        raise TaskError(f"{task.name}: {error.filename or volumes}: {error.strerror}") from error


def _create(parameters: Mapping[str, Any], volumes: Path, names: Mapping[str, str]) -> str:
    name, suffix = parameters.get("pvc_name") or "", parameters.get("pvc_name_suffix") or ""
    if name and suffix:
        raise ValueError("takes one of pvc_name and pvc_name_suffix, was given both")
    for unknown in ("volume_name", "data_source"):
        if parameters.get(unknown):
            raise ValueError(
                f"{unknown} is of a cluster, and this machine does not have it; make a link to the data in {volumes} "
                "and mount it under the link's name"
            )
    if name:
        check_name(name)
    else:
        # Unlike the run's name alone, it is a new one in every iteration of a loop.
        end = f"-{secrets.token_hex(4)}{suffix}"
        run = re.sub(r"[^-.a-z0-9]+", "-", names["pipeline_job_name"].lower()).strip("-.") or "volume"
        name = run[: max(_LONGEST_NAME - len(end), 1)] + end
        check_name(name)
    volumes.mkdir(parents=True, exist_ok=True)
    try:
        (volumes / name).mkdir()
        (volumes / name).chmod(0o777)  # images have users of their own
    except FileExistsError:
        raise ValueError(
            f"the volume {name} is there already, as {volumes / name}; remove it, or let pvc_name_suffix name a new one"
        ) from None
    return name


def _delete(name: str, volumes: Path) -> None:
    check_name(name)
    path = volumes / name
    if path.is_symlink():  # to data of the user's own, which stay
        path.unlink()
        return
    if not path.is_dir():
        raise ValueError(f"there is no volume {name} in {volumes}")
    aside = path.with_name(f".{name[:200]}.{secrets.token_hex(4)}")  # gone at once, however long removing it takes
    path.rename(aside)
    shutil.rmtree(aside)
