"""Kubeflow Pipelines through kfp's own client, each call with a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

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
    secret,
)
from penstock.compile.targets.kubeflow import options
from penstock.compile.targets.kubeflow.faults import fault_of

T = TypeVar("T")

_PAGE = 100
_STATES = {
    "PENDING": RunState.PENDING,
    "RUNNING": RunState.RUNNING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "SKIPPED": RunState.SKIPPED,
    "FAILED": RunState.FAILED,
    "CANCELING": RunState.CANCELLING,
    "CANCELED": RunState.CANCELLED,
    "PAUSED": RunState.PAUSED,
}
_SCHEDULES = {"ENABLED": "ACTIVE", "DISABLED": "PAUSED"}
_CONFLICT = 409
_SECONDS = "0 "  # the first of the six fields that Kubeflow's cron expressions have


class Kubeflow:
    """An installation of Kubeflow Pipelines, and a namespace of it.

    Raises:
        PenstockError: there is no address, a secret that is named is not there, or Kubeflow does not answer.
    """

    def __init__(self, place: Place, patience: Patience = Patience(), clock: Clock = Clock()) -> None:  # noqa: B008
        self._patience, self._clock = patience, clock
        # As kfp.Client has it; inside a cluster pages are known by their path alone.
        host = place.host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
        pages = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or host or "/pipeline"
        self._pages = pages.rstrip("/") if "://" in pages or pages.startswith("/") else f"https://{pages.rstrip('/')}"
        self._client = self._connected(place, host)
        self._namespace = place.namespace or self._client.get_user_namespace() or None

    def submit(self, submission: Submission) -> RemoteRun:
        """Begin a run; where an earlier attempt has begun it, return that one."""
        from kfp_server_api import V2beta1Run

        body = V2beta1Run(
            display_name=submission.name,
            description=options.description(submission),
            experiment_id=self._experiment(submission.settings.experiment),
            pipeline_version_reference=self._version(submission),
            runtime_config=self._runtime(submission),
            service_account=submission.settings.service_account,
        )

        def create(seconds: float) -> RemoteRun:
            # The API takes no id for a run: what an attempt without an answer has begun is found by its description.
            if found := self._found(submission, seconds):
                return replace(self._run(found[0]), adopted=True)
            return self._run(self._client.runs.run_service_create_run(run=body, _request_timeout=_within(seconds)))

        run = self._ask("the run could not be begun", create)
        return run if run.adopted else self._only(run, submission)

    def find(self, submission: Submission, seconds: float | None = None) -> RemoteRun | None:
        """Return the run that a submission has begun, if it did."""
        found = self._ask("runs cannot be listed", lambda timeout: self._found(submission, timeout), seconds)
        return self._run(found[0]) if found else None

    def get(self, run_id: str, seconds: float | None = None) -> RemoteRun:
        """Return a run as it is now."""

        def read(timeout: float) -> Any:
            return self._client.runs.run_service_get_run(run_id, _request_timeout=_within(timeout))

        return self._run(self._ask(f"run {run_id} cannot be seen", read, seconds))

    def cancel(self, run_id: str, seconds: float) -> None:
        """Ask for the end of a run; one that is over already stays as it is."""

        def end(timeout: float) -> None:
            self._client.runs.run_service_terminate_run(run_id, _request_timeout=_within(timeout))

        try:
            self._ask(f"run {run_id} could not be cancelled", end, seconds)
        except CallFailed as error:
            if error.fault.status not in (400, _CONFLICT) or not self.get(run_id).state.over:
                raise

    def schedules(self, name: str | None = None) -> Sequence[RemoteSchedule]:
        """Return the recurring runs, or those of a name."""
        listed = self._client.recurring_runs.recurring_run_service_list_recurring_runs

        def read(seconds: float) -> list[Any]:
            return list(self._all(listed, "recurring_runs", seconds, _equals("display_name", name) if name else None))

        return [self._schedule(each) for each in self._ask("schedules cannot be listed", read)]

    def create_schedule(self, submission: Submission, schedule: Schedule) -> RemoteSchedule:
        """Make a recurring run; where an earlier attempt has made it, return that one."""
        import kfp_server_api as api

        body = api.V2beta1RecurringRun(
            display_name=schedule.name,
            description=options.schedule_description(submission, schedule),
            experiment_id=self._experiment(submission.settings.experiment),
            pipeline_version_reference=self._version(submission),
            runtime_config=self._runtime(submission),
            service_account=submission.settings.service_account,
            trigger=api.V2beta1Trigger(
                cron_schedule=api.V2beta1CronSchedule(
                    cron=_SECONDS + schedule.cron, start_time=schedule.start, end_time=schedule.end
                )
            ),
            mode=api.RecurringRunMode.DISABLE if schedule.paused else api.RecurringRunMode.ENABLE,
            max_concurrency=str(schedule.max_concurrent or 1),
            no_catchup=not schedule.catch_up,
        )

        def create(seconds: float) -> RemoteSchedule:
            for each in self.schedules(schedule.name):
                if each.request == schedule.request(submission):
                    return each
            made = self._client.recurring_runs.recurring_run_service_create_recurring_run(
                recurring_run=body, _request_timeout=_within(seconds)
            )
            return self._schedule(made)

        return self._ask(f"schedule {schedule.name} could not be made", create)

    def pause_schedule(self, schedule_id: str) -> None:
        """Begin no run from now on."""
        pause = self._client.recurring_runs.recurring_run_service_disable_recurring_run
        self._ask(
            f"schedule {schedule_id} could not be paused",
            lambda seconds: pause(schedule_id, _request_timeout=_within(seconds)),
        )

    def resume_schedule(self, schedule_id: str, catch_up: bool | None) -> None:
        """Begin runs again.

        Raises:
            PenstockError: whether missed runs are made up for was asked: that is said when a schedule is made.
        """
        if catch_up is not None:
            raise PenstockError("--catch-up: Kubeflow is told when a schedule is made, by penstock schedule --catch-up")
        resume = self._client.recurring_runs.recurring_run_service_enable_recurring_run
        self._ask(
            f"schedule {schedule_id} could not be resumed",
            lambda seconds: resume(schedule_id, _request_timeout=_within(seconds)),
        )

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a recurring run; its runs stay."""
        calls = self._client.recurring_runs
        # One that never was there must not look deleted; one that a lost answer had deleted is.
        self._ask(
            f"schedule {schedule_id} cannot be seen",
            lambda seconds: calls.recurring_run_service_get_recurring_run(
                schedule_id, _request_timeout=_within(seconds)
            ),
        )
        try:
            self._ask(
                f"schedule {schedule_id} could not be deleted",
                lambda seconds: calls.recurring_run_service_delete_recurring_run(
                    schedule_id, _request_timeout=_within(seconds)
                ),
            )
        except CallFailed as error:
            if error.fault.status != 404:
                raise

    def _connected(self, place: Place, host: str) -> Any:
        try:
            import kfp.client
            import urllib3
        except ImportError as error:
            raise PenstockError(f"Kubeflow needs {error.name}, which is not installed: pip install penstock") from error
        if not host and "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise PenstockError(
                "it is not known where Kubeflow is; give --host, such as https://kubeflow.example.com/pipeline, or set "
                "KF_PIPELINES_ENDPOINT"
            )
        platform = self

        class Client(kfp.client.Client):  # type: ignore[misc]
            """kfp's client, whose first look at the server has no deadline, and takes any page for its answer."""

            def _load_config(self, *arguments: Any, **named: Any) -> Any:
                config = super()._load_config(*arguments, **named)
                # urllib3 would ask up to four times, and take as many times the seconds that a call has.
                config.retries = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=3)
                return config

            def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
                def look(seconds: float) -> bytes:
                    raw = self.healthzs.healthz_service_get_healthz(
                        _preload_content=False, _request_timeout=_within(seconds)
                    )
                    return bytes(raw.data)

                return platform._health(platform._ask("Kubeflow cannot be reached", look))

        with _quiet():
            return Client(
                host=host or None,
                existing_token=secret(place.token, "token"),
                cookies=secret(place.cookies, "cookies"),
                ssl_ca_cert=place.ca_cert,
            )

    def _health(self, answer: bytes) -> Any:
        from kfp_server_api import V2beta1GetHealthzResponse

        try:
            return V2beta1GetHealthzResponse(multi_user=json.loads(answer).get("multi_user"))
        except (ValueError, AttributeError):
            # A page to log in at, for the most part, whose status says that all is well.
            raise PenstockError(
                f"what answers at {self._pages} is not Kubeflow's API; see --host, --token and --cookies"
            ) from None

    def _ask(self, what: str, call: Callable[[float], T], seconds: float | None = None) -> T:
        patience = self._patience if seconds is None else Patience.within(seconds)
        return retried(what, call, fault_of, patience, self._clock)

    def _all(
        self, listed: Callable[..., Any], noun: str, seconds: float, wanted: str | None, **more: Any
    ) -> Iterator[Any]:
        """Yield what a list has on all its pages."""
        if self._namespace and "pipeline_id" not in more:
            more["namespace"] = self._namespace
        page = ""
        while True:
            found = listed(
                page_token=page, page_size=_PAGE, filter=wanted or "", _request_timeout=_within(seconds), **more
            )
            yield from getattr(found, noun) or ()
            page = found.next_page_token
            if not page:
                return

    def _found(self, submission: Submission, seconds: float) -> list[Any]:
        """Return the runs that a submission has begun, the oldest first: more than one only after lost answers.

        Raises:
            PenstockError: the key was used for another one.
        """
        wanted = _filter("IS_SUBSTRING", "description", options.token(submission))
        found = sorted(
            self._all(self._client.runs.run_service_list_runs, "runs", seconds, wanted),
            key=lambda run: (run.created_at, run.run_id),
        )
        for each in found:
            if options.request(each.description) != submission.request:
                raise PenstockError(
                    f"the idempotency key {submission.key} was used for another run of this spec, with other "
                    f"parameters or settings: {self._url(each.run_id)}; give another --idempotency-key"
                )
        return found

    def _only(self, run: RemoteRun, submission: Submission) -> RemoteRun:
        """Return the run that stays, after ending others that attempts whose answers came too late have begun."""
        found = self._ask("runs cannot be listed", lambda seconds: self._found(submission, seconds))
        for each in found[1:]:
            self.cancel(each.run_id, self._patience.seconds)
        return run if not found or found[0].run_id == run.id else replace(self._run(found[0]), adopted=True)

    def _version(self, submission: Submission) -> Any:
        """Return the version of the pipeline that holds the very bytes; they are uploaded if need be."""
        from kfp_server_api import V2beta1PipelineVersionReference

        pipeline = self._pipeline(submission.pipeline.name)
        calls = self._client

        def upload(seconds: float) -> Any:
            listed = calls.pipelines.pipeline_service_list_pipeline_versions
            wanted = _equals("display_name", submission.sha256)
            for each in self._all(listed, "pipeline_versions", seconds, wanted, pipeline_id=pipeline):
                return each
            with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
                path = Path(folder) / f"{submission.slug}.yaml"
                path.write_bytes(submission.content)
                return calls.pipeline_uploads.upload_pipeline_version(
                    str(path), name=submission.sha256, pipelineid=pipeline, _request_timeout=_within(seconds)
                )

        version = self._ask("the spec could not be uploaded", _again_on_conflict(upload))
        return V2beta1PipelineVersionReference(pipeline_id=pipeline, pipeline_version_id=version.pipeline_version_id)

    def _pipeline(self, name: str) -> str:
        from kfp_server_api import V2beta1Pipeline

        calls = self._client.pipelines

        def create(seconds: float) -> Any:
            wanted = _equals("display_name", name)
            for each in self._all(calls.pipeline_service_list_pipelines, "pipelines", seconds, wanted):
                return each
            body = V2beta1Pipeline(display_name=name, name=name, namespace=self._namespace)
            return calls.pipeline_service_create_pipeline(pipeline=body, _request_timeout=_within(seconds))

        return str(self._ask(f"pipeline {name} could not be made", _again_on_conflict(create)).pipeline_id)

    def _experiment(self, name: str | None) -> str | None:
        """Return the id of an experiment; it is made if need be."""
        from kfp_server_api import V2beta1Experiment

        if name is None:
            if self._namespace is None:
                return None
            name = "Default"  # with several namespaces, a run belongs to the namespace of its experiment
        calls = self._client.experiments

        def create(seconds: float) -> Any:
            wanted = _equals("display_name", name)
            for each in self._all(calls.experiment_service_list_experiments, "experiments", seconds, wanted):
                return each
            body = V2beta1Experiment(display_name=name, namespace=self._namespace)
            return calls.experiment_service_create_experiment(experiment=body, _request_timeout=_within(seconds))

        return str(self._ask(f"experiment {name} could not be made", _again_on_conflict(create)).experiment_id)

    def _runtime(self, submission: Submission) -> Any:
        from kfp_server_api import V2beta1RuntimeConfig

        return V2beta1RuntimeConfig(
            parameters=submission.parameters, pipeline_root=submission.settings.pipeline_root or None
        )

    def _url(self, run_id: str) -> str:
        return f"{self._pages}/#/runs/details/{run_id}"

    def _run(self, run: Any) -> RemoteRun:
        if not getattr(run, "run_id", None):
            raise PenstockError(
                f"what answers at {self._pages} is not Kubeflow's API; see --host, --token and --cookies"
            )
        details = run.run_details.task_details if run.run_details else None
        return RemoteRun(
            run.run_id,
            run.display_name,
            self._url(run.run_id),
            _STATES.get(str(run.state), RunState.PENDING),
            (run.error.message or "") if run.error else "",
            tuple(_tasks(details or ())),
        )

    def _schedule(self, found: Any) -> RemoteSchedule:
        cron = found.trigger.cron_schedule if found.trigger else None
        return RemoteSchedule(
            found.recurring_run_id,
            found.display_name,
            cron.cron.removeprefix(_SECONDS) if cron else "",
            _SCHEDULES.get(str(found.status), str(found.status)),
            f"{self._pages}/#/recurringrun/details/{found.recurring_run_id}",
            options.request(found.description),
        )


