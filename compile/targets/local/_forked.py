"""The other side of forkserver.py, run as a script: a process that becomes each task, as a fork of itself.

It has one thread and has imported nothing but the standard library and KFP's executor: what a fork cannot take along
(threads, connections, half-held locks) is not there. Messages are JSON, one a line:

    → {"run": ID, "source": …, "arguments": […], "environment": {…}, "folder": …, "log": …}
    → {"end": ID, "grace": SECONDS}    SIGTERM to its group, SIGKILL after so long; 0: SIGKILL at once
    → {"over": ID}                     nobody needs its group's number any longer
    ← {"ready": true}
    ← {"id": ID, "group": NUMBER}      it runs
    ← {"id": ID, "code": CODE}         it has ended, and what it left running is killed
    ← {"id": ID, "error": REASON}      it cannot be started
"""

from __future__ import annotations

import argparse
import builtins
import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
import threading
import time
import types
from typing import Any

EXECUTOR = "kfp.dsl.executor_main"
PROGRAM = "ephemeral_component.py"


class Server:
    """Forks, signals and reaps; the only process that knows which numbers are still its children's."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._groups: dict[int, int] = {}  # of tasks that were not reaped
        self._running: set[int] = set()
        self._kills: dict[int, float] = {}  # when the grace is over
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        self._before = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)

    def serve(self) -> dict[str, Any]:
        """Return, in a child that is to become a task, that task. Does not return in the server."""
        self._tell(ready=True)
        rest = b""
        while True:
            due = min(self._kills.values(), default=None)
            wait = None if due is None else max(0.0, due - time.monotonic())
            ready = select.select([self._channel, self._wake], [], [], wait)[0]
            if self._wake in ready:
                os.read(self._wake, 1 << 12)
            if self._channel in ready:
                read = os.read(self._channel, 1 << 18)
                if not read:
                    self._leave()
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "run" not in message:
                        self._obey(message)
                    elif not self._fork(message["run"]):
                        return message  # type: ignore[no-any-return]
            self._look()

    def _fork(self, task: int) -> bool:
        """Return whether this is still the server."""
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(id=task, error=error.strerror)
            return True
        if not pid:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, self._before)
            for descriptor in (self._channel, self._wake, self._woken):
                os.close(descriptor)
            return False
        self._groups[task] = pid
        self._running.add(task)
        self._tell(id=task, group=pid)
        return True

    def _obey(self, message: dict[str, Any]) -> None:
        task = message.get("over")
        if task is not None:
            if task in self._groups:
                os.waitpid(self._groups.pop(task), 0)
            return
        task = message["end"]
        if task in self._running:
            self._signal(task, signal.SIGTERM if message["grace"] else signal.SIGKILL)
            if message["grace"]:
                self._kills[task] = time.monotonic() + message["grace"]

    def _look(self) -> None:
        """Kill what had its time; tell of those that have ended, which stay zombies until they are over."""
        for task in [task for task, due in self._kills.items() if due <= time.monotonic()]:
            del self._kills[task]
            self._signal(task, signal.SIGKILL)
        for task in list(self._running):
            code = self._ended(task)
            if code is not None:
                self._running.discard(task)
                self._kills.pop(task, None)
                self._tell(id=task, code=code)

    def _ended(self, task: int) -> int | None:
        """Return a task's exit code, negative for a signal, once it has ended and its group is killed."""
        pid = self._groups[task]
        if hasattr(os, "waitid"):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            self._signal(task, signal.SIGKILL)
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        found_pid, status = os.waitpid(pid, os.WNOHANG)  # macOS before Python 3.13
        if not found_pid:
            return None
        self._signal(task, signal.SIGKILL)
        del self._groups[task]
        return os.waitstatus_to_exitcode(status)

    def _signal(self, task: int, number: int) -> None:
        pid = self._groups[task]
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it has not come to its setsid yet
            if task in self._running:
                os.kill(pid, number)
        except PermissionError:  # so macOS says where only zombies are left
            pass

    def _tell(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._channel, data) :]
        except OSError:
            self._leave()

    def _leave(self) -> None:
        """End with the engine, however that has ended, and take the tasks along."""
        for task in self._groups:
            self._signal(task, signal.SIGKILL)
        os._exit(0)


def preload() -> bool:
    """Import what every task needs; return whether nothing of it keeps a fork from being like a new process."""
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file
    importlib.import_module(EXECUTOR)
    # The executor's own parser brings in as much again when it is first used.
    parser = argparse.ArgumentParser()
    parser.add_argument("--function_to_execute", type=str, help="")
    parser.parse_known_args([])
    # It is what is going to run as __main__, so it must not be there yet.
    package, _, name = EXECUTOR.rpartition(".")
    delattr(sys.modules[package], name)
    del sys.modules[EXECUTOR]
    gc.collect()
    gc.freeze()  # what is never looked at stays shared with the forks
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
    return threads == 1


def become(task: dict[str, Any]) -> None:
    """Take on what a task's process has when `sh` has started Python in it."""
    log = os.open(task["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    environment = task["environment"]
    if "LC_CTYPE" in os.environ:  # Python sets it for itself where there is no locale
        environment.setdefault("LC_CTYPE", os.environ["LC_CTYPE"])
    os.environ.clear()
    os.environ.update(environment)
    try:
        os.chdir(task["folder"])
        os.environ.update(PWD=os.getcwd(), _KFP_RUNTIME="true")
        program = _write(os.environ.get("TMPDIR") or "/tmp", task["source"])  # noqa: S108 so does mktemp
    except OSError as error:
        print(f"the task's process cannot be prepared: {error}", file=sys.stderr)
        sys.exit(1)
    rest = ["--component_module_path", program, *task["arguments"]]
    sys.argv = ["-m", *rest]
    sys.orig_argv = ["python3", "-m", EXECUTOR, *rest]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.modules["__main__"].__builtins__ = builtins  # type: ignore[attr-defined]


def _write(temporary: str, source: str) -> str:
    folder = os.path.join(temporary, f"tmp.{os.urandom(5).hex()}")
    os.mkdir(folder, 0o700)
    path = os.path.join(folder, PROGRAM)
    with open(path, "wb") as file:
        file.write(os.fsencode(source))
    return path


def show_without_this_file(error: BaseException) -> None:
    """Have the traceback of an exception that ends the process begin where Python's own would."""
    hook, trace = sys.excepthook, error.__traceback__ and error.__traceback__.tb_next
    sys.excepthook = lambda kind, value, _: hook(kind, value.with_traceback(trace), trace)


if __name__ == "__main__":
    if not preload():
        sys.exit("there are threads, which a fork would not take along")
    become(Server(int(sys.argv[1])).serve())
    try:
        runpy._run_module_as_main(EXECUTOR)  # type: ignore[attr-defined]
    except BaseException as ending:
        show_without_this_file(ending)
        raise
