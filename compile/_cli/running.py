"""Runs a pipeline on this machine and shows what came of it."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.compile import from_kfp, parameters
from penstock.compile._cli.outcome import near, problems, resumption, show
from penstock.compile._cli.output import print_json
from penstock.compile._cli.progress import progress
from penstock.compile._cli.sources import Source, find_source
from penstock.compile._cli.watching import Observe, Watch
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local.record import RunRecord, State

Tell = Callable[[str], None]


class Stopped(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Options:
    """How to run: what `local.run` takes beside the pipeline."""

    root: Path
    jobs: int
    runner: str | None = None
    reuse: bool = True
    objects: tuple[Path, ...] = ()
    timeout: float | None = None

    def keywords(self) -> dict[str, Any]:
        """Return those that were given as keyword arguments."""
        return {name: value for name, value in vars(self).items() if value is not None}


def run_and_show(
    what: str, given: Sequence[str], file: Path | None, options: Options, watch: Watch, as_json: bool
) -> int:
    """Run what the user named, show it, and return the exit code."""
    texts = split(given)
    source = find_source(what)

    def start(folder: Path, observe: Observe, tell: Tell) -> RunRecord:
        spec = _compiled(source, folder)
        pipeline = from_kfp.read(spec)
        values = parameters.from_file(pipeline, file) if file else {}
        values |= parameters.from_text(pipeline, texts)
        return local.run(spec, values, observe=observe, tell=tell, **options.keywords())

    return _show_all_of(start, watch, as_json)


def resume_and_show(run_id: str, options: Options, watch: Watch, as_json: bool) -> int:
    """Resume a run, show it, and return the exit code."""

    def start(folder: Path, observe: Observe, tell: Tell) -> RunRecord:
        return local.resume(run_id, observe=observe, tell=tell, **options.keywords())

    return _show_all_of(start, watch, as_json)


def _show_all_of(start: Callable[[Path, Observe, Tell], RunRecord], watch: Watch, as_json: bool) -> int:
    """Show a run from its start, which is given a temporary folder and who is told of it, to its end."""
    record: RunRecord | None = None
    last: list[RunRecord] = []
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder, signals_raised():
        try:
            with watch.observers() as observers, progress(sys.stderr, quiet=as_json) as observer:

                def observe(record: RunRecord) -> None:
                    if not last:
                        for warning in record.warnings:
                            observer.tell(f"warning: {warning}")
                    last[:] = [record]
                    for each in (observer, *observers):
                        each(record)

                record = start(Path(folder), observe, observer.tell)
        except Stopped as stop:
            if as_json and last:
                print_json(last[0].to_json())
            where = f"; see {near(Path(last[0].folder))}" if last else ""
            again = f"; to go on from there: {resumption(last[0])}" if last else ""
            print(f"stopped by {signal.Signals(stop.number).name}{where}{again}", file=sys.stderr)
            return 128 + stop.number
    if as_json:
        print_json(record.to_json())
    elif not watch.takes_stdout:
        show(record)
    for line in problems(record):
        print(line, file=sys.stderr)
    if record.state is State.SUCCEEDED:
        return 0
    print(f"to go on from here: {resumption(record)}", file=sys.stderr)
    return 1


def split(given: Sequence[str], option: str = "-p", example: str = "seed=7") -> dict[str, str]:
    """Return the texts of name=value by name."""
    texts: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise PenstockError(f"{option} {text}: give it as name=value, for example {option} {example}")
        if name in texts:
            raise PenstockError(f"{option} {name} is given twice")
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
def signals_raised() -> Iterator[None]:
    """Raise what asks the command to end as an exception, so that whatever runs is ended on the way out."""

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough: a second one would cut short the ending of what runs.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

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
