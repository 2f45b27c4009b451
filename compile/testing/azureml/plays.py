"""How jobs go: by a script, or by what a function says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.record import State
from penstock.testing.runs import Script

STATUSES = (
    "NotStarted", "Starting", "Provisioning", "Preparing", "Queued", "Running", "Finalizing", "CancelRequested",
    "Paused", "NotResponding", "Completed", "Failed", "Canceled",
)  # fmt: skip
ENDED = ("Completed", "Failed", "Canceled")
_OF_SCRIPTS = {
    State.PENDING: "NotStarted", State.RUNNING: "Running", State.SUCCEEDED: "Completed", State.FAILED: "Failed",
    State.CANCELLED: "Canceled", State.SKIPPED: "Completed",
}  # fmt: skip


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        status: In Azure ML's words, such as "Running".
        nodes: Statuses of a pipeline's nodes, by name; those that are not named are where the job is.
        error: Message of a job that failed.
    """

    status: str
    nodes: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def __post_init__(self) -> None:
        for status in (self.status, *self.nodes.values()):
            if status not in STATUSES:
                raise PenstockError(f"{status!r} is no status of a job; there are {', '.join(STATUSES)}")


# Called when a job begins, with its name and its properties as they were sent: {"name": …, "jobType": "Pipeline",
# "jobs": {…}, …}. Each time a client asks for the job one more state is taken, which has to be there at once; the last
# one stays. When the job is cancelled, or the stand-in ends, the generator is closed: what it runs it ends in a
# `finally`. That is all that something which runs jobs for real has to know.
JobStates = Callable[[Mapping[str, Any]], Iterable[JobState | str]]


class JobRun:
    """A job that has begun.

    Args:
        play: How it goes.
        payload: Its name and properties.
        nodes: Names of its nodes.

    Raises:
        PenstockError: a script names a node that is not there.
    """

    def __init__(self, play: Script | JobStates, payload: Mapping[str, Any], nodes: Iterable[str]) -> None:
        self._nodes = tuple(nodes)
        self._cancelling, self._polls_left = False, 0
        self._polls_of_cancel = 0
        if isinstance(play, Script):
            self._polls_of_cancel = play.cancelling
            for node in play.tasks:
                if node not in self._nodes:
                    raise PenstockError(
                        f"the script names a node {node}; the job has {', '.join(self._nodes) or 'none'}"
                    )
            self._states: Iterator[JobState | str] = _scripted(play)
        else:
            self._states = _played(play, payload)
        self.now = JobState("NotStarted")

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.now.status in ENDED

    def poll(self) -> JobState:
        """Return how far it is, and go on."""
        if self.ended:
            return self.now
        if self._cancelling:
            self._settle()
            self._polls_left -= 1
            return self.now
        try:
            state = next(self._states, self.now)
            self.now = JobState(state) if isinstance(state, str) else state
            unknown = [node for node in self.now.nodes if node not in self._nodes]
            if unknown:
                raise PenstockError(f"no node is called {unknown[0]}; there are {', '.join(self._nodes) or 'none'}")
        except Exception as error:  # of somebody's function: whoever watches the job hears of it
            self.now = JobState("Failed", error=f"{type(error).__name__} in how the test plays the job: {error}")
        return self.now

    def cancel(self) -> None:
        """End it."""
        if self.ended or self._cancelling:
            return
        self.close()
        self._cancelling, self._polls_left = True, self._polls_of_cancel
        self._settle()

    def _settle(self) -> None:
        self.now = JobState("CancelRequested" if self._polls_left > 0 else "Canceled", self._ends())

    def _ends(self) -> dict[str, str]:
        # What had ended before stays as it ended.
        return {node: status for node, status in self.now.nodes.items() if status in ENDED}

    def close(self) -> None:
        """End what it runs."""
        close = getattr(self._states, "close", None)
        if close:
            close()


def _played(play: JobStates, payload: Mapping[str, Any]) -> Iterator[JobState | str]:
    # What the function raises comes out where states are asked for.
    yield from play(payload)


def _scripted(script: Script) -> Iterator[JobState]:
    for name in script.states.split():
        status = _OF_SCRIPTS[State(name)]
        ends = {node: _OF_SCRIPTS[State(state)] for node, state in script.tasks.items()} if status in ENDED else {}
        yield JobState(status, ends, script.error if status == "Failed" else "")
