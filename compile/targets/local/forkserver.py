"""Runs lightweight Python components as forks of one warm process, which spares each the start of Python and KFP.

Whatever is not exactly that, in command or environment, runs as a process of its own, as does everything once the
server is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from penstock.compile import launcher

# What `sh -ec` runs, with the source as $0 and the executor's arguments as $@, as KFP writes it since 2.1.
_SCRIPT = """
program_path=$(mktemp -d)
printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@"
"""
_SERVER = Path(__file__).with_name("_forked.py")
# Read when Python, or the loader before it, starts; HOME tells where the user's own packages are.
_READ_AT_START = re.compile(r"PYTHON|LD_|DYLD_|MALLOC_|GLIBC_|LC_|LANG|LOCPATH|TZ|HOME$|__PYVENV_LAUNCHER__$|COVERAGE_")
_LONGEST_START = 30.0  # seconds; then tasks do without
_LONGEST_SILENCE = 10.0  # seconds that the server may take over what it does at once
_LONGEST_ARGUMENT = (1 << 17) - 1  # bytes of an argument or a variable that Linux takes when a process starts


class ForkServer:
    """A process that forks tasks; starts with the first of them, ends with the context.

    Args:
        env: Environment that tasks have in common, which the server starts in.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._known = threading.Event()  # whether the server is there
        self._alive = False
        self._popen: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._tasks: dict[int, _Inbox] = {}
        self._python = os.path.join(os.path.dirname(sys.executable), "python3")
        # On macOS a fork that uses Apple's frameworks can crash, and what a component uses nobody knows.
        self._can = hasattr(os, "fork") and sys.platform != "darwin" and self._same_python(env)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._can = False
        if self._popen is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._popen.wait(_LONGEST_SILENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._reader.join()
        self._socket.close()

    def run(
        self,
        command: Sequence[str],
        args: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        log: Path,
        *,
        stop: launcher.Stop,
        timeout: float | None = None,
        stream: BinaryIO | None = None,
    ) -> int:
        """Do what `launcher.run_process` does, in a fork where that makes no difference."""
        program = None if stream else _program([*command, *args])
        inbox = _Inbox()
        if program and self._fits(program, env) and (number := self._register(inbox)):
            try:
                log.open("ab").close()  # that it cannot be written is not the task's failure
                if stop.requested():
                    raise launcher.Stopped
                stop.add(inbox)
                self._send(
                    run=number,
                    source=program[0],
                    arguments=program[1:],
                    environment=dict(env),
                    folder=str(folder),
                    log=str(log),
                )
                code = self._wait(number, inbox, stop, timeout)
            finally:
                stop.remove(inbox)
                with self._lock:
                    del self._tasks[number]
            if code is not None:
                return code
        return launcher.run_process(command, args, env, folder, log, stop=stop, timeout=timeout, stream=stream)

    def _wait(self, number: int, inbox: _Inbox, stop: launcher.Stop, timeout: float | None) -> int | None:
        """Return a task's exit code; None where the server could not fork."""
        due = time.monotonic() + timeout if timeout else None
        group, late, ending = None, False, False
        while True:
            try:
                message = inbox.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                if ending:  # the server does not do what it is told: then its end has to do
                    self._kill()
                    due = None
                    continue
                late = True
                message = {"end": stop.grace}
            if "group" in message:
                group = message["group"]
                stop.watch(group, True)
            elif "end" in message:
                ending, due = True, time.monotonic() + message["end"] + _LONGEST_SILENCE
                self._send(end=number, grace=message["end"])
            else:
                break
        if group is not None:
            if "gone" in message:  # at once, so that its number is hardly anyone else's yet
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
            stop.watch(group, False)
            self._send(over=number)
        if stop.requested():
            raise launcher.Stopped
        if late:
            raise launcher.TaskError(f"timed out after {timeout:g} s", message.get("code"))
        if "gone" in message:
            raise launcher.TaskError(
                "the process that Python components are forked from ended before it did, killed by someone or for "
                "want of memory; run it again"
            )
        code: int | None = message.get("code")
        return code

    # What makes no difference

    def _fits(self, texts: Sequence[str], env: Mapping[str, str]) -> bool:
        return (
            self._can
            and _at_start(env) == _at_start(self._env)
            and self._same_python(env)
            and all("\0" not in text for text in texts)
            and all(name and "=" not in name and "\0" not in name + value for name, value in env.items())
            and all(len(os.fsencode(text)) <= _LONGEST_ARGUMENT for text in texts)
            and all(len(os.fsencode(f"{name}={value}")) <= _LONGEST_ARGUMENT for name, value in env.items())
        )

    def _same_python(self, env: Mapping[str, str]) -> bool:
        """Return whether `python3` is the Python that runs the engine, out of the same environment of packages."""
        found = shutil.which("python3", path=env.get("PATH", os.defpath))
        return found == self._python and os.path.samefile(found, sys.executable)

    # The server

    def _register(self, inbox: _Inbox) -> int | None:
        """Return the number of a task that the server is there for; the first one starts it. None: it is not there."""
        with self._lock:
            if self._can and self._popen is None:
                self._start()
            if self._popen is None:
                return None
        if not self._known.wait(_LONGEST_START):
            self._kill()
        with self._lock:
            if not self._alive:
                return None
            number = next(self._numbers)
            self._tasks[number] = inbox
            return number

    def _start(self) -> None:
        self._socket, other = socket.socketpair()
        # As `timeval`; a timeout of Python's would hold for the reader too, which waits as long as tasks take.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_LONGEST_SILENCE), 0))
        with other:
            try:
                self._popen = subprocess.Popen(
                    [self._python, str(_SERVER), str(other.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={**self._env, "_KFP_RUNTIME": "true"},
                    pass_fds=[other.fileno()],
                    start_new_session=True,
                )
            except OSError:
                self._can = False
                self._socket.close()
                return
        self._reader = threading.Thread(target=self._read, name="forkserver", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                with self._lock:
                    if "ready" in message:
                        self._alive = True
                        self._known.set()
                    elif inbox := self._tasks.get(message["id"]):
                        inbox.put(message)
        with self._lock:
            self._alive = self._can = False
            self._known.set()
            for inbox in self._tasks.values():
                inbox.put({"gone": True})

    def _send(self, **message: Any) -> None:
        try:
            with self._sending:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._kill()  # half a message may have gone; what is at work hears of the end from the reader

    def _kill(self) -> None:
        if self._popen:
            self._popen.kill()


class _Inbox(queue.SimpleQueue[dict[str, Any]]):
    """What there is to know for the thread that waits for a task."""

    def end(self, grace: float) -> None:
        """Have the task's group sent SIGTERM, and SIGKILL after so many seconds; 0: SIGKILL at once."""
        self.put({"end": grace})


def _program(line: Sequence[str]) -> list[str] | None:
    """Return the source and the executor's arguments of a lightweight component's command line; None for any other."""
    if len(line) > 3 and line[0] == "sh" and line[1] == "-ec" and _spaced(line[2]) == _spaced(_SCRIPT):
        return list(line[3:])
    return None


def _spaced(script: str) -> list[list[str]]:
    """Return the words of a script by line, blank ones left out."""
    return [line.split() for line in script.splitlines() if line.strip()]


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if _READ_AT_START.match(name)}
