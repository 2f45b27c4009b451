"""The folder of a run: its making, its lock, and what a later resumption reads of it."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.record import FORMAT

LOCK = "lock"
SPEC = "spec.yaml"

_RUN_ID = re.compile(r"(?!\.)[\w.-]{1,128}")
_LONGEST_ENDING = 5.0  # seconds that what is left of a killed run may take to end


def new(runs: Path, pipeline: str, run_id: str | None) -> Path:
    """Make the folder of a run that begins.

    Args:
        runs: Folder of all runs.
        pipeline: Name of the pipeline.
        run_id: Name of the run; the pipeline's name, the time and some letters where it is not given.

    Raises:
        PenstockError: it cannot be made.
    """
    if run_id is not None and not _RUN_ID.fullmatch(run_id):
        raise PenstockError(f"run id {run_id!r}: letters, digits, '.', '_' and '-' make one, at most 128")
    name = re.sub(r"[^\w.-]+", "-", pipeline)[:80]
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
            folder = runs / (run_id or f"{name}-{stamp}-{secrets.token_hex(2)}")
            try:
                folder.mkdir()
            except FileExistsError:
                if run_id:
                    raise PenstockError(f"{folder} is there already; choose another run id") from None
                continue
            return folder
    except OSError as error:
        raise PenstockError(f"{runs}: cannot be written: {error}") from error


def known(runs: Path, run_id: str) -> Path:
    """Return the folder of a run that there was.

    Raises:
        PenstockError: there is no such run.
    """
    if not _RUN_ID.fullmatch(run_id) or not (runs / run_id).is_dir():
        raise PenstockError(f"there is no run {run_id} in {runs}; `penstock runs list` shows those there are")
    return runs / run_id


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    half = path.with_name(f"{path.name}.unfinished")
    half.write_bytes(content)
    half.replace(path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock that tells that a run is at work; the guard holds it too, until all tasks have ended.

    Raises:
        PenstockError: the run is at work.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + _LONGEST_ENDING
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise PenstockError(f"run {folder.name} is at work; end it first, or wait for its end") from None
                time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def record(folder: Path) -> dict[str, Any]:
    """Return of a run's record what a resumption needs: state, parameters, started, resumed, cwd and runner.

    Raises:
        PenstockError: it cannot be read.
    """
    try:
        found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']}")
        return {name: found[name] for name in ("state", "parameters", "started", "resumed", "cwd", "runner")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PenstockError(f"{folder / 'run.json'}: not the record of a run that can be resumed: {error}") from error
