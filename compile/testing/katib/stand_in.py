"""The part of a Kubernetes API that Katib's custom resources are: experiments, and the trials that they own."""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock.compile.targets.local.record import State
from penstock.testing import kubeconfig
from penstock.testing.faults import Fault
from penstock.testing.runs import TERMINAL, Script, Steps
from penstock.testing.server import ApiError, Request, Route, StandIn
from penstock.testing.times import now

_ROOT = "/apis/kubeflow.org/v1beta1/namespaces/{namespace}"
_OWNER = "katib.kubeflow.org/experiment"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists",
            422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}  # fmt: skip
# Fields that the custom resource definition knows; of others the API server says so.
_SPEC = {"objective", "algorithm", "earlyStopping", "trialTemplate", "parallelTrialCount", "maxTrialCount",
         "maxFailedTrialCount", "metricsCollectorSpec", "parameters", "resumePolicy", "nasConfig"}  # fmt: skip
_ALGORITHMS = {"random", "grid", "tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "sobol", "hyperband",
               "pbt", "enas", "darts"}  # fmt: skip
_SPACES = {"min", "max", "step", "list", "distribution"}
_DISTRIBUTIONS = {"uniform", "logUniform", "normal", "logNormal"}
_LINE = re.compile(r"\$\{trialParameters\.([A-Za-z0-9_-]+)\}")

# Given the arguments of a trial's container, its point among them, returns the metrics that it prints.
Trial = Callable[[list[str]], Mapping[str, float]]


