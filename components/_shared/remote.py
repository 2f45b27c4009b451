"""Fetches files from web servers and object stores, through fsspec and each platform's usual credentials.

Nothing waits for ever: a question has a deadline, and a download is given up once it has stood still for as long.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec

from penstock.components._shared.errors import UserError

T = TypeVar("T")

Refusal = Callable[[str, str], UserError]  # of a problem and its remedy

DEADLINE = 60.0  # seconds without an answer, or without a further byte
ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt; three times as long before the third

Options = dict[str, Any]


def _web() -> Options:
    from aiohttp import ClientTimeout  # only where it is asked: it takes a quarter of a second

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=DEADLINE)}}


def _gcs() -> Options:
    return {"timeout": DEADLINE, "requests_timeout": DEADLINE}


def _s3() -> Options:
    return {"config_kwargs": {"connect_timeout": 30, "read_timeout": DEADLINE}}


def _azure() -> Options:
    return {"connection_timeout": 30, "read_timeout": int(DEADLINE)}


@dataclass(frozen=True)
class Store:
    """What differs from one kind of storage to the next: the extra it needs, and its own deadlines."""

    extra: str
    options: Callable[[], Options]
    globs: bool = True
    writes: bool = True


STORES = {
    "https": Store("tabular", _web, globs=False, writes=False),
    "http": Store("tabular", _web, globs=False, writes=False),
    "gs": Store("gcs", _gcs),
    "s3": Store("s3", _s3),
    "abfss": Store("azure-storage", _azure),
    "abfs": Store("azure-storage", _azure),
}


@dataclass(frozen=True)
class Remote:
    """One remote file.

    Attributes:
        name: Its URI, without user, password and query, fit to be shown.
        path: Its path in the file system.
        size: Bytes, where the store says so and means the bytes that arrive.
        refuse: Makes the error of the argument that named it.
    """

    name: str
    path: str
    size: int | None
    files: Any
    refuse: Refusal

    def fetch(self, target: Path) -> None:
        """Write its bytes to `target`.

        Raises:
            UserError: It cannot be fetched, or not within the deadlines.
        """

        def fetched() -> None:
            target.unlink(missing_ok=True)
            _watched(lambda: self.files.get_file(self.path, str(target)), target)
            received = target.stat().st_size
            if self.size is not None and received != self.size:
                raise ConnectionError(f"{received} of {self.size} bytes arrived")

        attempted(fetched, self.name, self.refuse)

    def read(self, begin: int, end: int) -> bytes:
        """Return its bytes from one place to another.

        Raises:
            UserError: They cannot be fetched, or not within the deadline.
        """

        def part() -> bytes:
            found: bytes = _watched(lambda: self.files.cat_file(self.path, start=begin, end=end))
            if len(found) != end - begin:
                raise ConnectionError(f"{len(found)} of {end - begin} bytes arrived")
            return found

        return attempted(part, self.name, self.refuse)


def find(uri: str, refuse: Refusal) -> list[Remote]:
    """Return the remote files that a URI names: one, those of a folder, or those that match a glob.

    Args:
        refuse: Makes the error of the argument that holds the URI.

    Raises:
        UserError: There is none, the store is not known, cannot be reached or refuses.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme not in STORES:
        known = ", ".join(["a path", *(f"{name}://" for name in STORES)])
        raise refuse(f"unknown scheme {scheme}://", f"Give {known}")
    store, shown = STORES[scheme], _shown(uri)
    try:
        files, path = fsspec.core.url_to_fs(uri, skip_instance_cache=True, use_listings_cache=False, **store.options())
    except ImportError as error:
        raise refuse(
            f"{scheme}:// needs a package that is not installed ({error})", f"Run pip install 'penstock[{store.extra}]'"
        ) from None
    except Exception as error:
        raise _unreachable(shown, error, refuse) from None
    is_glob = store.globs and any(sign in path for sign in "*?[")

    def found() -> list[tuple[str, int | None]]:
        if is_glob:
            entries = files.glob(path, detail=True)
        elif store.globs and files.isdir(path):
            entries = {entry["name"]: entry for entry in files.ls(path, detail=True)}
            names = {name: name.rstrip("/").rpartition("/")[2] for name in entries}
            entries = {name: entry for name, entry in entries.items() if names[name][:1] not in ("", ".", "_")}
        else:
            entries = {path: files.info(path)}
        return [(name, entry.get("size")) for name, entry in sorted(entries.items()) if entry["type"] == "file"]

    entries = attempted(lambda: _watched(found), shown, refuse)
    if not entries:
        raise refuse(f"no file matches {shown}", "Check bucket and path")
    if not store.globs:  # a size there may be that of the compressed transfer, and the library checks it
        return [Remote(shown, path, None, files, refuse)]
    return [Remote(files.unstrip_protocol(name), name, size, files, refuse) for name, size in entries]


def attempted(work: Callable[[], T], name: str, refuse: Refusal, done: str = "read") -> T:
    """Do the work, once more after what may have been a passing fault.

    Args:
        done: What is to be done with what has the name, for the error.

    Raises:
        UserError: It cannot be done.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except Exception as error:
            cause = _cause(error)
            if attempt == ATTEMPTS or _is_final(cause):
                raise _unreachable(name, cause, refuse, done) from None
        time.sleep(PAUSE * 3 ** (attempt - 1))
    raise AssertionError


def _watched(work: Callable[[], T], target: Path | None = None) -> T:
    """Do the work in a thread that is left behind if it stands still."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    size, since = -1, time.monotonic()
    while thread.is_alive():
        thread.join(timeout=0.2)
        now = target.stat().st_size if target and target.exists() else -1
        if now != size:
            size, since = now, time.monotonic()
        elif thread.is_alive() and time.monotonic() - since > DEADLINE:
            raise TimeoutError(f"nothing came for {DEADLINE:.0f} s")
    if failure:
        raise failure[0]
    return outcome[0]


def _cause(error: Exception) -> Exception:
    """Return what lies behind an error: fsspec says of whatever a web server does that the file is not there."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _is_of_the_net(cause):
        return error if getattr(cause, "status", None) == 404 else cause
    return error


def _is_final(error: Exception) -> bool:
    """Whether another attempt is useless: what is not there or not allowed stays so."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotImplementedError):
        return True
    status = next((code for name in ("status", "code", "status_code") if (code := getattr(error, name, None))), None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in (408, 429)
    # Credentials that are not there: each library has a class of its own for it.
    return not _is_of_the_net(error) and "credential" in f"{type(error)}{error}".lower()


def _is_of_the_net(error: Exception) -> bool:
    aiohttp = sys.modules.get("aiohttp")  # where nobody imported it, nobody raised an error of it
    return isinstance(error, OSError | TimeoutError) or (aiohttp is not None and isinstance(error, aiohttp.ClientError))


def _unreachable(shown: str, error: Exception, refuse: Refusal, done: str = "read") -> UserError:
    if isinstance(error, FileNotFoundError):
        return refuse(f"there is no {shown}", "Check the URI")
    reason = re.sub(r"\?[^\s'\",)]*", "?…", " ".join(str(error).split()))[:300]
    if not isinstance(error, OSError | TimeoutError) or not reason:
        reason = f"{type(error).__name__} {reason}".strip()
    remedy = "Check the URI, the network and this machine's credentials for it"
    return refuse(f"{shown} cannot be {done}: {reason}", remedy)


def _shown(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
