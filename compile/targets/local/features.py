"""What the local engine runs and what it refuses: one table, and a check of a pipeline against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.compile import commands, graph, launcher
from penstock.compile._checks import placeholders
from penstock.compile.targets.local import convert, fetch
from penstock.compile.targets.local.placement import Place, place

Finding = tuple[str, str]  # path of the task ("" for the pipeline), what about it

_PLATFORMS = ("kubernetes",)


@dataclass(frozen=True)
class Feature:
    """Something that a compiled pipeline can ask for.

    Attributes:
        note: How it is run; for what is refused, why.
        find: Finds where a pipeline asks for it; only what is refused needs to be found.
        place: Where a command has to run for this to count; None: anywhere.
    """

    name: str
    note: str
    find: Callable[[graph.Pipeline], Iterator[Finding]] | None = None
    place: Place | None = None


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


def check(pipeline: graph.Pipeline, runner: str) -> list[Refusal]:
    """Return everything in a pipeline that the engine does not run.

    Args:
        pipeline: The pipeline.
        runner: One of placement.RUNNERS.
    """
    places = {path: place(task, runner) for path, task in pipeline.walk()}
    return [
        Refusal(feature.name, path, detail, feature.note)
        for feature in REFUSED
        if feature.find
        for path, detail in feature.find(pipeline)
        if feature.place in (None, places.get(path))
    ]


def _containers(pipeline: graph.Pipeline) -> Iterator[tuple[str, graph.Task, graph.Container]]:
    for path, task in pipeline.walk():
        if isinstance(task.component.body, graph.Container):
            yield path, task, task.component.body


def _other_platforms(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for platform in set(pipeline.platforms) - set(_PLATFORMS):
        yield "", platform
    for path, task in pipeline.walk():
        for platform in set(task.component.platforms) - set(_PLATFORMS):
            yield path, platform


def _installs(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, _, body in _containers(pipeline):
        if packages := commands.own_installs(body):
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
        body = task.component.body
        if isinstance(body, graph.OtherExecutor) and body.kind != "resolver":
            yield path, body.kind


def _resolvers(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        if isinstance(task.component.body, graph.OtherExecutor) and task.component.body.kind == "resolver":
            yield path, task.component.body.label


def _remote_imports(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        body = task.component.body
        if isinstance(body, graph.Importer) and isinstance(body.uri, graph.Constant):
            uri = str(body.uri.value)
            if convert.is_remote(uri) and (reason := fetch.fetchable(uri)):
                yield path, f"{fetch.shown(uri)}: {reason}"


def uses_workspace(pipeline: graph.Pipeline) -> bool:
    """Return whether a pipeline's tasks share a folder."""
    return any(
        (isinstance(task.component.body, graph.Importer) and task.component.body.download_to_workspace)
        or ("workspace_path",) in placeholders.of(task)
        for _, task in pipeline.walk()
    )


def _unknown_placeholders(pipeline: graph.Pipeline) -> Iterator[Finding]:
    for path, task in pipeline.walk():
        for steps in sorted(placeholders.unknown(task)):
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


RUN = (
    Feature("lightweight Python components", "in processes, with the Python that runs the engine"),
    Feature("container components, containerized Python", "in their image; as a process with `--runner subprocess`"),
    Feature("packages installed at task start", "into an environment made once per set and kept; never into yours"),
    Feature("notebook components", "like lightweight ones; what they install goes into such an environment too"),
    Feature("parameters", "all types; integers stay integers, also inside lists and dicts"),
    Feature("artifacts", "files, folders, lists, metadata, custom paths; empty or unwritten ones fail their task"),
    Feature("placeholders", "Concat and IfPresent too; what a constant refers to is put into it"),
    Feature(
        "jobs of TFX", "old types and typed values, conditions over artifacts, the driver of a file-based ExampleGen"
    ),
    Feature("If, Elif, Else, OneOf", "whatever the compiler writes as a condition, checked before anything runs"),
    Feature("ParallelFor and Collected", "over parameters and artifacts; nested ones collect into one flat list"),
    Feature("nested pipelines", "with their inputs and outputs"),
    Feature("ExitHandler and ignore_upstream_failure", "with the final status; the run still ends as failed"),
    Feature("retries", "with back-off, in the same place"),
    Feature("importers", "local files are used where they lie; https, s3, gs and abfss are fetched"),
    Feature("environment variables", "those of the task over the engine's; a container has its own and the task's"),
    Feature("caching options", "a task is reused by content, unless they say no"),
    Feature("workspace", "a folder of the run, kept with it"),
    Feature("task configuration", "resources and environment from the spec, the rest from the Kubernetes document"),
    Feature("Kubernetes platform document", "what this machine can give; the rest is named in a warning, see below"),
    Feature("CPU, memory and accelerators", "not limited and not reserved: the machine is what it is"),
)

REFUSED = (
    Feature("condition that does not parse", "KFP could not run it either; change it and compile again", _conditions),
    Feature("expression", 'only parseJson(string_value)["key"] is known; change it and compile again', _selectors),
    Feature(
        "unknown placeholder", "nothing here gives it a value; take it out or run on Vertex AI", _unknown_placeholders
    ),
    Feature(
        "pip install in a command of its own, in a process",
        "it would change your own environment; run it with --runner docker, or use packages_to_install",
        _installs,
        Place.PROCESS,
    ),
    Feature(
        "command of the image, in a process",
        "processes do not use images; run it with --runner auto or docker, or give the component a command",
        _image_command,
        Place.PROCESS,
    ),
    Feature(
        "containerized Python component, in a process",
        "its code is in its image; run it with --runner auto or docker",
        _image_folder,
        Place.PROCESS,
    ),
    Feature("remote importer that cannot be fetched", "import a copy on this machine", _remote_imports),
    Feature("platform", "only settings for Kubernetes are known; compile without the others", _other_platforms),
    Feature(
        "resolver",
        "TFX has it look for artifacts of earlier runs in the metadata of Vertex AI; import what it would find",
        _resolvers,
    ),
    Feature("executor", "no compiler writes it; only containers and importers are run", _other_executors),
)
