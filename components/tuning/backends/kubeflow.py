"""Trials as one Experiment of Katib, Kubeflow's own search, which proposes them by its algorithms.

Fields as of Katib's API kubeflow.org/v1beta1; `distribution`, for parameters searched by their logarithm, is there
since Katib 0.18.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from penstock.components._shared.clouds import cluster
from penstock.components._shared.clouds.calls import Failure
from penstock.components._shared.clouds.jobs import DONE, FAILED, GONE, WAITING, Job
from penstock.components._shared.errors import UserError
from penstock.components.tuning.remote import LABEL, METRIC, Tried, drive, told
from penstock.components.tuning.search import COMPLETE, COMPONENT, Backend, Run, Search
from penstock.components.tuning.search import FAILED as FAILED_TRIAL
from penstock.components.tuning.space import Parameter
from penstock.components.tuning.trial import job_text

GROUP, VERSION = "kubeflow.org", "v1beta1"
OWNER = "katib.kubeflow.org/experiment"  # Katib's label of a trial
SAMPLERS = {"auto": "tpe", "tpe": "tpe", "random": "random", "grid": "grid"}
SEEDED = ("tpe", "random")
OPTIONS = {
    **cluster.OPTIONS,
    "image": "Image of the trials, by digest. Without it: this step's own, PENSTOCK_IMAGE.",
    "cpu": "CPUs of a trial, such as 2.",
    "memory": "Memory of a trial, such as 4Gi.",
    "service_account": "Account that trials run as.",
    "volume_claim": "PersistentVolumeClaim that holds the datasets.",
    "volume_path": "Path at which the claim is mounted, read-only.",
}


def cannot(search: Search) -> list[str]:
    """Return what Katib cannot be told."""
    found = []
    if len(search.objectives) > 1:
        found.append("several objectives")
    for parameter in search.space.parameters:
        if parameter.parent:
            found.append(f"{parameter.name}: a condition")
        if search.sampler == "grid" and parameter.type == "float" and not parameter.step:
            found.append(f"{parameter.name}: a grid over a float without a step")
    if not search.options.get("image", os.environ.get("PENSTOCK_IMAGE")):
        found.append("trials without the option image")
    if bool(search.options.get("volume_claim")) != bool(search.options.get("volume_path")):
        found.append("one of the options volume_claim and volume_path without the other")
    if not search.run_id:
        found.append("a search without a run_id, by which a restarted step knows its job")
    return found


def manifest(search: Search, label: str, attempt: int) -> dict[str, Any]:
    """Return the Experiment, as Katib's custom resource definition has it."""
    options = search.options
    names = [parameter.name for parameter in search.space.parameters]
    # Katib fills in ${trialParameters.NAME}; a name there may hold neither dots nor spaces.
    arguments = [f"--{name}=${{trialParameters.p{place}}}" for place, name in enumerate(names)]
    container: dict[str, Any] = {
        "name": "trial",
        "image": str(options.get("image") or os.environ["PENSTOCK_IMAGE"]),
        "command": ["python3", "-m", "penstock.components.tuning.trial"],
        "args": ["--job", job_text(search, "stdout"), *arguments],
        "env": [{"name": "_KFP_RUNTIME", "value": "true"}],
    }
    amounts = {name: str(options[name]) for name in ("cpu", "memory") if options.get(name)}
    if amounts:
        container["resources"] = {"requests": amounts, "limits": amounts}
    pod: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    if options.get("service_account"):
        pod["serviceAccountName"] = str(options["service_account"])
    if options.get("volume_claim"):
        claim = {"claimName": str(options["volume_claim"]), "readOnly": True}
        pod["volumes"] = [{"name": "datasets", "persistentVolumeClaim": claim}]
        container["volumeMounts"] = [{"name": "datasets", "mountPath": str(options["volume_path"]), "readOnly": True}]
    algorithm = SAMPLERS[search.sampler]
    settings = [{"name": "random_state", "value": str(search.settings.seed)}] if algorithm in SEEDED else []
    # A sidecar beside the trial reads its output; a mesh's own would keep the pod from ending.
    metadata = {"annotations": {"sidecar.istio.io/inject": "false"}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Experiment",
        "metadata": {"name": f"penstock-tune-{label[:16]}-{attempt}", "labels": {LABEL: label}},
        "spec": {
            "objective": {"type": search.objectives[0].direction, "objectiveMetricName": METRIC},
            "algorithm": {"algorithmName": algorithm, "algorithmSettings": settings},
            "maxTrialCount": search.max_trials,
            "parallelTrialCount": min(search.parallel_trials, search.max_trials),
            # Trials that fail are told; they do not end the search.
            "maxFailedTrialCount": search.max_trials,
            "resumePolicy": "Never",
            "metricsCollectorSpec": {"collector": {"kind": "StdOut"}},
            "parameters": [_parameter(parameter) for parameter in search.space.parameters],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [{"name": f"p{place}", "reference": name} for place, name in enumerate(names)],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {
                        "backoffLimit": 0,
                        "activeDeadlineSeconds": int(search.max_seconds) or 1,
                        "template": {"metadata": metadata, "spec": pod},
                    },
                },
            },
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    if parameter.type == "categorical":
        space: dict[str, Any] = {"list": [str(choice) for choice in parameter.choices]}
    else:
        space = {"min": str(parameter.low), "max": str(parameter.high)}
        if parameter.step:
            space["step"] = f"{parameter.step:g}"
        if parameter.log:
            space["distribution"] = "logUniform"
    kind = {"float": "double"}.get(parameter.type, parameter.type)
    return {"name": parameter.name, "parameterType": kind, "feasibleSpace": space}


