"""Runs of Kubeflow Pipelines: created, watched, terminated, tried again."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp, graph, parameters
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.record import State, TaskRecord
from penstock.testing.kubeflow.experiments import Experiments
from penstock.testing.kubeflow.lists import listed
from penstock.testing.kubeflow.pipelines import Pipelines, parsed, spec_bytes
from penstock.testing.runs import Job, Play, Progress, Run
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now, stamp

_ROOT = "/apis/v2beta1/runs"
_ONE = f"{_ROOT}/{{run}}"
_FIELDS = (
    "run_id", "display_name", "description", "created_at", "scheduled_at", "finished_at", "storage_state", "state",
    "experiment_id",
    "recurring_run_id", "namespace",
)  # fmt: skip
_OWN = ("display_name", "description", "pipeline_spec", "pipeline_version_reference", "runtime_config",
        "service_account", "plugins_input")  # fmt: skip
_STATES = {State.CANCELLED: "CANCELED"}
_CODES = {State.FAILED: 2, State.CANCELLED: 1}  # google.rpc.Code
_TERMINAL = ("SUCCEEDED", "FAILED", "CANCELED")


@dataclass
class _Started:
    """A run at work, what it is made of, and what was seen of its tasks."""

    run: Run
    job: Job
    play: Play
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ended: bool = False


class Runs:
    """All runs.

    Args:
        play: Returns how runs that begin now are run.
        folder: Folder of runs.
    """

    def __init__(self, play: Callable[[], Play], folder: Path, experiments: Experiments, pipelines: Pipelines) -> None:
        self._play = play
        self._folder = folder
        self._experiments = experiments
        self._pipelines = pipelines
        self._kept: dict[str, dict[str, Any]] = {}
        self._started: dict[str, _Started] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", _ROOT, lambda request: self.create(request.json())),
            Route("GET", _ROOT, self._list),
            Route("GET", _ONE, lambda request, run: self._current(run, moving=True)),
            Route("DELETE", _ONE, self._delete),
            Route("POST", f"{_ONE}:terminate", self._terminate),
            Route("POST", f"{_ONE}:retry", self._retry),
            Route("POST", f"{_ONE}:archive", lambda request, run: self._store(run, "ARCHIVED")),
            Route("POST", f"{_ONE}:unarchive", lambda request, run: self._store(run, "AVAILABLE")),
        ]

    def close(self) -> None:
        """End all that runs."""
        for started in self._started.values():
            started.run.cancel()
        for started in self._started.values():
            started.run.close()

    def source(self, body: Mapping[str, Any]) -> tuple[bytes, graph.Pipeline]:
        """Return the bytes of the spec that a run or recurring run names or holds, and what they say.

        Raises:
            ApiError: it names none, or one that is no pipeline.
        """
        reference, spec = body.get("pipeline_version_reference"), body.get("pipeline_spec")
        if bool(reference) == bool(spec):
            raise ApiError(400, "Invalid input error: either pipeline_spec or pipeline_version_reference is required")
        if reference:
            package = self._pipelines.package(
                reference.get("pipeline_id", ""), reference.get("pipeline_version_id", "")
            )
            content = package.spec
        else:
            assert isinstance(spec, Mapping)
            content = spec_bytes(spec)
        given = (body.get("runtime_config") or {}).get("parameters") or {}
        return content, parsed(content, "pipeline_spec", given)

    def values(self, body: Mapping[str, Any], pipeline: graph.Pipeline) -> dict[str, Any]:
        """Return the values of all inputs.

        Raises:
            ApiError: they are not what the spec declares.
        """
        given = (body.get("runtime_config") or {}).get("parameters") or {}
        try:
            return parameters.complete(pipeline, from_kfp.integral(given))
        except PenstockError as error:
            raise ApiError(400, f"Invalid input error: {error}") from error

    def create(
        self, body: Mapping[str, Any], recurring_run: str = "", scheduled: datetime.datetime | None = None
    ) -> dict[str, Any]:
        """Create a run and start it. The same body twice makes two runs, as there.

        Args:
            recurring_run: Id of the recurring run that wants it.
            scheduled: When it was due.

        Raises:
            ApiError: it is not one that Kubeflow takes.
        """
        if not (body.get("display_name") or "").strip():
            raise ApiError(400, "Invalid input error: Run name cannot be empty")
        spec, pipeline = self.source(body)
        values = self.values(body, pipeline)
        experiment = self._experiments.get(body.get("experiment_id") or self._experiments.default)
        run_id, created = str(uuid.uuid4()), now()
        job = Job(run_id, spec, pipeline, values, self._folder)
        play = self._play()
        try:
            started = _Started(play.start(job), job, play)
        except PenstockError as error:  # the script of a test that does not fit
            raise ApiError(400, str(error)) from error
        run: dict[str, Any] = {
            **{name: value for name, value in body.items() if name in _OWN and value is not None},
            "run_id": run_id,
            "experiment_id": experiment["experiment_id"],
            "storage_state": "AVAILABLE",
            "created_at": created,
            "scheduled_at": stamp(scheduled) if scheduled else created,
            "finished_at": "1970-01-01T00:00:00Z",
            "state": "PENDING",
            "state_history": [{"update_time": created, "state": "PENDING"}],
            "service_account": body.get("service_account") or "pipeline-runner",
            "run_details": {},
        }
        if recurring_run:
            run["recurring_run_id"] = recurring_run
        self._kept[run_id], self._started[run_id] = run, started
        experiment["last_run_created_at"] = created
        return run

    def current(self, recurring_run: str = "") -> list[dict[str, Any]]:
        """Return all runs as they are now, the oldest first; only those of a recurring run where one is named."""
        found = [
            each for each in self._kept.values() if not recurring_run or each.get("recurring_run_id") == recurring_run
        ]
        return [self._current(each["run_id"], moving=False) for each in found]

    def _run(self, run: str) -> dict[str, Any]:
        if run not in self._kept:
            raise ApiError(404, f"Run {run} not found")
        return self._kept[run]

    def _list(self, request: Request) -> Any:
        experiment = request.query.get("experiment_id", "")
        found = [each for each in self.current() if not experiment or each["experiment_id"] == experiment]
        return listed("runs", found, request, _FIELDS)

    def _delete(self, request: Request, run: str) -> Any:
        self._run(run)
        self._started.pop(run).run.close()
        del self._kept[run]
        return {}

    def _terminate(self, request: Request, run: str) -> Any:
        if self._current(run, moving=False)["state"] in _TERMINAL:
            raise ApiError(400, f"Failed to terminate run {run}: it is in state {self._kept[run]['state']}")
        self._started[run].run.cancel()
        self._current(run, moving=False)
        return {}

    def _retry(self, request: Request, run: str) -> Any:
        state = self._current(run, moving=False)["state"]
        if state not in ("FAILED", "CANCELED"):
            raise ApiError(400, f"Failed to retry run {run}: it is in state {state}; it must be FAILED or CANCELED")
        if self._kept[run]["storage_state"] == "ARCHIVED":
            raise ApiError(400, f"Failed to retry run {run}: it is archived")
        before = self._started[run]
        self._started[run] = _Started(before.play.start(before.job, again=True), before.job, before.play)
        self._kept[run].update(finished_at="1970-01-01T00:00:00Z")
        self._kept[run].pop("error", None)
        self._into(self._kept[run], "RUNNING")
        return {}

    def _store(self, run: str, state: str) -> Any:
        if state == "ARCHIVED" and self._current(run, moving=False)["state"] not in _TERMINAL:
            raise ApiError(400, f"Failed to archive run {run}: it is in state {self._kept[run]['state']}")
        self._run(run)["storage_state"] = state
        return {}

    def _current(self, run: str, *, moving: bool) -> dict[str, Any]:
        """Return a run with its state and tasks as they are now.

        Args:
            moving: Whether a script goes on by it.
        """
        kept, started = self._run(run), self._started[run]
        if started.ended:
            return kept
        progress = started.run.poll() if moving else started.run.peek()
        cancelling = progress.cancelling and not progress.ended
        # A run that is tried again is RUNNING while its engine starts.
        again = progress.state is State.PENDING and len(kept["state_history"]) > 1
        self._into(
            kept,
            "CANCELING" if cancelling else "RUNNING" if again else _STATES.get(progress.state, str(progress.state)),
        )
        if progress.tasks:
            kept["run_details"]["task_details"] = _details(run, kept, started, progress)
        if progress.ended:
            started.ended = True
            kept["finished_at"] = now()
            if progress.state in _CODES:
                kept["error"] = {"code": _CODES[progress.state], "message": progress.error or "a task failed"}
        return kept

    def _into(self, run: dict[str, Any], state: str) -> None:
        if run["state"] != state:
            run["state"] = state
            run["state_history"].append({"update_time": now(), "state": state})


def _details(run: str, kept: Mapping[str, Any], started: _Started, progress: Progress) -> list[dict[str, Any]]:
    """Return what there is to tell of tasks: as in Argo's workflows, each has a driver, and what runs an executor."""
    root = TaskRecord("", "root", "dag", state=progress.state, started=kept["created_at"])
    found = []
    for task in (root, *progress.tasks):
        name = task.path.rpartition(".")[2] or "root"
        drives = State.SUCCEEDED if task.state is not State.PENDING else State.PENDING
        found.append(_detail(run, started, task, task.path, name, _told(task.state, progress)))
        found.append(_detail(run, started, task, f"{task.path}-driver", f"{name}-driver", str(drives)))
        if task.kind != "dag" and task.state not in (State.PENDING, State.SKIPPED):
            found.append(_detail(run, started, task, f"{task.path}-executor", "executor", _told(task.state, progress)))
    by_key = {each["_key"]: each for each in found}
    for task in (root, *progress.tasks):
        above = task.path.rpartition(".")[0] if "." in task.path else ""
        own = by_key[task.path]
        for key in (f"{task.path}-driver", f"{task.path}-executor"):
            if key in by_key:
                own.setdefault("child_tasks", []).append({"pod_name": by_key[key]["pod_name"]})
                by_key[key]["parent_task_id"] = own["task_id"]
        if task.path:
            parent = by_key.get(above, by_key[""])
            own["parent_task_id"] = parent["task_id"]
            parent.setdefault("child_tasks", []).append({"pod_name": own["pod_name"]})
    for each in found:
        del each["_key"]
    return found


