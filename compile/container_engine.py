"""The container engine of this machine, for one run: fetches images, runs containers, leaves none behind."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from penstock.compile import launcher
from penstock.compile.errors import PenstockError

# Seconds.
_DEADLINE = 60.0  # for the engine's answer to a call
_QUICK = 5.0  # for its answer to whether it is there
_SILENCE = 15.0  # without output, after which we look whether the container is still at work
_FETCH_SILENCE = 120.0  # without news of an image that is being fetched
_NEWS = 5.0  # between two lines about it

_CONNECTIONS = 64  # kept for the next call; more of them may be open
_OURS = "penstock/"  # images that are built here; whoever has that name at a registry is a stranger
_PRIVILEGED = ("", "0", "root")

# The pipe ends with the engine, however that ends.
_GUARD = """
import signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.read()
from penstock.compile.container_engine import remove_all
remove_all(sys.argv[1])
"""


@dataclass(frozen=True)
class Image:
    """An image that is here.

    Attributes:
        id: Hash of all that is in it.
        user: As the image has it, `USER` or `USER:GROUP`; empty: root.
    """

    id: str
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def available() -> str | None:
    """Return why no container engine can be used here, in one line; None where one answers."""
    try:
        with _reaching():
            _connect(_QUICK).close()
    except _NoEngine as error:
        return str(error)
    return None


def fetch(client: Any, names: Sequence[str], tell: Callable[[str], None]) -> dict[str, str]:
    """Fetch images and return those that could not be, with the reason.

    Args:
        client: Of the container engine.
        tell: Told, in one line, what is being fetched and how far that is.
    """
    # Threads that end with the process, so that neither a deadline nor Ctrl-C has to wait for them.
    news: queue.SimpleQueue[tuple[str, _Progress | str | None]] = queue.SimpleQueue()
    for name in names:
        threading.Thread(target=_pull, args=(client, name, news), daemon=True).start()
        tell(f"fetching image {name}")
    left, problems = set(names), {}
    heard = dict.fromkeys(names, time.monotonic())
    told = dict(heard)
    while left:
        try:
            name, what = news.get(timeout=0.5)
        except queue.Empty:
            for name in [name for name in left if time.monotonic() - heard[name] > _FETCH_SILENCE]:
                problems[name] = f"no news from its registry for {_FETCH_SILENCE:g} s"
                left.remove(name)
            continue
        now = heard[name] = time.monotonic()
        if isinstance(what, _Progress):
            if now - told[name] > _NEWS:
                told[name] = now
                tell(f"fetching image {name}: {what.current / 1e6:.0f} of {what.total / 1e6:.0f} MB")
            continue
        left.discard(name)
        if what:
            problems[name] = what
    return problems


def remove_all(label: str) -> None:
    """Remove the containers with a label, `name=value`, and those that the engine is still about to make.

    Tries for a minute where the engine does not answer.
    """
    end, quiet = time.monotonic() + _DEADLINE, 0
    while quiet < 3 and time.monotonic() < end:
        with contextlib.suppress(_NoEngine), _reaching(), contextlib.closing(_connect(_DEADLINE)) as client:
            quiet = 0 if _remove_labelled(client, label) else quiet + 1
        time.sleep(0.5)


class ContainerEngine:
    """The container engine while one run is at work; a context manager.

    Leaving removes what is still there; should the process that runs the pipeline be killed, one beside it does.

    Args:
        labels: Labels of every container.
        stale: Label, `name=value`, of containers that a run that was killed may have left; they are removed first.
    """

    def __init__(self, labels: Mapping[str, str], stale: str = "") -> None:
        self._own = f"penstock.session={secrets.token_hex(8)}"
        self._stale = stale
        self.labels = {**labels, "penstock.session": self._own.partition("=")[2]}
        self._images: dict[str, Image] = {}
        self._fetched: set[str] = set()
        self._preparing = threading.Lock()

    def __enter__(self) -> ContainerEngine:
        """Connect to the engine.

        Raises:
            PenstockError: none answers.
        """
        try:
            with contextlib.ExitStack() as stack, _reaching():
                self._client = _connect(_DEADLINE)
                stack.callback(self._client.close)
                info = self._client.info()
                if self._stale:
                    _remove_labelled(self._client, self._stale)
                stack.pop_all()
        except _NoEngine as error:
            raise PenstockError(f"{error}; start Docker, or use --runner subprocess") from error
        options = [option.partition("name=")[2].split(",")[0] for option in info.get("SecurityOptions") or ()]
        self._rootless = "rootless" in options
        self.other_ids = self._rootless or "userns" in options
        # Without one, a command is the first process, which ignores every signal that it does not handle.
        self.has_init = (info.get("InitCommit") or {}).get("ID", "N/A") != "N/A"
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD, self._own],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        # Removing a container takes time that its task need not wait for.
        self._cleaner = ThreadPoolExecutor(1, thread_name_prefix="containers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleaner.shutdown(wait=True, cancel_futures=True)
        assert self._guard.stdin is not None
        try:
            with _reaching():
                _remove_labelled(self._client, self._own)
        except _NoEngine:
            self._guard.stdin.close()  # it goes on trying
        else:
            self._guard.kill()
            self._guard.stdin.close()
            self._guard.wait()
        self._client.close()

    def prepare(self, images: Mapping[str, bool], tell: Callable[[str], None] | None = None) -> None:
        """Fetch the images that are not here.

        A task runs what its image's name meant now, whatever comes to have that name later.

        Args:
            images: Names as `docker pull` takes them, each with whether it is fetched even where it is here.
            tell: Told, in one line, what is being fetched and how far that is.

        Raises:
            PenstockError: some are neither here nor can be fetched; names all of them.
        """
        problems = self.missing(images, tell or (lambda line: None))
        if problems:
            listed = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
            raise PenstockError(f"images that cannot be had: {listed}; build them, log in, or use --runner subprocess")

    def missing(self, images: Mapping[str, bool], tell: Callable[[str], None]) -> dict[str, str]:
        """Fetch the images that are not here, as `prepare` does, and return why some cannot be had, by name."""
        wanted, problems = [], {}
        for name, always in images.items():
            try:
                if self._find(name) and not always:
                    continue
                if name.startswith(_OURS):
                    if name not in self._images:
                        problems[name] = "is not here, where `penstock images build` makes it"
                    continue
                wanted.append(name)
            except launcher.TaskError as error:
                problems[name] = str(error)
        problems |= fetch(self._client, wanted, tell)
        for name in wanted:
            if name in problems:
                continue
            self._fetched.add(name)
            if not self._find(name):
                problems[name] = "was fetched and is not here"
        return problems

    def image(self, name: str, always: bool = False) -> Image:
        """Return an image.

        Args:
            name: As `docker pull` takes it; fetched now where `prepare` has not seen it.
            always: Whether it is fetched, once a run, even where it is here.

        Raises:
            TaskError: it is not here and cannot be fetched.
        """

        def is_known() -> bool:
            return name in self._images and (name in self._fetched or not always)

        if not is_known():
            with self._preparing:
                if not is_known():
                    try:
                        self.prepare({name: always})
                    except PenstockError as error:
                        raise launcher.TaskError(str(error)) from error
        return self._images[name]

    def run(
        self,
        image: Image,
        config: Mapping[str, Any],
        user: str,
        own: Sequence[Path],
        log: Path,
        *,
        stop: launcher.Stop,
        limit: float = math.inf,
        stream: BinaryIO | None = None,
    ) -> int:
        """Run a container to its end and return its exit code as that of a process, negative for a signal.

        Args:
            image: Its image.
            config: Of the container as the engine takes it; image, user, labels and attached outputs are added.
            user: Whom it runs as; empty: root.
            own: Folders of this machine that it may write; what it wrote there is this user's own afterwards. The first
                has to be readable then.
            log: File that its output is appended to.
            stop: Ends it early.
            limit: Seconds after which it is ended.
            stream: Where its output goes as well.

        Raises:
            TaskError: it cannot be run, the time is over, or it ran out of memory.
            Stopped: it was ended through `stop`.
        """
        whole = {
            **config,
            "Image": image.id,
            "User": user,
            "Labels": self.labels,
            "Healthcheck": {"Test": ["NONE"]},
            "AttachStdout": True,
            "AttachStderr": True,
        }
        with log.open("ab") as file:

            def write(chunk: bytes) -> None:
                for target in (file, stream) if stream else (file,):
                    target.write(chunk)
                    target.flush()

            try:
                state, late = self._carry_out(whole, write, limit, stop)
            finally:
                problem = self._take_back(image, own)
                if problem:
                    write(f"penstock: {problem}\n".encode())
        if stop.requested():
            raise launcher.Stopped
        code = _exit_code(state["ExitCode"])
        if late:
            raise launcher.TaskError(f"timed out after {limit:g} s", code)
        if state.get("OOMKilled") and code:
            raise launcher.TaskError(
                "killed, for it ran out of memory; give the container engine more, or the task less data", code
            )
        if problem and not code and not all(os.access(path, os.R_OK) for path in entries(own[0])):
            raise launcher.TaskError(f"its outputs cannot be read: {problem}", code)
        return code

    def open(self, user: str, own: Sequence[Path]) -> None:
        """Let a user who is not root write folders."""
        if user.partition(":")[0] in _PRIVILEGED and not self.other_ids:
            return
        for path in own:
            if os.geteuid() == 0 and is_numeric(user) and not self.other_ids:
                number, _, group = user.partition(":")
                os.chown(path, int(number), int(group) if group.isdigit() else -1)
                path.chmod(0o755)
            else:
                path.chmod(0o777)

    def _find(self, name: str) -> bool:
        """Take note of an image that is here."""
        from docker.errors import ImageNotFound

        with _asking():
            try:
                found = self._client.inspect_image(name)
            except ImageNotFound:
                return False
        config = found.get("Config") or {}
        self._images[name] = Image(found["Id"], config.get("User") or "", config.get("Labels") or {})
        return True

    def _carry_out(
        self, config: dict[str, Any], write: Callable[[bytes], None], limit: float, stop: launcher.Stop
    ) -> tuple[dict[str, Any], bool]:
        """Run a container to its end; return its last state and whether that came of the limit."""
        with _asking():
            identity = self._client.create_container_from_config(config)["Id"]
        try:
            with _asking():
                # Attached before it starts: of one that ends at once nothing is lost.
                attached = self._client.attach_socket(identity, {"stdout": 1, "stderr": 1, "stream": 1})
            connection = getattr(attached, "_sock", attached)  # a SocketIO cannot be read again after a timeout
            with contextlib.closing(attached), contextlib.closing(connection):
                with _asking():
                    self._client.start(identity)
                container = _Container(self._client, identity, stop.grace)
                stop.add(container)
                try:
                    late = container.follow(connection, write, limit)
                    return container.wait(limit, late)
                finally:
                    stop.remove(container)
        finally:
            with contextlib.suppress(RuntimeError):  # the run is being left, which removes all
                self._cleaner.submit(self._remove, identity)

    def _remove(self, identity: str) -> None:
        with contextlib.suppress(launcher.TaskError), _asking():  # leaving tries again
            self._client.remove_container(identity, v=True, force=True)

    def _take_back(self, image: Image, own: Sequence[Path]) -> str | None:
        """Make what a task wrote this user's own, and readable to the users of other containers, as on Kubeflow.

        Returns:
            Why it could not be done.
        """
        me, outputs, problem = os.geteuid(), own[0], None
        if me != 0 and any(entry.lstat().st_uid != me for path in own for entry in entries(path)):
            problem = self._chown(image, own)
        with contextlib.suppress(PermissionError):  # then there is a problem
            outputs.chmod(0o755)
            for path in entries(outputs):
                permit(path)
        return problem

    def _chown(self, image: Image, own: Sequence[Path]) -> str | None:
        """Give a task's folders to this user, by a container that may; return why it could not be done."""
        owner = "0:0" if self._rootless else f"{os.geteuid()}:{os.getegid()}"
        config = {
            "Image": image.id,
            "Entrypoint": ["chown", "-Rh", owner],
            "Cmd": [str(path) for path in own],
            "User": "0:0",
            "Labels": self.labels,
            "HostConfig": {
                "Mounts": [{"Type": "bind", "Source": str(path), "Target": str(path)} for path in own],
                "NetworkMode": "none",
                "LogConfig": {"Type": "none"},
                "CapDrop": ["ALL"],
                "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
            },
        }
        said: list[bytes] = []
        try:
            state, _ = self._carry_out(config, said.append, _DEADLINE, launcher.Stop())
        except launcher.TaskError as error:
            reason = str(error)
        else:
            if state["ExitCode"] == 0:
                return None
            reason = b"".join(said).decode("utf-8", "replace") or f"exit code {state['ExitCode']}"
        reason = " ".join(reason.split())
        return f"what it wrote belongs to the user of its container, and chown in its image failed: {reason}"


