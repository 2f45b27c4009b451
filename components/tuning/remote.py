"""A search as a job of another service, which proposes the points and tries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.components._shared.clouds.jobs import FAILED, Jobs, JobService
from penstock.components._shared.fitting.prepare import Prepared
from penstock.components.tuning.search import COMPLETE, COMPONENT, Search, Trial, digest
from penstock.components.tuning.space import Parameter, Value

LABEL = "penstock-search"
METRIC = "objective"  # the name under which services know the objective


@dataclass(frozen=True)
class Tried:
    """A trial as a service tells of it: texts and numbers."""

    state: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    error: str = ""


class Service(JobService, Protocol):
    """What differs between the services; every call is given the seconds that it may take."""

    def trials(self, name: str, seconds: float) -> Sequence[Tried]:
        """Return the trials of a job that are over, in the order in which they were begun."""


def drive(service: Service, search: Search, prepared: Prepared) -> Sequence[Tried]:
    """Return the trials of the search's one job, created here unless it is there.

    Raises:
        UserError: The service refuses, does not answer, or the job failed.
    """
    label = digest([search.run_id, search.definition(prepared), search.max_trials, search.sampler])[:32]
    jobs = Jobs(service, COMPONENT, "backend")
    in_time: list[Sequence[Tried]] = []

    def trials(name: str) -> Sequence[Tried]:
        return jobs.calls("ask for the trials", lambda seconds: service.trials(name, seconds))

    def give_up(name: str) -> None:
        jobs.calls.say(f"{search.max_seconds:g} s are over; unfinished trials are given up")
        in_time.append(trials(name))

    job = jobs.finished(label, search.max_seconds, give_up)
    found = in_time[0] if in_time else trials(job.name)
    if job.state == FAILED and not any(trial.state == COMPLETE for trial in found):
        why = next((trial.error for trial in found if trial.error), job.error)
        raise jobs.calls.refusal(f"the job {job.name} failed: {why}", "Look at its logs there, and correct the cause")
    return found


def typed(parameter: Parameter, text: Any) -> Value:
    """Return the value of a parameter that a service hands over as a text or a float.

    Raises:
        ValueError: It is none that the parameter has.
    """
    if parameter.type == "categorical":
        for choice in parameter.choices:
            if str(choice) == str(text) or (isinstance(choice, int | float) and str(float(choice)) == str(text)):
                return choice
        raise ValueError(f"{parameter.name} is never {text!r}")
    value = float(text)
    return round(value) if parameter.type == "int" else value


def told(search: Search, tried: Sequence[Tried]) -> list[Trial]:
    """Return trials of a service in our form: typed values, metrics under their own names."""
    space = {parameter.name: parameter for parameter in search.space.parameters}
    objective = search.objectives[0]
    return [
        Trial(
            number=number,
            state=each.state,
            parameters={name: typed(space[name], value) for name, value in each.parameters.items()},
            metrics=_named(each.metrics, objective.name),
            error=each.error,
        )
        for number, each in enumerate(tried)
    ]


def _named(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    """Return metrics with the objective under its own name; a service may tell of it alone."""
    others = {each: value for each, value in metrics.items() if each != METRIC}
    if METRIC not in metrics or name in others or (not name and any(each.startswith("eval_") for each in others)):
        return others
    return {name or "eval_loss": metrics[METRIC], **others}
