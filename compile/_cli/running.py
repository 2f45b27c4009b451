"""Runs a pipeline on this machine and shows what came of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.compile import from_kfp, parameters
from penstock.compile._cli.output import console, print_json, table
from penstock.compile._cli.progress import progress
from penstock.compile._cli.sources import Source, find_source
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local.look import seconds_text
from penstock.compile.targets.local.outline import flat, message, outline
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord, Values

_METRICS_SHOWN = 12

Observe = Callable[[RunRecord], None]


class _Stopped(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Options:
    """How to run: what `local.run` takes beside the pipeline."""

    root: Path
    jobs: int
    reuse: bool = True

    def keywords(self) -> dict[str, Any]:
        """Return them as keyword arguments."""
        return dict(vars(self))


def run_and_show(what: str, given: Sequence[str], file: Path | None, options: Options, as_json: bool) -> int:
    """Run what the user named, show it, and return the exit code."""
    texts = _split(given)
    source = find_source(what)

    def start(folder: Path, observe: Observe) -> RunRecord:
        spec = _compiled(source, folder)
        pipeline = from_kfp.read(spec)
        values = parameters.from_file(pipeline, file) if file else {}
        values |= parameters.from_text(pipeline, texts)
        return local.run(spec, values, observe=observe, **options.keywords())

    return _show_all_of(start, as_json)


def resume_and_show(run_id: str, options: Options, as_json: bool) -> int:
    """Resume a run, show it, and return the exit code."""
    return _show_all_of(lambda _, observe: local.resume(run_id, observe=observe, **options.keywords()), as_json)


def _show_all_of(start: Callable[[Path, Observe], RunRecord], as_json: bool) -> int:
    """Show a run from its start, which is given a temporary folder and an observer, to its end."""
    record: RunRecord | None = None
    last: list[RunRecord] = []
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder, _signals_raised():
        try:
            with progress(sys.stderr, quiet=as_json) as observer:

                def observe(record: RunRecord) -> None:
                    last[:] = [record]
                    observer(record)

                record = start(Path(folder), observe)
        except _Stopped as stop:
            if as_json and last:
                print_json(last[0].to_json())
            where = f"; see {_near(Path(last[0].folder))}" if last else ""
            again = f"; to go on from there: {_resumption(last[0])}" if last else ""
            print(f"stopped by {signal.Signals(stop.number).name}{where}{again}", file=sys.stderr)
            return 128 + stop.number
    if as_json:
        print_json(record.to_json())
    else:
        show(record)
    for line in problems(record):
        print(line, file=sys.stderr)
    if _ok(record):
        return 0
    print(f"to go on from here: {_resumption(record)}", file=sys.stderr)
    return 1


def show(record: RunRecord) -> None:
    """Print outputs, metrics, and where everything lies."""
    out = console()
    rows = [row for task, _ in flat(outline(record.tasks)) for row in _rows(task)]
    if rows:
        out.print()
        out.print(table(["step", "output", "value"], rows))
    outputs = [["", name, _one_line(value)] for name, value in record.outputs.parameters.items()]
    outputs += _artifact_rows("", record.outputs)
    if outputs:
        out.print()
        out.print(table(["pipeline", "output", "value"], outputs))
    folder = Path(record.folder)
    out.print()
    out.print(f"{record.state.lower()} in {seconds_text(record.seconds)}", style="green" if _ok(record) else "bold red")
    out.print(f"run     {_near(folder)}", soft_wrap=True, markup=False)
    out.print(f"report  {_near(folder / 'report.html')}", soft_wrap=True, markup=False)


def problems(record: RunRecord) -> list[str]:
    """Return what went wrong, each failed step by its own message and with its log."""
    lines = []
    for task in record.tasks:
        if task.state is State.FAILED and task.kind != "dag":
            lines.append(f"error: {task.path}: {message(task)}")
            if task.log:
                lines.append(f"  log: {_near(Path(record.folder) / task.log)}")
    if not lines and not _ok(record):
        lines.append(f"error: {record.error or f'the run ended {record.state}'}")
    return lines


def _resumption(record: RunRecord) -> str:
    root = Path(record.folder).parents[1]
    at = "" if root == Path("penstock-out").absolute() else f" --root {shlex.quote(_near(root))}"
    return f"penstock run --resume {record.id}{at}"


def _ok(record: RunRecord) -> bool:
    return record.state is State.SUCCEEDED


def _rows(task: TaskRecord) -> Iterator[list[str]]:
    if task.kind == "dag":
        return
    for name, value in task.outputs.parameters.items():
        yield [task.path, name, _one_line(value)]
    metrics = list(task.metrics.items())
    for name, number in metrics[:_METRICS_SHOWN]:
        yield [task.path, name, f"{number:.6g}"]
    if len(metrics) > _METRICS_SHOWN:
        yield [task.path, "…", f"{len(metrics) - _METRICS_SHOWN} more in the report"]


def _artifact_rows(step: str, values: Values) -> list[list[str]]:
    return [[step, name, artifact.uri] for name, artifacts in values.artifacts.items() for artifact in artifacts]


def _one_line(value: Any, longest: int = 200) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _near(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _split(given: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise PenstockError(f"-p {text}: give it as name=value, for example -p seed=7")
        if name in texts:
            raise PenstockError(f"-p {name} is given twice")
        texts[name] = value
    return texts


def _compiled(source: Source, folder: Path) -> Path:
    if source.function is None:
        assert source.file is not None
        return source.file
    path = folder / f"{source.name}.yaml"
    source.compiled().write(path)
    return path


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise what asks the command to end as an exception, so that whatever runs is ended on the way out."""

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough: a second one would cut short the ending of what runs.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    # Where it is ignored already (nohup, a background job of a script), it stays so.
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
