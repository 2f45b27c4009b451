"""What tests of endpoints share: traffic, an eye on its shares, a model that fails on some rows, killed processes."""

import collections
import contextlib
import http.client
import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import lightgbm
import numpy as np
from threadpoolctl import threadpool_limits

from penstock.components._shared.model import KIND, load_model
from penstock.components._shared.sealed import MANIFEST, seal, unseal
from penstock.components.deployment.backends import connect
from penstock.components.deployment.backends.local import Local
from penstock.components.deployment.local.state import Book
from tests.components.deployment.conftest import row


def overflowing(model: Path, folder: Path) -> Path:
    """Return a copy of a LightGBM regression whose sums overflow for some rows, none of its own example among them.

    The server answers those rows with 500: what the model predicts is not finite.
    """
    shutil.copytree(model, folder)
    booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
    loaded = load_model(model, "test", "model")
    import pandas as pd

    rows = loaded.matrix(pd.DataFrame([row(number) for number in range(200)]))
    leaves = booster.predict(rows, pred_leaf=True)
    example = set(map(tuple, leaves[:5, :2]))
    pairs = collections.Counter(map(tuple, leaves[:, :2]))
    hit = next(
        pair
        for pair, count in pairs.most_common()
        if count >= 5 and all(pair[0] != first and pair[1] != second for first, second in example)
    )
    text = (folder / "model.txt").read_text().splitlines()
    trees = [number for number, line in enumerate(text) if line.startswith("leaf_value=")]
    for tree, leaf in enumerate(hit):
        values = text[trees[tree]].removeprefix("leaf_value=").split()
        values[int(leaf)] = "1.7e308"
        text[trees[tree]] = "leaf_value=" + " ".join(values)
    # The sizes of the trees' texts have changed; without them LightGBM reads one tree after the other.
    (folder / "model.txt").write_text("\n".join(line for line in text if not line.startswith("tree_sizes=")) + "\n")
    facts = unseal(model, KIND, "test", "model")
    (folder / MANIFEST).unlink()
    seal(folder, KIND, {name: value for name, value in facts.items() if name not in ("kind", "files")})
    predicted = load_model(folder, "test", "model").predict_matrix(rows)
    assert np.isfinite(predicted[:5]).all()
    assert not np.isfinite(predicted).all()
    return folder


class Load:
    """Requests that go on until the end of a block.

    Attributes:
        answers: How many, by status and version; a status of 0 is a request without an answer.
    """

    def __init__(self, url: str, clients: int = 2, pause: float = 0.004) -> None:
        self._place, self._pause = urlsplit(url).netloc, pause
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        self._lock = threading.Lock()
        self.answers: collections.Counter = collections.Counter()
        self.problems: list[str] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def by(self, version: str) -> int:
        return sum(count for (_, who), count in self.answers.items() if who == version)

    @property
    def failed(self) -> dict[tuple[int, str], int]:
        return {key: count for key, count in self.answers.items() if key[0] != 200}

    def _ask(self, first: int) -> None:
        number = first * 50
        connection = http.client.HTTPConnection(self._place, timeout=30)
        while not self._end.is_set():
            body = json.dumps({"instances": [row(number)]})
            headers = {"Content-Type": "application/json", "X-Request-Id": f"{number}-{uuid.uuid4()}"}
            try:
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                answer.read()
                key = (answer.status, answer.headers.get("X-Model-Version", ""))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                key = (0, "")
                self.problems.append(repr(error))
            with self._lock:
                self.answers[key] += 1
            number += 1
            time.sleep(self._pause)


class Watch:
    """Looks all the time at how traffic is shared: in the proxy, and in what is written down.

    Attributes:
        seen: Every sharing that was seen, as it was first seen, in order.
    """

    def __init__(self, backend: Local, endpoint: str) -> None:
        self._proxy = backend._proxy(endpoint)
        self._book = Book(backend._folder(endpoint), "test")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: list[dict[str, int]] = []
        self.looks = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.is_set():
            places, _ = self._proxy.routes()
            shares = dict(collections.Counter(to.partition(":")[0] for to in places.values()))
            state = self._book.read()
            for each in (shares, state.traffic):
                if sum(each.values()) != 100:
                    self.seen.append(each)
            if not self.seen or self.seen[-1] != shares:
                self.seen.append(shares)
            self.looks += 1
            time.sleep(0.003)


def at(state: Path, **options: object) -> Local:
    """Return the endpoints of a folder."""
    backend = connect("local", {"state": str(state), **options}, "test")
    assert isinstance(backend, Local)
    return backend


@contextlib.contextmanager
def endpoints(state: Path) -> Iterator[Path]:
    """Yield a folder of endpoints, and end all of them, whatever has become of them."""
    try:
        yield state
    finally:
        for folder in sorted(state.iterdir()) if state.is_dir() else []:
            if not folder.name.startswith("."):
                at(state).remove(folder.name, "")


def forked(work: Callable[[], object]) -> int:
    """Do some work in a process of its own, and return its number.

    It exits with 0, with 1 after an exception, and with the code of a SystemExit.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Threads do not come along, and OpenMP would wait for its own for ever.
        threadpool_limits(1, user_api="openmp")
        work()
        code = 0
    except SystemExit as leave:
        code = int(leave.code or 0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def ended(child: int, seconds: float = 60) -> int:
    """Return how a process ended: its exit code, negative for a signal."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"still there after {seconds} s")


def killed_at(backend: Local, calls: tuple[str, ...], number: int, after: bool) -> Local:
    """Return a backend that kills its process at the n-th of some calls, before or after it is done."""
    count = 0
    for name in calls:
        original = getattr(backend, name)

        def wrapped(*args, _original=original, **kwargs):
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = _original(*args, **kwargs)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(backend, name, wrapped)
    return backend
