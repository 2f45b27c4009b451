"""Runs a compiled pipeline on this machine."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp, graph, launcher
from penstock.compile import parameters as parameters_of
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import convert, features, report
from penstock.compile.targets.local.execution import Execution
from penstock.compile.targets.local.guard import Guard
from penstock.compile.targets.local.journal import Journal, now
from penstock.compile.targets.local.record import FORMAT, RunRecord, State, Values
from penstock.compile.targets.local.reuse import Store
from penstock.compile.targets.local.schedule import Schedule

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RUN_ID = re.compile(r"(?!\.)[\w.-]{1,128}")
_LONGEST_ENDING = 5.0  # seconds that what is left of a killed run may take to end
# Not for tasks: the first would turn kfp off here, the second makes each of them compile all that it imports.
_NOT_INHERITED = ("_KFP_RUNTIME", "PYTHONDONTWRITEBYTECODE")


def run(
    spec: Path,
    parameters: Mapping[str, Any],
    *,
    root: Path,
    jobs: int,
    observe: Callable[[RunRecord], None] | None = None,
    run_id: str | None = None,
    reuse: bool = True,
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
        observe: Told of every change.
        run_id: Name of the run; the pipeline's name, the time and some letters where it is not given.
        reuse: Whether tasks take over what the same tasks gave in other runs, where the spec allows it.

    Raises:
        PenstockError: the run cannot start. Nothing has run then.
    """
    root, here = Path(os.path.abspath(root)), Path.cwd()
    content, pipeline = _read(spec, jobs)
    sha256 = hashlib.sha256(content).hexdigest()
    values = parameters_of.complete(pipeline, parameters_of.with_lineage(pipeline, parameters, sha256, here))
    artifacts = _artifacts(pipeline, values, here)
    folder = _new_folder(root / "runs", pipeline, run_id)
    with _locked(folder) as lock:
        _write(folder / "spec.yaml", content)
        record = RunRecord(
            id=folder.name,
            pipeline=pipeline.name,
            folder=str(folder),
            spec_sha256=sha256,
            parameters=values,
            state=State.RUNNING,
            started=now(),
            seconds=0.0,
            tasks=(),
            cwd=str(here),
        )
        return _at_work(
            pipeline, record, artifacts, root, jobs=jobs, observe=observe, reuse=reuse, resuming=False, lock=lock
        )


def resume(
    run_id: str,
    *,
    root: Path,
    jobs: int,
    observe: Callable[[RunRecord], None] | None = None,
    reuse: bool = True,
) -> RunRecord:
    """Take up a run that failed, was cancelled or was killed, and return its record.

    Spec and parameters are its own. Tasks that had succeeded are not run again, whatever their caching options, if
    they would be given the same and their outputs are still there.

    Args:
        run_id: Name of the run.
        root: Folder of runs.
        jobs, observe, reuse: As for `run`.

    Raises:
        PenstockError: there is no such run, it is at work, or it has succeeded.
    """
    root = Path(os.path.abspath(root))
    folder = root / "runs" / run_id
    if not _RUN_ID.fullmatch(run_id) or not folder.is_dir():
        raise PenstockError(f"there is no run {run_id} in {root / 'runs'}; `penstock runs list` shows those there are")
    content, pipeline = _read(folder / "spec.yaml", jobs)
    with _locked(folder) as lock:
        before = _record(folder)
        if before["state"] == State.SUCCEEDED:
            raise PenstockError(f"run {run_id} has succeeded; there is nothing to resume")
        record = RunRecord(
            id=folder.name,
            pipeline=pipeline.name,
            folder=str(folder),
            spec_sha256=hashlib.sha256(content).hexdigest(),
            parameters=before["parameters"],
            state=State.RUNNING,
            started=before["started"],
            seconds=0.0,
            tasks=(),
            resumed=(*before["resumed"], now()),
            cwd=before["cwd"],
        )
        values = parameters_of.complete(pipeline, before["parameters"])
        artifacts = _artifacts(pipeline, values, Path(record.cwd))
        return _at_work(
            pipeline, record, artifacts, root, jobs=jobs, observe=observe, reuse=reuse, resuming=True, lock=lock
        )


