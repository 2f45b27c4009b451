"""Runs steps of a job in containers of their images, as Azure ML documents it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.compile import launcher
from penstock.compile.container_engine import ContainerEngine
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import docker_options
from penstock.compile.targets.azureml.job import Node

_SH_STEP = "step.sh"  # in the snapshot of a step that was made for images without Python
_LAST = 200  # bytes of a log that hold its last line
_WHOLE_GROUP = {"TINI_KILL_PROCESS_GROUP": "1"}  # docker-init hands a signal to all that bash has started


class Containers:
    """The containers of one job; a context manager that leaves none behind.

    A container has the environment and user of its image, and bash in place of the image's entrypoint. It works in its
    code snapshot. Of this machine it sees that, its inputs, read-only, and its outputs, at paths such as Azure has.

    Args:
        run_id: Shown as the label penstock.run of every container.
        folder: Folder of the run.
        network: As the container engine names it; empty: its default.
        seen: Files and folders of this machine that every container sees, read-only.
    """

    def __init__(self, run_id: str, folder: Path, network: str = "", seen: Iterable[Path] = ()) -> None:
        labels = {"penstock.run": run_id, "penstock.folder": str(folder)}
        self._engine = ContainerEngine(labels, stale=f"penstock.folder={folder}")
        self._network, self._seen = network, tuple(seen)
        self._place = f"/mnt/azureml/cr/j/{hashlib.sha256(str(folder).encode()).hexdigest()[:32]}"

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

    def prepare(self, nodes: Sequence[Node], tell: Callable[[str], None]) -> None:
        """Fetch the images of steps that are not here.

        Raises:
            PenstockError: some are neither here nor can be fetched; names all of them, with their steps.
        """
        steps: dict[str, list[str]] = {}
        for node in nodes:
            steps.setdefault(node.image, []).append(node.name)
        problems = self._engine.missing(dict.fromkeys(steps, False), tell)
        if problems:
            listed = "; ".join(
                f"step {_some(steps[name])}: image {name}: {problem}" for name, problem in sorted(problems.items())
            )
            raise PenstockError(f"{listed}; build it, log in, or use --runner subprocess")

    def input(self, port: str, path: Path) -> str:
        """Return where a step sees an input that lies at a path of this machine."""
        inside = f"{self._place}/cap/data-capability/wd/INPUT_{port}"
        return f"{inside}/{path.name}" if path.is_file() else inside

    def output(self, port: str) -> str:
        """Return where a step sees an output."""
        return f"{self._place}/cap/data-capability/wd/{port}"

    def run(
        self,
        node: Node,
        script: str,
        env: Mapping[str, str],
        inputs: Mapping[str, Path],
        folder: Path,
        *,
        stop: launcher.Stop,
    ) -> int:
        """Run the script of a step and return its exit code, negative for a signal.

        Args:
            inputs: Paths of this machine by port.
            folder: The step's folder, with code/ and outputs/ and a folder for each output; log.txt is written.

        Raises:
            TaskError: it cannot be run, or its time is over.
            Stopped: it was ended through `stop`.
        """
        if stop.requested():
            raise launcher.Stopped
        image = self._engine.image(node.image)
        code, outputs = folder / "code", folder / "outputs"
        places = sorted(outputs.iterdir())
        work = f"{self._place}/exe/wd"
        mounts = [(code, work, False)]
        mounts += [(path, self.input(port, path), True) for port, path in inputs.items()]
        mounts += [(path, self.output(path.name), False) for path in places]
        mounts += [(path, str(path), True) for path in self._seen]
        host: dict[str, Any] = {
            "Mounts": [
                {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}
                for source, target, read_only in mounts
            ],
            "Init": self._engine.has_init,
            "LogConfig": {"Type": "none"},
        }
        if self._network:
            host["NetworkMode"] = self._network
        if node.shm_size:
            host["ShmSize"] = docker_options.size(node.shm_size)
        host |= docker_options.parse(node.docker_args)
        whole = {**env, **_WHOLE_GROUP}
        log = folder / "log.txt"

        def carry_out(shell: str) -> int:
            config = {
                "Entrypoint": [shell, "-c", script],
                "WorkingDir": work,
                "Env": [f"{variable}={value}" for variable, value in whole.items()],
                "HostConfig": host,
            }
            self._engine.open(image.user, [code, *places])
            own = (outputs, code)
            limit = node.timeout or math.inf
            return self._engine.run(image, config, image.user, own, log, stop=stop, limit=limit)

        try:
            exit_code = carry_out("bash")
        except launcher.TaskError as error:
            if '"bash": executable file not found' not in str(error):
                raise
        else:
            # docker-init is what says it where the engine has that.
            if exit_code != 127 or b"exec bash failed: No such file" not in log.read_bytes()[-_LAST:]:
                return exit_code
            log.unlink()
        if (code / _SH_STEP).is_file():
            return carry_out("sh")
        raise launcher.TaskError(f"the image {node.image} has no bash, with which Azure ML runs commands", 127)


def _some(names: Sequence[str]) -> str:
    """Return names as text, not more than a line takes."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
