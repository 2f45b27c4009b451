"""Writes a plan as the files of an Azure ML pipeline job; the same plan gives the same bytes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.compile import commands, graph, launcher, to_launcher
from penstock.compile.targets.azureml import features, images, kubernetes_fields, machines
from penstock.compile.targets.azureml import options as options_of
from penstock.compile.targets.azureml import step as step_of
from penstock.compile.targets.azureml.images import Launcher
from penstock.compile.targets.azureml.options import Output
from penstock.compile.targets.azureml.plan import GATHERED, Reference, Unit, identifier
from penstock.compile.yaml_writer import to_yaml

JOB, PIPELINE = "job.yml", "pipeline.yml"
STEP = "step.json"
CONTROL = "control"
OUTPUTS = "penstock_outputs"
VERDICT = "penstock_verdict"
GATHER = "penstock_gather"

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest/"
_TYPES = {graph.Type.INTEGER: "integer", graph.Type.DOUBLE: "number", graph.Type.BOOLEAN: "boolean"}
_LONGEST_TITLE = 256
_LONGEST_TAG = 1000
_KFP_FOLDER = "/usr/local/src/kfp/components"  # where KFP puts the code of containerized Python components
_OWN_IMAGE = "python:3.11"
_MARGIN = 600  # seconds in which the step itself can end what takes too long, and tell
_PREPARE, _COMMAND = "prepare", "command"  # the steps before the own one of a task whose image has no Python
_LETTERS = re.compile(r"[a-zA-Z0-9_]")  # one at least is in every literal that Azure's REST schema takes
_IMPORT = "from penstock.compile import launcher\n"

_FIND_PYTHON = (
    'python="$(command -v python3 || command -v python)" || '
    '{ echo "penstock: the image has no python3" >&2; exit 127; }'
)


def files(case: features.Case) -> dict[str, bytes]:
    """Return the files of a job by path: job.yml, pipeline.yml, and a component and a code snapshot for each step."""
    return _Writer(case).files()


def shipped(*, by_sh: bool = False) -> dict[str, bytes]:
    """Return the programs that travel in each snapshot, by name; those of a step without Python, if `by_sh`."""
    home = Path(step_of.__file__)
    if by_sh:
        return {"step.sh": home.with_name("step.sh").read_bytes()}
    source = home.read_text(encoding="utf-8")
    assert source.count(_IMPORT) == 1
    engine = Path(launcher.__file__).read_bytes()
    return {"step.py": source.replace(_IMPORT, "import launcher\n").encode(), "launcher.py": engine}


def encoded(value: Any, kind: graph.Type, azure: str) -> Any:
    """Return a parameter's value as the job has it; step.parameter_value reads it again.

    Args:
        value: JSON value.
        kind: Type of the parameter.
        azure: Type of the job's input.
    """
    if azure != "string":
        return value
    if kind is graph.Type.STRING and isinstance(value, str) and _is_plain(value):
        return value
    text = json.dumps(value, sort_keys=True).replace("${{", "\\u0024{{").replace("$[[", "\\u0024[[")
    plain = kind in (graph.Type.LIST, graph.Type.STRUCT) and value is not None and _LETTERS.search(text)
    return text if plain else step_of.ESCAPE + text


def _is_plain(text: str) -> bool:
    """Return whether Azure hands a text on as it is."""
    if not _LETTERS.search(text) or text != text.strip() or text.startswith(step_of.ESCAPE):
        return False
    return not re.search(r"\$\{\{|\$\[\[|[\x00-\x1f\x7f\x85\u2028\u2029]", text)


@dataclasses.dataclass(frozen=True)
class _Output:
    """An output of a step.

    Attributes:
        bound: Output of the job that it is; None: it is for other steps.
    """

    bound: str | None = None
    type: str = "uri_folder"
    mode: str = "upload"
    path: str = ""


@dataclasses.dataclass(frozen=True)
class _Node:
    """A step on its way to a component and a node.

    Attributes:
        step: What step.json holds.
        inputs: Bindings of its inputs by name, each with the type of the component's input.
        outputs: Its outputs by name.
        fields: What else the node has.
        by_sh: Whether sh carries it out, in an image without Python.
    """

    name: str
    title: str
    image: str
    cached: bool
    step: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str]]
    outputs: Mapping[str, _Output]
    fields: Mapping[str, Any]
    by_sh: bool = False


class _Writer:
    def __init__(self, case: features.Case) -> None:
        self.case, self.plan, self.pipeline, self.options = case, case.plan, case.pipeline, case.options
        verdicts = [f"{VERDICT}_{index}" for index in range(1, 1 + -(-len(self.plan.captured) // GATHERED))]
        self.verdicts = [VERDICT] if len(verdicts) == 1 else verdicts
        without = [path for path in self.plan.steps if self._launcher(path) is Launcher.SH]
        around = [f"{path}.{name}" for path in without for name in (_PREPARE, _COMMAND)]
        self.groups = self._groups()
        self.nodes = self.plan.names([OUTPUTS, *self.verdicts, *self.plan.steps, *around, *self.groups.values()])
        self.inputs = _unique(self.pipeline.inputs)
        copied = {
            f"{path}.{port}": rule
            for path in self.plan.steps
            for port in sorted(self.plan.units[path].component.outputs.artifacts)
            if (rule := features.output_rule(case, self.plan.units[path], port)) and rule.copied
        }
        self.outputs = _unique([*self.pipeline.outputs.artifacts, OUTPUTS, *copied])
        self.copies = {self.outputs[name]: rule for name, rule in copied.items()}
        self.azure_types = {
            name: "string" if port.default is None and port.optional else _TYPES.get(port.type, "string")
            for name, port in self.pipeline.inputs.parameters.items()
        }
        self.data: dict[str, dict[str, str]] = {}
        self.imports: dict[str, str] = {}
        self._take_data()
        self.bound = self._bound_outputs()

    def files(self) -> dict[str, bytes]:
        nodes = list(self._all_nodes())
        programs = {by_sh: shipped(by_sh=by_sh) for by_sh in (False, True)}
        found = {JOB: self._text(self._job()), PIPELINE: self._text(self._pipeline_component(nodes))}
        for node in nodes:
            found[f"components/{node.name}.yml"] = self._text(_component(node))
            step = json.dumps(node.step, sort_keys=True, indent=1) + "\n"
            found[f"code/{node.name}/{STEP}"] = step.encode()
            for name, content in programs[node.by_sh].items():
                found[f"code/{node.name}/{name}"] = content
        return found

    def _text(self, document: Mapping[str, Any]) -> bytes:
        return to_yaml(document).encode()

    # The job and the pipeline

    def _job(self) -> dict[str, Any]:
        inputs: dict[str, Any] = dict(self.data)
        for name, port in self.pipeline.inputs.parameters.items():
            if name in self.case.values and self.case.values[name] != port.default:
                azure = self.azure_types[name]
                inputs[self.inputs[name]] = encoded(self.case.values[name], port.type, azure)
        settings: dict[str, Any] = {
            "default_compute": _compute(self.options.compute),
            "continue_on_step_failure": True,
            "force_rerun": self.options.force_rerun,
        }
        if self.options.datastore:
            settings["default_datastore"] = _compute(self.options.datastore)
        title = self.pipeline.display_name or self.pipeline.name
        job: dict[str, Any] = {
            "$schema": f"{_SCHEMAS}pipelineJob.schema.json",
            "type": "pipeline",
            "display_name": title[:_LONGEST_TITLE],
            "experiment_name": self.options.experiment or self.pipeline.name,
            "component": f"./{PIPELINE}",
            "settings": settings,
        }
        versions = {"schema": self.pipeline.schema_version, "sdk": self.pipeline.sdk_version}
        if tags := {f"kfp.{name}_version": value for name, value in versions.items() if value}:
            job["tags"] = tags
        if inputs:
            job["inputs"] = inputs
        if outputs := self._pipeline_outputs():
            job["outputs"] = {name: self._job_output(name) for name in outputs}
        if self.pipeline.description:
            job["description"] = self.pipeline.description
        return job

    def _pipeline_component(self, nodes: Iterable[_Node]) -> dict[str, Any]:
        inputs: dict[str, Any] = {name: {"type": given["type"]} for name, given in self.data.items()}
        for name, port in self.pipeline.inputs.parameters.items():
            azure = self.azure_types[name]
            inputs[self.inputs[name]] = {"type": azure}
            if not port.required:
                inputs[self.inputs[name]]["default"] = encoded(port.default, port.type, azure)
            if port.literals and azure == "string":
                allowed = [*port.literals, *([] if port.required or port.default in port.literals else [port.default])]
                inputs[self.inputs[name]]["enum"] = [encoded(value, port.type, azure) for value in allowed]
            if port.description:
                inputs[self.inputs[name]]["description"] = port.description
        component: dict[str, Any] = {
            "$schema": f"{_SCHEMAS}pipelineComponent.schema.json",
            "type": "pipeline",
            "name": identifier(self.pipeline.name),
            "version": "1",
            "display_name": (self.pipeline.display_name or self.pipeline.name)[:_LONGEST_TITLE],
            "jobs": {node.name: self._job_node(node) for node in nodes},
        }
        if inputs:
            component["inputs"] = inputs
        if outputs := self._pipeline_outputs():
            component["outputs"] = {name: {"type": self._job_output(name)["type"]} for name in outputs}
        return component

    def _job_output(self, name: str) -> dict[str, str]:
        """Return an output of the job as job.yml has it."""
        if rule := self.copies.get(name):
            fields = {"name": rule.name, "version": rule.version, "path": rule.path or self.root}
            found = {"type": rule.copied, "mode": rule.mode, **fields}
        else:
            source = next((source for source, port in self.bound.items() if self.outputs[port] == name), None)
            given = self._output(self.plan.units[source[1]], source[2]) if source else _Output(path=self.root)
            found = {"type": given.type, "mode": given.mode, "path": given.path}
        return {key: value for key, value in found.items() if value}

    @functools.cached_property
    def root(self) -> str:
        """Where outputs go that no rule says it of; empty: where Azure puts them."""
        there = features.pipeline_root(self.case)
        return f"{there.rstrip('/')}/${{{{name}}}}/${{{{output_name}}}}" if there else ""

    def _output(self, unit: Unit, port: str) -> _Output:
        """Return the output that an artifact of a task is for those after it."""
        rule = features.output_rule(self.case, unit, port)
        here = rule if rule and not rule.copied else Output()
        bound = self.bound.get(("task", unit.path, port))
        return _Output(self.outputs[bound] if bound else None, mode=here.mode, path=here.path or self.root)

    def _pipeline_outputs(self) -> list[str]:
        found = [*(self.outputs[name] for name in self.pipeline.outputs.artifacts), *self.copies]
        return sorted([*found, self.outputs[OUTPUTS]] if self._has_last_step() else found)

    def _has_last_step(self) -> bool:
        others = set(self.pipeline.outputs.artifacts) - set(self.bound.values())
        return bool(self.pipeline.outputs.parameters or others or not self.plan.steps)

    def _job_node(self, node: _Node) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "command", "component": f"./components/{node.name}.yml", **node.fields}
        if node.inputs:
            found["inputs"] = {name: binding for name, (_, binding) in node.inputs.items()}
        if told := {name: about for name, given in node.outputs.items() if (about := _told(given))}:
            found["outputs"] = told
        return found

    # Data

    def _take_data(self) -> None:
        """Make an input of the job of each artifact of the pipeline and of each URI that is imported."""
        for name in self.pipeline.inputs.artifacts:
            if name in self.case.values:
                self.data[self.inputs[name]] = self._data(str(self.case.values[name]), None)
        by_data: dict[tuple[str, ...], str] = {}
        for path, unit in self.plan.units.items():
            if unit.is_import:
                kind = options_of.matching(self.options.uri_types, unit.declared)
                data = self._data(self.plan.uri(path), kind)
                key = tuple(data.values())
                if key not in by_data:
                    taken = {*self.inputs.values(), *self.data}
                    by_data[key] = _free(f"import_{identifier(unit.declared.replace('.', '__'))}", taken)
                    self.data[by_data[key]] = data
                self.imports[path] = by_data[key]

    def _data(self, uri: str, kind: str | None) -> dict[str, str]:
        path = features.mapped(uri, self.options).removeprefix("file://")
        if not features.is_mounted(path):
            path = os.path.abspath(path)  # Azure's client would look below the job's folder
        if kind is None:
            there = Path(path)
            if "://" not in path and there.exists():
                kind = "uri_folder" if there.is_dir() else "uri_file"
            else:
                last = path.rstrip("/").rpartition("/")[2]
                kind = "uri_file" if "." in last and not path.endswith("/") else "uri_folder"
        return {"type": kind, "path": path}

    def _bound_outputs(self) -> dict[Reference, str]:
        """Return the outputs of steps that are outputs of the pipeline as they are."""
        found: dict[Reference, str] = {}
        for name, port in self.pipeline.outputs.artifacts.items():
            sources = self.pipeline.dag.outputs[name]
            given = [item for source in sources for item in self.plan.given(source.task, source.port)]
            if len(given) != 1 or given[0][0] != "task" or given[0] in found or port.is_list:
                continue
            # What loops give is a list, be it of one.
            if not any(self.plan.units[each].loop_of for each in self.plan.chain(given[0][1])):
                found[given[0]] = name
        return found

    # Steps

    def _all_nodes(self) -> Iterator[_Node]:
        for path in self.plan.steps:
            yield from self._task_nodes(self.plan.units[path])
        captured = sorted(self.plan.captured)
        for index, name in enumerate(self.verdicts):
            paths = captured[index * GATHERED : (index + 1) * GATHERED]
            yield self._own_node(name, "verdict", paths, [], {})
        for group, name in self.groups.items():
            yield self._own_node(name, "gather", group, [], {})
        if self._has_last_step():
            yield self._last_node()

    def _groups(self) -> dict[tuple[str, ...], str]:
        """Return a name for each group of steps whose control folders one step gathers for others."""
        last, given = self.plan.read_at_the_end()
        readers = [
            (read, len({source for found in self.plan.artifacts(path).values() for source in found}))
            for path, read in self.plan.steps.items()
        ]
        found = (group for read, others in [*readers, (sorted(last), len(given))]
                 for group in self.plan.gathered(read, others))  # fmt: skip
        return {group: f"{GATHER}_{index}" for index, group in enumerate(dict.fromkeys(found), 1)}

    def _launcher(self, path: str) -> Launcher:
        body = self.plan.units[path].component.body
        assert isinstance(body, graph.Container)
        return images.launcher(body, self.plan.text(path, body.image), self.options)

    def _task_nodes(self, unit: Unit) -> Iterator[_Node]:
        """Yield a task's step; where its image has no Python, the three steps that it takes."""
        node = self._task_node(unit)
        if self._launcher(unit.path) is not Launcher.SH:
            yield node
            return
        prepare, command = (self.nodes[f"{unit.path}.{name}"] for name in (_PREPARE, _COMMAND))
        fields = {"tags": {"penstock.task": unit.path[:_LONGEST_TAG]}}
        own = ("mode", "path", "outputs", "copies", "capture")
        before = {name: value for name, value in node.step.items() if name not in own}
        yield dataclasses.replace(
            node,
            name=prepare,
            title=f"{node.title}: {_PREPARE}",
            image=self.own_image,
            step={**before, "mode": "prepare", "of": unit.path, "outputs": {}},
            outputs={CONTROL: _Output()},
            fields=fields,
        )
        artifacts = {name: node.inputs[name] for name in node.step["artifacts"]}
        yield dataclasses.replace(
            node,
            name=command,
            title=f"{node.title}: {_COMMAND}",
            step={
                "mode": "command", "of": unit.path, "steps": ["prepared"], "controls": {}, "parameters": {},
                "artifacts": node.step["artifacts"], "outputs": {},
            },
            inputs={"prepared": self._folder(prepare), **artifacts},
            outputs={CONTROL: _Output()},
            by_sh=True,
        )  # fmt: skip
        yield dataclasses.replace(
            node,
            image=self.own_image,
            step={**node.step, "steps": ["made"]},
            inputs={**node.inputs, "made": self._folder(command)},
            fields=fields,
        )

    def _folder(self, node: str) -> tuple[str, str]:
        """Return the type and the binding of an input that takes a step's control folder."""
        return "uri_folder", f"${{{{parent.jobs.{node}.outputs.{CONTROL}}}}}"

    def _task_node(self, unit: Unit) -> _Node:
        body = unit.component.body
        assert unit.task is not None
        assert isinstance(body, graph.Container)
        document = kubernetes_fields.settings(unit.component)
        sources = {item for found in self.plan.artifacts(unit.path).values() for item in found}
        known = list(dict.fromkeys(self.plan.known_to(unit.path)))
        step, inputs = self._step(
            "task", self.plan.steps[unit.path], sorted(sources), known, self.plan.chain(unit.path)
        )
        ports = {f"o{index}": port for index, port in enumerate(sorted(unit.component.outputs.artifacts))}
        folder = options_of.matching(self.options.workdirs, body.image) or ""
        if not folder and commands.is_containerized_python(body):
            folder = _KFP_FOLDER
        step |= {
            "path": unit.path,
            "name": unit.task.name,
            "capture": unit.path in self.plan.captured,
            "task": self._launched(unit.task, body, document),
            "outputs": ports,
            "workdir": folder,
            "folders": kubernetes_fields.folders(document),
        }
        outputs = {name: self._output(unit, port) for name, port in ports.items()}
        copies: dict[str, list[str]] = {}
        for port in ports.values():
            name = self.outputs.get(f"{unit.path}.{port}", "")
            if rule := self.copies.get(name):
                outputs[f"t{len(copies)}"] = _Output(name, rule.copied, rule.mode)
                copies[f"t{len(copies)}"] = [port, rule.copied]
        if copies:
            step["copies"] = copies
        return _Node(
            self.nodes[unit.path],
            unit.task.title or unit.task.name,
            self.plan.text(unit.path, body.image),
            unit.task.caching.enabled,
            step,
            inputs,
            {CONTROL: _Output(), **outputs},
            self._fields(unit, document, step["task"]),
        )

    def _fields(self, unit: Unit, document: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
        machine = machines.chosen(self.plan, unit, machines.wanted(self.plan, unit))
        resources = {}
        fields: dict[str, Any] = {}
        if machine and machine.compute:
            fields["compute"] = _compute(machine.compute)
        if machine and machine.instance_type:
            resources["instance_type"] = machine.instance_type
        if size := kubernetes_fields.shared_memory(document):
            resources["shm_size"] = size
        if resources:
            fields["resources"] = resources
        if task["timeout"]:
            waits = step_of.waits_of(step_of.task_of(task))
            fields["limits"] = {"timeout": math.ceil(len(waits) * task["timeout"] + sum(waits)) + _MARGIN}
        tags = {name: value[:_LONGEST_TAG] for name, value in kubernetes_fields.tags(document).items()}
        fields["tags"] = {**tags, "penstock.task": unit.path[:_LONGEST_TAG]}
        return fields

    def _launched(self, task: graph.Task, body: graph.Container, document: Mapping[str, Any]) -> dict[str, Any]:
        command = body.command or options_of.matching(self.options.entrypoints, body.image)
        env = {**body.env, **kubernetes_fields.variables(document, self.options)}
        return dataclasses.asdict(to_launcher.task(task, command, env, kubernetes_fields.seconds(document)))

    def _step(
        self, mode: str, read: Iterable[str], sources: Iterable[Reference], known: Iterable[str], chain: list[str]
    ) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """Return what every step holds, and the inputs of its node."""
        units = {path: self._unit(self.plan.units[path], path in chain) for path in known}
        inputs: dict[str, tuple[str, str]] = {}
        controls, artifacts, parameters = {}, {}, {}
        sources, read = list(sources), sorted(read)
        groups = self.plan.gathered(read, len(sources))
        for index, path in enumerate(read if not groups else ()):
            controls[f"c{index}"] = path
            inputs[f"c{index}"] = self._folder(self.nodes[path])
        for index, group in enumerate(groups):
            inputs[f"g{index}"] = self._folder(self.nodes[self.groups[group]])
        for index, source in enumerate(sources):
            artifacts[f"a{index}"] = list(source)
            inputs[f"a{index}"] = self._artifact_input(source)
        for index, name in enumerate(sorted(self._asked(units.values()))):
            port = self.pipeline.inputs.parameters[name]
            parameters[f"p{index}"] = {"name": name, "type": port.type.value}
            inputs[f"p{index}"] = (self.azure_types[name], f"${{{{parent.inputs.{self.inputs[name]}}}}}")
        step = {
            "mode": mode,
            "pipeline": self.pipeline.name,
            "final_status": self.options.final_status,
            "chain": chain,
            "units": units,
            "controls": controls,
            "artifacts": artifacts,
            "parameters": parameters,
            "pipeline_artifacts": {
                source[1]: to_launcher.artifact_type(self.pipeline.inputs.artifacts[source[1]].type)
                for source in artifacts.values()
                if source[0] == "pipeline"
            },
            "outputs": {},
        }
        if groups:
            step["gathered"] = [f"g{index}" for index in range(len(groups))]
        return step, inputs

    def _artifact_input(self, source: Reference) -> tuple[str, str]:
        if source[0] == "task":
            _, path, port = source
            index = sorted(self.plan.units[path].component.outputs.artifacts).index(port)
            return "uri_folder", f"${{{{parent.jobs.{self.nodes[path]}.outputs.o{index}}}}}"
        name = self.imports[source[1]] if source[0] == "import" else self.inputs[source[1]]
        return self.data[name]["type"], f"${{{{parent.inputs.{name}}}}}"

    def _asked(self, units: Iterable[Mapping[str, Any]]) -> set[str]:
        """Return the pipeline's parameters that units are given."""
        found = set()
        for unit in units:
            for given in unit.get("inputs", {}).values():
                if given["from"] == "pipeline" or (given["from"] == "scope" and unit["scope"] == ""):
                    found.add(given["name"])
        return found & set(self.pipeline.inputs.parameters)

    def _unit(self, unit: Unit, own: bool) -> dict[str, Any]:
        """Return what a step has to know of a unit; `own`: whether it is around the step."""
        assert unit.task is not None
        kind = "task" if not isinstance(unit.component.body, graph.Dag | graph.Importer) else "dag"
        found: dict[str, Any] = {
            "name": unit.task.name,
            "kind": "import" if isinstance(unit.component.body, graph.Importer) else kind,
        }
        if unit.loop_of is not None:
            found |= {"loop_of": unit.loop_of, "iteration": unit.iteration}
        else:
            found["scope"] = unit.scope
        if isinstance(unit.component.body, graph.Dag):
            body = unit.component.body
            found["children"] = list(body.tasks)
            found["outputs"] = {
                port: [[each.task, each.port] for each in given] for port, given in body.outputs.items()
            }
        if unit.is_loop:
            loop, outputs = unit.task.loop, unit.component.outputs
            assert loop is not None
            found |= {
                "loop": {"kind": loop.kind, "item": loop.item, "items": loop.items},
                "bound": unit.bound,
                "output_parameters": list(outputs.parameters),
                "output_artifacts": list(outputs.artifacts),
                "flat": [name for name in outputs.parameters if to_launcher.is_collected(unit.component, name)],
            }
        computed = not own and not unit.is_leaf and self.plan.is_computed(unit.path)
        if computed:
            found["computed"] = True
        if unit.loop_of is None and (own or computed):
            found |= self._decision(unit, unit.task)
        if unit.is_import:
            found["import"] = self._import(unit)
        return found

    def _decision(self, unit: Unit, task: graph.Task) -> dict[str, Any]:
        """Return what is needed to decide whether a task runs, and with what."""
        return {
            "depends_on": list(task.depends_on),
            "whatever": task.trigger.whatever_upstream,
            "condition": task.trigger.condition,
            "inputs": {name: _source(given) for name, given in task.inputs.items()},
            "artifact_inputs": list(unit.component.inputs.artifacts),
            "ports": {
                "name": task.name,
                "command": [],
                "input_parameters": {
                    name: dataclasses.asdict(port)
                    for name, port in to_launcher.input_parameters(unit.component).items()
                },
            },
        }

    def _import(self, unit: Unit) -> dict[str, Any]:
        body = unit.component.body
        assert isinstance(body, graph.Importer)
        runtime = isinstance(body.uri, graph.RuntimeParameter)
        return {
            "uri": None if runtime else body.uri.value,  # type: ignore[union-attr]
            "parameter": body.uri.name if isinstance(body.uri, graph.RuntimeParameter) else "",
            "converted": self.plan.uri(unit.path),
            "metadata": dict(body.metadata),
            "type": to_launcher.artifact_type(body.type),
            "port": next(iter(unit.component.outputs.artifacts), "artifact"),
        }

    # Steps of our own

    @functools.cached_property
    def own_image(self) -> str:
        if self.options.image:
            return self.options.image
        for path in self.plan.steps:
            body = self.plan.units[path].component.body
            if isinstance(body, graph.Container) and commands.is_lightweight(body):
                return self.plan.text(path, body.image)
        return _OWN_IMAGE

    def _own_node(
        self, name: str, mode: str, read: Iterable[str], sources: Iterable[Reference], more: Mapping[str, Any]
    ) -> _Node:
        known = more.get("known", [])
        step, inputs = self._step(mode, read, sources, known, [])
        ports = more.get("ports", {})
        outputs = {CONTROL: _Output(more.get("control"))}
        outputs |= {port: _Output(self.outputs[name]) for port, name in ports.items()}
        step |= {"outputs": ports, **more.get("step", {})}
        return _Node(self.nodes[name], name, self.own_image, False, step, inputs, outputs, {})

    def _last_node(self) -> _Node:
        dag = self.pipeline.dag
        own = {task.task for sources in dag.outputs.values() for task in sources}
        read = sorted(self.plan.read_at_the_end()[0])
        known: list[str] = []
        waiting, seen = sorted(own), set()
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                known += self.plan.below(path)
                if not self.plan.units[path].is_leaf and self.plan.is_computed(path):
                    waiting += self.plan.upstream(path)
        bound = set(self.bound.values())
        ports = {f"o{index}": name for index, name in enumerate(sorted(set(self.pipeline.outputs.artifacts) - bound))}
        sources = sorted(
            {
                item
                for name in ports.values()
                for source in dag.outputs[name]
                for item in self.plan.given(source.task, source.port)
            }
        )
        root = {
            "outputs": {port: [[each.task, each.port] for each in given] for port, given in dag.outputs.items()},
            "lists": {
                name: port.is_list or any(dag.tasks[each.task].loop for each in dag.outputs[name])
                for name, port in self.pipeline.outputs.artifacts.items()
            },
        }
        more = {
            "known": list(dict.fromkeys(known)),
            "ports": ports,
            "control": self.outputs[OUTPUTS],
            "step": {"root": root},
        }
        return self._own_node(OUTPUTS, "outputs", read, sources, more)


def _component(node: _Node) -> dict[str, Any]:
    lines = [CONTROL, *node.inputs, *(name for name in node.outputs if name != CONTROL)]
    marked = [f"@@{name}@@${{{{{'inputs' if name in node.inputs else 'outputs'}.{name}}}}}" for name in lines]
    digest = hashlib.sha256("\n".join([node.name, json.dumps(node.step, sort_keys=True)]).encode()).hexdigest()[:16]
    start = ["sh step.sh"] if node.by_sh else [_FIND_PYTHON, '"$python" -u step.py']
    command = [*start[:-1], f"{start[-1]} <<'PENSTOCK_{digest}'", *marked, f"PENSTOCK_{digest}"]
    component: dict[str, Any] = {
        "$schema": f"{_SCHEMAS}commandComponent.schema.json",
        "type": "command",
        "name": node.name,
        "version": "1",
        "display_name": node.title[:_LONGEST_TITLE],
        "is_deterministic": node.cached,
        "environment": {"image": node.image},
        "code": f"../code/{node.name}",
        "command": "\n".join(command) + "\n",
        "outputs": {name: {"type": given.type, "mode": given.mode} for name, given in node.outputs.items()},
    }
    if node.inputs:
        component["inputs"] = {name: {"type": kind} for name, (kind, _) in node.inputs.items()}
    return component


def _told(output: _Output) -> str | dict[str, str] | None:
    """Return what a node says of an output; None where there is nothing to say."""
    if output.bound:
        return f"${{{{parent.outputs.{output.bound}}}}}"
    return {"mode": output.mode, "path": output.path} if output.path else None


def _compute(name: str) -> str:
    return name if name.startswith(("azureml:", "/")) else f"azureml:{name}"


def _unique(names: Iterable[str]) -> dict[str, str]:
    """Return names that Azure takes for inputs and outputs, whatever the case of their letters, by name."""
    found: dict[str, str] = {}
    for name in names:
        clean = re.sub(r"\W", "_", name, flags=re.ASCII)
        found[name] = _free(clean if re.match(r"[A-Za-z_]", clean) else f"_{clean}", set(found.values()))
    return found


def _free(name: str, taken: set[str]) -> str:
    used = {each.lower() for each in taken}
    found, number = name, 2
    while found.lower() in used:
        found, number = f"{name}_{number}", number + 1
    return found


def _source(given: graph.Input) -> dict[str, Any]:
    source = given.source
    if isinstance(source, graph.Constant):
        found: dict[str, Any] = {"from": "constant", "value": source.value}
    elif isinstance(source, graph.ScopeInput):
        found = {"from": "scope", "name": source.name}
    elif isinstance(source, graph.RuntimeParameter):
        found = {"from": "pipeline", "name": source.name}
    elif isinstance(source, graph.TaskOutput):
        found = {"from": "task", "task": source.task, "port": source.port}
    else:
        found = {"from": "status", "task": source.task}
    return {**found, "selector": given.selector} if given.selector else found
