from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import open_registry
from penstock.components.registry.entry import Registered
from penstock.components.registry.register import register

Make = Callable[..., Path]


def client(uri: str) -> MlflowClient:
    return open_registry(uri, "test").client


def refused(model: Path, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        register(model, {"auc": 0.7}, **{"model_name": "tips", **given})
    message = str(caught.value)
    assert message.startswith("register: ")
    assert "\n" not in message
    return message


def test_first_registration_becomes_version_1_and_the_champion(make_model: Make, registry: str) -> None:
    registered = register(make_model(), {"auc": 0.7}, model_name="tips", registry=registry)
    assert registered == Registered(version="1", uri="models:/tips/1", previous_version="")
    assert client(registry).get_registered_model("tips").aliases == {"champion": 1}


def test_version_carries_its_lineage(
    make_model: Make, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "penstock/tabular@sha256:abc")
    schema = tmp_path / "schema"
    schema.write_text('feature { name: "fare" }')
    register(
        make_model(),
        {"auc": 0.7, "rows": 100, "display_name": "metrics"},
        model_name="tips",
        schema=schema,
        registry=registry,
        reason="auc 0.7 >= 0.6",
        run_id="run-1",
        spec_sha256="s" * 64,
        git_commit="c" * 40,
    )
    version = client(registry).get_model_version("tips", "1")
    tags = {name.removeprefix("penstock."): value for name, value in version.tags.items()}
    assert tags.pop("model_sha256") == hashlib.sha256((tmp_path / "model" / "manifest.json").read_bytes()).hexdigest()
    assert tags.pop("penstock")
    assert tags == {
        "train_fingerprint": "train-print",
        "eval_fingerprint": "eval-print",
        "schema_sha256": hashlib.sha256(schema.read_bytes()).hexdigest(),
        "framework": "xgboost",
        "spec_sha256": "s" * 64,
        "git_commit": "c" * 40,
        "image": "penstock/tabular@sha256:abc",
        "run_id": "run-1",
        "reason": "auc 0.7 >= 0.6",
        "replaces": "",
        "alias.champion": "set",
    }
    run = client(registry).get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"auc": 0.7, "rows": 100.0}
    assert run.data.params == {
        "framework": "xgboost",
        "task": "binary",
        "target": "big_tip",
        "seed": "7",
        "hyperparameters.eta": "0.1",
        "hyperparameters.tree.depth": "3",
    }
    assert [file.path for file in client(registry).list_artifacts(version.run_id, "schema")] == ["schema/schema"]


