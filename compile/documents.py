"""Takes a compiled pipeline out of what it comes in: YAML or JSON, alone or wrapped, into KFP's messages.

Strict: a field that the messages do not know is an error that names it, never lost in silence.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from google.protobuf import json_format

from penstock.compile.errors import PenstockError
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    ("not-a-pipeline", Severity.ERROR, "The file holds no compiled pipeline: it is empty, no YAML, or something else."),
    ("unknown-field", Severity.ERROR, "A field that the schema does not have; platforms ignore or refuse it."),
    ("malformed", Severity.ERROR, "A value of another kind than its field takes, or one that JSON does not have."),
)

# Of Vertex AI's PipelineJob and of what KFP's SDK writes around a spec, beside the fields of the message of that name.
_JOB = {
    "createTime", "startTime", "endTime", "updateTime", "state", "jobDetail", "error", "encryptionSpec",
    "serviceAccount", "network", "reservedIpRanges", "pscInterfaceConfig", "templateUri", "templateMetadata",
    "scheduleName", "preflightValidations",
}  # fmt: skip
_RUNTIME = {"failurePolicy", "inputArtifacts", "defaultRuntime"}
_MANIFEST = {
    "pipelineSpec", "platformSpec", "description", "displayName", "pipelineName", "pipelineSpecURI", "codeSourceURL",
    "tags",
}  # fmt: skip
# Messages that stand for any JSON.
_FREE = {"Struct", "Value", "ListValue", "Duration", "Status", "Any"}


class NotAPipeline(Exception):
    """Text that holds no compiled pipeline; says why."""


@dataclass(frozen=True)
class Documents:
    """What a file of a compiled pipeline holds.

    Attributes:
        spec: PipelineSpec.
        platforms: PlatformSpec; empty where there is none.
        runtime: The runtimeConfig of a PipelineJob; empty where the spec is not wrapped in one.
        two: Whether the platform spec is a document of its own.
        wrapper: What is around the spec: "", "PipelineJob" or "PipelineVersion".
    """

    spec: Mapping[str, Any]
    platforms: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    two: bool = False
    wrapper: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """Values of parameters that a PipelineJob has; schema 2.0.0 types them, with integers as text."""
        found = {}
        for name, typed in _mapping(self.runtime.get("parameters")).items():
            kind, value = next(iter(_mapping(typed).items()), ("", typed))
            found[name] = int(value) if kind in ("intValue", "int_value") else value
        return {**found, **_mapping(self.runtime.get("parameterValues"))}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# A pipeline of 500 tasks has some 50,000.
_MOST_VALUES = 5_000_000
_DEEPEST = 5_000


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, ten times faster in C, that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return mapping


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        PenstockError: It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PenstockError(f"{path}: cannot be read: {error}") from error


def unwrap(document: str | Mapping[str, Any]) -> Documents:
    """Return what text, or one document that is a mapping already, holds.

    Args:
        document: PipelineSpec as YAML or JSON, with a platform spec as second document or without; the Kubernetes
            manifest and the PipelineJob that KFP's compiler, the Vertex SDK and TFX wrap around it are taken as well.

    Raises:
        NotAPipeline: It holds none.
    """
    found = _parsed(document) if isinstance(document, str) else [document]
    if not found:
        raise NotAPipeline("empty; expected a compiled pipeline")
    for item in found:
        if not isinstance(item, Mapping):
            raise NotAPipeline(f"expected a compiled pipeline, found {type(item).__name__}")
    unwrapped = _unwrapped(found)
    if not isinstance(unwrapped.spec, Mapping) or not {"pipelineInfo", "pipeline_info"} & set(unwrapped.spec):
        raise NotAPipeline("not a compiled pipeline: there is no pipelineInfo; compile it first")
    return unwrapped


def message(kind: str, document: Mapping[str, Any], where: str, version: str) -> tuple[Any, list[Finding]]:
    """Return a document as one of KFP's messages, and what was wrong with it; None where it fits none.

    Args:
        kind: Name of the message.
        where: Where the document stands in the file; empty: it is the whole.
        version: Schema version that the file says it has.
    """
    target = getattr(messages(), kind)()
    try:
        return json_format.ParseDict(dict(document), target), []
    except (json_format.ParseError, ValueError, TypeError, AttributeError):
        pass
    found = [
        CODES.finding(
            "unknown-field",
            "",
            f"{place or 'the spec'}: schema version {version or 'unknown'} has no field named {name!r} there",
            f"the fields of {owner} are {', '.join(known)}",
        )
        for place, name, owner, known in _unknown(document, target.DESCRIPTOR, where)
    ]
    try:
        return json_format.ParseDict(
            dict(document), getattr(messages(), kind)(), ignore_unknown_fields=bool(found)
        ), found
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        reason = re.sub(r"\s*Available Fields.*", "", str(error), flags=re.DOTALL).rstrip(".")
        return None, [*found, CODES.finding("malformed", "", f"{where + ': ' if where else ''}{reason}")]


@functools.cache
def messages() -> ModuleType:
    """Return KFP's IR messages, without the rest of kfp, whose import takes eight times as long."""
    name = "kfp.pipeline_spec.pipeline_spec_pb2"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("kfp")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "pipeline_spec" / "pipeline_spec_pb2.py"
        if file.is_file():
            spec = importlib.util.spec_from_file_location("penstock.compile._pipeline_spec_pb2", file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise PenstockError("the messages of KFP's IR are missing; pip install kfp-pipeline-spec")


def _parsed(text: str) -> list[Any]:
    """Return the documents of a text that are not empty."""
    found: Iterable[Any] | None = None
    if text.lstrip().startswith("{"):
        # JSON is YAML, but for numbers such as 1e-7, which YAML 1.1 takes for text.
        with contextlib.suppress(ValueError, RecursionError):
            found = [json.loads(text, object_pairs_hook=_once)]
    try:
        return [item for item in found or _built(text) if item is not None]
    except yaml.YAMLError as error:
        raise NotAPipeline(f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise NotAPipeline("nested deeper than any compiled pipeline is") from error


def _built(text: str) -> Iterator[Any]:
    """Yield the documents of a YAML text; three times as fast as a loader that builds any object."""
    if _depth(text) > _DEEPEST:  # the parser, which is written in C, would end the process
        raise RecursionError
    loader: Any = Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            found = _value(node, loader, {})
            if "*" in text:
                _bound(node, found)
            yield found
    finally:
        loader.dispose()


def _depth(text: str) -> int:
    """Return how many collections stand inside each other on one line, or more: brackets of texts count too."""
    depth, deepest = 0, max((len(run) // 2 for run in re.findall(r"(?:[-?:] ){9,}", text)), default=0)
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def _bound(node: yaml.Node, found: Any) -> None:
    """Refuse a document whose aliases make it endless, or of more values than a compiled pipeline has."""
    sizes: dict[int, int | None] = {}  # None while what is inside it is counted

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        known = sizes.get(id(value), 0)
        if known is None:
            raise yaml.constructor.ConstructorError(None, None, "an alias stands inside what it names", node.start_mark)
        if not known:
            sizes[id(value)] = None
            known = 1 + sum(map(size, value.values() if isinstance(value, dict) else value))
            sizes[id(value)] = known
        return known

    if (values := size(found)) > _MOST_VALUES:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"its aliases stand for {values:,} values; more than {_MOST_VALUES:,} is no pipeline",
            node.start_mark,
        )


def _value(node: yaml.Node, loader: Any, seen: dict[int, Any]) -> Any:
    if node.tag == "tag:yaml.org,2002:str":
        return node.value
    if id(node) in seen:  # an alias; what it stands for is built once, however often it is named
        return seen[id(node)]
    if node.tag == "tag:yaml.org,2002:map":
        found: dict[str, Any] = {}
        seen[id(node)] = found
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                return loader.construct_object(node, deep=True)  # keys of other kinds, and merges
            if key.value in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", node.start_mark
                )
            found[key.value] = _value(value, loader, seen)
        return found
    if node.tag == "tag:yaml.org,2002:seq":
        items: list[Any] = []
        seen[id(node)] = items
        items += [_value(item, loader, seen) for item in node.value]
        return items
    return loader.construct_object(node)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")  # YAML's reader says which and where
    return found


def _unwrapped(found: list[Mapping[str, Any]]) -> Documents:
    manifests = [item for item in found if item.get("kind") in ("Pipeline", "PipelineVersion")]
    if manifests:  # as KFP's compiler writes them: a Pipeline may come before its version
        inner = next((item.get("spec") or {} for item in manifests if item["kind"] == "PipelineVersion"), {})
        return Documents(
            inner.get("pipelineSpec") or {},
            inner.get("platformSpec") or {},
            wrapper="PipelineVersion",
            unknown=tuple(f"spec.{name}" for name in inner if name not in _MANIFEST),
        )
    if len(found) > 2:
        raise NotAPipeline(f"{len(found)} documents; expected a pipeline spec and at most one platform spec")
    first, platforms = found[0], found[1] if len(found) == 2 else {}
    if "pipelineSpec" not in first or "pipelineInfo" in first:
        return Documents(first, platforms, two=len(found) == 2)
    runtime = first.get("runtimeConfig") or {}
    unknown = [*(name for name in first if not _is_field("PipelineJob", name) and name not in _JOB)]
    if isinstance(runtime, Mapping):
        known = messages().PipelineJob.RuntimeConfig.DESCRIPTOR
        unknown += [f"runtimeConfig.{name}" for name in runtime if not _names(known, name) and name not in _RUNTIME]
    return Documents(
        first["pipelineSpec"], platforms, runtime, two=len(found) == 2, wrapper="PipelineJob", unknown=tuple(unknown)
    )


def _is_field(kind: str, name: str) -> bool:
    return _names(getattr(messages(), kind).DESCRIPTOR, name) is not None


def _names(descriptor: Any, name: str) -> Any:
    """Return the field that a key stands for, as it is written in JSON or in the message; None where there is none."""
    return _fields(descriptor).get(name)


@functools.cache
def _fields(descriptor: Any) -> dict[str, Any]:
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def _unknown(document: Any, descriptor: Any, place: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield place, key, message and its fields for each key that a message does not have."""
    if not isinstance(document, Mapping) or descriptor.name in _FREE:
        return
    for name, value in document.items():
        field = _names(descriptor, str(name))
        if field is None:
            yield place, str(name), descriptor.name, [field.json_name for field in descriptor.fields]
        elif field.message_type is None:
            continue
        elif field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            if inner is not None and isinstance(value, Mapping):
                for key, item in value.items():
                    yield from _unknown(item, inner, f"{place}.{name}[{key}]".lstrip("."))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from _unknown(item, field.message_type, f"{place}.{name}[{index}]".lstrip("."))
        else:
            yield from _unknown(value, field.message_type, f"{place}.{name}".lstrip("."))
