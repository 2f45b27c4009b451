"""What a platform document for Kubernetes comes to on this machine: before a run, and when a task starts.

Names of Secrets, ConfigMaps and volumes may be outputs of other tasks, so what a task is given is only known then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import posixpath
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile import graph, kubernetes_document, launcher
from penstock.compile.kubernetes_document import PLATFORM, fit
from penstock.compile.launcher import TaskError
from penstock.compile.targets.local import mounts, volumes
from penstock.compile.targets.local.kubernetes_fields import (
    FIELDS,
    MEMORY,
    PIPELINE_FIELDS,
    REFUSED,
)
from penstock.compile.targets.local.objects import CONFIG_MAP, SECRET, Objects
from penstock.compile.targets.local.setting import Mount, Setting

Value = Callable[[graph.Source], Any]

_PRIVATE = f"penstock-{os.getuid()}-"
_ABANDONED = 60.0  # seconds after which a folder that nobody holds the lock of was left by a killed engine
_POLICIES = ("Always", "IfNotPresent", "Never")
_FIELD_PATH = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


@dataclass(frozen=True)
class Places:
    """Where things are on this machine.

    Attributes:
        volumes: Folder of all volumes.
        scratch: Folder of the task's own, made where it is needed and removed when the task ends.
    """

    volumes: Path
    scratch: Path


@dataclass(frozen=True)
class _Use:
    """A Secret or ConfigMap that a task has in its environment, or as files at a path.

    Attributes:
        env: Variables with the keys that they hold.
    """

    field: str
    kind: str
    name: graph.Input | None
    optional: bool
    env: tuple[tuple[str, str], ...] = ()
    path: str = ""


@dataclass(frozen=True)
class _Claim:
    """A volume that a task mounts."""

    name: graph.Input | None
    path: str
    sub_path: str


@dataclass(frozen=True)
class _Empty:
    """A folder of a task's own."""

    field: str
    path: str
    memory: bool


@dataclass(frozen=True)
class _Document:
    """What a task's document asks for, where this machine can do something about it."""

    uses: tuple[_Use, ...]
    claims: tuple[_Claim, ...]
    empties: tuple[_Empty, ...]
    fields: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Mapping[str, str]]
    timeout: int
    shared_memory: Mapping[str, str] | None
    user: int | None
    group: int | None
    pull_policy: str

    def inputs(self) -> Iterator[tuple[str, graph.Input | None]]:
        """Yield where names come from, with the field that they are in."""
        for use in self.uses:
            yield use.field, use.name
        for claim in self.claims:
            yield "pvcMount", claim.name

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield the paths that something is mounted at, with the field that says so."""
        for use in self.uses:
            if not use.field.endswith("AsEnv"):
                yield use.field, use.path
        for claim in self.claims:
            yield "pvcMount", claim.path
        for empty in self.empties:
            yield empty.field, empty.path


# Before a run


def check(
    pipeline: graph.Pipeline, objects: Objects, volumes_folder: Path, contained: Collection[str] | None = None
) -> list[str]:
    """Return what keeps a pipeline's documents from being honoured, each with the task and what to do.

    Args:
        pipeline: The pipeline.
        objects: Secrets and ConfigMaps that there are.
        volumes_folder: Folder of all volumes.
        contained: Paths, as `Pipeline.walk` has them, of tasks that run in containers; None: it is not known.
    """
    problems: list[str] = []
    fit(pipeline.platforms.get(PLATFORM, {}), kubernetes_document.PIPELINE, "kubernetes", problems)
    made = set(volumes.created(pipeline))
    for path, task, scope in _scoped(pipeline.root, ""):
        raw = task.component.platforms.get(PLATFORM)
        if raw is not None:
            found = list(_problems(raw, pipeline, scope, objects, None if None in made else made, volumes_folder))
            if not found and contained is not None and path not in contained:
                found = list(_blocked(raw, volumes_folder))
            problems += [f"task {path}: {problem}" for problem in found]
    return problems


def warnings(pipeline: graph.Pipeline, contained: Collection[str] = ()) -> list[str]:
    """Return what this machine does not do of a pipeline's documents, a line for each field and reason.

    Args:
        pipeline: One without problems (see `check`).
        contained: Paths, as `Pipeline.walk` has them, of tasks that run in containers.
    """
    tasks: dict[tuple[str, str], list[str]] = {}
    for path, task in pipeline.walk():
        for field in FIELDS:
            value = task.component.platforms.get(PLATFORM, {}).get(field.name)
            if value and (warning := field.warning(value, path in contained)):
                tasks.setdefault((field.name, warning), []).append(path)
    lines = [
        f"task{'s' if len(paths) > 1 else ''} {_some(paths)}: {name}: {warning}"
        for (name, warning), paths in tasks.items()
    ]
    settings = pipeline.platforms.get(PLATFORM, {})
    for field in PIPELINE_FIELDS:
        value = settings.get("pipelineConfig", {}).get(field.name)
        if value and (warning := field.warning(value, False)):
            lines.append(f"the pipeline: {field.name}: {warning}")
    if settings.get("config"):
        lines.append("the pipeline: config: nothing here reads it")
    return lines


def deadline(pipeline: graph.Pipeline) -> float | None:
    """Return the seconds after which a pipeline's run is to be ended; None: it may take any time."""
    config = pipeline.platforms.get(PLATFORM, {}).get("pipelineConfig", {})
    return float(config.get("activeDeadlineSeconds", 0)) or None


