"""What all resources of Vertex AI have in common: names, lists in pages, operations, the checks of their fields."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now
from penstock.testing.vertex.filters import Resource, camel, look_up, predicate

ROOT = "/{version}/projects/{project}/locations/{location}"
_PAGE = 100  # resources a page where a client asks for no other number
_LARGEST_PAGE = 1000
_LABEL_KEY = re.compile(r"[^\W\dA-Z_][\w-]{0,62}")
_LABEL_VALUE = re.compile(r"[\w-]{0,63}")
_MOST_LABELS = 64
_API = "google.cloud.aiplatform.v1"


def parent(project: str, location: str) -> str:
    """Return the name of a location."""
    return f"projects/{project}/locations/{location}"


class Collection:
    """Resources of one kind by name, the newest first.

    Args:
        noun: What they are called in names, such as "pipelineJobs".
        functions: What a list's filter may call.
    """

    def __init__(self, noun: str, functions: Mapping[str, Callable[[Resource, str], bool]] | None = None) -> None:
        self.noun = noun
        self.functions = functions
        self._kept: dict[str, dict[str, Any]] = {}

    def add(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Keep a resource under its name.

        Raises:
            ApiError: there is one of that name.
        """
        name = resource["name"]
        if name in self._kept:
            raise ApiError(409, f"The {self.noun} resource {name} already exists.")
        self._kept[name] = resource
        return resource

    def get(self, name: str) -> dict[str, Any]:
        """Return a resource.

        Raises:
            ApiError: there is none of that name.
        """
        if name not in self._kept:
            raise ApiError(404, f"The {self.noun} resource {name} is not found.")
        return self._kept[name]

    def remove(self, name: str) -> dict[str, Any]:
        """Forget a resource, and return it."""
        found = self.get(name)
        del self._kept[name]
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def all(self) -> list[dict[str, Any]]:
        """Return every resource, the newest first."""
        return list(reversed(self._kept.values()))

    def listed(
        self,
        request: Request,
        within: str,
        found: Iterable[Resource] | None = None,
        extra: Callable[[Resource], Resource] = lambda resource: {},
    ) -> dict[str, Any]:
        """Return the answer to a list: filter, orderBy, readMask and pages as the request has them.

        Args:
            within: Name of the location, or of another parent.
            found: The resources as the list shows them; those that are kept where it is not given.
            extra: Returns the fields of a resource that only filters know.
        """
        passes = predicate(request.query.get("filter", ""), self.functions)
        shown = [
            each
            for each in (self.all() if found is None else found)
            if each["name"].startswith(f"{within}/") and passes({**each, **extra(each)})
        ]
        shown = _ordered(shown, request.query.get("orderBy", ""))
        size, start = _page(request)
        answer: dict[str, Any] = {self.noun: [_masked(each, request) for each in shown[start : start + size]]}
        if start + size < len(shown):
            answer["nextPageToken"] = str(start + size)
        return answer


def _ordered(resources: list[Resource], order: str) -> list[Resource]:
    for field in reversed([each.strip() for each in order.split(",") if each.strip()]):
        name, _, direction = field.partition(" ")
        resources = sorted(
            resources, key=lambda each: str(look_up(each, name) or ""), reverse=direction.strip().lower() == "desc"
        )
    return resources


def _page(request: Request) -> tuple[int, int]:
    try:
        size = int(request.query.get("pageSize") or _PAGE) or _PAGE
        return min(size, _LARGEST_PAGE), int(request.query.get("pageToken") or 0)
    except ValueError as error:
        raise ApiError(400, f"Invalid page: {error}") from error


def _masked(resource: Resource, request: Request) -> Resource:
    mask = request.query.get("readMask", "")
    if not mask or mask == "*":
        return resource
    found: dict[str, Any] = {}
    for path in mask.split(","):
        keys = [camel(key) for key in path.strip().split(".")]
        value, target = look_up(resource, ".".join(keys)), found
        if value is not None:
            for key in keys[:-1]:
                target = target.setdefault(key, {})
            target[keys[-1]] = value
    return found


