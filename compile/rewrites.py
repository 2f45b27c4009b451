"""Rewrites of a compiled spec: pure functions from one PipelineSpec, as read from YAML, to the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

_DIGEST = "@sha256:"

# Jobs of Vertex AI and models that it serves name their images in values: {"container_spec": {"image_uri": …}}.
_CONTAINERS = ("container_spec", "containerSpec")
_IMAGES = ("image_uri", "imageUri")


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


def swap_images(spec: Mapping[str, Any], others: Mapping[str, str]) -> dict[str, Any]:
    """Return a spec in which some images have others in their place.

    Args:
        spec: PipelineSpec.
        others: Image by image. The first is a repository, or the last part of its name; the second an image, or the
            last part of a name, which stays in the folder and keeps the tag: {"tabular": "tensorflow"} makes
            penstock/tabular:0.1.0 penstock/tensorflow:0.1.0.

    Raises:
        KeyError: The spec has no such image; it names the first that is not there.
    """
    missing = set(others)

    def swapped(image: str) -> str:
        repository, tag = split(image)
        folder, slash, last = repository.rpartition("/")
        name = repository if repository in others else last
        if name not in others:
            return image
        missing.discard(name)
        other = others[name]
        return other if split(other)[1] or "/" in other else f"{folder}{slash}{other}{tag}"

    found = replace_images(spec, swapped)
    if missing:
        raise KeyError(min(missing))
    return found


def replace_images(spec: Mapping[str, Any], replaced: Callable[[str], str]) -> dict[str, Any]:
    """Return a spec in which every image is what a function makes of it, those in values of parameters too."""

    def anywhere(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: container(item) if key in _CONTAINERS else anywhere(item) for key, item in value.items()}
        return [anywhere(item) for item in value] if isinstance(value, list) else value

    def container(value: Any) -> Any:
        found = anywhere(value)
        for name in _named(found):
            found[name] = replaced(found[name])
        return found

    found: dict[str, Any] = anywhere(spec)
    for executor in found.get("deploymentSpec", {}).get("executors", {}).values():
        if "image" in executor.get("container", {}):
            executor["container"]["image"] = replaced(executor["container"]["image"])
    return found


def images_in(value: Any) -> Iterator[str]:
    """Yield the images that are named inside of a value: a list of worker pools, the metadata of a model."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _CONTAINERS:
                yield from (item[name] for name in _named(item))
            yield from images_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from images_in(item)


def _named(container: Any) -> list[str]:
    """Return the fields of a container that name its image; not those that a parameter fills."""
    if not isinstance(container, Mapping):
        return []
    found = {name: container.get(name) for name in _IMAGES}
    return [name for name, image in found.items() if isinstance(image, str) and image and "{{$" not in image]


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
    yield from dict.fromkeys([*found, *images_in(spec)])


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
