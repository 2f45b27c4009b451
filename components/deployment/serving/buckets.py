"""Google Cloud Storage, where gcsfs is installed: models are read from it, and request logs written to it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components.deployment.serving.settings import COMPONENT

SCHEME = "gs://"
SECONDS = 60.0  # for a file of the request log to be written


def is_bucket(place: str) -> bool:
    """Whether a place is in a bucket; other schemes than gs:// are refused.

    Raises:
        UserError: It is a URL of something else.
    """
    scheme, separator, _ = place.partition("://")
    if separator and scheme != "gs":
        raise UserError(
            COMPONENT, "model", f"{place}: {scheme}:// is not read here", "Give a path, or gs://BUCKET/FOLDER"
        )
    return bool(separator)


def fetch(place: str, folder: Path) -> None:
    """Copy the files below gs://BUCKET/FOLDER into a folder.

    Raises:
        UserError: gcsfs is not installed, or there is nothing, or it cannot be read.
    """
    storage = _storage(place)
    try:
        found = storage.find(place.removeprefix(SCHEME))
        if not found:
            raise UserError(COMPONENT, "model", f"{place}: there is no such folder", "Check bucket and folder")
        base = place.removeprefix(SCHEME).rstrip("/")
        for name in found:
            target = folder / posixpath.relpath(name, base)
            if folder not in target.resolve().parents:
                raise UserError(COMPONENT, "model", f"{place}: {name} is no name of a file", "Remove it")
            target.parent.mkdir(parents=True, exist_ok=True)
            storage.get_file(name, str(target))
    except UserError:
        raise
    except Exception as error:  # gcsfs raises what aiohttp, google.auth and the operating system raise
        raise UserError(
            COMPONENT, "model", f"{place} cannot be read: {error or type(error).__name__}", "Check rights and network"
        ) from error


def into_bucket(place: str) -> Callable[[str, bytes], None]:
    """Return what writes files below gs://BUCKET/FOLDER; an object appears whole or not at all.

    Raises:
        UserError: gcsfs is not installed.
    """
    storage = _storage(place)
    base = place.removeprefix(SCHEME).rstrip("/")

    def store(name: str, content: bytes) -> None:
        storage.pipe_file(f"{base}/{name}", content, timeout=SECONDS)

    return store


def _storage(place: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem("gs")
    except ImportError as error:
        raise UserError(
            COMPONENT, "model", f"{place} cannot be read: {error}", "Install it: pip install 'penstock[serving,gcs]'"
        ) from None
    except Exception as error:  # google.auth's, where nobody is logged in
        raise UserError(COMPONENT, "model", f"{place} cannot be read: {error}", "Log in to Google Cloud") from error
