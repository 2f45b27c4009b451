"""Jobs, and the history of their runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.blobs import PREFIX, Blobs
from penstock.testing.azureml.pipelines import Pipelines, check_placeholders
from penstock.testing.azureml.plays import ENDED, JobRun, JobState, JobStates
from penstock.testing.azureml.rehearsals import Rehearsal, Rehearsals
from penstock.testing.azureml.resources import (
    TYPE,
    Kept,
    Scope,
    changed,
    check_name,
    check_tags,
    listed,
    operation,
    properties_of,
    shown,
)
from penstock.testing.azureml.workspace import ARTIFACTS, ML, Workspace
from penstock.testing.runs import Script
from penstock.testing.server import Answer, ApiError, Request, Route
from penstock.testing.times import now

_EXPERIMENT = "Default"
_NOT_BEGUN = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued")
_FROM_CLIENTS = ("description", "displayName", "tags", "properties", "hidden")


class _Run:
    """A run of the history: of a job, or of a node of one."""

    def __init__(
        self,
        run_id: str,
        display_name: str,
        compute: str,
        parent: _Job | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = run_id
        self.display_name = display_name
        self.tags = tags or {}
        self.compute = compute
        self.parent = parent
        self.created = now()
        self.status, self.started, self.ended, self.error = "NotStarted", "", "", ""

    def into(self, status: str, error: str = "") -> bool:
        """Take on a status; return whether it is another one."""
        if status == self.status:
            return False
        self.status, self.error = status, error if status == "Failed" else ""
        if status not in _NOT_BEGUN and not self.started:
            self.started = now()
        if status in ENDED:
            self.ended = now()
        return True


class _Job:
    """A job: its resource, how it goes, its own run and those of its nodes."""

    def __init__(self, kept: Kept, play: JobRun, run: _Run, nodes: Mapping[str, Any], schedule: str) -> None:
        self.kept, self.play, self.run, self.schedule = kept, play, run, schedule
        self.nodes = {
            name: _Run(
                str(uuid.uuid4()),
                given.get("display_name") or name,
                _compute(given, kept.given),
                self,
                given.get("tags"),
            )
            for name, given in nodes.items()
        }
        self.work: Callable[[str], Mapping[str, str]] | None = None  # what is done at its end
        self.outputs: Mapping[str, str] = {}  # URIs of what its one node left, by name
        self.begun = False  # whether its nodes are there to see
        self.log = b""
        # Where clients look for it, who stream it.
        self.log_name = "logs/azureml/executionlogs.txt" if nodes else "user_logs/std_log.txt"

    @property
    def experiment(self) -> str:
        return str(self.kept.given.get("experimentName") or _EXPERIMENT)


class Jobs:
    """All jobs.

    Args:
        play: Returns how jobs that begin now go.
        rehearsals: Run jobs for real, where that is how.
        url: Returns the address of the stand-in.
    """

    def __init__(
        self,
        scope: Scope,
        workspace: Workspace,
        assets: Assets,
        pipelines: Pipelines,
        blobs: Blobs,
        play: Callable[[], Script | JobStates | Rehearsal],
        rehearsals: Rehearsals,
        url: Callable[[], str],
    ) -> None:
        self._scope = scope
        self._workspace = workspace
        self._assets = assets
        self._pipelines = pipelines
        self._blobs = blobs
        self._play = play
        self._rehearsals = rehearsals
        self._url = url
        self._kept: dict[str, _Job] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        one, run = "/jobs/{name}", "/runs/{name}"
        own = [
            Route("GET", "/jobs", self._list),
            Route("PUT", one, self._put),
            Route("GET", one, lambda request, name: self._get(name)),
            Route("DELETE", one, self._delete),
            Route("POST", f"{one}/cancel", self._cancel),
        ]
        history = [
            Route("GET", run, lambda request, name: self._run(self._found(name, moving=True))),
            Route("PATCH", run, self._patch),
            Route(
                "PATCH",
                f"/experiments/{{experiment}}{run}",
                lambda request, experiment, name: self._patch(request, name),
            ),
            Route("GET", f"{run}/children", self._children),
            Route("GET", f"{run}/details", lambda request, name: self._details(name)),
            Route("POST", "/rundata", self._data),
        ]
        data = [Route("POST", "/dataversion/batchGetResolvedUris", self._resolved)]
        return [
            *self._scope.within(own),
            *self._scope.within(history, "/history/v1.0"),
            *self._scope.within(data, "/data/v1.0"),
        ]

    def close(self) -> None:
        """End all that runs."""
        for job in self._kept.values():
            job.play.close()

    def check(self, properties: dict[str, Any]) -> dict[str, Any]:
        """Return the nodes of a job; none for a job that is no pipeline.

        Raises:
            ApiError: it is no job that Azure ML takes, or none that is played here.
        """
        kind = properties.get("jobType")
        if kind == "Pipeline":
            return self._pipelines.check_job(properties)
        if kind != "Command":
            raise ApiError(400, f"jobType: the stand-in has Pipeline and Command, not {kind}.")
        if not (properties.get("command") or "").strip():
            raise ApiError(400, "The command is required.")
        if not properties.get("environmentId"):
            raise ApiError(400, "The environmentId is required.")
        self._assets.referred("environments", properties["environmentId"], "environmentId")
        if code := properties.get("codeId"):
            self._assets.referred("codes", code, "codeId")
        if compute := properties.get("computeId"):
            self._workspace.check_compute(compute, "computeId")
        check_placeholders(
            "job", properties["command"], properties.get("inputs") or {}, properties.get("outputs") or {}
        )
        return {}

    def create(self, name: str, given: dict[str, Any], schedule: str = "") -> dict[str, Any]:
        """Create a job, begin it, and return it.

        Args:
            given: Its properties.
            schedule: Name of the schedule that wants it.

        Raises:
            ApiError: it is none that Azure ML takes.
        """
        check_name(name, "Job")
        return self.begin(name, given, self.check(given), schedule=schedule)

    def begin(
        self,
        name: str,
        given: dict[str, Any],
        nodes: Mapping[str, Any],
        work: Callable[[str], Mapping[str, str]] | None = None,
        schedule: str = "",
    ) -> dict[str, Any]:
        """Begin a job of some nodes, and return it.

        Args:
            given: Its properties.
            work: What is done when it is about to be completed; is given its name and returns the URIs of what its one
                node left. If it raises, the job fails.
            schedule: Name of the schedule that wants it.

        Raises:
            ApiError: there is one of that name, or the test's script does not fit.
        """
        if name in self._kept:
            raise ApiError(409, f"A job with the name {name} already exists.")
        try:
            how = self._play()
            states = partial(self._rehearsals.play, how) if isinstance(how, Rehearsal) else how
            play = JobRun(states, {"name": name, **given}, nodes)
        except PenstockError as error:  # the script of a test that does not fit
            raise ApiError(400, str(error)) from error
        kept = Kept(
            f"{self._scope.id}/jobs/{name}", "jobs", name, {**given, "displayName": given.get("displayName") or name}
        )
        run = _Run(name, kept.given["displayName"], _compute({}, given))
        self._kept[name] = _Job(kept, play, run, nodes, schedule)
        self._kept[name].work = work
        return self._resource(self._kept[name])

    def shown(self, name: str) -> dict[str, Any]:
        """Return a job as a list shows it.

        Raises:
            ApiError: there is no such job.
        """
        return self._resource(self._job(name))

    def given(self, name: str) -> dict[str, Any]:
        """Return the properties of a job, as they were sent.

        Raises:
            ApiError: there is no such job.
        """
        return self._job(name).kept.given

    def _put(self, request: Request, name: str) -> Any:
        given = properties_of(request)
        if name in self._kept:  # sent again, or changed
            job = self._kept[name]
            changed(job.kept.given, given, f"A job with the name {name}", 400)
            job.kept.modified = now()
            return self._resource(job)
        return Answer(self.create(name, given), 201)

    def _job(self, name: str) -> _Job:
        if name not in self._kept:
            raise ApiError(404, f"Job {name} not found.")
        return self._kept[name]

    def _found(self, name: str, *, moving: bool) -> _Run:
        """Return the run of a job, or of a node.

        Args:
            moving: Whether the job goes on by it.
        """
        for job in self._kept.values():
            if name == job.run.id or (job.begun and any(name == node.id for node in job.nodes.values())):
                if moving and name == job.run.id:
                    self._move(job)
                return next(each for each in (job.run, *job.nodes.values()) if each.id == name)
        raise ApiError(404, f"Run {name} was not found.")

    def _move(self, job: _Job) -> None:
        if not job.play.ended:
            job.play.poll()
            if job.work and job.play.now.status == "Completed":
                try:
                    job.outputs = job.work(job.run.id)
                except Exception as error:
                    job.play.now = JobState("Failed", error=str(error))
            self._note(job)

    def _note(self, job: _Job) -> None:
        """Put into the runs, and into the log, how far a job is."""
        state: JobState = job.play.now
        if state.status not in (*_NOT_BEGUN, "CancelRequested", "Canceled"):
            job.begun = True
        named = [(job.run, state.status, state.error)]
        if job.begun:
            # A node of a failed job that is not named did not fail: it was not started, or was ended with the job.
            rest = state.status
            if state.status == "Failed" and "Failed" in state.nodes.values():
                rest = "Canceled"
            named = [(run, state.nodes.get(name, rest), state.error) for name, run in job.nodes.items()] + named
        for run, status, error in named:
            if run.status not in ENDED and run.into(status, error):
                job.log += f"[{now()}] {run.display_name}: {status}{f': {run.error}' if run.error else ''}\n".encode()
                self._blobs.put(ARTIFACTS, _folder(job.run.id) + job.log_name, job.log)

    def _get(self, name: str) -> dict[str, Any]:
        for job in self._kept.values():
            if job.begun and any(name == node.id for node in job.nodes.values()):
                # Nodes are not told of here: clients go on to the history of runs.
                return {"id": f"{self._scope.id}/jobs/{name}", "name": name, "type": f"{TYPE}/jobs", "properties": None}
        job = self._job(name)
        self._move(job)
        return self._resource(job)

    def _resource(self, job: _Job) -> dict[str, Any]:
        studio = f"{ML}/runs/{job.run.id}?wsid={self._scope.id}"
        tracking = f"azureml://{self._url().partition('://')[2]}/mlflow/v1.0{self._scope.id}?"
        return job.kept.resource(
            status=job.run.status,
            experimentName=job.experiment,
            services={
                "Studio": {"jobServiceType": "Studio", "endpoint": studio},
                "Tracking": {"jobServiceType": "Tracking", "endpoint": tracking},
            },
        )

    def _list(self, request: Request) -> Any:
        found = [self._resource(job) for job in reversed(self._kept.values()) if self._wanted(job, request.query)]
        return listed(shown(found, request), request)

    def _wanted(self, job: _Job, query: Mapping[str, str]) -> bool:
        if query.get("jobType") and job.kept.given["jobType"] != query["jobType"]:
            return False
        if query.get("scheduleId") and job.schedule != query["scheduleId"].rpartition("/")[2]:
            return False
        tag, equals, value = query.get("tag", "").partition("=")
        tags = job.kept.given.get("tags") or {}
        return not tag or (tag in tags and (not equals or tags[tag] == value))

    def _delete(self, request: Request, name: str) -> Any:
        job = self._job(name)
        if job.run.status not in ENDED:
            raise ApiError(400, f"Job {name} is {job.run.status}; cancel it before you delete it.")
        del self._kept[name]
        return operation(self._scope, request, "dj", name)

    def _cancel(self, request: Request, name: str) -> Any:
        job = self._job(name)
        if job.run.status in (*ENDED, "Finalizing"):
            raise ApiError(400, f"Job {name} is {job.run.status} and cannot be cancelled.")
        job.play.cancel()
        self._note(job)
        return operation(self._scope, request, "jc", name)

    # The history of runs.

    def _run(self, run: _Run) -> dict[str, Any]:
        job = run.parent or self._job(run.id)
        given = job.kept.given if run.parent is None else {}
        node = next((name for name, each in job.nodes.items() if each is run), "")
        own = {"azureml.pipelinerunid": job.run.id, "azureml.runsource": "azureml.StepRun", "azureml.nodeid": node}
        found = {
            "runId": run.id,
            "runUuid": str(uuid.uuid5(uuid.NAMESPACE_URL, run.id)),
            "rootRunId": job.run.id,
            "parentRunId": job.run.id if run.parent else None,
            "experimentId": str(uuid.uuid5(uuid.NAMESPACE_URL, job.experiment)),
            "displayName": given.get("displayName") or run.display_name,
            "description": given.get("description"),
            "status": run.status,
            "createdUtc": run.created,
            "startTimeUtc": run.started or None,
            "endTimeUtc": run.ended or None,
            "error": _error(run),
            "target": run.compute,
            "compute": {"target": run.compute} if run.compute else None,
            "runType": "azureml.StepRun" if run.parent else "azureml.PipelineRun",
            "tags": run.tags if run.parent else given.get("tags") or {},
            "properties": own if run.parent else given.get("properties") or {},
            "hidden": bool(given.get("isArchived")),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _patch(self, request: Request, name: str) -> Any:
        given = request.json()
        run = self._found(name, moving=False)
        if run.parent:
            raise ApiError(400, f"Run {name} is a node of {run.parent.run.id}; the stand-in changes jobs alone.")
        check_tags(given.get("tags"), "tags")
        check_tags(given.get("properties"), "properties")
        wanted = {key: value for key, value in given.items() if key in _FROM_CLIENTS and value is not None}
        if "hidden" in wanted:
            wanted["isArchived"] = wanted.pop("hidden")
        kept = self._job(name).kept
        changed(kept.given, {**kept.given, **wanted}, f"Run {name}")
        kept.modified = now()
        return self._run(run)

    def _children(self, request: Request, name: str) -> Any:
        run = self._found(name, moving=False)  # for clients ask for the job first
        job = self._job(name) if run.parent is None else None
        found = [self._run(node) for node in job.nodes.values()] if job and job.begun else []
        return listed(found, request)

    def _details(self, name: str) -> dict[str, Any]:
        run = self._found(name, moving=True)
        logs = {}
        if run.parent is None and self._job(name).log:
            path = _folder(name) + self._job(name).log_name
            logs[self._job(name).log_name] = f"{self._url()}{PREFIX}/{ARTIFACTS}/{path}?{self._blobs.sas()}"
        found = self._run(run)
        return {
            **{key: found[key] for key in ("runId", "target", "status", "properties") if key in found},
            **{key: found[key] for key in ("startTimeUtc", "endTimeUtc", "error") if key in found},
            "logFiles": logs,
        }

    def _data(self, request: Request) -> Any:
        run = self._found(str(request.json().get("runId")), moving=False)
        outputs = {name: {"assetId": uri, "type": "uri_folder"} for name, uri in self._outputs(run).items()}
        return {"runMetadata": {**self._run(run), "outputs": outputs}}

    def _outputs(self, run: _Run) -> Mapping[str, str]:
        return run.parent.outputs if run.parent else {}

    def _resolved(self, request: Request) -> Any:
        """Return where data assets are; those that runs leave are named by their URIs here."""
        values = request.json().get("values") or []
        return {"values": {each: {"uri": each, "type": "uri_folder"} for each in values}}


def _folder(run: str) -> str:
    return f"ExperimentRun/dcid.{run}/"


def _compute(given: Mapping[str, Any], around: Mapping[str, Any]) -> str:
    """Return the name of the compute that a node, or else the job around it, runs on; empty: it has none."""
    named = given.get("computeId") or around.get("computeId") or (around.get("settings") or {}).get("default_compute")
    return str(named or "").rpartition("/")[2]


def _error(run: _Run) -> dict[str, Any] | None:
    if run.status != "Failed":
        return None
    return {"error": {"code": "UserError", "message": run.error or "the job failed", "details": []}}
