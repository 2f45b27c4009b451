"""Carries out one task of a run: takes over what it gave before, or runs it in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from penstock.compile import graph, launcher
from penstock.compile.targets.local import convert, reuse
from penstock.compile.targets.local.fingerprint import fingerprint
from penstock.compile.targets.local.journal import now
from penstock.compile.targets.local.schedule import Done, Work


@dataclass(frozen=True)
class Execution:
    """Runs tasks, any number at once.

    Attributes:
        folder: The run's folder.
        env: Environment of processes.
        store: Keeps what tasks gave.
        reusing: Whether what tasks of other runs gave is taken over.
        resuming: Whether the run was at work before.
        stop: Ends everything.
        remove: Removes a folder, now or later.
    """

    folder: Path
    env: Mapping[str, str]
    store: reuse.Store
    reusing: bool
    resuming: bool
    stop: launcher.Stop
    remove: Callable[[Path], object]

    def __call__(self, work: Work) -> Done:
        """Return what came of a task.

        Raises:
            TaskError: it failed.
            Stopped: it was ended.
        """
        folder = self.folder / "tasks" / convert.folder_name(work.path)
        task = convert.task(work.task)
        parameters = launcher.bind(task, work.parameters)
        given = self.store.given(work.task, parameters, work.artifacts)
        if self.resuming and (before := self.store.resumed(folder, given, task)):
            own = before.source == self._source(work)
            return Done(
                before.outputs,
                "process" if own else None,
                None if own else before.source,
                before.started,
                before.seconds,
            )
        key = None
        if _reusable(work.task):
            key = self.store.key(work.task, parameters, work.artifacts, _names_used(work), self._code)
        if self.reusing and key and (found := self.store.found(key, folder, given, task)):
            return Done(found.outputs, reused=found.source)
        return self._run(work, task, folder, given, key)

    def _run(self, work: Work, task: launcher.Task, folder: Path, given: str, key: str | None) -> Done:
        reuse.forget(folder)
        started, begin = now(), time.monotonic()
        outputs = launcher.run(
            task,
            work.parameters,
            work.artifacts,
            folder,
            names=work.names,
            env=self.env,
            stop=self.stop,
            remove=self.remove,
            again=work.again,
        )
        seconds = round(time.monotonic() - begin, 3)
        self.store.keep(
            folder, outputs, source=self._source(work), given=given, key=key, started=started, seconds=seconds
        )
        return Done(outputs, "process", started=started, seconds=seconds)

    def _source(self, work: Work) -> str:
        return f"{self.folder.name}/{work.path}"

    @cached_property
    def _code(self) -> str:
        return fingerprint()


def _reusable(task: graph.Task) -> bool:
    """Return whether the spec lets a task be reused, and something would be left of it.

    One without outputs is there for what it does, and one that hears how others ended for what it does about that.
    """
    hears = any(isinstance(given.source, graph.FinalStatus) for given in task.inputs.values())
    return task.caching.enabled and not hears and any(True for _ in task.component.outputs)


def _names_used(work: Work) -> dict[str, str]:
    """Return the system placeholders of a task's command, with their values."""
    body = work.task.component.body
    texts = [*body.command, *body.args, *body.env.values()] if isinstance(body, graph.Container) else []
    used = {steps[0] for text in texts for steps in launcher.placeholders(text) if len(steps) == 1}
    return {name: value for name, value in work.names.items() if name in used}
