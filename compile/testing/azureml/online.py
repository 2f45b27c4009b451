"""Managed online endpoints of Azure ML: deployments, shares of the traffic, copies of requests, and what is counted."""

from __future__ import annotations

import collections
import datetime
import itertools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.endpoints import Endpoints
from penstock.testing.azureml.resources import Scope
from penstock.testing.azureml.workspace import Workspace
from penstock.testing.counted import Counted
from penstock.testing.server import Answer, ApiError, Request, Route

# Stands for the container of a deployment: is given the deployment's name, its properties and the request.
Serve = Callable[[str, Mapping[str, Any], Request], Answer]

_MOST_MIRRORED = 50  # per cent of the requests
_STRIDE = 61  # spreads turns over the shares
_DIMENSION = re.compile(r"(\w+) eq '([^']*)'")
_REQUESTS = "RequestsPerMinute"
_LATENCIES = {
    "RequestLatency_P50": 0.5, "RequestLatency_P90": 0.9, "RequestLatency_P95": 0.95, "RequestLatency_P99": 0.99,
}  # fmt: skip
_DIMENSIONS = {_REQUESTS: {"deployment", "statusCode"}, **{name: {"deployment"} for name in _LATENCIES}}


class OnlineEndpoints(Endpoints):
    """All online endpoints; see Endpoints.

    Attributes:
        serve: Stands for the containers. None: requests are refused.
        mirrored: Requests that were copied, by deployment.
    """

    kind, scored, extras = "online", "score", {"identity": {"type": "SystemAssigned"}}

    def __init__(
        self, scope: Scope, workspace: Workspace, assets: Assets, counted: Counted, url: Callable[[], str]
    ) -> None:
        super().__init__(scope, workspace, url)
        self.serve: Serve | None = None
        self.mirrored: collections.Counter[str] = collections.Counter()
        self._assets, self._counted = assets, counted
        self._turns = itertools.count()

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        metrics = Route("GET", "/onlineEndpoints/{name}/providers/Microsoft.Insights/metrics", self._metrics)
        return [
            *self._scope.within([*self._managed(), metrics]),
            Route("POST", "/inference/online/{name}/score", self._score),
        ]

    def traffic(self, name: str) -> dict[str, int]:
        """Return the per cent of each deployment of an endpoint."""
        return {own: share for own, share in (self._found(name).given.get("traffic") or {}).items() if share}

    def _check(self, name: str, given: Mapping[str, Any]) -> None:
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
        if name in self._kept and self._kept[name].given["authMode"] != given["authMode"]:
            raise ApiError(400, "authMode: it cannot be changed.")

    def _check_deployment(self, given: Mapping[str, Any], sku: Mapping[str, Any]) -> dict[str, Any]:
        kind = given.get("endpointComputeType")
        if kind != "Managed":
            raise ApiError(400, f"endpointComputeType: the stand-in has Managed, not {kind}.")
        if not given.get("instanceType") or not sku.get("capacity"):
            raise ApiError(400, "instanceType, and a number of instances, are required.")
        self._assets.referred("models", given.get("model") or "", "model")
        environment = self._assets.referred("environments", given.get("environmentId") or "", "environmentId")
        if not given.get("codeConfiguration") and not (environment and environment.given.get("inferenceConfig")):
            raise ApiError(400, "environmentId: without a scoring script its image needs an inferenceConfig.")
        return {"scaleSettings": given.get("scaleSettings") or {"scaleType": "Default"}}

    def _check_unused(self, name: str, own: str) -> None:
        given = self._found(name).given
        if (given.get("traffic") or {}).get(own) or (given.get("mirrorTraffic") or {}).get(own):
            raise ApiError(400, f"The deployment {own} of {name} gets traffic; set it to 0 first.")

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
        began = time.perf_counter()
        answer = self.serve(own, deployment.given, request)
        self._counted.add(name, own, answer.status, time.perf_counter() - began)
        return answer

    def _metrics(self, request: Request, name: str) -> Any:
        """Return what Azure Monitor has counted in the minutes of a time span: a number each."""
        self._found(name)
        metrics = request.query.get("metricnames", "").split(",")
        given = dict(_DIMENSION.findall(request.query.get("$filter", "")))
        for metric in metrics:
            if metric not in _DIMENSIONS:
                raise ApiError(400, f"metricnames: the stand-in has {', '.join(_DIMENSIONS)}, not {metric}.")
            if strange := given.keys() - _DIMENSIONS[metric]:
                raise ApiError(400, f"$filter: {metric} has no dimension {', '.join(sorted(strange))}.")
        if request.query.get("interval") != "PT1M" or request.query.get("aggregation") != "Average":
            raise ApiError(400, "interval: PT1M is supported, and aggregation: Average.")
        try:
            first, last = map(datetime.datetime.fromisoformat, request.query.get("timespan", "").split("/"))
        except ValueError as error:
            raise ApiError(400, f"timespan: START/END is required ({error}).") from error
        if last <= first:
            raise ApiError(400, "timespan: its end is not after its start.")
        return {
            "interval": "PT1M",
            "value": [
                {
                    "name": {"value": metric},
                    "unit": "Count" if metric == _REQUESTS else "MilliSeconds",
                    "timeseries": self._series(name, metric, given, first, last),
                }
                for metric in metrics
            ],
        }

    def _series(
        self, name: str, metric: str, given: Mapping[str, str], first: datetime.datetime, last: datetime.datetime
    ) -> list[dict[str, Any]]:
        """Return a series for each value of the dimensions that a filter names, in the minutes that begin in a span."""
        found: dict[tuple[tuple[str, str], ...], dict[str, list[float]]] = {}
        for interval in self._counted.told(name, None):
            minute = interval.start.isoformat().replace("+00:00", "Z")
            for each in interval.answers if first <= interval.start <= last else ():
                values = {"deployment": each.own, "statusCode": str(each.status)}
                if all(wanted in ("*", values[dimension]) for dimension, wanted in given.items()):
                    labels = tuple((dimension.lower(), values[dimension]) for dimension in sorted(given))
                    found.setdefault(labels, {}).setdefault(minute, []).append(1000 * each.seconds)
        return [
            {
                "metadatavalues": [{"name": {"value": label}, "value": value} for label, value in labels],
                "data": [
                    # A minute of which nothing is known has no number.
                    {"timeStamp": first.isoformat()},
                    *({"timeStamp": minute, "average": _number(metric, each)} for minute, each in minutes.items()),
                ],
            }
            for labels, minutes in sorted(found.items())
        ]


def _number(metric: str, milliseconds: Sequence[float]) -> float:
    """Return the number of a minute: of its requests, or a quantile of their latencies, which one of them had."""
    if metric == _REQUESTS:
        return float(len(milliseconds))
    return sorted(milliseconds)[math.ceil(_LATENCIES[metric] * len(milliseconds)) - 1]
