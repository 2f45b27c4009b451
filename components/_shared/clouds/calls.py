"""Calls of a service: each has a deadline, what fails in passing is done again, what is refused is told in a line."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from penstock.components._shared.errors import UserError

T = TypeVar("T")

CALL = 30.0  # seconds that one call may take
PATIENCE = 120.0  # seconds in which a call that fails in passing is made again
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two attempts


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


class Service(Protocol):
    """What is called."""

    name: str

    def failure(self, error: Exception) -> Failure | None:
        """Return what an exception stands for; None: it is no fault of a call."""


class Pauses:
    """Pauses between attempts, each up to twice as long as the one before."""

    def __init__(self) -> None:
        self._delay = FIRST_PAUSE

    def next(self, failure: Failure) -> float:
        """Return the seconds to wait after a failure."""
        pause = random.uniform(self._delay / 2, self._delay)  # noqa: S311
        self._delay = min(2 * self._delay, LONGEST_PAUSE)
        return max(pause, failure.retry_after)


@dataclass(frozen=True)
class Calls:
    """The calls of one service on behalf of a component.

    Attributes:
        argument: Argument of the component that named the service.
    """

    service: Service
    component: str
    argument: str

    def __call__(self, what: str, call: Callable[[float], T], patience: float = PATIENCE) -> T:
        """Return what a call gives, made again after passing faults only.

        Args:
            what: What it does, as an error says it after "cannot".
            call: Is given the seconds that it may take; one that takes longer, such as to wait for something that is
                being made, has its patience anew when it fails then.

        Raises:
            UserError: The service refuses, or does not answer.
        """
        end, pauses = time.monotonic() + patience, Pauses()
        while True:
            began = time.monotonic()
            try:
                return call(max(1.0, min(CALL, end - began)))
            except Exception as error:
                failure = self.service.failure(error)
                if failure is None:
                    raise
                if time.monotonic() - began > 2 * CALL:
                    end, pauses = time.monotonic() + patience, Pauses()
                pause = pauses.next(failure)
                if not failure.passing or time.monotonic() + pause > end:
                    remedy = "Try again later" if failure.passing else "Correct the cause, then run the step again"
                    raise self.refusal(f"cannot {what}: {failure.reason}", remedy) from error
                time.sleep(pause)

    def refusal(self, problem: str, remedy: str) -> UserError:
        """Return an error that names the service."""
        return UserError(self.component, self.argument, f"{self.service.name}: {problem}", remedy)

    def say(self, line: str) -> None:
        """Write a line to the log of the step."""
        print(f"{self.component}: {line}", flush=True)
