"""A job of another service: started at most once a run, adopted after a restart, ended with the step that began it.

The services take no name of ours for a job, or take it once: so a job is labelled by what it is, looked for by its
label before one is created, and looked for again where the answer to its creation was lost.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn, Protocol

from penstock.components._shared.clouds.calls import CALL, PATIENCE, Calls, Pauses, Service
from penstock.components._shared.errors import UserError

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


class JobService(Service, Protocol):
    """What differs between the services; every call is given the seconds that it may take."""

    def jobs(self, label: str, seconds: float) -> Sequence[Job]:
        """Return the jobs with a label, the oldest first."""

    def create(self, label: str, attempt: int, seconds: float) -> str:
        """Create a job and return its name."""

    def job(self, name: str, seconds: float) -> Job:
        """Return a job as it is now."""

    def cancel(self, name: str, seconds: float) -> None:
        """Ask for the end of a job."""


class _Terminated(BaseException):
    pass


class Jobs:
    """The jobs of one service on behalf of a component.

    Args:
        argument: Argument of the component that named the service.
    """

    def __init__(self, service: JobService, component: str, argument: str) -> None:
        self._service = service
        self.calls = Calls(service, component, argument)

    def finished(self, label: str, max_seconds: float, before_end: Callable[[str], object] = lambda name: None) -> Job:
        """Return the one job with a label once it is over, created here unless it is there.

        A job that is still at work after `max_seconds` is ended, and returned as "waiting".

        Args:
            before_end: Is given the name of such a job, before it is ended.

        Raises:
            UserError: The service refuses or does not answer, or somebody cancelled the job.
        """
        deadline = time.monotonic() + max_seconds
        with _terminable():
            name = ""
            try:
                name = self._started(label)
                self.calls.say(f"{self._service.name} job {name}")
                job = self._look(name)
                while job.state == WAITING and time.monotonic() < deadline:
                    time.sleep(max(0.0, min(POLL, deadline - time.monotonic())))
                    job = self._look(name)
                if job.state == WAITING:
                    before_end(name)
                    self._end(name, PATIENCE)
            except (_Terminated, KeyboardInterrupt):
                if name or (name := self._known(label)):
                    self._end(name, ENDING)
                raise SystemExit(EXIT_TERMINATED) from None
        if job.state == GONE:
            raise self.calls.refusal(f"the job {name} was cancelled", "Run the step again")
        return job

    def _look(self, name: str, patience: float = PATIENCE) -> Job:
        return self.calls("ask for the job", lambda seconds: self._service.job(name, seconds), patience)

    def _list(self, label: str, patience: float = PATIENCE) -> Sequence[Job]:
        return self.calls("look for the job", lambda seconds: self._service.jobs(label, seconds), patience)

    def _started(self, label: str) -> str:
        """Return the name of the job that is there or was created, of several that race the oldest."""
        known = self._list(label)
        for job in known:
            if job.state in (WAITING, DONE):
                self.calls.say(f"found {job.name}, begun by an earlier attempt")
                return job.name
        attempt = len(known)
        end, pauses = time.monotonic() + PATIENCE, Pauses()
        while True:
            try:
                created = self._service.create(label, attempt, CALL)
            except Exception as error:
                failure = self._service.failure(error)
                if failure is None:
                    raise
                if not (failure.passing or failure.status == 409) or time.monotonic() > end:
                    problem = f"the job cannot be created: {failure.reason}"
                    raise self.calls.refusal(problem, "Correct the cause") from error
                time.sleep(pauses.next(failure))
                if found := self._list(label)[attempt:]:  # it was created all the same
                    return found[0].name
                continue
            alive = [job.name for job in self._list(label)[attempt:] if job.state in (WAITING, DONE)]
            if alive and alive[0] != created:  # another attempt was first
                self._end(created, PATIENCE)
                return alive[0]
            return created

    def _known(self, label: str) -> str:
        return next((job.name for job in self._list(label, ENDING / 2) if job.state == WAITING), "")

    def _end(self, name: str, within: float) -> None:
        """Cancel a job, and see it ended or ending."""
        end = time.monotonic() + within
        try:
            self.calls("cancel the job", lambda seconds: self._service.cancel(name, seconds), within / 2)
            while self._look(name, within / 2).state == WAITING:
                if time.monotonic() > end:
                    self.calls.say(f"{name} was asked to end and has not ended yet")
                    return
                time.sleep(0.2)
            self.calls.say(f"{name} has ended")
        except UserError as error:
            self.calls.say(f"{name} may still run: {error}")


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
