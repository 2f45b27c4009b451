"""What a compiled pipeline means, said as plainly as it can be: one task after another, over the IR as it is written.

The engine is held against it, so nothing here is the engine's: docs/engine.md and KFP's own backend say what is meant.
It knows what `Pipelines` in test_random_dags.py writes, and nothing is run: `work` says what a command would leave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SUCCEEDED, FAILED, SKIPPED, CANCELLED = "SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"
IN_STATUS = {SUCCEEDED: "COMPLETE", CANCELLED: "CANCELED"}  # as Kubeflow words a final status

_PLACEHOLDER = re.compile(r"\{\{\$\.([a-z_]+)(?:\.([a-z]+)\['([^']*)'\](?:\.([a-z_]+))?(?:\['([^']*)'\])?)?\}\}")


@dataclass(frozen=True)
class Artifact:
    """An artifact; `uri` is the task's output in the run's folder, or where it was imported from."""

    name: str
    type: str
    uri: str
    metadata: Mapping[str, Any]
    content: str


@dataclass(frozen=True)
class Work:
    """What a command leaves: parameters, artifacts as content and metadata; a reason to refuse all that."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    exit_code: int | None = 0  # None: its outputs are refused


@dataclass
class Outcome:
    """How a task ended: its state, what it was given and what it gave."""

    state: str
    inputs: dict[str, Any] = field(default_factory=dict)
    artifacts_in: dict[str, list[Artifact]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)
    exit_code: int | None = None


class Collected(list[Any]):
    """What a loop collected: inside another loop it becomes part of one flat list."""


class Failure(Exception):
    """The task fails before its command is run."""


