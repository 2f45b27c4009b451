"""What becomes of each feature of a compiled pipeline on Azure ML: one table, and a pipeline held against it."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.compile import commands, graph, kubernetes_document, launcher
from penstock.compile._checks import placeholders
from penstock.compile._checks.scopes import places
from penstock.compile.documents import Documents
from penstock.compile.findings import Codes, Finding, Severity
from penstock.compile.targets.azureml import images, kubernetes_fields, machines
from penstock.compile.targets.azureml import options as options_of
from penstock.compile.targets.azureml.images import Launcher
from penstock.compile.targets.azureml.options import Options, Output
from penstock.compile.targets.azureml.plan import MOST_INPUTS, MOST_STEPS, Plan, Unit, Unknown

MOST_OUTPUTS = 20
MOST_TAGS = 50

Problem = tuple[str, str]  # path of the task ("" for the pipeline), what about it

# What Azure can mount by itself.
_MOUNTED = ("azureml:", "azureml://", "abfss://", "wasbs://", "https://", "http://")
_OPERATORS = ("/google-cloud-pipeline-components", "/automl-tabular", "vertex-ai-restricted/")
_TIMES = ("pipeline_job_create_time_utc", "pipeline_job_schedule_time_utc")
_NOT_HERE = ("pipeline_root", "workspace_path")


class Effect(StrEnum):
    """What becomes of a feature."""

    SUPPORTED = "supported"  # Azure ML has it
    LOWERED = "lowered"  # the step does it by itself
    WARNED = "warned"  # something of it is lost, or different
    OPTION = "needs option"
    REFUSED = "refused"


@dataclass(frozen=True)
class Case:
    """A pipeline on its way to a job.

    Attributes:
        values: Values of its inputs that are known.
        documents: What the pipeline was read from, for what the graph leaves out; empty where it is not at hand.
        lenient: Whether the options are meant for other pipelines as well.
    """

    pipeline: graph.Pipeline
    plan: Plan
    options: Options
    values: Mapping[str, Any]
    documents: Documents = field(default_factory=lambda: Documents({}))
    lenient: bool = False


@dataclass(frozen=True)
class Feature:
    """Something that a compiled pipeline can ask for.

    Attributes:
        code: Name of the finding; empty where there is nothing to find.
        note: How it is done; for what is warned of or refused, what about it.
        remedy: What to do about it.
        find: Finds where a pipeline asks for it.
    """

    effect: Effect
    name: str
    note: str
    code: str = ""
    remedy: str = ""
    find: Callable[[Case], Iterator[Problem]] | None = None


def check(case: Case) -> list[Finding]:
    """Return all that is refused or warned of, errors first, each by path."""
    found = []
    for feature in FEATURES:
        for path, problem in dict.fromkeys(feature.find(case)) if feature.find else ():
            found.append(CODES.finding(feature.code, path, problem, feature.remedy))
    return sorted(found, key=lambda each: (each.severity is not Severity.ERROR, each.path, each.code, each.message))


def is_mounted(uri: str) -> bool:
    """Return whether Azure can take data from a URI."""
    return uri.startswith(_MOUNTED)


def mapped(uri: str, options: Options) -> str:
    """Return a URI as the options have it."""
    for begin in sorted(options.uri_map, key=len, reverse=True):
        if uri.startswith(begin):
            return options.uri_map[begin] + uri[len(begin) :]
    return uri


def output_rule(case: Case, unit: Unit, port: str) -> Output | None:
    """Return what the options say of an artifact that a task gives."""
    found: Output | None = options_of.matching(case.options.outputs, f"{unit.declared}.{port}")
    return found


def pipeline_root(case: Case) -> str:
    """Return where the options put what the pipeline's root names; empty: nowhere."""
    there = mapped(_written_root(case), case.options)
    return there if there.startswith("azureml://") else ""


def _containers(case: Case) -> Iterator[tuple[str, graph.Task, graph.Container]]:
    for place in places(case.pipeline):
        if isinstance(place.task.component.body, graph.Container):
            yield place.path, place.task, place.task.component.body


def _steps(case: Case) -> Iterator[tuple[Unit, graph.Container]]:
    for path in case.plan.steps:
        unit = case.plan.units[path]
        if isinstance(unit.component.body, graph.Container):
            yield unit, unit.component.body


# What is refused


