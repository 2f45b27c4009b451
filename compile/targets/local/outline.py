"""The order in which people are shown the tasks of a run: parents before children, producers before consumers."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.compile.targets.local.record import TaskRecord

_WRAPPED = re.compile(r"inputs\.parameter_values\['(?:pipelinechannel--)?([^']*)'\]")


@dataclass(frozen=True)
class Outline:
    """A task and those it holds."""

    task: TaskRecord
    children: tuple[Outline, ...]


def outline(tasks: Sequence[TaskRecord]) -> tuple[Outline, ...]:
    """Return the tasks as a forest, each level in the order of its dependencies."""
    by_path = {task.path: task for task in tasks}
    inside: dict[str, list[TaskRecord]] = {}
    for task in tasks:
        inside.setdefault(_parent(task.path, by_path), []).append(task)

    def level(parent: str) -> tuple[Outline, ...]:
        return tuple(Outline(task, level(task.path)) for task in _sorted(inside.get(parent, [])))

    return level("")


def flat(forest: Sequence[Outline], depth: int = 0) -> Iterator[tuple[TaskRecord, int]]:
    """Yield every task with its depth, parents first."""
    for node in forest:
        yield node.task, depth
        yield from flat(node.children, depth + 1)


def _parent(path: str, known: dict[str, TaskRecord]) -> str:
    # Names may hold dots of their own.
    while "." in path:
        path = path.rpartition(".")[0]
        if path in known:
            return path
    return ""


def _sorted(tasks: Sequence[TaskRecord]) -> list[TaskRecord]:
    """Return the tasks of one scope, producers first, else as they came."""
    by_path = {task.path: task for task in tasks}
    missing = {task.path: {path for path in task.depends_on if path in by_path} for task in tasks}
    after: dict[str, list[str]] = {}
    for task in tasks:
        for path in sorted(missing[task.path]):
            after.setdefault(path, []).append(task.path)
    ready = deque(path for path, waits in missing.items() if not waits)
    done = []
    while ready:
        path = ready.popleft()
        done.append(by_path[path])
        for other in after.get(path, ()):
            missing[other].discard(path)
            if not missing[other]:
                ready.append(other)
    return done


def message(task: TaskRecord) -> str:
    """Return what a failed task said, without its own name before it."""
    if not task.error:
        return "it left no message; see its log"
    # A display name may stand for the name that the component knows itself by.
    return task.error.removeprefix(f"{task.name}: ").removeprefix(f"{task.path.rpartition('.')[2]}: ")


def short(condition: str) -> str:
    """Return a condition as a person would write it, without the IR's wrapping of names."""
    return _WRAPPED.sub(r"\1", condition)
