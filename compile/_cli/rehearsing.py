"""Runs a converted job on this machine and shows what came of it, as a run of the local engine is shown."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.compile._cli.outcome import near, problems, show
from penstock.compile._cli.output import print_json
from penstock.compile._cli.progress import progress
from penstock.compile._cli.running import Stopped, signals_raised, split
from penstock.compile.targets.azureml import emit, rehearsal
from penstock.compile.targets.azureml.record import Artifact, Record, State, StepRecord
from penstock.compile.targets.azureml.step import ABSENT, CONTROL_FILE
from penstock.compile.targets.local import record as local
from penstock.compile.targets.local import report
from penstock.compile.targets.local.look import seconds_text
from penstock.compile.targets.local.outline import title

_METRICS = "system.Metrics"
_CONDITION = re.compile(r"the condition (.*) is false")  # as step.py says why it skips its task
_STATES = {
    State.NOT_STARTED: local.State.PENDING,
    State.RUNNING: local.State.RUNNING,
    State.COMPLETED: local.State.SUCCEEDED,
    State.FAILED: local.State.FAILED,
    State.CANCELED: local.State.CANCELLED,
}


@dataclass(frozen=True)
class Options:
    """How to run: what `rehearsal.run` takes beside the job and its inputs."""

    root: Path
    jobs: int
    runner: str
    timeout: float | None = None


def rehearse_and_show(what: Path, given: Sequence[str], options: Options, as_json: bool) -> int:
    """Run a converted job, show it, and return the exit code: 0 when it completed, else 1."""
    last: list[Record] = []
    with signals_raised():
        try:
            with progress(sys.stderr, quiet=as_json) as observer:

                def observe(record: Record) -> None:
                    if not last:
                        for warning in record.warnings:
                            observer.tell(f"warning: {warning}")
                    last[:] = [record]
                    observer(as_run(record))

                record = rehearsal.run(what, inputs=split(given), observe=observe, tell=observer.tell, **vars(options))
        except Stopped as stopped:
            if last:
                report.write(as_run(last[0]), Path(last[0].folder))
            if as_json and last:
                print_json(last[0].to_json())
            where = f"; see {near(Path(last[0].folder))}" if last else ""
            print(f"stopped by {signal.Signals(stopped.number).name}{where}", file=sys.stderr)
            return 128 + stopped.number
    shown = as_run(record)
    report.write(shown, Path(record.folder))
    if as_json:
        print_json(record.to_json())
    else:
        show(shown, f"{record.state} in {seconds_text(record.seconds)}")
    for line in problems(shown):
        print(line, file=sys.stderr)
    return 0 if record.state is State.COMPLETED else 1


def as_run(record: Record) -> local.RunRecord:
    """Return a job's record in the words of the local engine; a step stands for its task."""
    ended = record.state is not State.RUNNING
    paths = {step.name: step.path or step.name for step in record.steps}
    folder = Path(record.folder)
    return local.RunRecord(
        id=record.id,
        pipeline=record.pipeline,
        folder=record.folder,
        spec_sha256="",
        parameters=dict(record.inputs),
        state=_STATES[record.state],
        started=record.started,
        seconds=record.seconds,
        tasks=tuple(_task(step, record, paths, folder, ended) for step in record.steps),
        outputs=local.Values(
            dict(record.outputs),
            {name: [_artifact(one, folder) for one in items] for name, items in record.artifacts.items()},
        ),
        error=record.error,
        warnings=record.warnings,
    )


def _task(step: StepRecord, record: Record, paths: dict[str, str], folder: Path, ended: bool) -> local.TaskRecord:
    state, error, condition = _STATES[step.state], step.error, None
    outputs = local.Values()
    metrics: dict[str, float] = {}
    task = record.tasks.get(step.path)
    if task is not None:
        error = task.error
        state = local.State.SKIPPED if task.state == ABSENT else local.State(task.state)
        if state is local.State.SKIPPED and (match := _CONDITION.fullmatch(error or "")):
            condition = match[1]
        artifacts = {port: [_artifact(one, folder)] for port, one in task.artifacts.items()}
        outputs = local.Values(dict(task.parameters), artifacts)
        metrics = dict(_metrics(task.artifacts.values()))
    elif step.state is State.FAILED and not step.path:
        error = error or _verdict(step)
    elif state is local.State.PENDING and ended:
        state = local.State.CANCELLED
    log = Path(step.folder, "log.txt")
    return local.TaskRecord(
        path=paths[step.name],
        name=title(paths[step.name], paths[step.name].rpartition(".")[2]),
        kind="container",
        depends_on=tuple(paths[name] for name in step.after),
        condition=condition,
        state=state,
        started=step.started or None,
        seconds=step.seconds if step.started else None,
        outputs=outputs,
        metrics=metrics,
        log=os.path.relpath(log, folder) if log.is_file() else None,
        exit_code=step.exit_code,
        error=error,
        runner=step.runner,
    )


def _artifact(artifact: Artifact, folder: Path) -> local.ArtifactRecord:
    there = os.path.relpath(artifact.location, folder) if artifact.location else ""
    return local.ArtifactRecord(artifact.name, artifact.type.get("schemaTitle", ""), there, dict(artifact.metadata))


def _metrics(artifacts: Iterable[Artifact]) -> Iterator[tuple[str, float]]:
    for artifact in artifacts:
        if artifact.type.get("schemaTitle") == _METRICS:
            for name, value in artifact.metadata.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    yield name, float(value)


def _verdict(step: StepRecord) -> str | None:
    """Return why a step failed that the conversion added to fail the job."""
    file = Path(step.folder, "outputs", emit.CONTROL, CONTROL_FILE)
    if not file.is_file():
        return None
    failed = json.loads(file.read_text(encoding="utf-8")).get("failed", {})
    return f"fails the job, for {', '.join(sorted(failed))} failed" if failed else None