@dataclass(frozen=True)
class _Progress:
    current: int
    total: int


class _Container:
    """A container at work."""

    def __init__(self, client: Any, identity: str, grace: float) -> None:
        self._client, self._identity, self._grace = client, identity, grace
        self._began = time.monotonic()
        self._over_by = math.inf  # when it has to have ended

    def end(self, grace: float) -> None:
        """Send its stop signal, and SIGKILL after so many seconds; 0: SIGKILL at once."""
        self._over_by = min(self._over_by, time.monotonic() + grace + _DEADLINE)
        threading.Thread(target=self._end, args=(math.ceil(grace),), daemon=True).start()

    def _end(self, grace: int) -> None:
        with contextlib.suppress(launcher.TaskError), _asking():  # who waits for it sees that it goes on
            if grace:
                self._client.stop(self._identity, timeout=grace)
            else:
                self._client.kill(self._identity)

    def follow(self, connection: Any, write: Callable[[bytes], None], limit: float) -> bool:
        """Hand over its output until that ends; return whether it took longer than the limit."""
        demultiplexed = _Demultiplexer(write)
        late = False
        while True:
            connection.settimeout(self._patience(limit, late))
            chunk = None
            with _asking(), contextlib.suppress(TimeoutError):
                chunk = connection.recv(1 << 16)
            if chunk:
                demultiplexed(chunk)
            elif chunk == b"" or not self._state()["Running"]:
                return late
            late = self._check(limit, late)

    def wait(self, limit: float, late: bool) -> tuple[dict[str, Any], bool]:
        """Wait until it has ended; return its state and whether it took longer than the limit."""
        while True:
            # The engine's answer tells when to look; so does its absence.
            with contextlib.suppress(launcher.TaskError), _asking():
                self._client.wait(self._identity, timeout=self._patience(limit, late))
            state = self._state()
            if not state["Running"]:
                return state, late
            late = self._check(limit, late)
            time.sleep(0.05)

    def _patience(self, limit: float, late: bool) -> float:
        left = math.inf if late else self._began + limit - time.monotonic()
        return max(0.01, min(_SILENCE, left))

    def _check(self, limit: float, late: bool) -> bool:
        now = time.monotonic()
        if now > self._over_by:
            raise launcher.TaskError("the container engine does not end its container")
        if not late and now >= self._began + limit:
            self.end(self._grace)
            return True
        return late

    def _state(self) -> dict[str, Any]:
        with _asking():
            state: dict[str, Any] = self._client.inspect_container(self._identity)["State"]
            return state


