"""What a task gave, kept so that it need not run again: in a resumed run, and in another run by content.

Each task that succeeds leaves outcome.json in its folder, written last and removed before the task starts anew. It says
what the task was given and what it gave. ROOT/cache names, by a key of all that can decide a task's outputs, the
task's folder in which they lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile import graph, launcher
from penstock.compile.local_paths import is_there, texts
from penstock.compile.targets.local import content

FORMAT = "penstock.outcome/1"
OUTCOME = "outcome.json"

_MOST_NAMED = 10_000  # files and folders that a path among the parameters may name

Artifacts = Mapping[str, Sequence[launcher.Artifact]]


class _TooMuch(Exception):
    pass


@dataclass(frozen=True)
class Outcome:
    """What a task gave.

    Attributes:
        source: Run and task, as ID/PATH, that it was taken from.
        started: When that task began; ISO 8601.
        seconds: How long it took.
    """

    outputs: launcher.Outputs
    source: str
    started: str
    seconds: float


class Store:
    """Outcomes of all runs below a root.

    Args:
        root: Folder of runs/ and cache/.
        run: Folder of the run at work.
    """

    def __init__(self, root: Path, run: Path) -> None:
        self._cache = root / "cache"
        self._runs = root / "runs"
        self._run = run
        self._digests: dict[str, str] = {}  # by URI; what was made or looked at in this run does not change in it

    def given(self, task: graph.Task, parameters: Mapping[str, Any], artifacts: Artifacts) -> str:
        """Return a hash of what a task of this run is given; artifacts count by place, sizes and times."""
        return _hashed([_definition(task), parameters, _each(artifacts, lambda item: [item.uri, _look(item.uri)])])

    def key(
        self,
        task: graph.Task,
        parameters: Mapping[str, Any],
        artifacts: Artifacts,
        *,
        names: Mapping[str, str],
        code: str,
        here: Path,
    ) -> str | None:
        """Return a hash of all that decides what a task gives; None where the content of an input is not known.

        Args:
            task: The task.
            parameters: Its parameters; texts that are paths of this machine count with what lies there, by sizes and
                times.
            artifacts: Its artifacts; they count by name, type, metadata and content.
            names: System placeholders that it uses, with their values.
            code: What runs it: a hash of the environment's code, or of an image.
            here: Folder that relative paths start from.
        """
        if task.caching.key:
            return _hashed(["key", task.caching.key, _ports(task)])
        try:
            held = _each(
                artifacts, lambda item: [item.name, dict(item.type), dict(item.metadata), self._digest(item.uri)]
            )
            named = {text: _look(str(here / text), _MOST_NAMED) for text in texts(parameters) if is_there(here, text)}
        except (OSError, _TooMuch):
            return None
        return _hashed([code, _definition(task), parameters, held, named, dict(names)])

    def resumed(self, folder: Path, given: str, task: launcher.Task) -> Outcome | None:
        """Return what a task gave before its run was taken up again, given the same, if its files are still whole."""
        kept = _read(folder / OUTCOME)
        if kept is None or kept.get("given") != given:
            return None
        outcome = self._whole(kept, folder, task)
        return outcome if outcome and kept["looks"] == _looks(outcome.outputs) else None

    def found(self, key: str, folder: Path, given: str, task: launcher.Task) -> Outcome | None:
        """Return what a task of another run with the same key gave, now also in this task's folder.

        Args:
            key: As `key` returned it.
            folder: The task's folder; outputs go to its outputs/.
            given: As `given` returned it, to be kept.
            task: The task.
        """
        entry = _read(self._entry(key))
        if entry is None or entry["run"] == self._run.name:
            return None
        source = self._runs / str(entry["run"]) / "tasks" / str(entry["folder"])
        kept = _read(source / OUTCOME)
        if kept is None or kept.get("key") != key:
            return None
        forget(folder)
        shutil.rmtree(folder / "outputs", ignore_errors=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (source / "outputs").exists():
                content.link(source / "outputs", folder / "outputs")
            outcome = self._whole(kept, folder, task)
        except OSError:  # it was removed, or is being removed, meanwhile
            outcome = None
        if outcome is None or kept["looks"] != _looks(outcome.outputs):
            shutil.rmtree(folder / "outputs", ignore_errors=True)
            return None
        self._keep(folder, {**kept, "given": given}, key)
        for name, artifact in outcome.outputs.artifacts.items():
            if digest := kept["artifacts"][name].get("digest"):
                self._digests[artifact.uri] = digest
        return outcome

    def keep(
        self,
        folder: Path,
        outputs: launcher.Outputs,
        *,
        source: str,
        given: str,
        key: str | None,
        started: str,
        seconds: float,
    ) -> None:
        """Keep what a task gave; under a key, for other runs too."""
        artifacts = {}
        for name, artifact in outputs.artifacts.items():
            artifacts[name] = {
                "name": artifact.name,
                "uri": _relative(artifact.uri, folder),
                "metadata": dict(artifact.metadata),
                "digest": self._digest(artifact.uri) if key and _local(artifact.uri) else None,
            }
        kept = {
            "format": FORMAT,
            "source": source,
            "given": given,
            "key": key,
            "started": started,
            "seconds": seconds,
            "parameters": dict(outputs.parameters),
            "artifacts": artifacts,
            "looks": _looks(outputs),
        }
        self._keep(folder, kept, key)

    def _keep(self, folder: Path, kept: Mapping[str, Any], key: str | None) -> None:
        _write(folder / OUTCOME, kept)
        if key:
            _write(self._entry(key), {"format": FORMAT, "run": self._run.name, "folder": folder.name})

    def _entry(self, key: str) -> Path:
        return self._cache / key[:2] / f"{key}.json"

    def _digest(self, uri: str) -> str:
        if uri not in self._digests:
            if not _local(uri):
                raise FileNotFoundError(uri)
            # An artifact that is only metadata has no file.
            self._digests[uri] = content.digest(Path(uri)) if os.path.lexists(uri) else ""
        return self._digests[uri]

    def _whole(self, kept: Mapping[str, Any], folder: Path, task: launcher.Task) -> Outcome | None:
        if set(kept["parameters"]) != set(task.output_parameters) or set(kept["artifacts"]) != set(
            task.output_artifacts
        ):
            return None
        artifacts = {
            name: launcher.Artifact(
                item["name"],
                task.output_artifacts[name].type,
                str(folder / item["uri"]) if _local(item["uri"]) else item["uri"],
                item["metadata"],
            )
            for name, item in kept["artifacts"].items()
        }
        return Outcome(
            launcher.Outputs(kept["parameters"], artifacts), kept["source"], kept["started"], kept["seconds"]
        )


def forget(folder: Path) -> None:
    """Remove what is kept of a task, before it starts anew."""
    with contextlib.suppress(FileNotFoundError):
        (folder / OUTCOME).unlink()


def _definition(task: graph.Task) -> Any:
    body = task.component.body
    assert isinstance(body, graph.Container | graph.Importer)
    if isinstance(body, graph.Importer):
        return ["importer", str(body.type)]
    return [
        list(body.command),
        list(body.args),
        list(body.pre_cache_check),
        body.image,
        dict(body.env),
        _ports(task),
        {name: dict(settings) for name, settings in task.component.platforms.items()},
    ]


def _ports(task: graph.Task) -> Any:
    component = task.component
    return [
        [
            [name, port.type.value, port.typed]
            for ports in (component.inputs, component.outputs)
            for name, port in ports.parameters.items()
        ],
        [
            [name, str(port.type), port.is_list, dict(port.metadata)]
            for ports in (component.inputs, component.outputs)
            for name, port in ports.artifacts.items()
        ],
    ]


def _each(artifacts: Artifacts, of: Any) -> dict[str, list[Any]]:
    return {name: [of(item) for item in items] for name, items in artifacts.items()}


def _hashed(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _local(uri: str) -> bool:
    return "://" not in uri


def _relative(uri: str, folder: Path) -> str:
    return os.path.relpath(uri, folder) if uri.startswith(f"{folder}{os.sep}") else uri


def _look(uri: str, most: int | None = None) -> Any:
    if not _local(uri) or not os.path.lexists(uri):
        return None
    found = content.look(Path(uri), most)
    if most is not None and len(found) == most:
        raise _TooMuch
    return {name: list(seen) for name, seen in found.items()}


def _looks(outputs: launcher.Outputs) -> dict[str, Any]:
    return {name: _look(artifact.uri) for name, artifact in outputs.artifacts.items()}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("format") == FORMAT else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, half = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".unfinished")
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(half, path)