class Interpreter:
    """Carries a pipeline out.

    Args:
        spec: PipelineSpec.
        names: Values of placeholders such as pipeline_job_name.
        work: Says what a task's command leaves, from its program, inputs, arguments and environment.
        imported: Content of what importers and the pipeline's artifact inputs take in, by URI.
        conditions: Trees of the conditions by their text: ["==", left, right], ["input", name], ["literal", value], …
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        names: Mapping[str, str],
        work: Callable[..., Work],
        imported: Mapping[str, str],
        conditions: Mapping[str, Any],
    ) -> None:
        self.spec, self.names, self.work, self.imported = spec, names, work, imported
        self.conditions = conditions
        self.tasks: dict[str, Outcome] = {}

    def run(self, parameters: Mapping[str, Any], artifacts: Mapping[str, str]) -> Outcome:
        """Return how the pipeline ends; `tasks` has how each of its tasks did."""
        root = self.spec["root"]
        ports = root.get("inputDefinitions", {})
        self.given = bind(ports.get("parameters", {}), parameters, is_dag=True)
        types = {name: port["artifactType"]["schemaTitle"] for name, port in ports.get("artifacts", {}).items()}
        found = {name: [Artifact(name, types[name], uri, {}, self.imported[uri])] for name, uri in artifacts.items()}
        return self.dag(root, self.given, found, "")

    def dag(self, component: Mapping[str, Any], parameters: dict, artifacts: dict, prefix: str) -> Outcome:
        done: dict[str, Outcome] = {}
        for name, task in in_order(component["dag"].get("tasks", {})):
            done[name] = self.task(name, task, parameters, artifacts, done, prefix + name)
        states = [one.state for one in done.values()]
        outcome = Outcome(FAILED if FAILED in states else SUCCEEDED)
        outputs = component["dag"].get("outputs", {})
        for port, output in outputs.get("parameters", {}).items():
            several = output.get("valueFromOneof", {}).get("parameterSelectors") or [output.get("valueFromParameter")]
            for source in several:
                given = done[source["producerSubtask"]].outputs
                if port not in outcome.outputs and source["outputParameterKey"] in given:
                    outcome.outputs[port] = given[source["outputParameterKey"]]
        for port, output in outputs.get("artifacts", {}).items():
            for source in output["artifactSelectors"]:
                given = done[source["producerSubtask"]].artifacts
                if port not in outcome.artifacts and source["outputArtifactKey"] in given:
                    outcome.artifacts[port] = given[source["outputArtifactKey"]]
        return outcome

    def task(self, name: str, task: Mapping, scope: dict, scope_artifacts: dict, done: dict, path: str) -> Outcome:
        component = self.spec["components"][task["componentRef"]["name"]]
        trigger = task.get("triggerPolicy", {})
        before = [done[other].state for other in upstream(task)]
        if trigger.get("strategy") != "ALL_UPSTREAM_TASKS_COMPLETED":
            if FAILED in before or CANCELLED in before:
                return self.never(task, path, CANCELLED)
            if SKIPPED in before:
                return self.never(task, path, SKIPPED)
        ports = component.get("inputDefinitions", {})
        artifacts: dict[str, list[Artifact]] = {}
        outcome = Outcome(FAILED)
        try:
            for port, source in task.get("inputs", {}).get("artifacts", {}).items():
                if "componentInputArtifact" in source:
                    found = scope_artifacts.get(source["componentInputArtifact"])
                else:
                    producer = source["taskOutputArtifact"]
                    found = done[producer["producerTask"]].artifacts.get(producer["outputArtifactKey"])
                if found is not None:
                    artifacts[port] = found
            inputs = self.parameters(name, task, scope, done)
            inputs = bind(ports.get("parameters", {}), inputs, "dag" in component)
            outcome = Outcome(SUCCEEDED, inputs, artifacts)
            if trigger.get("condition") and not self.holds(trigger["condition"], inputs):
                return self.never(task, path, SKIPPED, outcome)
            if "parameterIterator" in task or "artifactIterator" in task:
                return self.loop(name, task, component, outcome, path)
            return self.one(name, task, component, outcome, path)
        except Failure:
            return self.never(task, path, FAILED, outcome)

    def parameters(self, name: str, task: Mapping, scope: dict, done: dict) -> dict[str, Any]:
        sources = task.get("inputs", {}).get("parameters", {})
        found: dict[str, Any] = {}
        for port, source in sources.items():
            value = None
            if "componentInputParameter" in source:
                value = scope.get(source["componentInputParameter"])
            elif "taskOutputParameter" in source:
                producer = source["taskOutputParameter"]
                value = done[producer["producerTask"]].outputs.get(producer["outputParameterKey"])
            elif "taskFinalStatus" in source:
                producer = source["taskFinalStatus"]["producerTask"]
                state = done[producer].state
                error = {"error": True} if state == FAILED else {}
                value = {"state": IN_STATUS.get(state, state), "pipelineTaskName": producer, **error}
            if value is not None:
                found[port] = value
        constants = {
            port: source["runtimeValue"]["constant"] for port, source in sources.items() if "runtimeValue" in source
        }
        names = {**self.names, "pipeline_task_name": name}
        filled = {port: fill_constant(value, found, names) for port, value in sorted(constants.items())}
        found |= {port: value for port, value in filled.items() if value is not None}
        for port, source in sources.items():
            if "parameterExpressionSelector" in source and port in found:
                key = re.fullmatch(r'parseJson\(string_value\)\["(\w+)"\]', source["parameterExpressionSelector"])[1]
                value = json.loads(found[port]) if isinstance(found[port], str) else found[port]
                if not isinstance(value, dict) or key not in value:
                    raise Failure
                found[port] = value[key]
        return found

    def loop(self, name: str, task: Mapping, component: Mapping, outer: Outcome, path: str) -> Outcome:
        given = []
        if "artifactIterator" in task:
            iterator = task["artifactIterator"]
            for item in outer.artifacts_in.get(iterator["items"]["inputArtifact"], []):
                given.append((outer.inputs, outer.artifacts_in | {iterator["itemInput"]: [item]}))
        else:
            iterator = task["parameterIterator"]
            raw = iterator["items"].get("raw")
            items = json.loads(raw) if raw else outer.inputs.get(iterator["items"]["inputParameter"])
            if isinstance(items, str):
                items = as_json(items)
            if not isinstance(items, list):
                raise Failure
            ports = component.get("inputDefinitions", {}).get("parameters", {})
            for item in items:
                inputs = bind(ports, outer.inputs | {iterator["itemInput"]: item}, "dag" in component)
                given.append((inputs, outer.artifacts_in))
        ends = [
            self.one(name, task, component, Outcome(SUCCEEDED, *one), f"{path}.{index}")
            for index, one in enumerate(given)
        ]
        self.tasks[path] = outer
        if any(end.state == FAILED for end in ends):
            outer.state = FAILED
            return outer
        ports = component.get("outputDefinitions", {})
        for port in ports.get("parameters", {}):
            found = [end.outputs[port] for end in ends if port in end.outputs]
            flat = [item for one in found for item in (one if isinstance(one, Collected) else [one])]
            outer.outputs[port] = Collected(flat)
        for port in ports.get("artifacts", {}):
            outer.artifacts[port] = [item for end in ends for item in end.artifacts.get(port, [])]
        return outer

    def one(self, name: str, task: Mapping, component: Mapping, outcome: Outcome, path: str) -> Outcome:
        """Carry out a task, or an iteration of it, that is given what it needs."""
        self.tasks[path] = outcome
        if "dag" in component:
            inner = self.dag(component, outcome.inputs, outcome.artifacts_in, f"{path}.")
            outcome.state = inner.state
            if inner.state == SUCCEEDED:  # a part that failed gives nothing
                outcome.outputs, outcome.artifacts = inner.outputs, inner.artifacts
            return outcome
        executor = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        try:
            if "importer" in executor:
                self.importer(executor["importer"], component, outcome)
            else:
                self.container(name, task, component, executor["container"], outcome, path)
        except Failure:
            outcome.state = FAILED
        return outcome

    def importer(self, importer: Mapping, component: Mapping, outcome: Outcome) -> None:
        uri = importer["artifactUri"]
        uri = uri["constant"] if "constant" in uri else outcome.inputs.get(uri["runtimeParameter"])
        if uri not in self.imported:
            raise Failure
        metadata = fill_constant(importer.get("metadata", {}), outcome.inputs, {})
        for port in component["outputDefinitions"]["artifacts"]:
            title = importer["typeSchema"]["schemaTitle"]
            outcome.artifacts[port] = [Artifact(port, title, uri, metadata, self.imported[uri])]

    def container(
        self, name: str, task: Mapping, component: Mapping, container: Mapping, outcome: Outcome, path: str
    ) -> None:
        for port, spec in component.get("inputDefinitions", {}).get("artifacts", {}).items():
            found = outcome.artifacts_in.get(port, [])
            if len(found) != 1 and not spec.get("isArtifactList") and (found or not spec.get("isOptional")):
                raise Failure
        outputs = component.get("outputDefinitions", {})
        places = {port: f"tasks/{path}/outputs/{port}" for ports in outputs.values() for port in ports}

        def value(match: re.Match[str]) -> str:
            side, kind, port, rest, key = match.groups()
            if kind is None:
                return {**self.names, "pipeline_task_name": name}[side]
            if side == "outputs":
                return places[port]
            if kind == "parameters":
                if outcome.inputs.get(port) is None:
                    raise Failure
                return to_text(outcome.inputs[port])
            if not outcome.artifacts_in.get(port):
                raise Failure
            artifact = outcome.artifacts_in[port][0]
            if rest != "metadata":
                return artifact.uri
            if key not in artifact.metadata:
                raise Failure
            return to_text(artifact.metadata[key])

        env = {item["name"]: _PLACEHOLDER.sub(value, item["value"]) for item in container.get("env", [])}
        present = set(outcome.inputs) | {port for port, found in outcome.artifacts_in.items() if found}
        args = []
        for element in container.get("args", []):
            element = re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), element)
            parsed = as_json(element) if element.startswith('{"') else None
            args += [_PLACEHOLDER.sub(value, text) for text in chosen(parsed or element, present)]
        program = json.loads(container["command"][1])
        retries = task.get("retryPolicy", {}).get("maxRetryCount", 0)
        seen = {port: found for port, found in outcome.artifacts_in.items() if found}
        for attempt in range(retries + 1):
            done = self.work(program, outcome.inputs, seen, args, env, attempt)
            if done.exit_code == 0:
                break
        outcome.exit_code = done.exit_code
        if done.exit_code != 0:
            raise Failure
        types = {port: spec["parameterType"] for port, spec in outputs.get("parameters", {}).items()}
        outcome.outputs = {port: coerce(done.parameters[port], kind) for port, kind in types.items()}
        for port, spec in outputs.get("artifacts", {}).items():
            content, metadata = done.artifacts[port]
            title = spec["artifactType"]["schemaTitle"]
            outcome.artifacts[port] = [Artifact(port, title, places[port], metadata, content)]

    def holds(self, condition: str, inputs: Mapping[str, Any]) -> bool:
        value = evaluate(self.conditions[condition], inputs)
        if not isinstance(value, bool):
            raise Failure
        return value

    def never(self, task: Mapping, path: str, state: str, outcome: Outcome | None = None) -> Outcome:
        """Note that a task does not begin, nor anything in it that is known before it begins."""
        self.tasks[path] = outcome or Outcome(state)
        self.tasks[path].state = state
        component = self.spec["components"][task["componentRef"]["name"]]
        if "dag" in component and "parameterIterator" not in task and "artifactIterator" not in task:
            for name, inner in component["dag"].get("tasks", {}).items():
                self.never(inner, f"{path}.{name}", CANCELLED if state == FAILED else state)
        return self.tasks[path]


def upstream(task: Mapping[str, Any]) -> set[str]:
    """Return the tasks that a task waits for: those it names, and those whose outputs or end it is given."""
    found = set(task.get("dependentTasks", []))
    for sources in task.get("inputs", {}).values():
        for source in sources.values():
            for kind in ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus"):
                if kind in source:
                    found.add(source[kind]["producerTask"])
    return found


def in_order(tasks: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield tasks, each after those it waits for."""
    done: set[str] = set()
    while len(done) < len(tasks):
        for name, task in tasks.items():
            if name not in done and upstream(task) <= done:
                yield name, task
                done.add(name)


