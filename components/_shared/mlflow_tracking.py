"""Runs logged to MLflow tracking: parameters and metrics of trainings and trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Metric, Param

from penstock.components._shared.errors import on_behalf_of
from penstock.components._shared.mlflow_registry import open_registry, without_userinfo

MOST_PARAMETERS = 100  # of one call
LONGEST_VALUE = 500  # characters, of a parameter


@dataclass(frozen=True)
class Logged:
    """A run to log.

    Attributes:
        name: Shown by MLflow.
        parameters, metrics, tags: By name.
        failed: Whether it is shown as failed.
    """

    name: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    failed: bool = False


class Tracker:
    """MLflow tracking that has answered.

    Args:
        uri: SQLite file or MLflow server, in the forms of mlflow_registry.
        component: On whose behalf, for errors.

    Raises:
        UserError: The URI is of no known form, or it does not answer.
    """

    def __init__(self, uri: str, component: str) -> None:
        self._component = component
        with on_behalf_of(component, "tracking"):
            self._store = open_registry(uri, component)

    def log(self, run: Logged, children: Sequence[Logged] = ()) -> str:
        """Log a run, and others as its children; return its id.

        Raises:
            UserError: MLflow does not answer or refuses a call.
        """
        with on_behalf_of(self._component, "tracking"), self._store.speaking():
            experiment = self._store.experiment()
            parent = self._log(experiment, run, {})
            for child in children:
                self._log(experiment, child, {"mlflow.parentRunId": parent})
        return parent

    def _log(self, experiment: str, run: Logged, more: Mapping[str, str]) -> str:
        client, now = self._store.client, int(time.time() * 1000)
        tags = {name: without_userinfo(value) for name, value in {**run.tags, **more}.items()}
        parameters = list(run.parameters.items())[:MOST_PARAMETERS]
        run_id = str(client.create_run(experiment, tags=tags, run_name=run.name).info.run_id)
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in run.metrics.items()],
            params=[Param(name, str(value)[:LONGEST_VALUE]) for name, value in parameters],
        )
        client.set_terminated(run_id, "FAILED" if run.failed else "FINISHED")
        return run_id
