"""Vertex AI, and as much of Cloud Storage as its SDK touches, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from penstock.testing.counted import Counted
from penstock.testing.faults import Fault
from penstock.testing.runs import Engine, Play, Script
from penstock.testing.server import Route, StandIn
from penstock.testing.vertex.jobs import Jobs
from penstock.testing.vertex.metadata import Metadata
from penstock.testing.vertex.models import Endpoints, Models
from penstock.testing.vertex.pipeline_jobs import PipelineJobs
from penstock.testing.vertex.resources import Operations
from penstock.testing.vertex.schedules import Schedules
from penstock.testing.vertex.storage import Storage

_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip


class VertexStandIn(StandIn):
    """Vertex AI on 127.0.0.1, for google-cloud-aiplatform over REST and for any client of its REST API.

    It refuses what Vertex AI is known to refuse, runs pipeline jobs in the local engine, and tells of their tasks.

    Args:
        play: How jobs are run: Engine(...) for real, Script(...) as a test wants it. Can be set anew at any time, for
            the jobs that begin then.
        faults, tls, port: As for any stand-in.

    Attributes:
        operations: `operations.polls` is how often a client has to ask before a long-running operation is done.
        storage: The buckets.
        endpoints: `endpoints.predict` is a function that stands for the models.
        monitoring: What is counted of their answers: in intervals of `monitoring.grain` seconds, told of
            `monitoring.late` seconds after their end.
        jobs: `jobs.trial` is a function that stands for the container of a tuning job's trial.
        job_script: How the state of custom jobs, batch predictions and tuning jobs goes, whose containers are not run.
    """

    def __init__(
        self, play: Play | None = None, *, faults: Iterable[Fault] = (), tls: bool = False, port: int = 0
    ) -> None:
        self.play: Play = play or Engine()
        self.job_script = Script()
        self._ahead = datetime.timedelta()
        super().__init__(faults=faults, tls=tls, port=port)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        self.operations = Operations()
        self.storage = Storage()
        self.metadata = Metadata(self.operations)
        self.pipeline_jobs = PipelineJobs(
            self.operations,
            lambda: self.play,
            self.folder,
            self.metadata.uri,
            self.metadata.pipeline_contexts,
            self.metadata.pipeline_ended,
        )
        self.models = Models(self.operations)
        self.monitoring = Counted()
        self.endpoints = Endpoints(self.operations, self.models, self.monitoring)
        self.jobs = Jobs(self.operations, lambda: self.job_script, self.models, self.endpoints, self.storage)
        self.schedules = Schedules(self.operations, self.pipeline_jobs, self.clock)
        return [
            *self.storage.routes(),
            *self.pipeline_jobs.routes(),
            *self.schedules.routes(),
            *self.models.routes(),
            *self.endpoints.routes(),
            *self.jobs.routes(),
            *self.metadata.routes(),
            *self.operations.routes(),
        ]

    def error_body(self, status: int, message: str) -> Any:
        """Return an error as Google's APIs tell it."""
        return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}

    def clock(self) -> datetime.datetime:
        """Return the time by which schedules go: that of the machine, and what `advance` has added."""
        return datetime.datetime.now(datetime.UTC) + self._ahead

    def fire(self, schedule: str, at: datetime.datetime | None = None) -> str | None:
        """Start the job that a schedule wants, and return its name; None where as many are at work as may be.

        Args:
            schedule: Its name or its id.
            at: When it is due; now where it is not given.

        Raises:
            PenstockError: there is no such schedule, or it is not active.
        """
        with self.lock:
            job = self.schedules.fire(schedule, at)
        return str(job["name"]) if job else None

    def advance(self, **time: float) -> list[str]:
        """Let time pass for schedules, start what is due in it, and return the names of those jobs.

        Args:
            time: As for datetime.timedelta, for example hours=24.
        """
        with self.lock:
            self._ahead += datetime.timedelta(**time)
            return [str(job["name"]) for job in self.schedules.advance(self.clock())]

    def close(self) -> None:
        """End the server and all jobs."""
        with self.lock:
            self.pipeline_jobs.close()
        super().close()

    @contextlib.contextmanager
    def connected(self, project: str = "test-project", location: str = "us-central1") -> Iterator[VertexStandIn]:
        """Point google-cloud-aiplatform and google-cloud-storage here; at the end, back to where they pointed.

        Args:
            project: Project of what is made.
            location: Location of what is made.
        """
        from penstock.testing.vertex.connection import connected

        with connected(self, project, location):
            yield self
