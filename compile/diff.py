"""What changed between two compiled pipelines, in a reviewer's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compile import graph
from penstock.compile._checks.secrets import is_secret
from penstock.compile._diff import bodies
from penstock.compile._diff.matching import pairs, stem
from penstock.compile.origins import Sources, words

GROUPS = ("inputs and outputs", "tasks", "components", "settings")
_NAMED = 3  # paths of tasks that share a change


@dataclass(frozen=True)
class Change:
    """A difference.

    Attributes:
        group: One of GROUPS.
        path: The port or the task; empty: the whole pipeline. Several tasks with the same change share one.
        sentence: What is different, without a full stop.
        breaking: Whether a caller that gives what it gave before fails, or a reader of outputs does.
        detail: Lines that show it, such as those of a unified diff.
    """

    group: str
    path: str
    sentence: str
    breaking: bool = False
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}" if self.path else self.sentence


def compare(old: graph.Pipeline, new: graph.Pipeline) -> list[Change]:
    """Return what is different in a new pipeline, by groups; empty where both mean the same.

    Names of components and executors, and those that KFP's compiler gives to scopes, mean nothing.
    """
    found = list(_Comparison(old, new).changes())
    return sorted(found, key=lambda change: (GROUPS.index(change.group), not change.breaking))


class _Comparison:
    def __init__(self, old: graph.Pipeline, new: graph.Pipeline) -> None:
        self.old, self.new = old, new
        self.before, self.after = Sources(old), Sources(new)
        self.was = pairs(self.before, self.after, old.dag, new.dag)
        self.now = {there: here for here, there in self.was.items()}

    def changes(self) -> Iterator[Change]:
        renamed = self.renamed_inputs()
        yield from self.inputs(renamed)
        yield from self.outputs()
        yield from self.tasks(renamed)
        yield from self.components()
        yield from self.whole()

    # The pipeline's inputs and outputs

    def renamed_inputs(self) -> dict[str, str]:
        """Return old names of inputs by new ones, of which type, default and consumers are the same."""
        old, new = self.old.inputs, self.new.inputs
        gone = [name for name in old if name not in new]
        came = [name for name in new if name not in old]
        consumers = self.consumers(self.before), self.consumers(self.after)
        renamed: dict[str, str] = {}
        for name in came:
            port = bodies.port_of(new, name)
            for other in gone:
                was = bodies.port_of(old, other)
                alike = _without_name(port) == _without_name(was)
                if alike and consumers[1].get(name) and consumers[1][name] == consumers[0].get(other):
                    renamed[name] = other
                    gone.remove(other)
                    break
        return renamed

    def consumers(self, sources: Sources) -> dict[str, set[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        for path, task in sources.tasks.items():
            if isinstance(task.component.body, graph.Dag):
                continue
            for port in task.inputs:
                for at, what in sources.origins(path, port):
                    if not at and what.startswith("input "):
                        key = path if sources is self.before else self.named_before(path)
                        found.setdefault(what.removeprefix("input ").partition(",")[0], set()).add((key, port))
        return found

    def named_before(self, path: str) -> str:
        return self.was.get(path, path)

    def inputs(self, renamed: dict[str, str]) -> Iterator[Change]:
        old, new = self.old.inputs, self.new.inputs
        group = GROUPS[0]
        for name in new:
            here = f"input {name}"
            port = bodies.port_of(new, name)
            if name in renamed:
                yield Change(group, here, f"renamed, was {renamed[name]}", breaking=True)
            elif name not in old:
                needed = _is_required(port)
                kind = f"{bodies.port_type(port)}, {'required' if needed else 'optional'}"
                yield Change(group, here, f"added ({kind})", breaking=needed)
            else:
                yield from self.port(here, bodies.port_of(old, name), port)
        for name in old:
            if name not in new and name not in renamed.values():
                yield Change(group, f"input {name}", "removed", breaking=True)

    def port(
        self, here: str, was: graph.Parameter | graph.ArtifactPort, now: graph.Parameter | graph.ArtifactPort
    ) -> Iterator[Change]:
        group = GROUPS[0]
        if bodies.port_type(was) != bodies.port_type(now):
            yield Change(group, here, f"is {bodies.port_type(now)}, was {bodies.port_type(was)}", breaking=True)
        if isinstance(was, graph.Parameter) and isinstance(now, graph.Parameter):
            if was.default != now.default:
                values = [bodies.value(now.name, each.default) for each in (now, was)]
                said = f"default is {values[0]}, was {values[1]}"
                yield Change(group, here, said if now.default is not None else f"has no default now, was {values[1]}")
            if was.literals != now.literals:
                fewer = bool(now.literals) and not (was.literals and set(was.literals) <= set(now.literals))
                yield Change(group, here, f"may be {list(now.literals) or 'any value'} now", breaking=fewer)
        if here.startswith("input") and _is_required(was) != _is_required(now):
            needed = _is_required(now)
            yield Change(group, here, f"is {'required' if needed else 'optional'} now", breaking=needed)
        if was.description != now.description:
            yield Change(group, here, "is described differently")

    def outputs(self) -> Iterator[Change]:
        old, new = self.old.outputs, self.new.outputs
        group = GROUPS[0]
        for name in new:
            here, port = f"output {name}", bodies.port_of(new, name)
            if name not in old:
                yield Change(group, here, f"added ({bodies.port_type(port)})")
                continue
            yield from self.port(here, bodies.port_of(old, name), port)
            sources = [
                self.after.pipeline_outputs(self.new.dag, name),
                self.before.pipeline_outputs(self.old.dag, name),
            ]
            if {(self.was.get(at, f"new {at}"), what) for at, what in sources[0]} != set(sources[1]):
                yield Change(group, here, f"comes from {words(sources[0])}, came from {words(sources[1])}")
        for name in old:
            if name not in new:
                yield Change(group, f"output {name}", "removed", breaking=True)

    # Tasks

    def tasks(self, renamed: dict[str, str]) -> Iterator[Change]:
        group = GROUPS[1]
        for path, task in self.after.tasks.items():
            if path in self.was:
                yield from self.task(path, self.was[path], renamed)
            elif self.after.scope[path] == "" or self.after.scope[path] in self.was:
                yield Change(group, path, f"added{self.described(self.after, path, task)}")
        for path, task in self.before.tasks.items():
            around = self.before.scope[path]
            if path not in self.now and (around == "" or around in self.now):
                yield Change(group, path, f"removed{self.described(self.before, path, task)}")

    def described(self, sources: Sources, path: str, task: graph.Task) -> str:
        facts = []
        if condition := sources.condition(path):
            facts.append(f"if {condition}")
        if task.loop:
            facts.append(f"for each of {sources.items(path)}")
        inside = [each for each in sources.tasks if each.startswith(f"{path}.") and not _is_scope(sources.tasks[each])]
        if inside:
            facts.append(f"with {_listed([each[len(path) + 1 :] for each in inside])}")
        return f": {', '.join(facts)}" if facts else ""

    def task(self, path: str, other: str, renamed: dict[str, str]) -> Iterator[Change]:
        group = GROUPS[1]
        task, was = self.after.tasks[path], self.before.tasks[other]
        around, around_before = self.after.scope[path], self.before.scope[other]
        if (self.was.get(around) if around else "") != around_before:
            yield Change(
                group,
                path,
                f"moved into {around or 'the pipeline itself'}, was in {around_before or 'the pipeline itself'}",
            )
        elif stem(task.name) != stem(was.name):
            yield Change(group, path, f"renamed, was {was.name}")
        follows = task.title == task.name and was.title == was.name
        if stem(task.title) != stem(was.title) and not follows:
            yield Change(group, path, f"is shown as {task.title!r}, was {was.title!r}")
        if not _is_scope(task) and not _is_scope(was):
            yield from self.wiring(path, other, renamed)
        for sentence in self.flow(path, other):
            yield Change(group, path, sentence)

    def wiring(self, path: str, other: str, renamed: dict[str, str]) -> Iterator[Change]:
        now, was = self.after.tasks[path].inputs, self.before.tasks[other].inputs
        for port in sorted({*now, *was}):
            here, there = self.after.origins(path, port), self.before.origins(other, port)
            if {self.as_before(each, renamed) for each in here} == set(there):
                if port in now and port in was and _values(now[port]) == _values(was[port]):
                    continue
                if _values(now.get(port)) == _values(was.get(port)):
                    continue
            new, old = _said(port, here), _said(port, there)
            if not there:
                sentence = f"input {port} comes from {new} now, was not given"
            elif not here:
                sentence = f"input {port} is not given any more, came from {old}"
            elif here[0][0] == there[0][0] == "=":
                sentence = f"input {port} is {new}, was {old}"
            else:
                sentence = f"input {port} comes from {new}, came from {old}"
            yield Change(GROUPS[1], path, sentence)

    def as_before(self, origin: tuple[str, str], renamed: dict[str, str]) -> tuple[str, str]:
        at, what = origin
        if at == "=":
            return origin
        if not at:
            name, comma, part = what.removeprefix("input ").partition(",")
            return at, f"input {renamed.get(name, name)}{comma}{part}"
        return self.was.get(at, f"new {at}"), what

    def flow(self, path: str, other: str) -> Iterator[str]:
        task, was = self.after.tasks[path], self.before.tasks[other]
        conditions = self.after.condition(path, self.named_before), self.before.condition(other)
        if conditions[0] != conditions[1]:
            now = self.after.condition(path)
            yield f"runs {f'if {now}' if now else 'always'}, ran {f'if {conditions[1]}' if conditions[1] else 'always'}"
        if task.trigger.whatever_upstream != was.trigger.whatever_upstream:
            yield "runs also after failures now" if task.trigger.whatever_upstream else "no longer runs after failures"
        items = self.after.items(path, self.named_before), self.before.items(other)
        if bool(task.loop) != bool(was.loop):
            yield f"runs for each of {self.after.items(path)} now" if task.loop else "runs once now, was a loop"
        elif items[0] != items[1] or (task.loop and was.loop and _raw(task.loop) != _raw(was.loop)):
            yield f"loops over {self.after.items(path)}, looped over {items[1]}"
        if task.loop and was.loop and task.loop.limit != was.loop.limit:
            yield f"runs {_limit(task.loop.limit)} iterations at a time, ran {_limit(was.loop.limit)}"
        if task.retry != was.retry:
            yield f"{_retries(task.retry)}, {_retries(was.retry, 'was ')}"
        if task.caching.enabled != was.caching.enabled:
            yield f"caching is {'on' if task.caching.enabled else 'off'} now"
        if task.caching.key != was.caching.key:
            yield f"cache key is {task.caching.key or 'none'}, was {was.caching.key or 'none'}"
        waits = {self.was.get(each, f"new {each}"): each for each in self.after.waits(path)}
        before = self.before.waits(other)
        if came := [waits[each] for each in waits if each not in before]:
            yield f"waits for {_listed(sorted(came))} now"
        if gone := [each for each in before if each not in waits]:
            yield f"no longer waits for {_listed(sorted(gone))}"

    # Components

    def components(self) -> Iterator[Change]:
        same: dict[tuple[int, int], tuple[tuple[str, str], ...]] = {}
        by_change: dict[tuple[str, str], list[str]] = {}
        for path, other in self.was.items():
            new, old = self.after.tasks[path].component, self.before.tasks[other].component
            if isinstance(new.body, graph.Dag) and isinstance(old.body, graph.Dag):
                continue  # its ports are told by the tasks that read them
            key = id(old), id(new)
            if key not in same:
                same[key] = tuple(bodies.differences(old, new))
            for change in same[key]:
                by_change.setdefault(change, []).append(path)
        for (sentence, detail), paths in by_change.items():
            yield Change(GROUPS[2], _listed(paths), sentence, detail=detail)

    # The rest

    def whole(self) -> Iterator[Change]:
        group = GROUPS[3]
        for name, now, was in (
            ("name", self.new.name, self.old.name),
            ("display name", self.new.display_name, self.old.display_name),
            ("schema version", self.new.schema_version, self.old.schema_version),
            ("SDK version", self.new.sdk_version, self.old.sdk_version),
            ("default root", self.new.default_root, self.old.default_root),
        ):
            if now != was:
                yield Change(group, "", f"{name} is {now or 'none'}, was {was or 'none'}")
        if self.new.description != self.old.description:
            yield Change(group, "", "the description changed")
        for sentence in bodies.settings(self.old.platforms, self.new.platforms):
            yield Change(group, "", sentence)


def _said(port: str, origins: tuple[tuple[str, str], ...]) -> str:
    if any(at == "=" and is_secret(port, what.strip('"')) for at, what in origins):
        return "a constant (not shown: it looks like a secret)"
    return words(origins)


def _without_name(port: graph.Parameter | graph.ArtifactPort) -> object:
    if isinstance(port, graph.Parameter):
        return port.type, repr(port.default), port.optional, port.literals
    return port.type, port.is_list, port.optional


def _is_required(port: graph.Parameter | graph.ArtifactPort) -> bool:
    return port.required if isinstance(port, graph.Parameter) else not port.optional


def _is_scope(task: graph.Task) -> bool:
    return isinstance(task.component.body, graph.Dag)


def _values(given: graph.Input | None) -> object:
    """Return the whole of a constant, of which an origin shows the beginning."""
    return repr(given.source.value) if given and isinstance(given.source, graph.Constant) else None


def _raw(loop: graph.Loop) -> object:
    return None if isinstance(loop.items, str) else loop.items


def _limit(limit: int) -> str:
    return str(limit) if limit else "any number of"


def _retries(retry: graph.Retry | None, was: str = "") -> str:
    if retry is None:
        return f"{was}not tried again" if was else "is not tried again"
    wait = f" after {retry.wait:g} s" if retry.wait else ""
    return f"{was or 'is '}tried again {retry.count} times{wait}"


def _listed(names: list[str]) -> str:
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