def _tasks(details: Sequence[Any]) -> Iterator[TaskStatus]:
    by_id = {detail.task_id: detail for detail in details}
    for detail in details:
        # Of the nodes of the workflow, those that stand for the driver and the container of a task say nothing more.
        if detail.display_name.endswith("-driver") or detail.display_name in ("root", "executor"):
            continue
        names, above = [detail.display_name], by_id.get(detail.parent_task_id)
        while above is not None and above.display_name != "root":
            names.append(above.display_name)
            above = by_id.get(above.parent_task_id)
        error = detail.error.message if detail.error else ""
        yield TaskStatus(
            detail.task_id, ".".join(reversed(names)), _STATES.get(str(detail.state), RunState.PENDING), error or ""
        )


def _again_on_conflict(create: Callable[[float], T]) -> Callable[[float], T]:
    """Return what looks again, once, where somebody else was faster to make the same."""

    def attempt(seconds: float) -> T:
        from kfp_server_api import ApiException

        try:
            return create(seconds)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise
            return create(seconds)

    return attempt


def _equals(key: str, value: str | None) -> str:
    return _filter("EQUALS", key, value or "")


def _filter(operation: str, key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": value}]})


def _within(seconds: float) -> tuple[float, float]:
    """Return the deadlines of a call: to connect, and for each answer."""
    return min(seconds, 10.0), seconds


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to stderr what kfp prints, and to itself what it warns of in every program."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore", FutureWarning)
        yield
