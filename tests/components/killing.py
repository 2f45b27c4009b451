"""Work that talks to a service, killed after one request after another."""

import http.client
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator

from tests.components.deployment.endpoints import ended, forked


def killed_after_each_change(work: Callable[[], object]) -> Iterator[int]:
    """Yield each time that some work, in a process of its own, was killed one change later than the time before.

    A change is a request that is no GET, killed when the answer has come and nothing was made of it: what the service
    knows then is the same as when it is killed at any moment until the next change is sent. Of the files of an upload,
    which are alike, the first counts. It ends when the work was done before it was killed.
    """
    for number in itertools.count(1):
        code = ended(forked(lambda number=number: _killed_after(number, work)), 120)
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        yield number


def _killed_after(number: int, work: Callable[[], object]) -> None:
    left, lock, uploads = itertools.count(1), threading.Lock(), itertools.count()
    asked, answered = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse

    def putrequest(self: http.client.HTTPConnection, method: str, url: str, *more: object, **settings: object) -> None:
        self.counts = method not in ("GET", "HEAD") and ("/LocalUpload/" not in url or next(uploads) == 0)
        asked(self, method, url, *more, **settings)

    def getresponse(self: http.client.HTTPConnection) -> http.client.HTTPResponse:
        response = answered(self)
        with lock:
            if self.counts and next(left) == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return response

    http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse = putrequest, getresponse
    work()
