"""Pipeline jobs of Vertex AI: created, run, watched, cancelled."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp, graph, parameters
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.record import State, TaskRecord
from penstock.testing.runs import Job, Play, Progress, Run
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.specs import accepted
from penstock.testing.times import now, stamp
from penstock.testing.vertex.resources import ROOT, Collection, Operations, checked, parent

_JOB = f"{ROOT}/pipelineJobs/{{job}}"
_ID = re.compile(r"[a-z][-a-z0-9]{0,126}")
_FIELDS = (
    "displayName", "pipelineSpec", "labels", "runtimeConfig", "encryptionSpec", "serviceAccount", "network",
    "reservedIpRanges", "pscInterfaceConfig", "templateUri", "preflightValidations",
)  # fmt: skip
_OUTPUT_ONLY = ("startTime", "endTime", "state", "jobDetail", "error", "templateMetadata", "scheduleName")
_RUNTIME_FIELDS = ("parameters", "gcsOutputDirectory", "parameterValues", "failurePolicy", "inputArtifacts")
_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_NETWORK = re.compile(r"projects/\d+/global/networks/[^/]+")
_ACCOUNT = re.compile(r"[^@\s]+@[^@\s]+")
_MOST_AT_ONCE = 32  # jobs that one call may cancel or delete

TERMINAL = ("PIPELINE_STATE_SUCCEEDED", "PIPELINE_STATE_FAILED", "PIPELINE_STATE_CANCELLED")
_CODES = {State.FAILED: 9, State.CANCELLED: 1}  # google.rpc.Code


@dataclass
class _Started:
    """A job at work, and what was seen of its tasks."""

    run: Run
    ids: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ended: bool = False


class PipelineJobs:
    """The pipeline jobs of all projects.

    Args:
        play: Returns how jobs that begin now are run.
        folder: Folder of runs.
        artifact_uri: Returns the URI of an artifact of the metadata store by the name of its location and its id.
        contexts: Makes the contexts of a job whose pipeline has that name; returns them as its jobDetail.
        ended: Told of each job that has ended, with how.
    """

    def __init__(
        self,
        operations: Operations,
        play: Callable[[], Play],
        folder: Path,
        artifact_uri: Callable[[str, str], str],
        contexts: Callable[[dict[str, Any], str], dict[str, Any]],
        ended: Callable[[dict[str, Any], Progress], None],
    ) -> None:
        self.kept = Collection("pipelineJobs")
        self._operations = operations
        self._play = play
        self._folder = folder
        self._artifact_uri = artifact_uri
        self._contexts = contexts
        self._ended = ended
        self._started: dict[str, _Started] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", f"{ROOT}/pipelineJobs", self._create),
            Route("GET", f"{ROOT}/pipelineJobs", self._list),
            Route("POST", f"{ROOT}/pipelineJobs:batchCancel", self._batch_cancel),
            Route("POST", f"{ROOT}/pipelineJobs:batchDelete", self._batch_delete),
            Route("GET", _JOB, self._get),
            Route("POST", f"{_JOB}:cancel", self._cancel),
            Route("DELETE", _JOB, self._delete),
        ]

    def close(self) -> None:
        """End all that runs."""
        for started in self._started.values():
            started.run.cancel()
        for started in self._started.values():
            started.run.close()

    def create(self, within: str, body: Mapping[str, Any], job_id: str, schedule: str = "") -> dict[str, Any]:
        """Create a job and start it.

        Args:
            within: Name of the location.
            job_id: Its id; empty: one is made up.
            schedule: Name of the schedule that wants it.

        Raises:
            ApiError: it is not one that Vertex AI takes.
        """
        given, pipeline, spec, values = self._checked(within, body)
        if not job_id:
            name = re.sub(r"[^a-z0-9]+", "-", pipeline.name.lower()).strip("-")
            time = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d%H%M%S")
            job_id = f"{name}-{time}-{secrets.token_hex(2)}"
        if not _ID.fullmatch(job_id):
            raise ApiError(
                400,
                f"pipeline_job_id: {job_id!r} is not one: it begins with a lower-case letter, has lower-case letters, "
                "digits and '-', and is shorter than 128 characters.",
            )
        created = now()
        resource = {
            **given,
            "name": f"{within}/pipelineJobs/{job_id}",
            "createTime": created,
            "updateTime": created,
            "state": "PIPELINE_STATE_PENDING",
            "labels": {**given.get("labels", {}), "vertex-ai-pipelines-run-billing-id": secrets.token_hex(8)},
        }
        if schedule:
            resource["scheduleName"] = schedule
        self.kept.add(resource)
        resource["jobDetail"] = self._contexts(resource, pipeline.name)
        try:
            run = self._play().start(Job(job_id, spec, pipeline, values, self._folder))
        except PenstockError as error:  # the script of a test that does not fit
            self.kept.remove(resource["name"])
            raise ApiError(400, str(error)) from error
        self._started[resource["name"]] = _Started(run)
        return resource

    def check(self, within: str, body: Mapping[str, Any]) -> None:
        """Refuse a job that Vertex AI does not take, without creating it.

        Raises:
            ApiError: it is such a job.
        """
        self._checked(within, body)

    def cancel(self, name: str) -> None:
        """Begin to end a job.

        Raises:
            ApiError: there is none of that name, or it has ended.
        """
        resource = self._current(name, moving=False)
        if resource["state"] in TERMINAL:
            raise ApiError(400, f"The PipelineJob {name} is in state {resource['state']} and cannot be cancelled.")
        self._started[name].run.cancel()
        self._current(name, moving=False)

    def current(self, schedule: str = "") -> list[dict[str, Any]]:
        """Return all jobs as they are now; only those of a schedule where one is named."""
        found = [each for each in self.kept.all() if not schedule or each.get("scheduleName") == schedule]
        return [self._current(each["name"], moving=False) for each in found]

    def _create(self, request: Request, version: str, project: str, location: str) -> Any:
        body = request.json()
        return self.create(parent(project, location), body, request.query.get("pipelineJobId", ""))

    def _get(self, request: Request, version: str, project: str, location: str, job: str) -> Any:
        return self._current(f"{parent(project, location)}/pipelineJobs/{job}", moving=True)

    def _list(self, request: Request, version: str, project: str, location: str) -> Any:
        return self.kept.listed(request, parent(project, location), map(_in_list, self.current()), _for_filters)

    def _cancel(self, request: Request, version: str, project: str, location: str, job: str) -> Any:
        self.cancel(f"{parent(project, location)}/pipelineJobs/{job}")
        return {}

    def _delete(self, request: Request, version: str, project: str, location: str, job: str) -> Any:
        name = f"{parent(project, location)}/pipelineJobs/{job}"
        self._remove(name)
        return self._operations.start(name, {})

    def _batch_cancel(self, request: Request, version: str, project: str, location: str) -> Any:
        names = _names(request)
        found = [self._current(name, moving=False) for name in names]
        for resource in found:
            if resource["state"] not in TERMINAL:
                self.cancel(resource["name"])
        answer = {"pipelineJobs": [self._current(name, moving=False) for name in names]}
        return self._operations.start(parent(project, location), answer, "BatchCancelPipelineJobsResponse")

    def _batch_delete(self, request: Request, version: str, project: str, location: str) -> Any:
        answer = {"pipelineJobs": [self._remove(name) for name in _names(request)]}
        return self._operations.start(parent(project, location), answer, "BatchDeletePipelineJobsResponse")

    def _remove(self, name: str) -> dict[str, Any]:
        resource = self._current(name, moving=False)
        if resource["state"] not in TERMINAL:
            raise ApiError(
                400, f"The PipelineJob {name} is in state {resource['state']}; cancel it before deleting it."
            )
        self._started.pop(name).run.close()
        return self.kept.remove(name)

    def _checked(
        self, within: str, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], graph.Pipeline, bytes, dict[str, Any]]:
        """Return a job as it was given, its pipeline, the bytes of its spec, and the values of all inputs."""
        given = checked(body, "pipeline_job", _FIELDS, _OUTPUT_ONLY)
        pipeline, spec = _pipeline(given)
        values = self._values(within, given, pipeline)
        _check_settings(given)
        return given, pipeline, spec, values

    def _values(self, within: str, given: Mapping[str, Any], pipeline: graph.Pipeline) -> dict[str, Any]:
        """Return the values of all inputs.

        Raises:
            ApiError: they are not what the spec declares.
        """
        config = given.get("runtimeConfig", {})
        for name in config:
            if name not in _RUNTIME_FIELDS:
                raise ApiError(
                    400,
                    f"Invalid JSON payload received. Unknown name \"{name}\" at 'pipeline_job.runtime_config': "
                    "Cannot find field.",
                )
        if not str(config.get("gcsOutputDirectory", "")).startswith("gs://"):
            raise ApiError(400, "runtime_config.gcs_output_directory: a path that begins with gs:// is required.")
        values = {
            name: next(iter(value.values()), None) if isinstance(value, Mapping) else value
            for name, value in config.get("parameters", {}).items()
        }
        values = {name: _old_value(pipeline, name, value) for name, value in values.items()}
        values |= config.get("parameterValues", {})
        for name, artifact in config.get("inputArtifacts", {}).items():
            values[name] = self._artifact_uri(within, artifact.get("artifactId", ""))
        try:
            return parameters.complete(pipeline, from_kfp.integral(values))
        except PenstockError as error:
            raise ApiError(400, f"Pipeline job {pipeline.name}: {error}") from error

    def _current(self, name: str, *, moving: bool) -> dict[str, Any]:
        """Return a job with its state and tasks as they are now.

        Args:
            moving: Whether a script goes on by it.
        """
        resource = self.kept.get(name)
        started = self._started[name]
        if started.ended:
            return resource
        progress = started.run.poll() if moving else started.run.peek()
        state = f"PIPELINE_STATE_{progress.state}"
        if progress.cancelling and not progress.ended:
            state = "PIPELINE_STATE_CANCELLING"
        if state != resource["state"]:
            resource["updateTime"] = now()
        resource["state"] = state
        if progress.state is not State.PENDING:
            resource.setdefault("startTime", now())
        resource["jobDetail"]["taskDetails"] = [
            self._task(started, task, resource, progress) for task in progress.tasks
        ]
        if progress.ended:
            started.ended = True
            resource["endTime"] = now()
            if progress.state in _CODES and (progress.error or progress.state is State.FAILED):
                resource["error"] = {"code": _CODES[progress.state], "message": _message(progress)}
            self._ended(resource, progress)
        return resource

    def _task(
        self, started: _Started, task: TaskRecord, resource: Mapping[str, Any], progress: Progress
    ) -> dict[str, Any]:
        ids = started.ids
        ids.setdefault(task.path, _number(resource["name"], task.path))
        above, _, last = task.path.rpartition(".")
        state = "NOT_TRIGGERED" if task.state is State.SKIPPED and task.condition else str(task.state)
        if progress.cancelling and task.state is State.RUNNING:
            state = "CANCELLING"
        history = started.history.setdefault(task.path, [])
        if not history or history[-1]["state"] != state:
            history.append({"updateTime": now(), "state": state})
        found: dict[str, Any] = {
            "taskId": str(ids[task.path]),
            "taskName": last,
            "taskUniqueName": task.path,
            "createTime": history[0]["updateTime"],
            "state": state,
            "pipelineTaskStatus": list(history),
        }
        if above in ids:
            found["parentTaskId"] = str(ids[above])
        if task.started:
            begin = datetime.datetime.fromisoformat(task.started)
            found["startTime"] = stamp(begin)
            if task.seconds is not None:
                found["endTime"] = stamp(begin + datetime.timedelta(seconds=task.seconds))
        if task.error:
            found["error"] = {"code": 9, "message": task.error}
        for way in ("inputs", "outputs"):
            artifacts = getattr(task, way).artifacts
            if artifacts:
                found[way] = {
                    port: {
                        "artifacts": [
                            {
                                "displayName": item.name,
                                "uri": _uri(item.uri, progress),
                                "schemaTitle": item.type,
                                "metadata": item.metadata,
                                "state": "LIVE",
                            }
                            for item in items
                        ]
                    }
                    for port, items in artifacts.items()
                }
        known = {f"input:{name}": value for name, value in task.inputs.parameters.items()}
        known |= {f"output:{name}": value for name, value in task.outputs.parameters.items()}
        within = resource["name"].partition("/pipelineJobs/")[0]
        found["execution"] = {
            "name": f"{within}/metadataStores/default/executions/{ids[task.path]}",
            "displayName": last,
            "schemaTitle": "system.DagExecution" if task.kind == "dag" else "system.ContainerExecution",
            "state": _EXECUTION_STATES.get(task.state, "STATE_UNSPECIFIED"),
            "metadata": known,
        }
        return found


_EXECUTION_STATES = {
    State.PENDING: "NEW",
    State.RUNNING: "RUNNING",
    State.SUCCEEDED: "COMPLETE",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
}


def _pipeline(given: Mapping[str, Any]) -> tuple[graph.Pipeline, bytes]:
    if given.get("templateUri") and not given.get("pipelineSpec"):
        raise ApiError(400, "template_uri: the stand-in has no template registry; send pipeline_spec.")
    spec = given.get("pipelineSpec")
    if not isinstance(spec, Mapping) or not spec:
        raise ApiError(400, "pipeline_spec: is required.")
    try:
        values = given.get("runtimeConfig", {}).get("parameterValues", {})
        return accepted(spec, "pipeline_spec", "vertex", values), json.dumps(spec).encode()
    except PenstockError as error:
        raise ApiError(400, str(error)) from error


def _old_value(pipeline: graph.Pipeline, name: str, value: Any) -> Any:
    """Return a value of runtime_config.parameters, which has but integers, doubles and text, and integers as text."""
    port = pipeline.inputs.parameters.get(name)
    if port is None or not isinstance(value, str) or port.type is graph.Type.STRING:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _check_settings(given: Mapping[str, Any]) -> None:
    for what, value, wanted, example in (
        ("encryption_spec.kms_key_name", given.get("encryptionSpec", {}).get("kmsKeyName"), _KEY,
         "projects/P/locations/L/keyRings/R/cryptoKeys/K"),
        ("network", given.get("network"), _NETWORK, "projects/NUMBER/global/networks/NAME"),
        ("service_account", given.get("serviceAccount"), _ACCOUNT, "NAME@PROJECT.iam.gserviceaccount.com"),
    ):  # fmt: skip
        if value and not wanted.fullmatch(value):
            raise ApiError(400, f"{what}: {value!r} is not one; it looks like {example}.")


def _for_filters(resource: Mapping[str, Any]) -> dict[str, Any]:
    info = resource["pipelineSpec"].get("pipelineInfo", {})
    return {"pipelineName": info.get("name"), "pipelineJobUserId": resource["name"].rpartition("/")[2]}


def _in_list(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job as lists show it."""
    shown = {name: value for name, value in resource.items() if name != "jobDetail"}
    contexts = {name: value for name, value in resource["jobDetail"].items() if name != "taskDetails"}
    return {**shown, "jobDetail": contexts}


def _names(request: Request) -> list[str]:
    names = request.json().get("names", [])
    if not 1 <= len(names) <= _MOST_AT_ONCE:
        raise ApiError(400, f"names: from 1 to {_MOST_AT_ONCE} jobs at once, not {len(names)}.")
    return list(names)


def _number(*of: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(of).encode()).digest()[:7], "big")


def _message(progress: Progress) -> str:
    failed = [task.name for task in progress.tasks if task.state is State.FAILED and task.kind != "dag"]
    if progress.state is not State.FAILED or not failed:
        return progress.error or "the job failed"
    names = ", ".join(failed)
    return f"The DAG failed because some tasks failed. The failed tasks are: [{names}].; {progress.error}"


def _uri(uri: str, progress: Progress) -> str:
    """Return an artifact's URI as the job tells it: what lies in the run's folder by its path on this machine."""
    return uri if "://" in uri or progress.folder is None else str(progress.folder / uri)