def _told(state: State, progress: Progress) -> str:
    if progress.cancelling and not progress.ended and state is State.RUNNING:
        return "CANCELING"
    return _STATES.get(state, str(state))


def _detail(run: str, started: _Started, task: TaskRecord, key: str, name: str, state: str) -> dict[str, Any]:
    history = started.history.setdefault(key, [])
    if not history or history[-1]["state"] != state:
        history.append({"update_time": now(), "state": state})
    begin = datetime.datetime.fromisoformat(task.started) if task.started else None
    end = begin + datetime.timedelta(seconds=task.seconds) if begin and task.seconds is not None else None
    detail: dict[str, Any] = {
        "_key": key,
        "run_id": run,
        "task_id": str(uuid.uuid5(uuid.UUID(run), key)),
        "display_name": name,
        "create_time": history[0]["update_time"],
        "start_time": stamp(begin) if begin else history[0]["update_time"],
        "state": state,
        "state_history": list(history),
        "pod_name": f"{started.job.pipeline.name}-{_short(run)}-{_short(run, key)}",
    }
    if end:
        detail["end_time"] = stamp(end)
    if task.error and state == "FAILED":
        detail["error"] = {"code": 2, "message": task.error}
    return detail


def _short(*of: str) -> str:
    return str(int.from_bytes(hashlib.sha256("\n".join(of).encode()).digest()[:4], "big"))
