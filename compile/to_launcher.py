"""From the graph to what the launcher takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.compile import graph, launcher


def task(
    task: graph.Task, command: Sequence[str], env: Mapping[str, str] | None = None, timeout: float | None = None
) -> launcher.Task:
    """Return a task as the launcher takes it.

    Args:
        task: The task.
        command: What it runs; the arguments are its container's.
        env: Its environment variables; None: its container's.
        timeout: Seconds that an attempt may take; None: any.
    """
    component, body = task.component, task.component.body
    container = body if isinstance(body, graph.Container) else graph.Container("", "")
    retry = task.retry or graph.Retry(0)
    return launcher.Task(
        task.name,
        command,
        container.args,
        container.env if env is None else env,
        input_parameters(component),
        {name: _artifact_port(port) for name, port in component.inputs.artifacts.items()},
        {name: launcher.Parameter(port.type.value) for name, port in component.outputs.parameters.items()},
        {name: _artifact_port(port) for name, port in component.outputs.artifacts.items()},
        max(retry.count, 0),
        retry.wait,
        retry.factor,
        retry.longest_wait,
        timeout,
    )


def input_parameters(component: graph.Component) -> dict[str, launcher.Parameter]:
    """Return the parameters that a component takes.

    What a DAG is given and its tasks do not use may be missing: its compiler declares everything as required.
    """
    is_dag = isinstance(component.body, graph.Dag)
    return {
        name: launcher.Parameter(port.type.value, port.default, port.optional or is_dag, port.literals, port.typed)
        for name, port in component.inputs.parameters.items()
    }


def artifact_type(kind: graph.ArtifactType) -> dict[str, str]:
    """Return an artifact's type as KFP's ArtifactTypeSchema."""
    fields = {
        "schemaTitle": kind.title,
        "schemaUri": kind.uri,
        "instanceSchema": kind.instance,
        "schemaVersion": kind.version,
    }
    return {name: value for name, value in fields.items() if value}


def is_collected(component: graph.Component, port: str) -> bool:
    """Return whether an output is itself what a loop collected: nested ones make one flat list, as on Kubeflow."""
    if not isinstance(component.body, graph.Dag):
        return False
    return any(
        producer.loop is not None or is_collected(producer.component, source.port)
        for source in component.body.outputs.get(port, ())
        for producer in [component.body.tasks[source.task]]
    )


def _artifact_port(port: graph.ArtifactPort) -> launcher.ArtifactPort:
    return launcher.ArtifactPort(artifact_type(port.type), port.is_list, port.optional, port.metadata)
