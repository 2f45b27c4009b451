"""An InferenceService of KServe: a revision a version, and canaryTrafficPercent between the two that it knows.

KServe splits traffic between its latest revision and the one that had all of it before, where Knative serves
(`Serverless`). So an endpoint has two versions at most. They are asked and measured through the Kubernetes API, pod by
pod, with or without traffic.

KServe hands annotations and labels of an InferenceService on to Knative, which makes a revision whenever one of them
changes. So what is to be known of a version lies in those of its own predictor, where it stays as it was made: its
digest, and what the version was made of that had all traffic before. Traffic lies in canaryTrafficPercent alone: 0
without a version before is that of a first one nobody has given any yet, and 100, which KServe takes as it takes none,
says that the one before was removed. The resourceVersion guards it all. The note of a rollout is a ConfigMap that
the InferenceService owns, and that goes with it.
"""

from __future__ import annotations

import datetime
import json
import time
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
REVISION = "serving.knative.dev/revision"  # Knative's
VERSION, DIGEST = "penstock.dev/version", "penstock.dev/digest"  # ours, of a predictor
BEFORE = "penstock.dev/before"  # predictor of the version that had all traffic when this one came
SHARE = "canaryTrafficPercent"
NOTE = "rollout"
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
        predictor, before = self._predictor(endpoint, model), self._get(endpoint)
        stays = before is not None and model.version in _versions(before) and not self._unready(before, model.version)
        self._changed(endpoint, lambda found: self._with(found, endpoint, model.version, predictor))
        try:
            return _seen(self._wait_ready(endpoint, model.version))
        except BaseException:
            if not stays:
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
        there = False

        def change(found: Service | None) -> Service | None:
            nonlocal there
            there = found is not None and (not version or version in _versions(found))
            if found is None or not there:
                return found
            if share := _traffic(found).get(version):
                raise UserError(
                    self._component, "version", f"{version} of {endpoint} gets {share} % of the traffic",
                    "Give the traffic to another first",
                )  # fmt: skip
            return _without(found, version) if version else None

        self._changed(endpoint, change)
        return there

    def note(self, endpoint: str) -> Note:
        """Return what a ConfigMap says about a rollout; see Backend."""
        found = self._get(endpoint)
        return self._read_note(_note_name(found)) if found else Note(None, "0")

    def write_note(self, endpoint: str, document: Mapping[str, Any] | None, generation: str) -> Note:
        """Write that ConfigMap, if its resourceVersion is the one that was read; see Backend."""
        found, attempts = self._get(endpoint), 0
        if found is None:
            raise Changed(f"there is no endpoint {endpoint}")
        name, uid = _note_name(found), found["metadata"]["uid"]
        owner = {"apiVersion": f"{GROUP}/{API}", "kind": "InferenceService", "name": endpoint, "uid": uid}
        metadata: dict[str, Any] = {"name": name, "namespace": self._namespace, "ownerReferences": [owner]}
        # JSON's null takes the place of a note: a ConfigMap that is gone could come back as another's first one.
        body = {"metadata": metadata, "data": {NOTE: json.dumps(document, sort_keys=True)}}
        if generation != "0":
            metadata["resourceVersion"] = generation

        def write(seconds: float) -> Note | None:
            nonlocal attempts
            attempts += 1
            place: dict[str, Any] = {"namespace": self._namespace, "body": body, "_request_timeout": seconds}
            try:
                if generation == "0":
                    return _note(self._core.create_namespaced_config_map(**place))
                return _note(self._core.replace_namespaced_config_map(name, **place))
            except ApiException as error:
                if error.status not in (404, 409):
                    raise
                return None

        written = self._calls("write the note of a rollout", write)
        if written is None and attempts > 1:  # an attempt whose answer was lost may have written it
            now = self._read_note(name)
            written = now if now.generation != generation and now.document == document else None
        if written is None:
            raise Changed(f"the rollout of {endpoint} is another's")
        return written

    def _read_note(self, name: str) -> Note:
        def read(seconds: float) -> Note:
            try:
                return _note(self._core.read_namespaced_config_map(name, self._namespace, _request_timeout=seconds))
            except ApiException as error:
                if error.status != 404:
                    raise
                return Note(None, "0")

        return self._calls("read the note of a rollout", read)

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
            "annotations": {DIGEST: model.digest},
            "minReplicas": least,
            "maxReplicas": int(options.get("max_replicas", least)),
            "containers": [container],
        }
        if options.get("service_account"):
            predictor["serviceAccountName"] = str(options["service_account"])
        return predictor

    def _with(self, found: Service | None, endpoint: str, version: str, predictor: Mapping[str, Any]) -> Service:
        """Return the InferenceService with a version, as it is where it has it already."""
        if found is None:
            mode = {"serving.kserve.io/deploymentMode": "Serverless"}  # in which alone KServe splits traffic
            return {
                "apiVersion": f"{GROUP}/{API}",
                "kind": "InferenceService",
                "metadata": {"name": endpoint, "namespace": self._namespace, "annotations": mode},
                "spec": {"predictor": {**predictor, SHARE: 0}},
            }
        versions, traffic = _versions(found), _traffic(found)
        if version in versions and (version == _latest(found) or traffic.get(version)):
            return found
        if len(traffic) > 1:
            raise UserError(
                self._component, "endpoint",
                f"{endpoint} splits its traffic between {' and '.join(sorted(traffic))}, and KServe knows two versions",
                "Finish that rollout, or give one of them all traffic",
            )  # fmt: skip
        return _made(found, predictor, versions.get(next(iter(traffic), "")), 0)

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
        share, predictor = traffic.get(latest, 0), found["spec"]["predictor"]
        if share == 100:
            return found if predictor.get(SHARE) == 100 else _shared(found, None)
        if _traffic(found).get(latest) != 100:
            return _shared(found, share)
        # The other one is no revision any more that KServe would send anything to: it has to be made anew.
        if share:
            raise UserError(
                self._component, "traffic",
                f"{latest} of {name} has had all traffic, and KServe splits none with a version before it",
                "Give one version all traffic, or deploy the other again",
            )  # fmt: skip
        [version] = traffic
        return _made(found, versions[version], versions[latest], None)

    def _take_back(self, endpoint: str, version: str) -> None:
        """Let a version without traffic be gone: its revision is followed by one of the version that has it all."""

        def change(found: Service | None) -> Service | None:
            if found is None or version not in _versions(found) or _traffic(found).get(version):
                return found
            return _without(found, version)

        self._changed(endpoint, change)

    def _changed(self, endpoint: str, change: Callable[[Service | None], Service | None]) -> Any:
        """Return the InferenceService after a change, None where it is gone; begun anew where others were faster."""
        for _ in range(_TRIES):
            found, attempts = self._get(endpoint), 0
            wanted = change(found)
            if wanted == found:
                return wanted

            def write(seconds: float, wanted: Service | None = wanted, found: Service | None = found) -> Any:
                nonlocal attempts
                attempts += 1
                try:
                    if wanted is None:
                        return self._custom.delete_namespaced_custom_object(
                            GROUP, API, self._namespace, PLURAL, endpoint, body=_as_seen(found),
                            propagation_policy="Foreground", _request_timeout=seconds,
                        )  # fmt: skip
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
                return wanted and written
            if attempts > 1:  # an attempt whose answer was lost may have changed it
                again = self._get(endpoint)
                if again == wanted or (again and wanted and again["spec"] == wanted["spec"]):
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
        if found is not None and not _latest(found):
            raise UserError(
                self._component, "endpoint", f"the InferenceService {endpoint} was made by others", "Take another name"
            )
        return found

    def _wait_ready(self, endpoint: str, version: str) -> Service:
        """Return the InferenceService once the version's revision is ready."""
        end = time.monotonic() + self._ready
        while True:
            found = self._get(endpoint)
            if found is None or version not in _versions(found):
                raise UserError(self._component, "endpoint", f"{endpoint} was changed by others", "Deploy again")
            why = self._unready(found, version)
            if not why:
                return found
            if time.monotonic() > end:
                raise UserError(
                    self._component, "model", f"{version} is not ready after {self._ready:g} s: {why}",
                    "Look at its pods, mend what they say, and deploy again",
                )  # fmt: skip
            time.sleep(POLL)

    def _unready(self, found: Service, version: str) -> str:
        """Return why a version cannot be asked yet; empty: it can."""
        if _latest(found) != version:
            return ""
        # What is observed here is the generation of Knative's own resource. The revision that is ready may be one of
        # another version for a while; its pods tell.
        status = found.get("status", {})
        revision = status.get("components", {}).get("predictor", {}).get("latestReadyRevision")
        if revision and self._ready_pods(found["metadata"]["name"], version, revision):
            return ""
        conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
        return "; ".join(str(each.get("message")) for each in conditions if each.get("message")) or "it is being made"

    def _pods(self, endpoint: str, version: str) -> list[str]:
        try:
            ready = self._ready_pods(endpoint, version)
        except UserError as error:
            raise Unreachable(error.problem) from None
        if not ready:
            raise Unreachable(f"{version} of {endpoint} has no pod that is ready")
        return ready

    def _ready_pods(self, endpoint: str, version: str, revision: str = "") -> list[str]:
        """Return the names of the pods of a version, or of one revision of it, that are ready."""
        labels = {OWNER: endpoint, VERSION: version, **({REVISION: revision} if revision else {})}
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found = self._calls(
            f"list the pods of {version}",
            lambda seconds: self._core.list_namespaced_pod(
                self._namespace, label_selector=selector, _request_timeout=seconds
            ),
        )
        return sorted(
            pod.metadata.name
            for pod in found.items
            if any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())
        )

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