class _Demultiplexer:
    """Takes standard output and error as the engine mixes them, frames with headers of 8 bytes, and writes the text."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._header = b""
        self._left = 0

    def __call__(self, chunk: bytes) -> None:
        while chunk:
            if self._left:
                part, chunk = chunk[: self._left], chunk[self._left :]
                self._left -= len(part)
                self._write(part)
            else:
                missing = 8 - len(self._header)
                self._header, chunk = self._header + chunk[:missing], chunk[missing:]
                if len(self._header) == 8:
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""


class _NoEngine(Exception):
    """Why no container engine can be used, in one line."""


def _connect(timeout: float) -> Any:
    import docker

    return docker.from_env(timeout=timeout, max_pool_size=_CONNECTIONS).api


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    """Turn an engine that does not answer, while no task depends on it, into _NoEngine."""
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError, ValueError) as error:
        root = _root(error)
        host = os.environ.get("DOCKER_HOST")
        where = f" at DOCKER_HOST={host}" if host else ""
        if isinstance(root, FileNotFoundError):
            reason = "its socket is not there"
        elif isinstance(root, PermissionError):
            reason = "its socket is not for this user, who may have to join the group docker"
        else:
            reason = _reason(error)
        raise _NoEngine(f"no container engine answers{where}: {reason}") from error


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Turn what the engine refuses or does not answer into the task's error."""
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        reason = str(error.explanation or error)
        if "bind source path does not exist" in reason:
            reason += "; the engine has to see this machine's files"
        raise launcher.TaskError(f"the container engine refuses: {reason}") from error
    except (DockerException, OSError) as error:
        raise launcher.TaskError(f"the container engine no longer answers: {_reason(error)}") from error