def bind(ports: Mapping[str, Any], given: Mapping[str, Any], is_dag: bool) -> dict[str, Any]:
    """Return input parameters as their ports want them, with defaults; what a DAG is not given may be missing."""
    values = {name: value for name, value in given.items() if value is not None}
    for name, port in ports.items():
        if name not in values and "defaultValue" in port:
            values[name] = port["defaultValue"]
        if name in values:
            values[name] = coerce(values[name], port["parameterType"], is_input=True)
        elif not is_dag and not port.get("isOptional"):
            raise Failure
    return values


def coerce(value: Any, kind: str, is_input: bool = False) -> Any:
    """Return a value as its type has it: numbers by value, any input as text where text is wanted."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "STRING" and is_input and not isinstance(value, str):
        return to_text(value)
    if kind == "NUMBER_INTEGER" and is_number and value == int(value) and abs(value) < 2**53:
        return int(value)
    if kind == "NUMBER_DOUBLE" and is_number:
        return float(value)
    plain = {"STRING": str, "BOOLEAN": bool, "LIST": list, "STRUCT": dict, "TASK_FINAL_STATUS": dict}
    if not isinstance(value, plain.get(kind, ())):
        raise Failure
    return value


def to_text(value: Any) -> str:
    """Return a value as a command line shows it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".")
    return json.dumps(value)


