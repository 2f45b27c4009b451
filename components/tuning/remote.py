"""A search as a job of another service: started at most once a run, adopted after a restart, ended with this step.

The services take no name of ours for a job, or take it once: so a job is labelled by what it is, looked for by its
label before one is created, and looked for again where the answer to its creation was lost.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.prepare import Prepared
from penstock.components.tuning.search import COMPLETE, COMPONENT, Search, Trial, digest
from penstock.components.tuning.space import Parameter, Value

T = TypeVar("T")

LABEL = "penstock-search"
METRIC = "objective"  # the name under which services know the objective
CALL = 30.0  # seconds that one call may take
PATIENCE = 120.0  # seconds in which a call that fails in passing is made again
ENDING = 8.0  # seconds for a confirmed cancellation once this step is told to end
POLL = 10.0  # seconds between two looks at a job
EXIT_TERMINATED = 143

WAITING, DONE, FAILED, GONE = "waiting", "done", "failed", "gone"


@dataclass(frozen=True)
class Job:
    """A job of the service.

    Attributes:
        name: By which the service knows it.
        state: "waiting" where it is not over; "done", "failed"; "gone" where it was cancelled.
        error: What the service says of its failure.
    """

    name: str
    state: str
    error: str = ""


@dataclass(frozen=True)
class Failure:
    """What a call came to in place of an answer.

    Attributes:
        status: HTTP status; None: there was no answer.
        retry_after: Seconds that the service asks to be left alone for.
    """

    reason: str
    status: int | None = None
    retry_after: float = 0.0

    @property
    def passing(self) -> bool:
        return self.status is None or self.status in (408, 429) or self.status >= 500


@dataclass(frozen=True)
class Tried:
    """A trial as a service tells of it: texts and numbers."""

    state: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    error: str = ""


class Service(Protocol):
    """What differs between the services; every call is given the seconds that it may take."""

    name: str

    def jobs(self, label: str, seconds: float) -> Sequence[Job]:
        """Return the jobs with a label, the oldest first."""

    def create(self, label: str, attempt: int, seconds: float) -> str:
        """Create a job and return its name."""

    def job(self, name: str, seconds: float) -> Job:
        """Return a job as it is now."""

    def cancel(self, name: str, seconds: float) -> None:
        """Ask for the end of a job."""

    def trials(self, name: str, seconds: float) -> Sequence[Tried]:
        """Return the trials of a job that are over, in the order in which they were begun."""

    def failure(self, error: Exception) -> Failure | None:
        """Return what an exception stands for; None: it is no fault of a call."""


class _Terminated(BaseException):
    pass


def drive(service: Service, search: Search, prepared: Prepared) -> Sequence[Tried]:
    """Return the trials of the search's one job, created here unless it is there.

    Raises:
        UserError: The service refuses, does not answer, or the job failed.
    """
    label = digest([search.run_id, search.definition(prepared), search.max_trials, search.sampler])[:32]
    deadline = time.monotonic() + search.max_seconds
    with _terminable():
        name = ""
        try:
            name = _started(service, label)
            print(f"tune: {service.name} job {name}", flush=True)
            job = _call(service, "ask for the job", lambda seconds: service.job(name, seconds))
            while job.state == WAITING and time.monotonic() < deadline:
                time.sleep(max(0.0, min(POLL, deadline - time.monotonic())))
                job = _call(service, "ask for the job", lambda seconds: service.job(name, seconds))
            if job.state == WAITING:
                print(f"tune: {search.max_seconds:g} s are over; unfinished trials are given up", flush=True)
                trials = _call(service, "ask for the trials", lambda seconds: service.trials(name, seconds))
                _end(service, name, PATIENCE)
                return trials
        except (_Terminated, KeyboardInterrupt):
            if name or (name := _known(service, label)):
                _end(service, name, ENDING)
            raise SystemExit(EXIT_TERMINATED) from None
    if job.state == GONE:
        raise _refuse(service, f"the job {name} was cancelled", "Run the step again")
    trials = _call(service, "ask for the trials", lambda seconds: service.trials(name, seconds))
    if job.state == FAILED and not any(trial.state == COMPLETE for trial in trials):
        why = next((trial.error for trial in trials if trial.error), job.error)
        raise _refuse(service, f"the job {name} failed: {why}", "Look at its logs there, and correct the cause")
    return trials


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


def _started(service: Service, label: str) -> str:
    """Return the name of the job that is there or was created, of several that race the oldest."""
    known = _call(service, "look for the job", lambda seconds: service.jobs(label, seconds))
    for job in known:
        if job.state in (WAITING, DONE):
            print(f"tune: found {job.name}, begun by an earlier attempt", flush=True)
            return job.name
    attempt = len(known)
    end = time.monotonic() + PATIENCE
    delay = 0.5
    while True:
        try:
            created = service.create(label, attempt, CALL)
        except Exception as error:
            failure = service.failure(error)
            if failure is None:
                raise
            if not (failure.passing or failure.status == 409) or time.monotonic() > end:
                raise _refuse(service, f"the job cannot be created: {failure.reason}", "Correct the cause") from error
            time.sleep(max(random.uniform(delay / 2, delay), failure.retry_after))  # noqa: S311
            delay = min(2 * delay, 10.0)
            # It may have been created all the same.
            found = _call(service, "look for the job", lambda seconds: service.jobs(label, seconds))[attempt:]
            if found:
                return found[0].name
            continue
        alive = [
            job.name
            for job in _call(service, "look for the job", lambda seconds: service.jobs(label, seconds))[attempt:]
            if job.state in (WAITING, DONE)
        ]
        if alive and alive[0] != created:  # another attempt was first
            _end(service, created, PATIENCE)
            return alive[0]
        return created


def _known(service: Service, label: str) -> str:
    found = _call(service, "look for the job", lambda seconds: service.jobs(label, seconds), ENDING / 2)
    return next((job.name for job in found if job.state == WAITING), "")


def _end(service: Service, name: str, within: float) -> None:
    """Cancel a job, and see it ended or ending."""
    end = time.monotonic() + within
    try:
        _call(service, "cancel the job", lambda seconds: service.cancel(name, seconds), within / 2)
        while (
            _call(service, "ask for the job", lambda seconds: service.job(name, seconds), within / 2).state == WAITING
        ):
            if time.monotonic() > end:
                print(f"tune: {name} was asked to end and has not ended yet", flush=True)
                return
            time.sleep(0.2)
        print(f"tune: {name} has ended", flush=True)
    except UserError as error:
        print(f"tune: {name} may still run: {error}", flush=True)


def _call(service: Service, what: str, call: Callable[[float], T], patience: float = PATIENCE) -> T:
    """Return what a call gives, made again after passing faults only."""
    end = time.monotonic() + patience
    delay = 0.5
    while True:
        try:
            return call(max(1.0, min(CALL, end - time.monotonic())))
        except Exception as error:
            failure = service.failure(error)
            if failure is None:
                raise
            pause = max(random.uniform(delay / 2, delay), failure.retry_after)  # noqa: S311
            if not failure.passing or time.monotonic() + pause > end:
                remedy = "Try again later" if failure.passing else "Correct the cause, then run the step again"
                raise _refuse(service, f"cannot {what}: {failure.reason}", remedy) from error
            time.sleep(pause)
            delay = min(2 * delay, 10.0)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception for the length of a block."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not in the main thread, where no signal comes
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(service: Service, problem: str, remedy: str) -> UserError:
    return UserError(COMPONENT, "backend", f"{service.name}: {problem}", remedy)
