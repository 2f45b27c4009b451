"""Reads a compiled pipeline: IR as YAML or JSON to graph.Pipeline. The only reader there is.

A broken spec is read as far as it goes, with a finding for each thing that cannot be: `examine` returns both. What
`read` and `parse` return is whole: every reference in it leads somewhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from penstock.compile import documents, graph, references
from penstock.compile.documents import Documents, messages
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Codes, Finding, Severity, errors

SCHEMA_VERSIONS = ("2.0.0", "2.1.0")
LARGEST_INTEGER = 2**53 - 1  # numbers of the IR are doubles

CODES = Codes(
    ("schema-version", Severity.ERROR, "A schema version that is not known here."),
    ("no-tasks", Severity.ERROR, "The pipeline has no tasks."),
    ("missing-component", Severity.ERROR, "A task names no component, or one that is not there."),
    (
        "missing-executor",
        Severity.ERROR,
        "A component has neither tasks nor an executor, or its executor is not there.",
    ),
    ("recursion", Severity.ERROR, "A component contains itself."),
    ("no-type", Severity.ERROR, "A parameter has no type."),
    ("no-source", Severity.ERROR, "An input of a task comes from nowhere."),
    ("bad-loop-items", Severity.ERROR, "The items of a loop are no JSON list."),
    ("duplicate-variable", Severity.WARNING, "An environment variable is given twice; the last one counts."),
    ("unused-component", Severity.WARNING, "A component that no task is made of; what is in it never runs."),
    ("unused-executor", Severity.WARNING, "An executor that no component names."),
)

_DEPLOYMENT = ("deploymentSpec", "deployment_spec")
_TYPES = {kind.value: kind for kind in graph.Type}
_GIVEN = sorted(set(_TYPES) - {graph.Type.UNSPECIFIED.value})
_OLD_TYPES = {"INT": graph.Type.INTEGER, "DOUBLE": graph.Type.DOUBLE, "STRING": graph.Type.STRING}


def read(path: Path) -> graph.Pipeline:
    """Return the pipeline that a file of compiled IR holds.

    Args:
        path: PipelineSpec as YAML or JSON, with a platform spec as second document or without; the Kubernetes
            manifest and the PipelineJob that KFP's compiler and the Vertex SDK wrap around it are taken as well.

    Raises:
        PenstockError: the file is not a whole, valid pipeline.
    """
    return parse(documents.text_of(path), str(path))


def parse(document: str | Mapping[str, Any] | Documents, name: str = "the spec") -> graph.Pipeline:
    """Return the pipeline that IR text, or one IR document that is already a mapping, holds.

    Args:
        document: What `read` takes, as text, as a mapping, or unwrapped.
        name: How errors call it.

    Raises:
        PenstockError: it is not a whole, valid pipeline.
    """
    try:
        unwrapped = document if isinstance(document, Documents) else documents.unwrap(document)
    except documents.NotAPipeline as error:
        raise PenstockError(f"{name}: {error}") from error
    pipeline, found = examine(unwrapped)
    wrong = errors(found)
    if wrong or pipeline is None:
        more = f" (and {len(wrong) - 1} more: penstock check lists them)" if len(wrong) > 1 else ""
        raise PenstockError(f"{name}: {wrong[0]}{more}")
    return pipeline


def examine(unwrapped: Documents) -> tuple[graph.Pipeline | None, list[Finding]]:
    """Return a pipeline as far as it can be read, and what keeps it from being whole.

    Returns:
        The pipeline, None where not even its tasks can be told; and findings, among them errors for each reference that
        leads nowhere.
    """
    reader = _Reader(unwrapped)
    try:
        pipeline = reader.pipeline()
    except ValueError as error:  # of protobuf, whose values are JSON's
        reason = f"a value is none that JSON has, such as NaN or an infinity: {error}"
        return None, [*reader.found, documents.CODES.finding("malformed", "", reason)]
    return pipeline, [*reader.found, *(references.check(pipeline) if pipeline else ())]


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


def _to_value(message: Any) -> Any:
    return integral(json_format.MessageToDict(message))


class _Reader:
    """One document on its way to a pipeline."""

    def __init__(self, unwrapped: Documents) -> None:
        self.unwrapped = unwrapped
        self.found: list[Finding] = []
        self.version = str(unwrapped.spec.get("schemaVersion", unwrapped.spec.get("schema_version", "")))
        self.components: dict[str, graph.Component] = {}
        self.open: list[str] = []
        self.trail: list[str] = []

    def report(self, code: str, message: str, remedy: str = "", task: str = "") -> None:
        path = ".".join([*self.trail, *([task] if task else [])])
        self.found.append(CODES.finding(code, path, message, remedy))

    def message(self, kind: str, document: Mapping[str, Any], where: str = "") -> Any:
        parsed, found = documents.message(kind, document, where, self.version)
        self.found += found
        return parsed

    def pipeline(self) -> graph.Pipeline | None:
        for name in self.unwrapped.unknown:
            reason = f"{self.unwrapped.wrapper} has no field named {name!r}"
            self.found.append(documents.CODES.finding("unknown-field", "", reason, "take it out"))
        # To the message of a pipeline the executors are any JSON; they have a message of their own.
        rest = {name: value for name, value in self.unwrapped.spec.items() if name not in _DEPLOYMENT}
        deployment: Any = next((self.unwrapped.spec[name] for name in _DEPLOYMENT if name in self.unwrapped.spec), {})
        spec = self.message("PipelineSpec", rest)
        executors = self.message("PipelineDeploymentConfig", deployment, "deploymentSpec")
        platforms = self.message("PlatformSpec", self.unwrapped.platforms, "the platform spec")
        if spec is None or executors is None or platforms is None:
            return None
        self.spec, self.executors, self.platforms = spec, executors.executors, platforms.platforms
        if spec.schema_version not in SCHEMA_VERSIONS:
            known = " and ".join(SCHEMA_VERSIONS)
            self.report("schema-version", f"schemaVersion: {spec.schema_version!r} is not known; {known} are")
        if not spec.root.dag.tasks:
            self.report("no-tasks", "root: has no tasks")
            return None
        info = spec.pipeline_info
        root = _with_defaults(self.component("root", spec.root), self.unwrapped.values)
        self.report_unused()
        return graph.Pipeline(
            name=info.name,
            root=root,
            display_name=info.display_name,
            description=info.description,
            schema_version=spec.schema_version,
            sdk_version=spec.sdk_version,
            default_root=spec.default_pipeline_root or str(self.unwrapped.runtime.get("gcsOutputDirectory") or ""),
            platforms={
                platform: settings
                for platform, found in sorted(self.platforms.items())
                if (settings := _platform_settings(found))
            },
        )

    def report_unused(self) -> None:
        for name in sorted(set(self.spec.components) - set(self.components)):
            self.report("unused-component", f"component {name}: no task is made of it", "take it out")
        used = {
            self.spec.components[name].executor_label
            for name in self.components
            if name in self.spec.components and self.spec.components[name].HasField("executor_label")
        }
        unused = {component.executor_label for name, component in self.spec.components.items()} - used
        for label in sorted(set(self.executors) - used - unused):
            self.report("unused-executor", f"executor {label}: no component names it", "take it out")

    def component(self, name: str, spec: Any) -> graph.Component:
        if name in self.components:
            return self.components[name]
        if name in self.open:
            self.report("recursion", f"component {name}: contains itself: {' → '.join([*self.open, name])}")
            return graph.Component(name, graph.Ports(), graph.Ports(), graph.Missing())
        self.open.append(name)
        inputs, outputs = self.ports(name, spec.input_definitions), self.ports(name, spec.output_definitions)
        kind = spec.WhichOneof("implementation")
        if kind == "dag":
            body: Any = self.dag(name, spec)
        elif kind == "executor_label":
            body = self.executor(name, spec.executor_label)
        else:
            self.report("missing-executor", f"component {name}: has neither tasks nor an executor")
            body = graph.Missing()
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
        for name, spec in sorted(definitions.parameters.items()):
            given = hasattr(spec, "default_value") and spec.HasField("default_value")
            kind = self.parameter_type(f"component {component}, parameter {name}", spec)
            default = _of_type(_to_value(spec.default_value), kind) if given else None
            literals = tuple(_to_value(item) for item in getattr(spec, "literals", ()))
            optional = getattr(spec, "is_optional", False)
            typed = not spec.parameter_type and kind is not graph.Type.UNSPECIFIED
            parameters[name] = graph.Parameter(name, kind, default, optional, spec.description, literals, typed)
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
        if name in _GIVEN:
            return _TYPES[name]
        old = messages().PrimitiveType.PrimitiveTypeEnum.Name(spec.type)
        if old in _OLD_TYPES:
            return _OLD_TYPES[old]
        self.report("no-type", f"{where}: has no type", f"give it one of {', '.join(_GIVEN)}")
        return graph.Type.UNSPECIFIED

    def executor(
        self, component: str, label: str
    ) -> graph.Container | graph.Importer | graph.OtherExecutor | graph.Missing:
        if label not in self.executors:
            known = f"there are {_names(self.executors)}"
            self.report(
                "missing-executor", f"component {component}: its executor {label} is missing from deploymentSpec", known
            )
            return graph.Missing()
        spec = self.executors[label]
        kind = spec.WhichOneof("spec")
        if kind == "container":
            names = [item.name for item in spec.container.env]
            for name in sorted({name for name in names if names.count(name) > 1}):
                self.report("duplicate-variable", f"environment variable {name}: is given twice", "keep one")
            return _container(label, spec.container)
        if kind == "importer":
            if not spec.importer.HasField("artifact_uri"):
                self.report("missing-executor", f"executor {label}: the importer has no artifactUri")
                return graph.Missing()
            return graph.Importer(
                label,
                _value_or_parameter(spec.importer.artifact_uri),
                _artifact_type(spec.importer.type_schema),
                _to_value(spec.importer.metadata),
                spec.importer.reimport,
                spec.importer.download_to_workspace,
            )
        if kind is None:
            self.report("missing-executor", f"executor {label}: is empty")
            return graph.Missing()
        return graph.OtherExecutor(label, "customJob" if kind == "custom_job" else kind)

    def dag(self, name: str, spec: Any) -> graph.Dag:
        tasks = {task: self.task(task, spec.dag.tasks[task], spec.dag.tasks) for task in sorted(spec.dag.tasks)}
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
        return graph.Dag({task.name: task for task in _in_order(tasks)}, sources)

    def task(self, name: str, spec: Any, siblings: Iterable[str]) -> graph.Task:
        self.trail.append(name)
        inputs = {
            port: graph.Input(source, given.parameter_expression_selector)
            for port, given in sorted(spec.inputs.parameters.items())
            if (source := self.parameter_source(port, given))
        }
        for port, item in sorted(spec.inputs.artifacts.items()):
            if found := self.artifact_source(port, item):
                inputs[port] = graph.Input(found)
        depends_on = set(spec.dependent_tasks)
        sources = [given.source for given in inputs.values()]
        depends_on.update(each.task for each in sources if isinstance(each, graph.TaskOutput | graph.FinalStatus))
        component = self.referenced(spec.component_ref.name)
        # Settings of a platform may read outputs of tasks that nothing else ties to this one.
        depends_on.update(set(_producers(component.platforms)) & set(siblings))
        policy = spec.trigger_policy
        strategy = messages().PipelineTaskSpec.TriggerPolicy.TriggerStrategy
        task = graph.Task(
            name=name,
            component=component,
            title=spec.task_info.name,
            inputs=inputs,
            depends_on=tuple(sorted(depends_on)),
            trigger=graph.Trigger(policy.condition, policy.strategy == strategy.ALL_UPSTREAM_TASKS_COMPLETED),
            loop=self.loop(spec),
            retry=_retry(spec.retry_policy) if spec.HasField("retry_policy") else None,
            caching=graph.Caching(spec.caching_options.enable_cache, spec.caching_options.cache_key),
        )
        self.trail.pop()
        return task

    def referenced(self, name: str) -> graph.Component:
        if name in self.spec.components:
            return self.component(name, self.spec.components[name])
        problem = f"its component {name} is missing" if name else "names no component"
        self.report("missing-component", problem, f"there are {_names(self.spec.components)}")
        return graph.Component(name, graph.Ports(), graph.Ports(), graph.Missing())

    def parameter_source(self, port: str, given: Any) -> graph.Source | None:
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
        self.report("no-source", f"input {port}: comes from nowhere", "connect it, or take it out")
        return None

    def artifact_source(self, port: str, given: Any) -> graph.Source | None:
        kind = given.WhichOneof("kind")
        if kind == "task_output_artifact":
            output = given.task_output_artifact
            return graph.TaskOutput(output.producer_task, output.output_artifact_key)
        if kind == "component_input_artifact":
            return graph.ScopeInput(given.component_input_artifact)
        self.report("no-source", f"input {port}: comes from nowhere", "connect it, or take it out")
        return None

    def loop(self, spec: Any) -> graph.Loop | None:
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
                    self.report("bad-loop-items", f"the items of its loop are not JSON: {error}")
                    listed = []
                if not isinstance(listed, list):
                    self.report("bad-loop-items", "the items of its loop are not a list")
                    listed = []
                items = tuple(listed)
        return graph.Loop(kind.removesuffix("_iterator"), iterator.item_input, items, limit)


def _with_defaults(root: graph.Component, values: Mapping[str, Any]) -> graph.Component:
    """Return the whole pipeline with the values that a job has for its parameters as their defaults."""
    parameters = {
        name: dataclasses.replace(port, default=_of_type(values[name], port.type)) if name in values else port
        for name, port in root.inputs.parameters.items()
    }
    return dataclasses.replace(root, inputs=graph.Ports(parameters, root.inputs.artifacts))


def _of_type(value: Any, kind: graph.Type) -> Any:
    """Return a value as its type has it: a double stays one, however JSON writes it."""
    return float(value) if kind is graph.Type.DOUBLE and type(value) is int else integral(value)


def _in_order(tasks: Mapping[str, graph.Task]) -> Iterator[graph.Task]:
    """Yield the tasks of a scope, each after those it depends on, by name where that leaves a choice."""
    waiting = {name: set(task.depends_on) & set(tasks) for name, task in tasks.items()}
    while waiting:
        # Where all wait for each other, any order is as good; references.check names the cycle.
        ready = sorted(name for name, before in waiting.items() if not before) or sorted(waiting)
        for name in ready:
            yield tasks[name]
            del waiting[name]
        for before in waiting.values():
            before.difference_update(ready)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


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
