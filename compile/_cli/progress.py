"""Shows a run while it goes on: a table that is redrawn on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from penstock.compile.targets.local.events import Changes
from penstock.compile.targets.local.look import MARKS, seconds_text
from penstock.compile.targets.local.outline import Names, Told, flat, message, names_of, outline, title, unmet
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
    """Writes a line for each change of a task's state that people are told of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._changes = Changes()
        self._told = Told()
        self._names = Names()
        self._known = 0
        self._begun: set[str] = set()

    def __call__(self, record: RunRecord) -> None:
        changed = self._changes(record)
        self._told.take(record.tasks[self._known :])  # tasks keep their places
        self._told.take(changed)
        self._known = len(record.tasks)
        for task in changed:
            begun = task.path in self._begun  # as a step on Azure ML does that then finds itself skipped
            if not begun and not self._told.tells(task):
                continue
            if task.state is State.RUNNING:
                self._begun.add(task.path)
            # Another of the same name may run in place of what is skipped.
            skipped = task.state is State.SKIPPED and not begun
            name = title(task.path, task.name) if skipped else self._names.of(task)
            self.tell(f"{record.seconds:8.1f} s  {name}: {_sentence(task, self._told.condition(task))}")

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

    told = Told(record.tasks)
    lines = [task for task, _ in flat(outline(record.tasks)) if told.tells(task)]
    names = names_of(lines)
    count, done = len(lines), sum(task.state not in (State.PENDING, State.RUNNING) for task in lines)
    for giving_way in ((State.SUCCEEDED, State.SKIPPED), (State.PENDING,), (State.CANCELLED, State.RUNNING)):
        room = max(height - 1, 1)
        excess = len(lines) - room
        if excess > 0:
            drop = [i for i, task in enumerate(lines) if task.state in giving_way]
            gone = set(drop[:excess] if State.SUCCEEDED in giving_way else drop[-excess:])
            lines = [task for i, task in enumerate(lines) if i not in gone]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for task in lines:
        table.add_row(*_row(task, names[task.path], told.condition(task), now))
    if len(lines) < count:
        table.add_row(f"… and {count - len(lines)} more", "", f"{done} of {count} done")
    return table


def _row(task: TaskRecord, called: str, condition: str | None, now: datetime.datetime) -> tuple[Text, Text, Text]:
    from rich.text import Text

    mark, style = MARKS[task.state], STYLES[task.state]
    seconds = task.seconds
    if task.state is State.RUNNING and task.started:
        seconds = (now - datetime.datetime.fromisoformat(task.started)).total_seconds()
    name = Text.assemble((mark, style), " ", (called, "dim" if style == "dim" else ""))
    # One form below a minute, so that the column does not jump.
    took = "" if seconds is None else f"{max(seconds, 0):.1f} s" if seconds < 60 else seconds_text(seconds)
    return name, Text(took), Text(_remark(task, condition), style=style)


def _remark(task: TaskRecord, condition: str | None) -> str:
    match task.state:
        case State.SUCCEEDED | State.PENDING:
            return "reused" if task.reused else f"after {len(task.retries) + 1} attempts" if task.retries else ""
        case State.RUNNING if task.retries:
            return f"attempt {len(task.retries) + 1}, after: {task.retries[-1].removeprefix(f'{task.name}: ')}"
        case State.SKIPPED if condition:
            return f"skipped: {unmet(condition)}"
        case State.FAILED:
            return f"failed: {message(task)}"
        case _:
            return task.state.lower()


def _sentence(task: TaskRecord, condition: str | None) -> str:
    took = f" in {seconds_text(task.seconds)}" if task.seconds is not None and task.state is not State.RUNNING else ""
    detail = _remark(task, condition) or task.state.lower()
    return detail if task.state is State.FAILED else detail + took
