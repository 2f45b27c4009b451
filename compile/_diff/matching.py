"""Which task of one pipeline is which of another.

Names that people gave count; those that KFP's compiler gives to scopes, numbered in the order of the source, do not:
such scopes are matched by what is in them and by when or over what they run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from penstock.compile import graph
from penstock.compile.origins import Sources, joined

Alike = Callable[[graph.Task], str]

_COMPILERS = re.compile(r"(condition-branches|condition|for-loop|exit-handler)-\d+")
_NUMBERED = re.compile(r"\b(condition-branches|condition|for-loop|exit-handler|loop-item-param)-\d+")


def is_compilers(name: str) -> bool:
    """Return whether a name of a scope is one that KFP's compiler makes."""
    return _COMPILERS.fullmatch(name) is not None


def pairs(old: Sources, new: Sources, before: graph.Dag, after: graph.Dag) -> dict[str, str]:
    """Return paths of tasks of the old pipeline by those of the new that they became."""
    found = dict(_scope(old, new, before, after, "", ""))
    left = sorted(set(new.tasks) - set(found))
    gone = [path for path in old.tasks if path not in set(found.values())]
    for path in left:  # moved to another scope: the name says so, where it is one task's only
        task = new.tasks[path]
        same = [other for other in gone if old.tasks[other].name == task.name and not is_compilers(task.name)]
        if len(same) == 1 and _kind(old.tasks[same[0]]) == _kind(task):
            found[path] = same[0]
            gone.remove(same[0])
    return found


def _scope(
    old: Sources, new: Sources, before: graph.Dag, after: graph.Dag, old_path: str, new_path: str
) -> Iterator[tuple[str, str]]:
    matched = _scopes_by_content(before, after)
    for alike in (_same_wiring, _same_name, _same_stem, _same_but_for_the_name):
        matched |= _others(before, after, matched, alike)
    for name, other_name in matched.items():
        here, there = joined(new_path, name), joined(old_path, other_name)
        yield here, there
        inner, other_inner = after.tasks[name].component.body, before.tasks[other_name].component.body
        if isinstance(inner, graph.Dag) and isinstance(other_inner, graph.Dag):
            yield from _scope(old, new, other_inner, inner, there, here)


def _scopes_by_content(before: graph.Dag, after: graph.Dag) -> dict[str, str]:
    olds = [task for task in before.tasks.values() if is_compilers(task.name)]
    news = [task for task in after.tasks.values() if is_compilers(task.name)]
    held = {id(task): _held(task) for task in (*olds, *news)}
    ranked = []
    for place, task in enumerate(news):
        for other_place, other in enumerate(olds):
            if stem(task.name) != stem(other.name):
                continue
            mine, theirs = held[id(task)], held[id(other)]
            likeness = (mine & theirs).total() / max((mine | theirs).total(), 1)
            when = _when(task) == _when(other)
            if likeness >= 0.5 or (when and likeness > 0):
                score = likeness + (0.5 if when else 0) + (0.01 if task.name == other.name else 0)
                ranked.append((-score, place, other_place, task.name, other.name))
    matched: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, _, name, other_name in sorted(ranked):
        if name not in matched and other_name not in taken:
            matched[name] = other_name
            taken.add(other_name)
    return matched


def _others(before: graph.Dag, after: graph.Dag, matched: dict[str, str], alike: Alike) -> dict[str, str]:
    """Return the tasks that are not matched yet and alike, in the order that they have."""
    gone = [task for name, task in before.tasks.items() if name not in set(matched.values()) and not is_compilers(name)]
    found: dict[str, str] = {}
    places: dict[str, list[str]] = {}
    for task in gone:
        places.setdefault(alike(task), []).append(task.name)
    for name, task in after.tasks.items():
        if name not in matched and not is_compilers(name) and (same := places.get(alike(task))):
            # Of several that are alike, that of the same name, if there is one.
            found[name] = name if name in same else same[0]
            same.remove(found[name])
    return found


def _same_wiring(task: graph.Task) -> str:
    return f"{stem(task.name)} {_is_scope(task)} {_inputs(task)}"


def _same_name(task: graph.Task) -> str:
    return f"{task.name} {_is_scope(task)}"


def _same_stem(task: graph.Task) -> str:
    return f"{stem(task.name)} {_is_scope(task)}"


def _same_but_for_the_name(task: graph.Task) -> str:
    return f"{_kind(task)} {_inputs(task)}"


def _inputs(task: graph.Task) -> str:
    return _NUMBERED.sub(r"\1", repr(sorted(task.inputs.items(), key=lambda item: item[0])))


def _kind(task: graph.Task) -> str:
    """Return what a task does, without names."""
    component = task.component
    if isinstance(component.body, graph.Dag):
        return repr(sorted(_held(task).items()))
    body = dict(vars(component.body))
    body.pop("label", None)
    return repr((type(component.body).__name__, body, component.inputs, component.outputs))


def _held(task: graph.Task) -> Counter[str]:
    """Return the names that people gave to the tasks in a scope, at any depth."""
    found: Counter[str] = Counter()
    waiting = [task.component.body]
    while waiting:
        body = waiting.pop()
        if isinstance(body, graph.Dag):
            found.update(stem(name) for name in body.tasks if not is_compilers(name))
            waiting += [inner.component.body for inner in body.tasks.values()]
    return found


def _when(task: graph.Task) -> str:
    loop = task.loop and task.loop.items
    return _NUMBERED.sub(r"\1", f"{task.trigger.condition} {loop}")


def stem(name: str) -> str:
    """Return a name without the number that KFP's compiler puts behind the second of a name."""
    return re.sub(r"-\d+$", "", name)


def _is_scope(task: graph.Task) -> bool:
    return isinstance(task.component.body, graph.Dag)
