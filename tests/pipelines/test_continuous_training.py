"""The loop: a champion that serves, data that move, a new champion that takes over or does not, and who is told."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from penstock.components._shared.mlflow_registry import open_registry
from penstock.components.deployment.backends import connect
from penstock.components.deployment.deploy import deploy
from penstock.components.ingestion.ingest import ingest
from penstock.components.registry.register import register
from penstock.components.training.fit import fit
from penstock.components.validation.validate import validate
from penstock.pipelines.tabular_training import TIPS

PAGE = (Path(__file__).parents[2] / "docs" / "loop.md").read_text()
PENSTOCK = Path(sys.executable).with_name("penstock")
RETRAINED = ("ingest", "validate", "train", "evaluate")
REPLACED = ("register", "deploy", "roll-out", "promote")
GATE = "gate=" + json.dumps(["auc >= 0.5", "auc >= champion - 0.2"])
LAST_WEEK = "FROM source WHERE time > now() - INTERVAL 7 DAY"
QUICK = ("steps=[20, 100]", 'hold={"requests": 10, "seconds": 30}', 'rollout_gate=["error_rate <= 0"]')


class Run:
    """A run that has ended: its exit code, what it said, and its tasks by name."""

    def __init__(self, done: subprocess.CompletedProcess) -> None:
        self.done = done
        record = json.loads(done.stdout) if done.stdout.startswith("{") else {"tasks": []}
        self.tasks = {task["name"]: task for task in record["tasks"]}

    def states(self, names: tuple[str, ...]) -> set[str]:
        return {self.tasks[name]["state"] for name in names}

    def said(self, task: str) -> dict:
        return self.tasks[task]["outputs"]["parameters"]


class Loop:
    """A folder of runs with its registry and its endpoint, and a webhook that hears how runs end."""

    def __init__(self, cwd: Path, hook: str) -> None:
        self.cwd, self.root, self.hook = cwd, cwd / "penstock-out", hook
        self.heard: list[dict] = []

    def type(self, command: str) -> Run:
        """Run a command of the page; return the run, if it was one."""
        path = f"{PENSTOCK.parent}{os.pathsep}{os.environ['PATH']}"
        said = f"{command} --json" if command.startswith("penstock run") else command
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(said, shell=True, cwd=self.cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return Run(done)

    def run(self, pipeline: str, *parameters: str) -> Run:
        given = [word for parameter in parameters for word in ("-p", parameter)]
        done = subprocess.run(
            [PENSTOCK, "run", pipeline, "--json", *given], capture_output=True, text=True, cwd=self.cwd
        )
        return Run(done)

    def watch(self, recent: Path, *parameters: str, query: str = TIPS) -> Run:
        channels = json.dumps([{"kind": "webhook", "url": self.hook}])
        return self.run(
            "continuous_training",
            f"recent={recent}",
            f"recent_query={query}",
            f"channels={channels}",
            "notify_when=always",
            *parameters,
        )

    @property
    def registry(self) -> str:
        return f"sqlite:///{self.root}/registry/mlflow.db"

    @property
    def options(self) -> dict[str, str]:
        return {"state": str(self.root / "endpoints")}

    @property
    def aliases(self) -> dict[str, str]:
        return open_registry(self.registry, "test").aliases("taxi-tips")

    @property
    def traffic(self) -> dict[str, int]:
        return dict(self._backend.get("taxi-tips").traffic)

    @property
    def url(self) -> str:
        return self._backend.get("taxi-tips").url

    @property
    def _backend(self):
        return connect("local", self.options, "test")

    def remove(self) -> None:
        self._backend.remove("taxi-tips", "")


@contextlib.contextmanager
def looping(folder: Path) -> Iterator[Loop]:
    """Yield a loop in a folder, with its webhook; what it has served in the end is removed."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found = Loop(folder, f"http://127.0.0.1:{server.server_port}/")
    try:
        yield found
    finally:
        found.remove()
        server.shutdown()
        server.server_close()


