"""The work of `deploy`, `undeploy` and `set_traffic`."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError, on_behalf_of
from penstock.components._shared.model import KIND, LEFT_BY_OTHERS
from penstock.components._shared.sealed import MANIFEST, sha256, unseal
from penstock.components.deployment.backends import connect
from penstock.components.deployment.endpoint import (
    Backend,
    Candidate,
    Changed,
    Endpoint,
    Unreachable,
    check_endpoint_name,
    check_traffic,
)

COMPONENT = "deploy"
TOLERANCE = 1e-6
_ATTEMPTS = 20  # to set traffic while others do


@dataclass(frozen=True)
class Deployed:
    """A version at an endpoint.

    Attributes:
        url: Where the endpoint is asked.
        traffic: Per cent of the requests that the version gets.
        current: Version that gets the most, which is this one if it is the first.
    """

    url: str
    version: str
    traffic: int
    current: str


def deploy(
    model: str | os.PathLike[str] | None,
    *,
    endpoint: str,
    model_uri: str = "",
    registered_model: str = "",
    registry: str = "",
    platform: str = "local",
    options: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Deployed:
    """Let a model be a version of an endpoint that is ready and has been tried, and return it.

    It is tried with its own example before it gets any traffic. The first version of an endpoint then gets all of it, a
    later one none. The same model is the same version, however often and by however many it is deployed.

    Args:
        model: Sealed model folder; None: the registered model.
        endpoint: Name of the endpoint.
        model_uri: Where the platform keeps the folder; empty: the path.
        registered_model: NAME@ALIAS or NAME/VERSION in the registry, in place of a folder.
        registry: URI of the MLflow registry; empty: the environment's, or the local run folder's.
        platform: Row of the table in backends.
        options: What the platform needs besides.
        tolerance: By which numbers may differ from what the model predicts here.

    Raises:
        UserError: An argument is wrong, the model was altered, does not become ready or predicts something else there;
            then the version is removed again, and traffic is as it was.
    """
    check_endpoint_name(endpoint, COMPONENT)
    backend = connect(platform, options or {}, COMPONENT)
    with _folder(model, registered_model, registry) as (folder, source):
        candidate = _candidate(folder, model_uri or source)
        version = candidate.version
        expected = _predicted(candidate)  # first, for what cannot be read here need not be started
        found = backend.create_or_update(endpoint, candidate)
        is_idle = not found.traffic.get(version) and found.shadow != version
        if is_idle and (problem := _tried(backend, endpoint, candidate, expected, tolerance)):
            with suppress(UserError):  # someone has given it traffic meanwhile
                backend.remove(endpoint, version)
            raise UserError(
                COMPONENT,
                "model",
                f"version {version} failed its smoke test before it got any traffic, and is removed: {problem}",
                "Mend the model, or widen the tolerance",
            )
        found = _first(backend, found, version)
    current = max(found.traffic, key=lambda name: found.traffic[name])
    return Deployed(found.url, version, found.traffic.get(version, 0), current)


def undeploy(
    *, endpoint: str, version: str = "", platform: str = "local", options: Mapping[str, Any] | None = None
) -> bool:
    """Remove a version that gets no traffic, or an endpoint with all versions, and return whether it was there.

    Args:
        version: Version to remove; empty: the endpoint.

    Raises:
        UserError: An argument is wrong, or the version gets traffic or is the shadow.
    """
    check_endpoint_name(endpoint, "undeploy")
    return connect(platform, options or {}, "undeploy").remove(endpoint, version)


def set_traffic(
    *,
    endpoint: str,
    traffic: Mapping[str, Any],
    platform: str = "local",
    options: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Give versions of an endpoint their shares, whatever those were, and return what they were.

    Args:
        traffic: Per cent by version, 100 in all.

    Raises:
        UserError: An argument is wrong, or there is no such endpoint or version.
    """
    component = "set_traffic"
    check_endpoint_name(endpoint, component)
    shares = check_traffic(traffic, component)
    backend = connect(platform, options or {}, component)
    for _ in range(_ATTEMPTS):
        found = existing(backend, endpoint, component)
        try:
            backend.set_traffic(endpoint, shares, found.shadow, found.generation)
        except Changed:
            continue
        return dict(found.traffic)
    raise UserError(component, "endpoint", f"{endpoint} is changed by others all the time", "Try again later")


