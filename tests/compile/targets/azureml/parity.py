"""Holds a converted job, run step by step without Azure, against the local engine's run of the same spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp
from penstock.compile.targets import local
from penstock.compile.targets.azureml import convert, rehearsal
from penstock.compile.targets.azureml.options import Options
from penstock.compile.targets.local.record import RunRecord, TaskRecord

ENDS = {"Completed": "SUCCEEDED", "Failed": "FAILED"}
# How a step may have ended that is in something that ended so before it began.
UNBEGUN = {"SKIPPED": ["SKIPPED"], "CANCELLED": ["CANCELLED"], "FAILED": ["CANCELLED"]}


def differences(
    spec: Path,
    folder: Path,
    values: Mapping[str, Any] | None = None,
    options: Options | None = None,
    *,
    jobs: int = 2,
    run_id: str = "parity",
    runner: str = "subprocess",
    network: str = "",
) -> list[str]:
    """Return where the two do not agree: states, exit codes, parameters, artifacts with their bytes, outputs."""
    conversion = convert.convert(from_kfp.read(spec), values, options)
    assert not conversion.refused, [str(each) for each in conversion.findings]
    convert.write(conversion, folder / "job")
    how: dict[str, Any] = {"jobs": jobs, "runner": runner, "run_id": run_id, "network": network}
    theirs = local.run(spec, values or {}, root=folder / "local", **how)
    ours = rehearsal.run(folder / "job" / "job.yml", root=folder, **how)
    return compared(ours, theirs)


def compared(ours: rehearsal.Record, theirs: RunRecord) -> list[str]:
    problems = []
    if ENDS[ours.state] != theirs.state:
        problems.append(f"the job: {ours.state}, expected {theirs.state}")
    everything = {task.path: task for task in theirs.tasks}
    known = {path: task for path, task in everything.items() if task.kind == "container"}
    # A loop is recorded as a task beside its iterations.
    known = {path: task for path, task in known.items() if path in ours.tasks or not is_loop(path, ours, known)}
    stopped = {step.path for step in ours.steps if step.state == "NotStarted"}
    left = {step.path for step in ours.steps if step.path} - {
        path for path, task in ours.tasks.items() if task.state == "ABSENT"
    }
    for path in sorted({*known} - left):
        problems.append(f"{path}: only the local engine knows it")
    for path in sorted(left - {*known}):
        # What is in a loop that never began has no record.
        around = next((everything[each] for each in parents(path) if each in everything), None)
        state = ours.tasks[path].state if path in ours.tasks else "CANCELLED"
        if around is None or state not in UNBEGUN.get(around.state, ()):
            problems.append(f"{path}: {state}, and the local engine knows nothing of it")
    run = Path(theirs.folder)
    for path in sorted(left & {*known}):
        if path in stopped:
            if known[path].state != "CANCELLED":
                problems.append(f"{path}: did not start, expected {known[path].state}")
            continue
        problems += of_task(path, ours.tasks[path], known[path], run)
    if not stopped:
        wanted = shown(theirs.outputs.parameters)
        if shown(ours.outputs) != wanted:
            problems.append(f"outputs {ours.outputs}, expected {wanted}")
        for name, items in theirs.outputs.artifacts.items():
            given = [
                (*identity(one), content(Path(one.location)) if one.location else None)
                for one in ours.artifacts.get(name, ())
            ]
            expected = [(*identity(one), content(run / one.uri) if (run / one.uri).exists() else None) for one in items]
            if given != expected:
                problems.append(f"output {name}: {given}, expected {expected}")
    return problems


def is_loop(path: str, ours: rehearsal.Record, known: Mapping[str, TaskRecord]) -> bool:
    return f"{path}.0" in known or path not in {step.path for step in ours.steps}


def parents(path: str) -> Iterator[str]:
    """Yield the paths of what is around a task, the innermost first."""
    while path := path.rpartition(".")[0]:
        yield path


def of_task(path: str, ours: rehearsal.Task, theirs: TaskRecord, run: Path) -> list[str]:
    if ours.state != theirs.state:
        return [f"{path}: {ours.state} ({ours.error}), expected {theirs.state} ({theirs.error})"]
    problems = []
    if theirs.state == "FAILED" and (ours.exit_code != theirs.exit_code or ours.error != theirs.error):
        problems.append(f"{path}: {ours.exit_code} {ours.error}, expected {theirs.exit_code} {theirs.error}")
    given, wanted = (shown(each) for each in (ours.parameters, theirs.outputs.parameters))
    if given != wanted:
        problems.append(f"{path}: gave {given}, expected {wanted}")
    artifacts = {
        port: (*identity(one), content(Path(one.location)) if one.location else None)
        for port, one in ours.artifacts.items()
    }
    expected = {
        port: (*identity(items[0]), content(run / items[0].uri) if (run / items[0].uri).exists() else None)
        for port, items in theirs.outputs.artifacts.items()
    }
    if artifacts != expected:
        problems.append(f"{path}: gave {artifacts}, expected {expected}")
    return problems


def shown(parameters: Mapping[str, Any]) -> str:
    """Return parameters as text, without the folders of what lies in another place in each of the runs."""
    return re.sub(r"/[^\s\"]*/(?=[^/\s\"]*)", "", json.dumps(dict(parameters), sort_keys=True))


def identity(artifact: Any) -> tuple[Any, ...]:
    kind = artifact.type if isinstance(artifact.type, str) else artifact.type.get("schemaTitle", "")
    return artifact.name, kind, dict(artifact.metadata)


def content(path: Path) -> Any:
    """Return what is below a path: bytes, or bytes by name."""
    if path.is_dir():
        return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    return path.read_bytes()
