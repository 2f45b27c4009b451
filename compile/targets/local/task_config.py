"""The task configuration that a component can ask for: what its pod would be given, for it to hand on.

Its form is that of KFP's TaskConfig, whose fields are fragments of a Kubernetes pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.compile import graph

# Fields that this machine cannot fill: they stay empty, and a warning says so.
LEFT_EMPTY = {"KUBERNETES_AFFINITY": "affinity", "KUBERNETES_VOLUMES": "volumes"}


def task_config(task: graph.Task, fill: Callable[[str], str]) -> dict[str, Any]:
    """Return the fields that a task's component has passed through to it; empty where it names none.

    Args:
        task: The task, whose body is a container.
        fill: Replaces placeholders.
    """
    body = task.component.body
    assert isinstance(body, graph.Container)
    document: Mapping[str, Any] = task.component.platforms.get("kubernetes", {})
    fields = {
        "RESOURCES": ("resources", _resources(body.resources, fill)),
        "ENV": ("env", [{"name": name, "value": fill(value)} for name, value in body.env.items()]),
        "KUBERNETES_NODE_SELECTOR": ("nodeSelector", document.get("nodeSelector", {}).get("labels")),
        "KUBERNETES_TOLERATIONS": ("tolerations", _tolerations(document)),
    }
    wanted = [fields[field] for field in task.component.passthroughs if field in fields]
    return {name: value for name, value in wanted if value}


def warnings(pipeline: graph.Pipeline) -> list[str]:
    """Return what task configurations would hold on Kubernetes and do not here."""
    return [
        f"task {path}: {LEFT_EMPTY[field]} in its task configuration stay empty on this machine"
        for path, task in pipeline.walk()
        for field in task.component.passthroughs
        if field in LEFT_EMPTY
    ]


def _resources(resources: graph.Resources, fill: Callable[[str], str]) -> dict[str, dict[str, str]]:
    requests = {"cpu": resources.cpu_request, "memory": resources.memory_request}
    limits = {"cpu": resources.cpu_limit, "memory": resources.memory_limit}
    if resources.accelerator_type:
        limits[fill(resources.accelerator_type)] = resources.accelerator_count or "1"
    found = {
        kind: {name: fill(value) for name, value in amounts.items() if value}
        for kind, amounts in (("requests", requests), ("limits", limits))
    }
    return {kind: amounts for kind, amounts in found.items() if amounts}


def _tolerations(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    # Those that come from a parameter are in tolerationJson; only what stands in the document is known here.
    return [
        {name: value for name, value in toleration.items() if name != "tolerationJson"}
        for toleration in document.get("tolerations", [])
        if "tolerationJson" not in toleration
    ]
