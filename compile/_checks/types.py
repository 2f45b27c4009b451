"""What is given to inputs and outputs: whether anything is, and whether it is of their type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from penstock.compile import graph, launcher
from penstock.compile._checks import cel, placeholders
from penstock.compile._checks.scopes import Place, iterated, places
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("missing-input", Severity.ERROR, "A task does not give an input that its component needs."),
    ("unknown-input", Severity.ERROR, "A task gives an input that its component does not have."),
    ("type-mismatch", Severity.ERROR, "What is given to an input or an output is of another type."),
    ("converted-to-text", Severity.WARNING, "A value of another type is given where text is wanted; it becomes JSON."),
    ("bad-constant", Severity.ERROR, "A constant does not fit the type of the input that it is given to."),
    ("bad-default", Severity.ERROR, "The default of a parameter does not fit its type, or is none of its literals."),
    ("bad-selector", Severity.ERROR, "An expression that picks a part of a value is not one that platforms know."),
)

Port = graph.Parameter | graph.ArtifactPort

# What an input takes beside its own type, without a word. Whole numbers are numbers.
_TAKES = {graph.Type.DOUBLE: {graph.Type.INTEGER}}
# Filled in by the platform, not by the task.
_GIVEN_BY_PLATFORM = {graph.Type.TASK_CONFIG}
_ANY = "system.Artifact"


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield what is wrong with inputs, outputs and their types."""
    yield from _defaults("", pipeline.root)
    loops, seen = iterated(pipeline), {pipeline.root.name}
    for place in places(pipeline):
        component = place.task.component
        if component.name not in seen:
            seen.add(component.name)
            yield from _defaults(place.path, component)
        if isinstance(component.body, graph.Missing):
            continue
        yield from _given(place)
        yield from _types(place, pipeline, loops.get(place.scope.name, set()))
    for path, scope in pipeline.scopes():
        yield from _outputs(path, scope, collected=scope.name in loops)


def _defaults(path: str, component: graph.Component) -> Iterator[Finding]:
    for name, port in component.inputs.parameters.items():
        if port.default is None or port.type is graph.Type.UNSPECIFIED:
            continue
        where = f"parameter {name} of component {component.name}"
        try:
            value = launcher.check_value(port.default, port.type.value, lenient=True)
        except ValueError as error:
            yield CODES.finding("bad-default", path, f"{where}: its default does not fit its type: {error}")
            continue
        if port.literals and value not in port.literals:
            allowed = ", ".join(map(repr, port.literals))
            yield CODES.finding("bad-default", path, f"{where}: its default {value!r} is none of {allowed}")


def _given(place: Place) -> Iterator[Finding]:
    task, ports = place.task, place.task.component.inputs
    by_loop = {task.loop.item} if task.loop else set()
    wanted: list[tuple[str, Port]] = [*ports.parameters.items(), *ports.artifacts.items()]
    for name, port in wanted:
        if name in task.inputs or name in by_loop or port.optional:
            continue
        if isinstance(port, graph.Parameter) and (not port.required or port.type in _GIVEN_BY_PLATFORM):
            continue
        kind = port.type.value if isinstance(port, graph.Parameter) else str(port.type)
        problem = f"input {name} ({kind}) of component {task.component.name} is required and not given"
        yield CODES.finding("missing-input", place.path, problem, "give it, or make it optional")
    used = _referred(task)
    for name in task.inputs:
        if name not in ports and name not in used and not _is_compilers(name, task.inputs[name].source):
            known = ", ".join(sorted(ports)) or "none"
            problem = f"input {name}: component {task.component.name} has no such input"
            yield CODES.finding("unknown-input", place.path, problem, f"it has {known}")


def _is_compilers(name: str, source: graph.Source) -> bool:
    """Return whether KFP's compiler wrote an input: for what is passed on, or for resources that a channel gives."""
    if isinstance(source, graph.Constant) and isinstance(source.value, str) and source.value.startswith("{{$."):
        return True
    return name.startswith("pipelinechannel--")


def _referred(task: graph.Task) -> set[str]:
    """Return the inputs that the task's own condition, loop, constants and command read."""
    found = {steps[2] for steps in placeholders.of(task) if steps[:1] == ("inputs",) and len(steps) > 2}
    if task.loop and isinstance(task.loop.items, str):
        found.add(task.loop.items)
    with contextlib.suppress(cel.SyntaxProblem):  # flow.py says so
        read = cel.parse(task.trigger.condition or "true")
        found |= read.parameters | read.artifacts
    return found


def _types(place: Place, pipeline: graph.Pipeline, items: set[str]) -> Iterator[Finding]:
    for name, given in place.task.inputs.items():
        if given.selector:
            try:
                launcher.selector_path(given.selector)
            except ValueError as error:
                yield CODES.finding(
                    "bad-selector", place.path, f"input {name}: {error}", 'only parseJson(string_value)["key"] is known'
                )
            continue
        port = _port(place.task.component.inputs, name)
        if port is None:
            continue
        source = given.source
        if isinstance(source, graph.Constant):
            yield from _constant(place.path, name, port, source.value)
            continue
        if isinstance(source, graph.FinalStatus):
            if isinstance(port, graph.Parameter) and port.type in (graph.Type.FINAL_STATUS, graph.Type.STRING):
                continue
            problem = f"input {name} ({_type(port)}) is given the final status of task {source.task}"
            yield CODES.finding("type-mismatch", place.path, problem, "declare it as a PipelineTaskFinalStatus")
            continue
        found = _source_port(source, place, pipeline)
        # The compiler calls items of a loop text where it cannot tell their type.
        untold = isinstance(source, graph.ScopeInput) and (source.name in items or "-loop-item" in source.name)
        if found is not None and not (untold and _type(found) == graph.Type.STRING):
            yield from _compared(place.path, f"input {name}", found, port)


