"""Runs a converted job on this machine and shows what came of it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from rich.text import Text

from penstock.compile import launcher
from penstock.compile._cli.output import console, print_json, table
from penstock.compile._cli.running import Stopped, signals_raised, split
from penstock.compile.targets.azureml import rehearsal
from penstock.compile.targets.azureml.rehearsal import Record, State, StepRecord

_STYLES = {State.COMPLETED: "green", State.FAILED: "bold red", State.CANCELED: "yellow", State.NOT_STARTED: "dim"}


def rehearse_and_show(
    job: Path, given: tuple[str, ...], root: Path, jobs: int, timeout: float | None, as_json: bool
) -> int:
    """Run a converted job, show it, and return the exit code: 0 when it completed, else 1."""

    def tell(step: StepRecord) -> None:
        if not as_json:
            print(f"{step.name}: {step.state} in {step.seconds:.1f} s", file=sys.stderr, flush=True)

    stop = launcher.Stop()
    with signals_raised():
        try:
            record = rehearsal.run(
                job, root=root, jobs=jobs, inputs=split(given), timeout=timeout, stop=stop, tell=tell
            )
        except Stopped as stopped:
            print(f"stopped by {signal.Signals(stopped.number).name}", file=sys.stderr)
            return 128 + stopped.number
    if as_json:
        print_json(record.to_json())
    else:
        _show(record)
    return 0 if record.state is State.COMPLETED else 1


def _show(record: Record) -> None:
    out = console()
    rows: list[list[str | Text]] = []
    for step in record.steps:
        task = record.tasks.get(step.path)
        said = "" if task is None else task.state + (f": {task.error}" if task.error else "")
        rows.append([step.name, Text(step.state, _STYLES[step.state]), step.path, said])
    out.print(table(["step", "Azure ML", "task", "as its step says"], rows))
    for name, value in record.outputs.items():
        out.print(f"{name} = {value}", soft_wrap=True)
    for name, items in record.artifacts.items():
        out.print(f"{name}: {', '.join(item.location for item in items)}", soft_wrap=True)
    print(f"{record.state}: {Path(record.folder)}")
