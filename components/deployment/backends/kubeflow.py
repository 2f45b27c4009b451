"""An InferenceService of KServe: a revision a version, and canaryTrafficPercent between the two that it knows.

KServe splits traffic between its latest revision and the one that had all of it before, where Knative serves
(`Serverless`). So an endpoint has two versions at most. They are asked and measured through the Kubernetes API, pod by
pod, with or without traffic. What KServe does not keep lies in annotations of the InferenceService, which its
resourceVersion guards.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from penstock.components._shared.clouds import cluster
from penstock.components._shared.clouds.calls import Calls, Failure
from penstock.components._shared.errors import UserError
from penstock.components.deployment import measure
from penstock.components.deployment.endpoint import Candidate, Changed, Endpoint, Note, Reading, Unreachable, Version
from penstock.components.deployment.options import check_options

GROUP, API, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
OWNER = "serving.kserve.io/inferenceservice"  # KServe's label of a pod
VERSION = "penstock.dev/version"  # ours, of revisions and pods
VERSIONS = "penstock.dev/versions"  # what each version is made of
OPEN = "penstock.dev/open"  # whether the first version was given the traffic that KServe sends to it
COUNT = "penstock.dev/traffic-changes"
NOTE, NOTE_COUNT = "penstock.dev/rollout", "penstock.dev/rollout-changes"
OPTIONS = {
    "namespace": str, "context": str, "image": str, "cpu": str, "memory": str, "min_replicas": int, "max_replicas": int,
    "service_account": str, "variables": dict, "ready_seconds": float,
}  # fmt: skip
READY = 1800.0  # seconds for a revision to be ready
POLL = 2.0  # seconds between two looks at it
ANSWER = 30.0  # seconds for a pod to answer
AGAIN = 5.0  # seconds in which one that failed is asked again
PORT = 8080
_TRIES = 20  # at a change while others change the endpoint
_STORES = ("gs://", "s3://", "https://", "http://", "pvc://", "abfss://", "hf://")

Service = dict[str, Any]


def connect(options: Mapping[str, Any], component: str) -> KServe:
    """Return the endpoints of a namespace.

    Args:
        options: `namespace` and `context`, by default this step's or the kubeconfig's; `image`, our serving image by
            digest; `cpu` and `memory` of a replica; `min_replicas` (1) and `max_replicas`; `service_account`;
            `variables` of the server by name; `ready_seconds`.

    Raises:
        UserError: An option is unknown or wrong, or no cluster is known.
    """
    check_options(options, OPTIONS, component)

    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(component, "options", problem, remedy)

    least = int(options.get("min_replicas", 1))
    most = int(options.get("max_replicas", least))
    if not 1 <= least <= most:
        raise refuse(
            f"min_replicas {least}, max_replicas {most}",
            "Give 1 or more, and as many: a version is tried without traffic",
        )
    for name, value in options.get("variables", {}).items():
        if (
            not name.startswith("PENSTOCK_")
            or name in ("PENSTOCK_TOKEN", "PENSTOCK_PORT")
            or not isinstance(value, str)
        ):
            raise refuse(
                f"variables has {name}={value!r}",
                "Give texts by names such as PENSTOCK_THREADS; tokens are checked at the cluster's gateway",
            )
    api, namespace = cluster.connect(options, refuse)
    return KServe(options, component, api, namespace)


class KServe:
    """The InferenceServices of one namespace."""

    name = "KServe"
    measures = frozenset(measure.METRICS) - {"agreement"}
    shadows = False
    lag = 0.0

    def __init__(self, options: Mapping[str, Any], component: str, api: Any, namespace: str) -> None:
        self._options, self._component, self._namespace = options, component, namespace
        self._calls = Calls(self, component, "platform")
        self._api, self._custom, self._core = api, client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._ready = float(options.get("ready_seconds", READY))

    def failure(self, error: Exception) -> Failure | None:
        """See Service."""
        return cluster.failure(error)

    def get(self, endpoint: str) -> Endpoint | None:
        """Return the InferenceService; see Backend."""
        found = self._get(endpoint)
        return _seen(found) if found else None

    def create_or_update(self, endpoint: str, model: Candidate) -> Endpoint:
        """Make the InferenceService, or a revision of it that gets no traffic; see Backend."""
        if not model.uri.startswith(_STORES):
            raise UserError(
                self._component, "model", f"it is at {model.uri}, and KServe fetches from {', '.join(_STORES)}",
                "Run the step where artifacts are in a bucket, or upload the folder and give its URI",
            )  # fmt: skip
        if not self._options.get("image"):
            raise UserError(self._component, "options", "no image is given", "Give our serving image, by its digest")
        made = {"digest": model.digest, "predictor": self._predictor(endpoint, model)}
        self._changed(endpoint, lambda found: self._with(found, endpoint, model.version, made))
        try:
            return _seen(self._wait_ready(endpoint, model.version))
        except BaseException:
            self._take_back(endpoint, model.version)
            raise

    def smoke(self, endpoint: str, version: str, model: Candidate) -> list[dict[str, Any]]:
        """Ask one of the version's pods; see Backend."""
        answer = self._ask(self._pods(endpoint, version)[0], "POST", "invocations", json.loads(model.example))
        try:
            predictions: list[dict[str, Any]] = json.loads(answer)["predictions"]
        except (ValueError, KeyError, TypeError):
            raise Unreachable(f"it answers {answer[:200]!r}") from None
        return predictions

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], shadow: str, generation: str) -> Endpoint:
        """Set canaryTrafficPercent, if nobody else has since; see Backend."""
        if shadow:
            raise UserError(self._component, "strategy", "KServe copies no requests to a shadow", "Take canary")

        def change(found: Service | None) -> Service:
            if found is None or _generation(found) != generation:
                raise Changed(f"{endpoint} has changed")
            return self._routed(found, traffic)

        found = self._changed(endpoint, change)
        version = _latest(found)
        # Traffic that goes back to a version which had none is its own only once it is ready again.
        return _seen(self._wait_ready(endpoint, version) if traffic.get(version) == 100 else found)

    def reading(self, endpoint: str, version: str, since: datetime.datetime) -> Reading:
        """Return what the version's pods have counted since they started; see Backend."""
        texts = [self._ask(pod, "GET", "metrics") for pod in self._pods(endpoint, version)]
        return _summed([measure.read_exposition(text) for text in texts])

    def answers(self, endpoint: str, version: str, since: datetime.datetime) -> Any:
        """Without a shadow no two versions answer the same; see Backend."""
        raise Unreachable("KServe lets no two versions answer the same requests")

    def remove(self, endpoint: str, version: str) -> bool:
        """Go back to the revision before, or delete the InferenceService; see Backend."""
        found = self._get(endpoint)
        if found is None or (version and version not in _versions(found)):
            return False
        share = _traffic(found).get(version, 0)
        if share:
            raise UserError(
                self._component, "version", f"{version} of {endpoint} gets {share} % of the traffic",
                "Give the traffic to another first",
            )  # fmt: skip
        if version and len(_versions(found)) > 1:
            self._take_back(endpoint, version)
        else:
            self._delete(endpoint)
        return True

    def note(self, endpoint: str) -> Note:
        """Return what an annotation says about a rollout; see Backend."""
        found = self._get(endpoint)
        return _note(found) if found else Note(None, "0")

    def write_note(self, endpoint: str, document: Mapping[str, Any] | None, generation: str) -> Note:
        """Write that annotation; see Backend."""

        def change(found: Service | None) -> Service:
            if found is None or _note(found).generation != generation:
                raise Changed(f"the rollout of {endpoint} is another's")
            text = json.dumps(document, sort_keys=True) if document is not None else ""
            return _annotated(found, {NOTE: text, NOTE_COUNT: str(int(generation) + 1)})

        return _note(self._changed(endpoint, change))

    def _predictor(self, endpoint: str, model: Candidate) -> dict[str, Any]:
        """Return the predictor of a version; where KServe sees the variable STORAGE_URI, it fetches the model."""
        options = self._options
        variables = {
            **{str(name): str(value) for name, value in options.get("variables", {}).items()},
            "PENSTOCK_MODEL_NAME": endpoint,
            "PENSTOCK_MODEL_VERSION": model.version,
            "STORAGE_URI": model.uri,
        }
        container: dict[str, Any] = {
            "name": "kserve-container",
            "image": str(options["image"]),
            "env": [{"name": name, "value": value} for name, value in sorted(variables.items())],
            "ports": [{"containerPort": PORT, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": PORT}},
        }
        amounts = {name: str(options[name]) for name in ("cpu", "memory") if options.get(name)}
        if amounts:
            container["resources"] = {"requests": amounts, "limits": amounts}
        least = int(options.get("min_replicas", 1))
        predictor: dict[str, Any] = {
            "labels": {VERSION: model.version},
            "minReplicas": least,
            "maxReplicas": int(options.get("max_replicas", least)),
            "containers": [container],
        }
        if options.get("service_account"):
            predictor["serviceAccountName"] = str(options["service_account"])
        return predictor

    def _with(self, found: Service | None, endpoint: str, version: str, made: Mapping[str, Any]) -> Service:
        """Return the InferenceService with a version, as it is where it has it already."""
        if found is None:
            annotations = {
                "serving.kserve.io/deploymentMode": "Serverless",  # in which alone KServe splits traffic
                VERSIONS: json.dumps({version: made}, sort_keys=True),
                OPEN: "false",
                COUNT: "0",
                NOTE_COUNT: "0",
            }
            return {
                "apiVersion": f"{GROUP}/{API}",
                "kind": "InferenceService",
                "metadata": {"name": endpoint, "namespace": self._namespace, "annotations": annotations},
                "spec": {"predictor": dict(made["predictor"])},
            }
        versions, traffic, latest = _versions(found), _traffic(found), _latest(found)
        if version in versions and (version == latest or traffic.get(version)):
            return found
        if len(traffic) > 1:
            raise UserError(
                self._component, "endpoint",
                f"{endpoint} splits its traffic between {' and '.join(sorted(traffic))}, and KServe knows two versions",
                "Finish that rollout, or give one of them all traffic",
            )  # fmt: skip
        serving = next(iter(traffic), "")
        kept = {name: each for name, each in versions.items() if name == serving}
        predictor = dict(made["predictor"])
        if serving:
            predictor["canaryTrafficPercent"] = 0
        return _annotated(
            {**found, "spec": {"predictor": predictor}}, {VERSIONS: json.dumps({**kept, version: made}, sort_keys=True)}
        )

    def _routed(self, found: Service, traffic: Mapping[str, int]) -> Service:
        """Return the InferenceService with other traffic.

        Raises:
            UserError: There is no such version, or KServe cannot split it so.
        """
        versions, latest, name = _versions(found), _latest(found), found["metadata"]["name"]
        for version in traffic:
            if version not in versions:
                raise UserError(
                    self._component, "version", f"{name} has no version {version}", f"It has {', '.join(versions)}"
                )
        share, before = traffic.get(latest, 0), _traffic(found)
        predictor = {key: value for key, value in found["spec"]["predictor"].items() if key != "canaryTrafficPercent"}
        if share < 100 and before.get(latest) == 100:
            # The other one is no revision any more that KServe would send anything to: it has to be made anew.
            if share:
                raise UserError(
                    self._component, "traffic",
                    f"{latest} of {name} has had all traffic, and KServe splits none with a version before it",
                    "Give one version all traffic, or deploy the other again",
                )  # fmt: skip
            [version] = traffic
            predictor = dict(versions[version]["predictor"])
        elif share < 100:
            predictor["canaryTrafficPercent"] = share
        changes = int(found["metadata"]["annotations"].get(COUNT, "0").partition("-")[0]) + 1
        count = f"{changes}-{uuid.uuid4().hex}"  # which tells it from the change that another makes at the same time
        return _annotated({**found, "spec": {"predictor": predictor}}, {COUNT: count, OPEN: "true"})

    def _take_back(self, endpoint: str, version: str) -> None:
        """Let a version without traffic be gone: its revision is followed by one of the version that has it all."""

        def change(found: Service | None) -> Service | None:
            if found is None or version not in _versions(found) or _traffic(found).get(version):
                return found
            kept = {name: each for name, each in _versions(found).items() if name != version}
            if not kept:
                return None
            spec = found["spec"]
            if _latest(found) == version:
                [other] = kept
                spec = {"predictor": dict(kept[other]["predictor"])}
            return _annotated({**found, "spec": spec}, {VERSIONS: json.dumps(kept, sort_keys=True)})

        if self._changed(endpoint, change) is None:
            self._delete(endpoint)

    def _changed(self, endpoint: str, change: Callable[[Service | None], Service | None]) -> Any:
        """Return the InferenceService after a change, which is begun anew where others were faster."""
        for _ in range(_TRIES):
            found = self._get(endpoint)
            wanted = change(found)
            if wanted is None or wanted == found:
                return wanted

            def write(seconds: float, wanted: Service = wanted, found: Service | None = found) -> Any:
                try:
                    if found is None:
                        return self._custom.create_namespaced_custom_object(
                            GROUP, API, self._namespace, PLURAL, wanted, _request_timeout=seconds
                        )
                    return self._custom.replace_namespaced_custom_object(
                        GROUP, API, self._namespace, PLURAL, endpoint, wanted, _request_timeout=seconds
                    )
                except ApiException as error:
                    if error.status not in (404, 409):
                        raise
                    return None

            written = self._calls(f"change the InferenceService {endpoint}", write)
            if written is not None:
                return written
            again = self._get(endpoint)
            if again is not None and _is(again, wanted):  # an attempt whose answer was lost
                return again
        raise Changed(f"{endpoint} is changed by others all the time")

    def _get(self, endpoint: str) -> Service | None:
        def get(seconds: float) -> Service | None:
            try:
                return dict(
                    self._custom.get_namespaced_custom_object(
                        GROUP, API, self._namespace, PLURAL, endpoint, _request_timeout=seconds
                    )
                )
            except ApiException as error:
                if error.status != 404:
                    raise
                return None

        found = self._calls(f"ask for the InferenceService {endpoint}", get)
        if found is not None and VERSIONS not in found["metadata"].get("annotations", {}):
            raise UserError(
                self._component, "endpoint", f"the InferenceService {endpoint} was made by others", "Take another name"
            )
        return found

    def _delete(self, endpoint: str) -> None:
        def delete(seconds: float) -> None:
            try:
                self._custom.delete_namespaced_custom_object(
                    GROUP, API, self._namespace, PLURAL, endpoint,
                    propagation_policy="Foreground", _request_timeout=seconds,
                )  # fmt: skip
            except ApiException as error:
                if error.status != 404:
                    raise

        self._calls(f"delete the InferenceService {endpoint}", delete)

    def _wait_ready(self, endpoint: str, version: str) -> Service:
        """Return the InferenceService once the version's revision is ready."""
        end = time.monotonic() + self._ready
        while True:
            found = self._get(endpoint)
            if found is None or version not in _versions(found):
                raise UserError(self._component, "endpoint", f"{endpoint} was changed by others", "Deploy again")
            why = _unready(found, version)
            if not why:
                return found
            if time.monotonic() > end:
                raise UserError(
                    self._component, "model", f"{version} is not ready after {self._ready:g} s: {why}",
                    "Look at its pods, mend what they say, and deploy again",
                )  # fmt: skip
            time.sleep(POLL)

    def _pods(self, endpoint: str, version: str) -> list[str]:
        try:
            found = self._calls(
                f"list the pods of {version}",
                lambda seconds: self._core.list_namespaced_pod(
                    self._namespace, label_selector=f"{OWNER}={endpoint},{VERSION}={version}", _request_timeout=seconds
                ),
            )
        except UserError as error:
            raise Unreachable(error.problem) from None
        ready = [
            pod.metadata.name
            for pod in found.items
            if any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())
        ]
        if not ready:
            raise Unreachable(f"{version} of {endpoint} has no pod that is ready")
        return sorted(ready)

    def _ask(self, pod: str, method: str, path: str, body: Any = None) -> str:
        """Return what a pod answers, asked through the Kubernetes API."""
        place = f"/api/v1/namespaces/{self._namespace}/pods/{pod}:{PORT}/proxy/{path}"
        headers = {"Content-Type": "application/json"} if body is not None else {}

        def ask(seconds: float) -> str:
            answer = self._api.call_api(
                place, method, header_params=headers, body=body, auth_settings=["BearerToken"],
                _preload_content=False, _return_http_data_only=True, _request_timeout=ANSWER,
            )  # fmt: skip
            return bytes(answer.data).decode()

        try:
            return self._calls(f"ask the pod {pod} for /{path}", ask, AGAIN)
        except UserError as error:
            raise Unreachable(error.problem) from None


def _versions(found: Service) -> dict[str, Any]:
    return dict(json.loads(found["metadata"]["annotations"][VERSIONS]))


def _latest(found: Service) -> str:
    return str(found["spec"]["predictor"].get("labels", {}).get(VERSION, ""))


def _traffic(found: Service) -> dict[str, int]:
    """Return who gets how much, as the spec says it; before the first version was given any, nobody."""
    if found["metadata"]["annotations"].get(OPEN) != "true":
        return {}
    latest, share = _latest(found), int(found["spec"]["predictor"].get("canaryTrafficPercent", 100))
    before = next((name for name in _versions(found) if name != latest), "")
    split = {latest: share, before: 100 - share} if before else {latest: 100}
    return {name: each for name, each in split.items() if each}


def _seen(found: Service) -> Endpoint:
    versions = {name: Version(name, str(each["digest"])) for name, each in _versions(found).items()}
    url = str(found.get("status", {}).get("url") or "")
    return Endpoint(found["metadata"]["name"], url, versions, _traffic(found), "", _generation(found))


def _generation(found: Service) -> str:
    """Return what changes with the traffic alone: our own count, and what is there, whoever set it."""
    text = json.dumps(sorted(_traffic(found).items()))
    count = found["metadata"]["annotations"].get(COUNT, "0")
    return f"{count}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _note(found: Service) -> Note:
    annotations = found["metadata"]["annotations"]
    text = annotations.get(NOTE, "")
    return Note(json.loads(text) if text else None, annotations.get(NOTE_COUNT, "0"))


def _annotated(found: Service, more: Mapping[str, str]) -> Service:
    metadata = found["metadata"]
    return {**found, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **more}}}


