"""The order in which people are shown the tasks of a run: parents before children, producers before consumers."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.compile.targets.local.record import State, TaskRecord

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


def titles(tasks: Sequence[TaskRecord]) -> dict[str, str]:
    """Return what to call each task that is no DAG, by path: its own name, in a loop with the iteration behind it.

    Where two would be called the same, both go by their paths, but for the one that was not skipped of several.
    """
    found = {task.path: title(task.path, task.name) for task in tasks if task.kind != "dag"}
    taken = {task.path for task in tasks if task.state != State.SKIPPED}
    times, times_taken = Counter(found.values()), Counter(name for path, name in found.items() if path in taken)

    def is_plain(path: str, name: str) -> bool:
        return times[name] == 1 or (path in taken and times_taken[name] == 1)

    return {path: name if is_plain(path, name) else path for path, name in found.items()}


def title(path: str, name: str) -> str:
    """Return a task's name with the iterations behind it that it is inside of, as in train[0]."""
    scopes = path.split(".")
    iterations = "".join(f"[{scope}]" for scope in scopes if scope.isdecimal())
    if name == scopes[-1] and name.isdecimal():  # of a loop over one task, the iteration is the task
        name = next((scope for scope in reversed(scopes) if not scope.isdecimal()), name)
    return name if iterations and name.endswith(iterations) else name + iterations


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
    # A display name may stand for the name that the component knows itself by, and KFP writes its hyphens otherwise.
    last = task.path.rpartition(".")[2]
    said = task.error
    for name in (task.name, last, last.replace("-", "_")):
        said = said.removeprefix(f"{name}: ")
    return said


def short(condition: str) -> str:
    """Return a condition as a person would write it, without the IR's wrapping of names."""
    return _WRAPPED.sub(r"\1", condition)
