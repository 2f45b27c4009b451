"""Runs the pipeline jobs that arrive step by step on this machine, as far as `penstock convert` wrote them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile import launcher
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import emit, rehearsal
from penstock.compile.targets.azureml.plan import identifier
from penstock.compile.yaml_writer import to_yaml
from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.plays import JobState
from penstock.testing.server import ApiError

_LONGEST_ENDING = 30.0  # seconds that the steps of a job may take to end


@dataclass(frozen=True)
class Rehearsal:
    """Runs jobs for real, as `penstock run job.yml --target azureml-local` does, from what the workspace was sent.

    Attributes:
        root: Folder of runs, which stays; None: in the stand-in's folder, which goes with it.
        jobs: Steps that may run at the same time.
    """

    root: Path | None = None
    jobs: int = 2


class Rehearsals:
    """Jobs that run, and how they ended.

    Args:
        folder: Of the stand-in.
    """

    def __init__(self, assets: Assets, folder: Path) -> None:
        self.records: dict[str, rehearsal.Record] = {}
        self._assets = assets
        self._folder = folder

    def play(self, wanted: Rehearsal, payload: Mapping[str, Any]) -> Iterator[JobState | str]:
        """Yield the states of a job that runs in a thread until it has ended; closed, ends it."""
        name = payload["name"]
        home = self._folder / "jobs" / name
        for path, content in files(payload, self._assets).items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_bytes(content)
        stop, failures = launcher.Stop(), list[Exception]()

        def run() -> None:
            try:
                root = wanted.root or self._folder
                self.records[name] = rehearsal.run(home / emit.JOB, root=root, jobs=wanted.jobs, run_id=name, stop=stop)
            except Exception as error:  # whoever watches the job hears of it
                failures.append(error)

        thread = threading.Thread(target=run, name=f"job {name}", daemon=True)
        thread.start()
        try:
            yield "Preparing"
            while thread.is_alive():
                yield "Running"
            if failures:
                raise failures[0]
            record = self.records[name]
            failed = [f"{path}: {task.error}" for path, task in record.tasks.items() if task.error]
            yield JobState(
                str(record.state),
                {step.name: str(step.state) for step in record.steps},
                "; ".join(failed) or "a step failed",
            )
        finally:
            stop.request()
            thread.join(_LONGEST_ENDING)


def files(payload: Mapping[str, Any], assets: Assets) -> dict[str, bytes]:
    """Return the files of a converted job, as far as it can be run from what a workspace has of it.

    Args:
        payload: Name and properties of the job, as they were sent.

    Raises:
        PenstockError: it is none that `penstock convert` wrote.
    """
    spec = _spec(payload.get("componentId"), assets)
    found: dict[str, bytes] = {}
    nodes = {}
    for name, node in spec.get("jobs", {}).items():
        own = _spec(node.get("componentId"), assets)
        try:
            image = assets.referred("environments", own["environment"], "environment")
            code = assets.files(own["code"])
        except (ApiError, KeyError) as error:
            raise PenstockError(f"node {name} has no code or no environment: {error}") from error
        found |= {f"code/{name}/{path}": content for path, content in code.items()}
        environment = {"image": image.given.get("image", "") if image else ""}
        component = {**own, "name": name, "code": f"../code/{name}", "environment": environment}
        found[f"components/{name}.yml"] = _yaml(_typed(component))
        nodes[name] = {
            **{key: value for key, value in node.items() if key in ("type", "tags", "limits", "resources")},
            "component": f"./components/{name}.yml",
            "inputs": {port: each["value"] for port, each in (node.get("inputs") or {}).items()},
            "outputs": {port: each["value"] for port, each in (node.get("outputs") or {}).items()},
        }
    name = str(spec.get("display_name") or "pipeline")
    pipeline = {**spec, "name": identifier(name), "jobs": nodes}
    found[emit.PIPELINE] = _yaml(_typed(pipeline))
    kinds = {port: each["type"] for port, each in (spec.get("inputs") or {}).items()}
    inputs = {port: _given(each, kinds[port]) for port, each in (payload.get("inputs") or {}).items()}
    settings = {key: value for key, value in (payload.get("settings") or {}).items() if not key.startswith("_")}
    job = {"type": "pipeline", "component": f"./{emit.PIPELINE}", "settings": settings, "inputs": inputs}
    found[emit.JOB] = _yaml(job)
    return found


def _spec(reference: Any, assets: Assets) -> dict[str, Any]:
    kept = assets.referred("components", str(reference), "componentId") if reference else None
    if kept is None:
        raise PenstockError("a job or node without a component of this workspace cannot be run here")
    return dict(kept.given["componentSpec"])


def _typed(component: dict[str, Any]) -> dict[str, Any]:
    """Return a component with the defaults of its inputs as they were, for the client sends all as text."""
    inputs = {}
    for name, port in (component.get("inputs") or {}).items():
        more = {"default": _value(port["default"], port["type"])} if port.get("default") is not None else {}
        inputs[name] = {**port, **more}
    left = {key: value for key, value in component.items() if not key.startswith("_") and value is not None}
    return {**left, "inputs": inputs}


def _given(given: Mapping[str, Any], kind: str) -> Any:
    if given.get("jobInputType") == "literal":
        return _value(given["value"], kind)
    return {"type": kind, "path": given.get("uri")}


def _value(text: Any, kind: str) -> Any:
    if kind == "boolean":
        return str(text).lower() == "true"
    return {"integer": int, "number": float}.get(kind, str)(str(text))


def _yaml(document: Mapping[str, Any]) -> bytes:
    return to_yaml(dict(document)).encode()
