"""Runs are followed to their end, and cancelled so that it is known."""

import pytest

from penstock.compile import following
from penstock.compile.errors import PenstockError
from penstock.compile.following import Changes, Pace, StillRunning, follow
from penstock.compile.submission import RemoteRun, RunState, TaskStatus
from tests.compile.clock import Time


def run(state: str, **tasks: str) -> RemoteRun:
    found = tuple(TaskStatus(name, name, RunState(task)) for name, task in tasks.items())
    return RemoteRun("r1", "run", "https://example.com/r1", RunState(state), tasks=found)


def one_after_another(*runs: RemoteRun):
    left = list(runs)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED"])
def test_a_run_is_followed_to_its_end(state):
    seen = []
    ended = follow(
        one_after_another(run("PENDING"), run("RUNNING"), run("CANCELLING"), run("PAUSED"), run(state)),
        seen.append,
        clock=Time().clock,
    )
    assert ended.state == state
    assert [each.state for each in seen] == ["PENDING", "RUNNING", "CANCELLING", "PAUSED", state]


def test_looks_are_rarer_while_nothing_changes_and_frequent_again_when_something_does():
    time = Time()
    same = [run("RUNNING", a="RUNNING")] * 5
    follow(
        one_after_another(*same, run("RUNNING", a="SUCCEEDED"), run("SUCCEEDED")),
        lambda _: None,
        pace=Pace(first=1, factor=2, longest=5),
        clock=time.clock,
    )
    assert time.pauses == [1, 2, 4, 5, 5, 1]


def test_a_run_that_takes_too_long_is_left_alone():
    time = Time()
    with pytest.raises(StillRunning, match=r"^run r1 is running after 10 s; it goes on$") as raised:
        follow(one_after_another(run("RUNNING")), lambda _: None, 10, clock=time.clock)
    assert raised.value.run.id == "r1"
    assert time.now == 10


def test_each_change_of_a_task_is_told_once():
    changes = Changes()
    told = [
        [f"{task.path} {task.state}" for task in changes(each)]
        for each in (
            run("RUNNING", a="PENDING", b="PENDING"),
            run("RUNNING", a="RUNNING", b="PENDING"),
            run("RUNNING", a="RUNNING", b="PENDING"),
            run("FAILED", a="FAILED", b="SKIPPED"),
        )
    ]
    assert told == [[], ["a RUNNING"], [], ["a FAILED", "b SKIPPED"]]


class Stubborn:
    """A platform whose run changes its state some looks after it was cancelled."""

    def __init__(self, *states: str) -> None:
        self.look = one_after_another(*map(run, states))
        self.cancelled: list[float] = []

    def cancel(self, run_id: str, seconds: float) -> None:
        self.cancelled.append(seconds)

    def get(self, run_id: str, seconds: float) -> RemoteRun:
        return self.look()


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED", "SUCCEEDED"])
def test_a_cancellation_is_confirmed(state):
    platform = Stubborn("RUNNING", "RUNNING", state)
    assert following.cancel(platform, "r1", clock=Time().clock).state == state
    assert len(platform.cancelled) == 1


def test_a_cancellation_that_is_not_confirmed_is_an_error_in_time():
    time = Time()
    with pytest.raises(PenstockError, match=r"r1 was told to stop, and is running after 9 s; see https://example\.com"):
        following.cancel(Stubborn("RUNNING"), "r1", 9, time.clock)
    assert time.now <= 9
