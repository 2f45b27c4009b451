"""Reads a compiled pipeline: IR as YAML or JSON to graph.Pipeline. The only reader there is.

Strict: a field that the IR's messages do not know is an error that names it, never lost in silence.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from google.protobuf import json_format

from penstock.compile import graph
from penstock.compile.errors import PenstockError

SCHEMA_VERSIONS = ("2.0.0", "2.1.0")
LARGEST_INTEGER = 2**53 - 1  # numbers of the IR are doubles

_TYPES = {kind.value: kind for kind in graph.Type}
_OLD_TYPES = {"INT": graph.Type.INTEGER, "DOUBLE": graph.Type.DOUBLE, "STRING": graph.Type.STRING}
# Ports and tasks become names of files and folders.
_FILE_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f]{1,200}")


def read(path: Path) -> graph.Pipeline:
    """Return the pipeline that a file of compiled IR holds.

    Args:
        path: PipelineSpec as YAML or JSON, with a platform spec as second document or without; the Kubernetes
            manifest and the PipelineJob that KFP's compiler and the Vertex SDK wrap around it are taken as well.

    Raises:
        PenstockError: the file is not a whole, valid pipeline.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PenstockError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(document: str | Mapping[str, Any], name: str = "the spec") -> graph.Pipeline:
    """Return the pipeline that IR text, or one IR document that is already a mapping, holds.

    Args:
        document: What `read` takes, as text or as a mapping.
        name: How errors call it.

    Raises:
        PenstockError: it is not a whole, valid pipeline.
    """
    spec, platforms = _documents(document, name)
    try:
        return _Reader(name, spec, platforms).pipeline()
    except ValueError as error:  # of protobuf, whose values are JSON's
        raise PenstockError(f"{name}: a value is none that JSON has, such as NaN or an infinity: {error}") from error


