"""Follows a run on a platform until it is over, and cancels one so that it is known to be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.compile.errors import PenstockError
from penstock.compile.retrying import Clock
from penstock.compile.submission import Platform, RemoteRun, RunState, TaskStatus

Observe = Callable[[RemoteRun], None]


@dataclass(frozen=True)
class Pace:
    """Seconds between two looks at a run: short after something has changed, longer while nothing does."""

    first: float = 0.5
    factor: float = 1.5
    longest: float = 20.0


class StillRunning(PenstockError):
    """The time to wait is over and the run is not."""

    def __init__(self, run: RemoteRun, seconds: float) -> None:
        super().__init__(f"run {run.id} is {run.state.lower()} after {seconds:g} s; it goes on")
        self.run = run


class Changes:
    """Tells the tasks of a run whose state has changed since the last time."""

    def __init__(self) -> None:
        self._states: dict[str, RunState] = {}

    def __call__(self, run: RemoteRun) -> Iterator[TaskStatus]:
        """Yield each task whose state is another than it was; those that wait are not told of."""
        for task in run.tasks:
            before = self._states.get(task.id, RunState.PENDING)
            self._states[task.id] = task.state
            if task.state is not before:
                yield task


def follow(
    get: Callable[[], RemoteRun],
    observe: Observe,
    timeout: float | None = None,
    pace: Pace = Pace(),
    clock: Clock = Clock(),  # noqa: B008
) -> RemoteRun:
    """Return a run when it is over.

    Args:
        get: Asks the platform for the run.
        observe: Is given the run each time it is looked at.
        timeout: Seconds to wait; None: as long as it takes.

    Raises:
        StillRunning: it was not over in that time.
    """
    began, delay = clock.now(), pace.first
    before: RemoteRun | None = None
    while True:
        run = get()
        observe(run)
        if run.state.over:
            return run
        delay = pace.first if run != before else min(delay * pace.factor, pace.longest)
        before = run
        pause = clock.between(delay * 0.8, delay)
        if timeout is not None:
            left = began + timeout - clock.now()
            if left <= 0:
                raise StillRunning(run, timeout)
            pause = min(pause, left)
        clock.sleep(pause)


def cancel(platform: Platform, run_id: str, seconds: float = 10.0, clock: Clock = Clock()) -> RemoteRun:  # noqa: B008
    """Cancel a run, and return it as the platform has it then: cancelled, on the way there, or over before.

    Raises:
        PenstockError: the platform did not confirm it in time.
    """
    end, delay = clock.now() + seconds, 0.1
    platform.cancel(run_id, seconds * 0.7)
    while True:
        run = platform.get(run_id, max(end - clock.now(), 1.0))
        if run.state.over or run.state is RunState.CANCELLING:
            return run
        if clock.now() + delay >= end:
            raise PenstockError(
                f"run {run_id} was told to stop, and is {run.state.lower()} after {seconds:g} s; see {run.url}"
            )
        clock.sleep(delay)
        delay = min(delay * 2, 1.0)
