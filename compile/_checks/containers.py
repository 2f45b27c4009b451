"""Containers: images, environments and what they ask of a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.compile import commands, graph
from penstock.compile._checks import limits
from penstock.compile._checks.scopes import places
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("no-image", Severity.ERROR, "A container has no image."),
    ("bad-image", Severity.ERROR, "The name of an image is none that a container engine takes."),
    ("mutable-image", Severity.WARNING, "An image without a digest: its tag can be another image tomorrow."),
    ("bad-variable", Severity.ERROR, "The name of an environment variable is none that Kubernetes takes."),
    ("bad-quantity", Severity.ERROR, "An amount of CPU, memory or accelerators that Kubernetes does not read."),
    ("request-over-limit", Severity.ERROR, "A container asks for more than its limit."),
    ("no-uri", Severity.WARNING, "An importer has an empty URI."),
)

# distribution/reference, as every engine and registry reads names: host, path, tag, digest.
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@[a-z0-9]+:[0-9a-fA-F]{{32,}})?"
)
# Kubernetes: api/resource.Quantity, and names of environment variables.
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|[KMGTPE]i?|[eE][0-9]+)?")
_FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3, "K": 1e3}
_FACTORS |= {letter: 10.0 ** (3 * power) for power, letter in enumerate("MGTPE", 2)}
_FACTORS |= {f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGTPE", 1)}
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield what is wrong with the containers and importers of a pipeline, each executor once."""
    seen: set[str] = set()
    for place in places(pipeline):
        body = place.task.component.body
        if isinstance(body, graph.Importer) and isinstance(body.uri, graph.Constant) and not body.uri.value:
            yield CODES.finding("no-uri", place.path, f"executor {body.label}: the importer's URI is empty", "give one")
        if isinstance(body, graph.Container) and body.label not in seen:
            seen.add(body.label)
            yield from _image(place.path, body)
            yield from _environment(place.path, body)
            yield from _resources(place.path, body)
    yield from _mutable(pipeline)


def _image(path: str, body: graph.Container) -> Iterator[Finding]:
    if not body.image:
        yield CODES.finding("no-image", path, f"executor {body.label} has no image", "give one")
    elif "{{$" in body.image or body.image in commands.VOLUME_IMAGES:
        return
    elif not _IMAGE.fullmatch(body.image):
        problem = f"{body.image!r} is no name of an image"
        yield CODES.finding(
            "bad-image", path, problem, "write HOST/PATH:TAG or HOST/PATH@sha256:…, the path in lower case"
        )


def _mutable(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield each image that has no digest, once, with the tasks that run in it."""
    users: dict[str, list[str]] = {}
    for place in places(pipeline):
        body = place.task.component.body
        own = [body.image] if isinstance(body, graph.Container) and body.image not in commands.VOLUME_IMAGES else []
        for image in dict.fromkeys([*own, *limits.handed_images(place.task)]):
            if _IMAGE.fullmatch(image) and "@" not in image:
                users.setdefault(image, []).append(place.path)
    for image, paths in users.items():
        others = len(paths) - 1
        several = f" (and {others} more task{'s' if others > 1 else ''})" if others else ""
        problem = f"image {image}{several} has no digest; its tag can be another image tomorrow"
        yield CODES.finding("mutable-image", paths[0], problem, "name it as IMAGE@sha256:…")


def _environment(path: str, body: graph.Container) -> Iterator[Finding]:
    for name in body.env:
        if not _VARIABLE.fullmatch(name):
            problem = f"{name!r} is no name of an environment variable"
            yield CODES.finding("bad-variable", path, problem, "use letters, digits and _, no digit first")


def _resources(path: str, body: graph.Container) -> Iterator[Finding]:
    asked = body.resources
    amounts = {
        "CPU request": asked.cpu_request,
        "CPU limit": asked.cpu_limit,
        "memory request": asked.memory_request,
        "memory limit": asked.memory_limit,
        "number of accelerators": asked.accelerator_count,
    }
    found = {name: _amount(text) for name, text in amounts.items() if text and "{{$" not in text}
    for name, number in found.items():
        if number is None:
            problem = f"the {name} {amounts[name]!r} is no amount that Kubernetes reads"
            yield CODES.finding("bad-quantity", path, problem, 'write it like "2", "500m" or "4Gi"')
    for kind in ("CPU", "memory"):
        request, limit = found.get(f"{kind} request"), found.get(f"{kind} limit")
        if request is not None and limit is not None and request > limit:
            problem = f"asks for {amounts[f'{kind} request']} of {kind}, more than its limit {amounts[f'{kind} limit']}"
            yield CODES.finding("request-over-limit", path, problem, "raise the limit, or ask for less")


def _amount(text: str) -> float | None:
    match = _QUANTITY.fullmatch(text)
    if not match:
        return None
    number, suffix = float(match[1]), match[2] or ""
    return number * (_FACTORS[suffix] if suffix in _FACTORS else 10.0 ** int(suffix[1:]))
