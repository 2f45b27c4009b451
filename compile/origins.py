"""Where the inputs of tasks come from, through all scopes, in words that do not depend on a compiler's names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from penstock.compile import graph

_VALUE = re.compile(r"inputs\.(?:parameter_values|artifacts)\['([^']*)'\]")
_LONGEST = 60  # characters of a constant

Name = Callable[[str], str]


class Sources:
    """The tasks of a pipeline by path, and where what they are given comes from."""

    def __init__(self, pipeline: graph.Pipeline) -> None:
        self.tasks: dict[str, graph.Task] = dict(pipeline.walk())
        self.scope: dict[str, str] = {"": ""}  # path of the task around, by path
        self._enter(pipeline.dag, "")

    def _enter(self, dag: graph.Dag, path: str) -> None:
        for name, task in dag.tasks.items():
            here = joined(path, name)
            self.scope[here] = path
            if isinstance(task.component.body, graph.Dag):
                self._enter(task.component.body, here)

    def origins(self, path: str, port: str) -> tuple[tuple[str, str], ...]:
        """Return where an input comes from: pairs of a path and what it gives there.

        The path is that of a task, empty for the pipeline, or = for a constant.
        """
        return tuple(dict.fromkeys(self._of(path, port)))

    def _of(self, path: str, port: str) -> Iterator[tuple[str, str]]:
        task, around = self.tasks[path], self.scope[path]
        if port not in task.inputs:
            return
        given = task.inputs[port]
        part = f", {given.selector}" if given.selector else ""
        source = given.source
        if isinstance(source, graph.Constant):
            yield "=", shown(source.value)
        elif isinstance(source, graph.RuntimeParameter):
            yield "", f"input {source.name}"
        elif isinstance(source, graph.FinalStatus):
            yield joined(around, source.task), "its final status"
        elif isinstance(source, graph.TaskOutput):
            yield from ((at, what + part) for at, what in self.outputs(joined(around, source.task), source.port))
        elif not around:
            yield "", f"input {source.name}{part}"
        else:
            loop = self.tasks[around].loop
            if loop and loop.item == source.name:
                yield around, f"the item{part}"
            else:
                yield from ((at, what + part) for at, what in self._of(around, source.name))

    def outputs(self, path: str, port: str) -> Iterator[tuple[str, str]]:
        """Yield the tasks that give an output, not the scopes that hand it on."""
        task = self.tasks.get(path)
        body = task.component.body if task else None
        if not isinstance(body, graph.Dag):
            yield path, f"output {port}"
            return
        for source in body.outputs.get(port, ()):
            for at, what in self.outputs(joined(path, source.task), source.port):
                yield at, f"{what}, collected" if task and task.loop else what

    def pipeline_outputs(self, dag: graph.Dag, port: str) -> tuple[tuple[str, str], ...]:
        found = [each for source in dag.outputs.get(port, ()) for each in self.outputs(source.task, source.port)]
        return tuple(dict.fromkeys(found))

    def condition(self, path: str, name: Name = lambda path: path) -> str:
        """Return a task's condition with the sources of its inputs in place of their names."""
        text = self.tasks[path].trigger.condition
        return _VALUE.sub(lambda match: words(self.origins(path, match[1]), name) or match[1], text)

    def items(self, path: str, name: Name = lambda path: path) -> str:
        """Return what a task's loop goes over; empty where it has none."""
        loop = self.tasks[path].loop
        if loop is None:
            return ""
        if isinstance(loop.items, str):
            return words(self.origins(path, loop.items), name)
        return shown(list(loop.items))

    def waits(self, path: str) -> set[str]:
        """Return the tasks that a task waits for without taking anything from them."""
        task, around = self.tasks[path], self.scope[path]
        given = [each.source for each in task.inputs.values()]
        producers = {each.task for each in given if isinstance(each, graph.TaskOutput | graph.FinalStatus)}
        return {joined(around, name) for name in task.depends_on if name not in producers}


def joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def words(origins: tuple[tuple[str, str], ...], name: Name = lambda path: path) -> str:
    """Return origins as a reader would say them."""
    return " or ".join(one(at, what, name) for at, what in origins)


def one(at: str, what: str, name: Name) -> str:
    if at in ("", "="):
        return what
    if what.startswith("the item"):
        return f"{what} of {name(at)}"
    return f"{name(at)}.{what.removeprefix('output ')}" if what.startswith("output ") else f"{what} ({name(at)})"


def shown(value: object) -> str:
    """Return a value of a spec in one short line."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
