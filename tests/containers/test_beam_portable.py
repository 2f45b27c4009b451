"""Steps whose pipelines a job server on another machine runs, by workers on a third: containers that share a store."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset
from tests.components.spreading import hashed
from tests.containers.conftest import ROOT
from tests.containers.test_beam_evaluate import held

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

PORTS = ("train_set", "eval_set", "rejects")
SECRET = "a-secret-of-the-store"
JOB_SERVICE = ["python3", "/tests/beam_job_service.py", "8099"]
WORKER_POOL = ["python3", "-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", "50000"]
ROWS = "".join(f"{n},{n / 4},note {n % 9}\n" for n in range(900))


@pytest.fixture(scope="module")
def ran(built, tmp_path_factory) -> tuple[Path, dict[str, Any], str]:
    """What came of all steps, and what the job service said."""
    folder = tmp_path_factory.mktemp("portable")
    given, output, shared = (folder / name for name in ("given", "output", "shared"))
    for each in (given / "source", output, shared):
        each.mkdir(parents=True)
    for number, more in enumerate(["", "x,1,bad\n", ""]):
        (given / "source" / f"{number}.csv").write_text("id,fare,note\n" + ROWS + more)
    with network() as (name, gateway), store(gateway) as endpoint:
        reaches_store = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

        def start(machine: str, command: list[str], volumes: dict[Path, str], environment: dict[str, str]) -> str:
            line = ["docker", "run", "--detach", "--network", name, "--network-alias", machine, "--hostname", machine]
            line += [
                "--read-only",
                "--tmpfs",
                "/tmp:exec",
                "--cap-drop",
                "ALL",
                "--user",
                f"{os.getuid()}:{os.getgid()}",
            ]
            for path, place in {ROOT / "tests" / "containers": "/tests:ro", **volumes}.items():
                line += ["--volume", f"{path}:{place}"]
            for variable, value in {"_KFP_RUNTIME": "true", **environment}.items():
                line += ["--env", f"{variable}={value}"]
            return run([*line, built("beam").name, *command]).strip()

        machines = []
        try:
            machines.append(start("jobs", JOB_SERVICE, {}, {}))
            machines.append(start("workers", WORKER_POOL, {shared: "/shared"}, reaches_store))
            mine = {given: "/given:ro", output: "/output", shared: "/shared"}
            step = ["python3", "/tests/beam_portable.py", "/given", "/output"]
            machines.append(start("step", step, mine, reaches_store))
            code = run(["docker", "wait", machines[2]], timeout=1000).strip()
            logs = [run(["docker", "logs", machine], stderr=subprocess.STDOUT) for machine in machines]
        finally:
            run(["docker", "rm", "--force", *machines])
    assert code == "0", "\n".join(log[-6000:] for log in logs)
    return output, json.loads((output / "found.json").read_text()), logs[0]


def run(command: list[str], timeout: float = 60, stderr: int = subprocess.PIPE) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@contextlib.contextmanager
def network() -> Iterator[tuple[str, str]]:
    """A network without a way out, and the address of this machine in it."""
    name = f"penstock-{uuid.uuid4().hex[:12]}"
    run(["docker", "network", "create", "--internal", name])
    try:
        (found,) = json.loads(run(["docker", "network", "inspect", name]))
        yield name, found["IPAM"]["Config"][0]["Gateway"]
    finally:
        run(["docker", "network", "rm", name])


@contextlib.contextmanager
def store(address: str) -> Iterator[str]:
    """An S3 server for the machines of a network."""
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", address, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://{address}:{port}"
    finally:
        process.terminate()
        process.wait()


def test_files_are_read_by_workers_that_share_nothing_but_the_store(ran):
    output, found, _ = ran
    assert found["ingest.there"] == found["ingest.here"]
    assert found["ingest.here"]["bad_rows"] == 1
    for port in PORTS:
        assert hashed(output / "there" / port) == hashed(output / "here" / port)
        assert found[f"{port}.written"] == ["manifest.json"]
    assert len(open_dataset(output / "there" / "train_set", "test", "train_set").files) == 3


def test_statistics_are_those_of_the_step_s_own_process(ran):
    for name in ("statistics.pb", "schema.pbtxt", "anomalies.pbtxt"):
        direct, there = ((ran[0] / "validate" / engine / name).read_bytes() for engine in ("direct", "there"))
        assert there == direct
        assert direct or name == "anomalies.pbtxt"


def test_predictions_are_those_of_one_machine(ran):
    for name in ("predict", "rejects"):
        here, there = (hashed(ran[0] / name / engine) for engine in ("here", "there"))
        assert there == here
        assert here[1] > 1000 or name == "rejects"


def test_metrics_by_slice_are_those_of_the_step_s_own_process(ran):
    direct, there = (json.loads((ran[0] / f"evaluate-{engine}.json").read_text()) for engine in ("direct", "there"))
    held(direct["metrics"], there["metrics"], "all")
    (slices,), (others,) = (list(found["slices"].values()) for found in (direct, there))
    assert [part["rows"] for part in others["slices"]] == [part["rows"] for part in slices["slices"]]
    for part, other in zip(slices["slices"], others["slices"], strict=True):
        held(part["metrics"], other["metrics"], part["value"])
    assert there["curves"] == direct["curves"]


def test_rows_are_transformed_as_in_the_step_s_own_process(ran):
    for port in ("train", "eval"):
        direct, there = (ran[0] / "transform" / engine / port for engine in ("direct", "there"))
        assert hashed(there)[:3] == hashed(direct)[:3]
        assert hashed(there)[3] == hashed(direct)[3]
    vocabulary = "graph/transform_fn/assets/note"
    direct, there = (ran[0] / "transform" / engine / vocabulary for engine in ("direct", "there"))
    assert there.read_bytes() == direct.read_bytes()
    assert pq.read_schema(open_dataset(ran[0] / "transform" / "there" / "train", "t", "t").files[0]).names == [
        "fare",
        "id",
        "late",
        "note",
    ]


def test_nothing_is_left_where_machines_passed_it_on(ran):
    assert ran[1]["left"] == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("silent", "ingest: beam_options: no job server answers at job_endpoint 127.0.0.1:"),
        ("refusing", "no job server answers at job_endpoint 127.0.0.1:"),
        ("no workers", "ingest: beam_options: the pipeline on FlinkRunner failed: failed to connect to all addresses"),
        ("lost", "the pipeline on FlinkRunner failed: RuntimeError: Channel closed prematurely"),
        ("no address", "Option external_service_address is required for environment type EXTERNAL"),
        (
            "versions",
            "failed: RuntimeError: the workers have Python 3.13, not 3.9 as the step. Give workers",
        ),
        ("tensorflow", "transform: beam_options: TensorFlow reads no s3://"),
    ],
)
def test_what_goes_wrong_there_is_one_line(ran, what, words):
    said = ran[1][what]
    assert words in said
    assert "\n" not in said
    assert len(said) < 700


def test_a_step_that_is_told_to_end_cancels_its_pipeline(ran):
    ended = ran[1]["ended"]
    assert ended["code"] == 143
    assert ended["seconds"] < 10  # until the job server has it
    assert ended["states"] == ["CANCELLED"]


def test_no_secret_of_the_store_goes_to_the_job_server(ran):
    told = [line for line in ran[2].splitlines() if line.startswith("options of a job:")]
    assert len(told) > 8
    assert all("s3://data/tmp" in line or "/shared" in line for line in told)
    assert SECRET not in ran[2]
