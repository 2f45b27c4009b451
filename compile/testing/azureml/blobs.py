"""Blob storage of a workspace, as far as clients of Azure ML touch it: containers and block blobs, in memory."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import itertools
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from penstock.testing.server import Answer, Request, Route

# The client puts the name of the account before ".blob." and the ending. Here the account lies in the path, as in
# emulators of storage: the account's name is an address and a path, and what the client makes of it is a URL to here.
ACCOUNT = "account"
SUFFIX = "penstock.testing"
PREFIX = f"/{ACCOUNT}.blob.{SUFFIX}"
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_BLOCK = re.compile(r"<(Latest|Committed|Uncommitted)>([^<]*)</")
_MOST_LISTED = 5000
_PROPERTIES = ("content-type", "content-encoding", "content-language", "content-disposition", "cache-control")


@dataclass
class Blob:
    """A blob: its bytes, its metadata and its properties as headers."""

    content: bytes
    metadata: dict[str, str]
    properties: dict[str, str]
    etag: str
    modified: str = field(default_factory=lambda: email.utils.formatdate(usegmt=True))


class BlobError(Exception):
    """What the storage refuses, with its own code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Blobs:
    """Containers of one account. A container that was not made is not there."""

    def __init__(self) -> None:
        self._containers: dict[str, dict[str, Blob]] = {}
        self._blocks: dict[tuple[str, str], dict[str, bytes]] = {}
        self._numbers = itertools.count(1)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        container = f"{PREFIX}/{{container}}"
        blob = f"{container}/{{name...}}"
        found = [
            Route("PUT", container, self._create_container),
            Route("DELETE", container, self._delete_container),
            Route("GET", container, self._list),
            Route("HEAD", container, self._container_properties),
            Route("PUT", blob, self._put),
            Route("GET", blob, self._get),
            Route("HEAD", blob, self._head),
            Route("DELETE", blob, self._delete),
        ]
        return [Route(each.method, each.path, _told(each.handler)) for each in found]

    def make(self, container: str) -> None:
        """Make a container, where it is not there."""
        self._containers.setdefault(container, {})

    def put(self, container: str, name: str, content: bytes) -> None:
        """Keep a blob."""
        self.make(container)
        self._write(container, name, content, {}, {"content-type": "application/octet-stream"})

    def read(self, container: str, name: str) -> bytes:
        """Return the bytes of a blob.

        Raises:
            KeyError: there is none.
        """
        return self._containers[container][name].content

    def names(self, container: str, prefix: str = "") -> list[str]:
        """Return the names of a container's blobs, in their order."""
        return sorted(name for name in self._containers.get(container, {}) if name.startswith(prefix))

    @staticmethod
    def sas() -> str:
        """Return a query that lets who has it read and write, as shared access signatures do."""
        return f"sv=2024-11-04&sr=c&sp=racwdl&se=2100-01-01T00%3A00%3A00Z&sig={secrets.token_hex(16)}"

    def _blobs(self, container: str) -> dict[str, Blob]:
        if container not in self._containers:
            raise BlobError(404, "ContainerNotFound", f"The specified container {container} does not exist.")
        return self._containers[container]

    def _blob(self, container: str, name: str) -> Blob:
        blobs = self._blobs(container)
        if name not in blobs:
            raise BlobError(404, "BlobNotFound", f"The specified blob {container}/{name} does not exist.")
        return blobs[name]

    def _check(self, request: Request, blob: Blob | None) -> None:
        """Hold a request's conditions to the blob that is there."""
        wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
        if wanted and (blob is None or wanted not in ("*", blob.etag)):
            raise BlobError(412, "ConditionNotMet", "The condition of If-Match is not met.")
        if unwanted and blob is not None and unwanted in ("*", blob.etag):
            if request.method == "PUT" and unwanted == "*":
                raise BlobError(409, "BlobAlreadyExists", "The specified blob already exists.")
            raise BlobError(
                304 if request.method == "GET" else 412, "ConditionNotMet", "The condition of If-None-Match is not met."
            )

    def _write(
        self, container: str, name: str, content: bytes, metadata: dict[str, str], properties: dict[str, str]
    ) -> Blob:
        if len(name) > 1024:
            raise BlobError(400, "OutOfRangeInput", "The name of a blob has at most 1024 characters.")
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        blob = Blob(content, metadata, {**properties, "content-md5": digest}, self._etag())
        self._blobs(container)[name] = blob
        return blob

    def _etag(self) -> str:
        return f'"0x8D{next(self._numbers):013X}"'

    def _create_container(self, request: Request, container: str) -> Any:
        if not _CONTAINER.fullmatch(container):
            raise BlobError(400, "InvalidResourceName", f"{container} is no name of a container.")
        if container in self._containers:
            raise BlobError(409, "ContainerAlreadyExists", "The specified container already exists.")
        self.make(container)
        return Answer(status=201)

    def _delete_container(self, request: Request, container: str) -> Any:
        self._blobs(container)
        del self._containers[container]
        return Answer(status=202)

    def _container_properties(self, request: Request, container: str) -> Any:
        self._blobs(container)
        return Answer(headers={"ETag": '"0x8D0"', "Last-Modified": email.utils.formatdate(usegmt=True)})

    def _put(self, request: Request, container: str, name: str) -> Any:
        doing = request.query.get("comp", "")
        if doing == "block":
            self._blobs(container)
            self._blocks.setdefault((container, name), {})[request.query["blockid"]] = request.content
            return Answer(status=201)
        there = self._blobs(container).get(name)
        self._check(request, there)
        if doing == "metadata":
            blob = self._blob(container, name)
            blob.metadata, blob.etag = _metadata(request), self._etag()
            return Answer(headers=_stamps(blob))
        if doing == "blocklist":
            content = self._assembled(request, container, name)
            properties = {
                key: request.headers[f"x-ms-blob-{key}"] for key in _PROPERTIES if f"x-ms-blob-{key}" in request.headers
            }
        elif doing:
            raise BlobError(501, "NotImplemented", f"The stand-in has no PUT of a blob with comp={doing}.")
        elif request.headers.get("x-ms-blob-type") != "BlockBlob":
            raise BlobError(400, "InvalidHeaderValue", "x-ms-blob-type: the stand-in keeps BlockBlob alone.")
        elif "x-ms-copy-source" in request.headers:
            raise BlobError(501, "NotImplemented", "The stand-in copies no blobs.")
        else:
            content = request.content
            properties = {
                key: request.headers.get(f"x-ms-blob-{key}") or request.headers[key]
                for key in _PROPERTIES
                if f"x-ms-blob-{key}" in request.headers or key in request.headers
            }
        blob = self._write(container, name, content, _metadata(request), properties)
        return Answer(status=201, headers=_stamps(blob))

    def _assembled(self, request: Request, container: str, name: str) -> bytes:
        blocks = self._blocks.pop((container, name), {})
        wanted = [found[1] for found in _BLOCK.findall(request.content.decode())]
        missing = [each for each in wanted if each not in blocks]
        if missing:
            raise BlobError(400, "InvalidBlockList", f"No block {missing[0]} was put.")
        return b"".join(blocks[each] for each in wanted)

    def _get(self, request: Request, container: str, name: str) -> Any:
        blob = self._blob(container, name)
        self._check(request, blob)
        size, headers = len(blob.content), _headers(blob)
        found = re.fullmatch(
            r"bytes=(\d+)-(\d*)", request.headers.get("x-ms-range") or request.headers.get("range") or ""
        )
        if not found:
            return Answer(blob.content, headers=headers)
        start, end = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if start >= size:
            raise BlobError(416, "InvalidRange", "The range begins after the end of the blob.")
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        # Of the range, not of the whole.
        del headers["Content-MD5"]
        return Answer(blob.content[start : end + 1], 206, headers)

    def _head(self, request: Request, container: str, name: str) -> Any:
        blob = self._blob(container, name)
        self._check(request, blob)
        return Answer(headers={**_headers(blob), "Content-Length": str(len(blob.content))})

    def _delete(self, request: Request, container: str, name: str) -> Any:
        self._check(request, self._blob(container, name))
        del self._containers[container][name]
        return Answer(status=202)

    def _list(self, request: Request, container: str) -> Any:
        if request.query.get("comp") != "list":
            return self._container_properties(request, container)
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
        size = min(int(request.query.get("maxresults") or _MOST_LISTED), _MOST_LISTED)
        after = request.query.get("marker", "")
        entries: dict[str, str] = {}
        following = last = ""
        for name, blob in sorted(self._blobs(container).items()):
            if not name.startswith(prefix) or name <= after:
                continue
            if len(entries) >= size:
                following = last
                break
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest.partition(delimiter)[0] + delimiter
                entries[folder] = f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>"
            else:
                entries[name] = _entry(name, blob)
            last = name
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{container}">'
            f"<Prefix>{escape(prefix)}</Prefix><Blobs>{''.join(entries.values())}</Blobs>"
            f"<NextMarker>{escape(following)}</NextMarker></EnumerationResults>"
        )
        return Answer(text.encode(), headers={"Content-Type": "application/xml"})


