"""An endpoint, and what a platform has to do with one: deploy and roll_out know platforms by this alone."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.components._shared.errors import UserError

# What every platform takes: Azure ML's names are the shortest, a label of DNS is the strictest.
_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")


class Changed(Exception):
    """An endpoint is no longer as its caller saw it: someone else was there in between."""


class Unreachable(Exception):
    """A version does not answer; the message says how it failed."""


@dataclass(frozen=True)
class Candidate:
    """A model on its way to an endpoint.

    Attributes:
        folder: Sealed model folder.
        uri: Where the platform that runs the step keeps it, such as gs://BUCKET/FOLDER; a path on a laptop.
        digest: SHA-256 of its manifest, which names every file with its own.
        framework: Framework that it was trained with.
        example: Body of a request to `/invocations` for the model's own example.
    """

    folder: Path
    uri: str
    digest: str
    framework: str
    example: bytes

    @property
    def version(self) -> str:
        """Name of its version at any endpoint: the same for the same model, and one that every platform takes."""
        return f"v{self.digest[:12]}"


@dataclass(frozen=True)
class Version:
    """A model at an endpoint.

    Attributes:
        name: As Candidate.version has it.
        digest: As Candidate.digest has it; as much of it as the platform remembers.
        url: Where this version alone is asked; empty where the platform has no such place.
    """

    name: str
    digest: str
    url: str = ""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as it is at one moment.

    Attributes:
        url: Where it is asked.
        versions: By name.
        traffic: Per cent of the requests by version, 100 in all; without the versions that get none. Empty before the
            first version gets all.
        shadow: Version that gets copies of the requests and whose answers nobody sees; empty: none.
        generation: Changes with traffic and shadow, at KServe also with a version that comes or goes; not with a note.
    """

    name: str
    url: str
    versions: Mapping[str, Version]
    traffic: Mapping[str, int]
    shadow: str
    generation: str


@dataclass(frozen=True)
class Reading:
    """What a version has counted by some moment; the difference of two is what happened in between.

    Attributes:
        requests: Requests for predictions by the status that they were answered with.
        seconds: Their latencies: number of those up to each bound in seconds, ascending, the last bound infinite.
        outputs: Predictions: by name of the output, number of those up to each bound, as above.
        labels: Rows by the class that was predicted.
        quantiles: Latencies in seconds by their quantile, such as 0.99, where the platform tells them and no histogram:
            of several minutes the largest that any of them had, which that of all together never exceeds. No difference
            of two readings: those since the `since` that was asked for.
    """

    requests: Mapping[int, float] = field(default_factory=dict)
    seconds: tuple[tuple[float, float], ...] = ()
    outputs: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    labels: Mapping[str, float] = field(default_factory=dict)
    quantiles: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """What is written down at an endpoint about its rollout.

    Attributes:
        document: JSON; None: nothing is.
        generation: Changes with every writing.
    """

    document: dict[str, Any] | None
    generation: str


class Backend(Protocol):
    """A platform, as one step uses it. Every call ends within a deadline of its own.

    Attributes:
        measures: Metrics of measure.METRICS that it can give; a gate that names others is refused.
        shadows: Whether it can copy requests to a version.
        lag: Seconds after which a request is in a reading, at most; 0: at once.
    """

    measures: frozenset[str]
    shadows: bool
    lag: float

    def get(self, endpoint: str) -> Endpoint | None:
        """Return the endpoint as it is; None if there is none."""
        ...

    def create_or_update(self, endpoint: str, model: Candidate) -> Endpoint:
        """Let the model be a version of the endpoint, ready to answer, and return the endpoint.

        It gets no traffic. What is there already, or was left half-way by a call that was killed, is taken up; of calls
        that race, one makes the version and the others wait for it.

        Raises:
            UserError: It did not become ready; then nothing of it is left.
        """
        ...

    def smoke(self, endpoint: str, version: str, model: Candidate) -> list[dict[str, Any]]:
        """Return what the version alone predicts for the model's example, a record a row, with or without traffic.

        Raises:
            Unreachable: It answers with an error, or not at all.
        """
        ...

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], shadow: str, generation: str) -> Endpoint:
        """Set traffic and shadow in one go, without failing a request, and return the endpoint as it then is.

        Args:
            traffic: Per cent by version, 100 in all.
            generation: That of the endpoint as the caller saw it.

        Raises:
            Changed: The endpoint has another generation by now; it is left as it is.
            UserError: There is no such version.
        """
        ...

    def reading(self, endpoint: str, version: str, since: datetime.datetime) -> Reading:
        """Return what the version has counted since it started, or since any moment up to `since`.

        A platform that counts by the minute begins with the first whole one after `since`: none that was counted then
        was answered before.

        Raises:
            Unreachable: It does not tell.
        """
        ...

    def answers(self, endpoint: str, version: str, since: datetime.datetime) -> Any:
        """Return what the version has answered since then, as an Arrow table.

        Its columns are `request_id`, `row`, `prediction` and, of a classifier, `probability_CLASS`; see
        docs/serving.md. What is not written down yet is not in it. Asked for only where `measures` has agreement.

        Raises:
            Unreachable: It cannot be read.
        """
        ...

    def remove(self, endpoint: str, version: str) -> bool:
        """Let the version be gone, its requests answered; return whether it was there.

        An empty version stands for the endpoint with all of them.

        Raises:
            UserError: It gets traffic, or is the shadow.
        """
        ...

    def note(self, endpoint: str) -> Note:
        """Return what is written down about a rollout of the endpoint."""
        ...

    def write_note(self, endpoint: str, document: Mapping[str, Any] | None, generation: str) -> Note:
        """Write that down in place of what was there; None: nothing any more.

        Raises:
            Changed: Another has written since `generation` was read; of those that race, one wins.
        """
        ...


def check_endpoint_name(name: str, component: str) -> None:
    """Refuse a name that not every platform would take."""
    if not _NAME.fullmatch(name):
        raise UserError(
            component,
            "endpoint",
            f"{name!r} is no name of an endpoint",
            "Use 3 to 32 small letters, digits and hyphens, a letter first, such as taxi-tips",
        )


def check_traffic(traffic: Mapping[str, Any], component: str) -> dict[str, int]:
    """Return whole numbers per cent by version, those that get nothing left out.

    Raises:
        UserError: They are not from 0 to 100, or not 100 in all.
    """
    shares: dict[str, int] = {}
    for version, share in traffic.items():
        is_number = isinstance(share, int | float) and not isinstance(share, bool) and math.isfinite(share)
        if not is_number or share != int(share) or not 0 <= share <= 100:
            raise UserError(
                component, "traffic", f"{version} gets {share!r}", "Give whole numbers per cent, from 0 to 100"
            )
        if share:
            shares[version] = int(share)
    if sum(shares.values()) != 100:
        raise UserError(
            component, "traffic", f"it is {sum(shares.values())} per cent in all", "Let the shares add up to 100"
        )
    return shares
