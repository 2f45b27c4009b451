"""Fetches the remote file or folder of an importer: `python -m penstock.compile.targets.local.fetch URI TARGET`.

It goes through fsspec, with each platform's usual credentials, in a process of its own: so it can be stopped and has a
log. Nothing waits for ever: a question has a deadline, and a download is given up once it has stood still for as long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import importlib.util
import logging
import os
import random
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from penstock.compile import graph, launcher
from penstock.compile.targets.local import convert

T = TypeVar("T")

DEADLINE = 60.0  # seconds without an answer, or without a further byte
LISTING = 600.0  # seconds for the list of a folder
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; three times as long before each further one
LONGEST_PAUSE = 60.0  # also of those that a server asks for
AT_ONCE = 8  # files of a folder

_CONNECT = 30  # seconds
_BLOCK = 4 << 20  # bytes of one question to a store
_INPUT = "penstock.uri"  # of the task that fetches: no input of a pipeline has such a name
_KNOWN = ("https", "s3", "gs", "abfss")  # to be named in messages


@dataclass(frozen=True)
class Store:
    """What differs from one kind of storage to the next: the package it needs, its extra, and its own deadlines."""

    package: str
    extra: str
    options: Callable[[], dict[str, Any]]
    folders: bool = True


def _web() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=DEADLINE)
    # Sizes are those of the file only where it is not compressed on the way.
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "headers": {"Accept-Encoding": "identity"}}


def _s3() -> dict[str, Any]:
    return {"config_kwargs": {"connect_timeout": _CONNECT, "read_timeout": DEADLINE}}


def _google() -> dict[str, Any]:
    return {"timeout": DEADLINE, "requests_timeout": DEADLINE}


def _azure() -> dict[str, Any]:
    return {"connection_timeout": _CONNECT, "read_timeout": int(DEADLINE)}


STORES = {
    "https": Store("aiohttp", "tabular", _web, folders=False),
    "http": Store("aiohttp", "tabular", _web, folders=False),
    "s3": Store("s3fs", "s3", _s3),
    "gs": Store("gcsfs", "gcs", _google),
    "gcs": Store("gcsfs", "gcs", _google),
    "abfss": Store("adlfs", "azure-storage", _azure),
    "abfs": Store("adlfs", "azure-storage", _azure),
    "az": Store("adlfs", "azure-storage", _azure),
}
_REMEDIES = {
    "oci": "models in images are not unpacked here; import their files from a folder or a store",
    "minio": "write it as s3:// and give its server in AWS_ENDPOINT_URL",
    "s3a": "write it as s3://",
    "wasbs": "write it as abfss://",
    "hf": "download it, and import the folder",
}


class FetchError(Exception):
    """Why something cannot be fetched, in one line without secrets."""


def fetchable(uri: str) -> str | None:
    """Return why a remote URI cannot be fetched here, without asking anyone; None if it may be.

    The reason holds no part of the URI but its scheme; `shown` says what else may be told of it.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in _KNOWN)
        return f"unknown scheme {scheme}://; {_REMEDIES.get(scheme, f'give a path, or a URI of {known}')}"
    user = re.split(r"[/?#]", uri.partition("://")[2])[0].rpartition("@")[0]
    if user and (":" in user or not STORES[scheme].folders):  # abfss://container@account is no secret
        return "it holds a user or password; take them out and give them to the environment, as the platform's tools do"
    if not urlsplit(uri).netloc:
        return "it names no host or bucket; write it in full"
    store = STORES[scheme]
    missing = [name for name in ("fsspec", store.package) if importlib.util.find_spec(name) is None]
    if missing:
        return f"{scheme}:// needs a package that is not installed ({missing[0]}); {_remedy(store)}"
    return None


def shown(uri: str) -> str:
    """Return a URI without what may be secret: user and password, and what follows a question mark."""
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    user, at, name = host.rpartition("@")
    if ":" in user or scheme.lower() in ("http", "https"):
        at = user = ""
    place, query, _ = f"{user}{at}{name}{slash}{path}".partition("?")
    return f"{scheme}://{place}{'?…' if query else ''}"


def import_task(task: graph.Task, uri: str, metadata: Mapping[str, Any], python: str) -> launcher.Task:
    """Return an importer of a remote URI as the launcher takes it: a command that fetches, with one output.

    The artifact's URI is that of the local copy: what reads it opens a path, and no machine has KFP's /gcs or /s3.

    Args:
        task: The importer.
        uri: Its URI, remote, with placeholders replaced.
        metadata: The artifact's metadata, likewise.
        python: The interpreter to run with, one that has penstock.

    Raises:
        TaskError: the URI cannot be fetched here.
    """
    if reason := fetchable(uri):
        raise launcher.TaskError(f"{task.name}: {shown(uri)}: {reason}")
    whole = convert.task(task)
    (output,) = whole.output_artifacts
    return dataclasses.replace(
        whole,
        command=[python, "-m", "penstock.compile.targets.local.fetch"],
        args=[f"{{{{$.inputs.parameters['{_INPUT}']}}}}", f"{{{{$.outputs.artifacts['{output}'].path}}}}"],
        input_parameters={_INPUT: launcher.Parameter("STRING", uri)},
        output_artifacts={output: dataclasses.replace(whole.output_artifacts[output], metadata=dict(metadata))},
    )


