"""What is written down about a local endpoint, and how it is changed: under a lock, whole, by compare-and-set."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError

KIND = "penstock.endpoint/1"
FILE = "endpoint.json"


@dataclass(frozen=True)
class Deployed:
    """A version as it is written down.

    Attributes:
        model: Where the model came from, to be shown.
        port: That its server listens on.
        token: Reference to the bearer token that it asks for; empty: it asks for none.
        settings: Variables of the server.
    """

    digest: str
    model: str
    created: str
    port: int
    token: str = ""
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """A local endpoint.

    Attributes:
        host, port: Of its proxy; port 0 until that has one.
        traffic, shadow, generation: As endpoint.Endpoint has them.
        routed: The generation that the proxy was last told of; where it is another, the proxy has to be told.
        note, note_generation: As endpoint.Note has them.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    versions: dict[str, Deployed] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    shadow: str = ""
    generation: int = 0
    routed: int = 0
    note: dict[str, Any] | None = None
    note_generation: int = 0

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"


class Book:
    """The endpoint.json of one folder.

    Args:
        folder: The endpoint's.
        component: Component that uses it, for errors.
    """

    def __init__(self, folder: Path, component: str) -> None:
        self._folder, self._component = folder, component

    def read(self) -> State | None:
        """Return what is written; None where nothing is.

        Raises:
            UserError: It cannot be read.
        """
        path = self._folder / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("kind") != KIND:
                raise ValueError("it is of another kind")
            versions = {name: Deployed(**each) for name, each in found.pop("versions").items()}
            return State(versions=versions, **found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                self._component, "endpoint", f"{path} cannot be read ({error})", "Remove the folder and deploy anew"
            ) from None

    def write(self, state: State) -> State:
        """Write it in place of what was there, and return it. The caller holds the lock."""
        unfinished = self._folder / f"{FILE}.unfinished"
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump({"kind": KIND, **asdict(state)}, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._folder / FILE)
        return state


@contextlib.contextmanager
def lock(path: Path, seconds: float, component: str) -> Iterator[None]:
    """Hold a lock on a file for the length of a block; the kernel lets go of it should this process be killed.

    Raises:
        UserError: Others held it for all of the seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserError(
                        component,
                        "endpoint",
                        f"another process has held {path} for {seconds:g} s",
                        "Run the step again when that one is done",
                    ) from None
                time.sleep(random.uniform(0.005, 0.03))  # noqa: S311 - spreads those that wait
        yield
    finally:
        os.close(descriptor)
