"""An OpenLineage backend learns of a run and its tasks, and nothing that becomes of the backend matters to the run."""

import dataclasses
import datetime
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local import lineage
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State, TaskRecord, Values

pytest.importorskip("openlineage.client")

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def write(content: str, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(content)


@component
def read(data: Input[Dataset], fail: bool = False):
    if fail:
        raise ValueError("too bad")


@component
def count(n: int) -> int:
    return n + 1


@dsl.pipeline(name="passing")
def passing(content: str = "canary-7c1e", fail: bool = False):
    read(data=write(content=content).outputs["data"], fail=fail)


@dsl.pipeline(name="looping")
def looping():
    with dsl.ParallelFor([1, 2, 3]) as n:
        count(n=n)


class Backend(ThreadingHTTPServer):
    """A backend that keeps what it is sent and answers with the statuses given, then with 201."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = [*statuses]
        self.headers = headers or {}
        self.bodies: list[bytes] = []
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.go = threading.Event()
        self.go.set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [checked(json.loads(body)) for body in self.bodies]


class _Handler(BaseHTTPRequestHandler):
    server: "Backend"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.go.wait(20)
        status = self.server.statuses.pop(0) if self.server.statuses else 201
        self.server.requests.append(dict(self.headers))
        self.server.paths.append(self.path)
        if status < 400:
            self.server.bodies.append(body)
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    made: list[Backend] = []

    def make(*statuses: int, **fields: Any) -> Backend:
        made.append(Backend(*statuses, **fields))
        return made[-1]

    yield make
    for one in made:
        one.go.set()
        one.shutdown()
        one.server_close()


def checked(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event that is as OpenLineage's schema 2-0-2 wants it."""
    assert event["schemaURL"].startswith("https://openlineage.io/spec/2-")
    assert {"eventTime", "producer", "run", "job"} <= event.keys()
    assert event["eventType"] in ("START", "COMPLETE", "FAIL", "ABORT")
    assert datetime.datetime.fromisoformat(event["eventTime"]).tzinfo
    assert uuid.UUID(event["run"]["runId"])
    facets = {**event["run"]["facets"], **event["job"]["facets"]}
    assert all(facet["_producer"] == event["producer"] and ":" in facet["_schemaURL"] for facet in facets.values())
    if parent := facets.get("parent"):
        assert uuid.UUID(parent["run"]["runId"])
        assert {"namespace", "name"} <= parent["job"].keys()
    if error := facets.get("errorMessage"):
        assert {"message", "programmingLanguage"} <= error.keys()
    assert facets["processing_engine"]["version"]
    assert facets["jobType"]["processingType"] == "BATCH"
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"]
        assert dataset["name"]
    return event


def reported(spec: Path, root: Path, one: lineage.Lineage, parameters: dict[str, Any] | None = None) -> RunRecord:
    return local.run(spec, parameters or {}, root=root, jobs=2, observe=one)


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["job"]["name"], event["eventType"]) for event in events]


def record(*tasks: TaskRecord, **fields: Any) -> RunRecord:
    defaults: dict[str, Any] = {"state": State.RUNNING, "started": "2026-03-01T12:00:00+00:00", "seconds": 1.0}
    return RunRecord("run-1", "p", "/runs/run-1", "5" * 64, {}, **{**defaults, **fields}, tasks=tasks)


def test_a_run_and_its_tasks_are_reported_from_start_to_end(compiled, backend, tmp_path: Path) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {})
    run = reported(compiled(passing), tmp_path, one)
    assert one.close() is None
    assert kinds(there.events) == [
        ("passing", "START"),
        ("passing.write", "START"),
        ("passing.write", "COMPLETE"),
        ("passing.read", "START"),
        ("passing.read", "COMPLETE"),
        ("passing", "COMPLETE"),
    ]
    assert set(there.paths) == {"/api/v1/lineage"}
    first, *_, last = there.events
    assert first["run"]["runId"] == last["run"]["runId"] == lineage.run_uuid(run)
    assert "parent" not in first["run"]["facets"]
    assert first["run"]["facets"]["penstock_run"]["spec_sha256"] == run.spec_sha256
    for event in there.events[1:-1]:
        parent = event["run"]["facets"]["parent"]
        assert (parent["run"]["runId"], parent["job"]["name"]) == (lineage.run_uuid(run), "passing")
        assert parent["root"]["run"] == parent["run"]
        path = event["run"]["facets"]["penstock_run"]["task"]
        assert event["run"]["runId"] == lineage.task_uuid(lineage.run_uuid(run), path)