class Katib:
    """Katib in one namespace, for one search."""

    name = "Katib"

    def __init__(self, search: Search) -> None:
        self._search = search
        api, self.namespace = cluster.connect(
            search.options, lambda problem, remedy: UserError(COMPONENT, "backend", problem, remedy)
        )
        self._api = client.CustomObjectsApi(api)

    def jobs(self, label: str, seconds: float) -> Sequence[Job]:
        found = self._items("experiments", f"{LABEL}={label}", seconds)
        found.sort(key=lambda each: (each["metadata"].get("creationTimestamp", ""), each["metadata"]["name"]))
        return [_job(each) for each in found]

    def create(self, label: str, attempt: int, seconds: float) -> str:
        body = manifest(self._search, label, attempt)
        self._api.create_namespaced_custom_object(
            GROUP, VERSION, self.namespace, "experiments", body, _request_timeout=seconds
        )
        return str(body["metadata"]["name"])

    def job(self, name: str, seconds: float) -> Job:
        try:
            return _job(
                self._api.get_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, "experiments", name, _request_timeout=seconds
                )
            )
        except ApiException as error:
            if error.status == 404:
                return Job(name, GONE)
            raise

    def cancel(self, name: str, seconds: float) -> None:
        try:
            self._api.delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "experiments", name,
                propagation_policy="Foreground", _request_timeout=seconds,
            )  # fmt: skip
        except ApiException as error:
            if error.status != 404:
                raise

    def trials(self, name: str, seconds: float) -> Sequence[Tried]:
        found = self._items("trials", f"{OWNER}={name}", seconds)
        found.sort(key=lambda each: (each["metadata"].get("creationTimestamp", ""), each["metadata"]["name"]))
        return [tried for tried in map(_tried, found) if tried is not None]

    def failure(self, error: Exception) -> Failure | None:
        return cluster.failure(error)

    def _items(self, plural: str, selector: str, seconds: float) -> list[dict[str, Any]]:
        found = self._api.list_namespaced_custom_object(
            GROUP, VERSION, self.namespace, plural, label_selector=selector, _request_timeout=seconds
        )
        return list(found["items"])


def _conditions(resource: Mapping[str, Any]) -> dict[str, str]:
    """Return messages by the type of the conditions that hold."""
    conditions = resource.get("status", {}).get("conditions") or []
    return {each["type"]: str(each.get("message", "")) for each in conditions if each.get("status") == "True"}


def _job(experiment: Mapping[str, Any]) -> Job:
    conditions, name = _conditions(experiment), str(experiment["metadata"]["name"])
    if experiment["metadata"].get("deletionTimestamp"):
        return Job(name, GONE)
    if "Succeeded" in conditions:
        return Job(name, DONE)
    if "Failed" in conditions:
        return Job(name, FAILED, conditions["Failed"])
    return Job(name, WAITING)


def _tried(trial: Mapping[str, Any]) -> Tried | None:
    conditions = _conditions(trial)
    parameters = {each["name"]: each["value"] for each in trial["spec"].get("parameterAssignments") or []}
    if "Succeeded" in conditions:
        observed = (trial["status"].get("observation") or {}).get("metrics") or []
        metrics = {each["name"]: float(each["latest"]) for each in observed if each["latest"] != "unavailable"}
        if METRIC in metrics:
            return Tried(COMPLETE, parameters, metrics)
        return Tried(FAILED_TRIAL, parameters, {}, "it reported no metric")
    for kind in ("Failed", "MetricsUnavailable", "Killed"):
        if kind in conditions:
            return Tried(FAILED_TRIAL, parameters, {}, conditions[kind] or kind)
    return None


@contextmanager
def begin(search: Search) -> Iterator[Run]:
    """Return what waits for the experiment, and returns its trials."""
    yield lambda prepared, folder: told(search, drive(Katib(search), search, prepared))


BACKEND = Backend(
    samplers=tuple(SAMPLERS),
    pruners=("auto", "none"),
    options=OPTIONS,
    cannot=cannot,
    begin=begin,
    remote=True,
)