def _constant(path: str, name: str, port: Port, value: Any) -> Iterator[Finding]:
    if not isinstance(port, graph.Parameter):
        problem = f"input {name} takes an artifact ({_type(port)}) and is given a constant"
        yield CODES.finding("type-mismatch", path, problem, "give it the output of a task")
        return
    filled = isinstance(value, str) and any(True for _ in placeholders.within(value))
    if filled or port.type is graph.Type.UNSPECIFIED:
        return
    try:
        given = launcher.check_value(value, port.type.value, lenient=True)
    except ValueError as error:
        yield CODES.finding("bad-constant", path, f"input {name}: {error}")
        return
    if port.literals and given not in port.literals:
        allowed = ", ".join(map(repr, port.literals))
        yield CODES.finding("bad-constant", path, f"input {name}: {given!r} is none of {allowed}")


def _source_port(source: graph.Source, place: Place, pipeline: graph.Pipeline) -> Port | None:
    if isinstance(source, graph.TaskOutput):
        task = place.siblings.tasks.get(source.task)
        return _port(task.component.outputs, source.port) if task else None
    if isinstance(source, graph.ScopeInput):
        return _port(place.scope.inputs, source.name)
    if isinstance(source, graph.RuntimeParameter):
        return _port(place.scope.inputs, source.name) or _port(pipeline.inputs, source.name)
    return None


def _outputs(path: str, scope: graph.Component, *, collected: bool) -> Iterator[Finding]:
    """Yield where what a scope gives is not what it declares; a loop gives lists of what its iterations gave."""
    assert isinstance(scope.body, graph.Dag)
    for name, sources in scope.body.outputs.items():
        declared = _port(scope.outputs, name)
        if declared is None:
            continue
        if collected and isinstance(declared, graph.Parameter) and declared.type not in _LISTS:
            problem = f"output {name} ({_type(declared)}) of a loop holds what all iterations gave"
            yield CODES.finding("type-mismatch", path, problem, "declare it as LIST")
        for source in sources:
            task = scope.body.tasks.get(source.task)
            given = _port(task.component.outputs, source.port) if task else None
            # The compiler calls what passes through an inner scope a list already, where a Collected is at its end.
            passed = name.startswith("pipelinechannel--") and _type(declared) == graph.Type.LIST
            if given is not None:
                yield from _compared(path, f"output {name}", given, declared, collected=collected or passed)


_LISTS = (graph.Type.LIST, graph.Type.STRING, graph.Type.UNSPECIFIED)


def _compared(path: str, where: str, given: Port, wanted: Port, *, collected: bool = False) -> Iterator[Finding]:
    problem = f"{where} ({_shown(wanted)}) is given {_shown(given)}"
    if isinstance(given, graph.Parameter) and isinstance(wanted, graph.Parameter):
        if collected or graph.Type.UNSPECIFIED in (given.type, wanted.type) or given.type is wanted.type:
            return
        if given.type in _TAKES.get(wanted.type, ()):
            return
        if wanted.type is graph.Type.STRING:
            yield CODES.finding("converted-to-text", path, problem, "declare both of one type")
        else:
            yield CODES.finding("type-mismatch", path, problem, "declare both of one type")
    elif isinstance(given, graph.Parameter) or isinstance(wanted, graph.Parameter):
        yield CODES.finding("type-mismatch", path, problem, "one is a parameter, the other an artifact")
    elif given.is_list != wanted.is_list and not collected:
        remedy = "collect several with Collected, or take one"
        yield CODES.finding("type-mismatch", path, problem, remedy)
    elif not _alike(given.type, wanted.type):
        yield CODES.finding("type-mismatch", path, problem, "declare both of one type, or one as system.Artifact")


def _alike(given: graph.ArtifactType, wanted: graph.ArtifactType) -> bool:
    """Return whether an artifact fits, by the rule of KFP's compiler: the same title and major version, or any."""
    names = given.name, wanted.name
    if _ANY in names or not all(names):
        return True
    major = [each.version.partition(".")[0] for each in (given, wanted)]
    return names[0] == names[1] and (major[0] == major[1] or not all(major))


def _port(ports: graph.Ports, name: str) -> Port | None:
    return ports.parameters.get(name) or ports.artifacts.get(name)


def _type(port: Port) -> str:
    return port.type if isinstance(port, graph.Parameter) else port.type.name or str(port.type)


def _shown(port: Port) -> str:
    name = _type(port) or "artifact"
    return f"a list of {name}" if isinstance(port, graph.ArtifactPort) and port.is_list else str(name)
