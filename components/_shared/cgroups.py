"""Control groups, by which a container's memory and processors are limited; see cgroups(7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

V2 = "sys/fs/cgroup"


def files(root: Path, names: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files of a name in this process' groups, the innermost first: all that lie around limit it, too.

    Args:
        root: Where proc and sys lie.
        names: The file by the controller in /proc/self/cgroup, "" of version 2: {"memory": "memory.limit_in_bytes"}.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in names:
                path = Path(group.lstrip("/"))
                # In a container the groups are often mounted from its own one on, whatever its path says.
                for each in (path, *path.parents):
                    yield root / V2 / controller / each / names[controller]