def test_what_a_task_gives_is_what_the_next_one_takes(compiled, backend, tmp_path: Path) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {})
    run = reported(compiled(passing), tmp_path, one)
    one.close()
    ended = {event["job"]["name"]: event for event in there.events if event["eventType"] == "COMPLETE"}
    [given] = ended["passing.write"]["outputs"]
    assert (given["namespace"], given["name"]) == ("file", f"{run.folder}/tasks/write/outputs/data")
    [taken] = ended["passing.read"]["inputs"]
    assert (taken["namespace"], taken["name"]) == (given["namespace"], given["name"])
    [begun] = [event for event in there.events if kinds([event]) == [("passing.read", "START")]]
    assert begun["inputs"] == ended["passing.read"]["inputs"]


def test_a_failure_is_reported_with_its_message(compiled, backend, tmp_path: Path) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {})
    reported(compiled(passing), tmp_path, one, {"fail": True})
    one.close()
    failed = [event for event in there.events if event["eventType"] == "FAIL"]
    assert [event["job"]["name"] for event in failed] == ["passing.read", "passing"]
    for event in failed:
        assert "too bad" in event["run"]["facets"]["errorMessage"]["message"]
    assert failed[0]["run"]["facets"]["penstock_run"]["exit_code"] == 1


def test_no_value_of_a_parameter_and_no_key_is_in_an_event(compiled, backend, tmp_path: Path) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {"OPENLINEAGE_API_KEY": "key-93ab", "OPENLINEAGE_ENDPOINT": "own/path"})
    reported(compiled(passing), tmp_path, one)
    assert one.close() is None
    assert there.bodies
    assert not [body for body in there.bodies if b"canary-7c1e" in body or b"key-93ab" in body]
    assert {request["Authorization"] for request in there.requests} == {"Bearer key-93ab"}
    assert set(there.paths) == {"/own/path"}


def test_what_was_stopped_is_aborted_and_what_never_began_is_not_reported(backend) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {})
    at_work = TaskRecord("a", "a", "container", state=State.RUNNING, log="tasks/a/log.txt")
    waiting = TaskRecord("b", "b", "container")
    one(record(at_work, waiting))
    one(record(dataclasses.replace(at_work, retries=("it broke",)), waiting))
    stopped = (dataclasses.replace(task, state=State.CANCELLED) for task in (at_work, waiting))
    one(record(*stopped, state=State.CANCELLED, error="ended by SIGTERM"))
    assert one.close() is None
    assert kinds(there.events) == [("p", "START"), ("p.a", "START"), ("p.a", "ABORT"), ("p", "ABORT")]


def test_iterations_are_runs_of_one_job(compiled, backend, tmp_path: Path) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {"OPENLINEAGE_NAMESPACE": "team"})
    reported(compiled(looping), tmp_path, one)
    one.close()
    counted = [event for event in there.events if event["job"]["name"].endswith(".count")]
    assert {event["job"]["name"] for event in counted} == {"looping.for-loop-2.count"}
    assert len({event["run"]["runId"] for event in counted}) == 3
    assert {event["job"]["namespace"] for event in there.events} == {"team"}


def test_a_resumed_run_has_a_uuid_of_its_own_and_the_same_run_the_same() -> None:
    first = record()
    assert lineage.run_uuid(first) == lineage.run_uuid(record(seconds=2.0, state=State.FAILED))
    assert lineage.run_uuid(first) != lineage.run_uuid(record(resumed=("2026-03-02T12:00:00+00:00",)))
    assert lineage.run_uuid(first) != lineage.run_uuid(record(started="2026-03-01T12:00:01+00:00"))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("tasks/a/outputs/data", ("file", "/runs/run-1/tasks/a/outputs/data")),
        ("/data/trips", ("file", "/data/trips")),
        ("file:///data/trips", ("file", "/data/trips")),
        ("file://host/data", ("file://host", "/data")),
        ("s3://bucket/a/b/", ("s3://bucket", "a/b")),
        ("s3a://bucket/a?b#c", ("s3://bucket", "a?b#c")),
        ("s3://key:secret@bucket/a", ("s3://bucket", "a")),
        ("gs://bucket", ("gs://bucket", "/")),
        ("abfss://c@acc.dfs.core.windows.net/a/b", ("abfss://c@acc.dfs.core.windows.net", "a/b")),
        ("abfs://c:secret@acc.dfs.core.windows.net/a", ("abfss://c@acc.dfs.core.windows.net", "a")),
        ("wasbs://c@acc.blob.core.windows.net/a", ("wasbs://c@acc.blob.core.windows.net", "a")),
        ("hdfs://name:8020/a", ("hdfs://name:8020", "/a")),
        ("https://me:secret@host/a?token=secret#part", ("https://host", "/a")),
    ],
)
def test_datasets_are_named_by_openlineage_s_rules_and_without_secrets(uri: str, expected: tuple[str, str]) -> None:
    assert lineage.dataset_name(uri, "/runs/run-1") == expected


