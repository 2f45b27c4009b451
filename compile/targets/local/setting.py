"""What a platform document gives a task beside its spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine that a task sees at a path of its own.

    Attributes:
        path: Absolute path that the task sees.
        source: Folder or file on this machine.
        fresh: Whether it is emptied before every attempt.
    """

    path: str
    source: Path
    read_only: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Setting:
    """What a task is given.

    Attributes:
        env: Environment variables; they may hold secrets, so they are not shown.
        timeout: Seconds that an attempt may take; None: any.
        shared_memory: Size of /dev/shm as Kubernetes writes sizes, such as "64Mi"; empty: not asked for.
        user, group: Numeric ids to run as in a container; None: those of the image.
        always_pull: Whether the image is fetched even where it is here.
    """

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    timeout: float | None = None
    shared_memory: str = ""
    user: int | None = None
    group: int | None = None
    always_pull: bool = False