def integral(value: Any) -> Any:
    """Return a value of the IR with numbers that stand for integers as integers, at any depth, and keys in order.

    Args:
        value: JSON value that has gone through a message: its numbers are doubles, its keys in no order.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_INTEGER:
        return int(value)
    if isinstance(value, dict):
        return {key: integral(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [integral(item) for item in value]
    return value


@functools.cache
def messages() -> ModuleType:
    """Return KFP's IR messages, without the rest of kfp, whose import takes eight times as long."""
    name = "kfp.pipeline_spec.pipeline_spec_pb2"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("kfp")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "pipeline_spec" / "pipeline_spec_pb2.py"
        if file.is_file():
            spec = importlib.util.spec_from_file_location("penstock.compile._pipeline_spec_pb2", file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise PenstockError("the messages of KFP's IR are missing; pip install kfp-pipeline-spec")


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, ten times faster in C, that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return mapping


def _parsed(text: str) -> Iterable[Any]:
    """Yield the documents of a text."""
    if text.lstrip().startswith("{"):
        # JSON is YAML, but for numbers such as 1e-7, which YAML 1.1 takes for text.
        with contextlib.suppress(ValueError):
            return [json.loads(text, object_pairs_hook=_once)]
    return yaml.load_all(text, Loader=Loader)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")  # YAML's reader says which and where
    return found


def _documents(document: str | Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the pipeline spec and the platform spec, unwrapped."""
    if isinstance(document, str):
        try:
            found = [item for item in _parsed(document) if item is not None]
        except yaml.YAMLError as error:
            raise PenstockError(f"{name}: not YAML: {error}") from error
    else:
        found = [document]
    if not found:
        raise PenstockError(f"{name}: empty; expected a compiled pipeline")
    for item in found:
        if not isinstance(item, Mapping):
            raise PenstockError(f"{name}: expected a compiled pipeline, found {type(item).__name__}")
    if len(found) > 2:
        raise PenstockError(f"{name}: {len(found)} documents; expected a pipeline spec and at most one platform spec")
    spec, platforms = found[0], found[1] if len(found) == 2 else {}
    manifests = [item for item in found if item.get("kind") == "PipelineVersion"]
    if manifests:  # the Kubernetes manifest of KFP's compiler
        inner = manifests[0].get("spec") or {}
        spec, platforms = inner.get("pipelineSpec") or {}, inner.get("platformSpec") or {}
    elif "pipelineSpec" in spec and "pipelineInfo" not in spec:  # a Vertex PipelineJob
        spec = spec["pipelineSpec"]
    if "pipelineInfo" not in spec and "pipeline_info" not in spec:
        raise PenstockError(f"{name}: not a compiled pipeline: there is no pipelineInfo; compile it first")
    return spec, platforms


def _to_value(message: Any) -> Any:
    return integral(json_format.MessageToDict(message))


class _Reader:
    """One document on its way to a pipeline."""

    def __init__(self, name: str, spec: Mapping[str, Any], platforms: Mapping[str, Any]) -> None:
        self.name = name
        self.spec = self.message("PipelineSpec", spec)
        deployment = json_format.MessageToDict(self.spec.deployment_spec)
        self.executors = self.message("PipelineDeploymentConfig", deployment, "deploymentSpec").executors
        self.platforms = self.message("PlatformSpec", platforms, "the platform spec").platforms
        self.components: dict[str, graph.Component] = {}
        self.open: list[str] = []

    def error(self, where: str, problem: str) -> PenstockError:
        return PenstockError(f"{self.name}: {where}: {problem}")

    def message(self, kind: str, document: Mapping[str, Any], where: str = "") -> Any:
        try:
            return json_format.ParseDict(dict(document), getattr(messages(), kind)())
        except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
            reason = re.sub(r"\s*Available Fields.*", "", str(error), flags=re.DOTALL)
            raise PenstockError(f"{self.name}: {where + ': ' if where else ''}{reason}") from error

    def pipeline(self) -> graph.Pipeline:
        info = self.spec.pipeline_info
        if not info.name:
            raise self.error("pipelineInfo", "the pipeline has no name")
        if self.spec.schema_version not in SCHEMA_VERSIONS:
            known = " and ".join(SCHEMA_VERSIONS)
            raise self.error("schemaVersion", f"{self.spec.schema_version!r} is not known; {known} are")
        if not self.spec.root.HasField("dag"):
            raise self.error("root", "has no tasks")
        self.file_name("pipelineInfo", info.name)
        return graph.Pipeline(
            name=info.name,
            root=self.component("root", self.spec.root),
            display_name=info.display_name,
            description=info.description,
            schema_version=self.spec.schema_version,
            sdk_version=self.spec.sdk_version,
            default_root=self.spec.default_pipeline_root,
            platforms={
                platform: settings
                for platform, spec in sorted(self.platforms.items())
                if (settings := _platform_settings(spec))
            },
        )

    def file_name(self, where: str, name: str) -> None:
        if not _FILE_NAME.fullmatch(name):
            raise self.error(where, f"the name {name!r} cannot be the name of a file; rename it")

    def component(self, name: str, spec: Any) -> graph.Component:
        if name in self.components:
            return self.components[name]
        if name in self.open:
            raise self.error(f"component {name}", f"contains itself: {' → '.join([*self.open, name])}")
        self.open.append(name)
        inputs, outputs = self.ports(name, spec.input_definitions), self.ports(name, spec.output_definitions)
        kind = spec.WhichOneof("implementation")
        if kind == "dag":
            body: Any = self.dag(name, spec, inputs, outputs)
        elif kind == "executor_label":
            body = self.executor(name, spec.executor_label)
        else:
            raise self.error(f"component {name}", "has neither tasks nor an executor")
        platforms = {
            platform: settings
            for platform, found in sorted(self.platforms.items())
            if kind == "executor_label" and spec.executor_label in found.deployment_spec.executors
            if (settings := _to_value(found.deployment_spec.executors[spec.executor_label]))
        }
        for single in spec.single_platform_specs:
            platforms[single.platform] = _to_value(single)
        passthroughs = [
            messages().TaskConfigPassthroughType.TaskConfigPassthroughTypeEnum.Name(item.field)
            for item in spec.task_config_passthroughs
        ]
        self.open.pop()
        self.components[name] = graph.Component(name, inputs, outputs, body, platforms, tuple(passthroughs))
        return self.components[name]

    def ports(self, component: str, definitions: Any) -> graph.Ports:
        parameters, artifacts = {}, {}
        for name in [*definitions.parameters, *definitions.artifacts]:
            self.file_name(f"component {component}", name)
        for name, spec in sorted(definitions.parameters.items()):
            given = hasattr(spec, "default_value") and spec.HasField("default_value")
            kind = self.parameter_type(f"component {component}, parameter {name}", spec)
            default = _to_value(spec.default_value) if given else None
            if kind is graph.Type.DOUBLE and isinstance(default, int) and not isinstance(default, bool):
                default = float(default)
            literals = [_to_value(item) for item in getattr(spec, "literals", ())]
            optional = getattr(spec, "is_optional", False)
            parameters[name] = graph.Parameter(name, kind, default, optional, spec.description, tuple(literals))
        for name, spec in sorted(definitions.artifacts.items()):
            artifacts[name] = graph.ArtifactPort(
                name,
                _artifact_type(spec.artifact_type),
                spec.is_artifact_list,
                getattr(spec, "is_optional", False),
                spec.description,
                _to_value(spec.metadata) if hasattr(spec, "metadata") else {},
            )
        return graph.Ports(parameters, artifacts)

    def parameter_type(self, where: str, spec: Any) -> graph.Type:
        name = messages().ParameterType.ParameterTypeEnum.Name(spec.parameter_type)
        if name in _TYPES:
            return _TYPES[name]
        old = messages().PrimitiveType.PrimitiveTypeEnum.Name(spec.type)
        if old in _OLD_TYPES:
            return _OLD_TYPES[old]
        raise self.error(where, "has no type")

    def executor(self, component: str, label: str) -> graph.Container | graph.Importer | graph.OtherExecutor:
        if label not in self.executors:
            raise self.error(f"component {component}", f"its executor {label} is missing from deploymentSpec")
        spec = self.executors[label]
        kind = spec.WhichOneof("spec")
        if kind == "container":
            return _container(label, spec.container)
        if kind == "importer":
            if not spec.importer.HasField("artifact_uri"):
                raise self.error(f"executor {label}", "the importer has no artifactUri")
            return graph.Importer(
                label,
                _value_or_parameter(spec.importer.artifact_uri),
                _artifact_type(spec.importer.type_schema),
                _to_value(spec.importer.metadata),
                spec.importer.reimport,
                spec.importer.download_to_workspace,
            )
        if kind is None:
            raise self.error(f"executor {label}", "is empty")
        return graph.OtherExecutor(label, "customJob" if kind == "custom_job" else kind)

    def dag(self, name: str, spec: Any, inputs: graph.Ports, outputs: graph.Ports) -> graph.Dag:
        tasks = {
            task: self.task(name, task, spec.dag.tasks[task], spec.dag.tasks, inputs) for task in sorted(spec.dag.tasks)
        }
        sources: dict[str, tuple[graph.TaskOutput, ...]] = {}
        for port, output in sorted(spec.dag.outputs.parameters.items()):
            one = output.WhichOneof("kind") == "value_from_parameter"
            selectors = [output.value_from_parameter] if one else output.value_from_oneof.parameter_selectors
            sources[port] = tuple(
                graph.TaskOutput(item.producer_subtask, item.output_parameter_key) for item in selectors
            )
        for port, output in sorted(spec.dag.outputs.artifacts.items()):
            sources[port] = tuple(
                graph.TaskOutput(item.producer_subtask, item.output_artifact_key) for item in output.artifact_selectors
            )
        for port, found in sources.items():
            if port not in outputs:
                raise self.error(f"component {name}", f"output {port} is connected but not declared")
            for source in found:
                self.producer(f"component {name}, output {port}", source, tasks)
        for port in outputs:
            if not sources.get(port):
                raise self.error(f"component {name}", f"output {port} is declared but comes from no task")
        for task in tasks.values():
            for port, given in task.inputs.items():
                if isinstance(given.source, graph.TaskOutput):
                    self.producer(f"task {task.name}, input {port}", given.source, tasks)
        return graph.Dag({task.name: task for task in self.in_order(name, tasks)}, sources)

    def producer(self, where: str, source: graph.TaskOutput, tasks: Mapping[str, graph.Task]) -> None:
        if source.task not in tasks:
            raise self.error(where, f"comes from task {source.task}, which is not there; there are {_names(tasks)}")
        ports = tasks[source.task].component.outputs
        if source.port not in ports:
            known = _names(ports)
            raise self.error(where, f"task {source.task} has no output {source.port}; it has {known}")

    def task(self, scope: str, name: str, spec: Any, siblings: Iterable[str], outer: graph.Ports) -> graph.Task:
        where = f"task {name}"
        self.file_name(where, name)
        reference = spec.component_ref.name
        if not reference:
            raise self.error(where, "names no component")
        if reference not in self.spec.components:
            raise self.error(where, f"its component {reference} is missing; there are {_names(self.spec.components)}")
        inputs = {
            port: graph.Input(
                self.parameter_source(f"{where}, input {port}", given), given.parameter_expression_selector
            )
            for port, given in sorted(spec.inputs.parameters.items())
        }
        for port, given in sorted(spec.inputs.artifacts.items()):
            inputs[port] = graph.Input(self.artifact_source(f"{where}, input {port}", given))
        depends_on = set(spec.dependent_tasks)
        for port, given in inputs.items():
            source = given.source
            if isinstance(source, graph.TaskOutput | graph.FinalStatus):
                depends_on.add(source.task)
            elif isinstance(source, graph.ScopeInput) and source.name not in outer:
                raise self.error(
                    f"{where}, input {port}", f"there is no input {source.name} around it; there are {_names(outer)}"
                )
        if missing := sorted(depends_on - set(siblings)):
            raise self.error(where, f"depends on {', '.join(missing)}, not in its scope {scope}")
        component = self.component(reference, self.spec.components[reference])
        # Settings of a platform may read outputs of tasks that nothing else ties to this one.
        depends_on.update(set(_producers(component.platforms)) & set(siblings))
        policy = spec.trigger_policy
        strategy = messages().PipelineTaskSpec.TriggerPolicy.TriggerStrategy
        return graph.Task(
            name=name,
            component=component,
            title=spec.task_info.name,
            inputs=inputs,
            depends_on=tuple(sorted(depends_on)),
            trigger=graph.Trigger(policy.condition, policy.strategy == strategy.ALL_UPSTREAM_TASKS_COMPLETED),
            loop=self.loop(where, spec, inputs),
            retry=_retry(spec.retry_policy) if spec.HasField("retry_policy") else None,
            caching=graph.Caching(spec.caching_options.enable_cache, spec.caching_options.cache_key),
        )

    def parameter_source(self, where: str, given: Any) -> graph.Source:
        kind = given.WhichOneof("kind")
        if kind == "task_output_parameter":
            output = given.task_output_parameter
            return graph.TaskOutput(output.producer_task, output.output_parameter_key)
        if kind == "component_input_parameter":
            return graph.ScopeInput(given.component_input_parameter)
        if kind == "task_final_status":
            return graph.FinalStatus(given.task_final_status.producer_task)
        if kind == "runtime_value":
            return _value_or_parameter(given.runtime_value)
        raise self.error(where, "comes from nowhere")

    def artifact_source(self, where: str, given: Any) -> graph.Source:
        kind = given.WhichOneof("kind")
        if kind == "task_output_artifact":
            output = given.task_output_artifact
            return graph.TaskOutput(output.producer_task, output.output_artifact_key)
        if kind == "component_input_artifact":
            return graph.ScopeInput(given.component_input_artifact)
        raise self.error(where, "comes from nowhere")

    def loop(self, where: str, spec: Any, inputs: Mapping[str, graph.Input]) -> graph.Loop | None:
        kind = spec.WhichOneof("iterator")
        if kind is None:
            return None
        limit = spec.iterator_policy.parallelism_limit
        if kind == "artifact_iterator":
            iterator = spec.artifact_iterator
            items: tuple[Any, ...] | str = iterator.items.input_artifact
        else:
            iterator = spec.parameter_iterator
            items = iterator.items.input_parameter
            if iterator.items.WhichOneof("kind") == "raw":
                try:
                    listed = json.loads(iterator.items.raw)
                except ValueError as error:
                    raise self.error(where, f"the items of its loop are not JSON: {error}") from error
                if not isinstance(listed, list):
                    raise self.error(where, "the items of its loop are not a list")
                items = tuple(listed)
        if isinstance(items, str) and items not in inputs:
            raise self.error(where, f"loops over its input {items}, which is not there")
        return graph.Loop(kind.removesuffix("_iterator"), iterator.item_input, items, limit)

    def in_order(self, scope: str, tasks: Mapping[str, graph.Task]) -> Iterator[graph.Task]:
        """Yield the tasks of a scope, each after those it depends on, by name where that leaves a choice."""
        waiting = {name: set(task.depends_on) for name, task in tasks.items()}
        while waiting:
            ready = sorted(name for name, before in waiting.items() if not before)
            if not ready:
                raise self.error(f"component {scope}", f"its tasks wait for each other: {_cycle(waiting)}")
            for name in ready:
                yield tasks[name]
                del waiting[name]
            for before in waiting.values():
                before.difference_update(ready)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _cycle(waiting: Mapping[str, set[str]]) -> str:
    path = [min(waiting)]
    while path[-1] not in path[:-1]:
        path.append(min(waiting[path[-1]]))
    return " → ".join(reversed(path[path.index(path[-1]) :]))


def _artifact_type(spec: Any) -> graph.ArtifactType:
    return graph.ArtifactType(spec.schema_title, spec.schema_version, spec.schema_uri, spec.instance_schema)


def _value_or_parameter(spec: Any) -> graph.Constant | graph.RuntimeParameter:
    kind = spec.WhichOneof("value")
    if kind == "runtime_parameter":
        return graph.RuntimeParameter(spec.runtime_parameter)
    if kind == "constant_value":  # schema 2.0.0
        old = spec.constant_value
        return graph.Constant(getattr(old, old.WhichOneof("value") or "string_value"))
    return graph.Constant(_to_value(spec.constant))


def _producers(settings: Any) -> Iterator[str]:
    """Yield the tasks whose outputs the settings of a platform read."""
    if isinstance(settings, Mapping):
        output = settings.get("taskOutputParameter")
        if isinstance(output, Mapping) and isinstance(task := output.get("producerTask"), str):
            yield task
        for value in settings.values():
            yield from _producers(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _producers(value)


def _platform_settings(spec: Any) -> dict[str, Any]:
    settings = _to_value(spec)
    settings.pop("deploymentSpec", None)
    return {key: value for key, value in settings.items() if value not in ({}, "")}


def _container(label: str, spec: Any) -> graph.Container:
    resources = spec.resources
    old = resources.accelerator

    def text(new: str, number: float) -> str:
        return new or (f"{number:g}" if number else "")

    def memory(new: str, number: float) -> str:
        return new or (f"{number:g}G" if number else "")

    check = spec.lifecycle.pre_cache_check
    return graph.Container(
        label,
        spec.image,
        tuple(spec.command),
        tuple(spec.args),
        {item.name: item.value for item in spec.env},
        graph.Resources(
            text(resources.resource_cpu_request, resources.cpu_request),
            text(resources.resource_cpu_limit, resources.cpu_limit),
            memory(resources.resource_memory_request, resources.memory_request),
            memory(resources.resource_memory_limit, resources.memory_limit),
            old.resource_type or old.type,
            old.resource_count or (str(old.count) if old.count else ""),
        ),
        (*check.command, *check.args),
    )


def _retry(spec: Any) -> graph.Retry:
    def seconds(duration: Any) -> float:
        return float(duration.seconds + duration.nanos / 1e9)

    return graph.Retry(
        spec.max_retry_count,
        seconds(spec.backoff_duration),
        spec.backoff_factor or 2.0,
        seconds(spec.backoff_max_duration) or 3600.0,
    )
