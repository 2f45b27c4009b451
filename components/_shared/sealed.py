"""Sealed folders: readers see a whole output or none.

A manifest, written last, names every file of the folder with its size and sha256. A folder without a manifest,
or one that its manifest does not describe, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError

MANIFEST = "manifest.json"


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make an empty folder at `path`, what was there before removed; remove it again if the block fails."""
    folder = Path(path)
    _remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        _remove(folder)
        raise


def seal(folder: Path, kind: str, facts: Mapping[str, Any], files: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Write the manifest of a finished folder, atomically and last.

    Args:
        folder: Folder whose files are all written.
        kind: Format and its version, for example "penstock.dataset/1".
        facts: JSON values that readers need beside the files.
        files: What entry() says of each, where others wrote them. None: those that are there.
    """
    if files is None:
        files = [entry(path, path.relative_to(folder).as_posix()) for path in _files(folder)]
    manifest = {"kind": kind, **facts, "files": list(files)}
    unfinished = folder / (MANIFEST + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(folder / MANIFEST)


def entry(path: Path, name: str) -> dict[str, Any]:
    """Return what a manifest says of a file that has a name in its folder."""
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def unseal(
    path: str | os.PathLike[str], kind: str, component: str, argument: str, besides: Collection[str] = ()
) -> dict[str, Any]:
    """Check a sealed folder, every byte of it, and return its manifest.

    Args:
        besides: Names of files and folders that others may have put there since, and that nobody reads.

    Raises:
        UserError: There is no such folder, no manifest, another kind, or a file is missing, altered or extra.
    """
    folder = Path(path)

    def refuse(problem: str) -> UserError:
        return UserError(component, argument, f"{folder}: {problem}", "Run the step that writes it again")

    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = f"has no {MANIFEST}, so it was never finished" if folder.is_dir() else "no such folder"
        raise refuse(problem) from None
    except (NotADirectoryError, ValueError) as error:
        raise refuse(f"its {MANIFEST} cannot be read ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else None
        raise refuse(f"is of kind {found!r}, not {kind!r}")
    listed = {entry["path"]: entry for entry in manifest["files"]}
    present = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    for name in present.keys() - listed.keys():
        if not set(besides).isdisjoint(name.split("/")):
            del present[name]
    for name in sorted(listed.keys() | present.keys()):
        if name not in present:
            raise refuse(f"{name} is missing")
        if name not in listed:
            raise refuse(f"{name} is not in the manifest")
        if present[name].stat().st_size != listed[name]["bytes"]:
            raise refuse(f"{name} was truncated or extended")
        if sha256(present[name]) != listed[name]["sha256"]:
            raise refuse(f"{name} was altered")
    return manifest


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of a folder's files, in hex."""
    found = hashlib.sha256()
    for path in _files(folder):
        found.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return found.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # The manifest goes first: who is killed half-way leaves a folder that was never finished, not a damaged one.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
