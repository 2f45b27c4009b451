"""Rewrites of a compiled spec: pure functions from one PipelineSpec, as read from YAML, to the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

_DIGEST = "@sha256:"


def pin_images(
    spec: Mapping[str, Any], digests: Mapping[str, str], registry: str, tagged: Collection[str] = ()
) -> dict[str, Any]:
    """Return a spec whose images are those of a registry, by digest; other images stay as they are.

    Args:
        spec: PipelineSpec.
        digests: "sha256:…" by the repository of an image, its name without tag: {"penstock/tabular": "sha256:…"}
            makes penstock/tabular:0.1.0 REGISTRY/tabular@sha256:….
        registry: Host, with a path or not: europe-docker.pkg.dev/project/images.
        tagged: Repositories that go to the registry and keep their tag, where they have no digest.
    """

    def pinned(image: str) -> str:
        repository, tag = split(image)
        place = f"{registry.rstrip('/')}/{repository.rpartition('/')[2]}"
        if repository in digests and _DIGEST not in image:
            return f"{place}@{digests[repository]}"
        return f"{place}{tag}" if repository in tagged and _DIGEST not in image else image

    return replace_images(spec, pinned)


def replace_images(spec: Mapping[str, Any], replaced: Callable[[str], str]) -> dict[str, Any]:
    """Return a spec in which every image is what a function makes of it."""
    deployment = spec.get("deploymentSpec", {})
    executors = {
        label: {**executor, "container": {**executor["container"], "image": replaced(executor["container"]["image"])}}
        if "image" in executor.get("container", {})
        else executor
        for label, executor in deployment.get("executors", {}).items()
    }
    return {**spec, "deploymentSpec": {**deployment, "executors": executors}} if executors else dict(spec)


def set_caching(spec: Mapping[str, Any], enabled: bool) -> dict[str, Any]:
    """Return a spec all of whose tasks may take over outputs of earlier runs, or none of whose may."""

    def switched(component: Mapping[str, Any]) -> dict[str, Any]:
        tasks = component.get("dag", {}).get("tasks", {})
        changed = {
            name: {**task, "cachingOptions": {"enableCache": True} if enabled else {}} for name, task in tasks.items()
        }
        return {**component, "dag": {**component["dag"], "tasks": changed}} if tasks else dict(component)

    found = {**spec, "root": switched(spec["root"])}
    if "components" in spec:
        found["components"] = {name: switched(component) for name, component in spec["components"].items()}
    return found


def images(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the images of a spec, each once."""
    found = [
        executor["container"]["image"]
        for executor in spec.get("deploymentSpec", {}).get("executors", {}).values()
        if "image" in executor.get("container", {})
    ]
    yield from dict.fromkeys(found)


def mutable_images(spec: Mapping[str, Any]) -> list[str]:
    """Return the images of a spec that can be another tomorrow: those without a digest."""
    return [image for image in images(spec) if _DIGEST not in image]


def split(image: str) -> tuple[str, str]:
    """Return an image's repository, and its tag with the colon or digest with the @; empty where it has none."""
    name, at, digest = image.partition("@")
    if at:
        return split(name)[0], f"@{digest}"
    folders, slash, last = name.rpartition("/")
    repository, colon, tag = last.partition(":")
    return f"{folders}{slash}{repository}", f"{colon}{tag}"
