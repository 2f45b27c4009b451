"""Reads the runs below a root: which there are, what their records say, and whether they are at work."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.record import FORMAT, ArtifactRecord, RunRecord, State, TaskRecord, Values

LATEST = "latest"
KILLED = "KILLED"  # what RUNNING is called where no engine is at work any more
UNREADABLE = "UNREADABLE"


@dataclass(frozen=True)
class Run:
    """A folder of runs/.

    Attributes:
        folder: The folder, named by the run's id.
        record: What run.json says; of a run that was killed, what was at work then is cancelled. None: unreadable.
        state: State of the run, KILLED or UNREADABLE.
        problem: Why the record cannot be read.
        began: When it began; for an unreadable one, when its folder was changed.
    """

    folder: Path
    record: RunRecord | None
    state: str
    problem: str
    began: datetime.datetime

    @property
    def id(self) -> str:
        """Its id."""
        return self.folder.name

    def json(self) -> Any:
        """Return what run.json holds.

        Raises:
            PenstockError: it cannot be read.
        """
        return _json(self.folder)

    @property
    def seconds(self) -> float | None:
        """How long it took, or has taken so far; None where that is not known."""
        if self.record is None or self.state == KILLED:
            return None
        if self.state == State.RUNNING:
            since = self.record.resumed[-1] if self.record.resumed else self.record.started
            return (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(since)).total_seconds()
        return self.record.seconds

    @property
    def progress(self) -> tuple[int, int]:
        """How many of its tasks need nothing more, and how many there are; those that hold others are not counted."""
        tasks = [task for task in self.record.tasks if task.kind != "dag"] if self.record else []
        return sum(task.state in (State.SUCCEEDED, State.SKIPPED) for task in tasks), len(tasks)


def is_alive(folder: Path) -> bool:
    """Return whether a run's engine is at work; also where that cannot be told."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        # Shared: two that look at the same time do not take each other for the engine.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def listed(root: Path) -> list[Run]:
    """Return the runs below a root, newest first. What cannot be read is among them."""
    try:
        folders = [path for path in (root / "runs").iterdir() if path.is_dir() and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PenstockError(f"{root / 'runs'}: cannot be read: {error.strerror}") from error
    return sorted(filter(None, map(_run, folders)), key=lambda run: (run.began, run.id), reverse=True)


def find(root: Path, name: str) -> Run:
    """Return the run with an id, or with the only id that starts so; the newest for "latest".

    Raises:
        PenstockError: there is none, or more than one.
    """
    found = listed(root)
    if not found:
        raise PenstockError(f"there is no run in {root / 'runs'}; --root names another folder")
    if name == LATEST:
        return found[0]
    matching = [run for run in found if run.id.startswith(name)]
    for run in matching:
        if run.id == name or len(matching) == 1:
            return run
    if matching:
        raise PenstockError(f"{name} begins the ids of {len(matching)} runs: {_ids(matching)}")
    raise PenstockError(f"there is no run {name} in {root / 'runs'}; known: {_ids(found)}")


def read(folder: Path) -> RunRecord:
    """Return a run's record. What a newer version has added to it is left out.

    Raises:
        PenstockError: there is none, or it is not the record of a run.
    """
    content = _json(folder)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        return _record(content, Path(os.path.abspath(folder)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PenstockError(f"{folder / 'run.json'}: not the record of a run: {_shown(error)}") from error


def of_killed(record: RunRecord) -> RunRecord:
    """Return the record of a run whose engine was killed: what was at work then has been cancelled."""
    tasks = tuple(
        dataclasses.replace(task, state=State.CANCELLED) if task.state in (State.PENDING, State.RUNNING) else task
        for task in record.tasks
    )
    return dataclasses.replace(
        record, tasks=tasks, state=State.CANCELLED, error="the engine was gone before the run had ended"
    )


def _run(folder: Path) -> Run | None:
    try:
        began = datetime.datetime.fromtimestamp(folder.stat().st_mtime, datetime.UTC)
    except FileNotFoundError:  # it is being removed
        return None
    # In this order: one that ends in between is not taken for killed.
    alive = is_alive(folder)
    try:
        record = read(folder)
    except PenstockError as error:
        # One that has just begun has no record yet.
        return Run(folder, None, State.RUNNING if alive else UNREADABLE, str(error), began)
    began = datetime.datetime.fromisoformat(record.started)
    if record.state is State.RUNNING and not alive:
        return Run(folder, of_killed(record), KILLED, "", began)
    return Run(folder, record, record.state, "", began)


def _json(folder: Path) -> Any:
    path = folder / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PenstockError(f"{path}: there is none") from error
    except OSError as error:
        raise PenstockError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PenstockError(f"{path}: not the record of a run: {_shown(error)}") from error


def _shown(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _record(content: Mapping[str, Any], folder: Path) -> RunRecord:
    values = _known(RunRecord, content) | {
        "state": State(content["state"]),
        "tasks": tuple(map(_task, content["tasks"])),
        "outputs": _values(content.get("outputs", {})),
        "resumed": tuple(content.get("resumed", ())),
        "warnings": tuple(content.get("warnings", ())),
        # Where it is now, not where it was made.
        "folder": str(folder),
    }
    record = RunRecord(**values)
    for time in (record.started, *record.resumed, *(task.started for task in record.tasks if task.started)):
        if not datetime.datetime.fromisoformat(time).tzinfo:
            raise ValueError(f"{time} has no time zone")
    return record


def _task(content: Mapping[str, Any]) -> TaskRecord:
    values = _known(TaskRecord, content) | {
        "state": State(content["state"]),
        "depends_on": tuple(content.get("depends_on", ())),
        "retries": tuple(content.get("retries", ())),
        "inputs": _values(content.get("inputs", {})),
        "outputs": _values(content.get("outputs", {})),
    }
    return TaskRecord(**values)


def _values(content: Mapping[str, Any]) -> Values:
    artifacts = {
        name: [ArtifactRecord(**_known(ArtifactRecord, item)) for item in items]
        for name, items in content.get("artifacts", {}).items()
    }
    return Values(dict(content.get("parameters", {})), artifacts)


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that `content` has; those of plain types hold what they should."""
    found = {}
    for name, types in _fields(kind).items():
        if name in content:
            if types and not isinstance(content[name], types):
                raise TypeError(f"{name} is {content[name]!r}")
            found[name] = content[name]
    return found


@functools.cache
def _fields(kind: type) -> dict[str, tuple[type, ...]]:
    plain = {"str": (str,), "int": (int,), "float": (int, float), "dict": (dict,), "None": (type(None),)}
    found: dict[str, tuple[type, ...]] = {}
    for field in dataclasses.fields(kind):
        names = [name.partition("[")[0].strip() for name in str(field.type).split(" | ")]
        known = all(name in plain for name in names)
        found[field.name] = tuple(each for name in names for each in plain[name]) if known else ()
    return found


def _ids(found: list[Run], most: int = 8) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(run.id for run in found[:most]) + more
