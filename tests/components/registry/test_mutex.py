from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import Registry, open_registry
from penstock.components.registry.mutex import hold

HOLDER = """
import sys, time
from penstock.components._shared.mlflow_registry import open_registry
from penstock.components.registry.mutex import hold
with hold(open_registry(sys.argv[1], "register"), "tips", "run-1"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def opened(registry: str) -> Registry:
    return open_registry(registry, "register")


def names(opened: Registry) -> list[str]:
    return [model.name for model in opened.client.search_registered_models()]


def holder(registry: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, registry], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_is_there_during_the_block_and_gone_after_it(opened: Registry) -> None:
    with hold(opened, "tips", "run-1"):
        assert names(opened) == ["tips.alias-lock"]
    assert names(opened) == []


def test_failing_block_lets_go(opened: Registry) -> None:
    with pytest.raises(ZeroDivisionError), hold(opened, "tips", "run-1"):
        _ = 1 / 0
    assert names(opened) == []


def test_locks_of_different_models_do_not_wait_for_each_other(opened: Registry) -> None:
    with hold(opened, "tips", "run-1"), hold(opened, "fares", "run-2", deadline=0.1):
        assert names(opened) == ["fares.alias-lock", "tips.alias-lock"]


def test_second_holder_waits_for_the_first(opened: Registry) -> None:
    order = []

    def second() -> None:
        with hold(opened, "tips", "run-2"):
            order.append("second")

    with hold(opened, "tips", "run-1"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_holder_that_lets_go_while_the_store_refuses_another_is_followed(
    opened: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.client.create_registered_model("tips.alias-lock")
    found = SqlAlchemyStore.get_registered_model

    def late(store: SqlAlchemyStore, name: str) -> object:
        monkeypatch.undo()
        store.delete_registered_model(name)
        return found(store, name)

    monkeypatch.setattr(SqlAlchemyStore, "get_registered_model", late)  # asked by the store's own create
    with hold(opened, "tips", "run-2", deadline=5):
        assert opened.client.get_registered_model("tips.alias-lock").tags["penstock.holder"].startswith("run run-2,")
    assert names(opened) == []


def test_a_lock_that_went_while_it_was_let_go_is_no_failure(opened: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = SqlAlchemyStore.delete_registered_model

    def twice(store: SqlAlchemyStore, name: str) -> None:  # as a client does whose first answer got lost
        delete(store, name)
        delete(store, name)

    with hold(opened, "tips", "run-1"):
        monkeypatch.setattr(SqlAlchemyStore, "delete_registered_model", twice)
    assert names(opened) == []


def test_killed_holder_is_named_with_the_way_out(opened: Registry, registry: str) -> None:
    process = holder(registry)
    process.kill()
    process.communicate()
    with pytest.raises(UserError) as caught, hold(opened, "tips", "run-2", deadline=0.2):
        pytest.fail("the lock is held")
    message = str(caught.value)
    assert "has the lock 'tips.alias-lock', held for over 0.2 s by run run-1, process" in message
    assert f"process {process.pid} on " in message
    assert "delete the registered model 'tips.alias-lock' and run the step again" in message
    opened.client.delete_registered_model("tips.alias-lock")
    with hold(opened, "tips", "run-2", deadline=0.2):
        pass


def test_terminated_holder_lets_go(opened: Registry, registry: str) -> None:
    process = holder(registry)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
    assert names(opened) == []


def test_handler_of_sigterm_is_restored(opened: Registry) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with hold(opened, "tips", "run-1"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_lock_that_someone_else_took_over_is_left_to_them(opened: Registry) -> None:
    with hold(opened, "tips", "run-1"):
        opened.client.delete_registered_model("tips.alias-lock")
        opened.client.create_registered_model("tips.alias-lock", {"penstock.token": "theirs"})
    assert names(opened) == ["tips.alias-lock"]


def test_lock_whose_creation_was_answered_twice_is_ours(opened: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    create = opened.client.create_registered_model

    def answer_lost(*arguments: object) -> object:
        create(*arguments)
        return create(*arguments)  # what MLflow's client does when the first answer never comes

    monkeypatch.setattr(opened.client, "create_registered_model", answer_lost)
    with hold(opened, "tips", f"process-{os.getpid()}", deadline=0.1):
        assert names(opened) == ["tips.alias-lock"]
