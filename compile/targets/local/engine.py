"""Runs a compiled pipeline on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp, graph, launcher
from penstock.compile import parameters as parameters_of
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import (
    containers,
    convert,
    environments,
    features,
    folder,
    forkserver,
    kubernetes,
    placement,
    report,
    runs,
    task_config,
)
from penstock.compile.targets.local import objects as objects_of
from penstock.compile.targets.local.execution import UNBUFFERED, WORKSPACE, Execution
from penstock.compile.targets.local.guard import Guard
from penstock.compile.targets.local.journal import Journal, now
from penstock.compile.targets.local.placement import Place
from penstock.compile.targets.local.record import RunRecord, State, Values
from penstock.compile.targets.local.reuse import Store
from penstock.compile.targets.local.schedule import Schedule

_TOOK_TOO_LONG = "took too long: ended after {:g} s"
_AS_DECLARED = "ended after {:g} s, as the pipeline's activeDeadlineSeconds says"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Not for tasks: the first would turn kfp off here, the second makes each of them compile all that it imports.
_NOT_INHERITED = ("_KFP_RUNTIME", "PYTHONDONTWRITEBYTECODE")


def run(
    spec: Path,
    parameters: Mapping[str, Any],
    *,
    root: Path,
    jobs: int,
    runner: str = "auto",
    reuse: bool = True,
    objects: Sequence[Path] = (),
    timeout: float | None = None,
    run_id: str | None = None,
    network: str = "",
    observe: Callable[[RunRecord], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> RunRecord:
    """Run a compiled pipeline and return its record, which is also what run.json holds.

    Leaves root/runs/ID/ with spec.yaml (the very bytes of `spec`), run.json, report.html and tasks/PATH/ with log.txt
    and outputs/. A signal that ends the run ends all its processes first, then takes the course that it would have
    taken without the engine.

    Args:
        spec: Compiled pipeline.
        parameters: Values of the pipeline's inputs by name; paths for artifact inputs.
        root: Folder of runs; made where it is not there.
        jobs: Commands that may run at the same time, 1 or more.
        runner: What they run in: "subprocess", "docker", or "auto": processes for lightweight Python components, whose
            code is in the spec, and containers for those that are made of their image.
        reuse: Whether tasks take over what the same tasks gave in other runs, where the spec allows it.
        objects: Files of Kubernetes manifests: the Secrets and ConfigMaps that the platform document names.
        timeout: Seconds after which what still runs is ended and the run is CANCELLED.
        run_id: Name of the run; the pipeline's name, the time and some letters where it is not given.
        network: Network of containers, as the container engine names it: "none" for none. Empty: the engine's default.
        observe: Told of every change.
        tell: Told, in lines of text, what goes on before the first task.

    Raises:
        PenstockError: the run cannot start. Nothing has run then.
    """
    chosen = _Options(Path(os.path.abspath(root)), jobs, runner, reuse, tuple(objects), timeout, observe, tell, network)
    here = Path.cwd()
    ready = _prepared(spec, chosen)
    pipeline = ready.pipeline
    sha256 = hashlib.sha256(ready.content).hexdigest()
    values = parameters_of.complete(pipeline, parameters_of.with_lineage(pipeline, parameters, sha256, here))
    artifacts = _artifacts(pipeline, values, here)
    own = folder.new(chosen.root / "runs", pipeline.name, run_id)
    with folder.locked(own) as lock:
        folder.write(own / folder.SPEC, ready.content)
        record = RunRecord(
            id=own.name,
            pipeline=pipeline.name,
            folder=str(own),
            spec_sha256=sha256,
            parameters=values,
            state=State.RUNNING,
            started=now(),
            seconds=0.0,
            tasks=(),
            cwd=str(here),
            runner=chosen.runner,
            warnings=ready.warnings,
        )
        try:
            return _at_work(ready, record, artifacts, chosen, lock, resuming=False)
        except PenstockError:
            if not (own / "run.json").exists():  # it never began
                shutil.rmtree(own, ignore_errors=True)
            raise


def resume(
    run_id: str,
    *,
    root: Path,
    jobs: int,
    runner: str | None = None,
    reuse: bool = True,
    objects: Sequence[Path] = (),
    timeout: float | None = None,
    observe: Callable[[RunRecord], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> RunRecord:
    """Take up a run that failed, was cancelled or was killed, and return its record.

    Spec and parameters are its own. Tasks that had succeeded are not run again, whatever their caching options, if
    they would be given the same and their outputs are still there.

    Args:
        run_id: Name of the run or the only one that starts so; "latest" for the newest.
        root: Folder of runs.
        runner: As for `run`; what the run had where it is not given.
        jobs, reuse, objects, timeout, observe, tell: As for `run`.

    Raises:
        PenstockError: there is no such run, it is at work, or it has succeeded.
    """
    root = Path(os.path.abspath(root))
    own = runs.find(root, run_id).folder
    with folder.locked(own) as lock:
        before = runs.read(own)
        if before.state is State.SUCCEEDED:
            raise PenstockError(f"run {own.name} has succeeded; there is nothing to resume")
        chosen = _Options(root, jobs, runner or before.runner, reuse, tuple(objects), timeout, observe, tell)
        ready = _prepared(own / folder.SPEC, chosen)
        record = RunRecord(
            id=own.name,
            pipeline=ready.pipeline.name,
            folder=str(own),
            spec_sha256=hashlib.sha256(ready.content).hexdigest(),
            parameters=before.parameters,
            state=State.RUNNING,
            started=before.started,
            seconds=0.0,
            tasks=(),
            resumed=(*before.resumed, now()),
            cwd=before.cwd,
            runner=chosen.runner,
            warnings=ready.warnings,
        )
        values = parameters_of.complete(ready.pipeline, before.parameters)
        return _at_work(
            ready, record, _artifacts(ready.pipeline, values, Path(record.cwd)), chosen, lock, resuming=True
        )


@dataclass(frozen=True)
class _Options:
    root: Path
    jobs: int
    runner: str
    reuse: bool
    objects: tuple[Path, ...]
    timeout: float | None
    observe: Callable[[RunRecord], None] | None
    tell: Callable[[str], None] | None
    network: str = ""


@dataclass(frozen=True)
class _Prepared:
    """A pipeline that can run here.

    Attributes:
        contained: Tasks that run in containers, by path.
    """

    content: bytes
    pipeline: graph.Pipeline
    objects: objects_of.Objects
    contained: Mapping[str, graph.Task]
    warnings: tuple[str, ...]


def _prepared(spec: Path, options: _Options) -> _Prepared:
    """Return a pipeline that can run here.

    Raises:
        PenstockError: something keeps it from that; all of it is said at once.
    """
    if options.jobs < 1:
        raise PenstockError(f"--jobs {options.jobs}: at least one task has to run at a time")
    if options.runner not in placement.RUNNERS:
        raise PenstockError(f"there is no runner {options.runner}; there are {', '.join(placement.RUNNERS)}")
    try:
        content = spec.read_bytes()
        pipeline = from_kfp.parse(content.decode("utf-8"), str(spec))
    except (OSError, UnicodeDecodeError) as problem:
        raise PenstockError(f"{spec}: cannot be read: {problem}") from problem
    found = objects_of.read(options.objects)
    contained = {
        path: task for path, task in pipeline.walk() if placement.place(task, options.runner) is Place.CONTAINER
    }
    problems = [str(refusal) for refusal in features.check(pipeline, options.runner)]
    problems += kubernetes.check(pipeline, found, options.root / "volumes", contained)
    if contained and not problems and (reason := containers.available()):
        listed = ", ".join(sorted(contained)[:5]) + (", …" if len(contained) > 5 else "")
        problems.append(
            f"{listed} would run in containers, and {reason}; start it, or run the commands on this machine with "
            "--runner subprocess"
        )
    if problems:
        raise PenstockError(f"{spec}: cannot run here: {'; '.join(problems)}")
    warnings = (*kubernetes.warnings(pipeline, contained), *task_config.warnings(pipeline))
    return _Prepared(content, pipeline, found, contained, warnings)


def _at_work(
    ready: _Prepared,
    record: RunRecord,
    artifacts: dict[str, list[launcher.Artifact]],
    options: _Options,
    lock: int,
    *,
    resuming: bool,
) -> RunRecord:
    pipeline, root = ready.pipeline, options.root
    own, here = Path(record.folder), Path(record.cwd)
    journal = Journal(record, options.observe)
    values = {name: value for name, value in record.parameters.items() if name in pipeline.inputs.parameters}
    names = _names(own, record.started)
    env = {**UNBUFFERED, **_environment(root, here)}
    ending = _Ending()
    with contextlib.ExitStack() as stack:
        stop = launcher.Stop(watch=stack.enter_context(Guard(lock)).watch)
        # Removing a folder can take longer than the engine's whole part in a task: that is done beside it.
        cleaner = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="cleaner"))
        in_containers = None
        if ready.contained:
            in_containers = stack.enter_context(containers.Containers(own, record.id, root, options.network))
            in_containers.prepare(_images(_certain(pipeline, ready.contained)), options.tell)
        if features.uses_workspace(pipeline):
            (own / WORKSPACE).mkdir(exist_ok=True)
        execute = Execution(
            folder=own,
            env=env,
            runner=options.runner,
            process=stack.enter_context(forkserver.ForkServer(env)).run,
            containers=in_containers,
            environments=environments.Environments(root),
            objects=ready.objects,
            volumes=root / "volumes",
            store=Store(root, own),
            reusing=options.reuse,
            resuming=resuming,
            here=here,
            stop=stop,
            remove=lambda work: cleaner.submit(shutil.rmtree, work, True),
        )
        schedule = Schedule(pipeline, journal, execute, jobs=options.jobs, names=names, here=here, stop=stop)
        with (
            _signals(ending, schedule.request_stop),
            _deadline(kubernetes.deadline(pipeline), _AS_DECLARED, ending, schedule.request_stop),
            _deadline(options.timeout, _TOOK_TOO_LONG, ending, schedule.request_stop),
        ):
            _carry_out(schedule, journal, values, artifacts, ending)
            report.write(journal.record, own)
    if ending.signal:
        signal.raise_signal(ending.signal)
    return journal.record


class _Ending:
    """Why a run ends before its end.

    Attributes:
        signal: The signal that asked for it.
        reason: In words.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.reason = ""


