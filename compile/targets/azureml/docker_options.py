"""Options of `docker run`, which `resources.docker_args` of a step may have, as the engine takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([bkmg]?)b?", re.IGNORECASE)


def size(text: str) -> int:
    """Return the bytes of a size as Docker writes it, such as "2g" or "512m".

    Raises:
        ValueError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no size such as 2g or 512m")
    return int(float(match[1]) * 1024 ** "bkmg".index(match[2].lower() or "b"))


def _ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _gpus(text: str) -> dict[str, Any]:
    return {"Driver": "", "Count": -1 if text == "all" else int(text), "Capabilities": [["gpu"]]}


_ONE: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "cpu-shares": ("CpuShares", int),
    "cpus": ("NanoCpus", lambda text: int(float(text) * 1e9)),
    "cpuset-cpus": ("CpusetCpus", str),
    "ipc": ("IpcMode", str),
    "memory": ("Memory", size),
    "memory-swap": ("MemorySwap", lambda text: -1 if text == "-1" else size(text)),
    "network": ("NetworkMode", str),
    "pid": ("PidMode", str),
    "pids-limit": ("PidsLimit", int),
    "shm-size": ("ShmSize", size),
}
_MANY: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "add-host": ("ExtraHosts", str),
    "cap-add": ("CapAdd", str),
    "cap-drop": ("CapDrop", str),
    "dns": ("Dns", str),
    "gpus": ("DeviceRequests", _gpus),
    "security-opt": ("SecurityOpt", str),
    "ulimit": ("Ulimits", _ulimit),
}
_FLAGS = {"privileged": "Privileged", "read-only": "ReadonlyRootfs"}
_SHORT = {"m": "memory", "c": "cpu-shares", "net": "network"}


def parse(text: str) -> dict[str, Any]:
    """Return options as fields of the engine's HostConfig.

    Raises:
        ValueError: one is not known here, has no value, or one that it does not take.
    """
    found: dict[str, Any] = {}
    words = iter(shlex.split(text))
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        name = _SHORT.get(name, name)
        if not word.startswith("-") or name not in {*_ONE, *_MANY, *_FLAGS}:
            raise ValueError(f"{word} is not known here; known are {', '.join(sorted({*_ONE, *_MANY, *_FLAGS}))}")
        if name in _FLAGS:
            found[_FLAGS[name]] = value != "false"
            continue
        if not equals:
            value = next(words, "")
        if not value:
            raise ValueError(f"{word} has no value")
        field, read = _ONE.get(name) or _MANY[name]
        try:
            read_value = read(value)
        except ValueError as error:
            raise ValueError(f"{word}: {error}") from error
        found[field] = [*found.get(field, []), read_value] if name in _MANY else read_value
    return found
