"""Azure ML through Azure's own client library, each call with a deadline."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from penstock.compile.errors import PenstockError
from penstock.compile.retrying import CallFailed, Clock, Fault, Patience, retried
from penstock.compile.submission import (
    Place,
    RemoteRun,
    RemoteSchedule,
    RunState,
    Schedule,
    Submission,
    TaskStatus,
)
from penstock.compile.targets.azureml import emit, jobs
from penstock.compile.targets.azureml.faults import fault_of

T = TypeVar("T")

_STATES = {
    "NotStarted": RunState.PENDING,
    "Starting": RunState.PENDING,
    "Provisioning": RunState.PENDING,
    "Preparing": RunState.PENDING,
    "Queued": RunState.PENDING,
    "Running": RunState.RUNNING,
    "Finalizing": RunState.RUNNING,
    "NotResponding": RunState.RUNNING,
    "Paused": RunState.PAUSED,
    "CancelRequested": RunState.CANCELLING,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
    "Canceled": RunState.CANCELLED,
}
# Where the workspace is told that no option names: variables, the first that is set, and the key of config.json.
_WHERE = {
    "subscription": (("AZUREML_ARM_SUBSCRIPTION", "AZURE_SUBSCRIPTION_ID"), "subscription_id"),
    "resource_group": (("AZUREML_ARM_RESOURCEGROUP", "AZURE_RESOURCE_GROUP"), "resource_group"),
    "workspace": (("AZUREML_ARM_WORKSPACE_NAME", "AZUREML_WORKSPACE_NAME"), "workspace_name"),
}
_CONFIG = (Path("config.json"), Path(".azureml") / "config.json")
_CONNECT = 10.0  # seconds that a connection may take
_UPLOAD = 5.0  # seconds that a store may be silent, for uploads are in threads that no signal ends
_CREDENTIALS = 10.0  # seconds that each of the ways to a token may take
_MOST_ERRORS = 20  # of failed tasks, each of which is asked for
_TASK_TAG = "penstock.task"
_BLANK = re.compile(r"(\x1b\[[0-9;]*m|\s)*")


@dataclass(frozen=True)
class _Asking:
    """What the calls at work are for, as errors begin, and how long to go on."""

    what: str
    patience: Patience


_ASKING: ContextVar[_Asking | None] = ContextVar("asking", default=None)
_SENDING = threading.RLock()  # held while the client's own uploads are given deadlines


class AzureML:
    """A workspace of Azure ML.

    Credentials are those that DefaultAzureCredential finds. Every request goes by a transport of ours: the client's own
    would wait five minutes for an answer, and up to an hour in all.

    Raises:
        PenstockError: the SDK is missing, or it is not known which workspace is meant.
    """

    def __init__(self, place: Place, patience: Patience = Patience(), clock: Clock = Clock()) -> None:  # noqa: B008
        where = _where(place)
        try:
            # Its remarks on classes that it calls experimental would go to stderr where nobody has set up logging.
            logging.getLogger("azure.ai.ml._utils._experimental").addHandler(logging.NullHandler())
            from azure.ai.ml import MLClient
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            raise PenstockError(
                "Azure ML needs azure-ai-ml, which is not installed: pip install 'penstock[azureml]'"
            ) from error
        self._patience, self._clock = patience, clock
        self._id = (
            f"/subscriptions/{where['subscription']}/resourceGroups/{where['resource_group']}/providers/"
            f"Microsoft.MachineLearningServices/workspaces/{where['workspace']}"
        )
        limits = {"connection_timeout": _CREDENTIALS, "read_timeout": _CREDENTIALS}
        credential = DefaultAzureCredential(process_timeout=int(_CREDENTIALS), **limits)
        try:
            self._client = MLClient(
                credential,
                where["subscription"],
                where["resource_group"],
                where["workspace"],
                show_progress=False,
                enable_telemetry=False,
                transport=_transport(patience, clock),
                retry_total=0,
            )
        except Exception as error:  # of a cloud that is not known, whatever the client makes of that
            fault = fault_of(error)
            raise PenstockError(f"Azure ML cannot be reached: {fault.reason if fault else error}") from error

    def submit(self, submission: Submission) -> RemoteRun:
        """Begin a run; where the job is there, because an earlier attempt has got through, return it."""
        name = jobs.run_id(submission)
        if found := self._found(name):
            return self._adopted(found, submission)
        made = jobs.job(submission, submission.request, name)
        for finding in made.warnings:
            warnings.warn(str(finding), stacklevel=2)
        with _written(made) as folder:
            self._register(made, folder)

            def create() -> Any:
                with self._sending():
                    return self._client.jobs.create_or_update(self._loaded(made, folder))

            try:
                return self._run(self._ask("the run could not be begun", create))
            except CallFailed:
                # Somebody else may have been faster, with another request under this name.
                if found := self._found(name):
                    return self._adopted(found, submission)
                raise

    def find(self, submission: Submission, seconds: float | None = None) -> RemoteRun | None:
        """Return the run that a submission has begun, if it did."""
        found = self._found(jobs.run_id(submission), seconds)
        return self._run(found) if found else None

    def get(self, run_id: str, seconds: float | None = None) -> RemoteRun:
        """Return a run as it is now."""

        def read() -> RemoteRun:
            run = self._run(self._client.jobs.get(run_id))
            children = list(self._client.jobs.list(parent_job_name=run_id))
            failed = run.state is RunState.FAILED
            errors = {
                each.name: self._error(each.name)
                for each in [child for child in children if failed and _state(child) is RunState.FAILED][:_MOST_ERRORS]
            }
            tasks = tuple(_task(each, errors.get(each.name, "")) for each in children)
            return replace(run, tasks=tasks, error=self._error(run_id) if failed else "")

        return self._ask(f"run {run_id} cannot be seen", read, seconds)

    def cancel(self, run_id: str, seconds: float) -> None:
        """Ask for the end of a run; one that is over already stays as it is."""
        try:
            self._ask(
                f"run {run_id} could not be cancelled",
                lambda: self._client.jobs.begin_cancel(run_id, polling=False),
                seconds,
            )
        except CallFailed as error:
            if error.fault.status not in (400, 409) or not self.get(run_id).state.over:
                raise

    def schedules(self, name: str | None = None) -> Sequence[RemoteSchedule]:
        """Return the schedules of jobs, or those of a name."""
        from azure.ai.ml.entities import JobSchedule

        def listed() -> list[Any]:
            return list(self._client.schedules.list(list_view_type="All"))

        found = [each for each in self._ask("schedules cannot be listed", listed) if isinstance(each, JobSchedule)]
        return [self._schedule(each) for each in found if name in (None, each.name)]

    def create_schedule(self, submission: Submission, schedule: Schedule) -> RemoteSchedule:
        """Make a schedule; another one of that name, or what an earlier attempt has made of it, becomes this one."""
        request = schedule.request(submission)
        made = jobs.job(submission, submission.request)
        for finding in made.warnings:
            warnings.warn(str(finding), stacklevel=2)
        with _written(made) as folder:
            self._register(made, folder)

            def create() -> Any:
                from azure.ai.ml.entities import CronTrigger, JobSchedule, RecurrenceTrigger

                when = jobs.trigger(schedule)
                kind = {"cron": CronTrigger, "recurrence": RecurrenceTrigger}[when.pop("type")]
                wanted = JobSchedule(
                    name=schedule.name,
                    display_name=schedule.name,
                    trigger=kind(**when),
                    create_job=self._loaded(made, folder),
                    tags={jobs.SHA256_TAG: submission.sha256},
                    properties={jobs.REQUEST_PROPERTY: request},
                )
                with self._sending():
                    return self._ended(self._client.schedules.begin_create_or_update(wanted))

            found = self._schedule(self._ask(f"schedule {schedule.name} could not be made", create))
        if schedule.paused:
            self.pause_schedule(found.id)
            return replace(found, state="PAUSED")
        return found

    def pause_schedule(self, schedule_id: str) -> None:
        """Begin no run from now on."""
        self._ask(
            f"schedule {schedule_id} could not be paused",
            lambda: self._ended(self._client.schedules.begin_disable(schedule_id)),
        )

    def resume_schedule(self, schedule_id: str, catch_up: bool | None) -> None:
        """Begin runs again."""
        self._ask(
            f"schedule {schedule_id} could not be resumed",
            lambda: self._ended(self._client.schedules.begin_enable(schedule_id)),
        )

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule, which is paused before, as Azure wants it; its runs stay."""
        from azure.core.exceptions import ResourceNotFoundError

        def delete() -> None:
            with contextlib.suppress(ResourceNotFoundError):  # an attempt without an answer
                self._ended(self._client.schedules.begin_delete(schedule_id))

        self.pause_schedule(schedule_id)  # one that never was there must not look deleted
        self._ask(f"schedule {schedule_id} could not be deleted", delete)

    def _ask(self, what: str, call: Callable[[], T], seconds: float | None = None) -> T:
        """Return what calls of the client come to; the transport goes on asking, and uploads are begun anew."""
        patience = self._patience if seconds is None else Patience.within(seconds)
        before = _ASKING.set(_Asking(what, patience))
        try:
            return retried(what, lambda _: call(), fault_of, patience, self._clock)
        finally:
            _ASKING.reset(before)

    def _found(self, name: str, seconds: float | None = None) -> Any:
        try:
            return self._ask(f"run {name} cannot be seen", lambda: self._client.jobs.get(name), seconds)
        except CallFailed as error:
            if error.fault.status == 404 and "--workspace" not in error.fault.reason:
                return None
            raise

    def _adopted(self, job: Any, submission: Submission) -> RemoteRun:
        run = self._run(job)
        if (job.properties or {}).get(jobs.REQUEST_PROPERTY) != submission.request:
            raise PenstockError(
                f"the idempotency key {submission.key} was used for another run of this spec, with other parameters or "
                f"settings: {run.url}; give another --idempotency-key"
            )
        return replace(run, adopted=True)

    def _register(self, made: jobs.Job, folder: Path) -> None:
        """Make what a job refers to by name, where the workspace does not have it: a version's content stays."""
        from azure.ai.ml import load_component
        from azure.ai.ml.entities import Environment
        from azure.core.exceptions import ResourceNotFoundError

        def ensure(
            there: Callable[..., Any], make: Callable[[jobs.Asset], Any], asset: jobs.Asset
        ) -> Callable[[], Any]:
            def attempt() -> Any:
                try:
                    return there(name=asset.name, version=asset.version)
                except ResourceNotFoundError:
                    with self._sending():
                        return make(asset)

            return attempt

        def environment(asset: jobs.Asset) -> Any:
            own = Environment(name=asset.name, version=asset.version, image=asset.content)
            return self._client.environments.create_or_update(own)

        def component(asset: jobs.Asset) -> Any:
            return self._client.components.create_or_update(load_component(folder / asset.content))

        for asset in made.environments:
            self._ask(
                f"environment {asset.name}:{asset.version} could not be registered",
                ensure(self._client.environments.get, environment, asset),
            )
        for asset in made.components:
            self._ask(
                f"component {asset.name}:{asset.version} could not be registered",
                ensure(self._client.components.get, component, asset),
            )

    def _loaded(self, made: jobs.Job, folder: Path) -> Any:
        """Return a job as an object of the client, which keeps what came of an attempt: each needs one of its own."""
        from azure.ai.ml import load_job

        loaded = load_job(folder / emit.JOB)
        if made.components:
            # The client hands a component's short name on as it is, which the service has no use for.
            last = made.components[-1]
            loaded.component = f"{self._id}/components/{last.name}/versions/{last.version}"
        return loaded

    def _error(self, run_id: str) -> str:
        """Return why a run failed, which the client's jobs do not have."""
        found = self._client.jobs._runs_operations.get_run(run_id).error
        root = getattr(found, "error", None)
        return " ".join(str(getattr(root, "message", "") or "").split())

    def _ended(self, poller: Any) -> Any:
        """Return what an operation comes to, in time."""
        with contextlib.redirect_stdout(io.StringIO()):  # where it draws dots while it waits
            result = poller.result(self._patience.seconds)
        if not poller.done():
            raise CallFailed(
                f"Azure ML is still at it after {self._patience.seconds:g} s", Fault("it takes too long", 0)
            )
        return result

    def _run(self, job: Any) -> RemoteRun:
        return RemoteRun(
            job.name,
            job.display_name or job.name,
            job.studio_url or "",
            _state(job),
        )

    def _schedule(self, found: Any) -> RemoteSchedule:
        studio = f"https://ml.azure.com/experiments/schedules?wsid={self._id}"
        return RemoteSchedule(
            found.name,
            found.name,
            _words(found.trigger),
            "ACTIVE" if found.is_enabled else "PAUSED",
            studio,
            (found.properties or {}).get(jobs.REQUEST_PROPERTY, ""),
        )

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """Give the client's uploads deadlines, and keep what it prints while it sends something to itself."""
        from azure.ai.ml._artifacts import _blob_storage_helper as helper
        from azure.ai.ml._utils import _storage_utils as used

        before = used.BlobStorageClient, helper.ContainerClient
        with _SENDING, contextlib.redirect_stderr(_Said(sys.stderr)):
            used.BlobStorageClient, helper.ContainerClient = _uploads()
            try:
                yield
            finally:
                used.BlobStorageClient, helper.ContainerClient = before


