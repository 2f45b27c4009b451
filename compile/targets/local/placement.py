"""Decides where a task's command runs: in a process or in a container."""

from __future__ import annotations

from enum import StrEnum

from penstock.compile import commands, graph

RUNNERS = ("auto", "subprocess", "docker")


class Place(StrEnum):
    """Where a command runs; NONE: there is no command, the engine does the work."""

    PROCESS = "process"
    CONTAINER = "container"
    NONE = "none"


def place(task: graph.Task, runner: str) -> Place:
    """Return where a task's command runs.

    Args:
        task: The task.
        runner: One of RUNNERS. "auto" takes processes for lightweight Python components, whose code is in the spec, and
            containers for those that are made of their image.
    """
    body = task.component.body
    if isinstance(body, graph.Importer):
        return Place.PROCESS
    if not isinstance(body, graph.Container) or body.image in commands.VOLUME_IMAGES:
        return Place.NONE
    if runner == "docker" or (runner == "auto" and not commands.is_lightweight(body)):
        return Place.CONTAINER
    return Place.PROCESS
