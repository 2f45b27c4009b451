"""Conditions, loops, exit handlers, alternatives, and what therefore never runs or is never used."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compile import graph, launcher
from penstock.compile._checks import cel, placeholders
from penstock.compile._checks.scopes import Place, iterated, places
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("condition-syntax", Severity.ERROR, "A condition does not parse, or compares what cannot be compared."),
    ("condition-input", Severity.ERROR, "A condition reads something that is not among the task's inputs."),
    ("condition-type", Severity.WARNING, "A condition compares an input with a value of another type; never equal."),
    ("never-runs", Severity.WARNING, "A task cannot run: its condition is never true, or its loop has no items."),
    ("empty-scope", Severity.WARNING, "A pipeline inside the pipeline has no tasks."),
    ("loop-over-scalar", Severity.ERROR, "A loop goes over something that is no list."),
    ("bad-loop-item", Severity.ERROR, "An item of a loop does not fit the type of the input that receives it."),
    ("bad-loop-limit", Severity.ERROR, "A loop allows fewer than no iterations at a time."),
    ("bad-retry", Severity.ERROR, "A retry policy with a negative number, or a factor that is not positive."),
    ("status-of-success-only", Severity.ERROR, "A task asks how another ended, and runs only where that succeeded."),
    ("waits-for-nothing", Severity.WARNING, "A task is to run whatever its upstreams came to, and has none."),
    ("not-exclusive", Severity.ERROR, "Of the alternatives for one output, more than one can run."),
    ("unused-input", Severity.WARNING, "An input that nothing reads."),
)  # fmt: skip

_KINDS: dict[graph.Type, tuple[type, ...]] = {
    graph.Type.STRING: (str,),
    graph.Type.INTEGER: (int, float),
    graph.Type.DOUBLE: (int, float),
    graph.Type.BOOLEAN: (bool,),
}
_LISTS = (graph.Type.LIST, graph.Type.STRING, graph.Type.UNSPECIFIED)


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield what is wrong with the flow of a pipeline."""
    for place in places(pipeline):
        yield from conditions(place)
        yield from _loop(place)
        yield from _trigger(place)
    for path, scope in pipeline.scopes():
        assert isinstance(scope.body, graph.Dag)
        if not scope.body.tasks:
            yield CODES.finding("empty-scope", path, f"component {scope.name} has no tasks", "take it out")
        yield from _alternatives(path, scope.body)
    yield from _unused(pipeline)


def conditions(place: Place) -> Iterator[Finding]:
    """Yield what is wrong with the condition of a task."""
    text, task = place.task.trigger.condition, place.task
    if not text:
        return
    try:
        read = cel.parse(text)
    except cel.SyntaxProblem as error:
        yield CODES.finding("condition-syntax", place.path, str(error), "KFP's compiler writes it, from If and Elif")
        return
    known = {*task.inputs, *task.component.inputs}
    if missing := sorted((read.parameters | read.artifacts) - known):
        there = f"there are {', '.join(sorted(known)) or 'none'}"
        problem = f"its condition reads {', '.join(missing)}, not among the task's inputs"
        yield CODES.finding("condition-input", place.path, problem, there)
    if artifacts := sorted(read.parameters & {*task.component.inputs.artifacts}):
        problem = f"its condition reads {', '.join(artifacts)} as a parameter, which is an artifact"
        yield CODES.finding("condition-input", place.path, problem, "compare an output parameter")
    try:
        expression = launcher.parse_condition(text)
        if not read.parameters and not launcher.condition_holds(text, {}):
            yield CODES.finding("never-runs", place.path, f"its condition {text!r} is never true", "take the task out")
    except launcher.ConditionError as error:
        # What the launcher cannot parse may be more of CEL than it knows.
        if not read.parameters and not read.artifacts and "does not parse" not in str(error):
            yield CODES.finding("condition-syntax", place.path, f"its condition fails: {error}")
        return
    yield from _compared(place, expression)


def _compared(place: Place, expression: launcher.Expression) -> Iterator[Finding]:
    kind, *parts = expression
    if kind in ("&&", "||", "!"):
        for part in parts:
            yield from _compared(place, part)
    elif kind in ("==", "!=", "<", "<=", ">", ">="):
        for one, other in (parts, parts[::-1]):
            if one[0] == "input" and other[0] == "literal":
                port = place.task.component.inputs.parameters.get(one[1])
                wanted = _KINDS.get(port.type, ()) if port else ()
                value = other[1]
                if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) != (wanted == (bool,)))):
                    assert port is not None
                    problem = f"its condition compares {one[1]} ({port.type}) with {value!r}"
                    yield CODES.finding("condition-type", place.path, problem, "compare values of one type")