def _read(spec: Path, jobs: int) -> tuple[bytes, graph.Pipeline]:
    if jobs < 1:
        raise PenstockError(f"--jobs {jobs}: at least one task has to run at a time")
    try:
        content = spec.read_bytes()
        pipeline = from_kfp.parse(content.decode("utf-8"), str(spec))
    except (OSError, UnicodeDecodeError) as problem:
        raise PenstockError(f"{spec}: cannot be read: {problem}") from problem
    if refusals := features.check(pipeline):
        listed = "; ".join(str(refusal) for refusal in refusals)
        raise PenstockError(f"{spec}: cannot run here: {listed}")
    return content, pipeline


def _at_work(
    pipeline: graph.Pipeline,
    record: RunRecord,
    artifacts: dict[str, list[launcher.Artifact]],
    root: Path,
    *,
    jobs: int,
    observe: Callable[[RunRecord], None] | None,
    reuse: bool,
    resuming: bool,
    lock: int,
) -> RunRecord:
    folder, here = Path(record.folder), Path(record.cwd)
    journal = Journal(record, observe)
    own = {name: value for name, value in record.parameters.items() if name in pipeline.inputs.parameters}
    received: list[int] = []
    with contextlib.ExitStack() as stack:
        stop = launcher.Stop(watch=stack.enter_context(Guard(lock)).watch)
        # Removing a folder can take longer than the engine's whole part in a task: that is done beside it.
        cleaner = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="cleaner"))
        execute = Execution(
            folder=folder,
            env=_environment(root, here),
            store=Store(root, folder),
            reusing=reuse,
            resuming=resuming,
            stop=stop,
            remove=lambda work: cleaner.submit(shutil.rmtree, work, True),
        )
        names = _names(folder, record.started)
        schedule = Schedule(pipeline, journal, execute, jobs=jobs, names=names, here=here, stop=stop)
        with _signals(received, schedule.request_stop):
            _carry_out(schedule, journal, own, artifacts, received)
            report.write(journal.record, folder)
    if received:
        signal.raise_signal(received[0])
    return journal.record


def _carry_out(
    schedule: Schedule,
    journal: Journal,
    parameters: dict[str, Any],
    artifacts: dict[str, list[launcher.Artifact]],
    received: list[int],
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
    if received and state is not State.SUCCEEDED:
        state, error = State.CANCELLED, f"ended by {signal.Signals(received[0]).name}"
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


def _new_folder(runs: Path, pipeline: graph.Pipeline, run_id: str | None) -> Path:
    if run_id is not None and not _RUN_ID.fullmatch(run_id):
        raise PenstockError(f"run id {run_id!r}: letters, digits, '.', '_' and '-' make one, at most 128")
    name = re.sub(r"[^\w.-]+", "-", pipeline.name)[:80]
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
            folder = runs / (run_id or f"{name}-{stamp}-{secrets.token_hex(2)}")
            try:
                folder.mkdir()
            except FileExistsError:
                if run_id:
                    raise PenstockError(f"{folder} is there already; choose another run id") from None
                continue
            return folder
    except OSError as error:
        raise PenstockError(f"{runs}: cannot be written: {error}") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the lock that tells that a run is at work; the guard holds it too, until all tasks have ended.

    Raises:
        PenstockError: the run is at work.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + _LONGEST_ENDING
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise PenstockError(f"run {folder.name} is at work; end it first, or wait for its end") from None
                time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}")
        return {name: record[name] for name in ("state", "parameters", "started", "resumed", "cwd")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PenstockError(f"{folder / 'run.json'}: not the record of a run that can be resumed: {error}") from error


def _write(path: Path, content: bytes) -> None:
    half = path.with_name(f"{path.name}.unfinished")
    half.write_bytes(content)
    half.replace(path)


def _names(folder: Path, started: str) -> dict[str, str]:
    created = started.partition(".")[0] + "Z"
    return {
        "pipeline_job_name": folder.name,
        "pipeline_job_resource_name": folder.name,
        "pipeline_job_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, str(folder))),
        "pipeline_job_create_time_utc": created,
        "pipeline_job_schedule_time_utc": created,
        "pipeline_root": str(folder),
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
    env.setdefault("PYTHONUNBUFFERED", "1")  # logs grow while the task runs
    return env


@contextlib.contextmanager
def _signals(received: list[int], stop: Callable[[], None]) -> Iterator[None]:
    """Note signals that would end this process and call `stop` instead, on the main thread; elsewhere, do nothing."""
    before: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        received.append(number)
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
