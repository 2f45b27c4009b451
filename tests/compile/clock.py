"""Time that passes only where somebody waits."""

from dataclasses import dataclass, field

from penstock.compile.retrying import Clock


@dataclass
class Time:
    """A clock that does not wait, and the pauses that were made; what is drawn is the longest that could be."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep, lambda low, high: high)
