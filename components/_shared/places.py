"""Files at places: paths of this machine, or URIs of object stores, which workers on other machines reach, too.

Stores are reached as sources are, by fsspec, with deadlines and the credentials that a process finds around it. A file
is seen whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from penstock.components._shared.errors import UserError

T = TypeVar("T")


def is_remote(place: str) -> bool:
    """Return whether a place is a URI."""
    return "://" in place


def stores() -> list[str]:
    """Return the schemes of the stores that can be written to."""
    from penstock.components._shared.remote import STORES

    return [scheme for scheme, store in STORES.items() if store.writes]


def opened(place: str) -> IO[bytes]:
    """Open a file to read."""
    if not is_remote(place):
        return open(place, "rb")
    return _done(place, "read", lambda files, path: files.open(path, "rb"))


def read(place: str) -> bytes:
    """Return the bytes of a file."""
    if not is_remote(place):
        return Path(place).read_bytes()
    return _done(place, "read", lambda files, path: files.cat_file(path))


def write(data: bytes, place: str) -> None:
    """Write the bytes of a file; folders on the way to it are made."""
    if is_remote(place):
        _done(place, "written", lambda files, path: files.pipe_file(path, data))
        return
    with _whole(place) as unfinished:
        unfinished.write_bytes(data)


def put(file: Path, place: str) -> None:
    """Copy a file of this machine to a place."""
    if is_remote(place):
        _done(place, "written", lambda files, path: files.put_file(str(file), path))
        return
    with _whole(place) as unfinished:
        shutil.copyfile(file, unfinished)


def names(folder: str) -> list[str]:
    """Return the names of all files below a folder, as paths that begin there."""
    if not is_remote(folder):
        return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())

    def found(files: Any, path: str) -> list[str]:
        inside = f"{path.rstrip('/')}/"
        return sorted(name.removeprefix(inside) for name in files.find(path) if name.startswith(inside))

    return _done(folder, "listed", found)


def fetch(folder: str, target: Path) -> None:
    """Copy all files below a folder into a folder of this machine."""
    for name in names(folder):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _get(f"{folder}/{name}", target / name)


def remove(folder: str, which: Iterable[str]) -> None:
    """Remove files of a folder by their names; one that is gone already is no error."""
    for name in which:
        _remove(f"{folder}/{name}")


def clear(folder: str) -> None:
    """Remove a folder with all that is in it."""
    if is_remote(folder):
        remove(folder, names(folder))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _get(place: str, target: Path) -> None:
    if is_remote(place):
        _done(place, "read", lambda files, path: files.get_file(path, str(target)))
    else:
        shutil.copyfile(place, target)


def _remove(place: str) -> None:
    if not is_remote(place):
        Path(place).unlink(missing_ok=True)
        return

    def removed(files: Any, path: str) -> None:
        with suppress(FileNotFoundError):
            files.rm_file(path)

    _done(place, "removed", removed)


@contextmanager
def _whole(place: str) -> Iterator[Path]:
    """Yield where a file is written before it is at its place."""
    target = Path(place)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _done(place: str, what: str, work: Callable[[Any, str], T]) -> T:
    import fsspec

    from penstock.components._shared import remote

    scheme = place.partition("://")[0]
    if scheme not in stores():
        raise _refuse(f"{place} is in no store that can be written to", f"Give {', '.join(stores())}")
    options = remote.STORES[scheme].options()
    try:
        files, path = fsspec.core.url_to_fs(place, use_listings_cache=False, **options)
    except ImportError as error:
        extra = remote.STORES[scheme].extra
        raise _refuse(
            f"{place} needs a package that is not installed ({error})", f"pip install 'penstock[{extra}]'"
        ) from None
    return remote.attempted(lambda: work(files, path), place, _refuse, what)


def _refuse(problem: str, remedy: str) -> UserError:
    """Return an error whose component is that of whoever is asked; see errors.on_behalf_of."""
    return UserError("storage", "uri", problem, remedy)
