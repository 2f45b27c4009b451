"""The order in which people are shown the tasks of a run: parents before children, producers before consumers."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.compile.targets.local.record import State, TaskRecord

# Names of conditions, loops and exit handlers, as KFP's compiler numbers them.
_MADE_UP = re.compile(r"(condition|condition-branches|for-loop|exit-handler)-\d+")
_FORK = re.compile(r"condition-branches-\d+")
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
    """Return what to call each task that is no DAG, by path, as `Names` has it."""
    return names_of(task for task in tasks if task.kind != "dag")


def names_of(tasks: Iterable[TaskRecord]) -> dict[str, str]:
    """Return what to call each of some tasks, by path; those that began come first."""
    names = Names()
    began = sorted(tasks, key=lambda task: (task.state is State.SKIPPED or not task.started, task.started or ""))
    return {task.path: names.of(task) for task in began}


class Names:
    """What tasks are called: by their own names, in loops with the iteration behind them, if no other was before them.

    Else by their paths without what the compiler made up; where another is called so, too, by their paths.
    """

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    def of(self, task: TaskRecord) -> str:
        """Return what a task is called, from now on."""
        wanted = (title(task.path, task.name), _inside(task))
        return next((name for name in wanted if self._owners.setdefault(name, task.path) == task.path), task.path)


class Told:
    """Which tasks people are told of while a run goes on: its steps, and not the groups around them.

    A group stands for what it holds as long as it has not begun, if somebody named it; where it holds nothing; and
    where it failed though nothing in it did. Of branches that exclude one another, those that were not taken are told
    of only where none was.
    """

    def __init__(self, tasks: Iterable[TaskRecord] = ()) -> None:
        self._tasks: dict[str, TaskRecord] = {}
        self._groups: set[str] = set()
        self._broken: set[str] = set()  # groups in which something failed
        self._taken: dict[str, set[str]] = {}  # branches by what holds them
        self.take(tasks)

    def take(self, tasks: Iterable[TaskRecord]) -> None:
        """Take in tasks, new ones or as they are now."""
        for task in tasks:
            if task.path not in self._tasks:
                self._groups.update(parents(task.path))
            self._tasks[task.path] = task
            if task.state is State.FAILED:
                self._broken.update(parents(task.path))
            if task.state in (State.RUNNING, State.SUCCEEDED, State.FAILED):
                for fork, branch in _forks(task.path):
                    self._taken.setdefault(fork, set()).add(branch)

    def tells(self, task: TaskRecord) -> bool:
        """Return whether people are told of a task."""
        if task.path.rpartition(".")[2].isdecimal() and task.state is not State.FAILED and not task.started:
            return False  # an iteration that waits for others
        if not self._stands(task) or any(self._stands(group) for group in self._around(task)):
            return False
        return task.state is not State.SKIPPED or not any(
            self._taken.get(fork, set()) - {branch} for fork, branch in _forks(task.path)
        )

    def condition(self, task: TaskRecord) -> str | None:
        """Return the condition that a skipped task was skipped for: that of the outermost around it that was."""
        skipped = [group for group in (task, *self._around(task)) if group.state is State.SKIPPED]
        return skipped[-1].condition if skipped else None

    def _around(self, task: TaskRecord) -> Iterator[TaskRecord]:
        return (self._tasks[path] for path in parents(task.path) if path in self._tasks)

    def _stands(self, task: TaskRecord) -> bool:
        """Return whether a task is a step, or a group that stands for what it holds."""
        if task.path not in self._groups:
            return True
        if task.state is State.FAILED:
            return task.path not in self._broken
        last = task.path.rpartition(".")[2]
        return not task.started and not (task.name == last and _MADE_UP.fullmatch(last))


def _forks(path: str) -> Iterator[tuple[str, str]]:
    """Yield the paths of what holds branches that exclude one another, each with that of the branch a task is in."""
    branch = path
    for fork in parents(path):
        if _FORK.fullmatch(fork.rpartition(".")[2]):
            yield fork, branch
        branch = fork


def _inside(task: TaskRecord) -> str:
    *around, last = task.path.split(".")
    if last.isdecimal():
        return task.path
    scopes = [scope for scope in around if not (_MADE_UP.fullmatch(scope) or scope.isdecimal())]
    return title(task.path, ".".join([*scopes, task.name if _MADE_UP.fullmatch(last) else last]))


def title(path: str, name: str) -> str:
    """Return a task's name with the iterations behind it that it is inside of, as in train[0]."""
    scopes = path.split(".")
    iterations = "".join(f"[{scope}]" for scope in scopes if scope.isdecimal())
    if name == scopes[-1] and name.isdecimal():  # of a loop over one task, the iteration is the task
        name = next((scope for scope in reversed(scopes) if not scope.isdecimal()), name)
    return name if iterations and name.endswith(iterations) else name + iterations


def parents(path: str) -> Iterator[str]:
    """Yield the paths of what may be around a task, the innermost first; names may hold dots of their own."""
    while path := path.rpartition(".")[0]:
        yield path


def _parent(path: str, known: dict[str, TaskRecord]) -> str:
    return next((each for each in parents(path) if each in known), "")


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


def unmet(condition: str) -> str:
    """Return what holds where a condition does not, as a person would write it."""
    text = short(condition)
    negated = re.fullmatch(r"!\(([^()]*)\)", text)
    return negated[1] if negated else f"not ({text})"