def fetch(uri: str, target: Path) -> tuple[int, int]:
    """Write the file or folder that a URI names to a path where nothing is, and return how many files and bytes it has.

    Nothing is there until all of it is.

    Raises:
        FetchError: it is not there, not allowed, cannot be reached, or not within the deadlines.
    """
    if reason := fetchable(uri):
        raise FetchError(f"{shown(uri)}: {reason}")
    scheme, _, rest = uri.partition("://")
    store = STORES[scheme.lower()]
    half = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files, path = _opened(f"{scheme.lower()}://{rest}", store)
        if store.folders:
            listed = _attempted(lambda: _watched(lambda: _listed(files, path), LISTING), shown(uri))
        else:
            listed = {path: ("", None)}
        _check_names([name for name, _ in listed.values()], shown(uri))
        failed = threading.Event()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            copies = [
                pool.submit(_copied, files, source, half / name if name else half, size, _within(uri, name), failed)
                for source, (name, size) in listed.items()
            ]
            try:
                total = sum(copy.result() for copy in as_completed(copies))
            except BaseException:
                failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        half.rename(target)
        return len(listed), total
    except OSError as error:
        raise FetchError(f"{target} cannot be written: {error}") from error
    finally:
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)
        else:
            half.unlink(missing_ok=True)


