"""Checkpoints of a fit: one file of plain arrays, written whole or not at all.

It lies in a folder or a storage that fsspec knows, under a name made of all that decides the model, so that a fit never
takes up another one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np

from penstock.components._shared.errors import UserError
from penstock.components._shared.paths import user_path

T = TypeVar("T")

DEADLINE = 300.0  # seconds for a file to be read or written


def checkpoint_of(place: str, facts: Mapping[str, Any]) -> str:
    """Return the URI or path of the checkpoint of a fit.

    Args:
        place: Folder, a path or a URI.
        facts: All that decides the model, as JSON values.
    """
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    file = f"checkpoint-{name}.npz"
    return f"{place.rstrip('/')}/{file}" if "://" in place else str(user_path(place) / file)


class Checkpoint:
    """A checkpoint at a path or URI."""

    def __init__(self, place: str) -> None:
        self._place = place

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the arrays, or None where there are none.

        Raises:
            UserError: The place cannot be read, or holds something else.
        """

        def read() -> bytes | None:
            files, path = fsspec.core.url_to_fs(self._place, skip_instance_cache=True, use_listings_cache=False)
            try:
                with files.open(path, "rb") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        content = self._done(read)
        if content is None:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                "train", "checkpoint", f"{self._place} is no checkpoint ({error})", "Remove it to start anew"
            ) from None

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays in the place of those before.

        Raises:
            UserError: The place cannot be written.
        """
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)

        def write() -> None:
            files, path = fsspec.core.url_to_fs(self._place, skip_instance_cache=True, use_listings_cache=False)
            if "://" in self._place:
                files.pipe_file(path, content.getvalue())  # an object appears whole
                return
            file = Path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_name(f".{file.name}.{os.getpid()}")
            with unfinished.open("wb") as stream:
                stream.write(content.getvalue())
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(file)

        self._done(write)

    def remove(self) -> None:
        """Remove the checkpoint where there is one."""

        def removed() -> None:
            files, path = fsspec.core.url_to_fs(self._place, skip_instance_cache=True, use_listings_cache=False)
            if files.exists(path):
                files.rm_file(path)

        self._done(removed)

    def _done(self, work: Callable[[], T]) -> T:
        """Return what the work returns; fsspec's storages have no deadline in common, so it is done in a thread."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        if outcome:
            return outcome[0]
        problem = str(failure[0]) or type(failure[0]).__name__ if failure else f"no answer in {DEADLINE:g} s"
        remedy = "Give a folder, or a URI of a storage, that can be read and written"
        raise UserError("train", "checkpoint", f"{self._place}: {problem}", remedy)