def _carry_out(
    schedule: Schedule,
    journal: Journal,
    parameters: dict[str, Any],
    artifacts: dict[str, list[launcher.Artifact]],
    ending: _Ending,
) -> None:
    try:
        result = schedule.run(parameters, artifacts)
    except BaseException as bug:
        journal.cancel()
        journal.end(State.CANCELLED, Values(), f"{type(bug).__name__}: {bug}")
        with contextlib.suppress(Exception):
            journal.flush()
        if isinstance(bug, OSError):
            raise PenstockError(f"{journal.folder}: the run's record cannot be kept: {bug}") from bug
        raise
    state, error = result.state, result.error
    if ending.reason and state is not State.SUCCEEDED:
        state, error = State.CANCELLED, ending.reason
    journal.end(state, journal.values(result.parameters, result.artifacts), error)
    journal.flush()


def _artifacts(pipeline: graph.Pipeline, values: Mapping[str, Any], here: Path) -> dict[str, list[launcher.Artifact]]:
    found = {}
    for name, port in pipeline.inputs.artifacts.items():
        if name in values:
            try:
                found[name] = [convert.local_artifact(name, port.type, values[name], here)]
            except launcher.TaskError as error:
                raise PenstockError(f"parameter {name}: {error}") from error
    return found


def _certain(pipeline: graph.Pipeline, tasks: Mapping[str, graph.Task]) -> Iterator[graph.Task]:
    """Yield those of some tasks, given by path, that no condition leaves out: branches fetch images when they run."""
    branches = [path for path, task in pipeline.walk() if task.trigger.condition]
    for path, task in tasks.items():
        if not any(path == branch or path.startswith(f"{branch}.") for branch in branches):
            yield task


