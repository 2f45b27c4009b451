"""What a service of monitoring counts of the answers of endpoints: by the minute, and told late."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """An answer.

    Attributes:
        at: When, as seconds since 1970.
        own: Id of what answered.
        seconds: That it took.
    """

    at: float
    endpoint: str
    own: str
    status: int
    seconds: float


@dataclass(frozen=True)
class Interval:
    """Answers that are counted together.

    Attributes:
        start, end: Moments, in UTC.
    """

    start: datetime.datetime
    end: datetime.datetime
    answers: tuple[Answered, ...]


class Counted:
    """The answers of all endpoints.

    Attributes:
        grain: Seconds of an interval, in which answers are counted together. The services have 60.
        late: Seconds after its end until an interval is told of. The services take minutes.
    """

    def __init__(self) -> None:
        self.grain = 60.0
        self.late = 0.0
        self._answers: list[Answered] = []

    def add(self, endpoint: str, own: str, status: int, seconds: float) -> None:
        """Count an answer that was given now."""
        self._answers.append(Answered(_now(), endpoint, own, status, seconds))

    def told(self, endpoint: str, own: str | None) -> Iterator[Interval]:
        """Yield the intervals in which an endpoint has answered, as far as they are told of, in order.

        Args:
            own: Of whom; None: of all.
        """
        found: dict[int, list[Answered]] = {}
        for each in self._answers:
            if each.endpoint == endpoint and own in (None, each.own):
                found.setdefault(math.floor(each.at / self.grain), []).append(each)
        for place, answers in sorted(found.items()):
            start, end = place * self.grain, (place + 1) * self.grain
            if end + self.late <= _now():
                yield Interval(_moment(start), _moment(end), tuple(answers))


def _now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
