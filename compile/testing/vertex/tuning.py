"""Trials of a hyperparameter tuning job: points at random in the job's space, tried by a function."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.server import ApiError
from penstock.testing.times import now

# Given the arguments of a trial's container, its point among them, returns the metrics that it reports.
Trial = Callable[[list[str]], Mapping[str, float]]

_KINDS = ("doubleValueSpec", "integerValueSpec", "categoricalValueSpec", "discreteValueSpec")
_CONDITIONS = {
    "parentCategoricalValues": "categoricalValueSpec",
    "parentIntValues": "integerValueSpec",
    "parentDiscreteValues": "discreteValueSpec",
}


# The client sends enumerations by number; here they have their names.
_NAMES: dict[str, tuple[str, ...]] = {
    "goal": ("GOAL_TYPE_UNSPECIFIED", "MAXIMIZE", "MINIMIZE"),
    "algorithm": ("ALGORITHM_UNSPECIFIED", "", "GRID_SEARCH", "RANDOM_SEARCH"),
    "scaleType": ("SCALE_TYPE_UNSPECIFIED", "UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"),
}


def named(value: Any) -> Any:
    """Return a study spec with enumerations by name."""
    if isinstance(value, list):
        return [named(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _NAMES[key][item] if key in _NAMES and isinstance(item, int) else named(item)
        for key, item in value.items()
    }


def check_study(study: Mapping[str, Any]) -> None:
    """Refuse a study spec that Vertex AI refuses."""
    if not study.get("metrics") or not study.get("parameters"):
        raise ApiError(400, "study_spec: metrics and parameters are required.")
    for metric in study["metrics"]:
        if not metric.get("metricId") or metric.get("goal") not in ("MAXIMIZE", "MINIMIZE"):
            raise ApiError(400, f"study_spec.metrics: {metric} lacks metric_id or goal.")
    for parameter in study["parameters"]:
        _check(parameter, study.get("algorithm"))


def trials_of(job: Mapping[str, Any], trial: Trial | None) -> list[dict[str, Any]]:
    """Return the trials of a job that is over."""
    # Points repeat, so that a test does.
    source = random.Random(0)  # noqa: S311
    arguments = job["trialJobSpec"]["workerPoolSpecs"][0].get("containerSpec", {}).get("args", [])
    study, found = job["studySpec"], []
    for number in range(int(job["maxTrialCount"])):
        point = dict(pair for parameter in study["parameters"] for pair in _sampled(parameter, source))
        told = [*arguments, *(f"--{name}={value}" for name, value in point.items())]
        entry: dict[str, Any] = {
            "id": str(number + 1),
            "parameters": [{"parameterId": name, "value": value} for name, value in point.items()],
            "startTime": now(),
            "endTime": now(),
        }
        try:
            reported = {} if trial is None else trial(told)
            metrics = [{"metricId": m["metricId"], "value": reported[m["metricId"]]} for m in study["metrics"]]
        except Exception as error:
            entry |= {"state": "INFEASIBLE", "infeasibleReason": f"The trial failed: {error}"}
        else:
            entry |= {"state": "SUCCEEDED", "finalMeasurement": {"metrics": metrics}}
        found.append(entry)
    return found


def _check(parameter: Mapping[str, Any], algorithm: str | None) -> None:
    name = parameter.get("parameterId")
    kinds = [kind for kind in _KINDS if kind in parameter]
    if not name or len(kinds) != 1:
        raise ApiError(400, f"study_spec.parameters: {name!r} needs a name and exactly one value spec.")
    spec = parameter[kinds[0]]
    if kinds[0] in ("doubleValueSpec", "integerValueSpec"):
        low, high = float(spec.get("minValue", 0)), float(spec.get("maxValue", 0))
        if low > high or (parameter.get("scaleType") == "UNIT_LOG_SCALE" and low <= 0):
            raise ApiError(400, f"study_spec.parameters: the range of {name} is empty or not above 0.")
    elif not spec.get("values"):
        raise ApiError(400, f"study_spec.parameters: {name} has no values.")
    if algorithm == "GRID_SEARCH" and kinds[0] == "doubleValueSpec":
        raise ApiError(400, f"study_spec.parameters: grid search does not take the double {name}.")
    for child in parameter.get("conditionalParameterSpecs", []):
        conditions = [condition for condition in _CONDITIONS if condition in child]
        if len(conditions) != 1 or _CONDITIONS[conditions[0]] not in parameter:
            raise ApiError(400, f"study_spec.parameters: a condition on {name} does not fit its kind.")
        _check(child["parameterSpec"], algorithm)


def _sampled(parameter: Mapping[str, Any], source: random.Random) -> Sequence[tuple[str, Any]]:
    value: Any
    if "categoricalValueSpec" in parameter:
        value = source.choice(parameter["categoricalValueSpec"]["values"])
    elif "discreteValueSpec" in parameter:
        value = source.choice(parameter["discreteValueSpec"]["values"])
    else:
        spec = parameter.get("doubleValueSpec") or parameter["integerValueSpec"]
        low, high = float(spec.get("minValue", 0)), float(spec.get("maxValue", 0))
        if parameter.get("scaleType") == "UNIT_LOG_SCALE":
            value = math.exp(source.uniform(math.log(low), math.log(high)))
        else:
            value = source.uniform(low, high)
        if "integerValueSpec" in parameter:
            value = float(round(value))  # a number of JSON, as the service sends it
    found = [(str(parameter["parameterId"]), value)]
    for child in parameter.get("conditionalParameterSpecs", []):
        condition = next(each for each in _CONDITIONS if each in child)
        if any(str(value) == str(each) or _same(value, each) for each in child[condition]["values"]):
            found += _sampled(child["parameterSpec"], source)
    return found


def _same(value: Any, other: Any) -> bool:
    try:
        return float(value) == float(other)
    except ValueError:
        return False
