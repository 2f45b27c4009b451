"""Runs every compiled pipeline below a folder, one after another, and tells what came of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.outline import message
from penstock.compile.targets.local.record import RunRecord, State

_SUFFIXES = (".yaml", ".yml", ".json")


class Verdict(StrEnum):
    """What came of a spec."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"  # nothing of it was run
    TIMED_OUT = "timed out"
    STOPPED = "stopped"  # by a signal, and with it all that would have come after


@dataclass(frozen=True)
class Outcome:
    """What came of a spec.

    Attributes:
        file: The spec, relative to the folder.
        tasks: Tasks that were carried out, whether they succeeded or failed.
        reason: One line; empty where it succeeded.
        run: Id of its run; None where it was refused.
    """

    file: str
    state: Verdict
    tasks: int
    seconds: float
    reason: str
    run: str | None


def specs(folder: Path, leave_out: Path) -> list[Path]:
    """Return the YAML and JSON files below a folder in the order of their paths.

    Args:
        folder: Where to look; what is hidden in it is left out.
        leave_out: A folder that is not looked into: the one of runs, which hold specs of their own.

    Raises:
        PenstockError: there are none.
    """
    found: list[Path] = []
    for path, folders, files in os.walk(folder):
        inside = Path(path)
        folders[:] = [
            name for name in folders if not name.startswith(".") and (inside / name).absolute() != leave_out.absolute()
        ]
        found += [inside / name for name in files if name.endswith(_SUFFIXES) and not name.startswith(".")]
    if not found:
        raise PenstockError(f"{folder}: there is no file *{', *'.join(_SUFFIXES)} in it")
    return sorted(found)


def run_each(
    files: Sequence[Path], folder: Path, start: Callable[[Path], RunRecord], seconds: Callable[[], float]
) -> Iterator[Outcome]:
    """Yield what came of each file, as soon as it is known.

    Args:
        files: What to run, below `folder`.
        start: Runs one to its end. A PenstockError of it refuses that one.
        seconds: A clock.
    """
    for file in files:
        name, begin = str(file.relative_to(folder)), seconds()
        try:
            record = start(file)
        except PenstockError as error:
            reason = str(error).removeprefix(f"{file}: ").removeprefix("cannot run here: ")
            yield Outcome(name, Verdict.REFUSED, 0, round(seconds() - begin, 3), reason, None)
        else:
            yield outcome(name, record)


def outcome(name: str, record: RunRecord) -> Outcome:
    """Return what came of a spec whose run has ended."""
    verdict = {State.SUCCEEDED: Verdict.SUCCEEDED, State.CANCELLED: Verdict.TIMED_OUT}.get(record.state, Verdict.FAILED)
    done = [task for task in record.tasks if task.kind != "dag" and task.state in (State.SUCCEEDED, State.FAILED)]
    reason = record.error or ""
    failed = [task for task in done if task.state is State.FAILED]
    if verdict is Verdict.FAILED and failed:
        reason = f"{failed[0].path}: {message(failed[0])}"
    return Outcome(name, verdict, len(done), record.seconds, " ".join(reason.split()), record.id)
