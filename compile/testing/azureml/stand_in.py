"""Azure ML, and the blob storage of its workspace, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.batch import BatchEndpoints
from penstock.testing.azureml.blobs import Blobs
from penstock.testing.azureml.jobs import Jobs
from penstock.testing.azureml.online import OnlineEndpoints
from penstock.testing.azureml.pipelines import Pipelines
from penstock.testing.azureml.plays import JobStates
from penstock.testing.azureml.rehearsals import Rehearsal, Rehearsals
from penstock.testing.azureml.resources import Scope
from penstock.testing.azureml.schedules import Schedules
from penstock.testing.azureml.workspace import Workspace
from penstock.testing.counted import Counted
from penstock.testing.faults import Fault
from penstock.testing.runs import Script
from penstock.testing.server import Route, StandIn

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

_CODES = {
    400: "UserError", 401: "AuthenticationFailed", 403: "AuthorizationFailed", 404: "ResourceNotFound",
    408: "RequestTimeout", 409: "Conflict", 429: "TooManyRequests", 500: "InternalServerError",
    501: "NotImplemented", 503: "ServiceUnavailable", 504: "GatewayTimeout",
}  # fmt: skip
_COMPUTES = {"cpu-cluster": "STANDARD_DS3_V2", "gpu-cluster": "STANDARD_NC6S_V3"}


class AzureMLStandIn(StandIn):
    """One workspace of Azure ML on 127.0.0.1, for azure-ai-ml and for any client of its REST API; always over TLS.

    It refuses what Azure ML is known to refuse, keeps what is uploaded byte for byte, and tells of jobs what `play`
    says, or runs them.

    Args:
        play: How jobs go: Script(...), a function of a job's payload that yields states (JobStates), or Rehearsal(...),
            which runs the jobs that `penstock convert` writes for real. Can be set anew at any time, for the jobs that
            begin then.
        computes: Sizes of virtual machines by the names of clusters; cpu-cluster and gpu-cluster where not given.
        subscription, group, workspace: Where it lies.
        faults, port: As for any stand-in.

    Attributes:
        blobs: The storage of the workspace.
        assets: `assets.files(code)` are the files of a code asset.
        batch_endpoints: `batch_endpoints.score` is a function that stands for the scoring of a batch job.
        online_endpoints: `online_endpoints.serve` is a function that stands for the containers of deployments.
        monitoring: What is counted of their answers: in intervals of `monitoring.grain` seconds, told of
            `monitoring.late` seconds after their end.
        rehearsals: `rehearsals.records` has, by the names of jobs that ran for real, what came of them.
    """

    def __init__(
        self,
        play: Script | JobStates | Rehearsal | None = None,
        *,
        computes: Mapping[str, str] | None = None,
        subscription: str = "00000000-0000-0000-0000-000000000001",
        group: str = "test-group",
        workspace: str = "test-workspace",
        faults: Iterable[Fault] = (),
        port: int = 0,
    ) -> None:
        self.play: Script | JobStates | Rehearsal = play or Script()
        self.scope = Scope(subscription, group, workspace)
        self._computes = _COMPUTES if computes is None else computes
        super().__init__(faults=faults, tls=True, port=port)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        self.blobs = Blobs()
        self.workspace = Workspace(self.scope, self._computes, self.blobs, lambda: self.url)
        pipelines = Pipelines(self.workspace)
        self.assets = Assets(self.scope, self.blobs, {"components": pipelines.check_component}, lambda: self.url)
        pipelines.assets = self.assets
        self.rehearsals = Rehearsals(self.assets, self.folder)
        self.jobs = Jobs(
            self.scope,
            self.workspace,
            self.assets,
            pipelines,
            self.blobs,
            lambda: self.play,
            self.rehearsals,
            lambda: self.url,
        )
        self.batch_endpoints = BatchEndpoints(
            self.scope, self.workspace, self.assets, self.jobs, self.blobs, lambda: self.url
        )
        self.monitoring = Counted()
        self.online_endpoints = OnlineEndpoints(
            self.scope, self.workspace, self.assets, self.monitoring, lambda: self.url
        )
        self.schedules = Schedules(self.scope, self.jobs, lambda: datetime.datetime.now(datetime.UTC))
        return [
            *self.workspace.routes(),
            *self.assets.routes(),
            *self.jobs.routes(),
            *self.batch_endpoints.routes(),
            *self.online_endpoints.routes(),
            *self.schedules.routes(),
            *self.blobs.routes(),
        ]

    def error_body(self, status: int, message: str) -> Any:
        """Return an error as Azure's APIs tell it."""
        return {"error": {"code": _CODES.get(status, "Error"), "message": message, "details": []}}

    def fire(self, schedule: str) -> str:
        """Start the job that a schedule wants, and return its name.

        Args:
            schedule: Its name.

        Raises:
            PenstockError: there is no such schedule, or it is disabled.
        """
        with self.lock:
            return self.schedules.fire(schedule)

    def close(self) -> None:
        """End the server and all jobs."""
        try:
            with self.lock:
                self.jobs.close()
        finally:
            super().close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a program of its own finds the stand-in.

        With them, `MLClient(DefaultAzureCredential(), SUBSCRIPTION, GROUP, WORKSPACE)` is a client of it.
        """
        from penstock.testing.azureml.connection import environment

        return environment(self)

    def client(self, **settings: Any) -> MLClient:
        """Return a client of the workspace; between `connected()` and its end.

        Args:
            settings: As for MLClient, such as retry_total=0.

        Raises:
            PenstockError: azure-ai-ml is not installed.
        """
        from penstock.testing.azureml.connection import client

        return client(self, settings)

    @contextlib.contextmanager
    def connected(self) -> Iterator[AzureMLStandIn]:
        """Let every MLClient that is made find the stand-in; at the end, all is as it was.

        Raises:
            PenstockError: azure-ai-ml is not installed.
        """
        from penstock.testing.azureml.connection import connected

        with connected(self):
            yield self
