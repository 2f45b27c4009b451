"""The order in which people are shown the tasks of a run: parents before children, producers before consumers."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.compile.targets.local.record import State, TaskRecord

# Names of conditions, loops and exit handlers, as KFP's compiler numbers them.
_MADE_UP = re.compile(r"(condition|condition-branches|for-loop|exit-handler)-\d+")
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
    """Return what to call each task that is no DAG, by path, as `Names` has it.

    Of several with one name, it is for the one that was not skipped.
    """
    tasks = [task for task in tasks if task.kind != "dag"]
    everywhere, taken = Names(), Names()
    everywhere.add(tasks)
    taken.add(task for task in tasks if task.state != State.SKIPPED)
    return {
        task.path: everywhere.of(task) if task.state == State.SKIPPED or everywhere.has_own(task) else taken.of(task)
        for task in tasks
    }


class Names:
    """What tasks are called: by their own names, in loops with the iteration behind them, where no other has that name.

    Else by their paths without what the compiler made up; where that is not theirs alone either, by their paths.
    """

    def __init__(self) -> None:
        self._titles: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()

    def add(self, tasks: Iterable[TaskRecord]) -> None:
        """Take in tasks that have names, too."""
        for task in tasks:
            self._titles[title(task.path, task.name)] += 1
            self._inside[_inside(task)] += 1

    def has_own(self, task: TaskRecord) -> bool:
        """Return whether a task goes by its own name."""
        return self._titles[title(task.path, task.name)] == 1

    def of(self, task: TaskRecord) -> str:
        """Return what a task is called."""
        if self.has_own(task):
            return title(task.path, task.name)
        inside = _inside(task)
        return inside if self._inside[inside] == 1 and self._titles[inside] != 1 else task.path


def _inside(task: TaskRecord) -> str:
    *around, last = task.path.split(".")
    if last.isdecimal():
        return task.path
    scopes = [scope for scope in around if not (_MADE_UP.fullmatch(scope) or scope.isdecimal())]
    return title(task.path, ".".join([*scopes, task.name if _MADE_UP.fullmatch(last) else last]))


def is_made_up(task: TaskRecord) -> bool:
    """Return whether a task only stands for a condition, a loop, an iteration or what an exit handler watches."""
    last = task.path.rpartition(".")[2]
    return task.kind == "dag" and bool(last.isdecimal() or _MADE_UP.fullmatch(last))


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
