"""Models of every framework and task, and servers of them in processes of their own."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Threads that wait for each other on a busy machine cost these few rows more than they save. Read at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from penstock.components.deployment.deploy import _candidate
from penstock.components.deployment.serving import served
from penstock.components.deployment.serving.settings import Settings
from penstock.components.training.fit import fit

TARGETS = {"binary": "late", "multiclass": "shade", "regression": "double"}
MODELS = [f"{framework}-{task}" for framework in ("xgboost", "lightgbm", "sklearn") for task in TARGETS]
ROUNDS = {"xgboost": {"min_child_weight": 0}, "lightgbm": {"min_data_in_leaf": 1}, "sklearn": {"min_samples_leaf": 1}}


def row(number: int) -> dict[str, Any]:
    """Return the features of a row; those of every fifth, fourth and sixth have gaps."""
    return {
        "size": number * 37 % 100,
        "color": ["red", "green", "blüe"][number % 3],
        "gaps": None if number % 5 == 0 else number % 7,
        "share": None if number % 4 == 0 else number % 11 / 10,
        "open": None if number % 6 == 0 else number % 2 == 0,
        "shut": number % 3 == 1,
    }


@pytest.fixture(scope="session")
def models(tmp_path_factory, make_dataset) -> Callable[[str], Path]:
    """Return a function that gives the folder of a model by a name in MODELS."""
    made: dict[str, Path] = {}

    def dataset(first: int, count: int) -> Path:
        rows = [row(number) for number in range(first, first + count)]
        columns = {name: [each[name] for each in rows] for name in rows[0]}
        shades = {"red": "warm", "green": "neutral", "blüe": "cold"}
        columns["late"] = [size >= 50 for size in columns["size"]]
        columns["shade"] = [shades[color] for color in columns["color"]]
        columns["double"] = [2.0 * size for size in columns["size"]]
        return make_dataset(columns)

    def model(name: str) -> Path:
        if name not in made:
            framework, _, task = name.partition("-")
            folder = tmp_path_factory.mktemp(name) / "model"
            fit(
                dataset(0, 200),
                dataset(1000, 60),
                folder,
                target=TARGETS[task],
                framework=framework,
                exclude=[other for other in TARGETS.values() if other != TARGETS[task]],
                hyperparameters=ROUNDS[framework],
                max_rounds=20,
            )
            made[name] = folder
        return made[name]

    return model


@pytest.fixture(scope="session")
def loaded(models) -> Callable[[str], served.Served]:
    """Return a function that loads a model as the server does."""
    cached: dict[str, served.Served] = {}

    def load(name: str) -> served.Served:
        if name not in cached:
            cached[name] = served.load(Settings(model=str(models(name))))
        return cached[name]

    return load


@dataclass
class Running:
    """A server in a process of its own.

    Attributes:
        lines: What it says, as it says it.
    """

    process: subprocess.Popen
    port: int = 0
    lines: list[str] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 30
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, body (parsed where it is JSON) and headers of an answer."""
        if not isinstance(body, bytes | None):
            body = json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, given | (headers or {}))
            answer = connection.getresponse()
            content = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
        if found.get("content-type", "").startswith("application/json") and content:
            return answer.status, json.loads(content), found
        return answer.status, content.decode(), found

    def post(self, path: str, body: Any, **more: Any) -> tuple[int, Any]:
        return self.ask("POST", path, body, **more)[:2]

    def get(self, path: str, **more: Any) -> tuple[int, Any]:
        return self.ask("GET", path, **more)[:2]

    def metric(self, name: str) -> float:
        """Return the value of a metric by name and labels, 0 where it is not told yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self, seconds: float = 30) -> int:
        """End it by SIGTERM and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def wait_ready(self, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.port and self.get("/health")[0] == 200:
                    return
            time.sleep(0.02)
        raise AssertionError("\n".join(self.lines))


@contextlib.contextmanager
def serving(
    model: Path | str | None, ready: bool = True, port: int = 0, preexec: Any = None, **environment: str
) -> Iterator[Running]:
    """Serve a model until the end of the block."""
    # As in the image: the declarations of components, and kfp with them, are not imported.
    given = {"_KFP_RUNTIME": "true", "PENSTOCK_DRAIN_DELAY_SECONDS": "0", "PENSTOCK_DRAIN_SECONDS": "5", **environment}
    command = [sys.executable, "-m", "penstock.components.deployment.serving", "--port", str(port)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "AIP_"))}
    process = subprocess.Popen(
        [*command, *([str(model)] if model else [])],
        env={**inherited, **given},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
    )
    running = Running(process)

    def listen() -> None:
        assert process.stderr
        for line in process.stderr:
            running.lines.append(line.rstrip())
            if found := re.match(r"serving: listening on http://.*:(\d+)$", line):
                running.port = int(found[1])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        if ready:
            running.wait_ready()
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        listener.join(5)


@pytest.fixture(scope="session")
def two(models, loaded) -> dict[str, tuple[Path, served.Served]]:
    """Two models, and what serves each, by the version that it is deployed as."""
    found = {}
    for name in ("xgboost-binary", "lightgbm-binary"):
        folder = models(name)
        found[_candidate(folder, "").version] = folder, loaded(name)
    return found


@pytest.fixture(scope="session")
def server(models) -> Iterator[Running]:
    """A server of a binary model, shared by tests that leave it as it is."""
    with serving(models("xgboost-binary"), PENSTOCK_MAX_BYTES="1000000", PENSTOCK_MODEL_VERSION="7") as running:
        yield running
