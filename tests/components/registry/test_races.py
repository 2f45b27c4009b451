from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import Registry, open_registry
from penstock.components.registry.register import register

Make = Callable[..., Path]
Outcome = tuple[str, str]

# The server holds all the modules of this one; its children start in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["penstock.components.registry.register"])


def contend(barrier: Barrier, outcomes: Any, model: Path, registry: str, run_id: str, expected: str) -> None:
    barrier.wait(60)
    try:
        won = register(
            model, {"auc": 0.7}, model_name="tips", registry=registry, run_id=run_id, expected_version=expected
        )
        outcomes.put(("won", won.version))
    except UserError as error:
        outcomes.put(("lost" if "champion of tips is now" in str(error) else "failed", str(error)))
    except BaseException as error:
        outcomes.put(("failed", repr(error)))


def race(models: list[Path], registry: str, runs: list[str], expected: str) -> list[Outcome]:
    barrier, outcomes = PROCESSES.Barrier(len(models)), PROCESSES.Queue()
    processes = [
        PROCESSES.Process(target=contend, args=(barrier, outcomes, model, registry, run, expected))
        for model, run in zip(models, runs, strict=True)
    ]
    for process in processes:
        process.start()
    results = [outcomes.get(timeout=200) for _ in processes]
    for process in processes:
        process.join()
    return results


def check_one_winner(results: list[Outcome], opened: Registry) -> None:
    client = opened.client
    assert [text for outcome, text in results if outcome == "failed"] == []
    [winner] = [version for outcome, version in results if outcome == "won"]
    assert opened.aliases("tips") == {"champion": winner}
    versions = client.search_model_versions("name = 'tips'")
    assert sorted(int(version.version) for version in versions) == list(range(1, len(results) + 1))
    states = {str(version.version): version.tags["penstock.alias.champion"] for version in versions}
    assert states.pop(winner) == "set"
    assert set(states.values()) == {f"not set: another run had made it version {winner}"}
    assert [model.name for model in client.search_registered_models()] == ["tips"]


@pytest.mark.parametrize("racers", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_of_racing_registrations_exactly_one_becomes_champion(make_model: Make, tmp_path: Path, racers: int) -> None:
    registry = f"sqlite:///{tmp_path}/new/mlflow.db"  # its tables are not there yet either
    models = [make_model(f"model-{i}", weights=str(i)) for i in range(racers)]
    results = race(models, registry, [f"run-{i}" for i in range(racers)], expected="")
    check_one_winner(results, open_registry(registry, "test"))


def test_attempts_of_one_step_at_the_same_time_make_one_version(make_model: Make, registry: str) -> None:
    results = race([make_model()] * 4, registry, ["run-1"] * 4, expected="any")
    assert results == [("won", "1")] * 4
    client = open_registry(registry, "test").client
    assert len(client.search_model_versions("name = 'tips'")) == 1
    [experiment] = [found for found in client.search_experiments() if found.name == "penstock"]
    assert len(client.search_runs([experiment.experiment_id])) == 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Run MLflow's own tracking server."""
    pytest.importorskip("flask", reason="mlflow-skinny alone has no server")
    pytest.importorskip("uvicorn", reason="mlflow-skinny alone has no server")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        f"{tmp_path}/files",
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 90
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.slow
def test_one_wins_on_a_tracking_server_too(
    make_model: Make, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    models = [make_model(f"model-{i}", weights=str(i)) for i in range(8)]
    results = race(models, server.replace("://", "://ann:canary@"), [f"run-{i}" for i in range(8)], expected="")
    opened = open_registry(server, "test")
    check_one_winner(results, opened)
    (tmp_path / "fetched").mkdir()
    fetched = opened.folder("tips", "1", tmp_path / "fetched")
    assert (fetched / "manifest.json").read_bytes() in [(model / "manifest.json").read_bytes() for model in models]
    versions = opened.client.search_model_versions("name = 'tips'")
    runs = [opened.client.get_run(version.run_id) for version in versions]
    assert "canary" not in repr([versions, [run.to_dictionary() for run in runs]])
