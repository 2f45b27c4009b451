"""A mutex that an MLflow registry keeps, for what has to be read, compared and set in one go.

MLflow moves an alias without asking where it pointed. What it does refuse, in every store and over HTTP, is a second
registered model of the same name; so whoever creates the registered model `<name>.alias-lock` holds the mutex, and
deleting it lets go.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from mlflow.exceptions import MlflowException

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import Registry

SUFFIX = ".alias-lock"
DEADLINE = 120.0  # seconds; a holder needs well under one, so hundreds may queue


@contextmanager
def hold(registry: Registry, name: str, run_id: str, deadline: float = DEADLINE) -> Iterator[None]:
    """Hold the mutex of a registered model for the length of a block.

    Args:
        registry: Registry that keeps it.
        name: Name of the registered model whose versions and aliases are being changed.
        run_id: Run that holds it, for others to see.
        deadline: Seconds to wait for other holders.

    Raises:
        UserError: It was not free in time; the message names the lock and its holder.
    """
    lock = name + SUFFIX
    token = uuid.uuid4().hex
    tags = {
        "penstock.token": token,
        "penstock.holder": f"run {run_id or '(none)'}, process {os.getpid()} on {socket.gethostname()}",
        "penstock.since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with _ending_in_order():
        try:
            with registry.speaking():
                _acquire(registry, lock, tags, deadline)
            yield
        finally:
            with registry.speaking():
                if (_tags(registry, lock) or {}).get("penstock.token") == token:
                    _release(registry, lock)


def _acquire(registry: Registry, lock: str, tags: dict[str, str], deadline: float) -> None:
    until = time.monotonic() + deadline
    pause = 0.05
    while True:
        try:
            registry.client.create_registered_model(
                lock, tags, "Held while an alias is compared and set; deleted afterwards."
            )
            return
        except MlflowException as error:
            # A store that refuses looks for the other one, and finds none where its holder lets go just then.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
        held = _tags(registry, lock)
        if held is None:
            continue
        if held.get("penstock.token") == tags["penstock.token"]:
            return  # the answer to our request got lost, and MLflow's client asked again
        if time.monotonic() > until:
            raise UserError(
                registry.component,
                "registry",
                f"{registry.uri} has the lock {lock!r}, held for over {deadline:g} s by "
                f"{held.get('penstock.holder', 'an unknown run')} since {held.get('penstock.since', 'some time')}",
                f"If that run is gone, delete the registered model {lock!r} and run the step again",
            )
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the waiting processes
        pause = min(pause * 1.5, 0.5)


def _release(registry: Registry, lock: str) -> None:
    try:
        registry.client.delete_registered_model(lock)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # the answer got lost, and MLflow's client asked again
            raise


def _tags(registry: Registry, lock: str) -> dict[str, str] | None:
    try:
        return dict(registry.client.get_registered_model(lock).tags)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


@contextmanager
def _ending_in_order() -> Iterator[None]:
    # By default SIGTERM ends Python without `finally`, and the lock would outlive its holder.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: Any = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
