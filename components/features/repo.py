"""Gets a feature repository, Feast's folder of definitions, from a path, an archive, an object store or git."""

from __future__ import annotations

import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from penstock.components._shared import remote
from penstock.components._shared.errors import UserError
from penstock.components._shared.paths import user_path
from penstock.components.features.problems import listed

T = TypeVar("T")

CONFIG = "feature_store.yaml"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
GIT_DEADLINE = 120.0  # seconds for all of it
GIT_QUIET = 30.0  # seconds without an answer
USER, TOKEN = "PENSTOCK_GIT_USER", "PENSTOCK_GIT_TOKEN"  # variables that git over https logs in with
_FORMS = "Give a folder, an archive, a URI of https, gs, s3 or abfss, or git+https://host/repository.git@revision"


@dataclass(frozen=True)
class Checkout:
    """A feature repository on this machine.

    Attributes:
        folder: Where its configuration lies.
        name: As the user knows it, fit to be shown.
        stays: Whether the folder is the user's own; a copy goes away when the step ends, and all that it keeps with it.
    """

    folder: Path
    name: str
    stays: bool


def check_out(repo: str, config: str, scratch: Path, component: str) -> Checkout:
    """Return a feature repository, fetched into the folder `scratch` if need be.

    Args:
        repo: Path of a folder or archive; URI of either; git+https://…@revision, or git+file://….
            `#subdirectory=feature_repo` names a folder within an archive or a git repository.
        config: File that configures the store, in the repository.
        scratch: Empty folder.
        component: Component that asks, for errors.

    Raises:
        UserError: It is not there, cannot be fetched in time, holds a secret in its URI, or lacks its configuration.
    """
    refuse = partial(UserError, component, "repo")
    if not repo.strip():
        raise refuse("is empty", _FORMS)
    location, _, fragment = repo.strip().partition("#")
    scheme = location.partition("://")[0] if "://" in location else ""
    parts = urlsplit(location)
    if parts.password is not None or (parts.username is not None and scheme.removeprefix("git+") in ("http", "https")):
        raise refuse(
            f"the URI of {parts.hostname} holds a user or a password, and parameters of a run can be read by others",
            f"Take it out; git over https logs in with {USER} and {TOKEN}, stores with their own variables",
        )
    if scheme.startswith("git+"):
        where, stays = _from_git(location.removeprefix("git+"), scratch, refuse), False
    elif scheme and scheme != "file":
        where, stays = _from_store(location, scratch, refuse), False
    else:
        path = user_path(unquote(parts.path) if scheme else location)
        if path.is_dir():
            where, stays = path, True
        elif path.is_file():
            where, stays = _unpacked(path, scratch / "unpacked", refuse), False
        else:
            raise refuse(f"there is no {location}", _FORMS)
    inside = parse_qs(fragment).get("subdirectory", [""])[0]
    folder = (where / inside).resolve()
    if not folder.is_relative_to(where.resolve()):
        raise refuse(f"subdirectory={inside} leads out of it", "Name a folder within it")
    if not (folder / config).is_file() and not inside and not stays:
        folder = next((each for each in sorted(folder.iterdir()) if (each / config).is_file()), folder)
    if not (folder / config).is_file():
        found = sorted(str(each.relative_to(where.resolve())) for each in where.resolve().rglob("*.yaml"))
        raise refuse(
            f"there is no {config} in {repo}; it has {listed(found)}",
            "Name the folder that holds it (#subdirectory=… of an archive or git), or another config",
        )
    return Checkout(folder, repo.strip(), stays)


def _from_store(uri: str, scratch: Path, refuse: remote.Refusal) -> Path:
    if uri.lower().endswith(ARCHIVES):
        [archive] = remote.find(uri, refuse)
        target = scratch / Path(urlsplit(uri).path).name
        archive.fetch(target)
        return _unpacked(target, scratch / "unpacked", refuse)
    if uri.startswith(("http://", "https://")):
        raise refuse(
            f"{uri} is no archive, and web servers have no folders", f"Give {listed(ARCHIVES)}, or use git+https"
        )
    root = uri.rstrip("/")
    folder = scratch / "fetched"
    for file in remote.find(f"{root}/**", refuse):
        # Names come back with the scheme that the store itself has.
        inside = file.name.partition("://")[2].removeprefix(urlsplit(root).netloc).split(urlsplit(root).path + "/", 1)
        target = (folder / inside[-1].lstrip("/")).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise refuse(f"{file.name} leads out of the folder", "Rename it")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.fetch(target)
    return folder