def references(task: graph.Task) -> list[graph.Input]:
    """Return what a task's document reads of its scope: inputs of the enclosing component and outputs of other tasks.

    The tasks are among those that it depends on: the reader of pipelines has seen to that.
    """
    raw = task.component.platforms.get(PLATFORM)
    document = _document(fit(raw, kubernetes_document.TASK, "kubernetes", [])) if raw else None
    return [given for _, given in document.inputs() if given] if document else []


def _scoped(component: graph.Component, prefix: str) -> Iterator[tuple[str, graph.Task, graph.Component]]:
    """Yield every task with its path and the component around it."""
    assert isinstance(component.body, graph.Dag)
    for name, task in component.body.tasks.items():
        yield prefix + name, task, component
        if isinstance(task.component.body, graph.Dag):
            yield from _scoped(task.component, f"{prefix}{name}.")


def _some(names: list[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _problems(
    raw: Mapping[str, Any],
    pipeline: graph.Pipeline,
    scope: graph.Component,
    objects: Objects,
    made: set[str | None] | None,
    volumes_folder: Path,
) -> Iterator[str]:
    unfit: list[str] = []
    fitted = fit(raw, kubernetes_document.TASK, "kubernetes", unfit)
    yield from unfit
    if unfit:
        return
    for field in FIELDS:
        if field.effect == REFUSED and field.name in fitted:
            yield f"{field.name}: {field.note}"
    document = _document(fitted)
    if document.pull_policy and document.pull_policy not in _POLICIES:
        yield f"imagePullPolicy: {document.pull_policy!r} is none of {', '.join(_POLICIES)}"
    for variable, path in document.fields:
        if _field_value(path, document.metadata, {}) is None:
            yield f"fieldPathAsEnv: {variable}: pods have no {path!r} for variables"
    for field_name, variable in [
        *((use.field, variable) for use in document.uses for variable, _ in use.env),
        *(("fieldPathAsEnv", variable) for variable, _ in document.fields),
    ]:
        if not variable or "=" in variable or "\0" in variable:
            yield f"{field_name}: {variable!r} cannot be the name of an environment variable"
    seen: set[str] = set()
    for field_name, path in document.paths():
        if not path.startswith("/") or path == "/" or ":" in path or ".." in path.split("/"):
            yield f"{field_name}: {path!r} is no path to mount at; it has to be absolute, without '..' and ':'"
        elif path in seen:
            yield f"{field_name}: something else is mounted at {path} as well"
        seen.add(path)
    for field_name, given in document.inputs():
        if problem := _unreachable(given, pipeline, scope):
            yield f"{field_name}: {problem}"
    for use in document.uses:
        if name := _constant(use.name):
            yield from (f"{use.field}: {problem}" for problem in _missing(use, name, objects))
    for claim in document.claims:
        if (name := _constant(claim.name)) and made is not None and name not in made:
            try:
                volumes.find(volumes_folder, name)
            except ValueError as error:
                yield f"pvcMount: {error}"


def _blocked(raw: Mapping[str, Any], volumes_folder: Path) -> Iterator[str]:
    """Yield why a process cannot have its mounts."""
    document = _document(fit(raw, kubernetes_document.TASK, "kubernetes", []))
    there = {
        claim.path
        for claim in document.claims
        if (name := _constant(claim.name)) and _same(volumes_folder / name / claim.sub_path, Path(claim.path))
    }
    for field_name, path in document.paths():
        if path not in there and (problem := mounts.obstacle(path)):
            yield f"{field_name}: {problem}"


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _unreachable(given: graph.Input | None, pipeline: graph.Pipeline, scope: graph.Component) -> str:
    if given is None:
        return "an entry has no name"
    if given.selector:
        try:
            launcher.selector_path(given.selector)
        except ValueError as error:
            return str(error)
    match given.source:
        case graph.ScopeInput(name):
            known = name in scope.inputs.parameters
        case graph.RuntimeParameter(name):
            known = name in pipeline.inputs.parameters
        case graph.TaskOutput(task, name):
            assert isinstance(scope.body, graph.Dag)
            known = task in scope.body.tasks and name in scope.body.tasks[task].component.outputs.parameters
            name = f"{task}.{name}"
        case graph.Constant(value):
            return "" if isinstance(value, str) and value else "a name is not text"
        case _:
            return "the end of a task is not a name"
    return "" if known else f"its name comes from {name}, which is not around it"


def _constant(given: graph.Input | None) -> str:
    """Return a name that is known before the run; "" for others."""
    if given and isinstance(given.source, graph.Constant) and isinstance(given.source.value, str):
        return "" if given.selector or "{{$" in given.source.value else given.source.value
    return ""


# What a document says


def _document(fitted: Mapping[str, Any]) -> _Document:
    uses = []
    for field, kind, name, key in (
        ("secretAsEnv", SECRET, "secretName", "secretKey"),
        ("secretAsVolume", SECRET, "secretName", ""),
        ("configMapAsEnv", CONFIG_MAP, "configMapName", "configMapKey"),
        ("configMapAsVolume", CONFIG_MAP, "configMapName", ""),
    ):
        for entry in fitted.get(field, ()):
            pairs = [(one.get("envVar", ""), one.get(key, "")) for one in entry.get("keyToEnv", ())]
            given = _input(entry.get(f"{name}Parameter"), entry.get(name))
            path = _path(entry)
            uses.append(_Use(field, kind, given, entry.get("optional", False), tuple(pairs), path))
    claims = []
    for entry in fitted.get("pvcMount", ()):
        old = {name: entry[name] for name in ("taskOutputParameter", "componentInputParameter") if name in entry}
        given = _input(entry.get("pvcNameParameter") or old, entry.get("constant"))
        claims.append(_Claim(given, _path(entry), entry.get("subPath", "")))
    empties = [_Empty("genericEphemeralVolume", _path(one), False) for one in fitted.get("genericEphemeralVolume", ())]
    for entry in fitted.get("emptyDirMounts", ()):
        empties.append(_Empty("emptyDirMounts", _path(entry), entry.get("medium") == "Memory"))
    security = fitted.get("securityContext", {})
    return _Document(
        tuple(uses),
        tuple(claims),
        tuple(empties),
        tuple((one.get("name", ""), one.get("fieldPath", "")) for one in fitted.get("fieldPathAsEnv", ())),
        fitted.get("podMetadata", {}),
        fitted.get("activeDeadlineSeconds", 0),
        fitted.get("enabledSharedMemory"),
        security.get("runAsUser"),
        security.get("runAsGroup"),
        fitted.get("imagePullPolicy", ""),
    )


def _path(entry: Mapping[str, Any]) -> str:
    path: str = entry.get("mountPath", "")
    return posixpath.normpath(path) if path and ".." not in path.split("/") else path


def _input(spec: Mapping[str, Any] | None, constant: str | None) -> graph.Input | None:
    """Return where a name comes from: an InputParameterSpec, or the constant of the older field beside it."""
    source: graph.Source | None = None
    spec = spec or {}
    if "taskOutputParameter" in spec:
        output = spec["taskOutputParameter"]
        source = graph.TaskOutput(output.get("producerTask", ""), output.get("outputParameterKey", ""))
    elif "componentInputParameter" in spec:
        source = graph.ScopeInput(spec["componentInputParameter"])
    elif "taskFinalStatus" in spec:
        source = graph.FinalStatus(spec["taskFinalStatus"].get("producerTask", ""))
    elif runtime := spec.get("runtimeValue"):
        if "runtimeParameter" in runtime:
            source = graph.RuntimeParameter(runtime["runtimeParameter"])
        else:
            older = runtime.get("constantValue", {}).values()
            source = graph.Constant(runtime.get("constant", next(iter(older), None)))
    elif constant:
        source = graph.Constant(constant)
    return graph.Input(source, spec.get("parameterExpressionSelector", "")) if source else None


def _missing(use: _Use, name: str, objects: Objects) -> Iterator[str]:
    """Yield what a task needs of a Secret or ConfigMap and is not there, or cannot be used."""
    content = objects.of(use.kind).get(name)
    if content is None:
        if not use.optional:
            yield f"there is no {use.kind} {name}; give a file with its manifest as --kubernetes-objects FILE"
        return
    for variable, key in use.env:
        if key in content:
            if _text(content[key]) is None:
                yield f"{use.kind} {name}: the value of {key} is not text, which {variable} needs"
        elif not use.optional:
            known = ", ".join(sorted(content)) or "none"
            yield f"{use.kind} {name} has no key {key}; it has {known}; add it to the file of --kubernetes-objects"


def _text(value: bytes) -> str | None:
    """Return a value as an environment variable can hold it; None where it cannot."""
    try:
        return None if b"\0" in value else value.decode()
    except UnicodeDecodeError:
        return None


def _field_value(path: str, metadata: Mapping[str, Mapping[str, str]], names: Mapping[str, str]) -> str | None:
    """Return the value of a field of the pod that a task would have; None where pods have no such field."""
    job, uid = names.get("pipeline_job_name", ""), names.get("pipeline_task_uuid", "")
    if match := _FIELD_PATH.fullmatch(path):
        kind, key = match.groups()
        own = {"pipelines.kubeflow.org/v2_component": "true"}  # what Kubeflow gives every pod
        if kind == "labels":
            own |= {"pipeline/runid": names.get("pipeline_job_uuid", ""), "workflows.argoproj.io/workflow": job}
        return {**own, **metadata.get(kind, {})}.get(key, "")
    pod = re.sub(r"[^-.a-z0-9]+", "-", f"{job[:200]}-{uid[:8]}".lower()).strip("-.")
    return {
        "metadata.name": pod,
        "metadata.namespace": "default",
        "metadata.uid": uid,
        "spec.nodeName": platform.node(),
        "spec.serviceAccountName": "default",
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
        "status.podIP": "127.0.0.1",
        "status.podIPs": "127.0.0.1",
    }.get(path)


# When a task starts


@contextlib.contextmanager
def given(
    task: graph.Task, value: Value, objects: Objects, places: Places, names: Mapping[str, str]
) -> Iterator[Setting]:
    """Have what a task's document gives it, as long as the task runs, over all its attempts.

    Args:
        task: The task; one without a document is given nothing.
        value: Returns the value of a source in the task's scope, None where its producer gave nothing.
        objects: Secrets and ConfigMaps that there are.
        places: Where volumes are, and a folder for the task.
        names: Values of the system placeholders.

    Raises:
        TaskError: something is missing.
    """
    raw = task.component.platforms.get(PLATFORM)
    if not raw:
        yield Setting()
        return
    shutil.rmtree(places.scratch, ignore_errors=True)  # of an engine that was killed
    try:
        with contextlib.ExitStack() as stack:
            try:
                setting = _setting(raw, value, objects, places, names, stack)
            except (ValueError, TaskError) as error:
                raise TaskError(f"{task.name}: {error}") from None
            except OSError as error:
                raise TaskError(f"{task.name}: {error.filename}: {error.strerror}") from None
            yield setting
    finally:
        shutil.rmtree(places.scratch, ignore_errors=True)


def runner(setting: Setting, run: launcher.Runner = launcher.run_process, *, links: bool = True) -> launcher.Runner:
    """Return a runner that gives commands the environment, the folders and the time of a setting.

    Args:
        setting: What a task is given.
        run: Runs the commands.
        links: Whether mounts are made by links, as for processes; otherwise `run` has to mount them.
    """
    run = mounts.emptied(setting.mounts, run)
    if links:
        run = mounts.in_place(setting.mounts, run)

    def inner(
        command: Any, args: Any, env: Mapping[str, str], *rest: Any, timeout: float | None, **options: Any
    ) -> int:
        limits = [limit for limit in (timeout, setting.timeout) if limit]
        return run(command, args, {**env, **setting.env}, *rest, timeout=min(limits, default=None), **options)

    return inner if setting != Setting() else run


def _setting(
    raw: Mapping[str, Any],
    value: Value,
    objects: Objects,
    places: Places,
    names: Mapping[str, str],
    stack: contextlib.ExitStack,
) -> Setting:
    problems: list[str] = []
    fitted = fit(raw, kubernetes_document.TASK, "kubernetes", problems)
    if problems:
        raise ValueError(problems[0])
    document = _document(fitted)
    private: Path | None = None
    env: dict[str, str] = {}
    found: list[Mount] = []

    def folder(memory: bool) -> Path:
        """Return a new folder where no other user of this machine gets, but every user of a container."""
        nonlocal private
        if memory:
            private = private or stack.enter_context(_private_folder())
            parent = private
        else:
            parent = places.scratch
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = parent / str(len(found))
        new.mkdir()
        return new

    for use in document.uses:
        name = _resolved(use.kind, use.name, value, names)
        if name is None:  # an optional input of the pipeline that was not given: so does Kubeflow
            continue
        for problem in _missing(use, name, objects):
            raise ValueError(problem)
        content = objects.of(use.kind).get(name, {})
        env.update({variable: content[key].decode() for variable, key in use.env if key in content})
        if use.path:
            new = folder(memory=True)
            for key, data in content.items():
                (new / key).write_bytes(data)
                (new / key).chmod(0o644)
            new.chmod(0o755)
            found.append(Mount(use.path, new, read_only=True))
    for claim in document.claims:
        name = _resolved("volume", claim.name, value, names)
        if name is None:
            raise ValueError("the name of its volume has no value")
        found.append(Mount(claim.path, volumes.part(places.volumes, name, claim.sub_path)))
    for empty in document.empties:
        new = folder(memory=empty.memory)
        new.chmod(0o777)
        found.append(Mount(empty.path, new, fresh=True))
    env.update({variable: _field_value(path, document.metadata, names) or "" for variable, path in document.fields})
    return Setting(
        env,
        tuple(found),
        float(document.timeout) if document.timeout > 0 else None,
        _shared_memory(document.shared_memory),
        document.user,
        document.group,
        document.pull_policy == "Always",
    )


def _resolved(what: str, given: graph.Input | None, value: Value, names: Mapping[str, str]) -> str | None:
    """Return a name; None where it comes from an input that has no value."""
    if given is None:
        raise ValueError(f"a {what} has no name")
    found = given.source.value if isinstance(given.source, graph.Constant) else value(given.source)
    if found is None and isinstance(given.source, graph.ScopeInput):
        return None
    if isinstance(given.source, graph.Constant):
        found = launcher.fill(found, {}, names)
    if given.selector:
        found = launcher.select(found, given.selector)
    if not isinstance(found, str) or not found:
        raise ValueError(f"the name of its {what} is not text, or empty")
    return found


def _shared_memory(asked: Mapping[str, str] | None) -> str:
    if asked is None:
        return ""
    # Without a size, memory of a pod may grow to half of the node's.
    return asked.get("size") or str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Have a folder that only this user can enter, in memory if possible; remove those that killed engines left."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for other in memory.glob(f"{_PRIVATE}*"):
        with contextlib.suppress(OSError):
            if time.time() - other.lstat().st_mtime > _ABANDONED:
                with _lock(other):
                    shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PRIVATE, dir=memory))
    try:
        with _lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which the system lets go of when this process dies; OSError where another has it."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
