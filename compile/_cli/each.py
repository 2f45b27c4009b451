"""Runs every compiled pipeline below a folder and shows a table of what came of each."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from penstock.compile import from_kfp, parameters
from penstock.compile._cli.outcome import one_line
from penstock.compile._cli.output import console, print_json, table
from penstock.compile._cli.running import Options, Stopped, signals_raised, split
from penstock.compile._cli.watching import Watch
from penstock.compile.targets import local
from penstock.compile.targets.local import each
from penstock.compile.targets.local.each import Outcome, Verdict
from penstock.compile.targets.local.look import seconds_text
from penstock.compile.targets.local.record import RunRecord

LONGEST = 120.0  # seconds for one spec, where no other time is given

_STYLES = {
    Verdict.SUCCEEDED: "green",
    Verdict.FAILED: "bold red",
    Verdict.REFUSED: "yellow",
    Verdict.TIMED_OUT: "bold red",
    Verdict.STOPPED: "yellow",
}


def run_each_and_show(
    folder: Path, given: Sequence[str], file: Path | None, options: Options, watch: Watch, as_json: bool
) -> int:
    """Run what is below a folder, show it, and return the exit code: 0 when every pipeline succeeded."""
    texts = split(given)
    options = dataclasses.replace(options, timeout=options.timeout or LONGEST)
    files = each.specs(folder, options.root)
    found: list[Outcome] = []
    begin = time.monotonic()
    stopped: Stopped | None = None
    last: list[RunRecord] = []
    with signals_raised(), _progress(len(files), quiet=as_json) as tell:

        def start(spec: Path) -> RunRecord:
            last.clear()
            pipeline = from_kfp.read(spec)
            values = parameters.from_file(pipeline, file, lenient=True) if file else {}
            values |= parameters.from_text(pipeline, {name: texts[name] for name in texts if name in pipeline.inputs})
            with watch.observers() as observers:

                def observe(record: RunRecord) -> None:
                    last[:] = [record]
                    for observer in observers:
                        observer(record)

                return local.run(spec, values, observe=observe, **options.keywords())

        try:
            for outcome in each.run_each(files, folder, start, time.monotonic):
                found.append(outcome)
                tell(outcome)
        except Stopped as stop:
            stopped = stop
            found.append(_interrupted(str(files[len(found)].relative_to(folder)), stop, last))
    if as_json:
        print_json([dataclasses.asdict(outcome) for outcome in found])
    else:
        _show(found, time.monotonic() - begin)
    if stopped:
        left = len(files) - len(found)
        print(f"stopped by {signal.Signals(stopped.number).name}; {left} more were not begun", file=sys.stderr)
        return 128 + stopped.number
    return 0 if all(outcome.state is Verdict.SUCCEEDED for outcome in found) else 1


def _interrupted(name: str, stop: Stopped, last: Sequence[RunRecord]) -> Outcome:
    reason = f"by {signal.Signals(stop.number).name}"
    if not last:
        return Outcome(name, Verdict.STOPPED, 0, 0.0, reason, None)
    return dataclasses.replace(each.outcome(name, last[0]), state=Verdict.STOPPED, reason=reason)


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[Outcome], None]]:
    """Give what is to be told of each outcome; it writes a line for each to stderr."""
    count = 0

    def tell(outcome: Outcome) -> None:
        nonlocal count
        count += 1
        took = seconds_text(outcome.seconds)
        # A reader that has gone is no reason to end the runs.
        with contextlib.suppress(OSError, ValueError):
            print(f"{count}/{total}  {outcome.file}: {outcome.state} in {took}", file=sys.stderr, flush=True)

    yield (lambda outcome: None) if quiet else tell


def _show(found: Sequence[Outcome], seconds: float) -> None:
    from rich.text import Text

    out = console()
    rows: list[list[str | Text]] = [
        [
            outcome.file,
            Text(outcome.state, _STYLES[outcome.state]),
            Text(str(outcome.tasks), justify="right"),
            Text(f"{outcome.seconds:.1f}", justify="right"),
            one_line(outcome.reason),
        ]
        for outcome in found
    ]
    out.print()
    out.print(table(["file", "state", "tasks", "seconds", "reason"], rows))
    counts = Counter(outcome.state for outcome in found)
    summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    out.print()
    out.print(f"{len(found)} pipelines in {seconds_text(seconds)}: {summary}", soft_wrap=True)
