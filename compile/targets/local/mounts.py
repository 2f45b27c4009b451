"""Folders at the paths that processes expect them at: symbolic links, there for as long as a process needs them.

A process has no mounts of its own, so a link is seen by everyone on the machine. Tasks that want different folders at
one path therefore wait for each other, those of other runs too: whoever has a link holds the lock of its path, which
the system lets go of when the engine dies. The lock's file says which link it was, so that the next one may clear it
away; whatever else is at a path stays as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from penstock.compile import launcher
from penstock.compile.targets.local.setting import Mount

_POLL = 0.1  # seconds between two looks at whether a path is free


def obstacle(path: str) -> str:
    """Return why a link cannot be made at a path, with what to do; "" where it can, or will once others are done."""
    if os.path.islink(path):  # whose it is shows when it is needed
        return ""
    if os.path.lexists(path):
        return _refusal(path, "something else is there")
    parent = next(parent for parent in Path(path).parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return _refusal(path, f"a link there cannot be made: {parent} cannot be written to")
    return ""


def in_place(mounts: Sequence[Mount], runner: launcher.Runner = launcher.run_process) -> launcher.Runner:
    """Return a runner whose commands find mounts in their places, if nothing else is there."""

    def run(
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
        with mounted(mounts, stop):
            return runner(command, args, env, folder, log, stop=stop, timeout=timeout, stream=stream)

    return run if mounts else runner


def emptied(mounts: Sequence[Mount], runner: launcher.Runner) -> launcher.Runner:
    """Return a runner that empties, before each command, the mounts that are to be fresh."""
    fresh = [mount.source for mount in mounts if mount.fresh]

    def run(*args: Any, **options: Any) -> int:
        try:
            for item in (item for folder in fresh for item in folder.iterdir()):
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item)
                else:
                    item.unlink()
        except OSError as error:
            raise launcher.TaskError(f"{error.filename}: cannot be emptied: {error.strerror}") from error
        return runner(*args, **options)

    return run if fresh else runner


@contextlib.contextmanager
def mounted(mounts: Sequence[Mount], stop: launcher.Stop, patience: float = 3600.0) -> Iterator[None]:
    """Have mounts in their places.

    Args:
        mounts: What has to be where.
        stop: Ends the wait for paths that other tasks use.
        patience: Seconds that the wait may take.

    Raises:
        TaskError: something else is at a path, or a link cannot be made there, or the time is over.
        Stopped: asked to, while waiting.
    """
    end = time.monotonic() + patience
    while taken := _LINKS.take(mounts):
        if time.monotonic() > end:
            raise launcher.TaskError(f"{taken} has been in use by another task for {patience:g} s")
        if stop.wait(_POLL):
            raise launcher.Stopped
    try:
        yield
    finally:
        _LINKS.give_back(mounts)


@dataclass
class _Link:
    """A path in use; `lock` is the open file of its lock."""

    source: Path
    lock: int
    made: bool
    users: int = 1


class _Links:
    """All paths in use in this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._links: dict[str, _Link] = {}
        self._parents: list[Path] = []  # made for links, outer ones first

    def take(self, mounts: Sequence[Mount]) -> str:
        """Take all paths and return "", or none of them and return the one that is in use."""
        taken: list[str] = []
        done = False
        with self._guard:
            try:
                for mount in sorted(mounts, key=lambda mount: mount.path):  # outer ones first
                    if not self._take(mount):
                        return mount.path
                    taken.append(mount.path)
                done = True
                return ""
            finally:
                if not done:
                    self._give_back(taken)

    def give_back(self, mounts: Sequence[Mount]) -> None:
        """Let go of paths that were taken."""
        with self._guard:
            self._give_back(sorted(mount.path for mount in mounts))

    def _take(self, mount: Mount) -> bool:
        if link := self._links.get(mount.path):
            link.users += link.source == mount.source
            return link.source == mount.source
        try:
            lock = _locked(mount.path)
            if lock is None:
                return False
            try:
                made = self._make(mount, lock)
            except BaseException:
                _unlock(lock)
                raise
        except OSError as error:
            raise launcher.TaskError(_refusal(mount.path, f"a link there cannot be made: {error.strerror}")) from error
        self._links[mount.path] = _Link(mount.source, lock, made)
        return True

    def _make(self, mount: Mount, lock: int) -> bool:
        """Make a link and return True; False where the source is there without one."""
        path = Path(mount.path)
        if path.is_symlink() and os.readlink(path) == os.fsdecode(os.pread(lock, 1 << 16, 0)):  # a killed engine's
            path.unlink()
        if os.path.lexists(path):
            if path.exists() and path.samefile(mount.source):
                return False
            raise launcher.TaskError(_refusal(mount.path, "something else is there"))
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            self._parents.append(parent)
        os.ftruncate(lock, 0)
        os.pwrite(lock, os.fsencode(mount.source), 0)
        path.symlink_to(mount.source)
        return True

    def _give_back(self, paths: Sequence[str]) -> None:
        for path in reversed(paths):
            link = self._links[path]
            link.users -= 1
            if link.users:
                continue
            del self._links[path]
            if link.made:
                with contextlib.suppress(OSError):  # the task may have moved it
                    if os.readlink(path) == str(link.source):
                        os.unlink(path)
                os.ftruncate(link.lock, 0)
            _unlock(link.lock)
        for parent in reversed(self._parents):
            with contextlib.suppress(OSError):  # another link is in it
                parent.rmdir()
        self._parents = [parent for parent in self._parents if parent.exists()]


_LINKS = _Links()


def _locked(path: str) -> int | None:
    """Return the open file of a path's lock; None where another process has it."""
    folder = Path(tempfile.gettempdir(), f"penstock-mounts-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise PermissionError(0, f"{folder} belongs to someone else")
    name = hashlib.sha256(path.encode()).hexdigest()[:32]
    lock = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _unlock(lock: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _refusal(path: str, reason: str) -> str:
    return f"{path} cannot be mounted for a process: {reason}; use --runner docker"