def _is(found: Service, wanted: Service) -> bool:
    """Return whether an InferenceService is the one that was to be written; the cluster adds to what it is given."""
    return bool(wanted["metadata"]["annotations"].items() <= found["metadata"].get("annotations", {}).items())


def _unready(found: Service, version: str) -> str:
    """Return why a version cannot be asked yet; empty: it can."""
    status, metadata = found.get("status", {}), found["metadata"]
    if status.get("observedGeneration") != metadata.get("generation"):
        return "KServe has not seen it yet"
    if _latest(found) == version:
        component = status.get("components", {}).get("predictor", {})
        if component.get("latestReadyRevision") and (
            component["latestReadyRevision"] == component.get("latestCreatedRevision")
        ):
            return ""
        conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
        return "; ".join(str(each.get("message")) for each in conditions if each.get("message")) or "it is being made"
    return ""


def _summed(readings: Sequence[Reading]) -> Reading:
    """Return what replicas of one version have counted together."""

    def added(parts: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
        found: dict[Any, float] = {}
        for part in parts:
            for key, value in part.items():
                found[key] = found.get(key, 0.0) + value
        return found

    def bounds(parts: Sequence[tuple[tuple[float, float], ...]]) -> tuple[tuple[float, float], ...]:
        return tuple(sorted(added([dict(part) for part in parts]).items()))

    names = {name for reading in readings for name in reading.outputs}
    return Reading(
        added([reading.requests for reading in readings]),
        bounds([reading.seconds for reading in readings]),
        {name: bounds([reading.outputs.get(name, ()) for reading in readings]) for name in sorted(names)},
        added([reading.labels for reading in readings]),
    )
