"""Custom jobs, batch predictions and tuning jobs of Vertex AI: they pass through states, and predictions are made."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.compile.targets.local.record import State
from penstock.testing.runs import TERMINAL, Script, Steps
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now
from penstock.testing.vertex.models import Endpoints, Models
from penstock.testing.vertex.resources import ROOT, Collection, Operations, check_display_name, check_labels, name_of
from penstock.testing.vertex.storage import Storage
from penstock.testing.vertex.tuning import Trial, check_study, named, trials_of

# Kinds of jobs, with what each of them needs.
_KINDS = {
    "customJobs": ("displayName", "jobSpec"),
    "hyperparameterTuningJobs": ("displayName", "studySpec", "maxTrialCount", "parallelTrialCount", "trialJobSpec"),
    "batchPredictionJobs": ("displayName", "inputConfig", "outputConfig"),
}
_RESULTS = "prediction.results-00000-of-00001"
_ERRORS = "prediction.errors_stats-00000-of-00001"


class Jobs:
    """The jobs of all projects. Their containers are not run.

    Args:
        script: Returns how the state of jobs that begin now goes.

    Attributes:
        trial: Stands for the container of a tuning job's trial: is given its arguments, and returns its metrics.
    """

    def __init__(
        self,
        operations: Operations,
        script: Callable[[], Script],
        models: Models,
        endpoints: Endpoints,
        storage: Storage,
    ) -> None:
        self._operations = operations
        self._script = script
        self._models = models
        self._endpoints = endpoints
        self._storage = storage
        self.trial: Trial | None = None
        self._kept = {noun: Collection(noun) for noun in _KINDS}
        self._steps: dict[str, Steps] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [route for noun in _KINDS for route in self._routes(noun)]

    def _routes(self, noun: str) -> Sequence[Route]:
        many, one, kept = f"{ROOT}/{noun}", f"{ROOT}/{noun}/{{job}}", self._kept[noun]

        def current(request: Request, *, moving: bool) -> dict[str, Any]:
            return self._current(kept.get(name_of(request.path)), moving=moving)

        def listed(request: Request, **names: str) -> Any:
            found = [self._current(each, moving=False) for each in kept.all()]
            return kept.listed(request, name_of(request.path).rpartition("/")[0], found)

        def cancel(request: Request, **names: str) -> Any:
            job = current(request, moving=False)
            if job["state"] in {f"JOB_STATE_{state}" for state in TERMINAL}:
                raise ApiError(400, f"The job {job['name']} is in state {job['state']} and cannot be cancelled.")
            self._steps[job["name"]].cancel()
            return {}

        def delete(request: Request, **names: str) -> Any:
            job = current(request, moving=False)
            if job["state"] not in {f"JOB_STATE_{state}" for state in TERMINAL}:
                raise ApiError(400, f"The job {job['name']} is in state {job['state']}; cancel it before deleting it.")
            kept.remove(job["name"])
            return self._operations.start(job["name"], {})

        return [
            Route("POST", many, lambda request, **names: self._create(noun, request)),
            Route("GET", many, listed),
            Route("GET", one, lambda request, **names: current(request, moving=True)),
            Route("POST", f"{one}:cancel", cancel),
            Route("DELETE", one, delete),
        ]

    def _create(self, noun: str, request: Request) -> Any:
        body = request.json()
        for name in _KINDS[noun]:
            if not body.get(name):
                raise ApiError(400, f"{noun}: {name} is required.")
        check_display_name(body["displayName"])
        check_labels(body.get("labels", {}))
        if noun == "customJobs" and not body["jobSpec"].get("workerPoolSpecs"):
            raise ApiError(400, "job_spec.worker_pool_specs: at least one is required.")
        if noun == "hyperparameterTuningJobs":
            body = {**body, "studySpec": named(body["studySpec"])}
            check_study(body["studySpec"])
        if noun == "batchPredictionJobs":
            _check_batch(body)
        if noun == "batchPredictionJobs" and "model" in body and "/publishers/" not in body["model"]:
            self._models.get(body["model"])
        created = now()
        job = {
            **body,
            "name": f"{name_of(request.path)}/{secrets.randbelow(10**18) + 10**18}",
            "createTime": created,
            "updateTime": created,
            "state": "JOB_STATE_PENDING",
        }
        self._steps[job["name"]] = Steps(self._script())
        return self._kept[noun].add(job)

    def _current(self, job: dict[str, Any], *, moving: bool) -> dict[str, Any]:
        steps = self._steps[job["name"]]
        state, cancelling = steps.poll() if moving else steps.peek()
        told = "JOB_STATE_CANCELLING" if cancelling else f"JOB_STATE_{state}"
        if told == job["state"]:
            return job
        job.update(state=told, updateTime=now())
        if state is not State.PENDING:
            job.setdefault("startTime", now())
        if state in TERMINAL:
            job["endTime"] = now()
        if state is State.FAILED:
            job["error"] = {"code": 3, "message": steps.script.error or "the job failed, as the script says"}
        if state is State.SUCCEEDED and "studySpec" in job:
            job["trials"] = trials_of(job, self.trial)
        if state is State.SUCCEEDED and "inputConfig" in job:
            self._predict(job)
        return job

    def _predict(self, job: dict[str, Any]) -> None:
        """Write the predictions of a batch, where something stands for the models, as Vertex AI lays them out."""
        sources = job["inputConfig"].get("gcsSource", {}).get("uris", [])
        target = job["outputConfig"].get("gcsDestination", {}).get("outputUriPrefix", "").rstrip("/")
        if self._endpoints.predict is None or not sources or not target:
            return
        folder = f"{target}/prediction-{job['displayName']}-{job['name'].rpartition('/')[2]}"
        model = self._models.get(job["model"])
        config = job.get("instanceConfig", {})
        lines = [line for uri in sources for line in self._storage.read(uri).splitlines() if line.strip()]
        given = [json.loads(line) for line in lines]
        found = self._endpoints.predictions(model, [_sent(each, config) for each in given], job.get("modelParameters"))
        rows: list[Mapping[str, Any]] = []
        errors: dict[str, int] = {}
        key = config.get("keyField", "")
        for instance, prediction in zip(given, found, strict=True):
            if isinstance(prediction, Exception):
                errors[str(prediction)] = errors.get(str(prediction), 0) + 1
            else:
                told = {"key": instance[key]} if key else {"instance": instance}
                rows.append({**told, "prediction": prediction})
        self._storage.put(f"{folder}/{_RESULTS}", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        self._storage.put(f"{folder}/{_ERRORS}", "".join(f"{json.dumps(each)}\n" for each in errors.items()).encode())
        job["outputInfo"] = {"gcsOutputDirectory": folder}
        job["completionStats"] = {"successfulCount": str(len(rows)), "failedCount": str(sum(errors.values()))}


def _sent(instance: Any, config: Mapping[str, Any]) -> Any:
    """Return an instance as the model is sent it: without its key and what is left out of it."""
    left_out = {*config.get("excludedFields", []), config.get("keyField", "")} - {""}
    chosen = config.get("includedFields", [])
    if not isinstance(instance, dict) or not (left_out or chosen):
        return instance
    return {name: value for name, value in instance.items() if name not in left_out and (not chosen or name in chosen)}


def _check_batch(body: Mapping[str, Any]) -> None:
    """Refuse a batch prediction that Vertex AI refuses."""
    if ("model" in body) == ("unmanagedContainerModel" in body):
        raise ApiError(400, "exactly one of model and unmanaged_container_model is required.")
    config = body.get("instanceConfig", {})
    if config.get("includedFields") and config.get("excludedFields"):
        raise ApiError(400, "instance_config: included_fields and excluded_fields exclude each other.")
    for uri in body["inputConfig"].get("gcsSource", {}).get("uris", []):
        if not uri.startswith("gs://"):
            raise ApiError(400, f"input_config.gcs_source.uris: {uri} is no gs:// URI.")
