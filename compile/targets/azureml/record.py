"""What is known of a job that runs on this machine: the content of its run.json, and what observers are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FORMAT = "penstock.azureml-run/1"


class State(StrEnum):
    """State of a step or a job, in Azure's words."""

    NOT_STARTED = "NotStarted"  # also at the end, where a step that it needs failed or the job was ended
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True)
class StepRecord:
    """A step of a job.

    Attributes:
        path: Path of the task that it runs; empty for one that the conversion added.
        folder: Its folder, with log.txt and outputs/.
        after: Names of the steps whose outputs it takes.
        started: ISO 8601 in UTC; empty where it has not started.
        compute: Where it would run on Azure.
        runner: What ran its command here, "process" or "container".
        error: Why it failed, where that is not what its command said.
    """

    name: str
    path: str
    state: State
    folder: str
    after: tuple[str, ...] = ()
    seconds: float = 0.0
    exit_code: int | None = None
    started: str = ""
    compute: str = ""
    image: str = ""
    runner: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Artifact:
    """What a task left; `location` is where it is on this machine, empty where it is elsewhere or only metadata."""

    name: str
    type: Mapping[str, str]
    metadata: Mapping[str, Any]
    location: str


@dataclass(frozen=True)
class Task:
    """What a task of the pipeline came to, as its step says.

    Attributes:
        state: SUCCEEDED, FAILED, SKIPPED, CANCELLED; ABSENT for an iteration that the loop did not have.
    """

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    error: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Record:
    """A job.

    Attributes:
        started: ISO 8601 in UTC.
        steps: In the order of the job.
        tasks: Tasks by path, as far as their steps have ended and said something.
        inputs: What the job was given.
        outputs: Parameters that the pipeline gives.
        artifacts: Artifacts that the pipeline gives, by output.
        error: Why it was ended before its end.
        warnings: What is done here that Azure would not do.
    """

    id: str
    pipeline: str
    state: State
    folder: str
    started: str
    seconds: float
    steps: tuple[StepRecord, ...]
    tasks: Mapping[str, Task] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    error: str | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what run.json holds."""
        return {"format": FORMAT, **dataclasses.asdict(self)}
