"""Vertex AI Pipelines through Google's own client library, each call with a deadline."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.compile.errors import PenstockError
from penstock.compile.retrying import CallFailed, Clock, Patience, retried
from penstock.compile.submission import (
    Place,
    RemoteRun,
    RemoteSchedule,
    RunState,
    Schedule,
    Submission,
    TaskStatus,
)
from penstock.compile.targets.vertex import jobs
from penstock.compile.targets.vertex.faults import fault_of

if TYPE_CHECKING:
    from google.cloud import aiplatform_v1

T = TypeVar("T")

_CONSOLE = "https://console.cloud.google.com/vertex-ai/locations"
_CONTEXT = 60.0  # seconds that a job may take to get its context, by which experiments know it
_ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"  # gcloud's own
_STATES = {
    "PIPELINE_STATE_QUEUED": RunState.PENDING,
    "PIPELINE_STATE_PENDING": RunState.PENDING,
    "PIPELINE_STATE_RUNNING": RunState.RUNNING,
    "PIPELINE_STATE_SUCCEEDED": RunState.SUCCEEDED,
    "PIPELINE_STATE_FAILED": RunState.FAILED,
    "PIPELINE_STATE_CANCELLING": RunState.CANCELLING,
    "PIPELINE_STATE_CANCELLED": RunState.CANCELLED,
    "PIPELINE_STATE_PAUSED": RunState.PAUSED,
    "PENDING": RunState.PENDING,
    "RUNNING": RunState.RUNNING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "CANCEL_PENDING": RunState.CANCELLING,
    "CANCELLING": RunState.CANCELLING,
    "CANCELLED": RunState.CANCELLED,
    "FAILED": RunState.FAILED,
    "SKIPPED": RunState.SKIPPED,
    "NOT_TRIGGERED": RunState.SKIPPED,
}


class Vertex:
    """A project and a location of Vertex AI.

    What `aiplatform.init` was told holds here too; credentials are Google's default ones. Jobs are not made by the
    SDK's PipelineJob.submit: it makes a bucket for a pipeline root that is mistyped, and its calls have no deadlines.

    Raises:
        PenstockError: the SDK is missing, or there is no project or no credentials.
    """

    def __init__(self, place: Place, patience: Patience = Patience(), clock: Clock = Clock()) -> None:  # noqa: B008
        try:
            # What the SDK logs goes to the stdout of the moment when it is imported.
            with contextlib.redirect_stdout(sys.stderr):
                from google.api_core.client_options import ClientOptions
                from google.auth.exceptions import GoogleAuthError
                from google.cloud import aiplatform_v1
                from google.cloud.aiplatform import initializer
        except ImportError as error:
            raise PenstockError(
                "Vertex AI needs google-cloud-aiplatform, which is not installed: pip install 'penstock[vertex]'"
            ) from error
        config = initializer.global_config
        try:
            credentials = config.credentials
            self.project = place.project or config.project
        except (GoogleAuthError, ValueError) as error:
            raise PenstockError(
                "there is no project, or there are no credentials, of Google's: give --project, and log in with "
                "`gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS"
            ) from error
        self.location = place.location or config.location
        endpoint = place.endpoint or os.environ.get(_ENDPOINT_VARIABLE, "").rstrip("/")
        try:
            options = config.get_client_options(location_override=self.location)
        except ValueError as error:
            raise PenstockError(f"--location {self.location}: {error}") from error
        if endpoint:
            options = ClientOptions(api_endpoint=endpoint)
        # HTTP rather than gRPC, so that proxies, Retry-After and addresses of one's own work.
        self._client: dict[str, Any] = {"credentials": credentials, "transport": "rest", "client_options": options}
        self._jobs = aiplatform_v1.PipelineServiceClient(**self._client)
        self._schedules = aiplatform_v1.ScheduleServiceClient(**self._client)
        self._types = aiplatform_v1
        self._credentials, self._endpoint = credentials, options.api_endpoint
        self._patience, self._clock = patience, clock

    @property
    def parent(self) -> str:
        """Resource name of the location."""
        return f"projects/{self.project}/locations/{self.location}"

    def submit(self, submission: Submission) -> RemoteRun:
        """Begin a run; where the job is there, because an earlier attempt has got through, return it."""
        from google.api_core.exceptions import Conflict, NotFound

        experiment = submission.settings.experiment
        context = self._experiment(experiment) if experiment else ""
        job = self._message(self._types.PipelineJob, jobs.job(submission, submission.request))
        name = self._name(jobs.run_id(submission))

        def create(seconds: float) -> tuple[aiplatform_v1.PipelineJob, bool]:
            try:
                return self._jobs.create_pipeline_job(
                    parent=self.parent,
                    pipeline_job=job,
                    pipeline_job_id=jobs.run_id(submission),
                    timeout=seconds,
                    retry=None,
                ), False
            except Conflict as conflict:
                try:
                    return self._jobs.get_pipeline_job(name=name, timeout=seconds, retry=None), True
                except NotFound:
                    raise conflict from None

        made, adopted = self._ask("the run could not be begun", create)
        if adopted:
            self._refuse_other(made, submission)
        run = replace(self._run(made), adopted=adopted)
        if experiment:
            self._associate(run.id, experiment, context)
        return run

    def find(self, submission: Submission, seconds: float | None = None) -> RemoteRun | None:
        """Return the run that a submission has begun, if it did."""
        try:
            return self.get(jobs.run_id(submission), seconds)
        except CallFailed as error:
            if error.fault.status == 404:
                return None
            raise

    def get(self, run_id: str, seconds: float | None = None) -> RemoteRun:
        """Return a run as it is now."""
        name = self._name(run_id)

        def read(timeout: float) -> aiplatform_v1.PipelineJob:
            return self._jobs.get_pipeline_job(name=name, timeout=timeout, retry=None)

        return self._run(self._ask(f"run {run_id} cannot be seen", read, seconds))

    def cancel(self, run_id: str, seconds: float) -> None:
        """Ask for the end of a run; one that is over already stays as it is."""
        name = self._name(run_id)

        def end(timeout: float) -> None:
            self._jobs.cancel_pipeline_job(name=name, timeout=timeout, retry=None)

        try:
            self._ask(f"run {run_id} could not be cancelled", end, seconds)
        except CallFailed as error:
            # FAILED_PRECONDITION: there was nothing to cancel any more.
            if error.fault.status != 400 or not self.get(run_id).state.over:
                raise

    def schedules(self, name: str | None = None) -> Sequence[RemoteSchedule]:
        """Return the schedules of pipelines, or those of a name."""

        def listed(seconds: float) -> list[aiplatform_v1.Schedule]:
            quoted = (name or "").replace("\\", "\\\\").replace('"', '\\"')
            request = {"parent": self.parent, "filter": f'display_name="{quoted}"' if name else "", "page_size": 100}
            return list(self._schedules.list_schedules(request=request, timeout=seconds, retry=None))

        found = self._ask("schedules cannot be listed", listed)
        return [
            self._remote(each)
            for each in found
            if "create_pipeline_job_request" in each and (name is None or each.display_name == name)
        ]

    def create_schedule(self, submission: Submission, schedule: Schedule) -> RemoteSchedule:
        """Make a schedule; where an earlier attempt has made it, return that one."""
        request = schedule.request(submission)
        message = self._message(self._types.Schedule, jobs.schedule(submission, schedule, self.parent))

        def create(seconds: float) -> RemoteSchedule:
            # The service takes no id for it: what an attempt without an answer has made is found by its label.
            for each in self.schedules(schedule.name):
                if each.request == request[: len(each.request)] and each.request:
                    return each
            return self._remote(
                self._schedules.create_schedule(parent=self.parent, schedule=message, timeout=seconds, retry=None)
            )

        made = self._ask(f"schedule {schedule.name} could not be made", create)
        if schedule.paused and made.state == "ACTIVE":
            self.pause_schedule(made.id)
            return replace(made, state="PAUSED")
        return made

    def pause_schedule(self, schedule_id: str) -> None:
        """Begin no run from now on."""
        name = self._schedule_name(schedule_id)
        self._ask(
            f"schedule {schedule_id} could not be paused",
            lambda seconds: self._schedules.pause_schedule(name=name, timeout=seconds, retry=None),
        )

    def resume_schedule(self, schedule_id: str, catch_up: bool | None) -> None:
        """Begin runs again."""
        name = self._schedule_name(schedule_id)
        self._ask(
            f"schedule {schedule_id} could not be resumed",
            lambda seconds: self._schedules.resume_schedule(
                name=name, catch_up=bool(catch_up), timeout=seconds, retry=None
            ),
        )

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule; its runs stay."""
        name = self._schedule_name(schedule_id)

        def delete(seconds: float) -> None:
            from google.api_core.exceptions import NotFound

            try:
                operation: Any = self._schedules.delete_schedule(name=name, timeout=seconds, retry=None)
            except NotFound:
                return  # an attempt without an answer
            operation.result(timeout=seconds)

        # One that never was there must not look deleted.
        self._ask(
            f"schedule {schedule_id} cannot be seen",
            lambda seconds: self._schedules.get_schedule(name=name, timeout=seconds, retry=None),
        )
        self._ask(f"schedule {schedule_id} could not be deleted", delete)

    def _ask(self, what: str, call: Callable[[float], T], seconds: float | None = None) -> T:
        patience = self._patience if seconds is None else Patience.within(seconds)
        return retried(what, call, fault_of, patience, self._clock)

    def _message(self, kind: Any, content: dict[str, Any]) -> Any:
        from google.protobuf import json_format

        message = kind()
        json_format.ParseDict(content, kind.pb(message))
        return message

    def _name(self, run_id: str) -> str:
        return run_id if "/" in run_id else f"{self.parent}/pipelineJobs/{run_id}"

    def _schedule_name(self, schedule_id: str) -> str:
        return schedule_id if "/" in schedule_id else f"{self.parent}/schedules/{schedule_id}"

    def _refuse_other(self, job: aiplatform_v1.PipelineJob, submission: Submission) -> None:
        if not jobs.is_same(job.labels, submission.request):
            raise PenstockError(
                f"the idempotency key {submission.key} was used for another run of this spec, with other parameters or "
                f"settings: {self._url(job.name)}; give another --idempotency-key"
            )

    def _url(self, name: str) -> str:
        return f"{_CONSOLE}/{self.location}/pipelines/runs/{name.rpartition('/')[2]}?project={self.project}"

    def _run(self, job: aiplatform_v1.PipelineJob) -> RemoteRun:
        return RemoteRun(
            job.name.rpartition("/")[2],
            job.display_name,
            self._url(job.name),
            _STATES.get(job.state.name, RunState.PENDING),
            job.error.message,
            tuple(_tasks(job)),
        )

    def _remote(self, schedule: aiplatform_v1.Schedule) -> RemoteSchedule:
        labels = schedule.create_pipeline_job_request.pipeline_job.labels
        next_run: Any = schedule.next_run_time
        number = schedule.name.rpartition("/")[2]
        return RemoteSchedule(
            number,
            schedule.display_name,
            schedule.cron,
            schedule.state.name,
            f"{_CONSOLE}/{self.location}/pipelines/schedules/{number}?project={self.project}",
            labels.get(jobs.REQUEST_LABEL, ""),
            next_run.isoformat() if next_run else "",
        )

    def _experiment(self, name: str) -> str:
        """Return the context of an experiment in Vertex ML Metadata; it is made if need be."""
        from google.cloud import aiplatform

        where = {"project": self.project, "location": self.location, "credentials": self._credentials}
        aiplatform.init(**where, api_endpoint=self._endpoint, api_transport="rest")
        try:
            return str(aiplatform.Experiment.get_or_create(name, **where).resource_name)
        except Exception as error:  # the SDK wraps whatever happened into errors of many kinds
            raise PenstockError(
                f"--experiment {name}: it could not be found or made: {_cause(error)}; nothing was submitted"
            ) from error

    def _associate(self, run_id: str, experiment: str, context: str) -> None:
        """Put a run into an experiment, when the platform has given it a context, which comes as the run begins."""
        name, end = self._name(run_id), self._clock.now() + _CONTEXT

        def read(seconds: float) -> aiplatform_v1.PipelineJob:
            return self._jobs.get_pipeline_job(name=name, timeout=seconds, retry=None)

        try:
            own = ""
            while not (own := self._ask("the run cannot be seen", read).job_detail.pipeline_run_context.name):
                if self._clock.now() >= end:
                    raise PenstockError(f"it has no context after {_CONTEXT:g} s")
                self._clock.sleep(1)
            client = self._types.MetadataServiceClient(**self._client)
            self._ask(
                "its context cannot be added",
                lambda seconds: client.add_context_children(
                    context=context, child_contexts=[own], timeout=seconds, retry=None
                ),
            )
        except PenstockError as error:  # the run is there whatever becomes of this
            warnings.warn(f"run {run_id} was begun, but not put into experiment {experiment}: {error}", stacklevel=2)


def _tasks(job: aiplatform_v1.PipelineJob) -> Iterable[TaskStatus]:
    own = job.name.rpartition("/")[2]
    by_id = {detail.task_id: detail for detail in job.job_detail.task_details}
    for detail in by_id.values():
        if detail.task_name == own:
            continue  # it stands for the job as a whole
        names = [detail.task_name]
        above = by_id.get(detail.parent_task_id)
        while above is not None and above.task_name != own:
            names.append(above.task_name)
            above = by_id.get(above.parent_task_id)
        yield TaskStatus(
            str(detail.task_id),
            ".".join(reversed(names)),
            _STATES.get(detail.state.name, RunState.PENDING),
            detail.error.message,
        )


def _cause(error: Exception) -> str:
    fault = fault_of(error) or (fault_of(error.__cause__) if isinstance(error.__cause__, Exception) else None)
    return fault.reason if fault else str(error)
