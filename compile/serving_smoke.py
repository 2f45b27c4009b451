"""The proof of an image that serves: what a pipeline makes is served in a container, and a program beside it asks.

smoke.yaml of such an environment says, beside `run` and `parameters`,

    serve:
      models: [TASK/OUTPUT, …]     # artifacts of that run; each is served in a container of its own
      at: /mnt/models              # where the container has it
      check: [PROGRAM, …]          # runs in the container, waits for the server and exits with 0 where all is well
      environment: {NAME: VALUE}   # of the container

The run goes in processes of this machine, the containers without a network, a root that can be written, or rights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.compile.images import Environment, Image

_CHECK = 180.0  # seconds without a word of a check
_STOP = 30  # seconds for a server to end after SIGTERM
_SHOWN = 20  # lines of what a server or a check said


@dataclass(frozen=True)
class Serve:
    """What smoke.yaml says under `serve`."""

    models: tuple[tuple[str, str], ...]
    at: str
    check: tuple[str, ...]
    environment: Mapping[str, str]


def serve_of(environment: Environment) -> Serve | None:
    """Return what an environment serves, or None where its image only runs components.

    Raises:
        PenstockError: It is not said as above.
    """
    import yaml

    file = environment.folder / "smoke.yaml"
    try:
        wanted = (yaml.safe_load(file.read_text()) or {}).get("serve")
        if wanted is None:
            return None
        unknown = sorted(set(wanted) - {"models", "at", "check", "environment"})
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is not known")
        models = tuple(_place(text) for text in wanted["models"])
        check = tuple(map(str, wanted["check"]))
        if not models or not check or not str(wanted["at"]).startswith("/"):
            raise ValueError("models and check need an entry each, and `at` a path from the root")
        named = {str(name): str(value) for name, value in (wanted.get("environment") or {}).items()}
        return Serve(models, str(wanted["at"]), check, named)
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PenstockError(f"{file}: `serve` wants models, at and check: {error}") from None


def smoke(image: Image, spec: Mapping[str, Any], parameters: Mapping[str, Any], serve: Serve, scratch: Path) -> float:
    """Run a spec on this machine and serve each model of it in an image; return the seconds it took.

    Args:
        scratch: Folder for what the run leaves; containers have to be able to mount what is in it.

    Raises:
        PenstockError: The run fails, a server does not start, its check fails, or it does not end when told to.
    """
    began = time.monotonic()
    for task, output, folder in _made(image, spec, parameters, serve, scratch):
        with _server(image, serve, folder) as (client, container):
            _checked(client, container, serve, f"{image.name}: serving {task}/{output}")
    return round(time.monotonic() - began, 1)


def _place(text: Any) -> tuple[str, str]:
    task, separator, output = str(text).rpartition("/")
    if not separator or not task or not output:
        raise ValueError(f"{text!r} is no TASK/OUTPUT")
    return task, output


def _made(
    image: Image, spec: Mapping[str, Any], parameters: Mapping[str, Any], serve: Serve, scratch: Path
) -> Iterator[tuple[str, str, Path]]:
    """Yield task, output and a copy that anybody can read of each model."""
    from penstock.compile.targets import local
    from penstock.compile.targets.local.record import State
    from penstock.compile.yaml_writer import to_yaml

    path = scratch / "spec.yaml"
    path.write_text(to_yaml(dict(spec)), encoding="utf-8")
    record = local.run(path, dict(parameters), root=scratch, jobs=os.cpu_count() or 1, runner="subprocess", reuse=False)
    if record.state is not State.SUCCEEDED:
        failed = [f"{task.path}: {task.error}" for task in record.tasks if task.error]
        raise PenstockError(
            f"{image.name}: there is nothing to serve, its pipeline fails: {'; '.join(failed) or record.error}"
        )
    made = {task.path: task.outputs.artifacts for task in record.tasks if task.outputs}
    for number, (task, output) in enumerate(serve.models):
        artifacts = made.get(task, {}).get(output)
        if not artifacts:
            raise PenstockError(f"{image.name}: the run has no {task}/{output}; there are {', '.join(sorted(made))}")
        folder = scratch / f"served-{number}"
        shutil.copytree(Path(record.folder) / artifacts[0].uri, folder)
        for each in (folder, *folder.rglob("*")):
            each.chmod(0o755 if each.is_dir() else 0o644)
        yield task, output, folder


@contextlib.contextmanager
def _server(image: Image, serve: Serve, folder: Path) -> Iterator[tuple[Any, str]]:
    """Yield the engine's client and the id of a container that serves a folder."""
    import docker
    from docker.errors import DockerException

    try:
        with contextlib.closing(docker.from_env(timeout=_CHECK).api) as client:
            container = client.create_container(
                image.name,
                environment=dict(serve.environment),
                host_config=client.create_host_config(
                    binds={str(folder.resolve()): {"bind": serve.at, "mode": "ro"}},
                    network_mode="none",
                    read_only=True,
                    tmpfs={"/tmp": ""},  # noqa: S108  the container's
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                ),
            )["Id"]
            try:
                client.start(container)
                yield client, container
            finally:
                client.remove_container(container, force=True, v=True)
    except (DockerException, OSError) as error:
        raise PenstockError(f"{image.name}: the engine cannot serve in it: {error}") from error


def _checked(client: Any, container: str, serve: Serve, what: str) -> None:
    probe = (client.inspect_container(container)["Config"].get("Healthcheck") or {}).get("Test") or []
    # The check first: it waits for the server. Then the image's own probe, and whether the server ends when it is told.
    for name, command in (("its check", serve.check), ("its HEALTHCHECK", _command(probe))):
        if not command:
            raise PenstockError(f"{what}: the image has no HEALTHCHECK")
        code, said = _execute(client, container, command)
        if code != 0:
            logs = client.logs(container, tail=_SHOWN).decode(errors="replace")
            raise PenstockError(f"{what}: {name} ends with {code}: {_line(said)}; the server says: {_line(logs)}")
    client.stop(container, timeout=_STOP)
    code = client.inspect_container(container)["State"]["ExitCode"]
    if code != 0:
        logs = client.logs(container, tail=_SHOWN).decode(errors="replace")
        raise PenstockError(f"{what}: ends with {code} after SIGTERM: {_line(logs)}")


def _command(test: Sequence[str]) -> list[str]:
    kind, *words = test or ["NONE"]
    return {"CMD": words, "CMD-SHELL": ["sh", "-c", *words]}.get(kind, [])


def _execute(client: Any, container: str, command: Sequence[str]) -> tuple[int, str]:
    from docker.errors import APIError

    try:
        execution = client.exec_create(container, list(command))["Id"]
        said = client.exec_start(execution).decode(errors="replace")
        code = client.exec_inspect(execution)["ExitCode"]
        return (-1 if code is None else int(code)), said
    except APIError as error:  # the server has ended, and its container with it
        return -1, str(error.explanation or error)


def _line(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-_SHOWN:]) or "nothing"
