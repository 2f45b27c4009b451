"""Shows a run while it goes on: a table that is redrawn on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from penstock.compile.targets.local.events import Changes
from penstock.compile.targets.local.look import MARKS, seconds_text
from penstock.compile.targets.local.outline import Names, flat, is_made_up, message, outline, parents, unmet
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

STYLES = {
    State.PENDING: "dim",
    State.RUNNING: "cyan",
    State.SUCCEEDED: "green",
    State.FAILED: "bold red",
    State.SKIPPED: "dim",
    State.CANCELLED: "yellow",
}


class Quiet:
    """Shows nothing."""

    def __call__(self, record: RunRecord) -> None:
        pass

    def tell(self, line: str) -> None:
        """Take a line of text."""


class Lines:
    """Writes a line for each change of a task's state.

    What the compiler made up has one only where it did not succeed, and what is skipped with all around it none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._changes = Changes()
        self._names = Names()
        self._known = 0

    def __call__(self, record: RunRecord) -> None:
        self._names.add(record.tasks[self._known :])  # tasks keep their places
        self._known = len(record.tasks)
        changed = self._changes(record)
        skipped = {task.path for task in changed if task.state is State.SKIPPED}
        for task in changed:
            inside = task.state is State.SKIPPED and not skipped.isdisjoint(parents(task.path))
            plain = is_made_up(task) and task.state in (State.RUNNING, State.SUCCEEDED)
            if not inside and not plain:
                self.tell(f"{record.seconds:8.1f} s  {self._names.of(task)}: {_sentence(task)}")

    def tell(self, line: str) -> None:
        """Write a line of text."""
        # A reader that has gone is no reason to end the run.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()


class Live:
    """Draws the tasks again and again in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._record: RunRecord | None = None

    def __call__(self, record: RunRecord) -> None:
        self._record = record

    def tell(self, line: str) -> None:
        """Write a line of text above the table."""
        self._console.print(line, markup=False, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        if self._record is None:
            return Text("starting", style="dim")
        return drawn(self._record, self._console.height - 2, datetime.datetime.now(datetime.UTC))


Observer = Quiet | Lines | Live


@contextlib.contextmanager
def progress(stream: TextIO, *, quiet: bool) -> Iterator[Observer]:
    """Show what the observer is told on `stream`, until the end of the block."""
    if quiet:
        yield Quiet()
    elif not stream.isatty():
        yield Lines(stream)
    else:
        import rich.live
        from rich.console import Console

        console = Console(file=stream, highlight=False)
        if not console.is_terminal or console.is_dumb_terminal:
            yield Lines(stream)
            return
        observer = Live(console)
        with rich.live.Live(observer, console=console, refresh_per_second=8, vertical_overflow="crop"):
            yield observer


def drawn(record: RunRecord, height: int, now: datetime.datetime) -> RenderableType:
    """Return the tasks as a table of at most `height` lines; what is over and what waits gives way first."""
    from rich.table import Table

    lines = list(flat(outline(record.tasks)))
    hidden = 0
    for giving_way in ((State.SUCCEEDED, State.SKIPPED), (State.PENDING,), (State.CANCELLED, State.RUNNING)):
        room = max(height - 1, 1)
        excess = len(lines) - room
        if excess > 0:
            drop = [i for i, (task, _) in enumerate(lines) if task.state in giving_way]
            gone = set(drop[:excess] if State.SUCCEEDED in giving_way else drop[-excess:])
            hidden += len(gone)
            lines = [line for i, line in enumerate(lines) if i not in gone]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for task, depth in lines:
        table.add_row(*_row(task, depth, now))
    if hidden:
        done = sum(task.state is not State.PENDING and task.state is not State.RUNNING for task in record.tasks)
        table.add_row(f"… and {hidden} more", "", f"{done} of {len(record.tasks)} done")
    return table


def _row(task: TaskRecord, depth: int, now: datetime.datetime) -> tuple[Text, Text, Text]:
    from rich.text import Text

    mark, style = MARKS[task.state], STYLES[task.state]
    seconds = task.seconds
    if task.state is State.RUNNING and task.started:
        seconds = (now - datetime.datetime.fromisoformat(task.started)).total_seconds()
    name = Text.assemble("  " * depth, (mark, style), " ", (task.name, "dim" if style == "dim" else ""))
    # One form below a minute, so that the column does not jump.
    took = "" if seconds is None else f"{max(seconds, 0):.1f} s" if seconds < 60 else seconds_text(seconds)
    return name, Text(took), Text(_remark(task), style=style)


def _remark(task: TaskRecord) -> str:
    match task.state:
        case State.SUCCEEDED | State.PENDING:
            return "reused" if task.reused else f"after {len(task.retries) + 1} attempts" if task.retries else ""
        case State.RUNNING if task.retries:
            return f"attempt {len(task.retries) + 1}, after: {task.retries[-1].removeprefix(f'{task.name}: ')}"
        case State.SKIPPED if task.condition:
            return f"skipped: {unmet(task.condition)}"
        case State.FAILED if task.kind != "dag":
            return f"failed: {message(task)}"
        case _:
            return task.state.lower()


def _sentence(task: TaskRecord) -> str:
    took = f" in {seconds_text(task.seconds)}" if task.seconds is not None and task.state is not State.RUNNING else ""
    detail = _remark(task) or task.state.lower()
    return detail if task.state is State.FAILED else detail + took
