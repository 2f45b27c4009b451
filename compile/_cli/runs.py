"""Shows runs that there are, and removes them."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from penstock.compile._cli import outcome
from penstock.compile._cli.output import console, print_json, table
from penstock.compile._cli.progress import STYLES, drawn
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import removal, report, runs
from penstock.compile.targets.local.look import bytes_text, seconds_text
from penstock.compile.targets.local.outline import titles
from penstock.compile.targets.local.record import State, TaskRecord

_WORST = {runs.KILLED: "bold red", runs.UNREADABLE: "bold red"}


def list_runs(root: Path, sizes: bool, as_json: bool) -> None:
    """Print the runs below a root, newest first; with their sizes on disk if asked for."""
    found = runs.listed(root)
    used = {run.id: removal.size(run.folder) for run in found} if sizes else {}
    if as_json:
        print_json([_summary(run, used.get(run.id)) for run in found])
        return
    if not found:
        click.echo(f"there is no run in {root / 'runs'} yet; begin one: penstock run tabular_training")
        return
    columns = ["id", "state", "started (UTC)", "took", "tasks", *(["size"] if sizes else []), "pipeline"]
    rows: list[list[str | Text]] = []
    for run in found:
        done, count = run.progress
        rows.append(
            [
                run.id,
                Text(run.state.lower(), style=_style(run)),
                run.began.strftime("%Y-%m-%d %H:%M"),
                seconds_text(run.seconds),
                f"{done}/{count}" if run.record else "",
                *([bytes_text(used[run.id])] if sizes else []),
                run.record.pipeline if run.record else "",
            ]
        )
    out = console(folded=False)  # an id in two parts cannot be copied
    whole = table(columns, rows)
    if out.measure(whole).maximum > console().width:  # most ids begin with the pipeline's name
        whole = table(columns[:-1], [row[:-1] for row in rows])
    out.print(whole)
    for run in found:
        if run.state == runs.UNREADABLE:
            click.echo(f"warning: {run.problem}", err=True)


def show_run(root: Path, name: str, log: str | None, as_json: bool) -> None:
    """Print a run's tasks and what came of them, or its run.json, or the log of a task."""
    run = runs.find(root, name)
    if run.record is None:
        raise PenstockError(run.problem)
    if log is not None:
        _print_log(run.folder, _task(run.record.tasks, log))
        return
    if as_json:
        print_json(run.json())
        return
    out = console()
    done, count = run.progress
    heading = Text.assemble((run.id, "bold"), "  ", (run.state.lower(), _style(run)))
    out.print(heading, soft_wrap=True)
    out.print(f"{run.record.pipeline}, {done} of {count} tasks succeeded", soft_wrap=True, markup=False)
    for what, when in [("started", run.record.started), *(("resumed", when) for when in run.record.resumed)]:
        out.print(f"{what} {datetime.datetime.fromisoformat(when):%Y-%m-%d %H:%M:%S} UTC")
    out.print()
    out.print(drawn(run.record, sys.maxsize, datetime.datetime.now(datetime.UTC)))
    if run.record.parameters:
        rows = [[key, outcome.one_line(value)] for key, value in run.record.parameters.items()]
        out.print()
        out.print(table(["parameter", "value"], rows))
    outcome.show(run.record, _verdict(run))
    lines = outcome.problems(run.record)
    if run.state in (State.FAILED, State.CANCELLED, runs.KILLED):
        lines.append(f"to go on from there: {outcome.resumption(run.record)}")
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)


def open_report(root: Path, name: str, only_print: bool) -> None:
    """Print the path of a run's report and open it where there is a browser."""
    run = runs.find(root, name)
    path = run.folder / "report.html"
    if not path.is_file():
        if run.record is None:
            raise PenstockError(run.problem)
        if run.state == State.RUNNING:
            raise PenstockError(f"{run.id} is at work and has no report yet; see penstock runs show {run.id}")
        report.write(run.record, run.folder)
    click.echo(os.path.abspath(path))
    if not only_print and _has_screen():
        click.launch(os.path.abspath(path))


