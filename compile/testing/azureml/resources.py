"""What all resources of Azure ML have in common: ids, lists in pages, the checks of their names and tags."""

from __future__ import annotations

import copy
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.testing.server import Answer, ApiError, Handler, Request, Route
from penstock.testing.times import now

ROOT = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices"
    "/workspaces/{workspace}"
)
TYPE = "Microsoft.MachineLearningServices/workspaces"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,29}|[0-9a-f-]{36}|[0-9a-f]{64}")
_MOST_TAGS, _LONGEST_TAG = 50, (100, 1000)  # of keys and values
_LONGEST_DISPLAY_NAME = 256
_PAGE = 100
_CHANGEABLE = ("description", "displayName", "tags", "properties", "isArchived")


@dataclass(frozen=True)
class Scope:
    """Where everything lies: subscription, resource group and workspace."""

    subscription: str
    group: str
    workspace: str

    @property
    def id(self) -> str:
        """Resource id of the workspace."""
        return ROOT.format(subscription=self.subscription, group=self.group, workspace=self.workspace)

    def within(self, routes: Iterable[Route], prefix: str = "") -> list[Route]:
        """Return routes below the workspace, for this workspace alone: any other is not found, as in Azure.

        Args:
            routes: Their paths begin after the workspace.
            prefix: Path before that of the workspace.
        """
        return [Route(each.method, f"{prefix}{ROOT}{each.path}", self._guarded(each.handler)) for each in routes]

    def _guarded(self, handler: Handler) -> Handler:
        def guarded(request: Request, subscription: str, group: str, workspace: str, **names: str) -> Any:
            if "authorization" not in request.headers:
                raise ApiError(401, "Authentication failed. The 'Authorization' header is missing.")
            if subscription.lower() != self.subscription.lower():
                raise ApiError(404, f"The subscription '{subscription}' could not be found.")
            if group.lower() != self.group.lower():
                raise ApiError(404, f"Resource group '{group}' could not be found.")
            if workspace.lower() != self.workspace.lower():
                raise ApiError(
                    404,
                    f"The Resource '{TYPE}/{workspace}' under resource group '{group}' was not found. "
                    f"There is {self.workspace}.",
                )
            return handler(request, **names)

        return guarded


def system_data(created: str, modified: str | None = None) -> dict[str, str]:
    """Return who made a resource and when."""
    who = {"createdBy": "penstock.testing", "createdByType": "User", "lastModifiedBy": "penstock.testing"}
    return {**who, "createdAt": created, "lastModifiedByType": "User", "lastModifiedAt": modified or created}


def listed(found: Sequence[Any], request: Request) -> dict[str, Any]:
    """Return the answer to a list, in pages."""
    try:
        start = int(request.query.get("$skip") or 0)
        most = int(request.query.get("$top") or 0)
    except ValueError as error:
        raise ApiError(400, f"Invalid page: {error}") from error
    size = min(most or _PAGE, _PAGE)
    answer: dict[str, Any] = {"value": list(found[start : start + size])}
    if start + size < len(found) and not most:
        query = urllib.parse.urlencode({**request.query, "$skip": start + size})
        host = request.headers.get("host", "")
        answer["nextLink"] = f"https://{host}{urllib.parse.quote(request.path)}?{query}"
    return answer


def shown(found: Iterable[Mapping[str, Any]], request: Request) -> list[Mapping[str, Any]]:
    """Return the resources that a list's view asks for: those in use, the archived ones, or all."""
    view = request.query.get("listViewType", "ActiveOnly")
    return [
        each
        for each in found
        if view == "All" or bool(each["properties"].get("isArchived")) == (view == "ArchivedOnly")
    ]


def properties_of(request: Request) -> dict[str, Any]:
    """Return the properties that a request's resource has: a copy, for the journal keeps them as they came.

    Raises:
        ApiError: it has none, or its tags or display name are none that Azure ML takes.
    """
    properties = copy.deepcopy(request.json().get("properties"))
    if not isinstance(properties, dict):
        raise ApiError(400, "The request is invalid: the resource has no properties.")
    check_tags(properties.get("tags"), "tags")
    check_tags(properties.get("properties"), "properties")
    display = properties.get("displayName")
    if display is not None and len(display) > _LONGEST_DISPLAY_NAME:
        raise ApiError(400, f"displayName: at most {_LONGEST_DISPLAY_NAME} characters, this has {len(display)}.")
    return properties