def _images(tasks: Iterable[graph.Task]) -> dict[str, bool]:
    """Return the images that are known before a run, each with whether it is to be fetched even where it is here."""
    found: dict[str, bool] = {}
    for task in tasks:
        assert isinstance(task.component.body, graph.Container)
        image = task.component.body.image
        if not any(True for _ in launcher.placeholders(image)):
            found[image] = found.get(image, False) or _always_pulls(task)
    return found


def _always_pulls(task: graph.Task) -> bool:
    return task.component.platforms.get("kubernetes", {}).get("imagePullPolicy") == "Always"


def _names(folder: Path, started: str) -> dict[str, str]:
    created = started.partition(".")[0] + "Z"
    return {
        "pipeline_job_name": folder.name,
        "pipeline_job_resource_name": folder.name,
        "pipeline_job_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, str(folder))),
        "pipeline_job_create_time_utc": created,
        "pipeline_job_schedule_time_utc": created,
        "pipeline_root": str(folder),
        "workspace_path": str(folder / WORKSPACE),
    }


def _environment(root: Path, here: Path) -> dict[str, str]:
    """Return the environment of all tasks: the user's own, with this Python first.

    PENSTOCK_ROOT is the folder of runs, PENSTOCK_CWD the one that the user's relative paths start from: a task works
    in a folder of its own.
    """
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    env["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), env.get("PATH", os.defpath)])
    env["PENSTOCK_ROOT"] = str(root)
    env["PENSTOCK_CWD"] = str(here)
    return env


@contextlib.contextmanager
def _signals(ending: _Ending, stop: Callable[[], None]) -> Iterator[None]:
    """Note signals that would end this process and call `stop` instead, on the main thread; elsewhere, do nothing."""
    before: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        ending.signal = ending.signal or number
        ending.reason = ending.reason or f"ended by {signal.Signals(number).name}"
        stop()

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)


@contextlib.contextmanager
def _deadline(seconds: float | None, reason: str, ending: _Ending, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` when the time is over; `reason` says why in words, with a place for the seconds."""

    def over() -> None:
        ending.reason = ending.reason or reason.format(seconds)
        stop()

    timer = threading.Timer(seconds or 0, over)
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
