"""Random pipelines mean to the engine what they mean to a plain interpreter: every state, every value, every file."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.compile import launcher
from penstock.compile.targets import local
from penstock.compile.targets.local.record import Values
from tests.compile.targets.local import programs
from tests.compile.targets.local.programs import SAMPLES, TYPES, content, plain, work
from tests.compile.targets.local.reference import Interpreter, Outcome

ITEMS: list[tuple[str, list[Any]]] = [
    ("NUMBER_INTEGER", [1, 2]),
    ("STRUCT", [{"a": 1}, {"a": 2, "b": 3}]),
    ("STRING", ["a", 2, 0.5]),
    ("NUMBER_INTEGER", []),
    ("NUMBER_DOUBLE", [1, 2.5]),
    ("LIST", [[1], []]),
    ("NUMBER_INTEGER", [1, "x"]),
]
ARTIFACT = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}
ANYWAY = "ALL_UPSTREAM_TASKS_COMPLETED"


class Runner:
    """Runs the programs of random pipelines within this process, as `launcher.run_process` runs commands."""

    def __init__(self) -> None:
        self.attempts: Counter[Path] = Counter()

    def __call__(
        self,
        command: Sequence[str],
        args: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        log: Path,
        *,
        stop: launcher.Stop,
        timeout: float | None = None,
        stream: Any = None,
    ) -> int:
        assert folder.is_dir()
        assert not any(folder.iterdir())
        self.attempts[folder] += 1
        with log.open("a") as file:
            file.write("boom\n")
        return programs.carry_out(command, args, env, folder, self.attempts[folder] - 1)


# Pipelines


@dataclass(frozen=True)
class Value:
    """Something that a task of a scope can be given: a parameter, or artifacts if its type says so."""

    type: str  # of TYPES, "artifact" or "artifacts"
    source: Mapping[str, Any]
    task: str = ""  # that gives it; empty for an input of the scope

    @property
    def kind(self) -> str:
        return "artifacts" if self.type.startswith("artifact") else "parameters"


@dataclass
class Case:
    """A pipeline with what it is given."""

    spec: dict[str, Any] = field(repr=False)
    parameters: dict[str, Any]
    artifacts: dict[str, str]  # content by name
    jobs: int
    conditions: dict[str, Any] = field(default_factory=dict, repr=False)


class Pipelines:
    """Makes pipelines out of numbers that are drawn from 0 to a most; small ones make small pipelines."""

    def __init__(self, upto: Callable[[int], int]) -> None:
        self.upto = upto
        self.counter = itertools.count()
        self.components: dict[str, Any] = {}
        self.executors: dict[str, Any] = {}
        self.conditions: dict[str, Any] = {}
        self.left = 14  # tasks that may still be made, so that pipelines end
        self.calm = not self.one_in(3)  # nothing fails: what fails hides what comes after

    def one_in(self, many: int) -> bool:
        return self.upto(many - 1) == many - 1

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.upto(len(options) - 1)]

    def name(self, stem: str) -> str:
        return f"{stem}-{next(self.counter)}"

    def case(self) -> Case:
        inputs: list[Value] = []
        ports: dict[str, Any] = {}
        given: dict[str, Any] = {}
        for index in range(self.upto(3)):
            name, kind = f"in{index}", self.pick(TYPES)
            ports[name] = {"parameterType": kind}
            if self.one_in(3):
                ports[name]["isOptional"] = True
            elif self.one_in(2):
                ports[name]["defaultValue"] = self.pick(SAMPLES[kind])
            if self.one_in(2) or not (ports[name].keys() & {"isOptional", "defaultValue"}):
                given[name] = self.pick(SAMPLES[kind])
            inputs.append(Value(kind, {"componentInputParameter": name}))
        files = {}
        if self.one_in(3):
            files["file"] = "rows"
            inputs.append(Value("artifact", {"componentInputArtifact": "file"}))
        artifacts = {name: {"artifactType": ARTIFACT} for name in files}
        root, _ = self.dag(inputs, depth=0, outputs=2)
        root["inputDefinitions"] = {"parameters": ports, "artifacts": artifacts}
        spec = {
            "pipelineInfo": {"name": "random"},
            "schemaVersion": "2.1.0",
            "sdkVersion": "kfp-2.17.0",
            "root": root,
            "components": self.components,
            "deploymentSpec": {"executors": self.executors},
        }
        return Case(spec, given, files, self.pick([2, 1, 4]), self.conditions)

    def dag(self, inputs: Sequence[Value], depth: int, outputs: int) -> tuple[dict[str, Any], dict[str, Value]]:
        """Return a component of tasks, without its inputs, and its outputs by name."""
        tasks: dict[str, Any] = {}
        values = list(inputs)
        for _ in range(1 + self.upto(3)):
            if self.left > 0:
                self.left -= 1
                self.add(tasks, values, depth)
        if self.one_in(3):
            self.maker(tasks, values, self.pick(["STRING", "LIST", "artifact"]))
        elif 0 < depth < 3 and self.one_in(2):
            self.loop(tasks, values, depth)
        made = [value for value in values if value.task]
        number = self.pick([1, 0, *range(2, outputs + 1)]) if made else 0
        found = {f"o{index}": self.pick(made[::-1]) for index in range(number)}
        return self.component(tasks, found), found

    def component(self, tasks: dict[str, Any], outputs: Mapping[str, Value]) -> dict[str, Any]:
        sources: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        for name, value in outputs.items():
            key = value.source[f"taskOutput{value.kind[:-1].capitalize()}"]
            port = key.get("outputParameterKey") or key["outputArtifactKey"]
            if value.kind == "parameters":
                selector = {"producerSubtask": value.task, "outputParameterKey": port}
                sources["parameters"][name] = {"valueFromParameter": selector}
            else:
                selector = {"producerSubtask": value.task, "outputArtifactKey": port}
                sources["artifacts"][name] = {"artifactSelectors": [selector]}
        return {"dag": {"tasks": tasks, "outputs": sources}, "outputDefinitions": self.ports(outputs)}

    def ports(self, values: Mapping[str, Value]) -> dict[str, Any]:
        found: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        for name, value in values.items():
            if value.kind == "parameters":
                found["parameters"][name] = {"parameterType": value.type}
            else:
                several = {"isArtifactList": True} if value.type == "artifacts" else {}
                found["artifacts"][name] = {"artifactType": ARTIFACT, **several}
        return found

    def add(self, tasks: dict[str, Any], values: list[Value], depth: int) -> None:
        """Add a task, or several that belong together, to a scope, and what they give to its values."""
        makers = [self.container, self.container, self.container, self.importer]
        if depth < 3:
            makers += [self.nested, self.condition, self.branches, self.loop, self.loop, self.exit_handler]
        self.pick(makers)(tasks, values, depth)

    def put(
        self,
        tasks: dict[str, Any],
        values: list[Value],
        name: str,
        task: dict[str, Any],
        outputs: Mapping[str, Value | str],
    ) -> None:
        if tasks and self.one_in(6):
            task["dependentTasks"] = sorted({*task.get("dependentTasks", []), self.pick(list(tasks))})
        if self.one_in(12):
            task.setdefault("triggerPolicy", {})["strategy"] = ANYWAY
        tasks[name] = task
        for port, value in outputs.items():
            kind = value if isinstance(value, str) else value.type
            if kind.startswith("artifact"):
                source: dict[str, Any] = {"taskOutputArtifact": {"producerTask": name, "outputArtifactKey": port}}
            else:
                source = {"taskOutputParameter": {"producerTask": name, "outputParameterKey": port}}
            values.append(Value(kind, source, name))

    # Tasks that run something

    def container(self, tasks: dict[str, Any], values: list[Value], depth: int, last: str = "") -> None:
        """Add a container task; `last` is a task whose final status it is given, whatever came of it."""
        name = self.name("task")
        sources: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        ports: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        for index in range(self.upto(3)):
            port = f"p{index}"
            choice = self.upto(5)
            if choice <= 3 and values:
                value = values[len(values) - 1 - self.upto(len(values) - 1)]
                sources[value.kind][port] = dict(value.source)
                ports[value.kind] |= self.ports({port: value})[value.kind]
                if value.type == "STRUCT" and self.one_in(3):
                    sources["parameters"][port]["parameterExpressionSelector"] = 'parseJson(string_value)["a"]'
                    ports["parameters"][port]["parameterType"] = "NUMBER_INTEGER"
                elif value.kind == "parameters" and self.one_in(6):
                    alike = ["STRING", *(["NUMBER_DOUBLE"] if value.type == "NUMBER_INTEGER" else [])]
                    ports["parameters"][port]["parameterType"] = self.pick(alike if self.calm else [*alike, *TYPES])
            elif choice == 4:
                kind = self.pick(TYPES)
                ports["parameters"][port] = {"parameterType": kind}
                sources["parameters"][port] = {"runtimeValue": {"constant": self.constant(kind, values, sources)}}
            else:
                ports["parameters"][port] = {"parameterType": "STRING"}
            if port in ports["parameters"] and (self.one_in(3) or port not in sources["parameters"]):
                ports["parameters"][port]["isOptional"] = True
                if self.one_in(2):
                    kind = ports["parameters"][port]["parameterType"]
                    ports["parameters"][port]["defaultValue"] = self.pick(SAMPLES[kind])
            elif port in ports["artifacts"] and self.one_in(3):
                ports["artifacts"][port]["isOptional"] = True
        outputs: dict[str, str] = {f"q{index}": self.pick(TYPES) for index in range(self.upto(2))}
        if self.one_in(2):
            outputs["data"] = "artifact"
        definitions = self.ports({port: Value(kind, {}) for port, kind in outputs.items()})
        task: dict[str, Any] = {"inputs": sources}
        if last:
            task |= {"dependentTasks": [last], "triggerPolicy": {"strategy": ANYWAY}}
            sources["parameters"]["status"] = {"taskFinalStatus": {"producerTask": last}}
            ports["parameters"]["status"] = {"parameterType": "TASK_FINAL_STATUS", "isOptional": True}
        retries = self.pick([0, 0, 1, 2])
        if retries:
            task["retryPolicy"] = {"maxRetryCount": retries, "backoffDuration": "0s"}
        env = {"A": self.pick(["1", "$(A)"])} if self.one_in(5) else {}
        program = {
            "name": name,
            "parameters": [(port, kind) for port, kind in outputs.items() if kind != "artifact"],
            "artifacts": [port for port, kind in outputs.items() if kind == "artifact"],
            "fails": self.pick([0, 0, 0, *range(retries + 1), *([] if self.calm else [99])]),
            "breaks": self.broken(outputs) if not self.calm and self.one_in(12) else "",
            "files": self.one_in(2),
            "folders": self.one_in(2),
            "env": list(env),
        }
        container = {
            "image": "none",
            "command": ["work", json.dumps(program), "{{$}}"],
            "args": [self.argument(name, ports, sources, outputs) for _ in range(self.upto(2))],
            "env": [{"name": key, "value": value} for key, value in env.items()],
        }
        self.executor(name, {"container": container}, {"inputDefinitions": ports, "outputDefinitions": definitions})
        self.put(tasks, values, name, {**task, "componentRef": {"name": name}}, outputs)

    def executor(self, name: str, executor: Mapping[str, Any], component: Mapping[str, Any]) -> None:
        self.executors[name] = executor
        self.components[name] = {"executorLabel": name, **component}

    def broken(self, outputs: Mapping[str, str]) -> str:
        ways = ["garbage"]
        if any(kind not in ("artifact", "LIST", "STRUCT") for kind in outputs.values()):
            ways += ["unwritten"]
        if (found := list(outputs.values())) and found[0] != "artifact":
            ways += ["null", "nan"]
            ways += ["big"] if found[0] == "NUMBER_INTEGER" else []
        if "artifact" in outputs.values():
            ways += ["empty"]
        return self.pick(ways)

    def constant(self, kind: str, values: Sequence[Value], sources: dict[str, Any]) -> Any:
        """Return a constant, perhaps one that refers to another input, which is added to the sources."""
        parameters = [value for value in values if value.kind == "parameters"]
        if not parameters or kind not in ("STRING", "LIST", "STRUCT") or self.one_in(2):
            return self.pick([value for value in SAMPLES[kind] if "{{" not in str(value)])
        name = f"pipelinechannel--{len(sources['parameters'])}"
        sources["parameters"][name] = dict(self.pick(parameters).source)
        reference = f"{{{{$.inputs.parameters['{name}']}}}}"
        text = self.pick([reference, f"<{reference}> of {{{{$.pipeline_job_name}}}}"])
        return {"STRING": text, "LIST": [1, text], "STRUCT": {"a": 1, "b": text}}[kind]

    def argument(
        self, name: str, ports: Mapping[str, Any], sources: Mapping[str, Any], outputs: Mapping[str, str]
    ) -> str:
        known = [port for port in ports["parameters"] if port != "status"]  # messages are the engine's own
        texts = ["plain", "{{$.pipeline_task_name}}", "$(A) and $(B)"]
        texts += [f"{{{{$.outputs.artifacts['{port}'].path}}}}" for port in outputs if outputs[port] == "artifact"]
        for port, definition in ports["artifacts"].items():
            if not definition.get("isArtifactList"):
                texts += [f"{{{{$.inputs.artifacts['{port}'].{what}}}}}" for what in ("uri", "path", "metadata['n']")]
        given = [port for port in known if port in sources["parameters"] or "defaultValue" in ports["parameters"][port]]
        texts += [f"--{port}={{{{$.inputs.parameters['{port}']}}}}" for port in given]
        text = self.pick(texts)
        choice = self.upto(3)
        if choice == 2:
            return json.dumps({"Concat": ["x", text, {"Concat": ["y", "z"]}]})
        if choice == 3 and known:
            port = self.pick(known)
            branch = {"InputName": port, "Then": [f"{{{{$.inputs.parameters['{port}']}}}}", "yes"]}
            return json.dumps({"IfPresent": branch | ({"Else": ["no", text]} if self.one_in(2) else {})})
        return text

    def importer(self, tasks: dict[str, Any], values: list[Value], depth: int) -> None:
        name = self.name("importer")
        texts = [value for value in values if value.type == "STRING"]
        inputs, metadata = {}, {"m": 1}
        if texts:
            inputs["note"] = dict(self.pick(texts).source)
            metadata["note"] = "{{$.inputs.parameters['note']}}"
        uri: dict[str, Any] = {"constant": "nowhere" if not self.calm and self.one_in(6) else "@imported"}
        if self.one_in(2):
            inputs["uri"] = {"runtimeValue": uri}
            uri = {"runtimeParameter": "uri"}
        importer = {"artifactUri": uri, "typeSchema": ARTIFACT, "metadata": metadata}
        ports = {port: {"parameterType": "STRING"} for port in inputs}
        outputs = self.ports({"artifact": Value("artifact", {})})
        component = {"inputDefinitions": {"parameters": ports}, "outputDefinitions": outputs}
        self.executor(name, {"importer": importer}, component)
        task = {"inputs": {"parameters": inputs}, "componentRef": {"name": name}}
        self.put(tasks, values, name, task, {"artifact": "artifact"})

    # Tasks that hold others

    def handed(
        self, values: Sequence[Value], more: Mapping[str, Value] | None = None
    ) -> tuple[dict, dict, list[Value]]:
        """Return sources and ports of a DAG that is given some of the values, and the values inside."""
        sources: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        inside: dict[str, Value] = {}
        for _ in range(self.upto(min(len(values), 4))):
            value = values[len(values) - 1 - self.upto(len(values) - 1)]
            name = f"pipelinechannel--{len(inside)}"
            sources[value.kind][name] = dict(value.source)
            inside[name] = value
        inside |= more or {}
        ports = self.ports(inside)
        for port in ports["parameters"].values():
            if self.one_in(8):
                port |= {"isOptional": True, "defaultValue": self.pick(SAMPLES[port["parameterType"]])}
        given = [
            Value(value.type, {f"componentInput{value.kind[:-1].capitalize()}": name}) for name, value in inside.items()
        ]
        return sources, ports, given

    def nested(self, tasks: dict[str, Any], values: list[Value], depth: int) -> str:
        name = self.name("dag")
        sources, ports, given = self.handed(values)
        component, outputs = self.dag(given, depth + 1, 2)
        for port in list(sources["parameters"]):
            if self.one_in(8):  # an optional input that is not given
                del sources["parameters"][port]
                ports["parameters"][port]["isOptional"] = True
        self.components[name] = {**component, "inputDefinitions": ports}
        self.put(tasks, values, name, {"inputs": sources, "componentRef": {"name": name}}, outputs)
        return name

    def exit_handler(self, tasks: dict[str, Any], values: list[Value], depth: int) -> None:
        name = self.nested(tasks, values, depth)
        self.container(tasks, [value for value in values if value.task != name], depth, last=name)

    def condition(self, tasks: dict[str, Any], values: list[Value], depth: int) -> None:
        name = self.name("condition")
        sources, ports, given = self.handed(values)
        condition = self.expression(given)
        component, outputs = self.dag(given, depth + 1, 1)
        self.components[name] = {**component, "inputDefinitions": ports}
        task = {"inputs": sources, "componentRef": {"name": name}, "triggerPolicy": {"condition": self.text(condition)}}
        self.put(tasks, values, name, task, outputs)

    def branches(self, tasks: dict[str, Any], values: list[Value], depth: int) -> None:
        """Add If, perhaps Elif, perhaps Else, of which each gives the same output."""
        name = self.name("branches")
        sources, ports, given = self.handed(values)
        kind = self.pick([*TYPES, "artifact"])
        handed: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        for value in given:
            handed[value.kind][next(iter(value.source.values()))] = dict(value.source)
        before: list[Any] = []
        inner: dict[str, Any] = {}
        selectors = []
        for _ in range(2 + self.upto(1)):
            branch = self.name("branch")
            mine = self.expression(given)
            condition = functools.reduce(lambda so_far, other: ("&&", ("!", other), so_far), before, mine)
            if not self.one_in(8):  # else, which no compiler writes, several may run: the first gives the value
                before.append(mine)
            branch_tasks: dict[str, Any] = {}
            branch_values = list(given)
            if self.one_in(3):
                self.left -= 1
                self.add(branch_tasks, branch_values, depth + 1)
            self.maker(branch_tasks, branch_values, kind)
            value = next(one for one in reversed(branch_values) if one.type == kind and one.task)
            component = self.component(branch_tasks, {"out": value})
            self.components[branch] = {**component, "inputDefinitions": ports}
            trigger = {"condition": self.text(condition)}
            inner[branch] = {"inputs": handed, "componentRef": {"name": branch}, "triggerPolicy": trigger}
            key = "outputArtifactKey" if kind == "artifact" else "outputParameterKey"
            selectors.append({"producerSubtask": branch, key: "out"})
        if kind == "artifact":
            outputs: dict[str, Any] = {"artifacts": {"one": {"artifactSelectors": selectors}}}
        else:
            outputs = {"parameters": {"one": {"valueFromOneof": {"parameterSelectors": selectors}}}}
        definitions = self.ports({"one": Value(kind, {})})
        self.components[name] = {
            "dag": {"tasks": inner, "outputs": outputs}, "inputDefinitions": ports, "outputDefinitions": definitions
        }  # fmt: skip
        self.put(tasks, values, name, {"inputs": sources, "componentRef": {"name": name}}, {"one": kind})

    def maker(self, tasks: dict[str, Any], values: list[Value], kind: str) -> None:
        """Add a container task that surely gives a value of a type."""
        name = self.name("maker")
        program = {
            "name": name, "parameters": [("out", kind)] if kind != "artifact" else [], "fails": 0, "breaks": "",
            "artifacts": ["out"] if kind == "artifact" else [], "files": True, "folders": False, "env": [],
        }  # fmt: skip
        container = {"image": "none", "command": ["work", json.dumps(program), "{{$}}"]}
        self.executor(name, {"container": container}, {"outputDefinitions": self.ports({"out": Value(kind, {})})})
        self.put(tasks, values, name, {"componentRef": {"name": name}}, {"out": kind})

    def loop(self, tasks: dict[str, Any], values: list[Value], depth: int) -> None:
        name = self.name("loop")
        lists = [value for value in values if value.type in ("LIST", "artifacts")] or [
            value for value in values if value.type == "STRING"
        ]
        item, more, task = "loop-item", {}, {}
        if lists and not self.one_in(3):
            value = lists[len(lists) - 1 - self.upto(len(lists) - 1)]
            kind = "artifact" if value.type == "artifacts" else self.pick(["NUMBER_INTEGER", "STRING"])
            more["items"] = value
            key = "inputArtifact" if kind == "artifact" else "inputParameter"
            task["artifactIterator" if kind == "artifact" else "parameterIterator"] = {
                "itemInput": item,
                "items": {key: "items"},
            }
        else:
            kind, raw = self.pick(ITEMS[: -1 if self.calm else None])
            task["parameterIterator"] = {"itemInput": item, "items": {"raw": json.dumps(raw)}}
        sources, ports, given = self.handed(values, {item: Value(kind, {}), **more})
        ports["parameters"].get(item, {}).pop("defaultValue", None)
        for port, value in more.items():
            sources[value.kind][port] = dict(value.source)
        if self.one_in(3):
            task["iteratorPolicy"] = {"parallelismLimit": 1 + self.upto(1)}
        component, outputs = self.dag(given, depth + 1, 2)
        outputs = {
            port: Value("artifacts" if value.kind == "artifacts" else "LIST", {}) for port, value in outputs.items()
        }
        component |= {"inputDefinitions": ports, "outputDefinitions": self.ports(outputs)}
        self.components[name] = component
        self.put(tasks, values, name, {**task, "inputs": sources, "componentRef": {"name": name}}, outputs)

    # Conditions

    def expression(self, values: Sequence[Value], depth: int = 0) -> tuple[Any, ...]:
        parameters = [value for value in values if value.kind == "parameters"]
        choice = self.upto(5)
        if choice >= 4 and depth < 2:
            parts = [self.expression(values, depth + 1) for _ in range(2 if choice == 4 else 1)]
            return (self.pick(["&&", "||"]), *parts) if choice == 4 else ("!", *parts)
        operator = self.pick(["==", "!=", "<", "<=", ">", ">="])
        if not parameters:
            return (operator, ("literal", self.upto(2)), ("literal", 1))
        value = self.pick(parameters)
        left: tuple[Any, ...] = ("input", value.source["componentInputParameter"])
        if value.type == "NUMBER_INTEGER" and self.one_in(2):
            left = ("int", left)
            left = ("double", left) if self.one_in(2) else left
        if self.one_in(6):
            return (operator, left, ("input", self.pick(parameters).source["componentInputParameter"]))
        if value.type in ("LIST", "STRUCT") or self.one_in(12):
            return (operator, left, ("literal", "a"))
        return (operator, left, ("literal", self.pick([one for one in SAMPLES[value.type] if not is_big(one)])))

    def text(self, tree: tuple[Any, ...]) -> str:
        """Return a condition as text, and remember its tree by that."""
        text = rendered(tree)
        self.conditions[text] = tree
        return text


def is_big(value: Any) -> bool:
    return isinstance(value, float) and (value < 1e-3 or value > 1e9)


def rendered(tree: tuple[Any, ...]) -> str:
    kind = tree[0]
    if kind == "literal":
        return json.dumps(tree[1])
    if kind == "input":
        return f"inputs.parameter_values['{tree[1]}']"
    parts = [rendered(part) for part in tree[1:]]
    if kind == "!":
        return f"!({parts[0]})"
    if kind in ("int", "double"):
        return f"{kind}({parts[0]})"
    return f"({parts[0]}) {kind} ({parts[1]})" if kind in ("&&", "||") else f"{parts[0]} {kind} {parts[1]}"


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    return Pipelines(lambda most: draw(st.integers(0, most))).case()


# The comparison


def differences(case: Case, folder: Path, number: int) -> list[str]:
    """Return where the engine and the interpreter do not agree about a case."""
    (folder / "imported").write_text("rows")
    text = json.dumps(case.spec).replace("@imported", str(folder / "imported"))
    paths = {}
    for name, rows in case.artifacts.items():
        paths[name] = str(folder / name)
        (folder / name).write_text(rows)
    spec = folder / "spec.json"
    spec.write_text(text)
    run_id = f"r{number}"
    record = local.run(
        spec, {**case.parameters, **paths}, root=folder, jobs=case.jobs, runner="subprocess", run_id=run_id
    )
    imported = {path: Path(path).read_text() for path in [str(folder / "imported"), *paths.values()]}
    interpreter = Interpreter(json.loads(text), {"pipeline_job_name": run_id}, work, imported, case.conditions)
    expected = interpreter.run(case.parameters, paths)
    run = Path(record.folder)
    assert json.loads((run / "run.json").read_text()) == json.loads(json.dumps(record.to_json()))
    found = {task.path: task for task in record.tasks}
    problems = [f"{path}: only one of them knows it" for path in sorted(found.keys() ^ interpreter.tasks.keys())]
    problems += compared("the run", expected, record.state, {}, record.outputs, run)
    for path in sorted(found.keys() & interpreter.tasks.keys()):
        task, end = found[path], interpreter.tasks[path]
        problems += compared(path, end, task.state, task.inputs, task.outputs, run)
        if task.kind == "container" and task.exit_code != end.exit_code:
            problems.append(f"{path}: exit code {task.exit_code}, expected {end.exit_code}")
        left = sorted(file.name for file in (run / "tasks" / path).glob("*"))
        if set(left) - {"log.txt", *(["outputs"] if task.state == "SUCCEEDED" else [])} - {"outcome.json"}:
            problems.append(f"{path}: left {left}")
    return problems


def compared(path: str, end: Outcome, state: str, inputs: Values | dict, outputs: Values, run: Path) -> list[str]:
    if state != end.state:
        return [f"{path}: {state}, expected {end.state}"]
    problems = []
    pairs = [("outputs", outputs, end.outputs, end.artifacts)]
    if isinstance(inputs, Values):
        pairs.append(("inputs", inputs, end.inputs, end.artifacts_in))
    for what, values, parameters, artifacts in pairs:
        ours = json.dumps({name: plain(value) for name, value in values.parameters.items()}, sort_keys=True)
        theirs = json.dumps(parameters, sort_keys=True)
        if ours != theirs:
            problems.append(f"{path}: {what} {ours}, expected {theirs}")
        listed = {
            port: [(one.name, one.type, one.uri, one.metadata, content(run / one.uri)) for one in items]
            for port, items in values.artifacts.items()
        }
        wanted = {
            port: [(one.name, one.type, one.uri, one.metadata, one.content) for one in items]
            for port, items in artifacts.items()
        }
        if listed != wanted:
            problems.append(f"{path}: {what} {listed}, expected {wanted}")
    return problems


@pytest.fixture
def check(tmp_path, monkeypatch) -> Callable[[Case], None]:
    """Return a function that runs a case both ways and tells where they differ; commands are run in this process."""
    run = launcher.run
    monkeypatch.setattr(launcher, "run", lambda *args, **options: run(*args, **options | {"runner": Runner()}))
    return checked(tmp_path, monkeypatch)


@pytest.fixture
def check_processes(tmp_path, monkeypatch) -> Callable[[Case], None]:
    """Return the same, but commands are run as the engine runs them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "work").write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[4])!r})\n"
        "from tests.compile.targets.local.programs import main\nsys.exit(main())\n"
    )
    (folder / "work").chmod(0o755)
    (tmp_path / "attempts").mkdir()
    monkeypatch.setenv("ATTEMPTS", str(tmp_path / "attempts"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    return checked(tmp_path, monkeypatch)


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    monkeypatch.chdir(folder)
    numbers = itertools.count()

    def check_it(case: Case) -> None:
        problems = differences(case, folder, next(numbers))
        assert not problems, "\n".join([*problems, yaml.safe_dump(dataclasses.asdict(case), width=120)])

    return check_it


def drawn(seed: int, count: int) -> Iterator[Case]:
    numbers = random.Random(seed)
    for _ in range(count):
        yield Pipelines(lambda most: numbers.randint(0, most)).case()


@pytest.mark.parametrize("seed", range(8))
def test_random_pipelines_mean_what_the_interpreter_says(check, seed):
    for case in drawn(seed, 20):
        check(case)


@pytest.mark.slow
def test_random_pipelines_of_processes_mean_it_too(check_processes):
    for case in drawn(100, 20):
        check_processes(case)


@pytest.mark.slow
@settings(
    max_examples=2 * settings.default.max_examples,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(case=cases())
def test_hundreds_of_random_pipelines_mean_what_the_interpreter_says(check, case):
    check(case)