class KatibStandIn(StandIn):
    """Katib on 127.0.0.1, for the Kubernetes client: experiments go through states, and their trials are told.

    Args:
        script: How the state of experiments that begin now goes.
        trial: Stands for a trial's container; without it no trial reports a metric.
        faults, tls, port: As for any stand-in.
    """

    def __init__(
        self,
        script: Script | None = None,
        trial: Trial | None = None,
        *,
        faults: Iterable[Fault] = (),
        tls: bool = False,
        port: int = 0,
    ) -> None:
        self.script = script or Script()
        self.trial = trial
        self.experiments: dict[tuple[str, str], dict[str, Any]] = {}
        self._trials: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._steps: dict[tuple[str, str], Steps] = {}
        super().__init__(faults=faults, tls=tls, port=port)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        one = f"{_ROOT}/experiments/{{name}}"
        return [
            Route("POST", f"{_ROOT}/experiments", self._create),
            Route("GET", f"{_ROOT}/experiments", self._list),
            Route("GET", one, self._get),
            Route("DELETE", one, self._delete),
            Route("GET", f"{_ROOT}/trials", self._list_trials),
        ]

    def error_body(self, status: int, message: str) -> Any:
        """Return an error as a Kubernetes API tells it."""
        reason = _REASONS.get(status, "")
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": status,
        }  # fmt: skip

    @contextlib.contextmanager
    def connected(self, namespace: str = "team") -> Iterator[KatibStandIn]:
        """Point the kubernetes client's kubeconfig here; at the end, back."""
        with kubeconfig.connected(self, namespace):
            yield self

    def _create(self, request: Request, namespace: str) -> Any:
        body = request.json()
        name = body.get("metadata", {}).get("name", "")
        if not _NAME.fullmatch(name) or len(name) > 63:
            raise ApiError(422, f"metadata.name: {name!r} is no lower-case RFC 1123 label")
        if (namespace, name) in self.experiments:
            raise ApiError(409, f'experiments.kubeflow.org "{name}" already exists')
        _check(body)
        key = (namespace, name)
        metadata = {**body["metadata"], "namespace": namespace, "creationTimestamp": now()}
        self.experiments[key] = {**body, "metadata": metadata, "status": {"conditions": [_condition("Created")]}}
        self._steps[key] = Steps(self.script)
        return self.experiments[key]

    def _list(self, request: Request, namespace: str) -> Any:
        found = [each for (place, _), each in self.experiments.items() if place == namespace and _fits(request, each)]
        return {"apiVersion": "kubeflow.org/v1beta1", "kind": "ExperimentList", "metadata": {}, "items": found}

    def _get(self, request: Request, namespace: str, name: str) -> Any:
        experiment = self._found(namespace, name)
        state, _ = self._steps[namespace, name].poll()
        kinds = {State.SUCCEEDED: "Succeeded", State.FAILED: "Failed"}
        kind = kinds.get(state, "Running" if state is State.RUNNING else "Created")
        message = self._steps[namespace, name].script.error if state is State.FAILED else ""
        experiment["status"]["conditions"] = [_condition(kind, message)]
        if state in TERMINAL and (namespace, name) not in self._trials:
            self._trials[namespace, name] = self._tried(experiment)
        return experiment

    def _delete(self, request: Request, namespace: str, name: str) -> Any:
        self._found(namespace, name)
        del self.experiments[namespace, name]
        self._trials.pop((namespace, name), None)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _list_trials(self, request: Request, namespace: str) -> Any:
        found = [
            trial
            for (place, _), trials in self._trials.items()
            if place == namespace
            for trial in trials
            if _fits(request, trial)
        ]
        return {"apiVersion": "kubeflow.org/v1beta1", "kind": "TrialList", "metadata": {}, "items": found}

    def _found(self, namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.experiments[namespace, name]
        except KeyError:
            raise ApiError(404, f'experiments.kubeflow.org "{name}" not found') from None

    def _tried(self, experiment: Mapping[str, Any]) -> list[dict[str, Any]]:
        # Points repeat, so that a test does.
        source = random.Random(0)  # noqa: S311
        spec, name = experiment["spec"], experiment["metadata"]["name"]
        template = spec["trialTemplate"]
        container = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
        found = []
        for number in range(spec["maxTrialCount"]):
            point = {each["name"]: _sampled(each, source) for each in spec["parameters"]}
            filled = {each["name"]: point[each["reference"]] for each in template["trialParameters"]}
            told = [_LINE.sub(lambda match, filled=filled: filled[match[1]], each) for each in container["args"]]  # type: ignore[misc]
            status: dict[str, Any]
            try:
                metrics = {} if self.trial is None else self.trial(told)
                observed = [
                    {"name": each, "latest": repr(value), "min": repr(value), "max": repr(value)}
                    for each, value in metrics.items()
                ]
                status = {"conditions": [_condition("Succeeded")], "observation": {"metrics": observed}}
                if spec["objective"]["objectiveMetricName"] not in metrics:
                    status = {"conditions": [_condition("MetricsUnavailable", "Metrics are not available")]}
            except Exception as error:
                status = {"conditions": [_condition("Failed", f"Trial has failed: {error}")]}
            found.append(
                {
                    "apiVersion": "kubeflow.org/v1beta1",
                    "kind": "Trial",
                    "metadata": {"name": f"{name}-{number:08d}", "labels": {_OWNER: name}, "creationTimestamp": now()},
                    "spec": {"parameterAssignments": [{"name": each, "value": point[each]} for each in point]},
                    "status": status,
                }
            )
        return found


def _condition(kind: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": f"Experiment{kind}", "message": message, "lastUpdateTime": now()}


def _fits(request: Request, resource: Mapping[str, Any]) -> bool:
    wanted = [each.split("=", 1) for each in request.query.get("labelSelector", "").split(",") if each]
    labels = resource["metadata"].get("labels", {})
    return all(labels.get(name) == value for name, value in wanted)


def _check(body: Mapping[str, Any]) -> None:
    """Refuse what Katib's definition or its webhook refuses."""
    spec = body.get("spec", {})
    if unknown := sorted(spec.keys() - _SPEC):
        raise ApiError(400, f'strict decoding error: unknown field "spec.{unknown[0]}"')
    objective = spec.get("objective", {})
    if objective.get("type") not in ("minimize", "maximize") or not objective.get("objectiveMetricName"):
        raise ApiError(422, "spec.objective: type and objectiveMetricName are required")
    if spec.get("algorithm", {}).get("algorithmName") not in _ALGORITHMS:
        raise ApiError(422, f"spec.algorithm.algorithmName: unknown, known are {', '.join(sorted(_ALGORITHMS))}")
    for setting in spec["algorithm"].get("algorithmSettings", []):
        if not isinstance(setting.get("value"), str):
            raise ApiError(422, "spec.algorithm.algorithmSettings: values are strings")
    counts = [spec.get(name) for name in ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")]
    if not all(isinstance(count, int) and count > 0 for count in counts) or counts[0] > counts[1]:
        raise ApiError(422, "spec: counts of trials are integers above 0, those at a time no more than all")
    for parameter in spec.get("parameters", []):
        _check_parameter(parameter, spec["algorithm"]["algorithmName"])
    template = spec.get("trialTemplate", {})
    references = {each.get("reference") for each in template.get("trialParameters", [])}
    if references != {each["name"] for each in spec.get("parameters", [])}:
        raise ApiError(422, "spec.trialTemplate.trialParameters: they do not refer to the parameters")
    names = {each["name"] for each in template["trialParameters"]}
    used = set(_LINE.findall(json.dumps(template.get("trialSpec", {}))))
    if used != names:
        raise ApiError(422, f"spec.trialTemplate: {sorted(used ^ names)} are named in one place only")
    containers = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    if template.get("primaryContainerName") not in {each["name"] for each in containers}:
        raise ApiError(422, "spec.trialTemplate.primaryContainerName: there is no such container")


def _check_parameter(parameter: Mapping[str, Any], algorithm: str) -> None:
    where = f"spec.parameters[{parameter.get('name')}]"
    space, kind = parameter.get("feasibleSpace", {}), parameter.get("parameterType")
    if unknown := sorted(space.keys() - _SPACES):
        raise ApiError(400, f'strict decoding error: unknown field "{where}.feasibleSpace.{unknown[0]}"')
    if kind not in ("double", "int", "discrete", "categorical"):
        raise ApiError(422, f"{where}.parameterType: {kind!r} is unknown")
    texts = [*space.get("list", []), *(space[name] for name in ("min", "max", "step") if name in space)]
    if not all(isinstance(text, str) for text in texts):
        raise ApiError(422, f"{where}.feasibleSpace: values are strings")
    if kind in ("double", "int"):
        if "list" in space or not float(space.get("min", "nan")) <= float(space.get("max", "nan")):
            raise ApiError(422, f"{where}.feasibleSpace: min and max are required, min no more than max")
        if algorithm == "grid" and kind == "double" and "step" not in space:
            raise ApiError(422, f"{where}.feasibleSpace: grid needs a step")
        if space.get("distribution", "uniform") not in _DISTRIBUTIONS:
            raise ApiError(422, f"{where}.feasibleSpace.distribution is unknown")
    elif not space.get("list") or {"min", "max", "step"} & space.keys():
        raise ApiError(422, f"{where}.feasibleSpace: a list is required, and nothing else")


def _sampled(parameter: Mapping[str, Any], source: random.Random) -> str:
    space = parameter["feasibleSpace"]
    if "list" in space:
        return str(source.choice(space["list"]))
    low, high = float(space["min"]), float(space["max"])
    if space.get("distribution") == "logUniform":
        value = math.exp(source.uniform(math.log(low), math.log(high)))
    else:
        value = source.uniform(low, high)
    if "step" in space:
        step = float(space["step"])
        value = low + math.floor((value - low) / step) * step
    return str(round(value)) if parameter["parameterType"] == "int" else repr(value)
