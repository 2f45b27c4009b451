"""The work of `fetch_model`: a model folder out of a registry, a bucket or this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from penstock.components._shared import remote
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import KIND, LEFT_BY_OTHERS
from penstock.components._shared.paths import user_path
from penstock.components._shared.sealed import MANIFEST, new_folder, unseal

COMPONENT = "fetch_model"
REGISTERED = re.compile(r"models:/(?P<name>[^@/]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Fetched:
    """Where a model came from.

    Attributes:
        uri: The source; of a registry with the version, for example models:/tips/3.
        version: In the registry; empty where it came from elsewhere.
    """

    uri: str
    version: str


def fetch(source: str, model: str | os.PathLike[str], *, registry: str = "") -> Fetched:
    """Write a verified copy of a model folder, and return where it came from.

    Args:
        source: models:/NAME@ALIAS or models:/NAME/VERSION in the registry; or the path or URI of a model folder.
        model: Folder to write.
        registry: URI of the MLflow registry. Empty: the environment's, or the local run folder's.

    Raises:
        UserError: There is no such model, it cannot be fetched, or it was altered. Then no folder is left.
    """
    if source.startswith("models:"):
        return _registered(source, Path(model), registry)
    with new_folder(model) as folder:
        if "://" in source:
            _download(source.rstrip("/"), folder)
        else:
            unseal(user_path(source), KIND, COMPONENT, "source", besides=LEFT_BY_OTHERS)
            _copy(user_path(source), folder)
        unseal(folder, KIND, COMPONENT, "source")
    return Fetched(source, "")


def _registered(source: str, model: Path, registry: str) -> Fetched:
    parts = REGISTERED.fullmatch(source)
    if not parts:
        raise _refuse(
            f"{source!r} names no version", "Write models:/NAME@ALIAS or models:/NAME/VERSION, as models:/tips@champion"
        )
    from penstock.components._shared.mlflow_registry import open_registry  # MLflow takes a second to import

    opened = open_registry(registry, COMPONENT)
    aliases = {} if parts["version"] else opened.aliases(parts["name"])
    version = parts["version"] or aliases.get(parts["alias"], "")
    if not version:
        known = f"It has {', '.join(aliases)}" if aliases else "Register a model under it first"
        raise _refuse(f"{parts['name']} has no alias {parts['alias']} in {opened.uri}", known)
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as temporary, new_folder(model) as folder:
        fetched = opened.folder(parts["name"], version, Path(temporary))
        unseal(fetched, KIND, COMPONENT, "source", besides=LEFT_BY_OTHERS)
        _copy(fetched, folder)
    return Fetched(f"models:/{parts['name']}/{version}", version)


def _copy(source: Path, folder: Path) -> None:
    """Copy the files that the manifest names, and it last."""
    for name in (*_listed(source / MANIFEST), MANIFEST):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _download(uri: str, folder: Path) -> None:
    [manifest] = remote.find(f"{uri}/{MANIFEST}", _refuse)
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as temporary:
        listing = Path(temporary) / MANIFEST
        manifest.fetch(listing)
        for name in _listed(listing):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            [file] = remote.find(f"{uri}/{name}", _refuse)
            file.fetch(folder / name)
        shutil.copyfile(listing, folder / MANIFEST)


def _listed(manifest: Path) -> list[str]:
    try:
        names = [str(entry["path"]) for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _refuse(f"its {MANIFEST} cannot be read ({error})", "Give a model that train wrote") from None
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _refuse(f"its {MANIFEST} names {name}, which is outside of it", "Give a model that train wrote")
    return names


def _refuse(problem: str, remedy: str) -> UserError:
    return UserError(COMPONENT, "source", problem, remedy)
