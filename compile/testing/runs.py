"""How stand-ins run what they are given: for real, in the local engine, or by a script of states."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.compile import graph
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import runs as records
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord, Values

_LONGEST_ENDING = 20.0  # seconds that a run may take to end its tasks; then it is killed
TERMINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Job:
    """What is to run.

    Attributes:
        id: Name of the run; a folder is named after it.
        spec: The spec's bytes, as they were sent.
        pipeline: What the bytes say.
        parameters: Values by input; paths or URIs for artifacts.
        folder: Folder that the stand-in has for all runs; it is there.
    """

    id: str
    spec: bytes
    pipeline: graph.Pipeline
    parameters: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        cancelling: Whether it has been asked to end and has not ended.
        folder: Folder of the run on this machine; None where nothing runs.
    """

    state: State
    tasks: tuple[TaskRecord, ...] = ()
    outputs: Values = field(default_factory=Values)
    error: str = ""
    cancelling: bool = False
    folder: Path | None = None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class Run(Protocol):
    """A run that has been started."""

    def poll(self) -> Progress:
        """Return how far it is; asked whenever a client asks for it."""

    def peek(self) -> Progress:
        """Return how far it is, for a list: that does not move a script on."""

    def cancel(self) -> None:
        """Begin to end it."""

    def close(self) -> None:
        """End it, now."""


class Play(Protocol):
    """A way of running things."""

    def start(self, job: Job, *, again: bool = False) -> Run:
        """Start a run, or one that has failed or was cancelled once more."""


@dataclass(frozen=True)
class Engine:
    """Runs specs for real, each in a process of its own that ends with the stand-in.

    Attributes:
        root: Folder of runs, which stays; None: in the stand-in's folder, which goes with it.
        runner: "subprocess", "docker" or "auto", as for `penstock run --runner`.
        jobs: Tasks that may run at the same time.
        reuse: Whether tasks take over what the same tasks gave before, where the spec allows it.
    """

    root: Path | None = None
    runner: str = "auto"
    jobs: int = 2
    reuse: bool = True

    def start(self, job: Job, *, again: bool = False) -> Run:
        """Start a run; again: its tasks that had succeeded are not run again."""
        return _EngineRun(job, self, again)


@dataclass(frozen=True)
class Script:
    """Runs nothing: tells of states as a test wants them.

    Attributes:
        states: What one poll after the other is told, divided by blanks; the last one stays.
        error: Message of the run if it fails.
        tasks: How tasks end, by path; those that are not named end as the run does.
        cancelling: Polls that are told "cancelling" after a cancel.
    """

    states: str = "PENDING RUNNING SUCCEEDED"
    error: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    cancelling: int = 0

    def __post_init__(self) -> None:
        for name in (*self.states.split(), *self.tasks.values()):
            if name not in State.__members__:
                raise PenstockError(f"{name} is no state of a script; there are {', '.join(State)}")
        if not self.states.split():
            raise PenstockError("a script needs a state, for example Script('PENDING RUNNING SUCCEEDED')")

    def start(self, job: Job, *, again: bool = False) -> Run:
        """Start a run, always from the beginning of the script."""
        for path in self.tasks:
            if path not in (known := [path for path, _ in job.pipeline.walk()]):
                raise PenstockError(f"the script names a task {path}; {job.pipeline.name} has {', '.join(known)}")
        return _ScriptRun(job, self)


