"""Calls are asked again where that may help, and never for longer than there is time."""

import pytest

from penstock.compile.retrying import CallFailed, Clock, Fault, Patience, retried, retry_after
from tests.compile.clock import Time


class Wrong(Exception):
    def __init__(self, status: int | None, seconds: float | None = None) -> None:
        self.fault = Fault(f"it answered {status}", status, seconds)


def fault_of(error: Exception) -> Fault | None:
    return error.fault if isinstance(error, Wrong) else None


def answers(*outcomes):
    """Return a call that raises or returns one outcome after the other, and what it was given."""
    left, given = list(outcomes), []

    def call(seconds: float):
        given.append(seconds)
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call, given


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, None])
def test_a_passing_fault_is_outlasted(status):
    time = Time()
    call, given = answers(Wrong(status), Wrong(status), "here")
    assert retried("no", call, fault_of, Patience(first=1), time.clock) == "here"
    assert time.pauses == [1, 2]
    assert len(given) == 3


@pytest.mark.parametrize("status", [0, 400, 401, 403, 404, 409, 412])
def test_a_mistake_fails_at_once(status):
    time = Time()
    call, given = answers(Wrong(status))
    with pytest.raises(CallFailed, match=f"^the run could not be begun: it answered {status}$") as raised:
        retried("the run could not be begun", call, fault_of, Patience(), time.clock)
    assert raised.value.fault.status == status
    assert (time.pauses, len(given)) == ([], 1)


def test_an_exception_of_another_kind_rises():
    call, _ = answers(KeyError("bug"))
    with pytest.raises(KeyError):
        retried("no", call, fault_of, Patience(), Time().clock)


def test_who_waits_is_told_why_once_but_not_of_a_short_wait(recwarn):
    time = Time()
    retried("no run", answers(Wrong(503), Wrong(503), 1)[0], fault_of, Patience(first=1), time.clock)
    assert not recwarn
    retried("no run", answers(*[Wrong(503)] * 6, 1)[0], fault_of, Patience(first=1), time.clock)
    assert [str(each.message) for each in recwarn] == ["no run yet: it answered 503; trying again for 57 s"]


@pytest.mark.filterwarnings("ignore:no yet")
def test_pauses_grow_up_to_a_limit_and_end_with_the_time():
    time = Time()
    call, given = answers(*[Wrong(503)] * 99)
    with pytest.raises(CallFailed, match=r"^no: it answered 503; asked 7 times in 20 s, try again later$"):
        retried("no", call, fault_of, Patience(seconds=20, first=1, longest=4), time.clock)
    assert time.pauses == [1, 2, 4, 4, 4, 4]
    assert len(given) == 7


def test_pauses_are_drawn_at_random_from_the_upper_half():
    drawn = []

    def between(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    time = Time()
    call, _ = answers(Wrong(503), Wrong(503), 1)
    retried("no", call, fault_of, Patience(first=1), Clock(lambda: time.now, time.sleep, between))
    assert drawn == [(0.5, 1), (1, 2)]
    assert time.pauses == [0.5, 1]


def test_a_service_gets_the_rest_that_it_asks_for():
    time = Time()
    call, _ = answers(Wrong(429, 7), 1)
    assert retried("no", call, fault_of, Patience(first=1), time.clock) == 1
    assert time.pauses == [7]


def test_nobody_waits_for_a_rest_that_is_longer_than_there_is_time():
    time = Time()
    call, _ = answers(Wrong(503, 3600))
    with pytest.raises(CallFailed, match="asked once, try again later"):
        retried("no", call, fault_of, Patience(), time.clock)
    assert time.pauses == []


@pytest.mark.filterwarnings("ignore:no yet")
def test_a_call_has_no_more_time_than_is_left():
    time = Time()

    def call(seconds: float):
        given.append(seconds)
        time.now += seconds
        raise Wrong(None)

    given: list[float] = []
    with pytest.raises(CallFailed):
        retried("no", call, fault_of, Patience(seconds=50, call=30, first=1), time.clock)
    assert given == [30, 19]


@pytest.mark.filterwarnings("ignore:no yet")
def test_who_has_to_go_is_done_in_time():
    time = Time()

    def call(seconds: float):
        time.now += seconds
        raise Wrong(None)

    with pytest.raises(CallFailed):
        retried("no", call, fault_of, Patience.within(6), time.clock)
    assert time.now <= 6


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), (" 7 ", 7), (None, None), ("soon", None), ("", None)])
def test_retry_after_is_read(text, seconds):
    assert retry_after(text) == seconds
