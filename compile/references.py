"""Checks that every reference in a pipeline leads somewhere: what every reader of the graph relies on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from penstock.compile import graph
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("bad-name", Severity.ERROR, "A name that cannot be the name of a file, as names of tasks and ports become."),
    ("dangling-producer", Severity.ERROR, "An input or output comes from a task that is not in its scope."),
    ("unknown-output", Severity.ERROR, "An input or output comes from an output that its task does not have."),
    ("unknown-scope-input", Severity.ERROR, "A task reads an input that the pipeline around it does not have."),
    ("unknown-dependency", Severity.ERROR, "A task waits for one that is not in its scope."),
    ("cycle", Severity.ERROR, "Tasks wait for each other."),
    ("undeclared-output", Severity.ERROR, "An output is connected and not declared."),
    ("unconnected-output", Severity.ERROR, "An output is declared and comes from no task."),
    ("unknown-loop-input", Severity.ERROR, "A loop names an input for its items, or for the item, that is not there."),
)

_FILE_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f]{1,200}")


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield an error for each reference that leads nowhere, and for each name that no file could have."""
    if not pipeline.name:
        yield CODES.finding("bad-name", "", "pipelineInfo: the pipeline has no name")
    else:
        yield from _name("", "pipelineInfo", pipeline.name)
    for path, scope in pipeline.scopes():
        assert isinstance(scope.body, graph.Dag)
        yield from _ports(path, scope)
        yield from _outputs(path, scope, scope.body)
        yield from _cycle(path, scope.name, scope.body.tasks)
        for name, task in scope.body.tasks.items():
            here = f"{path}.{name}" if path else name
            yield from _name(here, "its name", name)
            yield from _inputs(here, task, scope, pipeline.inputs)
            yield from _dependencies(here, task, scope.name, scope.body.tasks)
            yield from _loop(here, task)
            if not isinstance(task.component.body, graph.Dag):
                yield from _ports(here, task.component)
                yield from _importer(here, task)


def _name(path: str, what: str, name: str) -> Iterator[Finding]:
    if not _FILE_NAME.fullmatch(name):
        yield CODES.finding("bad-name", path, f"{what}: the name {name!r} cannot be the name of a file", "rename it")


def _ports(path: str, component: graph.Component) -> Iterator[Finding]:
    for name in [*component.inputs, *component.outputs]:
        yield from _name(path, f"component {component.name}", name)


def _outputs(path: str, scope: graph.Component, dag: graph.Dag) -> Iterator[Finding]:
    for port, sources in dag.outputs.items():
        if port not in scope.outputs:
            problem = f"output {port}: is connected but not declared by component {scope.name}"
            yield CODES.finding("undeclared-output", path, problem, f"it declares {_names(scope.outputs)}")
        for source in sources:
            yield from _producer(path, f"output {port}", source, dag.tasks)
    for port in scope.outputs:
        if not dag.outputs.get(port):
            problem = f"output {port}: is declared by component {scope.name} but comes from no task"
            yield CODES.finding("unconnected-output", path, problem, "connect it, or take it out")


def _producer(path: str, where: str, source: graph.TaskOutput, tasks: Mapping[str, graph.Task]) -> Iterator[Finding]:
    if source.task not in tasks:
        problem = f"{where}: comes from task {source.task}, which is not there"
        yield CODES.finding("dangling-producer", path, problem, f"there are {_names(tasks)}")
        return
    component = tasks[source.task].component
    if source.port not in component.outputs and not isinstance(component.body, graph.Missing):
        problem = f"{where}: task {source.task} has no output {source.port}"
        yield CODES.finding("unknown-output", path, problem, f"it has {_names(component.outputs)}")


def _inputs(path: str, task: graph.Task, scope: graph.Component, outermost: graph.Ports) -> Iterator[Finding]:
    assert isinstance(scope.body, graph.Dag)
    for port, given in task.inputs.items():
        source = given.source
        if isinstance(source, graph.TaskOutput):
            yield from _producer(path, f"input {port}", source, scope.body.tasks)
        elif isinstance(source, graph.FinalStatus) and source.task not in scope.body.tasks:
            problem = f"input {port}: is the final status of task {source.task}, which is not there"
            yield CODES.finding("dangling-producer", path, problem, f"there are {_names(scope.body.tasks)}")
        elif isinstance(source, graph.ScopeInput) and source.name not in scope.inputs:
            problem = f"input {port}: there is no input {source.name} around it"
            yield CODES.finding("unknown-scope-input", path, problem, f"there are {_names(scope.inputs)}")
        elif isinstance(source, graph.RuntimeParameter) and not {source.name} & {*scope.inputs, *outermost}:
            problem = f"input {port}: the pipeline has no parameter {source.name}"
            yield CODES.finding("unknown-scope-input", path, problem, f"it has {_names(outermost)}")


def _importer(path: str, task: graph.Task) -> Iterator[Finding]:
    body = task.component.body
    if not isinstance(body, graph.Importer) or not isinstance(body.uri, graph.RuntimeParameter):
        return
    if body.uri.name not in task.component.inputs:
        problem = f"the importer takes its URI from input {body.uri.name}, which is not there"
        known = _names(task.component.inputs)
        yield CODES.finding("unknown-scope-input", path, problem, f"component {task.component.name} has {known}")


def _dependencies(path: str, task: graph.Task, scope: str, tasks: Mapping[str, graph.Task]) -> Iterator[Finding]:
    sources = [given.source for given in task.inputs.values()]
    producers = {each.task for each in sources if isinstance(each, graph.TaskOutput | graph.FinalStatus)}
    if missing := sorted({*task.depends_on} - {*tasks} - producers):
        known = f"there are {_names(name for name in tasks if name != task.name)}"
        yield CODES.finding(
            "unknown-dependency", path, f"depends on {', '.join(missing)}, not in its scope {scope}", known
        )


def _loop(path: str, task: graph.Task) -> Iterator[Finding]:
    if task.loop is None:
        return
    items, item = task.loop.items, task.loop.item
    if isinstance(items, str) and items not in task.inputs:
        problem = f"loops over its input {items}, which is not there"
        yield CODES.finding("unknown-loop-input", path, problem, f"it has {_names(task.inputs)}")
    if item not in task.component.inputs and not isinstance(task.component.body, graph.Missing):
        problem = f"its loop gives each item as input {item}, which component {task.component.name} does not have"
        yield CODES.finding("unknown-loop-input", path, problem, f"it has {_names(task.component.inputs)}")


def _cycle(path: str, scope: str, tasks: Mapping[str, graph.Task]) -> Iterator[Finding]:
    waiting = {name: set(task.depends_on) & set(tasks) for name, task in tasks.items()}
    while ready := [name for name, before in waiting.items() if not before & set(waiting)]:
        for name in ready:
            del waiting[name]
    if not waiting:
        return
    way = [min(waiting)]
    while way[-1] not in way[:-1]:
        way.append(min(waiting[way[-1]] & set(waiting)))
    shown = " → ".join(reversed(way[way.index(way[-1]) :]))
    problem = f"component {scope}: its tasks wait for each other: {shown}"
    yield CODES.finding("cycle", path, problem, "take one of these dependencies out")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