def test_the_same_dataset_is_named_once(backend) -> None:
    there = backend()
    one = lineage.Lineage(there.url, {})
    same = [ArtifactRecord("d", "system.Dataset", "s3://b/d"), ArtifactRecord("e", "system.Dataset", "s3://b/d")]
    at_work = TaskRecord("a", "a", "container", state=State.RUNNING, log="l", inputs=Values({}, {"data": same}))
    one(record(at_work))
    one.close()
    assert there.events[-1]["inputs"] == [{"namespace": "s3://b", "name": "d", "facets": {}, "inputFacets": {}}]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_passing_faults_are_tried_again(status: int, backend) -> None:
    there = backend(status, status)
    one = lineage.Lineage(there.url, {})
    one(record())
    one(record(state=State.SUCCEEDED))
    assert one.close() is None
    assert kinds(there.events) == [("p", "START"), ("p", "COMPLETE")]
    assert len(there.requests) == 4


def test_a_refusal_is_not_tried_again_and_costs_one_warning(backend) -> None:
    there = backend(403, 403)
    one = lineage.Lineage(there.url, {})
    one(record())
    one(record(state=State.SUCCEEDED))
    assert one.close() == f"--openlineage {there.url}: 2 of 2 events were not taken: HTTP status 403"
    assert len(there.requests) == 2


def test_a_backend_that_asks_to_wait_is_left_alone_for_so_long(backend) -> None:
    there = backend(503, headers={"Retry-After": "1"})
    one = lineage.Lineage(there.url, {})
    begin = time.monotonic()
    one(record())
    assert one.close() is None
    assert time.monotonic() - begin >= 1


def test_a_backend_that_is_not_there_costs_one_warning_and_no_secret(compiled, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = lineage.Lineage(f"http://me:secret@127.0.0.1:{port}/base?token=secret", {})
    begin = time.monotonic()
    assert reported(compiled(passing), tmp_path, one).state is State.SUCCEEDED
    assert one.close() == f"--openlineage http://127.0.0.1:{port}: 6 of 6 events were not taken: no connection"
    assert time.monotonic() - begin < 10


def test_a_backend_that_stalls_neither_slows_nor_keeps_the_run(
    compiled, backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "_LAST_WAIT", 0.3)
    there = backend()
    there.go.clear()
    one = lineage.Lineage(there.url, {})
    begin = time.monotonic()
    for number in range(1000):
        one(record(TaskRecord(f"t{number}", "t", "container", state=State.RUNNING, log="l")))
    warning = one.close()
    assert time.monotonic() - begin < 15  # it stalls for twenty
    assert warning == f"--openlineage {there.url}: 1001 of 1001 events were not taken: it does not answer in time"


def test_no_answer_within_the_deadline_is_a_passing_fault(backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "_DEADLINE", 0.2)
    there = backend()
    there.go.clear()
    one = lineage.Lineage(there.url, {})
    one(record())
    time.sleep(0.3)
    there.go.set()
    assert one.close() is None


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://me:secret@host", "http://", "http://[secret", ""])
def test_what_is_no_url_is_refused_before_anything_runs(url: str) -> None:
    with pytest.raises(PenstockError, match="give one such as http://localhost:5000") as refused:
        lineage.Lineage(url, {})
    assert "secret" not in str(refused.value)


def test_a_missing_client_ends_in_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client.transport.http", None)
    with pytest.raises(PenstockError, match=r"pip install 'penstock\[lineage\]'$"):
        lineage.Lineage("http://localhost:5000", {})


def test_the_environment_turns_it_on_and_off(backend) -> None:
    there = backend()
    assert lineage.configured(None, {}) is None
    assert lineage.configured(None, {"OPENLINEAGE_URL": there.url}) is not None
    assert lineage.configured(there.url, {"OPENLINEAGE_DISABLED": "True"}) is None


def test_the_client_is_not_imported_where_nobody_asks_for_it() -> None:
    code = "import sys; from penstock.compile._cli import watching; sys.exit('openlineage' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_command_reports_to_the_address_in_the_environment(
    backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from penstock.compile.cli import penstock

    there = backend()
    monkeypatch.setenv("OPENLINEAGE_URL", there.url)
    steps = Path(__file__).parents[2] / "user" / "steps.py"
    result = CliRunner().invoke(penstock, ["run", f"{steps}:choosing", "--root", str(tmp_path), "-p", "n=0"])
    assert result.exit_code == 0, result.output
    assert kinds(there.events)[-1] == ("choosing", "COMPLETE")
    assert "warning" not in result.stderr
