"""Cloud Storage, as far as clients of Vertex AI touch it: objects with generations and preconditions, in memory."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.testing.multipart import parts
from penstock.testing.server import Answer, ApiError, Request, Route
from penstock.testing.times import now

PROJECT_NUMBER = 123456789012
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_MOST_LISTED = 1000


@dataclass
class Blob:
    """An object: its bytes and its metadata."""

    content: bytes
    resource: dict[str, Any]


@dataclass
class _Upload:
    """A resumable upload that has begun."""

    bucket: str
    name: str
    resource: dict[str, Any]
    query: Mapping[str, str]
    content: bytearray = field(default_factory=bytearray)


class Storage:
    """Buckets in memory. A bucket that is named and was not made is not there."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, Any]] = {}
        self._blobs: dict[str, dict[str, Blob]] = {}
        self._policies: dict[str, Any] = {}
        self._uploads: dict[str, _Upload] = {}
        self._numbers = itertools.count(1)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        bucket, one = "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o/{name...}"
        return [
            Route("GET", "/storage/v1/b", self._list_buckets),
            Route("POST", "/storage/v1/b", self._create_bucket),
            Route("GET", bucket, lambda request, bucket: self._bucket(bucket)),
            Route("DELETE", bucket, self._delete_bucket),
            Route("GET", f"{bucket}/iam", self._policy),
            Route("PUT", f"{bucket}/iam", self._set_policy),
            Route("GET", f"{bucket}/o", self._list),
            Route("POST", f"/upload{bucket}/o", self._upload),
            Route("PUT", f"/upload{bucket}/o", self._upload_more),
            Route("POST", f"{one}/rewriteTo/b/{{to_bucket}}/o/{{to_name...}}", self._rewrite),
            Route("POST", f"{one}/copyTo/b/{{to_bucket}}/o/{{to_name...}}", self._copy),
            Route("POST", f"{one}/compose", self._compose),
            Route("GET", f"/download{one}", self._download),
            Route("GET", one, self._get),
            Route("PATCH", one, self._patch),
            Route("DELETE", one, self._delete),
        ]

    def put(self, uri: str, content: bytes) -> None:
        """Keep an object, as gs://BUCKET/NAME, in a bucket that is made where it is not there."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self._buckets.setdefault(bucket, _bucket_resource(bucket, {}))
        self._write(bucket, name, content, {}, {})

    def read(self, uri: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            ApiError: it is not there.
        """
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        return self._blob(bucket, name, {}).content

    def names(self, uri: str) -> list[str]:
        """Return the URIs of all objects that begin so, sorted."""
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        return [f"gs://{bucket}/{name}" for name in sorted(self._blobs.get(bucket, {})) if name.startswith(prefix)]

    # Buckets.

    def _bucket(self, bucket: str) -> dict[str, Any]:
        if bucket not in self._buckets:
            raise ApiError(404, "The specified bucket does not exist.")
        return self._buckets[bucket]

    def _list_buckets(self, request: Request) -> Any:
        prefix = request.query.get("prefix", "")
        found = [each for name, each in sorted(self._buckets.items()) if name.startswith(prefix)]
        return {"kind": "storage#buckets", "items": found}

    def _create_bucket(self, request: Request) -> Any:
        body = request.json()
        name = body.get("name", "")
        if not _BUCKET_NAME.fullmatch(name):
            raise ApiError(400, f"Invalid bucket name: '{name}'")
        if name in self._buckets:
            raise ApiError(409, "Your previous request to create the named bucket succeeded and you already own it.")
        self._buckets[name] = _bucket_resource(name, body)
        return self._buckets[name]

    def _delete_bucket(self, request: Request, bucket: str) -> Any:
        self._bucket(bucket)
        if self._blobs.get(bucket):
            raise ApiError(409, "The bucket you tried to delete is not empty.")
        del self._buckets[bucket]
        return Answer(status=204)

    def _policy(self, request: Request, bucket: str) -> Any:
        self._bucket(bucket)
        return self._policies.get(bucket, {"kind": "storage#policy", "version": 1, "etag": "CAE=", "bindings": []})

    def _set_policy(self, request: Request, bucket: str) -> Any:
        self._bucket(bucket)
        self._policies[bucket] = {"kind": "storage#policy", "etag": "CAE=", **request.json()}
        return self._policies[bucket]

    # Objects.

    def _blob(self, bucket: str, name: str, query: Mapping[str, str]) -> Blob:
        self._bucket(bucket)
        blob = self._blobs.get(bucket, {}).get(name)
        wanted = query.get("generation")
        if blob is None or (wanted and wanted != blob.resource["generation"]):
            raise ApiError(404, f"No such object: {bucket}/{name}")
        return blob

    def _check(self, bucket: str, name: str, query: Mapping[str, str], prefix: str = "if") -> None:
        """Refuse what does not meet its preconditions.

        Raises:
            ApiError: it does not.
        """
        blob = self._blobs.get(bucket, {}).get(name)
        current = blob.resource if blob else {"generation": "0", "metageneration": "0"}
        for what in ("generation", "metageneration"):
            title = what.capitalize()
            match, other = query.get(f"{prefix}{title}Match"), query.get(f"{prefix}{title}NotMatch")
            if (match is not None and match != current[what]) or (other is not None and other == current[what]):
                raise ApiError(
                    412, "At least one of the pre-conditions you specified did not hold: "
                    f"the {what} of {bucket}/{name} is {current[what]}."
                )  # fmt: skip

    def _write(
        self, bucket: str, name: str, content: bytes, given: Mapping[str, Any], query: Mapping[str, str]
    ) -> dict[str, Any]:
        self._bucket(bucket)
        if not name or len(name.encode()) > 1024:
            raise ApiError(400, "Required: an object's name, of at most 1024 bytes.")
        self._check(bucket, name, query)
        stamp, digest = now(), base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        sums = {"md5Hash": digest, **_crc32c(content)}
        for key, value in sums.items():
            if given.get(key) and given[key] != value:
                raise ApiError(400, f"Provided {key} {given[key]!r} does not match what came, {value!r}.")
        generation = str(1_700_000_000_000_000 + next(self._numbers))
        resource = {
            "contentType": "application/octet-stream",
            **given,
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": generation,
            "metageneration": "1",
            "size": str(len(content)),
            "storageClass": "STANDARD",
            "timeCreated": stamp,
            "updated": stamp,
            "etag": generation,
            **sums,
        }
        self._blobs.setdefault(bucket, {})[name] = Blob(content, resource)
        return resource

    def _upload(self, request: Request, bucket: str) -> Any:
        kind, query = request.query.get("uploadType", "media"), request.query
        if "upload_id" in query:  # gcsfs posts where others put
            return self._upload_more(request, bucket)
        if kind == "multipart":
            about, data = parts(request.headers.get("content-type", ""), request.content)
            given = json.loads(about.content)
            given.setdefault("contentType", data.headers.get("content-type", "application/octet-stream"))
            return self._write(bucket, given.get("name") or query.get("name", ""), data.content, given, query)
        if kind == "media":
            given = {"contentType": request.headers.get("content-type", "application/octet-stream")}
            return self._write(bucket, query.get("name", ""), request.content, given, query)
        given = json.loads(request.content or b"{}")
        name = given.get("name") or query.get("name", "")
        given.setdefault("contentType", request.headers.get("x-upload-content-type", "application/octet-stream"))
        self._bucket(bucket)
        self._check(bucket, name, query)
        number = f"upload-{next(self._numbers)}"
        self._uploads[number] = _Upload(bucket, name, given, query)
        host = request.headers.get("host", "")
        address = f"http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
        return Answer(headers={"Location": address})

    def _upload_more(self, request: Request, bucket: str) -> Any:
        number = request.query.get("upload_id", "")
        if number not in self._uploads:
            raise ApiError(404, "There is no such upload.")
        upload = self._uploads[number]
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers.get("content-range", "bytes */*"))
        if found is None:
            raise ApiError(400, "Invalid Content-Range.")
        start, total = found[1], found[3]
        if start is None and "content-range" not in request.headers:
            upload.content, total = bytearray(request.content), str(len(request.content))
        elif start is not None:
            if int(start) > len(upload.content):
                raise ApiError(400, f"{len(upload.content)} bytes have come; these begin at {start}.")
            upload.content[int(start) :] = request.content
        if total == "*" or len(upload.content) < int(total):
            range_ = {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
            return Answer(status=308, headers=range_)
        resource = self._write(bucket, upload.name, bytes(upload.content), upload.resource, upload.query)
        del self._uploads[number]
        return resource

    def _get(self, request: Request, bucket: str, name: str) -> Any:
        if request.query.get("alt") == "media":
            return self._download(request, bucket, name)
        blob = self._blob(bucket, name, request.query)
        self._check(bucket, name, request.query)
        return blob.resource

    def _download(self, request: Request, bucket: str, name: str) -> Any:
        blob = self._blob(bucket, name, request.query)
        self._check(bucket, name, request.query)
        resource, content = blob.resource, blob.content
        sums = ",".join(
            f"{short}={resource[key]}" for short, key in (("crc32c", "crc32c"), ("md5", "md5Hash")) if key in resource
        )
        headers = {
            "Content-Type": str(resource["contentType"]),
            "X-Goog-Generation": resource["generation"],
            "X-Goog-Metageneration": resource["metageneration"],
            "X-Goog-Hash": sums,
            "ETag": resource["etag"],
        }
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if not found:
            return Answer(content, headers=headers)
        start, end = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
        if start >= len(content):
            return Answer(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return Answer(content[start : end + 1], 206, headers)

    def _patch(self, request: Request, bucket: str, name: str) -> Any:
        blob = self._blob(bucket, name, request.query)
        self._check(bucket, name, request.query)
        blob.resource.update(request.json())
        blob.resource["metageneration"] = str(int(blob.resource["metageneration"]) + 1)
        blob.resource["updated"] = now()
        return blob.resource

    def _delete(self, request: Request, bucket: str, name: str) -> Any:
        self._blob(bucket, name, request.query)
        self._check(bucket, name, request.query)
        del self._blobs[bucket][name]
        return Answer(status=204)

    def _list(self, request: Request, bucket: str) -> Any:
        self._bucket(bucket)
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
        size = min(int(request.query.get("maxResults") or _MOST_LISTED), _MOST_LISTED)
        after = request.query.get("pageToken", "")
        items: list[dict[str, Any]] = []
        prefixes: dict[str, None] = {}
        last = ""
        for name, blob in sorted(self._blobs.get(bucket, {}).items()):
            if not name.startswith(prefix) or name <= after:
                continue
            if len(items) + len(prefixes) >= size:
                return {"kind": "storage#objects", "items": items, "prefixes": list(prefixes), "nextPageToken": last}
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes[prefix + rest.partition(delimiter)[0] + delimiter] = None
            else:
                items.append(blob.resource)
            last = name
        return {"kind": "storage#objects", "items": items, "prefixes": list(prefixes)}

    def _copy(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Any:
        source = self._blob(bucket, name, {"generation": request.query.get("sourceGeneration", "")})
        self._check(bucket, name, request.query, "ifSource")
        kept = {key: source.resource[key] for key in ("contentType", "metadata") if key in source.resource}
        given = {**kept, **(request.body or {})}
        return self._write(to_bucket, to_name, source.content, given, request.query)

    def _rewrite(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Any:
        resource = self._copy(request, bucket, name, to_bucket, to_name)
        size = resource["size"]
        return {
            "kind": "storage#rewriteResponse", "done": True, "objectSize": size, "totalBytesRewritten": size,
            "resource": resource,
        }  # fmt: skip

    def _compose(self, request: Request, bucket: str, name: str) -> Any:
        body = request.json()
        sources = [self._blob(bucket, each["name"], {}).content for each in body.get("sourceObjects", [])]
        return self._write(bucket, name, b"".join(sources), body.get("destination", {}), request.query)


def _bucket_resource(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    stamp = now()
    return {
        "location": "US",
        "storageClass": "STANDARD",
        **given,
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "projectNumber": str(PROJECT_NUMBER),
        "metageneration": "1",
        "timeCreated": stamp,
        "updated": stamp,
        "etag": "CAE=",
    }


def _crc32c(content: bytes) -> dict[str, str]:
    try:
        import google_crc32c
    except ImportError:  # it comes with the client that checks it
        return {}
    return {"crc32c": base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()}