def _unpacked(archive: Path, folder: Path, refuse: remote.Refusal) -> Path:
    folder.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)  # noqa: S202 - leaves out what leads out of the folder
        else:
            with tarfile.open(archive) as packed_files:
                packed_files.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise refuse(f"{archive.name} cannot be unpacked ({error})", f"Give a folder, or {listed(ARCHIVES)}") from None
    return folder


def _from_git(location: str, scratch: Path, refuse: remote.Refusal) -> Path:
    """Return the tree of one revision, without its history."""
    parts = urlsplit(location)
    path, _, revision = parts.path.rpartition("@") if "@" in parts.path else (parts.path, "", "")
    url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    if parts.scheme not in ("https", "http", "file"):
        raise refuse(f"git+{parts.scheme}:// is not known here", "Give git+https:// or git+file://")
    folder = scratch / "cloned"

    def fetch() -> None:
        _fetch_revision(url, revision, folder, refuse)

    try:
        _within(GIT_DEADLINE, fetch)
    except UserError:
        raise
    except Exception as error:  # dulwich raises errors of many kinds, urllib3's and the system's among them
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise refuse(
            f"{url} cannot be fetched ({reason})",
            f"Check the address, the network, and {USER} and {TOKEN} where it wants a login",
        ) from None
    return folder


def _fetch_revision(url: str, revision: str, folder: Path, refuse: remote.Refusal) -> None:
    from dulwich.client import HttpGitClient, LocalGitClient
    from dulwich.index import build_index_from_tree
    from dulwich.objects import Commit, Tag
    from dulwich.repo import Repo

    parts = urlsplit(url)
    if parts.scheme == "file":
        client, path = LocalGitClient(), unquote(parts.path)
    else:
        token = os.environ.get(TOKEN, "")
        login = {"username": os.environ.get(USER) or "x-access-token", "password": token}
        client = HttpGitClient(
            urlunsplit((parts.scheme, parts.netloc, "", "", "")),
            timeout=GIT_QUIET,
            quiet=True,
            **(login if token and parts.scheme == "https" else {}),
        )
        path = parts.path
    wanted: list[bytes] = []

    def wants(refs: dict[bytes, bytes | None], depth: int | None = None) -> list[bytes]:
        names = [f"refs/heads/{revision}", f"refs/tags/{revision}", revision] if revision else ["HEAD"]
        found = next((refs[name.encode()] for name in names if refs.get(name.encode())), None)
        if found is None and re.fullmatch("[0-9a-f]{40}", revision):
            found = revision.encode()
        if found is None:
            known = sorted(
                name.decode().split("/", 2)[2] for name in refs if name.startswith((b"refs/heads/", b"refs/tags/"))
            )
            raise refuse(
                f"{url} has no branch or tag {revision or 'HEAD'!r}; it has {listed(known)}",
                "Name one of them after @, or all 40 digits of a commit",
            )
        wanted.append(found)
        return [found]

    folder.mkdir()
    with Repo.init(str(folder)) as clone:
        client.fetch(path, clone, determine_wants=wants, depth=None if parts.scheme == "file" else 1)
        found = clone[wanted[0]]
        while isinstance(found, Tag):
            found = clone[found.object[1]]
        if not isinstance(found, Commit):
            raise refuse(f"{revision} of {url} is no commit", "Name a branch, a tag or a commit")
        build_index_from_tree(clone.path, clone.index_path(), clone.object_store, found.tree)


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Do the work in a thread that is left behind if it takes too long."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"not done within {seconds:.0f} s")
    if failure:
        raise failure[0]
    return outcome[0]