@functools.cache
def _uploads() -> tuple[Any, Any]:
    """Return the classes by which the client uploads, with an end.

    Its own take no transport from outside, retry for minutes, and wait for ever for a file whose upload has failed.
    """
    from azure.ai.ml._artifacts._blob_storage_helper import BlobStorageClient
    from azure.storage.blob import ContainerClient

    class Container(ContainerClient):  # type: ignore[misc]
        failure: Exception | None = None

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            limits = {"connection_timeout": _UPLOAD, "read_timeout": _UPLOAD, "retry_total": 0}
            super().__init__(*arguments, **{**settings, **limits})

        def upload_blob(self, *arguments: Any, **settings: Any) -> Any:
            try:
                return super().upload_blob(*arguments, **settings)
            except Exception as error:
                self.failure = error
                raise

    class Uploads(BlobStorageClient):  # type: ignore[misc]
        _uploaded = 0

        @property
        def uploaded_file_count(self) -> int:
            """Files that have arrived, which is asked until all have."""
            failure = getattr(getattr(self, "container_client", None), "failure", None)
            if failure:
                raise failure
            return self._uploaded

        @uploaded_file_count.setter
        def uploaded_file_count(self, count: int) -> None:
            self._uploaded = count

    Uploads.__name__ = BlobStorageClient.__name__  # by which the client tells kinds of storage apart
    return Uploads, Container


