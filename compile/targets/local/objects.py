"""Secrets and ConfigMaps as files of ordinary Kubernetes manifests hold them.

No message and no representation here ever shows a value, nor does an exception that one comes from: parsers quote what
they stumble over.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from penstock.compile import documents
from penstock.compile.errors import PenstockError

SECRET = "Secret"  # noqa: S105 the name of a kind
CONFIG_MAP = "ConfigMap"

_FIELDS = {
    SECRET: {"data", "stringData", "type"},
    CONFIG_MAP: {"data", "binaryData"},
}
_FIELDS_OF_ALL = {"apiVersion", "kind", "metadata", "immutable"}
_LISTS = ("List", "SecretList", "ConfigMapList")
_KEY = re.compile(r"(?!\.\.?$|\.\.)[-._a-zA-Z0-9]{1,253}")  # the names of files, where it is mounted


@dataclass(frozen=True)
class Objects:
    """Secrets and ConfigMaps by name, each with its bytes by key; neither is shown."""

    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)

    def of(self, kind: str) -> Mapping[str, Mapping[str, bytes]]:
        """Return those of one kind, "Secret" or "ConfigMap"."""
        return self.secrets if kind == SECRET else self.config_maps


def read(paths: Iterable[Path]) -> Objects:
    """Return the Secrets and ConfigMaps of files.

    Args:
        paths: YAML or JSON as `kubectl apply` takes it and `kubectl get -o yaml` writes it: one or more documents,
            lists among them.

    Raises:
        PenstockError: a file cannot be read, holds something else, or names something that another one names as well.
    """
    found: dict[str, dict[str, Mapping[str, bytes]]] = {SECRET: {}, CONFIG_MAP: {}}
    origin: dict[tuple[str, str], Path] = {}
    for path in paths:
        manifests = [one for document in _documents(path) for one in _unlisted(path, document)]
        if not manifests:
            raise PenstockError(f"{path}: empty; expected manifests of Secrets and ConfigMaps")
        for manifest in manifests:
            kind, name = _kind_and_name(path, manifest)
            if (kind, name) in origin:
                raise PenstockError(f"{path}: {kind} {name} is in {origin[kind, name]} already; keep one of them")
            origin[kind, name] = path
            found[kind][name] = _content(f"{path}: {kind} {name}", kind, manifest)
    return Objects(found[SECRET], found[CONFIG_MAP])


def _documents(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PenstockError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = None
    if text is None:  # raised out here, so that it does not carry the bytes along
        raise PenstockError(f"{path}: cannot be read: it is not UTF-8 text")
    try:
        return [document for document in yaml.load_all(text, Loader=documents.Loader) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    raise PenstockError(f"{path}: not YAML, or a key is given twice{where}")


def _unlisted(path: Path, document: Any) -> Iterator[Mapping[Any, Any]]:
    if not isinstance(document, Mapping):
        raise PenstockError(f"{path}: expected manifests of Secrets and ConfigMaps, found {type(document).__name__}")
    if document.get("kind") not in _LISTS:
        yield document
        return
    items = document.get("items")
    if not isinstance(items, list):
        raise PenstockError(f"{path}: kind {document['kind']}: its items are not a list")
    for item in items:
        yield from _unlisted(path, item)


def _kind_and_name(path: Path, manifest: Mapping[Any, Any]) -> tuple[str, str]:
    kind, metadata = manifest.get("kind"), manifest.get("metadata")
    if not isinstance(kind, str) or kind not in _FIELDS:
        said = f"kind {kind}" if isinstance(kind, str) else "a document without a kind"
        raise PenstockError(f"{path}: {said}: only Secret, ConfigMap and lists of them are taken; leave it out")
    if manifest.get("apiVersion") != "v1":
        raise PenstockError(f"{path}: {kind}: its apiVersion is not v1")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        raise PenstockError(f"{path}: a {kind} has no metadata.name")
    return kind, name


def _content(where: str, kind: str, manifest: Mapping[Any, Any]) -> Mapping[str, bytes]:
    for name in manifest:
        if name not in _FIELDS[kind] | _FIELDS_OF_ALL:
            raise PenstockError(f"{where}: unknown field {name}; there are {', '.join(sorted(_FIELDS[kind]))}")
    encoded, plain = ("data", "stringData") if kind == SECRET else ("binaryData", "data")
    found = {key: _decoded(where, key, text) for key, text in _texts(where, manifest, encoded)}
    for key, text in _texts(where, manifest, plain):
        if kind == CONFIG_MAP and key in found:
            raise PenstockError(f"{where}: key {key} is in both data and binaryData")
        found[key] = text.encode("utf-8", "surrogatepass")
    return found


def _texts(where: str, manifest: Mapping[Any, Any], name: str) -> Iterator[tuple[str, str]]:
    content = manifest.get(name)
    if content is None:
        return
    if not isinstance(content, Mapping):
        raise PenstockError(f"{where}: {name} is not an object of keys and values")
    for number, (key, value) in enumerate(content.items(), 1):
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise PenstockError(f"{where}: {name}: key {number} is not text of letters, digits, '-', '_' and '.'")
        if value is not None and not isinstance(value, str):
            raise PenstockError(f"{where}: {name}: the value of {key} is not text; put it between quotes")
        yield key, value or ""


def _decoded(where: str, key: str, text: str) -> bytes:
    decoded = None
    with contextlib.suppress(binascii.Error, ValueError):
        decoded = base64.b64decode("".join(text.split()), validate=True)
    if decoded is None:
        raise PenstockError(f"{where}: the value of {key} is not base64; plain text goes under stringData")
    return decoded
