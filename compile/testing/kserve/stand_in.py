"""KServe, and as much of the Kubernetes API as its clients ask for, on 127.0.0.1.

InferenceServices as of the API serving.kserve.io/v1beta1, served by Knative: revisions, and canaryTrafficPercent
between the latest one and the one that had all traffic before it. As there, a revision is made whenever what its pods
are made of changes, annotations and labels of the InferenceService among it; and the generation that its status tells
is that of Knative's own resource. Beside them, ConfigMaps, which go with the InferenceService that owns them.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.testing import kubeconfig
from penstock.testing.faults import Fault
from penstock.testing.server import Answer, ApiError, Request, Route, StandIn
from penstock.testing.times import now

_ROOT = "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
_CORE = "/api/v1/namespaces/{namespace}/pods"
_MAPS = "/api/v1/namespaces/{namespace}/configmaps"
_OWNER = "serving.kserve.io/inferenceservice"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid",
}  # fmt: skip
_SPEC = {"predictor", "transformer", "explainer"}
_PREDICTOR = {
    "annotations", "batcher", "canaryTrafficPercent", "containerConcurrency", "containers", "labels", "logger",
    "maxReplicas", "minReplicas", "model", "nodeSelector", "scaleMetric", "scaleTarget", "serviceAccountName",
    "timeout", "tolerations", "volumes",
}  # fmt: skip

# Stands for the container of a pod: is given the pod and the request, whose path is that within the pod.
Serve = Callable[[Mapping[str, Any], Request], Answer]
# Returns why a pod does not become ready; empty: it does.
Unready = Callable[[Mapping[str, Any]], str]


@dataclass
class _Service:
    """An InferenceService: its resource, its revisions in order, and the one that had all traffic last.

    Attributes:
        made_of: What Knative's own resource was made of last, and its generation.
    """

    resource: dict[str, Any]
    revisions: list[dict[str, Any]] = field(default_factory=list)
    rolled_out: str = ""
    polls_left: int = 0
    made_of: tuple[Any, int] = (None, 0)


class KServeStandIn(StandIn):
    """KServe on 127.0.0.1, for the kubernetes client and any client of its REST API.

    Args:
        serve: Stands for the containers of pods, which are asked through the API server.
        unready: Returns why a pod does not become ready; empty: it does.
        polls: How often a client has to ask before a revision is ready; until then the status is that of before.
        faults, port: As for any stand-in.

    Attributes:
        services: By namespace and name.
        config_maps: Likewise.
    """

    def __init__(
        self,
        serve: Serve | None = None,
        unready: Unready = lambda pod: "",
        *,
        polls: int = 0,
        faults: Iterable[Fault] = (),
        port: int = 0,
    ) -> None:
        self.serve, self.unready, self.polls = serve, unready, polls
        self.services: dict[tuple[str, str], _Service] = {}
        self.config_maps: dict[tuple[str, str], dict[str, Any]] = {}
        self._versions = itertools.count(1)
        super().__init__(faults=faults, port=port)

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        one = f"{_ROOT}/{{name}}"
        return [
            Route("POST", _ROOT, self._create),
            Route("GET", _ROOT, self._list),
            Route("GET", one, self._get),
            Route("PUT", one, self._replace),
            Route("DELETE", one, self._delete),
            Route("GET", _CORE, self._list_pods),
            Route("POST", _MAPS, self._create_map),
            Route("GET", f"{_MAPS}/{{name}}", self._get_map),
            Route("PUT", f"{_MAPS}/{{name}}", self._replace_map),
            *(Route(method, f"{_CORE}/{{pod}}:{{port}}/proxy/{{path...}}", self._proxy) for method in ("GET", "POST")),
        ]

    def error_body(self, status: int, message: str) -> Any:
        """Return an error as a Kubernetes API tells it."""
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": _REASONS.get(status, ""), "code": status,
        }  # fmt: skip

    @contextlib.contextmanager
    def connected(self, namespace: str = "team") -> Iterator[KServeStandIn]:
        """Point the kubernetes client's kubeconfig here; at the end, back."""
        with kubeconfig.connected(self, namespace):
            yield self

    def traffic(self, name: str, namespace: str = "team") -> dict[str, int]:
        """Return the per cent of each revision of an InferenceService, as Knative routes it now."""
        with self.lock:
            return dict(self._traffic(self._found(namespace, name)))

    def pods(self, name: str, namespace: str = "team") -> list[dict[str, Any]]:
        """Return the pods of an InferenceService: those of revisions that get traffic, and of the latest."""
        with self.lock:
            return self._pods(self._found(namespace, name))

    def _create(self, request: Request, namespace: str) -> Any:
        body = copy.deepcopy(request.json())
        name = body.get("metadata", {}).get("name", "")
        if not _NAME.fullmatch(name) or len(name) > 63:
            raise ApiError(422, f"metadata.name: {name!r} is no lower-case RFC 1123 label")
        if (namespace, name) in self.services:
            raise ApiError(409, f'inferenceservices.serving.kserve.io "{name}" already exists')
        if body["metadata"].get("resourceVersion"):
            raise ApiError(400, "resourceVersion should not be set on objects to be created")
        _check(body)
        body["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "generation": 1}
        body["metadata"]["creationTimestamp"] = now()
        self.services[namespace, name] = service = _Service(body)
        self._stamp(body)
        self._revise(service)
        return body

    def _replace(self, request: Request, namespace: str, name: str) -> Any:
        service, body = self._found(namespace, name), copy.deepcopy(request.json())
        kept = service.resource
        _check_version(body, kept, f'inferenceservices.serving.kserve.io "{name}"')
        _check(body)
        metadata = kept["metadata"]
        changed = body["spec"] != kept["spec"]
        metadata["annotations"] = body["metadata"].get("annotations", {})
        metadata["labels"] = body["metadata"].get("labels", {})
        if changed:
            metadata["generation"] += 1
            kept["spec"] = body["spec"]
        self._stamp(service.resource)
        self._revise(service)
        return copy.deepcopy(kept)

    def _stamp(self, resource: dict[str, Any]) -> None:
        resource["metadata"]["resourceVersion"] = str(next(self._versions))

    def _revise(self, service: _Service) -> None:
        """Make a revision where what its pods are made of has changed."""
        metadata, predictor = service.resource["metadata"], service.resource["spec"]["predictor"]
        name = metadata["name"]
        template = {key: value for key, value in predictor.items() if key != "canaryTrafficPercent"}
        for kind in ("labels", "annotations"):
            template[kind] = {**metadata.get(kind, {}), **predictor.get(kind, {})}
        made_of, generation = service.made_of
        if made_of != (template, predictor.get("canaryTrafficPercent", 100)):
            service.made_of = (template, predictor.get("canaryTrafficPercent", 100)), generation + 1
        if not service.revisions or service.revisions[-1]["template"] != template:
            number = len(service.revisions) + 1
            revision = {"name": f"{name}-predictor-{number:05d}", "template": copy.deepcopy(template), "ready": False}
            service.revisions.append(revision)
            service.polls_left = self.polls
        if not service.polls_left:
            self._settle(service)

    def _settle(self, service: _Service) -> None:
        """Let the latest revision be ready when its time has come, and traffic be where the spec wants it."""
        latest = service.revisions[-1]
        why = self.unready(self._pod(service, latest, ready=True))
        if not latest["ready"] and not service.polls_left and not why:
            latest["ready"] = True
        percent = service.resource["spec"]["predictor"].get("canaryTrafficPercent")
        if latest["ready"] and (percent is None or percent == 100 or not service.rolled_out):
            service.rolled_out = latest["name"]
        ready = [each for each in service.revisions if each["ready"]]
        component = {
            "latestCreatedRevision": latest["name"],
            "latestReadyRevision": ready[-1]["name"] if ready else "",
            "latestRolledoutRevision": service.rolled_out,
            "traffic": [
                {"revisionName": name, "percent": share, "latestRevision": name == latest["name"]}
                for name, share in self._traffic(service).items()
            ],
        }
        done = "True" if latest["ready"] else "False" if why else "Unknown"
        host = f"{service.resource['metadata']['name']}.{service.resource['metadata']['namespace']}.example.com"
        service.resource["status"] = {
            "observedGeneration": service.made_of[1],
            "url": f"http://{host}",
            "components": {"predictor": component},
            "conditions": [{"type": "Ready", "status": done, **({"message": why} if why else {})}],
        }

    def _traffic(self, service: _Service) -> dict[str, int]:
        ready = [each["name"] for each in service.revisions if each["ready"]]
        if not ready:
            return {}
        percent = service.resource["spec"]["predictor"].get("canaryTrafficPercent")
        if percent is None or ready[-1] == service.rolled_out or not service.rolled_out:
            # A revision that is not ready gets nothing: the one before it goes on.
            return {ready[-1]: 100}
        split = {ready[-1]: percent, service.rolled_out: 100 - percent}
        return {name: share for name, share in split.items() if share}

    def _list(self, request: Request, namespace: str) -> Any:
        found = [each.resource for (place, _), each in self.services.items() if place == namespace]
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceServiceList",
            "metadata": {},
            "items": found,
        }

    def _get(self, request: Request, namespace: str, name: str) -> Any:
        service = self._found(namespace, name)
        service.polls_left = max(service.polls_left - 1, 0)
        if not service.polls_left:
            self._settle(service)
        return copy.deepcopy(service.resource)

    def _delete(self, request: Request, namespace: str, name: str) -> Any:
        kept, wanted = self._found(namespace, name).resource["metadata"], request.json() if request.body else {}
        uid = kept["uid"]
        for key, value in (wanted.get("preconditions") or {}).items():
            if value != kept[key]:
                raise ApiError(409, f"Precondition failed: {key} in precondition: {value}, in object meta: {kept[key]}")
        del self.services[namespace, name]
        for place, kept in list(self.config_maps.items()):
            if any(owner["uid"] == uid for owner in kept["metadata"].get("ownerReferences", ())):
                del self.config_maps[place]
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _found(self, namespace: str, name: str) -> _Service:
        try:
            return self.services[namespace, name]
        except KeyError:
            raise ApiError(404, f'inferenceservices.serving.kserve.io "{name}" not found') from None

    def _create_map(self, request: Request, namespace: str) -> Any:
        body = copy.deepcopy(request.json())
        name = body.get("metadata", {}).get("name", "")
        if (namespace, name) in self.config_maps:
            raise ApiError(409, f'configmaps "{name}" already exists')
        return self._keep_map(body, namespace, name)

    def _get_map(self, request: Request, namespace: str, name: str) -> Any:
        try:
            return self.config_maps[namespace, name]
        except KeyError:
            raise ApiError(404, f'configmaps "{name}" not found') from None

    def _replace_map(self, request: Request, namespace: str, name: str) -> Any:
        body = copy.deepcopy(request.json())
        _check_version(body, self._get_map(request, namespace, name), f'configmaps "{name}"')
        return self._keep_map(body, namespace, name)

    def _keep_map(self, body: dict[str, Any], namespace: str, name: str) -> Any:
        if not all(isinstance(text, str) for text in body.get("data", {}).values()):
            raise ApiError(400, "ConfigMap in version v1 cannot be handled: data holds texts")
        body["metadata"]["namespace"] = namespace
        self._stamp(body)
        self.config_maps[namespace, name] = body
        return body

    def _pods(self, service: _Service) -> list[dict[str, Any]]:
        wanted = {*self._traffic(service), service.revisions[-1]["name"]}
        found = []
        for revision in service.revisions:
            if revision["name"] in wanted:
                replicas = revision["template"].get("minReplicas", 1)
                found += [self._pod(service, revision, number, ready=revision["ready"]) for number in range(replicas)]
        return found

    def _pod(self, service: _Service, revision: Mapping[str, Any], number: int = 0, *, ready: bool) -> dict[str, Any]:
        metadata = service.resource["metadata"]
        template = revision["template"]
        labels = {
            _OWNER: metadata["name"],
            "serving.knative.dev/revision": revision["name"],
            **template.get("labels", {}),
        }
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{revision['name']}-deployment-{number}",
                "namespace": metadata["namespace"],
                "labels": labels,
            },
            "spec": {"containers": template.get("containers", [])},
            "status": {"phase": "Running", "conditions": [condition]},
        }

    def _list_pods(self, request: Request, namespace: str) -> Any:
        wanted = dict(each.split("=", 1) for each in request.query.get("labelSelector", "").split(",") if each)
        items = [
            pod
            for (place, _), service in self.services.items()
            if place == namespace
            for pod in self._pods(service)
            if wanted.items() <= pod["metadata"]["labels"].items()
        ]
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}

    def _proxy(self, request: Request, namespace: str, pod: str, port: str, path: str) -> Any:
        for (place, _), service in self.services.items():
            for each in self._pods(service) if place == namespace else ():
                if each["metadata"]["name"] == pod:
                    if self.serve is None:
                        raise ApiError(503, "the stand-in has no containers: give it a function that serves.")
                    return self.serve(each, Request(request.method, f"/{path}", request.query, request.headers,
                                                    request.body, request.content))  # fmt: skip
        raise ApiError(404, f'pods "{pod}" not found')


