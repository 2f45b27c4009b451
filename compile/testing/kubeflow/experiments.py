"""Experiments of Kubeflow Pipelines."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from penstock.testing.kubeflow.lists import listed
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now

_ROOT = "/apis/v2beta1/experiments"
_ONE = f"{_ROOT}/{{experiment}}"
_FIELDS = ("experiment_id", "display_name", "created_at", "last_run_created_at", "storage_state", "namespace")


class Experiments:
    """All experiments. The one named Default is there from the start, for runs that name none."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self.default = self._new("Default", "All runs created without specifying an experiment", "")["experiment_id"]

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", _ROOT, self._create),
            Route("GET", _ROOT, self._list),
            Route("GET", _ONE, lambda request, experiment: self.get(experiment)),
            Route("DELETE", _ONE, self._delete),
            Route("POST", f"{_ONE}:archive", lambda request, experiment: self._store(experiment, "ARCHIVED")),
            Route("POST", f"{_ONE}:unarchive", lambda request, experiment: self._store(experiment, "AVAILABLE")),
        ]

    def get(self, experiment: str) -> dict[str, Any]:
        """Return an experiment.

        Raises:
            ApiError: there is none of that id.
        """
        if experiment not in self._kept:
            raise ApiError(404, f"Experiment {experiment} not found")
        return self._kept[experiment]

    def _new(self, name: str, description: str, namespace: str) -> dict[str, Any]:
        if not name.strip():
            raise ApiError(400, "Experiment must have a non-empty name")
        if any(each["display_name"] == name and each["namespace"] == namespace for each in self._kept.values()):
            raise ApiError(409, f"Already exist error: an experiment named {name} is there; please specify a new name")
        experiment = {
            "experiment_id": str(uuid.uuid4()),
            "display_name": name,
            "description": description,
            "namespace": namespace,
            "created_at": now(),
            "last_run_created_at": "1970-01-01T00:00:00Z",
            "storage_state": "AVAILABLE",
        }
        self._kept[experiment["experiment_id"]] = experiment
        return experiment

    def _create(self, request: Request) -> Any:
        body = request.json()
        return self._new(body.get("display_name", ""), body.get("description", ""), body.get("namespace") or "")

    def _list(self, request: Request) -> Any:
        namespace = request.query.get("namespace", "")
        found = [each for each in self._kept.values() if not namespace or each["namespace"] == namespace]
        return listed("experiments", found, request, _FIELDS)

    def _delete(self, request: Request, experiment: str) -> Any:
        self.get(experiment)
        del self._kept[experiment]
        return {}

    def _store(self, experiment: str, state: str) -> Any:
        self.get(experiment)["storage_state"] = state
        return {}
