"""Keeps the record of a run, on disk and for those who watch."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.compile import graph, launcher
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State, TaskRecord, Values

_METRICS = "system.Metrics"


class Journal:
    """The record of one run. Changes are gathered until `flush` writes run.json, whole, and tells the observer."""

    def __init__(self, record: RunRecord, observe: Callable[[RunRecord], None] | None) -> None:
        self.folder = Path(record.folder)
        self._record = record
        self._observe = observe
        self._begin = time.monotonic()
        self._tasks: dict[str, TaskRecord] = {}
        self._texts: dict[str, str] = {}
        self._changed = True

    @property
    def record(self) -> RunRecord:
        """The record as it is now."""
        return self._record

    def __getitem__(self, path: str) -> TaskRecord:
        return self._tasks[path]

    def put(self, task: TaskRecord) -> None:
        """Take a task's new record."""
        self._tasks[task.path] = task
        self._texts.pop(task.path, None)
        self._changed = True

    def cancel(self) -> None:
        """Note that whatever has not ended never will."""
        for task in list(self._tasks.values()):
            if task.state in (State.PENDING, State.RUNNING):
                self.put(dataclasses.replace(task, state=State.CANCELLED))

    def end(self, state: State, outputs: Values, error: str | None) -> None:
        """Take the run's end."""
        self._record = dataclasses.replace(self._record, state=state, outputs=outputs, error=error)
        self._changed = True

    def flush(self) -> None:
        """Write what has changed, and tell the observer."""
        if not self._changed:
            return
        self._changed = False
        seconds = round(time.monotonic() - self._begin, 3)
        self._record = dataclasses.replace(self._record, seconds=seconds, tasks=tuple(self._tasks.values()))
        for task in self._record.tasks:
            if task.path not in self._texts:
                self._texts[task.path] = json.dumps(dataclasses.asdict(task), allow_nan=False)
        head = dataclasses.replace(self._record, tasks=()).to_json()
        del head["tasks"]
        text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
        tasks = ",\n  ".join(self._texts[task.path] for task in self._record.tasks)
        target = self.folder / "run.json"
        half = target.with_name("run.json.unfinished")
        half.write_text(f'{text},\n "tasks": [\n  {tasks}\n ]\n}}\n', encoding="utf-8")
        os.replace(half, target)
        if self._observe:
            self._observe(self._record)

    def values(self, parameters: Mapping[str, Any], artifacts: Mapping[str, list[launcher.Artifact]]) -> Values:
        """Return parameters and artifacts as the record has them: what lies in the run's folder by relative paths."""
        return Values(
            dict(parameters), {name: [self._artifact(item) for item in items] for name, items in artifacts.items()}
        )

    def _artifact(self, artifact: launcher.Artifact) -> ArtifactRecord:
        uri = artifact.uri
        if uri.startswith(f"{self.folder}{os.sep}"):
            uri = os.path.relpath(uri, self.folder)
        kind = artifact.type
        named = graph.ArtifactType(kind.get("schemaTitle", ""), instance=kind.get("instanceSchema", ""))
        title = named.name or next(iter(kind.values()), "")
        return ArtifactRecord(artifact.name, title, uri, dict(artifact.metadata))


def metrics(artifacts: Mapping[str, list[launcher.Artifact]]) -> dict[str, float]:
    """Return the numbers that metrics artifacts hold, by name; where there are several artifacts, after the port's."""
    found = {
        port: {
            name: float(value)
            for artifact in items
            for name, value in artifact.metadata.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for port, items in artifacts.items()
        if items and items[0].type.get("schemaTitle") == _METRICS
    }
    several = len(found) > 1
    return {f"{port}.{name}" if several else name: value for port, one in found.items() for name, value in one.items()}


def now() -> str:
    """Return the time as records have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