def _check_version(body: Mapping[str, Any], kept: Mapping[str, Any], what: str) -> None:
    """Refuse to replace what is no longer as whoever replaces it has seen it."""
    given = body.get("metadata", {}).get("resourceVersion")
    if given is not None and given != kept["metadata"]["resourceVersion"]:
        raise ApiError(
            409,
            f"Operation cannot be fulfilled on {what}: the object has been modified; please apply your changes to the "
            "latest version and try again",
        )


def _check(body: Mapping[str, Any]) -> None:
    """Refuse what KServe's definition or its webhook refuses."""
    spec = body.get("spec", {})
    predictor = spec.get("predictor")
    for known, given, where in ((_SPEC, spec, "spec"), (_PREDICTOR, predictor or {}, "spec.predictor")):
        if unknown := sorted(given.keys() - known):
            raise ApiError(400, f'strict decoding error: unknown field "{where}.{unknown[0]}"')
    if not predictor or not (predictor.get("containers") or predictor.get("model")):
        raise ApiError(422, "spec.predictor: one of containers and model is required")
    percent = predictor.get("canaryTrafficPercent")
    if percent is not None and not (isinstance(percent, int) and 0 <= percent <= 100):
        raise ApiError(422, f"spec.predictor.canaryTrafficPercent: {percent!r} is no whole number from 0 to 100")
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if most and least > most:
        raise ApiError(422, "spec.predictor: minReplicas is greater than maxReplicas")
    for container in predictor.get("containers", []):
        if not container.get("image"):
            raise ApiError(422, "spec.predictor.containers: the image is required")
