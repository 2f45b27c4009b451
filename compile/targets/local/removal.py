"""Removes what runs have left below a root: runs, what the cache knows of them, environments, halves; never volumes."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import runs
from penstock.compile.targets.local.record import State

_REMOVING = ".removing-"
_HALF_DONE = datetime.timedelta(hours=1)  # after which what is unfinished is nobody's work any more
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WHOLE = "penstock.json"  # in an environment, written last
# What the engine writes before a run's first record.
_BEFORE_RECORD = {"lock", "spec.yaml", "spec.yaml.unfinished", "run.json.unfinished"}


@dataclass(frozen=True)
class Criteria:
    """Which runs to remove: those that meet all that is given.

    Attributes:
        keep: All but this many, the newest.
        older_than: Those begun, or resumed, before that; also environments that were not used since.
        failed: Those that did not succeed.
    """

    keep: int | None = None
    older_than: datetime.timedelta | None = None
    failed: bool = False

    def __bool__(self) -> bool:
        return self != Criteria()


@dataclass(frozen=True)
class Item:
    """Something to remove.

    Attributes:
        kind: "run", "environment", "cache entry" or "leftover".
        name: What to call it.
        path: The file or folder.
        bytes: What it frees on disk once it and all before it are removed.
    """

    kind: str
    name: str
    path: Path
    bytes: int = 0


def age(text: str) -> datetime.timedelta:
    """Return the time that a text such as 30d, 12h, 90m or 2w stands for.

    Raises:
        PenstockError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,5})([mhdw])", text)
    if not found:
        raise PenstockError(f"--older-than {text}: give minutes, hours, days or weeks, such as 90m, 12h, 30d or 2w")
    return datetime.timedelta(**{_UNITS[found[2]]: int(found[1])})


def plan(root: Path, criteria: Criteria) -> list[Item]:
    """Return what the criteria remove below a root, and what is of no use to anybody. Nothing is removed.

    A run that is at work and what it may use stay, and so does a folder that is not known to be a run's.
    """
    now = datetime.datetime.now(datetime.UTC)
    found = runs.listed(root)
    gone = [run for index, run in enumerate(found) if _meets(run, index, criteria, now)]
    items = [Item("run", run.id, run.folder) for run in gone]
    if criteria.older_than is not None and not any(run.state == State.RUNNING for run in found):
        items += _environments(root, now - criteria.older_than)
    items += _cache_entries(root, {run.id for run in gone})
    items += _leftovers(root, [run for run in found if run not in gone], now)
    return list(_sized(items))


def remove(items: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    """Remove items one by one; yield each with why it could not be removed, "" where it was.

    Folders get another name first, so that nobody takes what is left of them for whole; what a kill leaves of that is
    a leftover of the next plan.
    """
    for item in items:
        try:
            yield item, _remove(item)
        except FileNotFoundError:  # by somebody else, meanwhile
            yield item, ""
        except OSError as error:
            yield item, f"{error.filename or item.path}: {error.strerror}"


def size(path: Path) -> int:
    """Return the bytes that a file, or a folder with all in it, has on disk."""
    return sum(entry.st_blocks * 512 for entry in _entries(path))


def _meets(run: runs.Run, index: int, criteria: Criteria, now: datetime.datetime) -> bool:
    if run.record is None or run.state == State.RUNNING:
        return False
    last = max([run.began, *map(datetime.datetime.fromisoformat, run.record.resumed)])
    return (
        bool(criteria)
        and (criteria.keep is None or index >= criteria.keep)
        and (criteria.older_than is None or now - last > criteria.older_than)
        and (not criteria.failed or run.state != State.SUCCEEDED)
    )


def _environments(root: Path, before: datetime.datetime) -> Iterator[Item]:
    for folder in _inside(root / "environments"):
        if (folder / _WHOLE).exists() and not folder.name.startswith(_REMOVING):
            # Whatever marks a use is beside what was installed, not deep in it.
            times = [path.lstat().st_mtime for path in (folder, *_inside(folder))]
            if max(times) < before.timestamp():
                yield Item("environment", folder.name, folder)


def _cache_entries(root: Path, gone: set[str]) -> Iterator[Item]:
    for path in sorted((root / "cache").glob("*/*.json")):
        try:
            run = json.loads(path.read_bytes())["run"]
            stays = run not in gone and (root / "runs" / run).is_dir()
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):  # nobody can use it
            stays = False
        if not stays:
            yield Item("cache entry", path.stem, path)


def _leftovers(root: Path, kept: Sequence[runs.Run], now: datetime.datetime) -> Iterator[Item]:
    for place in ("runs", "environments"):
        for path in _inside(root / place):
            if path.name.startswith(_REMOVING):
                yield Item("leftover", f"{place}/{path.name}", path)
    halves = [*root.glob("cache/*/*.unfinished")]
    halves += [
        path
        for path in _inside(root / "environments")
        if path.is_dir() and not path.name.startswith(_REMOVING) and not (path / _WHOLE).exists()
    ]
    for run in kept:
        if run.state == State.RUNNING:
            continue
        if run.record is None and {path.name for path in _inside(run.folder)} <= _BEFORE_RECORD:
            halves.append(run.folder)
        else:
            halves += run.folder.glob("*.unfinished")
    for path in sorted(halves):
        with contextlib.suppress(FileNotFoundError):
            if now.timestamp() - path.lstat().st_mtime > _HALF_DONE.total_seconds():
                yield Item("leftover", str(path.relative_to(root)), path)


def _inside(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _sized(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items with what they free: a file of several names with the item that holds the last of them."""
    names_left: dict[tuple[int, int], int] = {}
    for item in items:
        freed = 0
        for entry in _entries(item.path):
            if stat.S_ISREG(entry.st_mode) and entry.st_nlink > 1:
                key = (entry.st_dev, entry.st_ino)
                names_left[key] = names_left.get(key, entry.st_nlink) - 1
                if names_left[key]:
                    continue
            freed += entry.st_blocks * 512
        yield dataclasses.replace(item, bytes=freed)


def _entries(path: Path) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):
        yield path.lstat()
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(folder, name))


def _remove(item: Item) -> str:
    if not stat.S_ISDIR(item.path.lstat().st_mode):
        item.path.unlink()
        return ""
    if item.path.name.startswith(_REMOVING):
        _erase(item.path)
        return ""
    with _lock(item.path) as free:
        if not free:
            return "it has begun to work meanwhile"
        aside = item.path.with_name(f"{_REMOVING}{item.path.name[:200]}-{secrets.token_hex(4)}")
        item.path.rename(aside)
    _erase(aside)
    return ""


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold a run's lock, so that nobody resumes it; yield whether nobody else does."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def _erase(folder: Path) -> None:
    for path, folders, _ in os.walk(folder):
        for name in (".", *folders):  # what a folder without the right to write in it holds cannot be removed
            inner = os.path.join(path, name)
            if not os.path.islink(inner) and os.stat(inner).st_mode & stat.S_IRWXU != stat.S_IRWXU:
                with contextlib.suppress(PermissionError):
                    os.chmod(inner, stat.S_IRWXU)
    shutil.rmtree(folder)