def _loop(place: Place) -> Iterator[Finding]:
    loop, task = place.task.loop, place.task
    if loop is None:
        return
    if loop.limit < 0:
        problem = f"its loop lets {loop.limit} iterations run at a time"
        yield CODES.finding("bad-loop-limit", place.path, problem, "give 0 for no limit, or a number above")
    ports = task.component.inputs
    if isinstance(loop.items, str):
        parameter, artifact = ports.parameters.get(loop.items), ports.artifacts.get(loop.items)
        given = task.inputs.get(loop.items)
        if loop.kind == "artifact":
            wrong = parameter is not None or (artifact is not None and not artifact.is_list)
        else:
            wrong = artifact is not None or (parameter is not None and parameter.type not in _LISTS)
        if wrong and not (given and given.selector):
            what = str(parameter.type) if parameter else f"one {artifact.type}" if artifact else "nothing"
            problem = f"loops over its input {loop.items}, which is {what}"
            yield CODES.finding("loop-over-scalar", place.path, problem, "loop over a list")
        return
    if not loop.items:
        yield CODES.finding("never-runs", place.path, "its loop has no items", "take it out, or give it items")
    item = ports.parameters.get(loop.item)
    for index, value in enumerate(loop.items):
        if item is None or item.type is graph.Type.UNSPECIFIED or any(True for _ in placeholders.within(value)):
            continue
        try:
            launcher.check_value(value, item.type.value, lenient=True)
        except ValueError as error:
            yield CODES.finding("bad-loop-item", place.path, f"item {index} of its loop: {error}")
            return


def _trigger(place: Place) -> Iterator[Finding]:
    task = place.task
    if task.retry and (task.retry.count < 0 or task.retry.wait < 0 or task.retry.factor <= 0):
        problem = f"its retry policy has {task.retry.count} tries, {task.retry.wait:g} s, factor {task.retry.factor:g}"
        yield CODES.finding("bad-retry", place.path, problem, "give positive numbers")
    asked = [given.source.task for given in task.inputs.values() if isinstance(given.source, graph.FinalStatus)]
    if asked and not task.trigger.whatever_upstream:
        problem = f"it is given how {', '.join(sorted(set(asked)))} ended, but runs only where that succeeded"
        yield CODES.finding(
            "status-of-success-only", place.path, problem, "set the strategy ALL_UPSTREAM_TASKS_COMPLETED"
        )
    if task.trigger.whatever_upstream and not task.depends_on:
        problem = "is to run whatever its upstreams came to, and has none"
        yield CODES.finding("waits-for-nothing", place.path, problem, "name the tasks it waits for")


def _alternatives(path: str, dag: graph.Dag) -> Iterator[Finding]:
    for port, sources in dag.outputs.items():
        if len(sources) < 2:
            continue
        always = [
            source.task for source in sources if source.task in dag.tasks and not _may_be_skipped(dag, source.task)
        ]
        twice = {source.task for source in sources if sources.count(source) > 1}
        if always or twice:
            names = ", ".join(sorted({*always, *twice}))
            problem = f"output {port} takes the one of {len(sources)} alternatives that ran, and {names} always runs"
            remedy = "give each alternative a condition that excludes the others"
            yield CODES.finding("not-exclusive", path, problem, remedy)


def _may_be_skipped(dag: graph.Dag, name: str) -> bool:
    task = dag.tasks[name]
    return bool(task.trigger.condition) or any(
        _may_be_skipped(dag, before) for before in task.depends_on if before in dag.tasks and before != name
    )


def _unused(pipeline: graph.Pipeline) -> Iterator[Finding]:
    items = iterated(pipeline)
    everywhere = _runtime_parameters(pipeline)
    for path, scope in pipeline.scopes():
        assert isinstance(scope.body, graph.Dag)
        read = {
            given.source.name
            for task in scope.body.tasks.values()
            for given in task.inputs.values()
            if isinstance(given.source, graph.ScopeInput | graph.RuntimeParameter)
        }
        for task in scope.body.tasks.values():
            read.update(_in_settings(task.component.platforms))
        if not path:
            read |= everywhere
            read.update(_in_settings(pipeline.platforms))
        for name in scope.inputs:
            # The compiler hands into loops and conditions what these themselves read.
            if name not in read and name not in items.get(scope.name, set()) and not _is_channel(name):
                what = "the pipeline" if not path else f"component {scope.name}"
                yield CODES.finding("unused-input", path, f"input {name} of {what}: nothing reads it", "take it out")


def _is_channel(name: str) -> bool:
    return name.startswith("pipelinechannel--")


def _runtime_parameters(pipeline: graph.Pipeline) -> set[str]:
    return {
        given.source.name
        for place in places(pipeline)
        for given in place.task.inputs.values()
        if isinstance(given.source, graph.RuntimeParameter)
    }


def _in_settings(settings: object) -> Iterator[str]:
    """Yield the inputs of the scope that settings of a platform read."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key == "componentInputParameter" and isinstance(value, str):
                yield value
            else:
                yield from _in_settings(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _in_settings(value)
