"""Requests of one row to our server and to MLflow's own, each on one core; the requests come from another."""

import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROWS = 5_000
SECONDS = 4.0
TURNS = 3
CONNECTIONS = 4
PENSTOCK = Path(sys.executable).with_name("penstock")
OURS = [sys.executable, "-m", "penstock.components.deployment.serving"]
MLFLOW = """
import sys, uvicorn
from mlflow.pyfunc import load_model
from mlflow.pyfunc.scoring_server import init
uvicorn.run(init(load_model(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[3]), log_level="error", access_log=False)
"""


def run(scratch: Path) -> list[dict]:
    command = [
        PENSTOCK,
        "run",
        "tabular_training",
        "--json",
        "--root",
        scratch,
        "-p",
        f"source=sample://taxi?rows={ROWS}",
    ]
    record = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    model = Path(record["folder"]) / "tasks" / "train" / "outputs" / "model"
    example = json.loads((model / "serving_input_example.json").read_text())["dataframe_split"]
    body = json.dumps({"dataframe_split": {**example, "data": example["data"][:1]}}).encode()
    request = (
        b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with _server(OURS, model) as (ours, ready), _server([sys.executable, "-c", MLFLOW], model) as (theirs, _):
        turns = [(_load(ours, request), _load(theirs, request)) for _ in range(TURNS)]
    rate, p99, baseline = (
        statistics.median(values) for values in zip(*((own[0], own[1], other[0]) for own, other in turns), strict=True)
    )
    return [
        _row(
            "serving one row, one core, beside MLflow's server",
            rate,
            "/s",
            "at least 2 times",
            rate >= 2 * baseline,
            baseline,
        ),
        _row("serving one row, one core", rate, "/s", "at least 1,000 /s", rate >= 1000),
        _row("serving one row, one core: p99", p99 * 1000, "ms", "under 10 ms", p99 < 0.01),
        _row("from the start of a server to its first prediction", ready, "s", "–", None),
    ]


@contextlib.contextmanager
def _server(command: list[str], model: Path) -> Iterator[tuple[int, float]]:
    """Yield the port of a server on the first core, and the seconds that it took to be ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PENSTOCK_DRAIN_DELAY_SECONDS": "0", "DO_NOT_TRACK": "true"}
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, model, "--port", str(port)],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, _cores()[:1]),
    )
    try:
        while not _answers(port):
            assert process.poll() is None, command
            assert time.monotonic() < began + 60, command
            time.sleep(0.02)
        yield port, time.monotonic() - began
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        return b" 200 " in connection.recv(100)
    return False


def _load(port: int, request: bytes) -> tuple[float, float]:
    """Return answers a second and the 99th percentile of their seconds; a connection asks when it has its answer."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _cores()[-1:])  # the servers have the first
    waiting: dict[socket.socket, float] = {}
    took: list[float] = []
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ)
            waiting[connection] = time.perf_counter()
            connection.sendall(request)
        received = dict.fromkeys(waiting, b"")
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            for key, _ in selector.select(1):
                connection = key.fileobj
                received[connection] += connection.recv(65536)
                if not _whole(received[connection]):
                    continue
                assert received[connection].startswith(b"HTTP/1.1 200 "), received[connection][:500]
                now = time.perf_counter()
                took.append(now - waiting[connection])
                waiting[connection], received[connection] = now, b""
                connection.sendall(request)
    os.sched_setaffinity(0, before)
    return len(took) / SECONDS, statistics.quantiles(took, n=100)[98]


def _whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(length) and len(body) >= int(length)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _row(name: str, ours: float, unit: str, goal: str, met: bool | None, baseline: float | None = None) -> dict:
    ratio = ours / baseline if baseline else None
    return {"name": name, "ours": ours, "baseline": baseline, "unit": unit, "ratio": ratio, "goal": goal, "met": met}
