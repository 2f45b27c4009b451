"""What goes wrong on the way to a stand-in, as data."""

from __future__ import annotations

import fnmatch
import sys
from dataclasses import dataclass
from enum import StrEnum

ALWAYS = sys.maxsize


class Kind(StrEnum):
    """How a request fails."""

    STATUS = "status"  # it is not carried out; the answer is an error
    RESET = "reset"  # it is not carried out; the connection is cut
    STALL = "stall"  # it is carried out and answered, but only after a while
    LOST = "lost"  # it is carried out, and the connection is cut before the answer


@dataclass(frozen=True)
class Fault:
    """What happens to requests that a pattern fits; of several faults for one request the first happens.

    Made by `Fault.answer`, `Fault.reset`, `Fault.stall` or `Fault.lost`.

    Attributes:
        on: Method and path, either with `*` for anything, such as "POST */pipelineJobs" or "* *:cancel".
        kind: What happens.
        times: How often; ALWAYS for no end.
        after: Requests that fit and are let through before.
        status: HTTP status of the error.
        retry_after: Seconds that the header Retry-After asks for; None: there is no such header.
        seconds: Seconds of silence.
    """

    on: str
    kind: Kind
    times: int = 1
    after: int = 0
    status: int = 0
    retry_after: float | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if len(self.on.split(" ")) != 2:
            raise ValueError(f"{self.on!r} is not a method and a path, such as 'POST */pipelineJobs'")

    @classmethod
    def answer(
        cls, on: str, status: int = 503, *, times: int = 1, after: int = 0, retry_after: float | None = None
    ) -> Fault:
        """Return a fault that answers with an error and does nothing else."""
        return cls(on, Kind.STATUS, times, after, status, retry_after)

    @classmethod
    def reset(cls, on: str, *, times: int = 1, after: int = 0) -> Fault:
        """Return a fault that cuts the connection before anything is done."""
        return cls(on, Kind.RESET, times, after)

    @classmethod
    def stall(cls, on: str, seconds: float, *, times: int = 1, after: int = 0) -> Fault:
        """Return a fault that keeps silent for some seconds, then carries the request out and answers."""
        return cls(on, Kind.STALL, times, after, seconds=seconds)

    @classmethod
    def lost(cls, on: str, *, times: int = 1, after: int = 0) -> Fault:
        """Return a fault that carries the request out and cuts the connection before the answer."""
        return cls(on, Kind.LOST, times, after)


def matches(on: str, method: str, path: str) -> bool:
    """Return whether a pattern such as "POST */pipelineJobs" fits a request."""
    wanted, _, pattern = on.partition(" ")
    return fnmatch.fnmatchcase(method, wanted) and fnmatch.fnmatchcase(path, pattern)