def _told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that asks for a signature or a token, and tells of errors as the storage does."""

    def told(request: Request, **names: str) -> Any:
        try:
            if "sig" not in request.query and "authorization" not in request.headers:
                raise BlobError(401, "NoAuthenticationInformation", "Server failed to authenticate the request.")
            return handler(request, **names)
        except BlobError as error:
            text = f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>"
            headers = {"Content-Type": "application/xml", "x-ms-error-code": error.code}
            return Answer(b"" if request.method == "HEAD" else text.encode(), error.status, headers)

    return told


def _metadata(request: Request) -> dict[str, str]:
    found = {
        name.removeprefix("x-ms-meta-"): value
        for name, value in request.headers.items()
        if name.startswith("x-ms-meta-")
    }
    if any(not re.fullmatch(r"[A-Za-z_]\w*", name) for name in found):
        raise BlobError(400, "InvalidMetadata", "Names of metadata are names of variables in C#.")
    return found


def _stamps(blob: Blob) -> dict[str, str]:
    return {"ETag": blob.etag, "Last-Modified": blob.modified, "x-ms-request-server-encrypted": "true"}


def _headers(blob: Blob) -> dict[str, str]:
    return {
        **{"-".join(part.capitalize() for part in name.split("-")): value for name, value in blob.properties.items()},
        "Content-MD5": blob.properties["content-md5"],
        **_stamps(blob),
        **{f"x-ms-meta-{name}": value for name, value in blob.metadata.items()},
        "x-ms-blob-type": "BlockBlob",
        "Accept-Ranges": "bytes",
    }


def _entry(name: str, blob: Blob) -> str:
    metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob.metadata.items())
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{blob.modified}</Last-Modified>"
        f"<Etag>{escape(blob.etag.strip(chr(34)))}</Etag><Content-Length>{len(blob.content)}</Content-Length>"
        f"<Content-Type>{escape(blob.properties.get('content-type', ''))}</Content-Type>"
        f"<Content-MD5>{blob.properties['content-md5']}</Content-MD5><BlobType>BlockBlob</BlobType></Properties>"
        f"<Metadata>{metadata}</Metadata></Blob>"
    )
