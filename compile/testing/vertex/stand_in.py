"""Vertex AI, and as much of Cloud Storage as its SDK touches, on 127.0.0.1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from penstock.testing.faults import Fault
from penstock.testing.runs import Engine, Play
from penstock.testing.server import Route, StandIn
from penstock.testing.vertex.metadata import Metadata
from penstock.testing.vertex.pipeline_jobs import PipelineJobs
from penstock.testing.vertex.resources import Operations
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
    """

    def __init__(
        self, play: Play | None = None, *, faults: Iterable[Fault] = (), tls: bool = False, port: int = 0
    ) -> None:
        self.play: Play = play or Engine()
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
        return [
            *self.storage.routes(),
            *self.pipeline_jobs.routes(),
            *self.metadata.routes(),
            *self.operations.routes(),
        ]

    def error_body(self, status: int, message: str) -> Any:
        """Return an error as Google's APIs tell it."""
        return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}

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
