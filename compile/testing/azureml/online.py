"""Managed online endpoints of Azure ML: deployments, shares of the traffic, copies of requests, and what is counted."""

from __future__ import annotations

import collections
import datetime
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.batch import check_endpoint_name
from penstock.testing.azureml.resources import Kept, Scope, check_tags, listed, operation, properties_of
from penstock.testing.azureml.workspace import Workspace
from penstock.testing.server import Answer, ApiError, Request, Route

# Stands for the container of a deployment: is given the deployment's name, its properties and the request.
Serve = Callable[[str, Mapping[str, Any], Request], Answer]

_MOST_MIRRORED = 50  # per cent of the requests
_STRIDE = 61  # spreads turns over the shares
_FILTER = re.compile(r"deployment eq '([^']*)'")


class OnlineEndpoints:
    """All online endpoints.

    Args:
        url: Returns the address of the stand-in.

    Attributes:
        serve: Stands for the containers. None: requests are refused.
        mirrored: Requests that were copied, by deployment.
    """

    def __init__(self, scope: Scope, workspace: Workspace, assets: Assets, url: Callable[[], str]) -> None:
        self.serve: Serve | None = None
        self.mirrored: collections.Counter[str] = collections.Counter()
        self._scope, self._workspace, self._assets, self._url = scope, workspace, assets, url
        self._kept: dict[str, Kept] = {}
        self._deployments: dict[str, dict[str, Kept]] = {}
        self._skus: dict[tuple[str, str], Any] = {}
        self._turns = itertools.count()
        # Answers by endpoint, deployment, minute and status.
        self._counted: collections.Counter[tuple[str, str, str, int]] = collections.Counter()

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        one = "/onlineEndpoints/{name}"
        deployment = f"{one}/deployments/{{own}}"
        own = [
            Route("GET", "/onlineEndpoints", self._list),
            Route("PUT", one, self._put),
            Route("GET", one, lambda request, name: self._resource(self._found(name))),
            Route("DELETE", one, self._delete),
            Route("GET", f"{one}/deployments", self._list_deployments),
            Route("PUT", deployment, self._put_deployment),
            Route("GET", deployment, lambda request, name, own: self._shown(name, self._deployment(name, own))),
            Route("DELETE", deployment, self._delete_deployment),
            Route("GET", f"{one}/providers/Microsoft.Insights/metrics", self._metrics),
        ]
        return [*self._scope.within(own), Route("POST", "/inference/online/{name}/score", self._score)]

    def traffic(self, name: str) -> dict[str, int]:
        """Return the per cent of each deployment of an endpoint."""
        return {own: share for own, share in (self._found(name).given.get("traffic") or {}).items() if share}

    def deployments(self, name: str) -> list[str]:
        """Return the names of an endpoint's deployments; none where there is no endpoint."""
        return list(self._deployments.get(name, {}))

    def _found(self, name: str) -> Kept:
        if name not in self._kept:
            raise ApiError(404, f"Online endpoint {name} not found. There are {', '.join(self._kept) or 'none'}.")
        return self._kept[name]

    def _resource(self, kept: Kept) -> dict[str, Any]:
        shown = kept.resource(
            provisioningState="Succeeded",
            scoringUri=f"{self._url()}/inference/online/{kept.name}/score",
            swaggerUri=None,
        )
        return {
            **shown,
            "location": self._workspace.location,
            "tags": kept.tags,
            "identity": {"type": "SystemAssigned"},
        }

    def _put(self, request: Request, name: str) -> Any:
        check_endpoint_name(name, "Endpoint")
        given, tags = properties_of(request), request.json().get("tags") or {}
        check_tags(tags, "tags")
        if str(given.get("authMode")).lower() not in ("key", "amltoken", "aadtoken"):
            raise ApiError(400, f"authMode: {given.get('authMode')!r} is none of Key, AMLToken, AADToken.")
        traffic, mirror = given.get("traffic") or {}, given.get("mirrorTraffic") or {}
        for own in (*traffic, *mirror):
            if own not in self._deployments.get(name, {}):
                raise ApiError(400, f"traffic: the endpoint {name} has no deployment {own}.")
        if traffic and sum(traffic.values()) not in (0, 100):
            raise ApiError(400, f"traffic: the shares have to add up to 0 or 100, not {sum(traffic.values())}.")
        if len(mirror) > 1 or any(not 0 <= share <= _MOST_MIRRORED for share in mirror.values()):
            raise ApiError(400, f"mirrorTraffic: one deployment, and {_MOST_MIRRORED} per cent at most.")
        if any(traffic.get(own) for own in mirror):
            raise ApiError(400, "mirrorTraffic: a deployment gets copies or traffic, not both.")
        is_new = name not in self._kept
        if not is_new and self._kept[name].given["authMode"] != given["authMode"]:
            raise ApiError(400, "authMode: it cannot be changed.")
        self._kept[name] = Kept(f"{self._scope.id}/onlineEndpoints/{name}", "onlineEndpoints", name, given, tags)
        self._deployments.setdefault(name, {})
        return Answer(self._resource(self._kept[name]), 201 if is_new else 200)

    def _delete(self, request: Request, name: str) -> Any:
        self._found(name)
        del self._kept[name], self._deployments[name]
        return operation(self._scope, request, "oe", name)

    def _list(self, request: Request) -> Any:
        return listed([self._resource(kept) for kept in self._kept.values()], request)

    def _deployment(self, name: str, own: str) -> Kept:
        self._found(name)
        if own not in self._deployments[name]:
            known = ", ".join(self._deployments[name]) or "none"
            raise ApiError(404, f"Online deployment {own} of {name} not found. There are {known}.")
        return self._deployments[name][own]

    def _shown(self, name: str, kept: Kept) -> dict[str, Any]:
        sku = self._skus[name, kept.name]
        return {**kept.resource(), "location": self._workspace.location, "tags": kept.tags, "sku": sku}

    def _put_deployment(self, request: Request, name: str, own: str) -> Any:
        self._found(name)
        check_endpoint_name(own, "Deployment")
        given, tags, sku = properties_of(request), request.json().get("tags") or {}, request.json().get("sku") or {}
        check_tags(tags, "tags")
        if given.get("endpointComputeType") != "Managed":
            raise ApiError(
                400, f"endpointComputeType: the stand-in has Managed, not {given.get('endpointComputeType')}."
            )
        if not given.get("instanceType") or not sku.get("capacity"):
            raise ApiError(400, "instanceType, and a number of instances, are required.")
        self._assets.referred("models", given.get("model") or "", "model")
        environment = self._assets.referred("environments", given.get("environmentId") or "", "environmentId")
        if not given.get("codeConfiguration") and not (environment and environment.given.get("inferenceConfig")):
            raise ApiError(400, "environmentId: without a scoring script its image needs an inferenceConfig.")
        is_new = own not in self._deployments[name]
        scale = given.get("scaleSettings") or {"scaleType": "Default"}
        filled = {"provisioningState": "Succeeded", "scaleSettings": scale}
        path = f"{self._scope.id}/onlineEndpoints/{name}/deployments/{own}"
        kept = Kept(path, "onlineEndpoints/deployments", own, given | filled, tags)
        self._deployments[name][own] = kept
        self._skus[name, own] = sku
        return Answer(self._shown(name, kept), 201 if is_new else 200)

    def _delete_deployment(self, request: Request, name: str, own: str) -> Any:
        self._deployment(name, own)
        given = self._found(name).given
        if (given.get("traffic") or {}).get(own) or (given.get("mirrorTraffic") or {}).get(own):
            raise ApiError(400, f"The deployment {own} of {name} gets traffic; set it to 0 first.")
        del self._deployments[name][own]
        return operation(self._scope, request, "od", f"{name}.{own}")

    def _list_deployments(self, request: Request, name: str) -> Any:
        self._found(name)
        return listed([self._shown(name, kept) for kept in self._deployments[name].values()], request)

    def _score(self, request: Request, name: str) -> Any:
        if "authorization" not in request.headers:
            raise ApiError(401, "Authentication failed. The 'Authorization' header is missing.")
        endpoint = self._found(name)
        turn = next(self._turns)
        own = request.headers.get("azureml-model-deployment") or self._turn(name, turn)
        answer = self._answer(name, own, request)
        for copied, share in (endpoint.given.get("mirrorTraffic") or {}).items():
            if turn * _STRIDE % 100 < share:
                self.mirrored[copied] += 1
                self._answer(name, copied, request)
        return answer

    def _turn(self, name: str, turn: int) -> str:
        """Return whose turn it is, by the shares and not by chance: of any hundred requests each has just its own."""
        owners = [own for own, share in sorted(self.traffic(name).items()) for _ in range(share)]
        if not owners:
            raise ApiError(404, f"The endpoint {name} has no deployment that traffic goes to.")
        return owners[turn * _STRIDE % 100]

    def _answer(self, name: str, own: str, request: Request) -> Answer:
        deployment = self._deployment(name, own)
        if self.serve is None:
            raise ApiError(400, "the stand-in has no containers: set azureml.online_endpoints.serve to what answers.")
        answer = self.serve(own, deployment.given, request)
        minute = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:00Z")
        self._counted[name, own, minute, answer.status] += 1
        return answer

    def _metrics(self, request: Request, name: str) -> Any:
        """Return what Azure Monitor has counted: requests of each minute, by status."""
        self._found(name)
        if request.query.get("metricnames") != "RequestsPerMinute":
            raise ApiError(
                400, f"metricnames: the stand-in has RequestsPerMinute, not {request.query.get('metricnames')}."
            )
        start, _, end = request.query.get("timespan", "").partition("/")
        wanted = _FILTER.search(request.query.get("$filter", ""))
        series: dict[int, list[dict[str, Any]]] = {}
        for (endpoint, own, minute, status), count in sorted(self._counted.items()):
            if endpoint == name and (not wanted or own == wanted[1]) and start[:16] <= minute[:16] <= end[:16]:
                series.setdefault(status, []).append({"timeStamp": minute, "average": float(count)})
        timeseries = [
            {"metadatavalues": [{"name": {"value": "statuscode"}, "value": str(status)}], "data": data}
            for status, data in series.items()
        ]
        return {"value": [{"name": {"value": "RequestsPerMinute"}, "timeseries": timeseries}]}
