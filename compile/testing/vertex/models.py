"""Models of Vertex AI with their versions, endpoints that they are deployed to, and what their answers count."""

from __future__ import annotations

import datetime
import itertools
import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from penstock.testing.counted import Counted, Interval
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now
from penstock.testing.vertex.resources import ROOT, Collection, Operations, Resources, checked, name_of, parent

Predict = Callable[[Mapping[str, Any], list[Any], Any], list[Any]]

_MODEL_FIELDS = (
    "displayName", "description", "versionAliases", "versionDescription", "metadataSchemaUri", "metadata",
    "containerSpec", "artifactUri", "predictSchemata", "explanationSpec", "labels", "encryptionSpec", "pipelineJob",
    "baseModelSource", "dataStats",
)  # fmt: skip
_MODEL_OUTPUT = (
    "versionId", "versionCreateTime", "versionUpdateTime", "supportedExportFormats", "trainingPipeline",
    "supportedDeploymentResourcesTypes", "supportedInputStorageFormats", "supportedOutputStorageFormats",
    "deployedModels", "originalModelInfo", "metadataArtifact", "modelSourceInfo",
)  # fmt: skip
_RESOURCES = ("dedicatedResources", "automaticResources", "sharedResources")
_RESPONSES = "aiplatform.googleapis.com/prediction/online/response_count"
_LATENCIES = "aiplatform.googleapis.com/prediction/online/prediction_latencies"
# Of latencies in milliseconds: from 1 ms to 11 minutes.
_BUCKETS = {"numFiniteBuckets": 74, "growthFactor": 1.2, "scale": 1.0}
_STRIDE = 61  # spreads turns over the shares: nearly the golden section of 100, and no divisor of it
_MODEL = f"{ROOT}/models/{{model}}"
_ENDPOINT = f"{ROOT}/endpoints/{{endpoint}}"