def as_json(text: str) -> Any:
    """Return what a text says as JSON; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def fill_constant(value: Any, inputs: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """Return a constant with the values it refers to, once; a text that is one reference becomes the value itself."""
    if isinstance(value, dict):
        return {key: fill_constant(item, inputs, names) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_constant(item, inputs, names) for item in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> Any:
        if match[2] is None:
            return names[match[1]]
        if inputs.get(match[3]) is None:
            raise Failure
        return inputs[match[3]]

    whole = _PLACEHOLDER.fullmatch(value)
    return found(whole) if whole else _PLACEHOLDER.sub(lambda match: to_text(found(match)), value)


def chosen(element: Any, present: set[str]) -> list[str]:
    """Return the arguments that an element of a command line stands for."""
    if isinstance(element, str):
        return [element]
    if isinstance(element, list):
        return [text for item in element for text in chosen(item, present)]
    if "Concat" in element:
        return ["".join(chosen(element["Concat"], present))]
    branch = element["IfPresent"]
    return chosen(branch["Then"] if branch["InputName"] in present else branch.get("Else", []), present)


def evaluate(tree: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the value of a condition's tree. What decides && or || does so whatever the other side is."""
    kind = tree[0]
    if kind == "literal":
        return tree[1]
    if kind == "input":
        if inputs.get(tree[1]) is None:
            raise Failure
        return inputs[tree[1]]
    if kind in ("&&", "||"):
        sides = []
        for side in tree[1:]:
            try:
                sides.append(evaluate(side, inputs))
            except Failure:
                sides.append(None)
        if (kind == "||") in [side for side in sides if isinstance(side, bool)]:
            return kind == "||"
        if not all(isinstance(side, bool) for side in sides):
            raise Failure
        return kind == "&&"
    values = [evaluate(side, inputs) for side in tree[1:]]
    kinds = [
        "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else type(value).__name__
        for value in values
    ]
    if kind == "!":
        if kinds != ["bool"]:
            raise Failure
        return not values[0]
    if kind in ("int", "double"):
        if kinds != ["number"]:
            raise Failure
        return int(values[0]) if kind == "int" else float(values[0])
    if kind in ("==", "!="):
        return (kinds[0] == kinds[1] and values[0] == values[1]) is (kind == "==")
    if kinds[0] != kinds[1] or kinds[0] not in ("bool", "number", "str"):
        raise Failure
    left, right = values
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[kind]
