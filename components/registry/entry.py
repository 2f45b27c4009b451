"""What is registered, and what a kind of registry has to do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ANY = "any"


@dataclass(frozen=True)
class Entry:
    """A model on its way into a registry.

    Attributes:
        folder: Sealed model folder.
        digest: SHA-256 of its manifest, which names every file with its own; together with run_id it tells a retry
            from a new registration.
        schema: Schema file of the training data.
        statistics: Statistics file of the training data.
        parameters: What the model was trained with, as text by name.
        metrics: Finite numbers by name.
        lineage: Where the model comes from, as text by name.
        alias: Alias to move to it; empty: none.
        expected: Version that the alias has to point to: a version, "" for none yet, or "any" for the one it points to
            when registration starts.
    """

    name: str
    folder: Path
    digest: str
    run_id: str
    schema: Path | None
    statistics: Path | None
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    lineage: Mapping[str, str]
    reason: str
    alias: str
    expected: str


@dataclass(frozen=True)
class Registered:
    """A model in a registry.

    Attributes:
        version: Its version.
        uri: Its URI there, for example models:/tips/3.
        previous_version: Version that the alias pointed to before; empty if there was none.
    """

    version: str
    uri: str
    previous_version: str


class Backend(Protocol):
    """A kind of registry."""

    def add(self, entry: Entry, registry: str) -> Registered:
        """Record an entry in the registry at the URI `registry` and move its alias.

        Adding the same entry again, as a retried step does, returns the version that is there.

        Raises:
            UserError: The registry cannot be reached, or the alias has moved on; the version then stays without it.
        """
        ...

    def move(self, name: str, version: str, alias: str, expected: str, registry: str, run_id: str) -> Registered:
        """Point an alias of a registered model at a version, if it still points at the expected one.

        Args:
            expected: Version that the alias has to point to: a version, "" for none yet, or "any" for the one it points
                to when this starts.
            run_id: Run that moves it, for others to see.

        Raises:
            UserError: The registry cannot be reached, has no such version, or the alias has moved on.
        """
        ...

    def reference(self, name: str, alias: str, registry: str, statistics: Path) -> Registered:
        """Return the version that an alias points to; write the statistics of its training rows to `statistics`.

        Raises:
            UserError: The registry cannot be reached, the alias points nowhere, or the version has no statistics.
        """
        ...