class Models:
    """The models of all projects."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._versions: dict[str, list[dict[str, Any]]] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", f"{ROOT}/models:upload", self._upload),
            Route("GET", f"{ROOT}/models", self._list),
            Route("GET", _MODEL, lambda request, **names: self.get(name_of(request.path))),
            Route("PATCH", _MODEL, self._patch),
            Route("DELETE", _MODEL, self._delete),
            Route("GET", f"{_MODEL}:listVersions", self._list_versions),
            Route("POST", f"{_MODEL}:mergeVersionAliases", self._merge_aliases),
            Route("DELETE", f"{_MODEL}:deleteVersion", self._delete_version),
        ]

    def get(self, name: str) -> dict[str, Any]:
        """Return a version of a model: the one that NAME@VERSION or NAME@ALIAS names, else the default one.

        Raises:
            ApiError: there is none.
        """
        model, _, wanted = name.partition("@")
        for version in self._versions.get(model, []):
            if (wanted or "default") in (version["versionId"], *version["versionAliases"]):
                return version
        raise ApiError(404, f"The Model {name} is not found.")

    def _upload(self, request: Request, version: str, project: str, location: str) -> Any:
        body = request.json()
        given = checked(body.get("model", {}), "model", _MODEL_FIELDS, _MODEL_OUTPUT)
        if not given.get("displayName"):
            raise ApiError(400, "display_name: is required.")
        name = body.get("parentModel", "").partition("@")[0]
        if name:
            self.get(name)
        else:
            own = body.get("modelId") or str(secrets.randbelow(10**18) + 10**18)
            name = f"{parent(project, location)}/models/{own}"
            if name in self._versions:
                raise ApiError(409, f"The Model {name} already exists.")
        others = self._versions.setdefault(name, [])
        aliases = list(given.pop("versionAliases", []))
        if not others and "default" not in aliases:
            aliases.append("default")
        created = now()
        model = {
            **given,
            "name": name,
            "versionId": str(1 + max((int(each["versionId"]) for each in others), default=0)),
            "versionAliases": [],
            "createTime": others[0]["createTime"] if others else created,
            "updateTime": created,
            "versionCreateTime": created,
            "versionUpdateTime": created,
            "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
            "etag": created,
        }
        others.append(model)
        self._name(name, model, aliases)
        answer = {"model": name, "modelVersionId": model["versionId"]}
        return self._operations.start(name, answer, "UploadModelResponse")

    def _name(self, name: str, model: dict[str, Any], aliases: Sequence[str]) -> None:
        """Give a version aliases; another that has one of them loses it. One that begins with "-" is taken away."""
        for alias in aliases:
            plain = alias.removeprefix("-")
            for each in self._versions[name]:
                each["versionAliases"] = [other for other in each["versionAliases"] if other != plain]
            if plain == alias:
                model["versionAliases"].append(alias)

    def _list(self, request: Request, version: str, project: str, location: str) -> Any:
        kept = Collection("models")
        for name in self._versions:
            kept.add(self.get(name))
        return kept.listed(request, parent(project, location))

    def _list_versions(self, request: Request, **names: str) -> Any:
        name = name_of(request.path)
        self.get(name)
        return {"models": self._versions[name]}

    def _patch(self, request: Request, **names: str) -> Any:
        model, body = self.get(name_of(request.path)), request.json()
        given = checked(body, "model", _MODEL_FIELDS, _MODEL_OUTPUT)
        model.update(given)
        model["updateTime"] = model["versionUpdateTime"] = now()
        return model

    def _merge_aliases(self, request: Request, **names: str) -> Any:
        name = name_of(request.path)
        model, aliases = self.get(name), request.json().get("versionAliases", [])
        if "-default" in aliases:
            raise ApiError(400, "version_aliases: default can be given to another version, not taken away.")
        self._name(name.partition("@")[0], model, aliases)
        return model

    def _delete(self, request: Request, **names: str) -> Any:
        name = name_of(request.path)
        self._check_unused(self._versions.get(name) or [self.get(name)])
        del self._versions[name]
        return self._operations.start(name, {})

    def _delete_version(self, request: Request, **names: str) -> Any:
        name = name_of(request.path)
        model = self.get(name)
        self._check_unused([model])
        if "default" in model["versionAliases"]:
            raise ApiError(400, f"{name} is the default version; make another one the default, or delete the model.")
        self._versions[model["name"]].remove(model)
        return self._operations.start(model["name"], {})

    def _check_unused(self, versions: Sequence[Mapping[str, Any]]) -> None:
        for version in versions:
            if used := version.get("deployedModels"):
                raise ApiError(400, f"The Model {version['name']} is deployed to {used[0]['endpoint']}; undeploy it.")


class Endpoints:
    """The endpoints of all projects.

    Attributes:
        predict: What stands for the models: is given the model, the instances and the parameters of a request, and
            returns a prediction for each instance; in a batch, an exception stands for one that fails. None:
            predictions are refused.
    """

    def __init__(self, operations: Operations, models: Models, counted: Counted) -> None:
        self.predict: Predict | None = None
        self._operations = operations
        self._counted = counted
        self._models = models
        self._resources = Resources(
            "endpoints", ROOT, "endpointId", operations=operations, kind="Endpoint", made=self._made
        )
        self._turns: dict[str, Iterator[int]] = {}
        self._etags = itertools.count(1)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", f"{_ENDPOINT}:deployModel", self._deploy),
            Route("POST", f"{_ENDPOINT}:undeployModel", self._undeploy),
            Route("POST", f"{_ENDPOINT}:predict", self._predict),
            Route("PATCH", _ENDPOINT, self._patch),
            Route("DELETE", _ENDPOINT, self._delete),
            Route("GET", "/v3/projects/{project}/timeSeries", self._time_series),
            *self._resources.routes(),
        ]

    def predictions(self, model: Mapping[str, Any], instances: list[Any], parameters: Any) -> list[Any]:
        """Return what the models' stand-in predicts.

        Raises:
            ApiError: there is none, or it does not give one prediction an instance.
        """
        if self.predict is None:
            raise ApiError(400, "the stand-in has no models: set vertex.endpoints.predict to a function that predicts.")
        found = self.predict(model, instances, parameters)
        if len(found) != len(instances):
            raise ApiError(500, f"endpoints.predict gave {len(found)} predictions for {len(instances)} instances.")
        return found

    def _made(self, endpoint: dict[str, Any]) -> None:
        if not endpoint.get("displayName"):
            raise ApiError(400, "display_name: is required.")
        endpoint["deployedModels"], endpoint["trafficSplit"] = [], {}

    def _endpoint(self, request: Request) -> dict[str, Any]:
        return self._resources.kept.get(name_of(request.path))

    def _deploy(self, request: Request, **names: str) -> Any:
        endpoint, body = self._endpoint(request), request.json()
        given = body.get("deployedModel", {})
        model = self._models.get(given.get("model", ""))
        if sum(each in given for each in _RESOURCES) != 1:
            raise ApiError(400, "deployed_model: one of dedicated_resources, automatic_resources is required.")
        own = given.get("id") or str(secrets.randbelow(10**18) + 10**18)
        known = {each["id"] for each in endpoint["deployedModels"]}
        if own in known:
            raise ApiError(409, f"The endpoint has a deployed model {own} already.")
        split = {own if key == "0" else key: int(share) for key, share in (body.get("trafficSplit") or {}).items()}
        _check_split(split or endpoint["trafficSplit"], known | {own})
        deployed = {
            "displayName": model["displayName"],
            **given,
            "id": own,
            "model": model["name"],
            "modelVersionId": model["versionId"],
            "createTime": now(),
        }
        endpoint["deployedModels"].append(deployed)
        if split:
            endpoint["trafficSplit"] = {key: share for key, share in split.items() if share}
        model.setdefault("deployedModels", []).append({"endpoint": endpoint["name"], "deployedModelId": own})
        self._stamp(endpoint)
        return self._operations.start(endpoint["name"], {"deployedModel": deployed}, "DeployModelResponse")

    def _undeploy(self, request: Request, **names: str) -> Any:
        endpoint, body = self._endpoint(request), request.json()
        own = body.get("deployedModelId", "")
        left = [each for each in endpoint["deployedModels"] if each["id"] != own]
        if len(left) == len(endpoint["deployedModels"]):
            raise ApiError(404, f"The endpoint has no deployed model {own}.")
        split = {key: int(share) for key, share in (body.get("trafficSplit") or endpoint["trafficSplit"]).items()}
        if left and split.get(own):
            raise ApiError(400, f"traffic_split: {own} has {split[own]} % of the traffic; move it first.")
        split.pop(own, None)
        _check_split(split, {each["id"] for each in left})
        [gone] = [each for each in endpoint["deployedModels"] if each["id"] == own]
        model = self._models.get(f"{gone['model']}@{gone['modelVersionId']}")
        model["deployedModels"] = [each for each in model["deployedModels"] if each["deployedModelId"] != own]
        endpoint.update(deployedModels=left, trafficSplit=split)
        self._stamp(endpoint)
        return self._operations.start(endpoint["name"], {}, "UndeployModelResponse")

    def _predict(self, request: Request, **names: str) -> Any:
        endpoint, body = self._endpoint(request), request.json()
        if not endpoint["trafficSplit"]:
            raise ApiError(400, f"The endpoint {endpoint['name']} has no deployed model that traffic goes to.")
        own = self._turn(endpoint)
        [deployed] = [each for each in endpoint["deployedModels"] if each["id"] == own]
        model = self._models.get(f"{deployed['model']}@{deployed['modelVersionId']}")
        began, status = time.perf_counter(), 200
        try:
            found = self.predictions(model, body.get("instances", []), body.get("parameters"))
        except ApiError as error:
            status = error.status
            raise
        finally:
            endpoint_id = endpoint["name"].rpartition("/")[2]
            self._counted.add(endpoint_id, own, status, time.perf_counter() - began)
        return {
            "predictions": found,
            "deployedModelId": own,
            "model": model["name"],
            "modelVersionId": model["versionId"],
            "modelDisplayName": model["displayName"],
        }

    def _stamp(self, endpoint: dict[str, Any]) -> None:
        endpoint.update(updateTime=now(), etag=f"etag-{next(self._etags)}")

    def _time_series(self, request: Request, project: str) -> Any:
        """Return what Cloud Monitoring has counted of answers in intervals that end in the time asked for."""
        wanted = dict(re.findall(r'([\w.]+)="([^"]*)"', request.query.get("filter", "")))
        kind = wanted.get("metric.type")
        if kind not in (_RESPONSES, _LATENCIES):
            raise ApiError(400, f"filter: the stand-in has {_RESPONSES} and {_LATENCIES}, not {kind}.")
        try:
            first, last = (
                datetime.datetime.fromisoformat(request.query[f"interval.{name}"]) for name in ("startTime", "endTime")
            )
        except (KeyError, ValueError) as error:
            raise ApiError(400, f"interval: startTime and endTime are required ({error}).") from error
        if last < first:
            raise ApiError(400, "interval: endTime is before startTime.")
        endpoint = wanted.get("resource.labels.endpoint_id", "")
        series: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
        for interval in self._counted.told(endpoint, wanted.get("metric.labels.deployed_model_id")):
            if first < interval.end <= last:
                spans = {"startTime": _told(interval.start), "endTime": _told(interval.end)}
                for labels, value in _counts(interval) if kind == _RESPONSES else _latencies(interval):
                    # The newest come first.
                    series.setdefault(tuple(labels.items()), []).insert(0, {"interval": spans, "value": value})
        return {
            "timeSeries": [
                {
                    "metric": {"type": kind, "labels": dict(labels)},
                    "resource": {"type": "aiplatform.googleapis.com/Endpoint", "labels": {"endpoint_id": endpoint}},
                    "metricKind": "DELTA",
                    "valueType": "INT64" if kind == _RESPONSES else "DISTRIBUTION",
                    "points": points,
                }
                for labels, points in sorted(series.items())
            ]
        }

    def _turn(self, endpoint: Mapping[str, Any]) -> str:
        """Return whose turn it is, by the shares and not by chance: of any hundred requests each has just its own."""
        turns = self._turns.setdefault(endpoint["name"], itertools.count())
        owners = [own for own, share in sorted(endpoint["trafficSplit"].items()) for _ in range(share)]
        return str(owners[next(turns) * _STRIDE % 100])

    def _patch(self, request: Request, **names: str) -> Any:
        endpoint, body = self._endpoint(request), request.json()
        if body.get("etag") and body["etag"] != endpoint["etag"]:
            raise ApiError(409, f"etag: the endpoint has {endpoint['etag']} by now, not {body['etag']}; read it again.")
        mask = [path.strip() for path in request.query.get("updateMask", "").split(",")]
        if "trafficSplit" in mask or "traffic_split" in mask:
            split = {key: int(share) for key, share in body.get("trafficSplit", {}).items()}
            _check_split(split, {each["id"] for each in endpoint["deployedModels"]})
            endpoint["trafficSplit"] = {key: share for key, share in split.items() if share}
        for path, key in (("display_name", "displayName"), ("description", "description"), ("labels", "labels")):
            if path in mask or key in mask:
                endpoint.update(checked({key: body.get(key)}, "endpoint", (key,)))
        self._stamp(endpoint)
        return endpoint

    def _delete(self, request: Request, **names: str) -> Any:
        endpoint = self._endpoint(request)
        if endpoint["deployedModels"]:
            raise ApiError(400, f"The endpoint {endpoint['name']} has deployed models; undeploy them first.")
        self._resources.kept.remove(endpoint["name"])
        return self._operations.start(endpoint["name"], {})


def _check_split(split: Mapping[str, int], known: set[str]) -> None:
    for key in split:
        if key not in known:
            raise ApiError(400, f"traffic_split: there is no deployed model {key}.")
    if split and sum(split.values()) != 100:
        raise ApiError(400, f"traffic_split: the shares have to add up to 100, not {sum(split.values())}.")


def _told(moment: datetime.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _counts(interval: Interval) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Yield labels and the number of answers, by who answered and how."""
    for own, status in sorted({(each.own, each.status) for each in interval.answers}):
        count = sum((each.own, each.status) == (own, status) for each in interval.answers)
        yield {"deployed_model_id": own, "response_code": str(status)}, {"int64Value": str(count)}


def _latencies(interval: Interval) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Yield labels and the distribution of latencies, by who answered; nothing is spent outside of the model here."""
    for own in sorted({each.own for each in interval.answers}):
        found = [1000 * each.seconds for each in interval.answers if each.own == own]
        counts = [0] * (int(_BUCKETS["numFiniteBuckets"]) + 2)
        for value in found:
            place = math.floor(math.log(value / _BUCKETS["scale"], _BUCKETS["growthFactor"])) + 1
            counts[min(max(place, 0), len(counts) - 1)] += 1
        while counts and not counts[-1]:
            counts.pop()
        distribution = {
            "count": str(len(found)),
            "mean": sum(found) / len(found),
            "bucketOptions": {"exponentialBuckets": _BUCKETS},
            "bucketCounts": [str(count) for count in counts],
        }
        for kind in ("model", "total"):
            yield {"deployed_model_id": own, "latency_type": kind}, {"distributionValue": distribution}