class _Said:
    """A stream that leaves out lines without letters, such as the colours that the client resets."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._left_out = False

    def write(self, text: str) -> int:
        blank = bool(_BLANK.fullmatch(text))
        if not blank or (text == "\n" and not self._left_out):
            self._stream.write(text)
        self._left_out = blank and text != "\n"
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _transport(patience: Patience, clock: Clock) -> Any:
    """Return what sends the requests of a client, each with a deadline, and again after passing faults."""
    from azure.core.exceptions import HttpResponseError
    from azure.core.pipeline.transport import RequestsTransport

    class Transport(RequestsTransport):  # type: ignore[misc]
        def send(self, request: Any, **settings: Any) -> Any:
            asking = _ASKING.get() or _Asking("Azure ML could not be asked", patience)

            def attempt(seconds: float) -> Any:
                limits = {"connection_timeout": min(seconds, _CONNECT), "read_timeout": seconds}
                response = super(Transport, self).send(request, **{**settings, **limits})
                if Fault("", response.status_code).passing:
                    with contextlib.suppress(Exception):  # an answer that breaks off still has its status
                        response.load_body() if hasattr(response, "load_body") else response.read()
                    raise HttpResponseError(response=response)
                return response

            return retried(asking.what, attempt, fault_of, asking.patience, clock)

    return Transport()


@contextlib.contextmanager
def _written(made: jobs.Job) -> Iterator[Path]:
    """Write a job's files into a folder that goes again."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        folder = Path(name)
        for path, content in made.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        yield folder