def test_source_is_the_sealed_folder_byte_for_byte(make_model: Make, registry: str, tmp_path: Path) -> None:
    model = make_model()
    register(model, {}, model_name="tips", registry=registry)
    (tmp_path / "fetched").mkdir()
    fetched = open_registry(registry, "test").folder("tips", "1", tmp_path / "fetched")
    files = {path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    assert {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()} == files
    assert all((fetched / file).read_bytes() == (model / file).read_bytes() for file in files)


def test_next_version_takes_the_alias_and_names_its_predecessor(make_model: Make, registry: str) -> None:
    register(make_model(weights="1"), {}, model_name="tips", registry=registry, run_id="a")
    registered = register(make_model(weights="2"), {}, model_name="tips", registry=registry, run_id="b")
    assert registered == Registered("2", "models:/tips/2", "1")
    assert client(registry).get_registered_model("tips").aliases == {"champion": 2}


def test_retried_step_returns_the_version_that_is_there(make_model: Make, registry: str) -> None:
    register(make_model(weights="1"), {}, model_name="tips", registry=registry, run_id="a")
    first = register(make_model(weights="2"), {}, model_name="tips", registry=registry, run_id="b")
    assert register(make_model(weights="2"), {}, model_name="tips", registry=registry, run_id="b") == first
    assert len(client(registry).search_model_versions("name = 'tips'")) == 2


def test_retry_after_a_newer_champion_does_not_take_the_alias_back(make_model: Make, registry: str) -> None:
    first = register(make_model(weights="1"), {}, model_name="tips", registry=registry, run_id="a")
    register(make_model(weights="2"), {}, model_name="tips", registry=registry, run_id="b")
    assert register(make_model(weights="1"), {}, model_name="tips", registry=registry, run_id="a") == first
    assert client(registry).get_registered_model("tips").aliases == {"champion": 2}


def test_retry_of_a_loser_loses_again(make_model: Make, registry: str) -> None:
    register(make_model(weights="1"), {}, model_name="tips", registry=registry, run_id="a")
    for _ in range(2):
        refused(make_model(weights="2"), registry=registry, run_id="b", expected_version="")
    refused(make_model(weights="2"), registry=registry, run_id="b", expected_version="any")
    assert len(client(registry).search_model_versions("name = 'tips'")) == 2


def test_same_model_of_another_run_is_another_version(make_model: Make, registry: str) -> None:
    model = make_model()
    register(model, {}, model_name="tips", registry=registry, run_id="a")
    assert register(model, {}, model_name="tips", registry=registry, run_id="b").version == "2"


def test_outdated_expectation_leaves_the_version_without_the_alias(make_model: Make, registry: str) -> None:
    for run in "abc":
        register(make_model(weights=run), {}, model_name="tips", registry=registry, run_id=run)
    message = refused(make_model(weights="d"), registry=registry, run_id="d", expected_version="2")
    assert message == (
        "register: alias: champion of tips is now version 3, not version 2: this model is version 4, "
        "without the alias. Evaluate against it and register again."
    )
    assert client(registry).get_registered_model("tips").aliases == {"champion": 3}
    tags = client(registry).get_model_version("tips", "4").tags
    assert tags["penstock.alias.champion"] == "not set: another run had made it version 3"


def test_expecting_no_version_yet_is_met_by_an_empty_registry_only(make_model: Make, registry: str) -> None:
    model = make_model()
    assert register(model, {}, model_name="tips", registry=registry, run_id="a", expected_version="").version == "1"
    assert "now version 1, not no version" in refused(model, registry=registry, run_id="b", expected_version="")


def test_challenger_leaves_the_champion_alone(make_model: Make, registry: str) -> None:
    register(make_model(weights="1"), {}, model_name="tips", registry=registry, run_id="a")
    registered = register(
        make_model(weights="2"), {}, model_name="tips", registry=registry, alias="challenger", run_id="b"
    )
    assert registered.previous_version == ""
    assert client(registry).get_registered_model("tips").aliases == {"champion": 1, "challenger": 2}


def test_empty_alias_moves_none(make_model: Make, registry: str) -> None:
    assert register(make_model(), {}, model_name="tips", registry=registry, alias="").version == "1"
    assert client(registry).get_registered_model("tips").aliases == {}


def test_no_lock_is_left(make_model: Make, registry: str) -> None:
    register(make_model(weights="1"), {}, model_name="tips", registry=registry)
    refused(make_model(weights="2"), registry=registry, expected_version="9")
    assert [model.name for model in client(registry).search_registered_models()] == ["tips"]


def test_registry_of_the_local_run_folder_is_the_default(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PENSTOCK_ROOT", str(tmp_path / "root"))
    register(make_model(), {}, model_name="tips")
    version = client(f"sqlite:///{tmp_path}/root/registry/mlflow.db").get_model_version("tips", "1")
    assert version.source.startswith(f"file://{tmp_path}/root/registry/artifacts/")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("variable", ["MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"])
def test_registry_of_the_environment_goes_before_the_local_one(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("PENSTOCK_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv(variable, f"sqlite:///{tmp_path}/chosen.db")
    register(make_model(), {}, model_name="tips")
    assert client(f"sqlite:///{tmp_path}/chosen.db").get_model_version("tips", "1")
    assert not (tmp_path / "root").exists()


def test_no_registry_configured_says_how_to_give_one(make_model: Make) -> None:
    message = refused(make_model())
    assert "no registry is given, and neither MLFLOW_REGISTRY_URI nor MLFLOW_TRACKING_URI is set" in message
    assert "sqlite:////data/mlflow.db" in message


@pytest.mark.parametrize(
    "uri", ["registry", "ftp://host/x", "http://", "sqlite:///", "sqlite://x", "postgresql://u:p@h/d"]
)
def test_uri_of_an_unknown_form_is_refused(make_model: Make, uri: str) -> None:
    message = refused(make_model(), registry=uri)
    assert "sqlite:////data/mlflow.db" in message
    assert "u:p@" not in message


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b", "../x", "a'b", " a", "x" * 300, "a\nb"])
def test_invalid_model_name_is_refused_before_anything_is_written(make_model: Make, tmp_path: Path, name: str) -> None:
    assert "register: model_name: " in refused(
        make_model(), model_name=name, registry=f"sqlite:///{tmp_path}/new/mlflow.db"
    )
    assert not (tmp_path / "new").exists()


def test_unknown_platform_lists_known_ones(make_model: Make) -> None:
    assert refused(make_model(), platform="vertexx").endswith("Known are mlflow.")


def test_unknown_alias_lists_known_ones(make_model: Make, registry: str) -> None:
    assert "Known are champion, challenger" in refused(make_model(), alias="champoin", registry=registry)


def test_expected_version_that_is_no_version_is_refused(make_model: Make, registry: str) -> None:
    assert "expected_version: 'latest' is not a version" in refused(
        make_model(), expected_version="latest", registry=registry
    )


def test_altered_model_is_refused(make_model: Make, registry: str) -> None:
    model = make_model()
    (model / "data" / "weights.json").write_text("[9, 9]")
    assert "data/weights.json was altered" in refused(model, registry=registry)


def test_missing_schema_file_is_refused(make_model: Make, registry: str, tmp_path: Path) -> None:
    assert "register: schema: " in refused(make_model(), schema=tmp_path / "none", registry=registry)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metric_that_is_not_finite_is_refused(make_model: Make, registry: str, value: float) -> None:
    with pytest.raises(UserError, match="metrics: auc is"):
        register(make_model(), {"auc": value}, model_name="tips", registry=registry)


def test_place_that_cannot_be_written_is_one_line(make_model: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(make_model(), registry=f"sqlite:///{tmp_path}/file/mlflow.db")


def test_database_that_took_the_place_of_another_is_set_up_anew(make_model: Make, registry: str) -> None:
    register(make_model(), {}, model_name="tips", registry=registry)
    database = Path(registry.removeprefix("sqlite:///"))
    database.rename(database.with_name("old.db"))
    registered = subprocess.run(  # a process that knows nothing of the old one
        [
            sys.executable,
            "-c",
            f"from penstock.components._shared.mlflow_registry import open_registry as o; "
            f"print(o({registry!r}, 'test').aliases('tips'))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert registered.stdout == "{}\n"
    assert registered.stderr == ""


def test_file_that_is_no_database_is_one_line(make_model: Make, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are notes, not a database" * 100)
    assert "notes.db refused a call" in refused(make_model(), registry=f"sqlite:///{tmp_path}/notes.db")


def test_server_that_is_down_is_one_line_without_the_password(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")  # restored afterwards
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = refused(make_model(), registry=f"http://ann:canary%21@127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port} does not answer (Connection refused)" in message
    assert "canary" not in message
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "canary!"


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def test_server_that_stalls_is_given_up(make_model: Make, monkeypatch: pytest.MonkeyPatch, silent_server: int) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    message = refused(make_model(), registry=f"http://127.0.0.1:{silent_server}")
    assert "does not answer (timed out)" in message


def test_component_hands_over_metrics_and_schema(make_model: Make, registry: str, tmp_path: Path) -> None:
    from kfp import dsl

    from penstock.components import register as component

    (tmp_path / "schema").write_text("")
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    metrics.log_metric("auc", 0.7)
    model, schema = dsl.Model(uri=str(make_model())), dsl.Artifact(uri=str(tmp_path / "schema"))
    found = component.python_func(
        model=model,
        metrics=metrics,
        schema=schema,
        model_name="tips",
        registry=registry,
        run_id="a",
        expected_version="",
    )
    assert found == ("1", "models:/tips/1", "")
    found = component.python_func(model=model, metrics=metrics, model_name="tips", registry=registry, run_id="b")
    assert found == ("2", "models:/tips/2", "1")
    version = client(registry).get_model_version("tips", "1")
    assert client(registry).get_run(version.run_id).data.metrics == {"auc": 0.7}