def check_name(name: str, what: str) -> None:
    """Refuse a name that Azure ML does not take.

    Raises:
        ApiError: it is one.
    """
    if not _NAME.fullmatch(name):
        raise ApiError(
            400,
            f"{what} name {name!r}: letters, digits, '_' and '-' make one, at most 255, and it begins with a letter or "
            "a digit.",
        )


def check_version(version: str, what: str) -> None:
    """Refuse a version that Azure ML does not take.

    Raises:
        ApiError: it is one.
    """
    if not _VERSION.fullmatch(version):
        raise ApiError(400, f"{what} version {version!r}: letters, digits, '_', '-' and '.' make one, at most 30.")


def check_tags(tags: Any, what: str) -> None:
    """Refuse tags, or properties, that Azure ML does not take.

    Raises:
        ApiError: there are such.
    """
    if tags is None:
        return
    if len(tags) > _MOST_TAGS:
        raise ApiError(400, f"{what}: at most {_MOST_TAGS}, these are {len(tags)}.")
    for key, value in tags.items():
        if len(key) > _LONGEST_TAG[0] or len(str(value)) > _LONGEST_TAG[1]:
            raise ApiError(400, f"{what}: {key[:100]!r}: at most {_LONGEST_TAG[0]} characters, and its value 1000.")


def changed(kept: dict[str, Any], given: Mapping[str, Any], what: str, status: int = 409) -> None:
    """Change what may be changed of a resource that was made before.

    Args:
        kept: Properties as they were given at first; changed.
        given: Properties as they are given now.
        what: How the error calls it.
        status: Of the error.

    Raises:
        ApiError: they differ in more than that.
    """
    for field in {*kept, *given}:
        if field not in _CHANGEABLE and _plain(kept.get(field)) != _plain(given.get(field)):
            raise ApiError(
                status,
                f"{what} already exists, and its {field} cannot be changed; only {', '.join(_CHANGEABLE)} can. "
                "To make a new one, use another name or version.",
            )
    for field in _CHANGEABLE:
        if given.get(field) is not None:
            # Tags come on top of those that are there, none of which goes.
            both = isinstance(given[field], Mapping) and isinstance(kept.get(field), Mapping)
            kept[field] = {**kept[field], **given[field]} if both else given[field]


def _plain(value: Any) -> Any:
    """Return a value without what is null or empty, which clients send or leave out as they like."""
    if isinstance(value, Mapping):
        return {name: found for name, each in value.items() if (found := _plain(each)) is not None} or None
    return None if value in ("", []) else value


class Kept:
    """A resource: what was given, and when; tags of those that have them beside their properties."""

    def __init__(
        self, own_id: str, kind: str, name: str, given: dict[str, Any], tags: Mapping[str, Any] | None = None
    ) -> None:
        self.id, self.kind, self.name = own_id, kind, name
        self.given = given
        self.tags = dict(tags or {})
        self.created = self.modified = now()

    def resource(self, **more: Any) -> dict[str, Any]:
        """Return it as Azure shows it.

        Args:
            more: Properties that only the service sets.
        """
        return {
            "id": self.id,
            "name": self.name,
            "type": f"{TYPE}/{self.kind}",
            "systemData": system_data(self.created, self.modified),
            "properties": {**self.given, **more},
        }


def operation(scope: Scope, request: Request, kind: str, key: str) -> Answer:
    """Return the answer that an operation has begun, with where to ask for its end.

    Args:
        kind: Of operation, such as "jc" for the cancelling of a job.
        key: What it works at.
    """
    host = request.headers.get("host", "")
    # Milliseconds, for clients of Azure read both; what they do without it is to wait for half a minute.
    return Answer(
        status=202,
        headers={"Location": f"https://{host}{scope.id}/operations/{kind}:{key}", "Retry-After-Ms": "50"},
    )
