"""Tells programs of a run while it goes on: a line of JSON for each event, in a file, a FIFO or on stdout."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import sys
from itertools import compress
from operator import is_not
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.journal import now
from penstock.compile.targets.local.outbox import Outbox
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord

FORMAT = "penstock.event/1"
STDOUT = "-"

# Fields of run.json.
_TASK = (
    "path", "name", "kind", "state", "started", "seconds", "runner", "reused", "exit_code", "error", "retries", "log",
    "metrics",
)  # fmt: skip
_ROOM = 100_000  # events that wait for a slow reader
_LAST_WAIT = 5.0  # seconds that the end of the run waits for it


class Changes:
    """Finds the tasks whose state has changed, or that are tried again, since it was asked before.

    Records of tasks are replaced when they change and keep their place, so looking at all of them is one comparison of
    pointers each.
    """

    def __init__(self) -> None:
        self._before: tuple[TaskRecord, ...] = ()
        self._seen: dict[str, tuple[State, int]] = {}

    def __call__(self, record: RunRecord) -> list[TaskRecord]:
        """Return them: those that have ended, from the inside out, then those that have begun, from the outside in."""
        tasks, before = record.tasks, self._before
        self._before = tasks
        replaced = [*compress(tasks, map(is_not, tasks, before)), *tasks[len(before) :]]
        changed = [task for task in replaced if _stage(task) != self._seen.get(task.path, (State.PENDING, 0))]
        self._seen.update((task.path, _stage(task)) for task in changed)
        # What holds others begins before them and ends after them.
        began = [task for task in changed if task.state is State.RUNNING]
        ended = sorted((task for task in changed if task.state is not State.RUNNING), key=lambda task: -len(task.path))
        return [*ended, *began]


class Events:
    """An observer of a run that writes what happens as it happens. Neither waits for a reader nor ends for want of one.

    Args:
        target: File to append to, FIFO, or "-" for stdout.

    Raises:
        PenstockError: the file cannot be written.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._changes = Changes()
        self._count = 0
        self._warnings = 0
        self._ended = False
        self._problem = ""
        self._file: int | None = None
        if target == STDOUT:
            self._file = os.dup(sys.stdout.fileno())
        elif not _is_fifo(target):  # opening a FIFO waits for its reader
            try:
                self._file = _opened(target)
            except OSError as error:
                raise PenstockError(f"--events {target}: cannot be written: {error.strerror}") from error
        self._outbox: Outbox[dict[str, Any]] = Outbox(self._write, room=_ROOM)

    def __call__(self, record: RunRecord) -> None:
        """Take the run as it is now."""
        if not self._count:
            self._put(record, "run_started", _start(record))
        for warning in record.warnings[self._warnings :]:
            self._put(record, "warning", {"message": warning})
        self._warnings = len(record.warnings)
        for task in self._changes(record):
            self._put(record, "task", _task(task))
        if record.state is not State.RUNNING and not self._ended:
            self._ended = True
            self._put(record, "run_ended", _end(record))

    def close(self) -> str | None:
        """Write the rest, for a few seconds at most; return a warning where something could not be written."""
        lost = self._outbox.close(_LAST_WAIT)
        if self._file is not None and (not lost or self._problem):  # else a write may still be under way
            os.close(self._file)
        if not lost:
            return None
        reason = self._problem or ("its reader does not read" if self._file is not None else "nobody reads it")
        return f"--events {self._target}: {lost} of {self._count} events were not written: {reason}"

    def _put(self, record: RunRecord, kind: str, content: dict[str, Any]) -> None:
        self._count += 1
        head = {"format": FORMAT, "sequence": self._count, "time": now(), "run": record.id, "event": kind}
        self._outbox.put({**head, **content})

    def _write(self, event: dict[str, Any]) -> bool:
        if self._problem:
            return False
        line = json.dumps(event).encode() + b"\n"
        try:
            if self._file is None:
                self._file = _opened(self._target)
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            self._problem = error.strerror or str(error)
            return False
        return True


def _stage(task: TaskRecord) -> tuple[State, int]:
    return task.state, len(task.retries)


def _is_fifo(target: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(target).st_mode)
    except OSError:
        return False


def _opened(target: str) -> int:
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def _start(record: RunRecord) -> dict[str, Any]:
    known = [
        {"path": task.path, "name": task.name, "kind": task.kind, "depends_on": task.depends_on}
        for task in record.tasks
    ]
    return {
        "pipeline": record.pipeline,
        "folder": record.folder,
        "spec_sha256": record.spec_sha256,
        "started": record.started,
        "resumed": record.resumed,
        "tasks": known,
    }


def _task(task: TaskRecord) -> dict[str, Any]:
    return {**{name: getattr(task, name) for name in _TASK}, "outputs": dataclasses.asdict(task.outputs)}


def _end(record: RunRecord) -> dict[str, Any]:
    return {
        "state": record.state,
        "seconds": record.seconds,
        "error": record.error,
        "outputs": dataclasses.asdict(record.outputs),
    }