def _opened(uri: str, store: Store) -> tuple[Any, str]:
    """Return the file system of a URI and its path there."""
    try:
        import fsspec

        options = store.options()
        files, path = fsspec.core.url_to_fs(uri, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        scheme = uri.partition("://")[0]
        text = f"{scheme}:// needs a package that is not installed ({error}); {_remedy(store)}"
        raise FetchError(f"{shown(uri)}: {text}") from None
    except Exception as error:
        raise _refusal(shown(uri), error) from None
    return files, str(path)


def _listed(files: Any, path: str) -> dict[str, tuple[str, int | None]]:
    """Return the files at a path of a store: names below it ("" for the path itself) and sizes in bytes."""
    if not path.endswith("/"):
        try:
            about = files.info(path)
        except FileNotFoundError:
            about = {"type": "directory"}  # some stores know a folder only by what is in it
        if about["type"] == "file":
            return {path: ("", about.get("size"))}
    top = path.rstrip("/") + "/"
    found = {
        name: (name.removeprefix(top), about.get("size"))
        for name, about in files.find(top.rstrip("/"), detail=True).items()
        if about.get("type") == "file" and name.startswith(top) and not name.endswith("/")
    }
    if not found:
        raise FileNotFoundError(path)
    return found


def _check_names(names: Sequence[str], uri: str) -> None:
    """Refuse names that are no paths below a folder, or cannot be there together."""
    whole = set(names)
    for name in names:
        parts = name.split("/")
        if name and (any(part in ("", ".", "..") for part in parts) or "\0" in name):
            raise FetchError(f"{uri}: the name {name!r} in it cannot be a path; rename it")
        parents = ("/".join(parts[:count]) for count in range(1, len(parts)))
        if clash := next((parent for parent in parents if parent in whole), None):
            raise FetchError(f"{uri}: {clash!r} is a file in it and a folder as well; rename one")


def _copied(files: Any, source: str, target: Path, size: int | None, uri: str, failed: threading.Event) -> int:
    """Write one file and return its size, unless another one failed."""

    def copy() -> int:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        # A new file for each attempt: the thread of the one before may still be about to write.
        with target.open("xb") as sink:
            _watched(lambda: _pour(files, source, sink, size), DEADLINE, target, failed)
        received = target.stat().st_size
        if size is not None and received != size:
            raise ConnectionError(f"{received} of {size} bytes arrived")
        return received

    return _attempted(copy, uri)


def _pour(files: Any, source: str, sink: BinaryIO, size: int | None) -> None:
    if size is None:
        files.get_file(source, sink)
        return
    with files.open(source, "rb", block_size=_BLOCK, cache_type="none") as stream:
        while block := stream.read(_BLOCK):
            sink.write(block)
            sink.flush()


def _attempted(work: Callable[[], T], uri: str) -> T:
    """Do the work, and again after what may have been a passing fault."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except FetchError:
            raise
        except Exception as error:
            pause = min(PAUSE * 3 ** (attempt - 1), LONGEST_PAUSE) * random.SystemRandom().uniform(0.5, 1)
            asked = _asked_pause(error)
            if attempt == ATTEMPTS or not _is_passing(error) or (asked or 0) > LONGEST_PAUSE:
                raise _refusal(uri, error) from None
            pause = max(pause, asked or 0)
            print(f"{uri}: {_reason(error)}; attempt {attempt + 1} of {ATTEMPTS} in {pause:.1f} s", flush=True)
        time.sleep(pause)
    raise AssertionError("unreachable")


def _watched(
    work: Callable[[], T], deadline: float, target: Path | None = None, failed: threading.Event | None = None
) -> T:
    """Do the work in a thread that is left behind once it stands still, as `target` shows, or once another failed."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    before, since = None, time.monotonic()
    while thread.is_alive():
        thread.join(timeout=0.2)
        if failed and failed.is_set():
            raise FetchError("given up: another file could not be fetched")
        about = target.stat() if target else None
        now = about and (about.st_size, about.st_mtime_ns)
        if now != before:
            before, since = now, time.monotonic()
        elif thread.is_alive() and time.monotonic() - since > deadline:
            raise TimeoutError(f"nothing came for {deadline:g} s")
    if failure:
        raise failure[0]
    return outcome[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what lies behind it: libraries wrap what stores and the network say."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error."""
    for step in _chain(error):
        if "Payload" in type(step).__name__:  # aiohttp gives a body that was cut short a status of its own
            return None
        response = getattr(step, "response", None)
        about = response.get("ResponseMetadata", {}) if isinstance(response, Mapping) else {}
        said = [*(getattr(step, name, None) for name in ("status", "code", "status_code")), about.get("HTTPStatusCode")]
        for status in said:
            if str(status).isdigit() and 400 <= int(str(status)) < 600:
                return int(str(status))
    return None


def _asked_pause(error: BaseException) -> float | None:
    """Return the seconds that a server asked to wait, where the library tells."""
    from email.utils import parsedate_to_datetime

    for step in _chain(error):
        response = getattr(step, "response", None)
        about = response.get("ResponseMetadata", {}) if isinstance(response, Mapping) else {}
        for headers in (getattr(step, "headers", None), getattr(response, "headers", None), about.get("HTTPHeaders")):
            if not isinstance(headers, Mapping):
                continue
            text = next((str(value) for name, value in headers.items() if str(name).lower() == "retry-after"), "")
            if text.isdigit():
                return float(text)
            with contextlib.suppress(TypeError, ValueError):
                then = parsedate_to_datetime(text)
                return max((then - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)
    return None


def _is_local(error: BaseException) -> bool:
    """Whether it is this machine's disk that fails."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt may help: 408, 429, 5xx and what happens to connections."""
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    for step in _chain(error):
        kind = type(step).__name__
        if "Certificate" in kind or "credential" in kind.lower() or _is_local(step):
            return False
        if isinstance(step, ConnectionError | TimeoutError):
            return True
        if re.search(r"Connect|Timeout|Payload|IncompleteRead|Transport|ServerDisconnected|ServiceRe|gaierror", kind):
            return True
    return False


def _refusal(uri: str, error: BaseException) -> FetchError:
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FetchError(f"there is no {uri}; check the URI")
    if _is_local(error):
        return FetchError(f"{uri} cannot be kept on this machine: {error}")
    return FetchError(
        f"{uri} cannot be read: {_reason(error)}; check the URI, the network and this machine's credentials for it"
    )


def _reason(error: BaseException) -> str:
    status, asked = _status(error), _asked_pause(error)
    reason = re.sub(r"(?<=://)[^/\s'\"]*@", "", " ".join(str(error).split()))
    reason = re.sub(r"\?[^\s'\",)]*", "?…", reason)[:300]
    if not reason and isinstance(error, TimeoutError):
        reason = f"nothing came for {DEADLINE:g} s"
    if not isinstance(error, OSError) or not reason:
        reason = f"{type(error).__name__} {reason}".strip()
    if status and str(status) not in reason:
        reason = f"{status}, {reason}"
    return f"{reason} (to be asked again in {asked:.0f} s)" if asked else reason


def _remedy(store: Store) -> str:
    return f"run pip install 'penstock[{store.extra}]'"


def _within(uri: str, name: str) -> str:
    return f"{shown(uri).rstrip('/')}/{name}" if name else shown(uri)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what the command line names and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2:
        print("usage: python -m penstock.compile.targets.local.fetch URI TARGET", file=sys.stderr)
        return 2
    uri, target = arguments
    logging.getLogger().addHandler(logging.NullHandler())  # libraries log errors with the whole URI
    begin = time.monotonic()
    print(f"fetching {shown(uri)}", flush=True)
    try:
        count, size = fetch(uri, Path(target))
    except FetchError as error:
        print(f"error: importer: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return launcher.USER_ERROR_EXIT_CODE
    what = "1 file" if count == 1 else f"{count} files"
    print(f"fetched {what}, {size} bytes, in {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
