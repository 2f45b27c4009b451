"""Platform documents: settings of one platform beside the spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.compile import graph, kubernetes_document
from penstock.compile._checks.scopes import places
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("unknown-platform", Severity.WARNING, "Settings for a platform that is not known here."),
    (
        "bad-platform-setting",
        Severity.ERROR,
        "A setting that Kubernetes's document does not have, or of another kind.",
    ),
)

_KNOWN = (kubernetes_document.PLATFORM, "google_cloud")


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield what is wrong with the settings of platforms."""
    yield from _settings("", pipeline.platforms, kubernetes_document.PIPELINE)
    seen: set[str] = set()
    for place in places(pipeline):
        component = place.task.component
        if component.name not in seen:
            seen.add(component.name)
            yield from _settings(place.path, component.platforms, kubernetes_document.TASK)


def _settings(path: str, platforms: Any, shape: Any) -> Iterator[Finding]:
    for platform in sorted(set(platforms) - {*_KNOWN}):
        problem = f"has settings for the platform {platform}"
        yield CODES.finding("unknown-platform", path, problem, f"known are {', '.join(_KNOWN)}")
    problems: list[str] = []
    kubernetes_document.fit(platforms.get(kubernetes_document.PLATFORM, {}), shape, "kubernetes", problems)
    for problem in problems:
        yield CODES.finding("bad-platform-setting", path, problem, "see kfp-kubernetes for what there is")
