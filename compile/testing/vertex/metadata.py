"""Vertex ML Metadata, as far as experiments and pipeline jobs need it: contexts, executions, artifacts, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.compile.targets.local.record import State
from penstock.testing.runs import Progress
from penstock.testing.server import Request, Route
from penstock.testing.vertex.filters import Resource
from penstock.testing.vertex.resources import ROOT, Operations, Resources, name_of

_STORE = f"{ROOT}/metadataStores/{{store}}"
_RUN_STATES = {State.SUCCEEDED: "COMPLETE", State.FAILED: "FAILED", State.CANCELLED: "CANCELLED"}


class Metadata:
    """The metadata stores of all projects; each location has one named default."""

    def __init__(self, operations: Operations) -> None:
        self._members: dict[str, set[str]] = {}  # artifacts and executions by context
        self._events: dict[str, list[dict[str, Any]]] = {}  # by execution
        functions = {"in_context": self._in_context}
        self.stores = Resources("metadataStores", ROOT, "metadataStoreId", operations=operations, kind="MetadataStore")
        self.contexts = Resources("contexts", _STORE, "contextId", operations=operations)
        self.executions = Resources("executions", _STORE, "executionId", functions=functions, operations=operations)
        self.artifacts = Resources("artifacts", _STORE, "artifactId", functions=functions, operations=operations)
        self.schemas = Resources("metadataSchemas", _STORE, "metadataSchemaId", operations=operations)
        self.tensorboards = Resources("tensorboards", ROOT, "tensorboardId", operations=operations, kind="Tensorboard")

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        context, execution = f"{_STORE}/contexts/{{id}}", f"{_STORE}/executions/{{id}}"
        return [
            Route("GET", _STORE, self._store),
            *self.stores.routes(),
            *self.contexts.routes(),
            *self.executions.routes(),
            *self.artifacts.routes(),
            *self.schemas.routes(),
            *self.tensorboards.routes(),
            Route("POST", f"{context}:addContextChildren", self._add_children),
            Route("POST", f"{context}:removeContextChildren", self._remove_children),
            Route("POST", f"{context}:addContextArtifactsAndExecutions", self._add_members),
            Route("GET", f"{context}:queryContextLineageSubgraph", self._lineage_of_context),
            Route("POST", f"{execution}:addExecutionEvents", self._add_events),
            Route("GET", f"{execution}:queryExecutionInputsAndOutputs", self._lineage_of_execution),
        ]

    def uri(self, within: str, artifact: str) -> str:
        """Return the URI of an artifact of a location's default store.

        Raises:
            ApiError: there is none of that id.
        """
        return str(self.artifacts.kept.get(f"{_default(within)}/artifacts/{artifact}").get("uri", ""))

    def pipeline_contexts(self, job: Mapping[str, Any], pipeline: str) -> dict[str, Any]:
        """Make the contexts of a pipeline job; return them as its detail has them."""
        within, _, job_id = str(job["name"]).partition("/pipelineJobs/")
        pipeline_name = f"{_default(within)}/contexts/{pipeline}"
        if pipeline_name not in self.contexts.kept:
            self.contexts.create(pipeline_name, _context(pipeline, "system.Pipeline"))
        own = self.contexts.create(
            f"{_default(within)}/contexts/{job_id}",
            {**_context(job_id, "system.PipelineRun"), "parentContexts": [pipeline_name]},
        )
        return {"pipelineContext": self.contexts.kept.get(pipeline_name), "pipelineRunContext": own}

    def pipeline_ended(self, job: Mapping[str, Any], progress: Progress) -> None:
        """Keep what a pipeline job left: an execution with its parameters, and its metrics."""
        within, _, job_id = str(job["name"]).partition("/pipelineJobs/")
        context = job["jobDetail"]["pipelineRunContext"]["name"]
        given = job.get("runtimeConfig", {}).get("parameterValues", {})
        run = self.executions.create(
            f"{_default(within)}/executions/{job_id}-run",
            {
                "displayName": job_id,
                "schemaTitle": "system.Run",
                "state": _RUN_STATES[progress.state],
                "metadata": {f"input:{name}": value for name, value in given.items()},
            },
        )
        members = [run["name"]]
        for number, task in enumerate(progress.tasks):
            if task.metrics:
                metrics = self.artifacts.create(
                    f"{_default(within)}/artifacts/{job_id}-metrics-{number}",
                    {"displayName": task.name, "schemaTitle": "system.Metrics", "metadata": dict(task.metrics)},
                )
                members.append(metrics["name"])
        self._members.setdefault(context, set()).update(members)

    def _store(self, request: Request, store: str, **names: str) -> Any:
        name = name_of(request.path)
        if store == "default" and name not in self.stores.kept:
            self.stores.create(name, {})
        return self.stores.kept.get(name)

    def _in_context(self, resource: Resource, context: str) -> bool:
        return resource["name"] in self._members.get(context, ())

    def _add_children(self, request: Request, **names: str) -> Any:
        context = self.contexts.kept.get(name_of(request.path))
        for child in request.json().get("childContexts", []):
            above = self.contexts.kept.get(child).setdefault("parentContexts", [])
            if context["name"] not in above:
                above.append(context["name"])
        return {}

    def _remove_children(self, request: Request, **names: str) -> Any:
        context = name_of(request.path)
        for child in request.json().get("childContexts", []):
            above = self.contexts.kept.get(child).setdefault("parentContexts", [])
            if context in above:
                above.remove(context)
        return {}

    def _add_members(self, request: Request, **names: str) -> Any:
        context, body = self.contexts.kept.get(name_of(request.path)), request.json()
        for name in body.get("artifacts", []):
            self.artifacts.kept.get(name)
        for name in body.get("executions", []):
            self.executions.kept.get(name)
        members = self._members.setdefault(context["name"], set())
        members.update(body.get("artifacts", []), body.get("executions", []))
        return {}

    def _add_events(self, request: Request, **names: str) -> Any:
        execution = self.executions.kept.get(name_of(request.path))
        for event in request.json().get("events", []):
            self.artifacts.kept.get(event.get("artifact", ""))
            self._events.setdefault(execution["name"], []).append({**event, "execution": execution["name"]})
        return {}

    def _lineage_of_execution(self, request: Request, **names: str) -> Any:
        return self._lineage([self.executions.kept.get(name_of(request.path))["name"]])

    def _lineage_of_context(self, request: Request, **names: str) -> Any:
        members = self._members.get(self.contexts.kept.get(name_of(request.path))["name"], set())
        found = self._lineage([name for name in members if name in self.executions.kept])
        known = {artifact["name"] for artifact in found["artifacts"]}
        found["artifacts"] += [
            self.artifacts.kept.get(name) for name in members if name in self.artifacts.kept and name not in known
        ]
        return found

    def _lineage(self, executions: Sequence[str]) -> dict[str, Any]:
        events = [event for name in executions for event in self._events.get(name, [])]
        artifacts = dict.fromkeys(event["artifact"] for event in events)
        return {
            "executions": [self.executions.kept.get(name) for name in executions],
            "artifacts": [self.artifacts.kept.get(name) for name in artifacts],
            "events": events,
        }


def _default(within: str) -> str:
    return f"{within}/metadataStores/default"


def _context(name: str, title: str) -> dict[str, Any]:
    return {"displayName": name, "schemaTitle": title, "schemaVersion": "0.0.1", "metadata": {}}
