"""Who a rollout belongs to, and whether that one is still alive."""

from __future__ import annotations

import datetime
import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any

STALE = 120.0  # seconds without a sign of life after which a rollout of another machine is taken for dead
HEARTBEAT = 10.0  # seconds between two of them

_PROCESS = uuid.uuid4().hex


def owner() -> dict[str, Any]:
    """Return what tells a rollout of this process from all others."""
    return {
        "id": uuid.uuid4().hex,
        "who": f"process {os.getpid()} on {socket.gethostname()}",
        "host": _host(),
        "pid": os.getpid(),
        "process": _PROCESS,
    }


def is_dead(left: Mapping[str, Any]) -> bool:
    """Return whether a rollout that says it goes on has been killed."""
    owner = left["owner"]
    if owner["host"] == _host():
        if owner["pid"] == os.getpid():
            return bool(owner["process"] != _PROCESS)  # its number is ours by now
        try:
            os.kill(owner["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    beaten = datetime.datetime.fromisoformat(left["heartbeat"])
    return (datetime.datetime.now(datetime.UTC) - beaten).total_seconds() > STALE


def now() -> str:
    """Return the time of a sign of life."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _host() -> str:
    """Return what tells the machine, or the container, in which the numbers of processes mean the same."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
