"""Reports a run and its tasks to an OpenLineage backend, in the background: it neither fails nor slows the run."""

from __future__ import annotations

import os
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.events import Changes
from penstock.compile.targets.local.journal import now
from penstock.compile.targets.local.outbox import Outbox
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord, Values

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

_ROOM = 10_000  # events that wait for a slow backend
_DEADLINE = 5.0  # seconds to connect, and to wait for an answer
_LAST_WAIT = 5.0  # seconds that the end of the run waits for the rest
_PAUSES = (0.25, 0.5, 1.0)  # seconds before an event is sent again
_LONGEST_PAUSE = 10.0  # seconds, whatever the backend asks for
_TRANSIENT = (408, 429, *range(500, 600))
_TYPES = {State.RUNNING: "START", State.SUCCEEDED: "COMPLETE", State.FAILED: "FAIL"}
_OBJECT_STORES = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfss",
    "abfss": "abfss",
    "wasb": "wasbs",
    "wasbs": "wasbs",
}


@dataclass(frozen=True)
class _Run:
    """What all events of a run share."""

    record_id: str
    uuid: str
    namespace: str
    job: str
    folder: str
    spec_sha256: str
    version: str


@dataclass(frozen=True)
class _Change:
    """A change of state of a run or a task; `own` are facts that no facet of OpenLineage has a field for."""

    time: str
    state: State
    uuid: str
    job: str
    kind: str
    own: Mapping[str, Any]
    inputs: Values
    outputs: Values
    error: str | None


class Lineage:
    """An observer of a run that sends START, COMPLETE, FAIL and ABORT of the run and of each task that runs something.

    Values of parameters are not sent.

    Args:
        url: The backend's address; the environment may add OPENLINEAGE_ENDPOINT, OPENLINEAGE_API_KEY and
            OPENLINEAGE_NAMESPACE.
        environment: Environment variables.

    Raises:
        PenstockError: the client library is missing, or the URL is none.
    """

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self._send = _sender(url, environment)
        self._where = _without_secrets(url)
        self._namespace = environment.get("OPENLINEAGE_NAMESPACE") or "penstock"
        self._changes = Changes()
        self._run: _Run | None = None
        self._at_work: set[str] = set()
        self._over = False
        self._attempts = 1 + len(_PAUSES)
        self._problem = ""
        self._closing = threading.Event()
        self._count = 0
        self._outbox: Outbox[_Change] = Outbox(self._deliver, room=_ROOM)

    def __call__(self, record: RunRecord) -> None:
        """Take the run as it is now."""
        if self._run is None:
            self._run = _run(record, self._namespace)
            self._put(_run_change(self._run, record, State.RUNNING))
        for task in self._changes(record):
            if task.state is not State.RUNNING:
                if task.path not in self._at_work:
                    continue
                self._at_work.remove(task.path)
            elif task.kind != "container" or not task.log or task.path in self._at_work:
                continue
            else:
                self._at_work.add(task.path)
            self._put(_task_change(self._run, task))
        if record.state is not State.RUNNING and not self._over:
            self._over = True
            self._put(_run_change(self._run, record, record.state))

    def close(self) -> str | None:
        """Send the rest, for a few seconds at most; return a warning where something was not sent."""
        lost = self._outbox.close(_LAST_WAIT)
        self._closing.set()
        if not lost:
            return None
        reason = self._problem or "it does not answer in time"
        return f"--openlineage {self._where}: {lost} of {self._count} events were not taken: {reason}"

    def _put(self, change: _Change) -> None:
        self._count += 1
        self._outbox.put(change)

    def _deliver(self, change: _Change) -> bool:
        assert self._run is not None
        for pause in (*_PAUSES[: self._attempts - 1], None):
            try:
                self._send(_event(self._run, change))
            # Whatever the client library raises, the run goes on.
            except Exception as error:
                self._problem, asked = _reason(error)
                if pause is None or asked is None or self._closing.wait(max(pause, asked)):
                    break
            else:
                self._problem, self._attempts = "", 1 + len(_PAUSES)
                return True
        # A backend that has gone is not waited for again and again; once it answers, it is.
        self._attempts = 1
        return False


def configured(url: str | None, environment: Mapping[str, str] = os.environ) -> Lineage | None:
    """Return the observer for the URL given, or for the environment's OPENLINEAGE_URL; None where there is neither.

    OPENLINEAGE_DISABLED=true, as for every client of OpenLineage, turns it off.
    """
    url = url or environment.get("OPENLINEAGE_URL")
    if not url or environment.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return None
    return Lineage(url, environment)


