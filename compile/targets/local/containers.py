"""Runs tasks in containers of this machine's Docker engine, and leaves none behind."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from penstock.compile import launcher
from penstock.compile.container_engine import ContainerEngine, Image, available, entries, is_numeric, permit
from penstock.compile.targets.local.setting import Mount, Setting

__all__ = ["Containers", "available"]

_READ_ONLY_LABEL = "penstock.read-only-root"
_SHARED_LABEL = "penstock.shared-folders"
_PRIVILEGED = ("", "0", "root")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:([KMGT])i|([kMGT]))?")


class Containers:
    """The containers of one run; a context manager.

    A container has the environment, user and working folder of its image, a network, and a root that it may write;
    where the image says so by the label penstock.read-only-root=true, the root is read-only and /tmp in memory. Of this
    machine it sees, at the same paths, the run's folder, read-only, and its task's own outputs/ and work/, and what its
    setting mounts. A numeric user that is not root has no capabilities and cannot gain any.

    An image whose label penstock.shared-folders names folders, such as "registry", finds them in PENSTOCK_ROOT, the
    root, and may write them; what it writes there other runs read. It runs as this machine's user, unless that is root.

    Leaving removes what is still there; should the engine that runs the pipeline be killed, a process beside it does.

    Args:
        run_folder: The run's folder, absolute.
        run_id: Shown as the label penstock.run of every container.
        root: Folder of all runs, absolute; None: images share no folders.
        network: As the container engine names it; empty: its default.
    """

    def __init__(self, run_folder: Path, run_id: str, root: Path | None = None, network: str = "") -> None:
        self._folder = run_folder
        self._root, self._network = root, network
        labels = {"penstock.run": run_id, "penstock.folder": str(run_folder)}
        self._engine = ContainerEngine(labels, stale=f"penstock.folder={run_folder}")  # of a run that is resumed

    def __enter__(self) -> Containers:
        """Connect to the engine.

        Raises:
            PenstockError: none answers.
        """
        self._engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.__exit__(kind, error, traceback)

    def prepare(self, images: Mapping[str, bool], tell: Callable[[str], None] | None = None) -> None:
        """Fetch the images that are not here; see `ContainerEngine.prepare`.

        Raises:
            PenstockError: some are neither here nor can be fetched; names all of them.
        """
        self._engine.prepare(images, tell)

    def identity(self, image: str, always_pull: bool = False) -> str:
        """Return the id of an image, a hash of all that is in it.

        Args:
            image: Its name; fetched now where `prepare` has not seen it.
            always_pull: Whether it is fetched, once a run, even where it is here.

        Raises:
            TaskError: it is not here and cannot be fetched.
        """
        return self._engine.image(image, always_pull).id

    def runner(self, image: str, *, setting: Setting) -> launcher.Runner:
        """Return what runs a task's command in a container of an image, with what `launcher.run_process` takes.

        Without a command the image's own entrypoint runs, with the arguments if there are any, as on Kubernetes. The
        folder that it is given only tells where the task's files are: a command starts in its image's own folder.

        Args:
            image: Its name; fetched now where `prepare` has not seen it.
            setting: What a platform document gives the task; `env` over the task's own variables, the shorter timeout.
        """
        return functools.partial(self._run, image, setting)

    def _run(
        self,
        name: str,
        setting: Setting,
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
        if stop.requested():
            raise launcher.Stopped
        image = self._engine.image(name, setting.always_pull)
        user = _user(image.user, setting)
        own = (folder.parent / "outputs", folder)
        names = [name for name in image.labels.get(_SHARED_LABEL, "").split() if _NAME.fullmatch(name)]
        shared = [self._root / name for name in names] if self._root else []
        if shared and not self._engine.other_ids and os.geteuid() and setting.user is None and is_numeric(user):
            user = f"{os.geteuid()}:{os.getegid()}"  # what is shared with processes has one owner
        if shared:
            env = {**env, "PENSTOCK_ROOT": str(self._root)}
            setting = replace(setting, mounts=(*setting.mounts, *(Mount(str(path), path) for path in shared)))
        config = {
            "Entrypoint": list(command) or None,
            "Cmd": list(args) or None,
            "Env": [f"{variable}={value}" for variable, value in {**env, **setting.env}.items()],
            "HostConfig": self._host(image, user, own, setting),
        }
        limit = min((seconds for seconds in (timeout, setting.timeout) if seconds), default=math.inf)
        self._open(user, own)
        self._share(user, shared)
        return self._engine.run(image, config, user, own, log, stop=stop, limit=limit, stream=stream)

    def _host(self, image: Image, user: str, own: Sequence[Path], setting: Setting) -> dict[str, Any]:
        mounts = {str(self._folder): Mount(str(self._folder), self._folder, read_only=True)}
        mounts |= {str(path): Mount(str(path), path) for path in own}
        mounts |= {mount.path: mount for mount in setting.mounts}
        host: dict[str, Any] = {
            "Mounts": [
                {"Type": "bind", "Source": str(mount.source), "Target": mount.path, "ReadOnly": mount.read_only}
                for mount in mounts.values()
            ],
            "Init": self._engine.has_init,
            "LogConfig": {"Type": "none"},  # what is attached gets the output all the same
        }
        if self._network:
            host["NetworkMode"] = self._network
        if setting.shared_memory:
            host["ShmSize"] = _bytes(setting.shared_memory)
        if image.labels.get(_READ_ONLY_LABEL, "").lower() == "true":
            host |= {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": "exec,mode=1777"}}  # noqa: S108 the container's own
        if is_numeric(user):
            host |= {"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]}
        return host

    def _open(self, user: str, own: Sequence[Path]) -> None:
        """Let a user who is not root read the run's folder and write a task's own folders."""
        if user.partition(":")[0] in _PRIVILEGED and not self._engine.other_ids:
            return
        folder = own[0].parent
        for path in (folder, *folder.parents):
            if path.is_relative_to(self._folder):
                permit(path)
        self._engine.open(user, own)

    def _share(self, user: str, folders: Sequence[Path]) -> None:
        """Let a user write folders of the root, and all that other tasks have left in them."""
        number, _, group = user.partition(":")
        for folder in folders:
            folder.mkdir(exist_ok=True)
            for path in (folder, *entries(folder)):
                with contextlib.suppress(FileNotFoundError, PermissionError):  # another task's, which is at work
                    if os.geteuid() == 0 and is_numeric(user) and not self._engine.other_ids:
                        os.lchown(path, int(number), int(group) if group.isdigit() else -1)
                    elif self._engine.other_ids and not path.is_symlink():
                        path.chmod(0o777 if path.is_dir() else 0o666)


def _user(image_user: str, setting: Setting) -> str:
    """Return the user, `USER` or `USER:GROUP`, that a task runs as."""
    user, _, group = image_user.partition(":")
    if setting.user is not None:
        user, group = str(setting.user), ""  # the image's group goes with the image's user
    if setting.group is not None:
        user, group = user or "0", str(setting.group)
    return f"{user}:{group}" if group else user


def _bytes(size: str) -> int:
    match = _SIZE.fullmatch(size.strip())
    if not match:
        raise launcher.TaskError(f"shared memory of {size!r}: write a size such as 64Mi")
    number, binary, decimal = match.groups()
    unit = 1024 ** ("KMGT".index(binary) + 1) if binary else 1000 ** ("kMGT".index(decimal) + 1) if decimal else 1
    return int(float(number) * unit)
