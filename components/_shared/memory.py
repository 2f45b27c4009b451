"""How much memory a step may use, and the refusal of one that would need more, before it starts."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.components._shared import cgroups
from penstock.components._shared.errors import UserError

LEAST_SHARE = 64 << 20  # below it DuckDB stops, rather than write to disk


def limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use: the least of its control groups' limits and the machine's.

    A container sees its own limit; see cgroups(7), and memory.max in the kernel's cgroup-v2.rst.

    Args:
        root: Where proc and sys lie.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = map(_number, cgroups.files(root, {"": "memory.max", "memory": "memory.limit_in_bytes"}))
    return min([machine, *(size for size in limits if size)])


def used(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process has in use, 0 where the system does not say."""
    try:
        pages = int((root / "proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def require(needed: int, component: str, argument: str, what: str, remedy: str) -> None:
    """Refuse a step that needs more memory, beside what is in use already, than there is.

    Args:
        needed: Bytes, no more than are needed for certain.
        argument: The one that changes it.
        what: What needs them, as the subject of a sentence in the plural.

    Raises:
        UserError: It would not fit.
    """
    most, before = limit(), used()
    if needed + before > most:
        raise UserError(
            component,
            argument,
            f"{what} take {shown(needed)} of memory or more, and this step may use {shown(most)}, "
            f"of which {shown(before)} are in use",
            remedy,
        )


def share(most: int) -> int:
    """Return the bytes for a library that writes to disk what is beyond them: half of what is left, `most` at most."""
    return min(most, max((limit() - used()) // 2, LEAST_SHARE))


def shown(size: int) -> str:
    """Return a number of bytes as people write it."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def _number(file: Path) -> int:
    try:
        size = int(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return 0
    return size if size < 1 << 60 else 0  # version 1 says "no limit" by a number that no machine has
