"""The folder of a run: its making and its lock."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.compile.errors import PenstockError

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
