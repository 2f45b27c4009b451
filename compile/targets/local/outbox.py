"""A queue between a run and those who are told of it: whoever is slow or gone never makes the run wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Hands items over to `deliver`, one after another, in a thread of its own.

    Args:
        deliver: Takes an item; returns whether it got where it should. It may block, and must not raise.
        room: Items that may wait; more are dropped.
    """

    def __init__(self, deliver: Callable[[T], bool], *, room: int) -> None:
        self._deliver = deliver
        self._queue: queue.Queue[T | None] = queue.Queue(room)
        self._given = self._delivered = 0
        self._closed = False
        # What hangs in it must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Take an item, at once; to be called by one thread only."""
        self._given += 1
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return

    def close(self, seconds: float) -> int:
        """Wait until everything is delivered, for `seconds` at most; return how many items were not."""
        end = time.monotonic() + seconds
        try:
            self._queue.put(None, timeout=seconds)
            self._thread.join(max(end - time.monotonic(), 0))
        except queue.Full:
            pass
        self._closed = True
        return self._given - self._delivered

    def _work(self) -> None:
        while (item := self._queue.get()) is not None and not self._closed:
            self._delivered += self._deliver(item)
