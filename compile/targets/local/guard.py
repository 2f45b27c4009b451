"""Ends the commands of a run whose engine was killed: SIGKILL leaves it no time to do that itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
from types import TracebackType

# Reads "+GROUP" and "-GROUP" a line. The pipe ends with the engine, however that ends.
_SCRIPT = """
trap '' HUP INT TERM
groups=' '
while read -r line; do
    group=${line#?}
    case $line in
        +*) groups="$groups$group " ;;
        -*) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class Guard:
    """A small shell beside the engine that knows which process groups are at work.

    Args:
        lock: File descriptor of the run's lock, which it holds until it has ended.
    """

    def __init__(self, lock: int) -> None:
        self._lock = lock

    def __enter__(self) -> Guard:
        self._shell = subprocess.Popen(
            ["sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        return self

    def watch(self, group: int, alive: bool) -> None:
        """Tell it of a process group that begins, or is about to be over."""
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is a help, not a need
            os.write(self._shell.stdin.fileno(), b"%s%d\n" % (b"+" if alive else b"-", group))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        self._shell.wait()