class Resources:
    """Resources that are kept as they come: created, read, listed, changed, deleted.

    Args:
        noun: What they are called in names, such as "contexts".
        path: Path of what holds them, such as "/{version}/projects/{project}/locations/{location}".
        id_parameter: Name in the query of the id that a client may choose.
        functions: What a list's filter may call.
        operations: Where creating one is an operation.
        kind: Message type of what creating comes to; with `operations`.
        made: Completes a resource that is about to be kept.
    """

    def __init__(
        self,
        noun: str,
        path: str,
        id_parameter: str,
        *,
        functions: Mapping[str, Callable[[Resource, str], bool]] | None = None,
        operations: Operations,
        kind: str = "",
        made: Callable[[dict[str, Any]], None] = lambda resource: None,
    ) -> None:
        self.kept = Collection(noun, functions)
        self._path = path
        self._id_parameter = id_parameter
        self._operations = operations
        self._kind = kind
        self._made = made

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        own = f"{self._path}/{self.kept.noun}"
        one = f"{own}/{{id}}"
        return [
            Route("POST", own, self._create),
            Route("GET", own, lambda request, **names: self.kept.listed(request, _above(request.path))),
            Route("GET", one, lambda request, **names: self.kept.get(name_of(request.path))),
            Route("PATCH", one, self._patch),
            Route("DELETE", one, self._delete),
        ]

    def create(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a resource.

        Raises:
            ApiError: there is one of that name, or its labels are none.
        """
        check_display_name(body.get("displayName"))
        check_labels(body.get("labels", {}))
        stamp = now()
        resource = {**body, "name": name, "createTime": stamp, "updateTime": stamp, "etag": stamp}
        self._made(resource)
        return self.kept.add(resource)

    def _create(self, request: Request, **names: str) -> Any:
        own = request.query.get(self._id_parameter) or str(secrets.randbelow(10**18) + 10**18)
        resource = self.create(f"{name_of(request.path)}/{own}", request.body or {})
        return self._operations.start(resource["name"], resource, self._kind) if self._kind else resource

    def _patch(self, request: Request, **names: str) -> Any:
        resource, body = self.kept.get(name_of(request.path)), request.json()
        check_labels(body.get("labels", {}))
        mask = request.query.get("updateMask") or ",".join(body)
        for path in mask.split(","):
            key = camel(path.strip().partition(".")[0])
            if key in body:
                resource[key] = body[key]
            else:
                resource.pop(key, None)
        resource["updateTime"] = resource["etag"] = now()
        return resource

    def _delete(self, request: Request, **names: str) -> Any:
        name = name_of(request.path)
        self.kept.remove(name)
        return self._operations.start(name, {})


def name_of(path: str) -> str:
    """Return the name of the resource, or collection, that a path leads to, without a verb after it."""
    return path.split("/", 2)[2].partition(":")[0]


def _above(path: str) -> str:
    return name_of(path).rpartition("/")[0]


class Operations:
    """Long-running operations.

    Attributes:
        polls: How often a client has to ask before one is done.
    """

    def __init__(self) -> None:
        self.polls = 0
        self._numbers = itertools.count(1)
        self._known: dict[str, tuple[int, dict[str, Any]]] = {}

    def routes(self) -> Sequence[Route]:
        """Return where clients ask for them: under /v1 or, as the SDK over REST does, under /ui."""
        return [Route("GET", "/{version}/{name...}", self._get)]

    def start(
        self, resource: str, response: Mapping[str, Any], kind: str = "", metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return an operation that comes to a response.

        Args:
            resource: Name of the resource that it works at.
            response: The resource as it is at the end.
            kind: Message type of the response, such as "Model"; empty: it comes to nothing.
        """
        name = f"{resource}/operations/{next(self._numbers):019d}"
        stamp = {"createTime": now(), "updateTime": now()}
        message = f"{_API}.{kind}" if kind else "google.protobuf.Empty"
        done = {
            "name": name,
            "metadata": {
                "@type": f"type.googleapis.com/{_API}.{_OPERATION.get(kind, 'DeleteOperationMetadata')}",
                "genericMetadata": stamp,
                **(metadata or {}),
            },
            "done": True,
            "response": {"@type": f"type.googleapis.com/{message}", **response},
        }
        self._known[name] = (self.polls, done)
        return self._now(name)

    def _get(self, request: Request, version: str, name: str) -> Any:
        if "/operations/" not in name:
            raise ApiError(404, f"VertexStandIn has no GET {request.path}")
        if name not in self._known:
            raise ApiError(404, f"Operation {name} is not found.")
        left, done = self._known[name]
        self._known[name] = (max(left - 1, 0), done)
        return self._now(name)

    def _now(self, name: str) -> dict[str, Any]:
        left, done = self._known[name]
        return {key: value for key, value in done.items() if key not in ("done", "response")} if left else done


_OPERATION = {
    "UploadModelResponse": "UploadModelOperationMetadata",
    "Endpoint": "CreateEndpointOperationMetadata",
    "DeployModelResponse": "DeployModelOperationMetadata",
    "UndeployModelResponse": "UndeployModelOperationMetadata",
    "MetadataStore": "CreateMetadataStoreOperationMetadata",
    "BatchCancelPipelineJobsResponse": "BatchCancelPipelineJobsOperationMetadata",
}


def checked(
    body: Mapping[str, Any], what: str, known: Iterable[str], output_only: Iterable[str] = ()
) -> dict[str, Any]:
    """Return a resource as it came, without what only the service sets.

    Args:
        what: Message type, for errors.
        known: Fields that a client may set.

    Raises:
        ApiError: it has other fields, or its name or labels are none.
    """
    own, ignored = set(known), {"name", "createTime", "updateTime", "etag", *output_only}
    for field in body:
        if field not in own | ignored:
            raise ApiError(
                400, f"Invalid JSON payload received. Unknown name \"{field}\" at '{what}': Cannot find field."
            )
    found = {field: value for field, value in body.items() if field in own}
    check_display_name(found.get("displayName"))
    check_labels(found.get("labels", {}))
    return found


def check_display_name(name: Any) -> None:
    """Refuse a display name that is too long.

    Raises:
        ApiError: it is.
    """
    if name is not None and (not isinstance(name, str) or len(name) > 128):
        raise ApiError(400, f"display_name: at most 128 characters, this has {len(str(name))}.")


def check_labels(labels: Any) -> None:
    """Refuse labels that Google's services do not take.

    Raises:
        ApiError: there are such.
    """
    if not isinstance(labels, Mapping):
        raise ApiError(400, "labels: expected an object.")
    if len(labels) > _MOST_LABELS:
        raise ApiError(400, f"labels: at most {_MOST_LABELS}, these are {len(labels)}.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or key != key.lower():
            raise ApiError(
                400,
                f"labels: {key!r} is not a key: lower-case letters, digits, '_' and '-' make one, at most 63, "
                "and it begins with a letter.",
            )
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value) or value != value.lower():
            raise ApiError(
                400,
                f"labels: {value!r} of {key} is not a value: lower-case letters, digits, '_' and '-' make one, "
                "at most 63.",
            )
