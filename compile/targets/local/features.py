"""What the local engine runs and what it refuses: one table, and a check of a pipeline against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.compile import graph, launcher
from penstock.compile.targets.local import commands

Finding = tuple[str, str]  # path of the task ("" for the pipeline), what about it

SYSTEM_PLACEHOLDERS = (
    "pipeline_job_name",
    "pipeline_job_resource_name",
    "pipeline_job_uuid",
    "pipeline_job_create_time_utc",
    "pipeline_job_schedule_time_utc",
    "pipeline_task_name",
    "pipeline_task_uuid",
    "pipeline_root",
)


@dataclass(frozen=True)
class Feature:
    """Something that a compiled pipeline can ask for.

    Attributes:
        note: How it is run; for what is refused, why.
        find: Finds where a pipeline asks for it; only what is refused needs to be found.
    """

    name: str
    note: str
    find: Callable[[graph.Pipeline], Iterator[Finding]] | None = None


@dataclass(frozen=True)
class Refusal:
    """Something that a pipeline asks for and the engine does not run."""

    feature: str
    path: str
    detail: str
    reason: str

    def __str__(self) -> str:
        where = f"task {self.path}: " if self.path else ""
        return f"{where}{self.feature}{f' ({self.detail})' if self.detail else ''}: {self.reason}"


def check(pipeline: graph.Pipeline) -> list[Refusal]:
    """Return everything in a pipeline that the engine does not run."""
    return [
        Refusal(feature.name, path, detail, feature.note)
        for feature in REFUSED
        if feature.find
        for path, detail in feature.find(pipeline)
    ]


def _containers(pipeline: graph.Pipeline) -> Iterator[tuple[str, graph.Task, graph.Container]]:
    for path, task in pipeline.walk():
        if isinstance(task.component.body, graph.Container):
            yield path, task, task.component.body


def _platforms(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for platform, settings in pipeline.platforms.items():
        yield "", f"{platform}: {', '.join(settings)}"
    for path, task in pipeline.walk():
        for platform, settings in task.component.platforms.items():
            yield path, f"{platform}: {', '.join(settings)}"


def _installs(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, _, body in _containers(pipeline):
        if packages := commands.installs(body):
            yield path, ", ".join(packages)


def _image_command(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, _, body in _containers(pipeline):
        if not body.command:
            yield path, body.image


def _image_folder(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, _, body in _containers(pipeline):
        if commands.is_containerized_python(body):
            yield path, body.image


def _other_executors(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        if isinstance(task.component.body, graph.OtherExecutor):
            yield path, task.component.body.kind
    for path, _, body in _containers(pipeline):
        if body.pre_cache_check:
            yield path, "lifecycle.preCacheCheck"


def _remote_imports(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        body = task.component.body
        if isinstance(body, graph.Importer) and isinstance(body.uri, graph.Constant):
            uri = str(body.uri.value)
            if "://" in uri and not uri.startswith("file://"):
                yield path, uri


def _workspaces(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        body = task.component.body
        if isinstance(body, graph.Importer) and body.download_to_workspace:
            yield path, "downloadToWorkspace"
        elif any(steps == ("workspace_path",) for steps in _placeholders(task)):
            yield path, "{{$.workspace_path}}"


def _task_config(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        for name, port in task.component.inputs.parameters.items():
            if port.type is graph.Type.TASK_CONFIG:
                yield path, name
        if task.component.passthroughs:
            yield path, ", ".join(task.component.passthroughs)


def _unknown_placeholders(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        unknown = {steps for steps in _placeholders(task) if not _resolvable(task, steps)}
        for steps in sorted(unknown - {("workspace_path",)}):
            yield path, ".".join(steps)


def _conditions(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        if not task.trigger.condition:
            continue
        try:
            names = launcher.condition_inputs(launcher.parse_condition(task.trigger.condition))
        except launcher.ConditionError as error:
            yield path, str(error)
            continue
        if missing := sorted(names - set(task.inputs) - set(task.component.inputs)):
            yield path, f"it reads {', '.join(missing)}, not among the task's inputs"


def _selectors(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        for given in task.inputs.values():
            if given.selector:
                try:
                    launcher.selector_path(given.selector)
                except ValueError:
                    yield path, given.selector


def _placeholders(task: graph.Task) -> Iterator[tuple[str, ...]]:
    for given in task.inputs.values():
        if isinstance(given.source, graph.Constant):
            yield from _in_value(given.source.value)
    body = task.component.body
    if isinstance(body, graph.Container):
        for element in (*commands.without_source(body), *body.env.values()):
            yield from launcher.placeholders(element)
    elif isinstance(body, graph.Importer):
        yield from _in_value(dict(body.metadata))


def _in_value(value: object) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        yield from launcher.placeholders(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _in_value(key)
            yield from _in_value(item)
    elif isinstance(value, list):
        for item in value:
            yield from _in_value(item)


def _resolvable(task: graph.Task, steps: tuple[str, ...]) -> bool:
    if len(steps) < 2:
        return not steps or steps[0] in (*SYSTEM_PLACEHOLDERS, "outputMetadataUri")
    if steps == ("outputs", "output_file"):
        return True
    ports = {"inputs": task.component.inputs, "outputs": task.component.outputs}.get(steps[0])
    if ports is None or len(steps) < 3:
        return False
    name, rest = steps[2], steps[3:]
    if steps[1] == "parameters":
        known = name in ports.parameters or (steps[0] == "inputs" and name in task.inputs)
        return known and rest == (("output_file",) if steps[0] == "outputs" else ())
    artifact = rest in ((), ("uri",), ("path",)) or (rest[0] == "metadata" and len(rest) <= 2)
    return steps[1] == "artifacts" and name in ports.artifacts and artifact


RUN = (
    Feature("lightweight Python components", "in processes, with the Python that runs the engine"),
    Feature("container components", "their command in a process; the image is not used"),
    Feature("parameters", "all types; integers stay integers, also inside lists and dicts"),
    Feature("artifacts", "files, folders, lists, metadata, custom paths; empty or unwritten ones fail their task"),
    Feature("placeholders", "Concat and IfPresent too; what a constant refers to is put into it"),
    Feature("If, Elif, Else, OneOf", "whatever the compiler writes as a condition, checked before anything runs"),
    Feature("ParallelFor and Collected", "over parameters and artifacts; nested ones collect into one flat list"),
    Feature("nested pipelines", "with their inputs and outputs"),
    Feature("ExitHandler and ignore_upstream_failure", "with the final status; the run still ends as failed"),
    Feature("retries", "with back-off, in the same place"),
    Feature("importers of local files", "the file or folder is used where it lies"),
    Feature("environment variables", "those of the task over those of the engine"),
    Feature("CPU, memory and accelerators", "not limited and not reserved: the machine is what it is"),
    Feature("caching options", "every task runs; nothing is reused yet"),
)

REFUSED = (
    Feature("condition that does not parse", "KFP could not run it either; change it and compile again", _conditions),
    Feature("expression", 'only parseJson(string_value)["key"] is known; change it and compile again', _selectors),
    Feature(
        "unknown placeholder", "nothing here gives it a value; take it out or run on Vertex AI", _unknown_placeholders
    ),
    Feature(
        "packages installed at task start",
        "they would go into your own environment; put them into the image and this environment, and compile with "
        "packages_to_install empty",
        _installs,
    ),
    Feature("command of the image", "processes do not use images; give the component a command", _image_command),
    Feature(
        "containerized Python component",
        "its code is in its image; make it a lightweight component or a package that both have",
        _image_folder,
    ),
    Feature("remote importer", "remote URIs are not fetched yet; import a copy on this machine", _remote_imports),
    Feature("platform settings", "they are not honoured yet; compile without them for this machine", _platforms),
    Feature("workspace", "there is none yet; pass the data as an artifact", _workspaces),
    Feature("task configuration", "it holds settings of a Kubernetes pod, and there is none", _task_config),
    Feature("executor", "no compiler writes it; only containers and importers are run", _other_executors),
)
