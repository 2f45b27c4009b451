"""What batch and online endpoints of Azure ML have in common: they and their deployments are made, listed, deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from penstock.testing.azureml.resources import Kept, Scope, check_tags, listed, operation, properties_of
from penstock.testing.azureml.workspace import Workspace
from penstock.testing.server import Answer, ApiError, Request, Route

_NAME = re.compile(r"[a-zA-Z]([-a-zA-Z0-9]{1,30})[a-zA-Z0-9]")


class Endpoints:
    """All endpoints of one kind.

    Args:
        url: Returns the address of the stand-in.

    Attributes:
        kind: "batch" or "online".
        scored: Last part of the path at which they are asked.
        extras: What Azure tells of each endpoint besides.
    """

    kind: ClassVar[str]
    scored: ClassVar[str]
    extras: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, scope: Scope, workspace: Workspace, url: Callable[[], str]) -> None:
        self._scope, self._workspace, self._url = scope, workspace, url
        self._kept: dict[str, Kept] = {}
        self._deployments: dict[str, dict[str, Kept]] = {}
        self._skus: dict[tuple[str, str], Any] = {}

    def deployments(self, name: str) -> list[str]:
        """Return the names of an endpoint's deployments; none where there is no endpoint."""
        return list(self._deployments.get(name, {}))

    def _check(self, name: str, given: Mapping[str, Any]) -> None:
        """Refuse properties of an endpoint that Azure ML does not take."""
        raise NotImplementedError

    def _check_deployment(self, given: Mapping[str, Any], sku: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse properties of a deployment that Azure ML does not take; return those that it fills in."""
        raise NotImplementedError

    def _check_unused(self, name: str, own: str) -> None:
        """Refuse to delete a deployment that is at work."""

    def _managed(self) -> list[Route]:
        """Return whom requests go to that manage endpoints; their paths begin after the workspace."""
        one = f"/{self.kind}Endpoints/{{name}}"
        deployment = f"{one}/deployments/{{own}}"
        return [
            Route("GET", f"/{self.kind}Endpoints", self._list),
            Route("PUT", one, self._put),
            Route("GET", one, lambda request, name: self._resource(self._found(name))),
            Route("DELETE", one, self._delete),
            Route("GET", f"{one}/deployments", self._list_deployments),
            Route("PUT", deployment, self._put_deployment),
            Route("GET", deployment, lambda request, name, own: self._shown(name, self._deployment(name, own))),
            Route("DELETE", deployment, self._delete_deployment),
        ]

    def _found(self, name: str) -> Kept:
        if name not in self._kept:
            known = ", ".join(self._kept) or "none"
            raise ApiError(404, f"{self.kind.capitalize()} endpoint {name} not found. There are {known}.")
        return self._kept[name]

    def _deployment(self, name: str, own: str) -> Kept:
        self._found(name)
        if own not in self._deployments[name]:
            known = ", ".join(self._deployments[name]) or "none"
            raise ApiError(404, f"{self.kind.capitalize()} deployment {own} of {name} not found. There are {known}.")
        return self._deployments[name][own]

    def _resource(self, kept: Kept) -> dict[str, Any]:
        scoring = f"{self._url()}/inference/{self.kind}/{kept.name}/{self.scored}"
        shown = kept.resource(provisioningState="Succeeded", scoringUri=scoring, swaggerUri=None)
        return {**shown, "location": self._workspace.location, "tags": kept.tags, **self.extras}

    def _shown(self, name: str, kept: Kept) -> dict[str, Any]:
        sku = self._skus.get((name, kept.name))
        shown = {**kept.resource(), "location": self._workspace.location, "tags": kept.tags}
        return {**shown, "sku": sku} if sku else shown

    def _put(self, request: Request, name: str) -> Any:
        _check_name(name, "Endpoint")
        given, tags = properties_of(request), request.json().get("tags") or {}
        check_tags(tags, "tags")
        self._check(name, given)
        is_new = name not in self._kept
        kind = f"{self.kind}Endpoints"
        self._kept[name] = Kept(f"{self._scope.id}/{kind}/{name}", kind, name, given, tags)
        self._deployments.setdefault(name, {})
        return Answer(self._resource(self._kept[name]), 201 if is_new else 200)

    def _delete(self, request: Request, name: str) -> Any:
        self._found(name)
        del self._kept[name], self._deployments[name]
        return operation(self._scope, request, f"{self.kind[0]}e", name)

    def _list(self, request: Request) -> Any:
        return listed([self._resource(kept) for kept in self._kept.values()], request)

    def _put_deployment(self, request: Request, name: str, own: str) -> Any:
        self._found(name)
        _check_name(own, "Deployment")
        given, tags, sku = properties_of(request), request.json().get("tags") or {}, request.json().get("sku") or {}
        check_tags(tags, "tags")
        filled = {"provisioningState": "Succeeded", **self._check_deployment(given, sku)}
        is_new = own not in self._deployments[name]
        kind = f"{self.kind}Endpoints"
        path = f"{self._scope.id}/{kind}/{name}/deployments/{own}"
        kept = Kept(path, f"{kind}/deployments", own, given | filled, tags)
        self._deployments[name][own], self._skus[name, own] = kept, sku
        return Answer(self._shown(name, kept), 201 if is_new else 200)

    def _delete_deployment(self, request: Request, name: str, own: str) -> Any:
        self._deployment(name, own)
        self._check_unused(name, own)
        del self._deployments[name][own]
        return operation(self._scope, request, f"{self.kind[0]}d", f"{name}.{own}")

    def _list_deployments(self, request: Request, name: str) -> Any:
        self._found(name)
        return listed([self._shown(name, kept) for kept in self._deployments[name].values()], request)


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ApiError(400, f"{what} name {name!r}: 3 to 32 letters, digits and hyphens, the first of them a letter.")