def collect(root: Path, keep: int | None, older_than: str | None, failed: bool, dry_run: bool, as_json: bool) -> None:
    """Remove runs and what else is of no use any more."""
    criteria = removal.Criteria(keep, removal.age(older_than) if older_than else None, failed)
    if not criteria:
        raise PenstockError(
            f"say which runs to remove: --keep 10, --older-than 30d, --failed; {_inventory(root, runs.listed(root))}"
        )
    items = removal.plan(root, criteria)
    removed: list[removal.Item] = []
    failures: list[str] = []
    for item, problem in ((item, "") for item in items) if dry_run else removal.remove(items):
        if problem:
            failures.append(f"{item.kind} {item.name} is not removed: {problem}")
            continue
        removed.append(item)
        if not as_json and item.kind != "cache entry":
            would = "would remove" if dry_run else "removed"
            click.echo(f"{would} {item.kind} {item.name}  {bytes_text(item.bytes)}")
    freed = sum(item.bytes for item in removed)
    if as_json:
        listed = [{"kind": item.kind, "path": str(item.path), "bytes": item.bytes} for item in removed]
        print_json({"removed": listed, "bytes": freed, "dry_run": dry_run, "failed": failures})
    else:
        _print_sum(root, removed, freed, dry_run)
    if failures:
        raise PenstockError("; ".join(failures))


def _print_sum(root: Path, removed: list[removal.Item], freed: int, dry_run: bool) -> None:
    entries = sum(item.kind == "cache entry" for item in removed)
    if entries:
        what = "entry of the cache that nobody can use" if entries == 1 else "entries of the cache that nobody can use"
        click.echo(f"{'would remove' if dry_run else 'removed'} {entries} {what}")
    if not removed:
        click.echo("nothing to remove")
    else:
        click.echo(f"{'would free' if dry_run else 'freed'} {bytes_text(freed)}")
    if (root / "volumes").is_dir():
        click.echo(f"{root / 'volumes'} holds your data and stays")


def _inventory(root: Path, found: list[runs.Run]) -> str:
    if not found:
        return f"there is none in {root / 'runs'}"
    states = Counter(run.state.lower() for run in found)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    used = bytes_text(sum(removal.size(run.folder) for run in found))
    return f"there are {len(found)} ({counted}), the oldest of {found[-1].began:%Y-%m-%d}, {used} in all"


def _summary(run: runs.Run, used: int | None) -> dict[str, Any]:
    done, count = run.progress
    seconds = run.seconds
    return {
        "id": run.id,
        "pipeline": run.record.pipeline if run.record else None,
        "state": run.state,
        "started": run.began.isoformat(timespec="milliseconds"),
        "seconds": None if seconds is None else round(seconds, 3),
        "tasks": {"done": done, "total": count},
        "folder": str(run.folder.absolute()),
        **({"bytes": used} if used is not None else {}),
        **({"problem": run.problem} if run.problem else {}),
    }


def _verdict(run: runs.Run) -> str:
    match run.state:
        case runs.KILLED:
            return "killed"
        case State.RUNNING:
            return f"running for {seconds_text(run.seconds)}"
        case state:
            return f"{state.lower()} in {seconds_text(run.seconds)}"


def _style(run: runs.Run) -> str:
    return _WORST.get(run.state) or STYLES[State(run.state)]


def _task(tasks: tuple[TaskRecord, ...], name: str) -> TaskRecord:
    logged = [task for task in tasks if task.log]
    called = titles(tasks)
    matching = [task for task in logged if name in (task.path, called[task.path])] or [
        task for task in logged if task.path.endswith(f".{name}") or task.name == name
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise PenstockError(f"{name} names {len(matching)} tasks: {', '.join(task.path for task in matching)}")
    if any(task.path == name for task in tasks):
        raise PenstockError(f"task {name} has no log: it ran no command")
    raise PenstockError(
        f"no task {name} has a log; those that have: {', '.join(task.path for task in logged) or 'none'}"
    )


def _print_log(folder: Path, task: TaskRecord) -> None:
    assert task.log is not None
    try:
        with (folder / task.log).open("rb") as log:
            shutil.copyfileobj(log, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except FileNotFoundError as error:
        raise PenstockError(f"{error.filename}: there is no log; the task may not have begun to write") from error


def _has_screen() -> bool:
    # Elsewhere, what opens pages may well be a browser for terminals.
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