def _latest(found: Service) -> str:
    return str(found["spec"]["predictor"].get("labels", {}).get(VERSION, ""))


def _versions(found: Service) -> dict[str, dict[str, Any]]:
    """Return the predictors of the versions, as each was made."""
    predictor = found["spec"]["predictor"]
    annotations = {name: text for name, text in predictor["annotations"].items() if name != BEFORE}
    own = {name: each for name, each in predictor.items() if name != SHARE}
    versions = {_latest(found): {**own, "annotations": annotations}}
    if BEFORE in predictor["annotations"] and predictor.get(SHARE) != 100:
        before = json.loads(predictor["annotations"][BEFORE])
        versions[before["labels"][VERSION]] = before
    return versions


def _without(found: Service, version: str) -> Service | None:
    """Return the InferenceService without a version that has no traffic; None where it has no other one."""
    kept = [predictor for name, predictor in _versions(found).items() if name != version]
    if not kept:
        return None
    return _made(found, kept[0], None, None) if _latest(found) == version else _shared(found, 100)


def _as_seen(found: Service | None) -> client.V1DeleteOptions:
    """Return what lets an object be deleted only as it was read."""
    metadata = (found or {}).get("metadata", {})
    seen = client.V1Preconditions(uid=metadata.get("uid"), resource_version=metadata.get("resourceVersion"))
    return client.V1DeleteOptions(preconditions=seen)


