"""A pipeline laid flat: every task that a job could run, with what it has to know of the others.

Loops are unrolled, up to as many iterations as they can have, and nested pipelines dissolved; what remains of them are
units, which each step evaluates by itself (step.World).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from penstock.compile import graph, launcher
from penstock.compile._checks import placeholders
from penstock.compile.targets.azureml import options as options_of
from penstock.compile.targets.azureml.options import Options

Reference = tuple[str, ...]  # as in step.py
MOST_INPUTS = 200  # of a step
GATHERED = 150  # control folders that a step between reads for one that has no room for all of them
MOST_STEPS = 5000  # beyond it something unrolls without end, and no workspace would take the job

_LONGEST_NAME = 60


class Unknown(Exception):
    """A value that only a run has."""


@dataclass(eq=False)
class Unit:
    """A task, an iteration of one, or the pipeline, whose path is empty.

    Attributes:
        task: The task; None for the pipeline.
        scope: Path of the unit that it is part of.
        declared: Its path without the numbers of iterations, as the spec has it.
        known: Values of its inputs that do not depend on a run.
        items: Items of a loop that do not depend on a run; None where they do.
        bound: Most iterations of a loop; None where that is not known.
        children: Tasks inside it, in an order in which they could run.
    """

    path: str
    component: graph.Component
    task: graph.Task | None = None
    scope: str = ""
    declared: str = ""
    loop_of: str | None = None
    iteration: int = 0
    known: Mapping[str, Any] = field(default_factory=dict)
    items: list[Any] | None = None
    bound: int | None = None
    children: list[str] = field(default_factory=list)

    @property
    def is_loop(self) -> bool:
        """Whether it holds iterations."""
        return self.task is not None and self.task.loop is not None and self.loop_of is None

    @property
    def is_leaf(self) -> bool:
        """Whether a step runs it."""
        return not self.is_loop and not isinstance(self.component.body, graph.Dag | graph.Importer)

    @property
    def is_import(self) -> bool:
        """Whether it takes in what lies somewhere."""
        return not self.is_loop and isinstance(self.component.body, graph.Importer)


class Plan:
    """A pipeline laid flat.

    Args:
        pipeline: The pipeline.
        values: Values of its parameters that are known; paths or URIs for its artifacts.
        options: What the conversion was told.

    Attributes:
        units: Everything in it by path, a task after those it depends on.
        unbounded: Paths of loops whose number of iterations is not known; they have one here.
    """

    def __init__(self, pipeline: graph.Pipeline, values: Mapping[str, Any], options: Options) -> None:
        self.pipeline, self.values, self.options = pipeline, values, options
        self.units: dict[str, Unit] = {}
        self.unbounded: list[str] = []
        self.truncated = False
        self._leaves: dict[str, tuple[str, ...]] = {}
        self._needs: dict[str, frozenset[str]] = {}
        self._given: dict[tuple[str, str], tuple[Reference, ...]] = {}
        known = {name: value for name, value in values.items() if name in pipeline.inputs.parameters}
        self._open(Unit("", pipeline.root, known=known))

    # Building

    def _open(self, unit: Unit) -> None:
        self.units[unit.path] = unit
        if isinstance(unit.component.body, graph.Dag):
            for task in unit.component.body.tasks.values():
                path = inside(unit.path, task.name)
                unit.children.append(path)
                self._add(task, path, unit)

    def _add(self, task: graph.Task, path: str, scope: Unit) -> None:
        known = _known(task, scope.known, self.units[""].known)
        declared = inside(scope.declared, task.name)
        unit = Unit(path, task.component, task, scope.path, declared, known=known)
        if task.loop is None:
            self._open(unit)
            return
        self.units[path] = unit
        unit.items, unit.bound = self._bound(unit, task.loop)
        for index in range(unit.bound):
            if len(self.units) > MOST_STEPS * 4:
                self.truncated = True
                return
            inner = dict(known)
            inner.pop(task.loop.item, None)
            if unit.items is not None and index < len(unit.items) and task.loop.kind == "parameter":
                inner[task.loop.item] = unit.items[index]
            one = inside(path, str(index))
            unit.children.append(one)
            self._open(Unit(one, task.component, task, scope.path, declared, path, index, inner))

    def _bound(self, unit: Unit, loop: graph.Loop) -> tuple[list[Any] | None, int]:
        """Return the items of a loop, None where only a run has them, and how many iterations it may have."""
        if loop.kind == "artifact":
            assert isinstance(loop.items, str)
            return None, max(1, len(self._artifacts(unit, loop.items)))
        items = unit.known.get(loop.items) if isinstance(loop.items, str) else list(loop.items)
        if isinstance(items, str):
            with contextlib.suppress(ValueError):
                items = json.loads(items)
        most = options_of.matching(self.options.max_iterations, unit.declared)
        if isinstance(items, list):
            # One that might get items all the same says so, if there is a step to say it.
            least = 1 if isinstance(loop.items, str) else 0
            return items, max(least, len(items), (most or 0) if least else 0)
        if most is None:
            self.unbounded.append(unit.declared)
        return None, most or 1

    # What there is

    def leaves(self, path: str) -> tuple[str, ...]:
        """Return the paths of the steps below a unit, itself among them."""
        if path not in self._leaves:
            unit = self.units[path]
            own = (path,) if unit.is_leaf else ()
            self._leaves[path] = own + tuple(leaf for child in unit.children for leaf in self.leaves(child))
        return self._leaves[path]

    def below(self, path: str) -> Iterator[str]:
        """Yield the paths of a unit and of all that is in it."""
        yield path
        for child in self.units[path].children:
            yield from self.below(child)

    def chain(self, path: str) -> list[str]:
        """Return the paths of the units around a unit, the outermost first and the pipeline left out, and its own."""
        found = []
        while path:
            found.append(path)
            unit = self.units[path]
            path = unit.loop_of if unit.loop_of is not None else unit.scope
        return found[::-1]

    def upstream(self, path: str) -> list[str]:
        """Return the units of its scope that a unit depends on."""
        unit = self.units[path]
        if unit.task is None or unit.loop_of is not None:
            return []
        return [inside(unit.scope, name) for name in unit.task.depends_on]

    def is_computed(self, path: str) -> bool:
        """Return whether steps have to decide by themselves about a unit that they are not part of.

        Else a step inside it tells; none does where there is none, and none tells what imports are given.
        """
        return not self.leaves(path) or any(self.units[each].is_import for each in self.below(path))

    def needs(self, path: str) -> frozenset[str]:
        """Return the steps that tell how a unit ended."""
        if path not in self._needs:
            found = set(self.leaves(path))
            if not self.units[path].is_leaf and self.is_computed(path):
                found.update(*(self.needs(other) for other in self.upstream(path)))
            self._needs[path] = frozenset(found)
        return self._needs[path]

    def before(self, path: str) -> set[str]:
        """Return the steps that a step reads: those that decide about it and about what is around it."""
        return {leaf for unit in self.chain(path) for other in self.upstream(unit) for leaf in self.needs(other)}

    def known_to(self, path: str) -> Iterator[str]:
        """Yield the paths of the units that a step knows: those around it, and all that these depend on."""
        yield from self.chain(path)
        waiting = [other for unit in self.chain(path) for other in self.upstream(unit)]
        seen: set[str] = set()
        while waiting:
            other = waiting.pop()
            if other in seen:
                continue
            seen.add(other)
            yield from self.below(other)
            if not self.units[other].is_leaf and self.is_computed(other):
                waiting += self.upstream(other)

    def held_back(self, path: str) -> set[str]:
        """Return the steps that a step waits for only because few iterations of a loop run at the same time."""
        found: set[str] = set()
        for each in self.chain(path):
            unit = self.units[each]
            if unit.loop_of is None or unit.task is None or unit.task.loop is None:
                continue
            limit = unit.task.loop.limit
            if limit and unit.iteration >= limit:
                found.update(self.leaves(inside(unit.loop_of, str(unit.iteration - limit))))
        return found

    @cached_property
    def steps(self) -> dict[str, list[str]]:
        """Every step, with the steps whose control folders it reads."""
        return {path: sorted(self.before(path) | self.held_back(path)) for path in self.leaves("")}

    def gathered(self, read: Sequence[str], others: int) -> list[tuple[str, ...]]:
        """Return the groups of steps whose control folders reach a step through one that gathers them.

        Args:
            read: The steps whose control folders it reads.
            others: Its other inputs from outside.

        Returns:
            Nothing where it has room for them all.
        """
        if len(read) + others < MOST_INPUTS:  # one is left for what a step may have of its own
            return []
        return [tuple(read[index : index + GATHERED]) for index in range(0, len(read), GATHERED)]

    def inputs(self, read: Sequence[str], others: int) -> int:
        """Return how many inputs a step has that reads some control folders and has some other inputs."""
        return others + 1 + len(self.gathered(read, others) or read)

    @cached_property
    def captured(self) -> frozenset[str]:
        """The steps whose failure is kept from Azure: others run whatever came of them."""
        waiting: list[str] = []
        for path, unit in self.units.items():
            if unit.task is not None and unit.loop_of is None and unit.task.trigger.whatever_upstream:
                waiting += [leaf for other in self.upstream(path) for leaf in self.needs(other)]
            if unit.is_leaf:
                waiting += self.held_back(path)
        found: set[str] = set()
        while waiting:
            path = waiting.pop()
            if path not in found:
                found.add(path)
                waiting += self.steps[path]
        return frozenset(found)

    # Artifacts

    def artifacts(self, path: str) -> dict[str, tuple[Reference, ...]]:
        """Return the artifacts that each input of a step can get."""
        unit = self.units[path]
        found = {name: self._artifacts(unit, name) for name in unit.component.inputs.artifacts}
        return {name: references for name, references in found.items() if references}

    def _artifacts(self, unit: Unit, name: str) -> tuple[Reference, ...]:
        if unit.task is None:
            return (("pipeline", name),) if name in self.values else ()
        if unit.loop_of is not None:
            loop = self.units[unit.loop_of]
            assert unit.task.loop is not None
            if unit.task.loop.kind == "artifact" and name == unit.task.loop.item:
                # Those before it may be missing in a run, and this one become one of the later.
                return self._artifacts(loop, str(unit.task.loop.items))[unit.iteration :]
            return self._artifacts(loop, name)
        if name not in unit.task.inputs:
            return ()
        source = unit.task.inputs[name].source
        if isinstance(source, graph.TaskOutput):
            return self.given(inside(unit.scope, source.task), source.port)
        if isinstance(source, graph.ScopeInput):
            return self._artifacts(self.units[unit.scope], source.name)
        return ()

    def given(self, path: str, port: str) -> tuple[Reference, ...]:
        """Return the artifacts that an output of a unit can be."""
        if (path, port) not in self._given:
            self._given[path, port] = tuple(dict.fromkeys(self._outputs(self.units[path], port)))
        return self._given[path, port]

    def _outputs(self, unit: Unit, port: str) -> Iterator[Reference]:
        if unit.is_loop:
            for child in unit.children:
                yield from self.given(child, port)
        elif unit.is_import:
            yield ("import", unit.path)
        elif isinstance(unit.component.body, graph.Dag):
            for source in unit.component.body.outputs.get(port, ()):
                yield from self.given(inside(unit.path, source.task), source.port)
        elif port in unit.component.outputs.artifacts:
            yield ("task", unit.path, port)

    def read_at_the_end(self) -> tuple[set[str], set[Reference]]:
        """Return the steps that tell what the pipeline gives, and the artifacts that its outputs can be."""
        outputs = self.pipeline.dag.outputs
        sources = [source for found in outputs.values() for source in found]
        given = {
            item
            for name in self.pipeline.outputs.artifacts
            for source in outputs.get(name, ())
            for item in self.given(source.task, source.port)
        }
        return {leaf for source in sources for leaf in self.needs(source.task)}, given

    # Importers

    def uri(self, path: str) -> str:
        """Return the URI of what an importer takes in.

        Raises:
            Unknown: only a run has it.
        """
        unit = self.units[path]
        assert isinstance(unit.component.body, graph.Importer)
        uri = unit.component.body.uri
        value = unit.known.get(uri.name) if isinstance(uri, graph.RuntimeParameter) else uri.value
        filled = _filled(value, unit.known)
        if not isinstance(filled, str) or not filled:
            raise Unknown
        return filled

    def text(self, path: str, text: str) -> str:
        """Return a text of a task with its placeholders replaced.

        Raises:
            Unknown: only a run has their values.
        """
        return str(_filled(text, self.units[path].known))

    def names(self, paths: Iterable[str]) -> dict[str, str]:
        """Return names that Azure takes, by path."""
        found: dict[str, str] = {}
        taken: set[str] = set()
        for path in paths:
            name = identifier(path.replace(".", "__"), path)
            if name in taken:
                name = f"{name[: _LONGEST_NAME - 9]}_{_short(path)}"
            taken.add(name)
            found[path] = name
        return found


def inside(scope: str, name: str) -> str:
    """Return the path of something inside a scope."""
    return f"{scope}.{name}" if scope else name


def identifier(text: str, whole: str = "") -> str:
    """Return a name made of what Azure takes in names of nodes: lower-case letters, digits and underscores."""
    name = re.sub(r"[^a-z0-9_]", "_", text.lower())
    if not re.match(r"[a-z]", name):
        name = f"t_{name}"
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}_{_short(whole or text)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _known(task: graph.Task, scope: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a task's inputs that do not depend on a run."""
    known: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for name, given in task.inputs.items():
        source = given.source
        if isinstance(source, graph.Constant):
            constants[name] = source.value
        elif isinstance(source, graph.ScopeInput) and source.name in scope:
            known[name] = scope[source.name]
        elif isinstance(source, graph.RuntimeParameter) and source.name in root:
            known[name] = root[source.name]
    for name, value in constants.items():
        with contextlib.suppress(Unknown):
            known[name] = _filled(value, known)
    for name, given in task.inputs.items():
        if given.selector and name in known:
            try:
                known[name] = launcher.select(known[name], given.selector)
            except ValueError:
                del known[name]
    for name, port in task.component.inputs.parameters.items():
        if name not in task.inputs and port.default is not None:
            known[name] = port.default
    return known


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """Return a value with its placeholders replaced.

    Raises:
        Unknown: only a run has their values.
    """
    for steps in placeholders.within(value):
        if steps[:2] != ("inputs", "parameters") or len(steps) != 3 or known.get(steps[2]) is None:
            raise Unknown
    return launcher.fill(value, {"inputs": {"parameterValues": dict(known)}}, {})