def _conditions(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        if place.task.trigger.condition:
            try:
                read = launcher.condition_inputs(launcher.parse_condition(place.task.trigger.condition))
            except launcher.ConditionError as error:
                yield place.path, str(error)
                continue
            if artifacts := sorted(read & {*place.task.component.inputs.artifacts}):
                yield place.path, f"its condition reads {', '.join(artifacts)}, an artifact, when it starts"


def _selectors(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        for name, given in place.task.inputs.items():
            try:
                if given.selector:
                    launcher.selector_path(given.selector)
            except ValueError as error:
                yield place.path, f"input {name}: {error}"


def _placeholders(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        used = {steps[0] for steps in placeholders.of(place.task) if steps and len(steps) == 1}
        for name in sorted(used & {*_NOT_HERE, *placeholders.GOOGLE}):
            yield place.path, f"reads {name}, which Azure ML does not have"
        for steps in sorted(placeholders.unknown(place.task)):
            if steps[0] not in placeholders.GOOGLE:
                yield place.path, f"the placeholder {'.'.join(steps)} names nothing"


def _executors(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        body = place.task.component.body
        if isinstance(body, graph.OtherExecutor):
            yield place.path, f"executor {body.label} is a {body.kind}"
        elif isinstance(body, graph.Missing):
            yield place.path, f"component {place.task.component.name} has no executor"
        elif isinstance(body, graph.Container) and body.pre_cache_check:
            yield place.path, f"executor {body.label} has lifecycle.preCacheCheck"


def _empty(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        body = place.task.component.body
        if isinstance(body, graph.Dag) and not body.tasks:
            yield place.path, f"component {place.task.component.name} has no tasks, so no step could tell how it ended"


def _no_steps(case: Case) -> Iterator[Problem]:
    if not case.plan.steps and not any(unit.is_import for unit in case.plan.units.values()):
        yield "", "no task of it runs anything"


def _task_config(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        component = place.task.component
        for name, port in component.inputs.parameters.items():
            if port.type is graph.Type.TASK_CONFIG:
                yield place.path, f"input {name} is a task's Kubernetes configuration"
        if component.passthroughs:
            yield place.path, f"passes {', '.join(component.passthroughs)} on to Kubernetes"


def _operators(case: Case) -> Iterator[Problem]:
    for path, task, body in _containers(case):
        if any(name in body.image for name in _OPERATORS):
            yield path, f"component {task.component.name} is an operator of Google Cloud ({body.image})"
        elif made := [
            port.type.title
            for port in task.component.outputs.artifacts.values()
            if port.type.title.startswith("google.")
        ]:
            yield path, f"gives {', '.join(made)}, which names something of Google Cloud"


def _volumes(case: Case) -> Iterator[Problem]:
    for path, _, body in _containers(case):
        if body.image in commands.VOLUME_IMAGES:
            yield path, f"{body.image} makes or removes a Kubernetes volume"


def _platforms(case: Case) -> Iterator[Problem]:
    known = {kubernetes_document.PLATFORM}
    for platform in sorted(set(case.pipeline.platforms) - known):
        yield "", f"has settings for the platform {platform}"
    for place in places(case.pipeline):
        for platform in sorted(set(place.task.component.platforms) - known):
            yield place.path, f"has settings for the platform {platform}"


def _documents(case: Case) -> Iterator[Problem]:
    """Find what does not fit Kubernetes's document, or is not known of it."""
    problems: list[str] = []
    document = case.pipeline.platforms.get(kubernetes_document.PLATFORM, {})
    kubernetes_document.fit(document, kubernetes_document.PIPELINE, "kubernetes", problems)
    yield from (("", problem) for problem in problems)
    for place in places(case.pipeline):
        problems = []
        kubernetes_document.fit(
            kubernetes_fields.settings(place.task.component), kubernetes_document.TASK, "kubernetes", problems
        )
        yield from ((place.path, problem) for problem in problems)


def _fields(effect: str) -> Callable[[Case], Iterator[Problem]]:
    """Return a rule that finds the fields of Kubernetes's document that something happens to."""

    def find(case: Case) -> Iterator[Problem]:
        document = case.pipeline.platforms.get(kubernetes_document.PLATFORM, {}).get("pipelineConfig", {})
        for row in kubernetes_fields.PIPELINE_FIELDS:
            if row.effect == effect and document.get(row.name):
                yield "", f"kubernetes.pipelineConfig.{row.name}: {row.note}"
        for place in places(case.pipeline):
            task = kubernetes_fields.settings(place.task.component)
            for row in kubernetes_fields.FIELDS:
                if row.effect == effect and task.get(row.name):
                    for detail in row.problems(task[row.name], case.options):
                        yield place.path, f"kubernetes.{row.name}{f' ({detail})' if detail else ''}: {row.note}"

    return find


def _dropped_optionals(case: Case) -> Iterator[Problem]:
    kinds = ("secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume")
    for place in places(case.pipeline):
        task = kubernetes_fields.settings(place.task.component)
        for kind in kinds:
            if any(entry.get("optional") for entry in task.get(kind, ())):
                yield place.path, f"kubernetes.{kind}: what is optional is left out"


def _imports(case: Case) -> Iterator[tuple[Unit, str]]:
    for path, unit in case.plan.units.items():
        if unit.is_import:
            try:
                yield unit, case.plan.uri(path)
            except Unknown:
                continue


def _is_reachable(uri: str) -> bool:
    """Return whether Azure can take data from a URI, or whoever submits the job can upload them."""
    return is_mounted(uri) or "://" not in uri.removeprefix("file://")


def _unmapped(case: Case) -> Iterator[Problem]:
    for unit, uri in _imports(case):
        if not _is_reachable(mapped(uri, case.options)):
            yield unit.declared, f"imports {uri.partition('?')[0]}, which Azure ML cannot mount"


def _local_imports(case: Case) -> Iterator[Problem]:
    for unit, uri in _imports(case):
        there = mapped(uri, case.options)
        if not is_mounted(there) and "://" not in there.removeprefix("file://"):
            yield unit.declared, f"imports {uri}, a path of the machine that submits the job, which uploads it"


def _runtime_imports(case: Case) -> Iterator[Problem]:
    for path, unit in case.plan.units.items():
        if unit.is_import:
            try:
                case.plan.uri(path)
            except Unknown:
                yield unit.declared, "imports from a URI that is not known before a run"


def _to_workspace(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        body = place.task.component.body
        if isinstance(body, graph.Importer) and body.download_to_workspace:
            yield place.path, "imports into the workspace, a folder that steps do not share"


def _commands(case: Case) -> Iterator[Problem]:
    for unit, body in _steps(case):
        if body.image in commands.VOLUME_IMAGES:
            continue
        if not body.command and options_of.matching(case.options.entrypoints, body.image) is None:
            yield unit.declared, f"has no command, and what the image {body.image} would run is not known here"


def _launched(case: Case, launcher: Launcher) -> Iterator[tuple[str, str]]:
    """Yield tasks whose command something runs, with their image."""
    for unit, body in _steps(case):
        if body.image in commands.VOLUME_IMAGES:
            continue
        with contextlib.suppress(Unknown):
            image = case.plan.text(unit.path, body.image)
            if images.launcher(body, image, case.options) is launcher:
                yield unit.declared, image


def _no_shell(case: Case) -> Iterator[Problem]:
    for path, image in _launched(case, Launcher.NONE):
        yield path, f"the image {image} has neither Python nor sh, with which a step could run its command"


def _no_python(case: Case) -> Iterator[Problem]:
    for path, image in _launched(case, Launcher.SH):
        yield path, f"sh runs its command between two steps more, for the image {image} has no Python"


def _maybe_no_python(case: Case) -> Iterator[Problem]:
    for path, image in _launched(case, Launcher.PERHAPS):
        yield path, f"the image {image} may have no Python, with which the step runs its command"


def _images(case: Case) -> Iterator[Problem]:
    for unit, body in _steps(case):
        try:
            case.plan.text(unit.path, body.image)
        except Unknown:
            yield unit.declared, f"its image {body.image} is not known before a run"


def _accelerators(case: Case) -> Iterator[Problem]:
    for unit, asked in _asked(case):
        if asked.accelerator and machines.chosen(case.plan, unit, asked) is None:
            yield unit.declared, f"asks for {asked.count} {asked.accelerator}, which no machine of the options has"


def _asked(case: Case) -> Iterator[tuple[Unit, machines.Wanted]]:
    for unit, _ in _steps(case):
        try:
            yield unit, machines.wanted(case.plan, unit)
        except (Unknown, ValueError):
            continue


def _unknown_resources(case: Case) -> Iterator[Problem]:
    for unit, _ in _steps(case):
        try:
            machines.wanted(case.plan, unit)
        except Unknown:
            yield unit.declared, "its resources are not known before a run"
        except ValueError as error:
            yield unit.declared, f"its resources: {error}"


def _unbounded(case: Case) -> Iterator[Problem]:
    for path in case.plan.unbounded:
        yield path, "its loop's items are not known before a run"


def _too_many(case: Case) -> Iterator[Problem]:
    if case.plan.truncated or len(case.plan.steps) > MOST_STEPS:
        yield "", f"its loops unroll into more than {MOST_STEPS:,} steps"
        return
    for path, read in case.plan.steps.items():
        sources = len({source for found in case.plan.artifacts(path).values() for source in found})
        if case.plan.inputs(read, sources) > MOST_INPUTS:
            yield case.plan.units[path].declared, f"takes {sources} artifacts, and a step has {MOST_INPUTS} inputs"
    last, given = case.plan.read_at_the_end()
    if case.plan.inputs(sorted(last), len(given)) > MOST_INPUTS:
        yield "", f"its outputs are chosen from {len(given)} artifacts, and a step has {MOST_INPUTS} inputs"
    for unit, _ in _steps(case):
        ports = unit.component.outputs.artifacts
        copies = len(list(_copies(case, unit)))
        if (count := len(ports) + copies) >= MOST_OUTPUTS:
            also = f", with {copies} copies that the options ask for" if copies else ""
            yield unit.declared, f"has {count} artifacts{also}, more than {MOST_OUTPUTS - 1}"
    if (count := len(case.pipeline.outputs.artifacts)) >= MOST_OUTPUTS:
        yield "", f"has {count} artifacts, more than {MOST_OUTPUTS - 1}"


def _copies(case: Case, unit: Unit) -> Iterator[tuple[str, Output]]:
    for port in unit.component.outputs.artifacts:
        rule = output_rule(case, unit, port)
        if rule and rule.copied:
            yield port, rule


def _registered_twice(case: Case) -> Iterator[Problem]:
    first: dict[tuple[str, str], str] = {}
    for unit, _ in _steps(case):
        for port, rule in _copies(case, unit):
            where = f"{unit.path}.{port}"
            other = first.setdefault((rule.name, rule.version), where)
            if rule.version and other != where:
                yield unit.declared, f"{port} would be version {rule.version} of {rule.name}, and {other} as well"


def _many_tags(case: Case) -> Iterator[Problem]:
    for unit, _ in _steps(case):
        if len(kubernetes_fields.tags(kubernetes_fields.settings(unit.component))) > MOST_TAGS - 1:
            yield unit.declared, f"has more than {MOST_TAGS - 1} labels and annotations"


def _old_inputs(case: Case) -> Iterator[Problem]:
    for name, port in case.pipeline.inputs.artifacts.items():
        value = case.values.get(name)
        if value is None and not port.optional:
            yield "", f"the artifact {name} has no value"
        elif port.is_list:
            yield "", f"the artifact {name} is a list"
        elif isinstance(value, str) and not _is_reachable(mapped(value, case.options)):
            yield "", f"the artifact {name} is {value.partition('?')[0]}, which Azure ML cannot mount"


def _bad_kinds(case: Case) -> Iterator[Problem]:
    kinds = (graph.Type.FINAL_STATUS, graph.Type.TASK_CONFIG, graph.Type.UNSPECIFIED)
    for name, parameter in case.pipeline.inputs.parameters.items():
        if parameter.type in kinds:
            yield "", f"its parameter {name} is a {parameter.type.value}, which only a pipeline around it gives"


# What is warned of


def _unused(case: Case) -> Iterator[Problem]:
    """Find patterns of the options that fit nothing, of which * is none."""
    if case.lenient:
        return
    images_of = [body.image for _, body in _steps(case)]
    with contextlib.suppress(Unknown):
        images_of = [case.plan.text(unit.path, body.image) for unit, body in _steps(case)]
    tasks = [unit.declared for unit, _ in _steps(case)]
    units = [unit for unit in case.plan.units.values() if unit.task]
    told, given = case.options, case.options.outputs
    artifacts = [f"{unit.declared}.{port}" for unit, _ in _steps(case) for port in unit.component.outputs.artifacts]
    for option, patterns, names in (
        ("machines.tasks", [machine.tasks for machine in told.machines], tasks),
        ("outputs", given, artifacts),
        ("uri_types", told.uri_types, [unit.declared for unit in units if unit.is_import]),
        ("max_iterations", told.max_iterations, [unit.declared for unit in units if unit.is_loop]),
        ("entrypoints", told.entrypoints, images_of),
        ("workdirs", told.workdirs, images_of),
        ("has_python", told.has_python, images_of),
        ("launchers", told.launchers, images_of),
    ):
        known = sorted(set(names))
        for pattern in patterns:
            if pattern != "*" and not any(fnmatch.fnmatchcase(name, pattern) for name in known):
                shown = ", ".join(known[:5]) + (", …" if len(known) > 5 else "") if known else "nothing"
                yield "", f"{option} of the options: {pattern} fits nothing (there is {shown})"


def _without_value(case: Case) -> Iterator[Problem]:
    for name, parameter in case.pipeline.inputs.parameters.items():
        if parameter.required and name not in case.values:
            yield "", f"the parameter {name} has no value; a job without one is not accepted"


def _without_artifact(case: Case) -> Iterator[Problem]:
    for name, port in case.pipeline.inputs.artifacts.items():
        if port.optional and name not in case.values:
            yield "", f"the optional artifact {name} is not given, and the job will not take it"


def _unmatched(case: Case) -> Iterator[Problem]:
    for unit, asked in _asked(case):
        if (asked.cpu or asked.memory) and machines.chosen(case.plan, unit, asked) is None and not asked.accelerator:
            yield unit.declared, "asks for CPUs or memory, which the default compute may not have"


def _expensive(case: Case) -> Iterator[Problem]:
    for unit, asked in _asked(case):
        if asked.accelerator and _is_conditional(case, unit):
            yield unit.declared, f"may be skipped, and takes a machine with {asked.accelerator} all the same to say so"


def _is_conditional(case: Case, unit: Unit) -> bool:
    around = [case.plan.units[path] for path in case.plan.chain(unit.path)]
    return any(each.task and each.task.trigger.condition for each in around)


def _retries(case: Case) -> Iterator[Problem]:
    for path, task, _ in _containers(case):
        if task.retry and task.retry.count > 0:
            yield path, "is tried again on the same machine; what Azure ends, such as a low-priority node, is not"


def _cache_keys(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        if place.task.caching.key:
            yield place.path, f"the cache key {place.task.caching.key!r} means nothing to Azure ML"


def _captured(case: Case) -> Iterator[Problem]:
    if case.plan.captured:
        names = sorted({case.plan.units[path].declared for path in case.plan.captured})
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        yield "", f"{shown}: a failure shows as Completed, and a last step fails the run; a cancelled step stops others"


def _fixed_loops(case: Case) -> Iterator[Problem]:
    for unit in case.plan.units.values():
        if unit.items is not None and unit.task and unit.task.loop and isinstance(unit.task.loop.items, str):
            yield unit.declared, f"its loop has at most {unit.bound} iterations, as many as its items are now"


def _properties(case: Case) -> Iterator[Problem]:
    """Find what older schemas call the metadata of artifacts."""
    names = ("properties", "customProperties", "custom_properties")
    for name, component in _mapping(case.documents.spec, "components").items():
        outputs = _mapping(component, "outputDefinitions", "output_definitions")
        for port, artifact in _mapping(outputs, "artifacts").items():
            if used := [each for each in names if _mapping(artifact, each)]:
                yield "", f"component {name}, output {port}: {', '.join(used)} of an older schema"
    deployment = _mapping(case.documents.spec, "deploymentSpec", "deployment_spec")
    for name, executor in _mapping(deployment, "executors").items():
        if used := [each for each in names if _mapping(_mapping(executor, "importer"), each)]:
            yield "", f"executor {name}: {', '.join(used)} of an older schema"


def _mapping(document: Any, *names: str) -> Mapping[str, Any]:
    """Return the first mapping that a document has under one of these names, or an empty one."""
    found = (document.get(name) for name in names) if isinstance(document, Mapping) else iter(())
    return next((each for each in found if isinstance(each, Mapping)), {})


def _platform_config(case: Case) -> Iterator[Problem]:
    if case.pipeline.platforms.get(kubernetes_document.PLATFORM, {}).get("config"):
        yield "", "kubernetes.config means nothing to Azure ML"


def _root(case: Case) -> Iterator[Problem]:
    if (root := _written_root(case)) and not pipeline_root(case):
        yield "", f"the pipeline root {root} means nothing to Azure ML; outputs go to the datastore"


def _written_root(case: Case) -> str:
    return str(case.documents.runtime.get("gcsOutputDirectory") or case.pipeline.default_root)


def _runtime(case: Case) -> Iterator[Problem]:
    known = ("parameters", "parameterValues", "gcsOutputDirectory")
    for name in sorted(name for name, value in case.documents.runtime.items() if value and name not in known):
        yield "", f"the PipelineJob's {name} means nothing to Azure ML"


def _lists(case: Case) -> Iterator[Problem]:
    for path, task, _ in _containers(case):
        for name, port in task.component.outputs.artifacts.items():
            if port.is_list:
                yield path, f"output {name} is a list of artifacts, of which the first is kept"


def _google_types(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        body = place.task.component.body
        if isinstance(body, graph.Importer) and body.type.title.startswith("google."):
            yield place.path, f"imports a {body.type.title}, of which only the files come along"


def _parameter_outputs(case: Case) -> Iterator[Problem]:
    if names := sorted(case.pipeline.outputs.parameters):
        yield (
            "",
            f"the outputs {', '.join(names)} are in outputs.json of a last step: a job has no parameters as outputs",
        )


def _clock(case: Case) -> Iterator[Problem]:
    for place in places(case.pipeline):
        used = {steps[0] for steps in placeholders.of(place.task) if steps and len(steps) == 1}
        for name in sorted(used & {*_TIMES}):
            yield place.path, f"{name} is the time when the step starts"


def _uris(case: Case) -> Iterator[Problem]:
    for path, _, body in _containers(case):
        if any(
            len(steps) > 3 and steps[1] == "artifacts" and steps[3] == "uri"
            for text in commands.without_source(body)
            for steps in launcher.placeholders(text)
        ):
            yield path, "reads the URI of an artifact, which is a path of the step's machine"


def _pauses(case: Case) -> Iterator[Problem]:
    for path, _, body in _containers(case):
        if names := sorted(name for name in body.env if name.startswith("ARGO_DEBUG_PAUSE")):
            yield path, f"{', '.join(names)} pauses nothing on Azure ML"


def _local_images(case: Case) -> Iterator[Problem]:
    for path, _, body in _containers(case):
        host, slash, _ = body.image.partition("/")
        here = slash and (host.partition(":")[0] in ("localhost", "127.0.0.1") or host.endswith(".local"))
        if here or body.image.startswith("penstock/"):
            yield path, f"Azure ML cannot pull the image {body.image}"


_R, _W, _O, _L, _S = Effect.REFUSED, Effect.WARNED, Effect.OPTION, Effect.LOWERED, Effect.SUPPORTED

FEATURES = (
    Feature(_S, "images, commands, arguments", "one command component a task; the image stays as it is"),
    Feature(_S, "artifacts", "a `uri_folder` each, with name, type and metadata in a file beside the artifact"),
    Feature(
        _S, "models and data assets",
        "`outputs` of the options copies artifacts to typed outputs of the job, and registers them",
    ),
    Feature(_S, "parameters", "inputs of the job; lists and objects as JSON, `json:` before what Azure would change"),
    Feature(_S, "caching options", "`is_deterministic`; the same pipeline gives the same code, byte for byte"),
    Feature(_L, "defaults, optional inputs, literals", "the step fills them in and checks them"),
    Feature(_L, "placeholders, Concat, IfPresent", "the step replaces them; no text of a pipeline passes a shell"),
    Feature(_L, "If, Elif, Else, OneOf", "each step evaluates its conditions and skips itself; it says so in its log"),
    Feature(_L, "ParallelFor", "unrolled; a step beyond the items of a run skips itself, and more items fail the run"),
    Feature(_L, "parallelism", "an iteration waits for the one so many before it"),
    Feature(_L, "Collected", "one input for each iteration; steps between gather what is more than a step can take"),
    Feature(_L, "pipelines of importers alone", "one step writes what they give"),
    Feature(_L, "nested pipelines", "dissolved into one job, their names in those of the steps"),
    Feature(_L, "environment variables", "the step sets them"),
    Feature(_L, "containerized Python components", "the command runs in the folder that KFP builds them in"),
    Feature(_L, "conditions on importers", "the data are there, and not given to who must not have them"),
    Feature(
        _W, "ExitHandler, ignore_upstream_failure", "with the final status; a last step fails the run",
        "captured-failure", "read the log of the step penstock_verdict", _captured,
    ),
    Feature(
        _W, "retries", "with back-off, on the same machine", "retry-in-place",
        "retry the run where machines may be taken away", _retries,
    ),
    Feature(
        _W, "CPU and memory", "Azure ML does not reserve them; machines of the options are chosen by them",
        "unmatched-machine", "give a machine that has them in the options", _unmatched,
    ),
    Feature(
        _W, "a pipeline's outputs that are parameters, or chosen by OneOf", "files of a last step",
        "parameter-output", "read the output penstock_outputs", _parameter_outputs,
    ),
    Feature(
        _W, "items of a loop that a pipeline's parameter holds", "their number is fixed by the conversion",
        "fixed-loop", "convert again for more items, or give max_iterations in the options", _fixed_loops,
    ),
    Feature(
        _W, "conditional tasks with accelerators", "a machine is taken all the same", "conditional-accelerator",
        "put it on a cluster that scales down to no node", _expensive,
    ),
    Feature(
        _W, "pipeline root", "outputs go to the datastore, or where `uri_map` says", "pipeline-root",
        "take it out, or give uri_map in the options", _root,
    ),
    Feature(
        _W, "patterns of the options that fit nothing", "no meaning", "unused-option", "mend or remove them", _unused,
    ),
    Feature(
        _W, "what a PipelineJob says beside values and the root", "no meaning", "runtime-config", "take it out",
        _runtime,
    ),
    Feature(
        _W, "lists of artifacts that a task gives", "the first is kept, as on Kubeflow", "list-output",
        "give one artifact, a folder", _lists,
    ),
    Feature(
        _W, "importers of Google Cloud's types", "the files come along, and the type by its name", "google-type",
        "import it as one of KFP's own types", _google_types,
    ),
    Feature(_W, "cache keys", "no meaning", "cache-key", "take it out", _cache_keys),
    Feature(
        _W, "time placeholders", "the time when the step starts", "start-time",
        "give the time as a parameter", _clock,
    ),
    Feature(
        _W, "URIs of artifacts in commands", "paths of the step's machine", "local-uri",
        "a command that gives them to another service will not work", _uris,
    ),
    Feature(
        _W, "properties of artifacts in older schemas", "not given to tasks", "old-properties",
        "write them as metadata", _properties,
    ),
    Feature(
        _W, "other settings of Kubernetes's pipeline document", "no meaning", "kubernetes-config", "take them out",
        _platform_config,
    ),
    Feature(
        _W, "images of which it is not known whether they have Python", "a step without it fails at once, and says so",
        "maybe-no-python", "look, and name it in has_python or launchers of the options", _maybe_no_python,
    ),
    Feature(
        _W, "images without Python", "sh runs the command; steps of their own, with Python, decide and collect",
        "no-python", "name it in has_python of the options if it has Python", _no_python,
    ),
    Feature(_W, "debug pauses", "no meaning", "debug-pause", "take it out", _pauses),
    Feature(
        _W, "images that only this machine has", "only azureml-local can run them", "local-image",
        "push them, and compile with --registry", _local_images,
    ),
    Feature(
        _W, "importers of local paths", "uploaded by whoever submits the job", "local-import",
        "import from a datastore", _local_imports,
    ),
    Feature(
        _W, "parameters without a value", "left open", "no-value",
        "give it with -p, or in job.yml before you submit", _without_value,
    ),
    Feature(
        _W, "optional artifacts of the pipeline", "given when converting or never", "no-artifact",
        "give its URI with -p", _without_artifact,
    ),
    Feature(
        _W, "Kubernetes's platform document, in part", "see the table below", "kubernetes-lost",
        "see docs/azureml.md", _fields(kubernetes_fields.WARNED),
    ),
    Feature(
        _W, "optional Secrets and ConfigMaps", "left out", "optional-left-out", "", _dropped_optionals,
    ),
    Feature(
        _O, "ParallelFor over what a task gives", "unrolled as often as `max_iterations` says", "unbounded-loop",
        "give max_iterations in the options, or the pipeline's parameter with -p", _unbounded,
    ),
    Feature(
        _O, "accelerators", "a machine of the options that has them; never a machine without", "unmapped-accelerator",
        "give one in machines of the options", _accelerators,
    ),
    Feature(
        _O, "importers of gs, s3 and other URIs", "`uri_map` says where Azure has the data", "unmapped-uri",
        "give uri_map in the options", _unmapped,
    ),
    Feature(
        _O, "containers without a command", "`entrypoints` says what the image would run", "no-command",
        "give it in entrypoints of the options", _commands,
    ),
    Feature(
        _O, "images without Python and sh", "`has_python` and `launchers` name images that have one of them",
        "no-shell", "put one into the image, and name it in has_python or launchers of the options", _no_shell,
    ),
    Feature(
        _O, "ConfigMaps as environment", "`config_maps` has keys and values", "unmapped-config-map",
        "give config_maps in the options", _fields(kubernetes_fields.OPTION),
    ),
    Feature(
        _R, "a URI that only a run knows", "data are inputs of the job", "runtime-uri",
        "import from a parameter of the pipeline, given with -p", _runtime_imports,
    ),
    Feature(
        _R, "an image that only a run knows", "environments are fixed when a job is sent", "runtime-image",
        "give the pipeline's parameter with -p", _images,
    ),
    Feature(
        _R, "resources that only a run knows", "machines are fixed when a job is sent", "runtime-resources",
        "give the pipeline's parameter with -p", _unknown_resources,
    ),
    Feature(
        _R, "artifacts that the pipeline takes, without a URI", "data are inputs of the job", "artifact-input",
        "give its URI, one that Azure ML can mount, with -p", _old_inputs,
    ),
    Feature(
        _R, "components compiled alone that only make sense inside a pipeline", "nothing gives them their input",
        "inner-component", "compile the pipeline around it", _bad_kinds,
    ),
    Feature(
        _R, "Kubernetes's platform document, in part", "see the table below", "kubernetes-refused",
        "compile without it", _fields(kubernetes_fields.REFUSED),
    ),
    Feature(
        _R, "unknown fields of Kubernetes's platform document", "what they mean is not known", "kubernetes-unknown",
        "compile without it", _documents,
    ),
    Feature(
        _R, "Kubernetes volumes made by tasks", "steps share no volume", "volume-task",
        "pass the data as artifacts", _volumes,
    ),
    Feature(
        _R, "workspace importers", "steps share no folder", "workspace-import", "use the artifact", _to_workspace,
    ),
    Feature(
        _R, "pipelines that run and import nothing", "a job without steps is none", "no-steps", "add a task", _no_steps,
    ),
    Feature(
        _R, "nested pipelines without tasks", "there is no step to carry them out", "empty-part", "take it out", _empty,
    ),
    Feature(
        _R, "task configuration", "it is a piece of Kubernetes's pod", "task-config",
        "take the input out", _task_config,
    ),
    Feature(
        _R, "operators and artifacts of Google Cloud", "they drive Vertex AI", "google-cloud",
        "put a component that runs anywhere in its place", _operators,
    ),
    Feature(
        _R, "other platforms", "only settings for Kubernetes are known", "other-platform",
        "compile without them", _platforms,
    ),
    Feature(_R, "resolvers, custom jobs, cache checks", "no compiler writes them", "executor", "use a container",
            _executors),
    Feature(
        _R, "placeholders of the pipeline root, the workspace or Google Cloud", "nothing gives them a value",
        "no-placeholder", "give the value as a parameter", _placeholders,
    ),
    Feature(_R, "conditions that do not parse", "no platform could run them", "condition", "compile it again",
            _conditions),
    Feature(_R, "expressions", 'only parseJson(string_value)["key"] is known', "expression", "compile it again",
            _selectors),
    Feature(
        _R, "more than Azure ML takes", f"{MOST_INPUTS} inputs and {MOST_OUTPUTS} outputs a step, {MOST_STEPS:,} steps",
        "too-many", "split the pipeline, or loop over less", _too_many,
    ),
    Feature(
        _R, "two artifacts registered as one", "a version is there once", "registered-twice",
        "leave the version out of outputs of the options", _registered_twice,
    ),
    Feature(_R, "more tags than Azure ML takes", f"{MOST_TAGS} a step", "too-many-tags", "take some out", _many_tags),
)  # fmt: skip

CODES = Codes(
    *(
        (
            feature.code,
            Severity.WARNING if feature.effect is Effect.WARNED else Severity.ERROR,
            f"{feature.name}: {feature.note}",
        )
        for feature in FEATURES
        if feature.code
    )
)
