"""Finds the files and folders of this machine that parameters name."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# What an image has itself, and what no task may have of this machine.
_NEVER = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr")
_NOT_WHOLE = ("home", "media", "mnt", "opt", "root", "srv", "tmp", "var")


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a parameter's value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from texts(item)


def is_there(here: Path, text: str) -> bool:
    """Return whether a text is the path of a file or folder that exists."""
    return is_path(text) and os.path.exists(here / text)


def is_path(text: str) -> bool:
    """Return whether a text can be a path."""
    return 0 < len(text) < 4096 and not any(char in text for char in "\0\n")


def named(parameters: Mapping[str, Any], here: Path) -> list[Path]:
    """Return the absolute paths that parameters name, for the folder of a glob that matches; outermost ones, sorted.

    The root, and folders that are part of any system, are left out.

    Args:
        here: Folder that relative paths start from.
    """
    found = set()
    for text in texts(parameters):
        if not is_path(text):
            continue
        path = Path(os.path.normpath(here / text))
        if not os.path.exists(path):
            if not glob.has_magic(text) or next(glob.iglob(str(path), recursive=True), None) is None:
                continue
            while glob.has_magic(str(path)):
                path = path.parent
        if _may_be_seen(path):
            found.add(path)
    return sorted(path for path in found if not any(parent in found for parent in path.parents))


def _may_be_seen(path: Path) -> bool:
    _, *parts = path.parts
    return bool(parts) and parts[0] not in _NEVER and (len(parts) > 1 or parts[0] not in _NOT_WHOLE)