def _traffic(found: Service) -> dict[str, int]:
    """Return who gets how much, as the spec says it; before the first version was given any, nobody."""
    share = int(found["spec"]["predictor"].get(SHARE, 100))
    split = dict(zip(_versions(found), (share, 100 - share), strict=False))
    return {name: each for name, each in split.items() if each}


def _made(found: Service, predictor: Mapping[str, Any], before: Mapping[str, Any] | None, share: int | None) -> Service:
    """Return the InferenceService with another predictor, which knows the version before it, and that one's share."""
    annotations = dict(predictor["annotations"])
    if before is not None:
        annotations[BEFORE] = json.dumps(before, sort_keys=True)
    return _shared({**found, "spec": {"predictor": {**predictor, "annotations": annotations}}}, share)


def _shared(found: Service, share: int | None) -> Service:
    """Return the InferenceService with another share of its latest version; None: all, and the one before is known."""
    predictor = {name: each for name, each in found["spec"]["predictor"].items() if name != SHARE}
    if share is not None:
        predictor[SHARE] = share
    return {**found, "spec": {"predictor": predictor}}


def _seen(found: Service) -> Endpoint:
    versions = {name: Version(name, each["annotations"][DIGEST]) for name, each in _versions(found).items()}
    url = str(found.get("status", {}).get("url") or "")
    return Endpoint(found["metadata"]["name"], url, versions, _traffic(found), "", _generation(found))


def _generation(found: Service) -> str:
    """Return what changes with the spec: with the traffic, and with a version that comes or goes."""
    return str(found["metadata"]["generation"])


def _note_name(found: Service) -> str:
    """Return the name of the note's ConfigMap, which none of another InferenceService of the name ever had."""
    return f"{found['metadata']['name']}-{NOTE}-{found['metadata']['uid'][:8]}"


def _note(found: client.V1ConfigMap) -> Note:
    return Note(json.loads(found.data[NOTE]), str(found.metadata.resource_version))


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