def _root(error: BaseException) -> BaseException:
    """Return the error of the operating system that is wrapped in others."""
    inner = [error.__cause__, error.__context__, *error.args]
    for other in inner:
        if isinstance(other, BaseException):
            return _root(other)
    return error


def _reason(error: BaseException) -> str:
    root = _root(error)
    return " ".join(str(getattr(root, "strerror", None) or root).split()) or type(root).__name__


def _remove_labelled(client: Any, label: str) -> bool:
    """Remove the containers with a label; return whether there were any."""
    from docker.errors import APIError

    found = client.containers(all=True, quiet=True, filters={"label": label})
    for container in found:
        with contextlib.suppress(APIError):  # it is gone, or about to be
            client.remove_container(container["Id"], v=True, force=True)
    return bool(found)


def _pull(client: Any, name: str, news: queue.SimpleQueue[tuple[str, _Progress | str | None]]) -> None:
    """Fetch an image; tell how far that is, and at last the reason why it cannot be had, or None."""
    layers: dict[str, tuple[int, int]] = {}
    try:
        with _asking():
            platform = os.environ.get("DOCKER_DEFAULT_PLATFORM")
            for event in client.pull(name, stream=True, decode=True, platform=platform):
                if "error" in event:
                    raise launcher.TaskError(str(event["error"]))
                detail = event.get("progressDetail") or {}
                if event.get("status") == "Downloading" and detail.get("total"):
                    layers[event["id"]] = (detail.get("current", 0), detail["total"])
                news.put((name, _Progress(*(sum(column) for column in zip((0, 0), *layers.values(), strict=True)))))
    except launcher.TaskError as error:
        news.put((name, str(error)))
    except Exception as error:
        news.put((name, f"{type(error).__name__}: {error}"))
    else:
        news.put((name, None))


def is_numeric(user: str) -> bool:
    """Return whether a user, `USER` or `USER:GROUP`, is a number other than root's."""
    number = user.partition(":")[0]
    return number.isdigit() and int(number) != 0


def _exit_code(code: int) -> int:
    """Return the exit code of a container as that of a process: 137 is death by SIGKILL, -9."""
    try:
        return -signal.Signals(code - 128)
    except ValueError:
        return int(code)


def permit(path: Path) -> None:
    """Let everybody read a file or enter a folder."""
    mode = path.lstat().st_mode
    wanted = mode | (0o555 if stat.S_ISDIR(mode) or mode & 0o100 else 0o444)
    if not stat.S_ISLNK(mode) and mode != wanted:
        path.chmod(stat.S_IMODE(wanted))


def entries(folder: Path) -> Iterator[Path]:
    """Yield all that is below a folder."""
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(path, name)