def _where(place: Place) -> dict[str, str]:
    """Return subscription, group and name of the workspace: as given, else by variables, else of a config.json.

    Raises:
        PenstockError: one of them is not known.
    """
    config = _config(Path.cwd())
    found, missing = {}, []
    for name, (variables, key) in _WHERE.items():
        value = getattr(place, name) or next(filter(None, map(os.environ.get, variables)), "") or config.get(key, "")
        found[name] = str(value)
        if not value:
            missing.append(f"--{name.replace('_', '-')} (or {variables[-1]})")
    if missing:
        raise PenstockError(
            f"it is not known which workspace of Azure ML is meant; give {', '.join(missing)}, or work below a folder "
            "with its config.json"
        )
    return found


def _config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a workspace that a folder, or one above, has; empty where there is none."""
    for above in (folder, *folder.parents):
        for path in _CONFIG:
            try:
                found = json.loads((above / path).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and "workspace_name" in found:
                return found
    return {}


def _state(job: Any) -> RunState:
    status = job.status
    return _STATES.get(str(getattr(status, "value", status)), RunState.PENDING)


def _task(child: Any, error: str) -> TaskStatus:
    path = (child.tags or {}).get(_TASK_TAG) or child.display_name or child.name
    return TaskStatus(child.name, path, _state(child), error)


def _words(trigger: Any) -> str:
    """Return when a schedule begins jobs: its cron expression, or how often."""
    if getattr(trigger, "expression", None):
        return str(trigger.expression)
    return f"every {trigger.interval} {trigger.frequency}{'' if trigger.interval == 1 else 's'}"
