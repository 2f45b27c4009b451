"""What is known of a run: the content of run.json, and what observers of a run are given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FORMAT = "penstock.run/1"


class State(StrEnum):
    """State of a run or a task."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # its condition is false, or what it depends on was skipped
    CANCELLED = "CANCELLED"  # not started because what it needs failed, or stopped because the run ended


@dataclass(frozen=True)
class ArtifactRecord:
    """An artifact as it went into or came out of a task; `uri` is relative to the run folder where it lies there."""

    name: str
    type: str
    uri: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Values:
    """Parameters and artifacts by port; an artifact port holds a list of artifacts."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[ArtifactRecord]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskRecord:
    """A task of the run.

    Attributes:
        path: Names of the enclosing DAG tasks and of the task, joined with dots; unique in the run.
        name: Name to show, the last of the path where the spec has no other.
        kind: "container" for a task that runs something, "importer" for one that takes in an artifact, "dag" for one
            that holds others; so are the iterations of a loop, named 0, 1, ….
        depends_on: Paths of the tasks it waits for, in its own scope.
        condition: Condition under which it runs, as the spec has it.
        log: Log file, relative to the run folder.
        metrics: Numbers that its metrics artifacts hold.
        error: The component's own message.
        retries: Why each attempt before the last one failed.
        runner: What ran its command, "process" or "container"; None for what runs no command.
        reused: Run and task, as ID/PATH, whose outputs it took over in place of running.
    """

    path: str
    name: str
    kind: str
    depends_on: tuple[str, ...] = ()
    condition: str | None = None
    state: State = State.PENDING
    started: str | None = None
    seconds: float | None = None
    inputs: Values = field(default_factory=Values)
    outputs: Values = field(default_factory=Values)
    metrics: dict[str, float] = field(default_factory=dict)
    log: str | None = None
    exit_code: int | None = None
    error: str | None = None
    retries: tuple[str, ...] = ()
    runner: str | None = None
    reused: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run of a pipeline. Times are ISO 8601 in UTC.

    Attributes:
        resumed: When it was taken up again after it had failed or was killed; `seconds` counts from the last time.
        cwd: Folder in which it was started: relative paths of its parameters start there.
        runner: What its commands run in: "auto", "subprocess" or "docker".
        warnings: What the spec asks for and this machine does not give.
    """

    id: str
    pipeline: str
    folder: str
    spec_sha256: str
    parameters: dict[str, Any]
    state: State
    started: str
    seconds: float
    tasks: tuple[TaskRecord, ...]
    outputs: Values = field(default_factory=Values)
    error: str | None = None
    resumed: tuple[str, ...] = ()
    cwd: str = ""
    runner: str = "auto"
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what run.json holds."""
        return {"format": FORMAT, **dataclasses.asdict(self)}
