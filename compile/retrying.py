"""Asks a service again where it failed in passing, and only there; every call and every wait has an end."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from penstock.compile.errors import PenstockError

T = TypeVar("T")

_SILENT = 3  # attempts after which whoever waits is told why


@dataclass(frozen=True)
class Clock:
    """Time as the loops here see it; tests give one that does not wait.

    Attributes:
        between: Gives a number between two, at random.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    between: Callable[[float, float], float] = random.uniform


@dataclass(frozen=True)
class Fault:
    """What a call came to in place of its answer.

    Attributes:
        reason: In words, without a full stop.
        status: HTTP status; None: there was no answer.
        retry_after: Seconds that the service wants to be left alone, where it said so.
    """

    reason: str
    status: int | None = None
    retry_after: float | None = None

    @property
    def passing(self) -> bool:
        """Whether asking again may help: there was no answer, or it was 408, 429 or 5xx."""
        return self.status is None or self.status in (408, 429) or 500 <= self.status < 600


class CallFailed(PenstockError):
    """A call that came to nothing, for good or for longer than there was time."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Patience:
    """How long to go on asking.

    Attributes:
        seconds: From the first attempt until no other is begun.
        call: Seconds that one call may take.
        first: Seconds before the second attempt, at most; twice that before the third, and so on.
        longest: Seconds between two attempts, at most, unless the service asks for more.
    """

    seconds: float = 60.0
    call: float = 30.0
    first: float = 0.5
    longest: float = 10.0

    @classmethod
    def within(cls, seconds: float) -> Patience:
        """Return what is over, with its last call, in as many seconds: of someone who has to go."""
        call = max(seconds / 3, 1.0)
        return cls(max(seconds - call, 0.5), call, first=0.25, longest=1.0)


def retried(
    what: str,
    call: Callable[[float], T],
    fault_of: Callable[[Exception], Fault | None],
    patience: Patience = Patience(),
    clock: Clock = Clock(),
) -> T:
    """Return what a call gives, asked again after passing faults; warns once where that takes longer.

    Args:
        what: What the call is for, as errors begin.
        call: Takes the seconds that it has.
        fault_of: Tells what an exception stands for; None: it is no fault of the call, and rises.

    Raises:
        CallFailed: asking again would not help, or the time is over.
    """
    end = clock.now() + patience.seconds
    delay, attempt = patience.first, 0
    while True:
        attempt += 1
        try:
            return call(max(min(patience.call, end - clock.now()), 1.0))
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            if not fault.passing:
                raise CallFailed(f"{what}: {fault.reason}", fault) from error
            pause = max(clock.between(delay / 2, delay), fault.retry_after or 0.0)
            if clock.now() + pause >= end:
                times = "once" if attempt == 1 else f"{attempt} times in {patience.seconds:g} s"
                raise CallFailed(f"{what}: {fault.reason}; asked {times}, try again later", fault) from error
            if attempt == _SILENT:
                warnings.warn(f"{what} yet: {fault.reason}; trying again for {end - clock.now():.0f} s", stacklevel=2)
            clock.sleep(pause)
            delay = min(delay * 2, patience.longest)


def retry_after(text: str | None) -> float | None:
    """Return the seconds that a Retry-After header names; None where it has none, or a date, which nobody sends."""
    return float(text) if text and text.strip().isdigit() else None
