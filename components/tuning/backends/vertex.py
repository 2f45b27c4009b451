"""Trials as one HyperparameterTuningJob of Vertex AI, which proposes them by its own Bayesian search."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.cloud import aiplatform_v1

from penstock.components._shared.clouds import vertex
from penstock.components.tuning.remote import LABEL, METRIC, Tried, drive, told
from penstock.components.tuning.search import COMPLETE, Backend, Run, Search
from penstock.components.tuning.search import FAILED as FAILED_TRIAL
from penstock.components.tuning.space import Parameter
from penstock.components.tuning.trial import job_text

SAMPLERS = {"auto": "ALGORITHM_UNSPECIFIED", "random": "RANDOM_SEARCH", "grid": "GRID_SEARCH"}
MOST_VALUES = 1000  # of a discrete parameter
OPTIONS = {
    **vertex.OPTIONS,
    "staging_bucket": "gs:// folder for what trials write.",
    "image": "Image of the trials, by digest. Without it: this step's own, PENSTOCK_IMAGE.",
    "machine_type": "Machine of a trial; n1-standard-4 without it.",
    "service_account": "Account that trials run as.",
    "network": "Network that trials are peered with.",
}


def cannot(search: Search) -> list[str]:
    """Return what Vertex AI cannot be told."""
    found = []
    if len(search.objectives) > 1:
        found.append("several objectives")
    for parameter in search.space.parameters:
        values = parameter.grid() if parameter.step else ()
        if values is None or len(values) > MOST_VALUES:
            found.append(f"{parameter.name}: more than {MOST_VALUES:,} steps")
        if search.sampler == "grid" and parameter.type == "float" and not parameter.step:
            found.append(f"{parameter.name}: a grid over a float without a step")
    for name, uri in (("train_set", search.train_uri), ("eval_set", search.eval_uri)):
        if not uri.startswith("gs://"):
            found.append(f"{name} at {uri or 'no URI'}: its machines read gs://")
    if not search.options.get("image", os.environ.get("PENSTOCK_IMAGE")):
        found.append("trials without the option image")
    if not search.options.get("staging_bucket"):
        found.append("a search without the option staging_bucket")
    if not search.run_id:
        found.append("a search without a run_id, by which a restarted step knows its job")
    return found


def parameter_specs(search: Search) -> list[dict[str, Any]]:
    """Return the space as Vertex AI takes it: parameters with those that depend on them inside."""

    def spec(parameter: Parameter) -> dict[str, Any]:
        made = {"parameter_id": parameter.name, **_values(parameter)}
        inner = []
        for child in search.space.parameters:
            if child.parent == parameter.name:
                key, values = _condition(parameter, child)
                inner.append({key: {"values": values}, "parameter_spec": spec(child)})
        return made | ({"conditional_parameter_specs": inner} if inner else {})

    return [spec(parameter) for parameter in search.space.parameters if not parameter.parent]


def _values(parameter: Parameter) -> dict[str, Any]:
    if parameter.type == "categorical":
        return {"categorical_value_spec": {"values": [str(choice) for choice in parameter.choices]}}
    if parameter.step and not (parameter.type == "int" and parameter.step == 1):
        return {"discrete_value_spec": {"values": [float(value) for value in parameter.grid() or ()]}}  # type: ignore[arg-type]
    scale = "UNIT_LOG_SCALE" if parameter.log else "UNIT_LINEAR_SCALE"
    kind = "integer_value_spec" if parameter.type == "int" else "double_value_spec"
    return {kind: {"min_value": parameter.low, "max_value": parameter.high}, "scale_type": scale}


def _condition(parent: Parameter, child: Parameter) -> tuple[str, list[Any]]:
    if parent.type == "categorical":
        return "parent_categorical_values", [str(value) for value in child.values]
    if "discrete_value_spec" in _values(parent):
        return "parent_discrete_values", [float(value) for value in child.values]  # type: ignore[arg-type]
    return "parent_int_values", [int(value) for value in child.values]  # type: ignore[arg-type]


class Vertex(vertex.LabelledJobs):
    """Vertex AI, for one search."""

    kind, message_type, label = "hyperparameter_tuning_job", "HyperparameterTuningJob", LABEL

    def __init__(self, search: Search) -> None:
        super().__init__(search.options)
        self._search = search

    def trials(self, name: str, seconds: float) -> Sequence[Tried]:
        job = self.found(name, seconds)
        states = aiplatform_v1.Trial.State
        over = {states.SUCCEEDED: COMPLETE, states.INFEASIBLE: FAILED_TRIAL}
        return [
            Tried(
                state=over[trial.state],
                parameters={each.parameter_id: each.value for each in trial.parameters},
                metrics={each.metric_id: float(each.value) for each in trial.final_measurement.metrics},
                error=trial.infeasible_reason or ("it is infeasible" if trial.state == states.INFEASIBLE else ""),
            )
            for trial in job.trials
            if trial.state in over
        ]

    def message(self, label: str) -> dict[str, Any]:
        """Return the job, as the API takes it."""
        search, options = self._search, self._search.options
        container = {
            "image_uri": str(options.get("image") or os.environ["PENSTOCK_IMAGE"]),
            "command": ["python3", "-m", "penstock.components.tuning.trial"],
            "args": ["--job", job_text(search, "hypertune")],
            "env": [{"name": "_KFP_RUNTIME", "value": "true"}],
        }
        machine = str(options.get("machine_type", "n1-standard-4"))
        pool = {"machine_spec": {"machine_type": machine}, "replica_count": 1, "container_spec": container}
        job_spec: dict[str, Any] = {
            "worker_pool_specs": [pool],
            "base_output_directory": {"output_uri_prefix": f"{str(options['staging_bucket']).rstrip('/')}/{label}"},
            "scheduling": {"timeout": {"seconds": int(search.max_seconds)}},
        }
        job_spec |= {name: str(options[name]) for name in ("service_account", "network") if options.get(name)}
        return {
            "display_name": f"penstock-tune-{label[:12]}",
            "labels": {LABEL: label},
            "study_spec": {
                "metrics": [{"metric_id": METRIC, "goal": search.objectives[0].direction.upper()}],
                "parameters": parameter_specs(search),
                "algorithm": SAMPLERS[search.sampler],
            },
            "max_trial_count": search.max_trials,
            "parallel_trial_count": min(search.parallel_trials, search.max_trials),
            # Trials that fail are told; they do not end the search.
            "max_failed_trial_count": search.max_trials,
            "trial_job_spec": job_spec,
        }


@contextmanager
def begin(search: Search) -> Iterator[Run]:
    """Return what waits for the job, and returns its trials."""
    yield lambda prepared, folder: told(search, drive(Vertex(search), search, prepared))


BACKEND = Backend(
    samplers=tuple(SAMPLERS),
    pruners=("auto", "none"),
    options=OPTIONS,
    cannot=cannot,
    begin=begin,
    remote=True,
)