@pytest.fixture
def loop(tmp_path) -> Iterator[Loop]:
    with looping(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def standing(tmp_path_factory, trips) -> Iterator[Loop]:
    """A loop whose champion serves, for tests that leave it so."""
    with looping(tmp_path_factory.mktemp("standing")) as found:
        served_champion(found, trips)
        yield found


@contextlib.contextmanager
def asking(url: str, trips: Path, rows: int = 500) -> Iterator[list[int]]:
    """Ask an endpoint for predictions of trips, one after the other; yield the statuses of the answers so far."""
    place = urlsplit(url)
    with tempfile.TemporaryDirectory() as folder:
        train_set, eval_set, rejects = (Path(folder, name) for name in ("train", "eval", "rejects"))
        ingest(str(trips), train_set, eval_set, rejects, query=TIPS, eval_fraction=0.0)
        asked = pq.read_table(train_set / "part-00000.parquet").drop_columns("big_tip").slice(0, rows).to_pylist()
    bodies = [json.dumps({"instances": [row]}).encode() for row in asked]
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
        while not over.is_set():
            try:
                connection.request(
                    "POST", "/predict", bodies[len(statuses) % len(bodies)], {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            except (OSError, http.client.HTTPException):
                statuses.append(0)
                connection.close()
            over.wait(0.01)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join(60)


@pytest.fixture(scope="module")
def trips(tmp_path_factory) -> Path:
    """Folder of made-up trips, one file a month; a surcharge is charged from February 2019 on."""
    folder = tmp_path_factory.mktemp("trips") / "taxi"
    subprocess.run([PENSTOCK, "sample", "taxi", "--rows", "22500", "--output", folder], check=True)
    return folder


def month(folder: Path, name: str) -> Path:
    [file] = folder.glob(f"*{name}.csv")
    return file


def served_champion(loop: Loop, trips: Path) -> None:
    """Let a model of January 2019 be the champion, and serve it; in this process, where imports are paid for once."""
    folder = loop.root / "january"
    train_set, eval_set, model, statistics = (folder / name for name in ("train", "eval", "model", "statistics"))
    ingest(str(month(trips, "2019-01")), train_set, eval_set, folder / "rejects", query=TIPS)
    validate(train_set, statistics, folder / "schema", folder / "anomalies", folder / "page", on_anomaly="report")
    fit(train_set, eval_set, model, target="big_tip")
    register(model, {}, model_name="taxi-tips", statistics=statistics, registry=loop.registry, run_id="january")
    deploy(model, endpoint="taxi-tips", options=loop.options)
    assert loop.aliases == {"champion": "1"}
    assert list(loop.traffic.values()) == [100]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_data_that_moved_bring_a_new_champion_while_the_old_one_serves(loop, trips):
    served_champion(loop, trips)
    [first] = loop.traffic
    recent = month(trips, "2019-02")
    with asking(loop.url, recent) as statuses:
        run = loop.watch(recent, f"source={recent}", GATE, *QUICK)
    assert run.done.returncode == 0, run.done.stderr
    assert "extra" in run.said("detect-drift")["drifted_columns"]
    assert run.states((*RETRAINED, *REPLACED)) == {"SUCCEEDED"}
    assert run.said("promote")["previous_version"] == "1"
    assert run.said("roll-out")["outcome"] == "promoted"
    assert loop.aliases == {"champion": "2", "challenger": "2"}
    assert loop.traffic == {run.said("deploy")["version"]: 100}
    assert first not in loop.traffic
    assert set(statuses) == {200}
    assert len(statuses) > 50
    assert [told["passed"] for told in loop.heard] == [True]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_page_replace_a_champion_by_another_while_it_serves(loop):
    [block] = re.findall(r"\A.*?```sh\n(.*?)```", PAGE, re.DOTALL)
    sample, train, deployed, still, moved = block.splitlines()
    for command in (sample, train, deployed):
        loop.type(command)
    [first] = loop.traffic
    with asking(loop.url, loop.cwd / "trips" / "trips_2019-01.csv") as statuses:
        run = loop.type(still)
        assert run.said("detect-drift")["drifted"] is False
        assert run.said("fetch-reference")["version"] == "1"
        assert run.states((*RETRAINED, *REPLACED)) == {"SKIPPED"}
        assert loop.aliases == {"champion": "1"}

        run = loop.type(moved)
        assert "extra" in run.said("detect-drift")["drifted_columns"]
        assert run.states((*RETRAINED, *REPLACED)) == {"SUCCEEDED"}
        assert run.said("promote")["previous_version"] == "1"
        assert run.said("roll-out")["outcome"] == "promoted"
        assert loop.aliases == {"champion": "2", "challenger": "2"}
        [second] = loop.traffic
        assert second == run.said("deploy")["version"] != first

        # The new champion brings the statistics of its own rows: what had moved is what it knows.
        run = loop.type(moved)
        assert run.said("fetch-reference")["version"] == "2"
        assert run.said("detect-drift")["drifted"] is False
    assert set(statuses) == {200}
    assert len(statuses) > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_model_that_does_badly_under_traffic_is_rolled_back_and_the_exit_handler_says_why(standing, trips):
    before, recent = standing.traffic, month(trips, "2019-02")
    standing.heard.clear()
    with asking(standing.url, recent) as statuses:
        run = standing.watch(recent, f"source={recent}", GATE, *QUICK[:2], 'rollout_gate=["latency_p99 <= 0.0001"]')
    assert run.done.returncode == 1
    assert run.states(("register", "deploy")) == {"SUCCEEDED"}
    assert run.tasks["roll-out"]["state"] == "FAILED"
    assert run.tasks["promote"]["state"] in ("SKIPPED", "CANCELLED")
    assert "latency_p99" in run.done.stderr
    assert standing.aliases["champion"] == "1"
    assert standing.traffic == before
    assert set(statuses) == {200}
    [told] = standing.heard
    assert told["passed"] is False
    assert "roll" in told["reason"]
    assert "latency_p99" in told["reason"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_model_that_is_not_good_enough_is_neither_registered_nor_deployed(standing, trips):
    before, recent = (standing.aliases, standing.traffic), month(trips, "2019-02")
    run = standing.watch(recent, f"source={recent}", 'gate=["auc >= 0.999"]')
    assert run.done.returncode == 0, run.done.stderr
    assert run.states(RETRAINED) == {"SUCCEEDED"}
    assert run.states(REPLACED) == {"SKIPPED"}
    assert "0.999" in run.said("evaluate")["reason"]
    assert (standing.aliases, standing.traffic) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_that_fails_is_told(standing, trips):
    recent = month(trips, "2019-02")
    standing.heard.clear()
    run = standing.watch(recent, f"source={recent}", "framework=prophet")
    assert run.done.returncode == 1
    [told] = standing.heard
    assert told["headline"].startswith("continuous-training failed")
    assert "train: framework: 'prophet'" in told["reason"]


def test_without_a_champion_the_run_says_how_to_get_one(loop, trips):
    done = loop.watch(month(trips, "2019-02"))
    assert done.done.returncode == 1
    assert "has no champion of 'taxi-tips'. Train and register one first" in done.done.stderr
    [told] = loop.heard
    assert "has no champion of 'taxi-tips'" in told["reason"]


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.timeout(600)
def test_the_real_months_go_all_the_way_on_this_machine(loop, taxi_months):
    served_champion(loop, taxi_months)
    still = loop.watch(month(taxi_months, "2018-12"), f"source={month(taxi_months, '2018-12')}")
    assert still.said("detect-drift")["drifted"] is False
    assert still.states((*RETRAINED, *REPLACED)) == {"SKIPPED"}
    february = month(taxi_months, "2019-02")
    with asking(loop.url, february) as statuses:
        # What is watched is what the server was asked: the request log that it has written by now.
        while len(statuses) < 1000:
            threading.Event().wait(0.1)
        log = loop.root / "endpoints" / "taxi-tips" / "versions" / "*" / "requests" / "*.parquet"
        moved = loop.watch(log, f"source={february}", *QUICK, query=LAST_WEEK)
    assert moved.done.returncode == 0, moved.done.stderr
    assert "extra" in moved.said("detect-drift")["drifted_columns"]
    assert moved.states((*RETRAINED, *REPLACED)) == {"SUCCEEDED"}
    assert loop.aliases == {"champion": "2", "challenger": "2"}
    assert set(statuses) == {200}
