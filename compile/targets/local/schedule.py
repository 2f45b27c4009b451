"""Decides what runs when: nested scopes of tasks, one event at a time, on one thread.

Commands run in other threads, each of which waits for one process; whatever ends comes back as an event. So nothing
here needs a lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.compile import graph, launcher, to_launcher
from penstock.compile.targets.local import convert
from penstock.compile.targets.local.journal import Journal, metrics, now
from penstock.compile.targets.local.record import State, TaskRecord

Parameters = dict[str, Any]
Artifacts = dict[str, list[launcher.Artifact]]


@dataclass(frozen=True)
class Work:
    """A task that is to run now.

    Attributes:
        path: Its path in the run.
        parameters, artifacts: What it is given.
        names: Values of the system placeholders.
        value: Returns what an input of its scope holds: a value, or None.
        again: Takes why an attempt failed, where another one follows.
    """

    task: graph.Task
    path: str
    parameters: Parameters
    artifacts: Artifacts
    names: Mapping[str, str]
    value: Callable[[graph.Source], Any]
    again: Callable[[launcher.TaskError], object]


@dataclass(frozen=True)
class Done:
    """What came of a task that succeeded.

    Attributes:
        runner: What ran its command, "process" or "container"; None: there was no command to run.
        reused: Run and task, as ID/PATH, whose outputs these are.
        started: When its command began, which was earlier where this was taken over from before a resumption.
        seconds: How long that took.
    """

    outputs: launcher.Outputs
    runner: str | None = None
    reused: str | None = None
    started: str | None = None
    seconds: float | None = None


Execute = Callable[[Work], Done]

# What Kubeflow says in a final status; Vertex AI says SUCCEEDED and CANCELLED.
_FINAL = {State.SUCCEEDED: "COMPLETE", State.CANCELLED: "CANCELED"}
_KINDS = {graph.Container: "container", graph.Importer: "importer", graph.Dag: "dag"}


@dataclass(eq=False)
class Node:
    """A task at work in a scope, or one iteration of it.

    Attributes:
        parameters, artifacts: What it is given.
        given: What it gave: parameters and artifacts.
        waiting: Tasks it waits for; of a loop at work, iterations that have not ended.
        inner: Its own scope, while a DAG is at work.
        loop: The task of which it is an iteration.
        began: Time by the monotonic clock; 0: it has not begun.
    """

    task: graph.Task
    scope: Scope
    path: str
    state: State = State.PENDING
    parameters: Parameters = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=dict)
    given: tuple[Parameters, Artifacts] = field(default_factory=lambda: ({}, {}))
    waiting: int = 0
    inner: Scope | None = None
    loop: Node | None = None
    iterations: list[Node] = field(default_factory=list)
    pending: deque[Node] = field(default_factory=deque)
    began: float = 0.0
    error: str | None = None
    exit_code: int | None = None


@dataclass(eq=False)
class Scope:
    """A DAG at work; `left` counts its tasks that have not ended."""

    component: graph.Component
    parameters: Parameters
    artifacts: Artifacts
    owner: Node | None
    prefix: str
    nodes: dict[str, Node] = field(default_factory=dict)
    after: dict[str, list[Node]] = field(default_factory=dict)
    left: int = 0


@dataclass(frozen=True)
class Result:
    """How a pipeline ended, its outputs, and the first error."""

    state: State
    parameters: Parameters
    artifacts: Artifacts
    error: str | None


@dataclass(frozen=True)
class _Ended:
    node: Node
    result: Done | BaseException


@dataclass(frozen=True)
class _Again:
    node: Node
    error: launcher.TaskError


@dataclass(frozen=True)
class _StopRequest:
    pass


_Event = _Ended | _Again | _StopRequest


class Schedule:
    """A pipeline at work. Nothing in it may be refused (see features.check).

    Args:
        pipeline: What to run.
        journal: Takes what happens.
        execute: Runs a task, in another thread.
        jobs: Commands that may run at the same time.
        names: Values of the system placeholders that are the same in all tasks.
        here: Folder that relative paths of importers start from.
        stop: Ends all commands.
    """

    def __init__(
        self,
        pipeline: graph.Pipeline,
        journal: Journal,
        execute: Execute,
        *,
        jobs: int,
        names: Mapping[str, str],
        here: Path,
        stop: launcher.Stop,
    ) -> None:
        self._pipeline, self._journal, self._execute, self._jobs = pipeline, journal, execute, jobs
        self._names, self._here, self._stop = names, here, stop
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="task")
        self._considered: deque[Node] = deque()  # to decide about
        self._ready: deque[Node] = deque()  # commands to start
        self._loops: list[Node] = []
        self._running = 0
        self._stopping = False
        self._root: Scope
        self._result: Result | None = None

    def request_stop(self) -> None:
        """End the run, from a signal handler or any thread; asked again, kill what still runs."""
        self._events.put(_StopRequest())

    def _next_event(self) -> _Event:
        # A signal that arrives just before a wait without end does not end it, and its handler never runs.
        while True:
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=0.5)

    def run(self, parameters: Parameters, artifacts: Artifacts) -> Result:
        """Run everything and return what came of it.

        Args:
            parameters: The pipeline's own, complete.
            artifacts: The pipeline's own.
        """
        try:
            self._open(Scope(self._pipeline.root, parameters, artifacts, None, ""))
            while True:
                self._settle()
                self._journal.flush()
                if self._result:
                    return self._result
                self._take(self._next_event())
                while not self._events.empty():
                    self._take(self._events.get())
        except BaseException:
            self._stop.kill()
            raise
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, event: _Event) -> None:
        if isinstance(event, _StopRequest):
            self._end_early()
            return
        if isinstance(event, _Again):
            record = self._journal[event.node.path]
            self._note(event.node, retries=(*record.retries, str(event.error)))
            return
        self._running -= 1
        node, result = event.node, event.result
        if isinstance(result, Done):
            outputs = result.outputs
            artifacts = {name: [artifact] for name, artifact in outputs.artifacts.items()}
            self._note_done(node, result)
            self._finish(node, State.SUCCEEDED, (dict(outputs.parameters), artifacts), seconds=result.seconds)
        elif isinstance(result, launcher.Stopped):
            self._finish(node, State.CANCELLED)
        elif isinstance(result, launcher.TaskError):
            self._finish(node, State.FAILED, error=str(result), exit_code=result.exit_code)
        else:
            self._finish(node, State.FAILED, error=f"{type(result).__name__}: {result}")

    def _end_early(self) -> None:
        if self._stopping:
            self._stop.kill()
        self._stopping = True
        self._stop.request()
        waiting = [*self._ready, *(one for loop in self._loops for one in loop.pending)]
        self._ready.clear()
        for loop in self._loops:
            loop.pending.clear()
        for node in waiting:
            node.began = 0.0  # it was only about to
            self._finish(node, State.CANCELLED)

    def _settle(self) -> None:
        """Carry on until only commands can bring news."""
        while self._considered or (self._ready and self._running < self._jobs):
            if self._considered:
                self._consider(self._considered.popleft())
            else:
                self._launch(self._ready.popleft())

    def _consider(self, node: Node) -> None:
        """Decide about a task that waits for no other any more."""
        if self._stopping:
            self._finish(node, State.CANCELLED)
            return
        try:
            if node.loop or self._may_run(node):
                self._start(node)
        except (launcher.TaskError, launcher.ConditionError) as error:
            self._finish(node, State.FAILED, error=str(error))

    def _may_run(self, node: Node) -> bool:
        """Return whether a task's trigger lets it run, with its inputs known; end it where not."""
        trigger = node.task.trigger
        upstream = [node.scope.nodes[name] for name in node.task.depends_on]
        if not trigger.whatever_upstream:
            for other in upstream:
                if other.state in (State.FAILED, State.CANCELLED):
                    self._finish(node, State.CANCELLED, error=f"not run: {other.path} {other.state.lower()}")
                    return False
            if any(other.state is State.SKIPPED for other in upstream):
                self._finish(node, State.SKIPPED)
                return False
        self._resolve(node)
        if trigger.condition and not launcher.condition_holds(trigger.condition, node.parameters, node.artifacts):
            self._finish(node, State.SKIPPED)
            return False
        return True

    def _resolve(self, node: Node) -> None:
        """Find out what a task is given. An input whose producer gave nothing is left out."""
        constants: Parameters = {}
        found: Parameters = {}
        for name, given in node.task.inputs.items():
            is_artifact = name in node.task.component.inputs.artifacts
            value = self._value(node, given.source, is_artifact)
            if isinstance(given.source, graph.Constant):
                constants[name] = value
            elif is_artifact and value is not None:
                node.artifacts[name] = value
            elif value is not None:
                found[name] = value
        names = self._all_names(node)
        try:
            for name, value in constants.items():
                found[name] = launcher.fill(value, {"inputs": {"parameterValues": found}}, names)
            for name, given in node.task.inputs.items():
                if given.selector and name in found:
                    found[name] = launcher.select(found[name], given.selector)
        except (launcher.TaskError, ValueError) as error:
            raise launcher.TaskError(f"{node.task.name}: input {name!r}: {error}") from error
        node.parameters = launcher.bind(convert.task(node.task), found)
        self._note(node, inputs=self._journal.values(node.parameters, node.artifacts))

    def _value(self, node: Node, source: graph.Source, is_artifact: bool) -> Any:
        """Return a value or a list of artifacts; None where the producer gave nothing."""
        scope = node.scope
        match source:
            case graph.Constant():
                return source.value
            case graph.ScopeInput():
                return (scope.artifacts if is_artifact else scope.parameters).get(source.name)
            case graph.RuntimeParameter():
                return self._root.parameters.get(source.name)
            case graph.TaskOutput():
                return scope.nodes[source.task].given[is_artifact].get(source.port)
            case graph.FinalStatus():
                return self._final_status(scope.nodes[source.task])

    def _final_status(self, node: Node) -> dict[str, Any]:
        error = {"code": node.exit_code or 1, "message": node.error or ""} if node.state is State.FAILED else {}
        return {
            "state": _FINAL.get(node.state, node.state.value),
            "pipelineTaskName": node.task.name,
            "pipelineJobResourceName": self._names["pipeline_job_resource_name"],
            "error": error,
        }

    def _start(self, node: Node) -> None:
        body = node.task.component.body
        node.began = time.monotonic()
        if node.task.loop and not node.loop:
            self._note(node, state=State.RUNNING, started=now())
            self._begin_loop(node, node.task.loop)
        elif isinstance(body, graph.Dag):
            self._note(node, state=State.RUNNING, started=now())
            self._open(Scope(node.task.component, node.parameters, node.artifacts, node, f"{node.path}."))
        elif isinstance(body, graph.Importer):
            names = self._all_names(node)
            uri, metadata = convert.import_source(node.task, body, node.parameters, names)
            if convert.is_remote(uri) or body.download_to_workspace:
                self._ready.append(node)
                return
            self._note(node, state=State.RUNNING, started=now())
            found = convert.imported(node.task, body, uri, metadata, self._here)
            self._finish(node, State.SUCCEEDED, ({}, {name: [artifact] for name, artifact in found.items()}))
        else:
            self._ready.append(node)

    def _launch(self, node: Node) -> None:
        node.began = time.monotonic()
        self._note(node, state=State.RUNNING, started=now(), log=f"tasks/{convert.folder_name(node.path)}/log.txt")
        self._running += 1

        def value(source: graph.Source) -> Any:
            return self._value(node, source, False)

        def again(error: launcher.TaskError) -> None:
            self._events.put(_Again(node, error))

        work = Work(node.task, node.path, node.parameters, node.artifacts, self._all_names(node), value, again)

        def execute() -> None:
            try:
                result: Any = self._execute(work)
            except BaseException as error:
                result = error
            self._events.put(_Ended(node, result))

        self._pool.submit(execute)

    def _note_done(self, node: Node, done: Done) -> None:
        changes: dict[str, Any] = {"runner": done.runner, "reused": done.reused}
        if done.reused or not done.runner:
            changes["log"] = None
        if done.started:
            changes["started"] = done.started
        self._note(node, **changes)

    def _begin_loop(self, node: Node, loop: graph.Loop) -> None:
        task = dataclasses.replace(node.task, depends_on=(), trigger=graph.Trigger())
        given = list(convert.iterations(task, loop, node.parameters, node.artifacts))  # none begins if one cannot
        for index, (parameters, artifacts) in enumerate(given):
            one = Node(task, node.scope, f"{node.path}.{index}", parameters=parameters, artifacts=artifacts, loop=node)
            node.iterations.append(one)
            self._journal.put(self._record(one.path, task, "", name=str(index)))
            self._note(one, inputs=self._journal.values(parameters, artifacts))
        node.waiting = len(node.iterations)
        node.pending.extend(node.iterations)
        self._loops.append(node)
        for _ in range(loop.limit or node.waiting):
            self._next_iteration(node)
        if not node.iterations:
            self._end_loop(node)

    def _next_iteration(self, node: Node) -> None:
        if node.pending:
            self._considered.append(node.pending.popleft())

    def _end_loop(self, node: Node) -> None:
        self._loops.remove(node)
        outputs = node.task.component.outputs
        given = [one.given for one in node.iterations if one.state is State.SUCCEEDED]
        parameters: Parameters = {}
        for name in outputs.parameters:
            found = [one[0][name] for one in given if name in one[0]]
            collected = to_launcher.is_collected(node.task.component, name)
            parameters[name] = [value for part in found for value in part] if collected else found
        artifacts = {name: [item for one in given for item in one[1].get(name, [])] for name in outputs.artifacts}
        state, error, exit_code = _together(node.iterations)
        self._finish(node, state, (parameters, artifacts), error, exit_code)

    def _open(self, scope: Scope) -> None:
        """Begin a DAG."""
        if scope.owner is None:
            self._root = scope
        else:
            scope.owner.inner = scope
        dag = _dag(scope.component)
        for name, task in dag.tasks.items():
            node = Node(task, scope, scope.prefix + name, waiting=len(task.depends_on))
            scope.nodes[name] = node
            for other in task.depends_on:
                scope.after.setdefault(other, []).append(node)
            if not node.waiting:
                self._considered.append(node)
        if scope.owner is None or scope.owner.loop:  # the records of other scopes are there since the outer one began
            self._record_all(dag, scope.prefix)
        scope.left = len(scope.nodes)
        if not scope.left:
            self._end_scope(scope)

    def _end_scope(self, scope: Scope) -> None:
        parameters: Parameters = {}
        artifacts: Artifacts = {}
        for name, sources in _dag(scope.component).outputs.items():
            for source in sources:
                given = scope.nodes[source.task].given
                if source.port in given[0]:
                    parameters[name] = given[0][source.port]
                    break
                if source.port in given[1]:
                    artifacts[name] = given[1][source.port]
                    break
        state, error, exit_code = _together(scope.nodes.values())
        if scope.owner:
            self._finish(scope.owner, state, (parameters, artifacts), error, exit_code)
        else:
            self._result = Result(state, parameters, artifacts, error)

    def _finish(
        self,
        node: Node,
        state: State,
        given: tuple[Parameters, Artifacts] = ({}, {}),
        error: str | None = None,
        exit_code: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Take the end of a task or an iteration; consider what waits for it."""
        node.state, node.error, node.exit_code = state, error, exit_code
        if state is State.SUCCEEDED:
            node.given = given
        ran = self._journal[node.path].log is not None
        self._note(
            node,
            state=state,
            seconds=round(time.monotonic() - node.began, 3) if seconds is None and node.began else seconds,
            outputs=self._journal.values(*node.given),
            metrics=metrics(node.given[1]),
            exit_code=0 if ran and state is State.SUCCEEDED else exit_code,
            error=error,
        )
        if not node.inner and not node.iterations:
            self._close_records(node, state)
        node.inner = None
        if node.loop:
            node.loop.waiting -= 1
            self._next_iteration(node.loop)
            if not node.loop.waiting:
                self._end_loop(node.loop)
            return
        for other in node.scope.after.get(node.task.name, ()):
            other.waiting -= 1
            if not other.waiting:
                self._considered.append(other)
        node.scope.left -= 1
        if not node.scope.left:
            self._end_scope(node.scope)

    def _all_names(self, node: Node) -> dict[str, str]:
        own = uuid.uuid5(uuid.NAMESPACE_URL, f"{self._names['pipeline_job_name']}/{node.path}")
        return {**self._names, "pipeline_task_name": node.task.name, "pipeline_task_uuid": str(own)}

    def _note(self, node: Node, **changes: Any) -> None:
        if "state" in changes:
            node.state = changes["state"]
        self._journal.put(dataclasses.replace(self._journal[node.path], **changes))

    def _record(self, path: str, task: graph.Task, prefix: str, name: str = "") -> TaskRecord:
        return TaskRecord(
            path=path,
            name=name or task.title or task.name,
            kind=_KINDS[type(task.component.body)],
            depends_on=tuple(prefix + other for other in task.depends_on),
            condition=task.trigger.condition or None,
        )

    def _record_all(self, dag: graph.Dag, prefix: str) -> None:
        for path, before, task in _known(dag, prefix):
            self._journal.put(self._record(path, task, before))

    def _close_records(self, node: Node, state: State) -> None:
        """Give the tasks of a DAG that never began its state."""
        body = node.task.component.body
        if not isinstance(body, graph.Dag) or node.task.loop:
            return
        inner = State.CANCELLED if state is State.FAILED else state
        for path, _, _ in _known(body, f"{node.path}."):
            if self._journal[path].state is State.PENDING:
                self._journal.put(dataclasses.replace(self._journal[path], state=inner))


def _together(nodes: Iterable[Node]) -> tuple[State, str | None, int | None]:
    """Return how a group ended, with the first error: failed if any task in it failed, whatever came after."""
    found = list(nodes)
    for state in (State.FAILED, State.CANCELLED):
        for node in found:
            if node.state is state:
                return state, node.error, node.exit_code
    return State.SUCCEEDED, None, None


def _dag(component: graph.Component) -> graph.Dag:
    assert isinstance(component.body, graph.Dag)
    return component.body


def _known(dag: graph.Dag, prefix: str) -> Iterator[tuple[str, str, graph.Task]]:
    """Yield path, prefix and task of everything that is known before it begins: all but what loops hold."""
    for name, task in dag.tasks.items():
        yield prefix + name, prefix, task
        if isinstance(task.component.body, graph.Dag) and not task.loop:
            yield from _known(task.component.body, f"{prefix}{name}.")
