"""Vertex AI through google-cloud-aiplatform: which project and location, and what its exceptions stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import requests
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform, aiplatform_v1, storage
from google.cloud.aiplatform import initializer, utils

from penstock.components._shared.clouds.calls import Failure
from penstock.components._shared.clouds.jobs import DONE, FAILED, GONE, WAITING, Job

OPTIONS = {
    "project": "Project. Without it: the environment's.",
    "location": "Region. Without it: the environment's.",
}
STATES = {
    "JOB_STATE_SUCCEEDED": DONE,
    "JOB_STATE_PARTIALLY_SUCCEEDED": DONE,
    "JOB_STATE_FAILED": FAILED,
    "JOB_STATE_EXPIRED": FAILED,
    "JOB_STATE_CANCELLED": GONE,
    "JOB_STATE_CANCELLING": GONE,
}


def connect(options: Mapping[str, Any]) -> str:
    """Return the resource name of the location that options, or else the environment, name."""
    given = {name: str(options[name]) for name in OPTIONS if options.get(name)}
    if given:
        aiplatform.init(**given)
    return str(initializer.global_config.common_location_path())


def client(kind: type) -> Any:
    """Return a client of a service of Vertex AI, such as utils.JobClientWithOverride."""
    return initializer.global_config.create_client(client_class=kind)


def store() -> Any:
    """Return a client of Cloud Storage, with the credentials and the project of Vertex AI's clients."""
    config = initializer.global_config
    return storage.Client(project=config.project, credentials=config.credentials)


def place(uri: str) -> tuple[str, str]:
    """Return bucket and path of a gs:// URI."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return bucket, path


def failure(error: Exception) -> Failure | None:
    """Return what an exception stands for; None: it is no fault of a call."""
    if isinstance(error, GoogleAPICallError):
        headers = getattr(error.response, "headers", None) or {}
        after = str(headers.get("Retry-After", ""))
        reason = " ".join(str(error.message).split())[:300]
        return Failure(reason, error.code, float(after) if after.isdigit() else 0.0)
    if isinstance(error, requests.RequestException | RetryError | ConnectionError | TimeoutError):
        return Failure("it does not answer")
    if isinstance(error, GoogleAuthError):
        return Failure(f"no credentials ({error})", 401)
    return None


class LabelledJobs:
    """Jobs of one kind; see jobs.JobService.

    Attributes:
        kind: As names of calls have it, such as "batch_prediction_job".
        message_type: Of a job.
        label: Key of the label by which a job is known.
        parent: Resource name of the location.
    """

    name = "Vertex AI"
    kind: ClassVar[str]
    message_type: ClassVar[str]
    label: ClassVar[str]

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.parent = connect(options)
        self._client = client(utils.JobClientWithOverride)

    def message(self, label: str) -> dict[str, Any]:
        """Return a new job, as the API takes it."""
        raise NotImplementedError

    def jobs(self, label: str, seconds: float) -> Sequence[Job]:
        request = {"parent": self.parent, "filter": f'labels.{self.label}="{label}"'}
        found = list(self._call("list", seconds, "s", request=request, retry=None))
        return [_job(each) for each in sorted(found, key=lambda each: (each.create_time, each.name))]

    def create(self, label: str, attempt: int, seconds: float) -> str:
        message = getattr(aiplatform_v1, self.message_type)(self.message(label))
        return str(self._call("create", seconds, parent=self.parent, **{self.kind: message}).name)

    def job(self, name: str, seconds: float) -> Job:
        return _job(self.found(name, seconds))

    def found(self, name: str, seconds: float) -> Any:
        """Return a job as the API tells of it."""
        return self._call("get", seconds, name=name, retry=None)

    def cancel(self, name: str, seconds: float) -> None:
        try:
            self._call("cancel", seconds, name=name, retry=None)
        except GoogleAPICallError as error:
            if error.code != 400:  # it is over
                raise

    def failure(self, error: Exception) -> Failure | None:
        return failure(error)

    def _call(self, verb: str, seconds: float, ending: str = "", **given: Any) -> Any:
        return getattr(self._client, f"{verb}_{self.kind}{ending}")(**given, timeout=seconds)


def _job(message: Any) -> Job:
    return Job(message.name, STATES.get(message.state.name, WAITING), str(message.error.message))
