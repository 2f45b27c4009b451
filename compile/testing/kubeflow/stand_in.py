"""Kubeflow Pipelines on 127.0.0.1."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from penstock.testing.faults import Fault
from penstock.testing.kubeflow.experiments import Experiments
from penstock.testing.kubeflow.pipelines import Pipelines
from penstock.testing.kubeflow.recurring import RecurringRuns
from penstock.testing.kubeflow.runs import Runs
from penstock.testing.runs import Engine, Play
from penstock.testing.server import Route, StandIn

_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 409: 6, 429: 8, 500: 13, 501: 12, 503: 14, 504: 4}  # google.rpc.Code


class KubeflowStandIn(StandIn):
    """Kubeflow Pipelines, API v2beta1, on 127.0.0.1, for kfp.Client and for any client of its REST API.

    It refuses specs and parameters that are none, runs them in the local engine, and tells of their tasks. Creating a
    run is not idempotent, as there: the same twice makes two.

    Args:
        play: How runs are run: Engine(...) for real, Script(...) as a test wants it. Can be set anew at any time, for
            the runs that begin then.
        faults, tls, port: As for any stand-in.

    Attributes:
        pipelines: `pipelines.packages` holds what was uploaded, byte for byte, by the id of the version.
    """

    def __init__(
        self, play: Play | None = None, *, faults: Iterable[Fault] = (), tls: bool = False, port: int = 0
    ) -> None:
        self.play: Play = play or Engine()
        self._ahead = datetime.timedelta()
        super().__init__(faults=faults, tls=tls, port=port)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        self.experiments = Experiments()
        self.pipelines = Pipelines()
        self.runs = Runs(lambda: self.play, self.folder, self.experiments, self.pipelines)
        self.recurring_runs = RecurringRuns(self.runs, self.experiments, self.clock)
        return [
            Route("GET", "/apis/v2beta1/healthz", lambda request: {"multi_user": False, "pipeline_store": "database"}),
            *self.experiments.routes(),
            *self.pipelines.routes(),
            *self.runs.routes(),
            *self.recurring_runs.routes(),
        ]

    def error_body(self, status: int, message: str) -> Any:
        """Return an error as Kubeflow's API tells it."""
        return {"error": message, "code": _CODES.get(status, 2), "message": message, "details": []}

    def clock(self) -> datetime.datetime:
        """Return the time by which schedules go: that of the machine, and what `advance` has added."""
        return datetime.datetime.now(datetime.UTC) + self._ahead

    def fire(self, recurring_run: str, at: datetime.datetime | None = None) -> str | None:
        """Start the run that a recurring run wants, and return its id; None where as many are at work as may be.

        Args:
            recurring_run: Its id.
            at: When it is due; now where it is not given.

        Raises:
            PenstockError: there is no such recurring run, or it is disabled.
        """
        with self.lock:
            run = self.recurring_runs.fire(recurring_run, at)
        return run["run_id"] if run else None

    def advance(self, **time: float) -> list[str]:
        """Let time pass for schedules, start what is due in it, and return the ids of those runs.

        Args:
            time: As for datetime.timedelta, for example hours=24.
        """
        with self.lock:
            self._ahead += datetime.timedelta(**time)
            return [run["run_id"] for run in self.recurring_runs.advance(self.clock())]

    def close(self) -> None:
        """End the server and all runs."""
        with self.lock:
            self.runs.close()
        super().close()

    @contextlib.contextmanager
    def connected(self) -> Iterator[KubeflowStandIn]:
        """Point kfp.Client() here, whatever the user's own configuration says; at the end, back."""
        import kfp.client

        endpoint = {"KF_PIPELINES_ENDPOINT": self.url, "KF_PIPELINES_UI_ENDPOINT": self.url}
        context = str(Path(self.folder) / "context.json")
        with (
            mock.patch.dict("os.environ", endpoint),
            mock.patch.object(kfp.client.Client, "_LOCAL_KFP_CONTEXT", context),
        ):
            yield self
