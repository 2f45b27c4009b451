"""What files and folders hold: quickly by size and time, surely by SHA-256, and a second place for them by links."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

Look = dict[str, tuple[str, int, int]]  # path below the root → kind or link's target, size in bytes, mtime in ns


def look(root: Path, most: int | None = None) -> Look:
    """Return what can be told of a file or of all below a folder without reading it, at most of so many.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return {name: _seen(path, entry) for name, path, entry in itertools.islice(_entries(root), most)}


def digest(root: Path) -> str:
    """Return the SHA-256 of a file or folder: names, kinds and bytes of all in it, not times, owners or its own name.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    whole = hashlib.sha256()
    for name, path, entry in _entries(root):
        kind = _seen(path, entry)[0]
        if stat.S_ISREG(entry.st_mode):
            with path.open("rb") as file:
                kind += hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{name}\0{kind}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def link(source: Path, target: Path) -> None:
    """Put a file or folder in a second place: hard links where the file system allows, else copies with their times.

    Raises:
        OSError: the source is not there, or the target is already.
    """
    for name, path, entry in _entries(source):
        there = target / name if name else target
        if stat.S_ISDIR(entry.st_mode):
            there.mkdir()
        elif stat.S_ISLNK(entry.st_mode):
            there.symlink_to(os.readlink(path))
        else:
            try:
                os.link(path, there)
            except OSError:
                if there.exists():
                    raise
                shutil.copy2(path, there)


def _entries(root: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield name, path and stat of the root and of all below it, folders before what they hold, in a fixed order."""
    stack = [("", root)]
    while stack:
        name, path = stack.pop()
        entry = path.lstat() if name else path.stat()
        yield name, path, entry
        if stat.S_ISDIR(entry.st_mode):
            inner = sorted(os.listdir(path), reverse=True)
            stack += [(f"{name}/{each}" if name else each, path / each) for each in inner]


def _seen(path: Path, entry: os.stat_result) -> tuple[str, int, int]:
    if stat.S_ISDIR(entry.st_mode):
        return "folder", 0, 0
    if stat.S_ISLNK(entry.st_mode):
        return f"link to {os.readlink(path)}", 0, 0
    return "file", entry.st_size, entry.st_mtime_ns