class _EngineRun:
    def __init__(self, job: Job, engine: Engine, again: bool) -> None:
        self._asked = False
        self._last: Progress | None = None
        spec = job.folder / f"{job.id}.spec"
        spec.write_bytes(job.spec)
        root = engine.root or job.folder
        self._folder = root / "runs" / job.id
        self._error = job.folder / f"{job.id}.stderr"
        wish = {
            "spec": str(spec),
            "parameters": dict(job.parameters),
            "root": str(root),
            "jobs": engine.jobs,
            "runner": engine.runner,
            "reuse": engine.reuse,
            "run_id": job.id,
            "again": again and (self._folder / "run.json").exists(),
        }
        with self._error.open("wb") as error:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock.testing.engine_process"],
                stdin=subprocess.PIPE,
                stdout=error,
                stderr=error,
                start_new_session=True,  # Ctrl-C is for the test, which ends this in its own way
            )
        assert self._process.stdin is not None
        # The rest of stdin stays open: its end tells the process that nobody waits for the run any more.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(wish).encode() + b"\n")
            self._process.stdin.flush()

    def poll(self) -> Progress:
        if self._last is not None:
            return self._last
        ended = self._process.poll() is not None  # before the record is read: it is whole then
        record = self._record()
        if not ended:
            if record is None:
                return Progress(State.PENDING, cancelling=self._asked)
            return Progress(State.RUNNING, record.tasks, cancelling=self._asked, folder=self._folder)
        self._last = self._at_end(record)
        return self._last

    peek = poll

    def _at_end(self, record: RunRecord | None) -> Progress:
        if record is None:
            if self._asked:
                return Progress(State.CANCELLED, error="cancelled before it began")
            said = self._error.read_text(errors="replace").strip().splitlines()
            return Progress(State.FAILED, error=said[-1] if said else f"ended with {self._process.returncode}")
        if record.state not in TERMINAL:  # it was killed
            record = records.of_killed(record)
        failed = [f"{task.path}: {task.error}" for task in record.tasks if task.error and task.kind != "dag"]
        return Progress(
            record.state, record.tasks, record.outputs, record.error or "; ".join(failed), folder=self._folder
        )

    def _record(self) -> RunRecord | None:
        try:
            return records.read(self._folder)
        except PenstockError:
            return None

    def cancel(self) -> None:
        if self._process.poll() is None:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        self.cancel()
        try:
            self._process.wait(_LONGEST_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the engine's guard ends its tasks
            self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class Steps:
    """Where a script is."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._states = [State(name) for name in script.states.split()]
        self._told = -1
        self._cancelling: int | None = None

    def poll(self) -> tuple[State, bool]:
        """Return the next state, and whether it is cancelling."""
        if self._cancelling is None:
            self._told = min(self._told + 1, len(self._states) - 1)
        found = self.peek()
        if self._cancelling:
            self._cancelling -= 1
        return found

    def peek(self) -> tuple[State, bool]:
        """Return the state that was told last."""
        if self._cancelling is not None:
            return (State.RUNNING, True) if self._cancelling else (State.CANCELLED, False)
        return self._states[max(self._told, 0)], False

    def cancel(self) -> None:
        """Begin to end, if it has not ended."""
        if self._cancelling is None and self.peek()[0] not in TERMINAL:
            self._cancelling = self.script.cancelling


class _ScriptRun:
    def __init__(self, job: Job, script: Script) -> None:
        self._job = job
        self._script = script
        self._steps = Steps(script)

    def poll(self) -> Progress:
        return self._progress(*self._steps.poll())

    def peek(self) -> Progress:
        return self._progress(*self._steps.peek())

    def cancel(self) -> None:
        self._steps.cancel()

    close = cancel

    def _progress(self, state: State, cancelling: bool) -> Progress:
        ended = state in TERMINAL
        error = self._script.error if state is State.FAILED else ""
        tasks = tuple(self._task(path, task, state, ended) for path, task in self._job.pipeline.walk())
        return Progress(state, tasks, error=error, cancelling=cancelling)

    def _task(self, path: str, task: graph.Task, state: State, ended: bool) -> TaskRecord:
        own = State(self._script.tasks[path]) if ended and path in self._script.tasks else state
        kind = {graph.Dag: "dag", graph.Importer: "importer"}.get(type(task.component.body), "container")
        error = (self._script.error or "failed, as the script says") if own is State.FAILED else None
        parent, _, _ = path.rpartition(".")
        before = tuple(f"{parent}.{name}" if parent else name for name in task.depends_on)
        return TaskRecord(path, task.title or task.name, kind, before, state=own, error=error)
