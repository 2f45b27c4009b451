"""Processes that outlive the one that starts them, and that any other finds again.

Each inherits a lock on the file `alive` of its folder, which the kernel lets go when it ends, however it ends. So a
process that runs is told from one whose number is another's by now, and none that is started can be overlooked, whoever
is killed when: before it runs nobody holds the lock, from then on it does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STEP = 0.02  # seconds between two looks
_PID = 5.0  # seconds for a new process to write its number down: its first deed
_KILLED = 10.0  # seconds for the kernel to end what got SIGKILL

# A shell that becomes the program: its number is written before the program does anything.
_WRITE_PID = 'echo $$ > "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Process:
    """A process by the folder that it is known by.

    Attributes:
        folder: Holds `alive`, `pid`, and `log`, what it says.
    """

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self, command: Sequence[str], environment: Mapping[str, str], inherit: Sequence[int] = ()) -> bool:
        """Start it in a session of its own, in its folder, and return True; False if it runs already.

        Args:
            inherit: Descriptors that it gets besides.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "alive", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # it runs, or someone is looking whether it does
                    if self.runs():
                        return False
            (self.folder / "pid").unlink(missing_ok=True)
            with self.log.open("wb") as log:
                subprocess.Popen(
                    ["/bin/sh", "-c", _WRITE_PID, "sh", str(self.folder / "pid"), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=dict(environment),
                    pass_fds=(lock, *inherit),
                    start_new_session=True,
                )
            return True
        finally:
            os.close(lock)

    def runs(self) -> bool:
        """Return whether it runs."""
        try:
            lock = os.open(self.folder / "alive", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            # Shared: of those who look at the same time none sees the other.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def pid(self) -> int:
        """Return its number; 0 if it does not run."""
        end = time.monotonic() + _PID
        while self.runs() and time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                text = (self.folder / "pid").read_text()
                if text.endswith("\n"):
                    return int(text)
            time.sleep(_STEP)
        return 0

    def said(self, lines: int = 5) -> str:
        """Return the last that it said, on one line."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())[-1500:]

    def stop(self, *asked: tuple[int, float]) -> None:
        """End it by these signals, each with the seconds that it is given, and by SIGKILL when they are over."""
        for number, seconds in (*asked, (signal.SIGKILL, _KILLED)):
            pid = self.pid()
            if not pid:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            end = time.monotonic() + seconds
            while self.runs():
                if time.monotonic() > end:
                    break
                time.sleep(_STEP)
