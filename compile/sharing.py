"""Makes specs smaller: components and executors that are the same become one.

KFP's compiler writes both anew for every task. A task names its component, so several may name the same; what people
are shown comes from tasks. Two things keep equal components apart, both of Kubeflow's compiler to Argo: it names
templates of a loop after the component that is repeated, so each needs its own; and tasks without a retry policy take
that of the task around them, once a component.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from google.protobuf import json_format

from penstock.compile import documents, from_kfp
from penstock.compile.errors import PenstockError
from penstock.compile.findings import errors
from penstock.compile.yaml_writer import to_yaml

_ROOT = "root"  # no component has this name: Kubeflow keeps it for the pipeline
_ITERATORS = ("parameterIterator", "artifactIterator")
_OTHER_NAMES = re.compile(  # that the fields which are looked at may have, too
    r"\b(?:component_ref|deployment_spec|executor_label|retry_policy|parameter_iterator|artifact_iterator)\b"
)


def share(
    spec: Mapping[str, Any], platform_spec: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a spec and its platform spec with equal executors made one and equal components made one.

    Components are equal when all is that is in them, components that become one further inside included; executors are
    equal when their settings of each platform are, too. Of several, the shortest name stays. The result means the
    same everywhere, and sharing twice is sharing once.

    Args:
        spec: PipelineSpec, with the names of fields that JSON has for them.
        platform_spec: PlatformSpec; None or empty where there is none.
    """
    deployment = spec.get("deploymentSpec", {})
    executors = deployment.get("executors", {})
    components = spec.get("components", {})
    platforms = (platform_spec or {}).get("platforms", {})

    def with_settings(label: str) -> Any:
        return executors[label], {name: _settings(platform).get(label) for name, platform in platforms.items()}

    label_of = _firsts({label: _key(with_settings(label)) for label in executors})
    name_of = _shared_components(spec.get(_ROOT, {}), components, label_of)

    slim: dict[str, Any] = dict(spec)
    if executors:
        kept = {label: executor for label, executor in executors.items() if label_of[label] == label}
        slim["deploymentSpec"] = {**deployment, "executors": kept}
    if components:
        slim["components"] = {
            name: _renamed(component, name_of, label_of)
            for name, component in components.items()
            if name_of[name] == name
        }
    if _ROOT in spec:
        slim[_ROOT] = _renamed(spec[_ROOT], name_of, label_of)
    return slim, _shared_settings(platform_spec or {}, label_of)


def slim(text: str, name: str = "the spec") -> str:
    """Return the text of a spec with what is the same in it made one, in the form that it came in.

    A text in which nothing is the same stays as it is, byte for byte.

    Args:
        text: What `from_kfp.parse` takes: YAML or JSON, alone, with a platform spec, or wrapped.
        name: How errors call it.

    Raises:
        PenstockError: It is not a whole, valid pipeline.
    """
    try:
        found = documents.unwrap(text)
    except documents.NotAPipeline as error:
        raise PenstockError(f"{name}: {error}") from error
    wrong = errors(from_kfp.examine(found)[1])
    if wrong:
        raise PenstockError(f"{name}: {wrong[0]}")
    before = dict(found.spec), dict(found.platforms)
    if _OTHER_NAMES.search(text):
        before = _as_message("PipelineSpec", found.spec), _as_message("PlatformSpec", found.platforms)
    spec, platforms = share(*before)
    if (spec, platforms) == before:
        return text
    if text.lstrip().startswith("{"):
        value = {**json.loads(text), "pipelineSpec": spec} if found.wrapper else spec
        return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    # KFP keeps the name and the description in a comment at the top.
    heading = "".join(f"{line}\n" for line in _heading(text))
    if not found.wrapper:
        return heading + "---\n".join(to_yaml(item) for item in (spec, platforms) if item)
    items = [item for item in yaml.load_all(text, Loader=documents.Loader) if item is not None]
    return heading + "---\n".join(to_yaml(_rewrapped(item, found.wrapper, spec, platforms)) for item in items)


def _rewrapped(item: Mapping[str, Any], wrapper: str, spec: Any, platforms: Any) -> Mapping[str, Any]:
    if wrapper == "PipelineJob":
        return {**item, "pipelineSpec": spec} if "pipelineSpec" in item else item
    if item.get("kind") != wrapper:
        return item
    inner = {**item["spec"], "pipelineSpec": spec}
    return {**item, "spec": {**inner, "platformSpec": platforms} if platforms else inner}


