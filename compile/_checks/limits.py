"""What targets' preflight has in common: rows with sources, and rules that more than one platform has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.compile import graph, rewrites
from penstock.compile._checks import placeholders
from penstock.compile._checks.scopes import places
from penstock.compile.findings import Finding, Severity

if TYPE_CHECKING:
    from penstock.compile.check import Spec

Problem = tuple[str, str]  # path of the task ("" for the pipeline), what about it


@dataclass(frozen=True)
class Limit:
    """Something that a platform does not run, or does not take above a limit.

    Attributes:
        code: Name of the kind of finding.
        note: What of it, in general; what to do about it comes after the semicolon of each finding.
        source: Where that is known from.
        find: Finds where a pipeline meets it.
    """

    code: str
    severity: Severity
    note: str
    source: str
    remedy: str
    find: Callable[[Spec], Iterator[Problem]]


def check(spec: Spec, limits: tuple[Limit, ...], platform: str) -> Iterator[Finding]:
    """Yield a finding for each place where a spec meets a limit of a platform."""
    for limit in limits:
        for path, problem in limit.find(spec):
            yield Finding(limit.code, limit.severity, path, f"{problem} ({platform})", limit.remedy)


def size_above(most: int) -> Callable[[Spec], Iterator[Problem]]:
    """Return a rule that finds specs of more than so many bytes."""

    def find(spec: Spec) -> Iterator[Problem]:
        if spec.size > most:
            yield "", f"the spec has {spec.size:,} bytes, more than {most:,}"

    return find


def parameters_above(most: int) -> Callable[[Spec], Iterator[Problem]]:
    """Return a rule that finds values of parameters that have, as JSON, more than so many bytes together."""

    def find(spec: Spec) -> Iterator[Problem]:
        size = len(json.dumps(dict(spec.values), separators=(",", ":"), ensure_ascii=False).encode())
        if size > most:
            longest = max(spec.values, key=lambda name: len(json.dumps(spec.values[name])))
            yield "", f"the parameters have {size:,} bytes together, more than {most:,}; {longest} has the most"

    return find


def local_images(spec: Spec) -> Iterator[Problem]:
    """Find images that only this machine can have."""
    for path, image in _images(spec.pipeline):
        host, slash, _ = image.partition("/")
        name = host.partition(":")[0]
        here = slash and (name in ("localhost", "127.0.0.1", "host.docker.internal") or name.endswith(".local"))
        if here or name == "sha256" or image.startswith("penstock/"):
            yield path, f"no platform can pull the image {image}"


def handed_images(task: graph.Task) -> Iterator[str]:
    """Yield the images in the values that a task hands to its platform: of the jobs of Vertex AI, of served models."""
    yield from rewrites.images_in([value for _, value in placeholders.values(task) if isinstance(value, dict | list)])
    if isinstance(task.component.body, graph.Importer):
        yield from rewrites.images_in(task.component.body.metadata)


def executors(*kinds: str) -> Callable[[Spec], Iterator[Problem]]:
    """Return a rule that finds executors of these kinds."""

    def find(spec: Spec) -> Iterator[Problem]:
        for place in places(spec.pipeline):
            body = place.task.component.body
            if isinstance(body, graph.OtherExecutor) and body.kind in kinds:
                yield place.path, f"executor {body.label} is a {body.kind}"

    return find


def settings(pipeline: graph.Pipeline, platform: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the settings for a platform: the pipeline's with an empty path, and each task's."""
    if found := pipeline.platforms.get(platform):
        yield "", found
    for place in places(pipeline):
        if found := place.task.component.platforms.get(platform):
            yield place.path, found


def _images(pipeline: graph.Pipeline) -> Iterator[tuple[str, str]]:
    """Yield each image once, with the first task that runs in it, or hands it on."""
    seen: set[str] = set()
    for place in places(pipeline):
        body = place.task.component.body
        found = [body.image] if isinstance(body, graph.Container) else []
        for image in (*found, *handed_images(place.task)):
            if image not in seen:
                seen.add(image)
                yield place.path, image