def existing(backend: Backend, endpoint: str, component: str) -> Endpoint:
    """Return an endpoint.

    Raises:
        UserError: There is none of this name.
    """
    found = backend.get(endpoint)
    if found is None:
        raise UserError(component, "endpoint", f"there is no endpoint {endpoint}", "Deploy a model to it first")
    return found


@contextmanager
def _folder(model: str | os.PathLike[str] | None, registered_model: str, registry: str) -> Iterator[tuple[Path, str]]:
    """Yield the folder of a model, and where it comes from."""
    if (model is not None) == bool(registered_model):
        which = "both are" if registered_model else "neither is"
        raise UserError(
            COMPONENT, "model", f"a model and a registered model are two ways to say it, and {which} given", "Give one"
        )
    if model is not None:
        yield Path(model), str(model)
        return
    parts = re.fullmatch(r"(?P<name>[^@]+?)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))", registered_model)
    if not parts:
        raise UserError(
            COMPONENT,
            "registered_model",
            f"{registered_model!r} names no version",
            "Write NAME@ALIAS or NAME/VERSION, such as taxi-tips@champion",
        )
    from penstock.components._shared.mlflow_registry import open_registry  # MLflow takes a second to import

    opened = open_registry(registry, COMPONENT)
    aliases = {} if parts["version"] else opened.aliases(parts["name"])
    version = parts["version"] or aliases.get(parts["alias"], "")
    if not version:
        known = f"It has {', '.join(aliases)}" if aliases else "Register a model under it first"
        raise UserError(
            COMPONENT, "registered_model", f"{parts['name']} has no alias {parts['alias']} in {opened.uri}", known
        )
    with tempfile.TemporaryDirectory(prefix="penstock-deploy-") as folder:
        yield opened.folder(parts["name"], version, Path(folder)), f"models:/{parts['name']}/{version}"


def _candidate(folder: Path, uri: str) -> Candidate:
    facts = unseal(folder, KIND, COMPONENT, "model", besides=LEFT_BY_OTHERS)
    try:
        example = (folder / "serving_input_example.json").read_bytes()
    except OSError:
        raise UserError(COMPONENT, "model", f"{folder} has no example to try it with", "Train it again") from None
    return Candidate(folder, uri, sha256(folder / MANIFEST), str(facts.get("framework", "")), example)


def _tried(
    backend: Backend, endpoint: str, candidate: Candidate, expected: Sequence[Mapping[str, Any]], tolerance: float
) -> str:
    """Return what is wrong with what a version predicts for its model's example; empty: nothing."""
    try:
        found = backend.smoke(endpoint, candidate.version, candidate)
    except Unreachable as error:
        return str(error)
    if len(found) != len(expected):
        return f"it predicts {len(found)} rows for {len(expected)}"
    if not all(isinstance(each, Mapping) for each in found):
        return f"it answers {str(found)[:200]}, which names no outputs"
    for place, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        for name, value in wanted.items():
            if not _alike(value, got.get(name), tolerance):
                return f"row {place} of its example has {name} {got.get(name)!r}, and {value!r} when predicted here"
    return ""


def _predicted(candidate: Candidate) -> list[dict[str, Any]]:
    """Return what the model predicts for its example in this process, as a server answers it."""
    from penstock.components.deployment.serving import payloads, served  # brings the frameworks in
    from penstock.components.deployment.serving.settings import Settings

    with on_behalf_of(COMPONENT):
        model = served.load(Settings(model=str(candidate.folder)))
    rows = payloads.read(payloads.PROTOCOLS["mlflow"], payloads.JSON, candidate.example, model.signature)
    columns = {name: values.tolist() for name, values in model.predict(rows).items()}
    return [{name: values[place] for name, values in columns.items()} for place in range(rows.count)]


def _alike(wanted: Any, got: Any, tolerance: float) -> bool:
    if isinstance(wanted, float) and isinstance(got, int | float):
        return math.isclose(wanted, got, rel_tol=tolerance, abs_tol=tolerance)
    return type(wanted) is type(got) and bool(wanted == got)


def _first(backend: Backend, found: Endpoint, version: str) -> Endpoint:
    """Give all traffic to the version if nobody has any yet, and return the endpoint."""
    for _ in range(_ATTEMPTS):
        if found.traffic:
            return found
        try:
            return backend.set_traffic(found.name, {version: 100}, "", found.generation)
        except Changed:  # another was first, or a rollout goes on
            found = existing(backend, found.name, COMPONENT)
    raise UserError(COMPONENT, "endpoint", f"{found.name} is changed by others all the time", "Try again later")