def run_uuid(record: RunRecord) -> str:
    """Return the UUID of a run in OpenLineage; a run that was resumed has another one than before."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, ":".join(["penstock", record.id, record.started, *record.resumed])))


def task_uuid(run: str, path: str) -> str:
    """Return the UUID in OpenLineage of the task `path` of the run with the UUID `run`."""
    return str(uuid.uuid5(uuid.UUID(run), path))


def dataset_name(uri: str, folder: str) -> tuple[str, str]:
    """Return namespace and name of an artifact by OpenLineage's rules; they hold neither credentials nor a query.

    Args:
        uri: URI or path of the artifact.
        folder: Folder that relative paths start from.
    """
    scheme, is_uri, rest = uri.partition("://")
    if not is_uri:
        return "file", os.path.normpath(os.path.join(folder, uri))
    authority, _, path = rest.partition("/")
    if store := _OBJECT_STORES.get(scheme):
        if store in ("s3", "gs"):
            authority = authority.rpartition("@")[2]
        elif "@" in authority:  # container@account
            container, _, account = authority.rpartition("@")
            authority = f"{container.partition(':')[0]}@{account}"
        return f"{store}://{authority}", path.strip("/") or "/"
    authority = authority.rpartition("@")[2]
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    return f"{scheme}://{authority}" if authority else scheme, f"/{path}"


def _run(record: RunRecord, namespace: str) -> _Run:
    return _Run(
        record.id,
        run_uuid(record),
        namespace,
        record.pipeline,
        record.folder,
        record.spec_sha256,
        version("penstock"),
    )


def _run_change(run: _Run, record: RunRecord, state: State) -> _Change:
    own = {"run": run.record_id, "folder": run.folder, "spec_sha256": run.spec_sha256}
    return _Change(now(), state, run.uuid, run.job, "DAG", own, Values(), record.outputs, record.error)


def _task_change(run: _Run, task: TaskRecord) -> _Change:
    # An iteration of a loop is a run of the same job.
    job = ".".join([run.job, *(name for name in task.path.split(".") if not name.isdigit())])
    own = {
        "run": run.record_id,
        "task": task.path,
        "spec_sha256": run.spec_sha256,
        "runner": task.runner,
        "reused": task.reused,
        "exit_code": task.exit_code,
    }
    own_uuid = task_uuid(run.uuid, task.path)
    return _Change(now(), task.state, own_uuid, job, "TASK", own, task.inputs, task.outputs, task.error)


def _event(run: _Run, change: _Change) -> RunEvent:
    from openlineage.client import event_v2
    from openlineage.client.facet_v2 import (
        JobFacet,
        RunFacet,
        error_message_run,
        job_type_job,
        parent_run,
        processing_engine_run,
    )

    producer = f"pkg:pypi/penstock@{run.version}"
    facets: dict[str, RunFacet] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            run.version, "penstock", run.version, producer=producer
        ),
        "penstock_run": RunFacet(producer=producer).with_additional_properties(**change.own),  # type: ignore[dict-item]
    }
    if change.uuid != run.uuid:
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(run.uuid),
            parent_run.Job(run.namespace, run.job),
            parent_run.Root(parent_run.RootRun(run.uuid), parent_run.RootJob(run.namespace, run.job)),
            producer=producer,
        )
    if change.error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(change.error, "python", producer=producer)
    job_facets: dict[str, JobFacet] = {
        "jobType": job_type_job.JobTypeJobFacet("BATCH", "PENSTOCK", change.kind, producer=producer)
    }
    return event_v2.RunEvent(
        eventTime=change.time,
        producer=producer,
        eventType=event_v2.RunState(_TYPES.get(change.state, "ABORT")),
        run=event_v2.Run(change.uuid, facets),
        job=event_v2.Job(run.namespace, change.job, job_facets),
        inputs=[event_v2.InputDataset(*name) for name in _names(change.inputs, run.folder)],
        outputs=[event_v2.OutputDataset(*name) for name in _names(change.outputs, run.folder)],
    )


def _names(values: Values, folder: str) -> list[tuple[str, str]]:
    found = (artifact.uri for artifacts in values.artifacts.values() for artifact in artifacts)
    return [*dict.fromkeys(dataset_name(uri, folder) for uri in found if uri)]


def _sender(url: str, environment: Mapping[str, str]) -> Callable[[RunEvent], object]:
    """Return what sends an event to a backend, once.

    The library's transport, not its client: that one reads configuration files and writes into the environment.
    """
    try:
        from openlineage.client.transport.http import HttpConfig, HttpTransport
    except ImportError as error:
        raise PenstockError(
            f"lineage needs {error.name}, which is not installed; leave out --openlineage and OPENLINEAGE_URL, or: "
            "pip install 'penstock[lineage]'"
        ) from error
    key = environment.get("OPENLINEAGE_API_KEY")
    config = {
        "url": url,
        "endpoint": environment.get("OPENLINEAGE_ENDPOINT") or "api/v1/lineage",
        "auth": {"type": "api_key", "apiKey": key} if key else {},
        "timeout": _DEADLINE,
        # Sent again from here: its own way of doing so waits as long as a backend tells it to.
        "retry": {"total": 0, "connect": 0, "read": 0, "status_forcelist": []},
    }
    try:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError
        return HttpTransport(HttpConfig.from_dict(config)).emit
    except ValueError:  # its text holds the address, which may hold credentials
        raise PenstockError(
            "--openlineage: that is no URL of a backend; give one such as http://localhost:5000"
        ) from None


def _reason(error: Exception) -> tuple[str, float | None]:
    """Return what went wrong, and the seconds that the backend wants to be left alone; None: it is no passing fault.

    The texts of errors hold addresses, which may hold credentials.
    """
    response = getattr(error, "response", None)
    if response is not None:
        asked = response.headers.get("Retry-After", "")
        seconds = min(float(asked), _LONGEST_PAUSE) if asked.isdigit() else 0.0
        return f"HTTP status {response.status_code}", seconds if response.status_code in _TRANSIENT else None
    if isinstance(error, OSError):
        late = "Timeout" in type(error).__name__
        return f"no answer within {_DEADLINE:g} s" if late else "no connection", 0.0
    return type(error).__name__, None


def _without_secrets(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
