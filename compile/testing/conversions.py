"""Runs jobs made for Azure ML without Azure, and holds them to what the local engine gives for the same pipeline."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp
from penstock.compile import parameters as parameters_of
from penstock.compile.errors import PenstockError
from penstock.compile.findings import errors
from penstock.compile.targets import local
from penstock.compile.targets.azureml import convert, rehearsal
from penstock.compile.targets.azureml import options as options_of
from penstock.compile.targets.azureml.options import Options
from penstock.compile.targets.azureml.record import Artifact, Record, State, Task
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, TaskRecord
from penstock.testing.component import RUNNERS, temporary

_ENDS = {State.COMPLETED: "SUCCEEDED", State.FAILED: "FAILED", State.CANCELED: "CANCELLED"}
# How a step may have ended that is in something that ended so before it began.
_UNBEGUN = {"SKIPPED": ["SKIPPED"], "CANCELLED": ["CANCELLED"], "FAILED": ["CANCELLED"]}


def run_azureml_job(
    job: str | Path,
    *,
    inputs: Mapping[str, str] | None = None,
    runner: str = "process",
    jobs: int = 2,
    root: Path | None = None,
    timeout: float | None = None,
    network: str = "",
) -> Record:
    """Run a converted job on this machine, as Azure ML documents it, and return what came of it.

    A job that fails is no error: its record says so.

    Args:
        job: The folder that `penstock convert` wrote, or its job.yml.
        inputs: Texts of inputs in place of those in job.yml.
        runner: "process", or "docker" for containers of the steps' images.
        jobs: Steps that may run at the same time.
        root: Folder of runs, which stays; None: a temporary one, which goes when this process ends.
        timeout: Seconds after which what still runs is ended, and the job is Canceled.
        network: Network of containers, as the container engine names it: "none" for none. Empty: the engine's default.

    Raises:
        PenstockError: it is no job, not sound, or cannot be run here.
    """
    return rehearsal.run(
        Path(job),
        root=root or _folder(),
        jobs=jobs,
        runner=_runner(runner),
        inputs=inputs,
        timeout=timeout,
        network=network,
    )


def assert_same_run(
    pipeline: Any,
    parameters: Mapping[str, Any] | None = None,
    *,
    options: Mapping[str, Any] | Path | Options | None = None,
    apart_from: Sequence[str] = (),
    runner: str = "process",
    jobs: int = 2,
    root: Path | None = None,
    network: str = "",
) -> Record:
    """Assert that a pipeline, converted to an Azure ML job, gives what it gives in the local engine; return the job.

    Both run, each task of each anew, with the same name. Compared are how the run and every task ended, which failed
    with which message and exit code, parameters, artifacts with their metadata, byte for byte, and the pipeline's
    outputs. Folders in texts are left out: they are others.

    Args:
        pipeline: What `@dsl.pipeline` made, or the path of a compiled one.
        parameters: Its parameters; paths for artifacts.
        options: Of the conversion, as azure.yaml holds them, or its path.
        apart_from: Patterns of outputs that may differ, such as "train.model", "*.log"; those of the pipeline itself
            have no task before them.
        runner: "process", or "docker" for containers of the images, in both.
        jobs: Tasks that may run at the same time.
        root: Folder that job and runs are kept in; None: a temporary one, which goes when this process ends.
        network: Network of containers, as the container engine names it: "none" for none. Empty: the engine's default.

    Raises:
        AssertionError: they differ; every difference is named.
        PenstockError: it cannot be converted, or cannot be run here.
    """
    folder, how = root or _folder(), _runner(runner)
    spec = _spec(pipeline, folder)
    found = from_kfp.read(spec)
    sha256 = hashlib.sha256(spec.read_bytes()).hexdigest()
    values = parameters_of.with_lineage(found, parameters or {}, sha256, Path.cwd())
    conversion = convert.convert(found, values, _options(options))
    if conversion.refused:
        raise PenstockError(f"{found.name}: {'; '.join(map(str, errors(conversion.findings)))}")
    name = f"run-{secrets.token_hex(4)}"
    job = folder / f"{name}-job"
    convert.write(conversion, job)
    theirs = local.run(spec, values, root=folder, jobs=jobs, runner=how, reuse=False, run_id=name, network=network)
    ours = rehearsal.run(job, root=folder, jobs=jobs, runner=how, run_id=name, network=network)
    problems = differences(ours, theirs, apart_from)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise AssertionError(f"{found.name}: {ours.folder} is not what {theirs.folder} is:{listed}")
    return ours


def differences(ours: Record, theirs: RunRecord, apart_from: Sequence[str] = ()) -> list[str]:
    """Return where a job differs from a run of the local engine, in sentences; see `assert_same_run`."""
    return list(_Comparison(ours, theirs, apart_from).problems())


class _Comparison:
    def __init__(self, ours: Record, theirs: RunRecord, apart_from: Sequence[str]) -> None:
        self.ours, self.theirs = ours, theirs
        self.run = Path(theirs.folder)
        self.allowed = re.compile("|".join(map(fnmatch.translate, apart_from)) or r"(?!)").match
        self.everything = {task.path: task for task in theirs.tasks}
        known = {path: task for path, task in self.everything.items() if task.kind == "container"}
        # A loop is recorded as a task beside its iterations.
        self.known = {path: task for path, task in known.items() if path in ours.tasks or not self.is_loop(path, known)}

    def is_loop(self, path: str, known: Mapping[str, TaskRecord]) -> bool:
        return f"{path}.0" in known or path not in {step.path for step in self.ours.steps}

    def problems(self) -> Iterator[str]:
        ours, known = self.ours, self.known
        if _ENDS[ours.state] != self.theirs.state:
            yield f"the job: {ours.state}, expected {self.theirs.state}"
        stopped = {step.path for step in ours.steps if step.state is State.NOT_STARTED}
        left = {step.path for step in ours.steps if step.path} - {
            path for path, task in ours.tasks.items() if task.state == "ABSENT"
        }
        for path in sorted({*known} - left):
            yield f"{path}: only the local engine knows it"
        for path in sorted(left - {*known}):
            # What is in a loop that never began has no record.
            around = next((self.everything[each] for each in _parents(path) if each in self.everything), None)
            state = ours.tasks[path].state if path in ours.tasks else "CANCELLED"
            if around is None or state not in _UNBEGUN.get(around.state, ()):
                yield f"{path}: {state}, and the local engine knows nothing of it"
        for path in sorted(left & {*known}):
            if path in stopped:
                if known[path].state != "CANCELLED":
                    yield f"{path}: did not start, expected {known[path].state}"
                continue
            yield from self.of_task(path, ours.tasks.get(path), known[path])
        if not stopped:
            yield from self.of_values("", ours.outputs, self.theirs.outputs.parameters)
            yield from self.of_artifacts("", ours.artifacts, self.theirs.outputs.artifacts)

    def of_task(self, path: str, ours: Task | None, theirs: TaskRecord) -> Iterator[str]:
        if ours is None:
            yield f"{path}: its step said nothing, expected {theirs.state} ({theirs.error})"
            return
        if ours.state != theirs.state:
            yield f"{path}: {ours.state} ({ours.error}), expected {theirs.state} ({theirs.error})"
            return
        if theirs.state == "FAILED" and (ours.exit_code != theirs.exit_code or ours.error != theirs.error):
            yield f"{path}: {ours.exit_code} {ours.error}, expected {theirs.exit_code} {theirs.error}"
        yield from self.of_values(path, ours.parameters, theirs.outputs.parameters)
        artifacts = {port: (artifact,) for port, artifact in ours.artifacts.items()}
        yield from self.of_artifacts(path, artifacts, theirs.outputs.artifacts)

    def of_values(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
        for name in sorted({*ours, *theirs}):
            where, given, wanted = _inside(path, name), *(_shown(each, name) for each in (ours, theirs))
            if given != wanted and not self.allowed(where):
                yield f"{where}: {given}, expected {wanted}"

    def of_artifacts(
        self, path: str, ours: Mapping[str, Sequence[Artifact]], theirs: Mapping[str, Sequence[ArtifactRecord]]
    ) -> Iterator[str]:
        for name in sorted({*ours, *theirs}):
            where, given, wanted = _inside(path, name), ours.get(name, ()), theirs.get(name, ())
            if self.allowed(where):
                continue
            if len(given) != len(wanted):
                yield f"{where}: {len(given)} artifacts, expected {len(wanted)}"
                continue
            for index, (one, other) in enumerate(zip(given, wanted, strict=True)):
                which = f"{where}[{index}]" if len(wanted) > 1 else where
                yield from self.of_artifact(which, one, other)

    def of_artifact(self, where: str, ours: Artifact, theirs: ArtifactRecord) -> Iterator[str]:
        kind = ours.type.get("schemaTitle", "")
        for what, given, wanted in (
            ("name", ours.name, theirs.name),
            ("type", kind, theirs.type),
            ("metadata", _plain(ours.metadata), _plain(theirs.metadata)),
        ):
            if given != wanted:
                yield f"{where}: its {what} is {given}, expected {wanted}"
        mine, others = _files(Path(ours.location) if ours.location else None), _files(self.run / theirs.uri)
        for file in sorted({*mine, *others}):
            if mine.get(file) != others.get(file):
                given, wanted = (_size(each.get(file)) for each in (mine, others))
                yield f"{where}: {file or 'its file'}: {given}, expected {wanted}"


def _parents(path: str) -> Iterator[str]:
    """Yield the paths of what is around a task, the innermost first."""
    while path := path.rpartition(".")[0]:
        yield path


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(value: Any) -> str:
    """Return a value as text, without the folders of what lies in another place in each of the runs."""
    return re.sub(r"/[^\s\"]*/(?=[^/\s\"]*)", "", json.dumps(value, sort_keys=True, default=str))


def _shown(values: Mapping[str, Any], name: str) -> str:
    return _plain(values[name]) if name in values else "nothing"


def _files(path: Path | None) -> dict[str, bytes]:
    """Return what is below a path, by name; one that is a file has no name."""
    if path is None or not path.exists():
        return {}
    if path.is_file():
        return {"": path.read_bytes()}
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def _size(content: bytes | None) -> str:
    if content is None:
        return "nothing"
    return f"{len(content)} bytes with sha256 {hashlib.sha256(content).hexdigest()[:12]}"


def _spec(pipeline: Any, folder: Path) -> Path:
    """Return the path of a compiled pipeline."""
    from penstock.compile.to_kfp import compiled, is_compilable

    if isinstance(pipeline, str | Path):
        return Path(pipeline)
    if not is_compilable(pipeline):
        raise PenstockError(f"{pipeline!r} is no pipeline; decorate the function with @dsl.pipeline")
    found = compiled(pipeline)
    path = folder / f"{found.name}.yaml"
    found.write(path)
    return path


def _options(given: Mapping[str, Any] | Path | Options | None) -> Options | None:
    if given is None or isinstance(given, Options):
        return given
    return options_of.read(given) if isinstance(given, Path) else options_of.parse(given)


def _runner(name: str) -> str:
    if name not in RUNNERS:
        raise PenstockError(f"there is no runner {name}; there are {', '.join(RUNNERS)}")
    return RUNNERS[name]


def _folder() -> Path:
    return Path(tempfile.mkdtemp(dir=temporary()))