def _heading(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line


def _as_message(kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its fields named as JSON names them."""
    message = json_format.ParseDict(dict(document), getattr(documents.messages(), kind)())
    found: dict[str, Any] = json_format.MessageToDict(message)
    return found


def _settings(platform: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = platform.get("deploymentSpec", {}).get("executors", {})
    return found


def _shared_settings(platform_spec: Mapping[str, Any], label_of: Mapping[str, str]) -> dict[str, Any]:
    if not any(_settings(platform) for platform in platform_spec.get("platforms", {}).values()):
        return dict(platform_spec)

    def shared(platform: Mapping[str, Any]) -> dict[str, Any]:
        if not _settings(platform):
            return dict(platform)
        kept = {label: value for label, value in _settings(platform).items() if label_of.get(label, label) == label}
        return {**platform, "deploymentSpec": {**platform["deploymentSpec"], "executors": kept}}

    platforms = {name: shared(platform) for name, platform in platform_spec["platforms"].items()}
    return {**platform_spec, "platforms": platforms}


def _shared_components(
    root: Mapping[str, Any], components: Mapping[str, Any], label_of: Mapping[str, str]
) -> dict[str, str]:
    """Return for each component the one that stands for it."""
    apart: set[str] = set()
    while True:
        name_of = _firsts(_contents(components, label_of, apart))
        several = {name for name, count in Counter(name_of.values()).items() if count > 1}
        scopes = {_ROOT: root, **{name: components[name] for name in set(name_of.values())}}
        wrong = several & (_repeated_twice(scopes, name_of) | _retried_differently(scopes, name_of))
        if not wrong:
            return name_of
        apart |= {name for name, first in name_of.items() if first in wrong}


def _contents(components: Mapping[str, Any], label_of: Mapping[str, str], apart: set[str]) -> dict[str, str]:
    """Return a text for each component that equal ones have in common; those that stay apart have their own."""
    found: dict[str, str] = {}
    numbers: dict[str, str] = {}  # short, or a text would hold those of all that is inside
    at_work: set[str] = set()

    def number(name: str) -> str:
        if name not in components or name in at_work:  # of broken specs
            return name
        if name not in found:
            at_work.add(name)
            inside = {ref: number(ref) for ref in sorted({ref for _, _, ref in _tasks(components[name])})}
            at_work.discard(name)
            content = _key([_renamed(components[name], inside, label_of), *([name] if name in apart else [])])
            found[name] = numbers.setdefault(content, f"\n{len(numbers)}")
        return found[name]

    for name in components:
        number(name)
    return found


def _repeated_twice(scopes: Mapping[str, Any], name_of: Mapping[str, str]) -> set[str]:
    """Return the components that loops of more than one place repeat."""
    places = Counter(
        name_of.get(ref, ref)
        for scope in scopes.values()
        for _, task, ref in _tasks(scope)
        if any(iterator in task for iterator in _ITERATORS)
    )
    return {name for name, count in places.items() if count > 1}


def _retried_differently(scopes: Mapping[str, Any], name_of: Mapping[str, str]) -> set[str]:
    """Return the components with tasks inside that would take different retry policies from around them."""
    policies: dict[str, set[str]] = {}
    waiting = [(_ROOT, "")]
    while waiting:
        name, policy = waiting.pop()
        if policy in policies.setdefault(name, set()):
            continue
        policies[name].add(policy)
        for _, task, ref in _tasks(scopes.get(name, {})):
            own = _key(task["retryPolicy"]) if "retryPolicy" in task else policy
            if "dag" in scopes.get(name_of.get(ref, ref), {}):
                waiting.append((name_of[ref], own))
    return {name for name, found in policies.items() if len(found) > 1}


def _tasks(component: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield name, task and the name of its component for each task in a component."""
    for name, task in component.get("dag", {}).get("tasks", {}).items():
        yield name, task, task.get("componentRef", {}).get("name", "")


def _renamed(component: Mapping[str, Any], name_of: Mapping[str, str], label_of: Mapping[str, str]) -> dict[str, Any]:
    found = dict(component)
    if "executorLabel" in component:
        found["executorLabel"] = label_of.get(component["executorLabel"], component["executorLabel"])
    if "dag" in component:
        tasks = {
            name: {**task, "componentRef": {**task["componentRef"], "name": name_of.get(ref, ref)}} if ref else task
            for name, task, ref in _tasks(component)
        }
        found["dag"] = {**component["dag"], "tasks": tasks}
    return found


def _firsts(keys: Mapping[str, str]) -> dict[str, str]:
    """Return for each name the shortest of those with the same key, of these the first."""
    groups: dict[str, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    first = {key: min(names, key=lambda name: (len(name), name)) for key, names in groups.items()}
    return {name: first[key] for name, key in keys.items()}


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
