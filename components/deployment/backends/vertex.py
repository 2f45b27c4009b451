"""An Endpoint of Vertex AI: a deployed model a version, and the endpoint's own traffic split.

Vertex AI has no way to ask a deployed model that gets no traffic. So a version is tried at an endpoint of its own,
NAME-try-VERSION, which is there for the length of the test. Metrics come from Cloud Monitoring, some minutes late.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import google.auth
import yaml
from google.api_core.exceptions import GoogleAPICallError, NotFound, from_http_response
from google.auth.transport.requests import AuthorizedSession
from google.cloud import aiplatform_v1
from google.cloud.aiplatform import initializer, utils

from penstock.components._shared.clouds import vertex
from penstock.components._shared.clouds.calls import Calls, Failure
from penstock.components._shared.errors import UserError
from penstock.components.deployment.endpoint import Candidate, Changed, Endpoint, Note, Reading, Unreachable, Version
from penstock.components.deployment.options import check_options

T = TypeVar("T")

OPTIONS = {
    "project": str, "location": str, "image": str, "staging_bucket": str, "machine_type": str, "machines": int,
    "max_machines": int, "service_account": str, "encryption_key": str, "variables": dict, "ready_seconds": float,
    "metrics_seconds": float,
}  # fmt: skip
READY = 3600.0  # seconds for a model to be deployed
POLL = 10.0  # seconds between two looks at what is being made
ANSWER = 60.0  # seconds for a prediction
AGAIN = 5.0  # seconds in which one that failed is asked for again
GENERATION = "penstock-traffic"  # label that counts our changes of traffic, and tells one of them from others
ENDPOINT = "penstock-endpoint"  # label of models: whose they are
MONITORING = "https://monitoring.googleapis.com"
RESPONSES = "aiplatform.googleapis.com/prediction/online/response_count"
LATENCIES = "aiplatform.googleapis.com/prediction/online/prediction_latencies"  # distributions of milliseconds
LATENCY_TYPES = ("total", "model")  # the first of them that is told: parts cannot be put together
LAG = 420.0  # seconds for a request to be counted: once a minute, and up to six minutes until that can be read
_TRIES = 20  # at a change while others change the endpoint


def connect(options: Mapping[str, Any], component: str) -> Vertex:
    """Return the endpoints of a project and location.

    Args:
        options: `project` and `location`, by default the environment's; `image`, our serving image by digest;
            `staging_bucket`, a gs:// folder for the notes of rollouts, and for models that lie in no bucket;
            `machine_type` (n1-standard-2), `machines` (1) and `max_machines`; `service_account`, `encryption_key`;
            `variables` of the server by name; `ready_seconds`; `metrics_seconds` that Cloud Monitoring may take to
            count a request (420).

    Raises:
        UserError: An option is unknown, wrong or missing.
    """
    check_options(options, OPTIONS, component)
    if not str(options.get("staging_bucket", "")).startswith("gs://"):
        raise UserError(component, "options", "staging_bucket is no gs:// folder", "Give one for the notes of rollouts")
    machines, most = int(options.get("machines", 1)), int(options.get("max_machines", options.get("machines", 1)))
    if not 1 <= machines <= most:
        raise UserError(
            component, "options", f"machines {machines}, max_machines {most}", "Give 1 or more, and as many"
        )
    return Vertex(options, component)


class Vertex:
    """The endpoints of one project and location."""

    name = "Vertex AI"
    measures = frozenset({"requests", "error_rate", "refusal_rate", "latency_p50", "latency_p95", "latency_p99"})
    shadows = False

    def __init__(self, options: Mapping[str, Any], component: str) -> None:
        self._options, self._component = options, component
        self._calls = Calls(self, component, "platform")
        self._parent = vertex.connect(options)
        self._endpoints = vertex.client(utils.EndpointClientWithOverride)
        self._models = vertex.client(utils.ModelClientWithOverride)
        self._ready = float(options.get("ready_seconds", READY))
        self.lag = float(options.get("metrics_seconds", LAG))

    def failure(self, error: Exception) -> Failure | None:
        """See Service."""
        return vertex.failure(error)

    def get(self, endpoint: str) -> Endpoint | None:
        """Return the endpoint; see Backend."""
        found = self._get(endpoint)
        return self._seen(endpoint, found) if found else None

    def create_or_update(self, endpoint: str, model: Candidate) -> Endpoint:
        """Register the model, make the endpoint, and deploy the one to the other; see Backend."""
        if not self._options.get("image"):
            raise UserError(self._component, "options", "no image is given", "Give our serving image, by its digest")
        self._register(endpoint, model)
        self._make(endpoint, {"display_name": endpoint, "labels": {GENERATION: "0"}})
        before = self.get(endpoint)
        try:
            self._deploy(endpoint, endpoint, model, {})
        except BaseException:
            if before and model.version not in before.versions:
                self._undeploy(endpoint, model.version)
            raise
        found = self.get(endpoint)
        if found is None:
            raise UserError(self._component, "endpoint", f"{endpoint} was removed by others", "Deploy again")
        return found

    def smoke(self, endpoint: str, version: str, model: Candidate) -> list[dict[str, Any]]:
        """Deploy the version to an endpoint of its own for as long as it takes to ask it; see Backend."""
        alone, own = _trial(endpoint, version), _deployed_id(version)
        try:
            for _ in range(_TRIES):
                self._make(alone, {"display_name": alone, "labels": {"penstock-try": endpoint}})
                self._deploy(alone, endpoint, model, {"0": 100})
                found = self._get(alone)
                if found is not None and not found.traffic_split:  # one who was killed had begun to remove it
                    self._split(found, {own: 100})
                try:
                    return self._predicted(alone, model)
                except Unreachable:
                    found = self._get(alone)
                    if found is not None and found.traffic_split.get(own):
                        raise
                    # Another who tried the same version has removed it.
            raise Unreachable(f"{alone} is removed by others all the time")
        finally:
            self._remove_endpoint(alone)

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], shadow: str, generation: str) -> Endpoint:
        """Set the endpoint's traffic split, if its etag is still what it was; see Backend."""
        if shadow:
            raise UserError(self._component, "strategy", "Vertex AI copies no requests to a shadow", "Take canary")
        for _ in range(_TRIES):
            found = self._get(endpoint)
            if found is None or _generation(found) != generation:
                raise Changed(f"{endpoint} has changed")
            ids = {each.display_name: each.id for each in found.deployed_models}
            for version in traffic:
                if version not in ids:
                    known = ", ".join(ids) or "none"
                    raise UserError(
                        self._component, "version", f"{endpoint} has no version {version}", f"It has {known}"
                    )
            changed = self._split(found, {ids[version]: share for version, share in traffic.items()})
            if changed is not None:
                return self._seen(endpoint, changed)
        raise Changed(f"{endpoint} is changed by others all the time")

    def reading(self, endpoint: str, version: str, since: datetime.datetime) -> Reading:
        """Return what Cloud Monitoring has counted since then; see Backend."""
        counts: dict[int, float] = {}
        for labels, values in self._series(RESPONSES, endpoint, version, since):
            code = str(labels.get("response_code", "0"))
            status = int(code) if code.isdecimal() else 0
            counts[status] = counts.get(status, 0.0) + sum(float(each.get("int64Value", 0)) for each in values)
        latencies: dict[str, list[Mapping[str, Any]]] = {}
        for labels, values in self._series(LATENCIES, endpoint, version, since):
            told = [each["distributionValue"] for each in values if "distributionValue" in each]
            latencies.setdefault(str(labels.get("latency_type", "")), []).extend(told)
        kind = next((kind for kind in LATENCY_TYPES if latencies.get(kind)), "")
        return Reading(counts, _histogram(latencies.get(kind, [])))

    def answers(self, endpoint: str, version: str, since: datetime.datetime) -> Any:
        """Vertex AI has no agreement of versions to ask this for; see Backend."""
        raise Unreachable("Vertex AI keeps no answers")

    def remove(self, endpoint: str, version: str) -> bool:
        """Undeploy the version, or all with the endpoint; see Backend."""
        found = self._get(endpoint)
        if not version:
            # One who was killed on the way may have left any of it.
            models = self._registered(endpoint)
            for name in models:
                self._remove_endpoint(_trial(endpoint, name.rpartition("/")[2].removeprefix(f"{endpoint}-")))
            self._remove_endpoint(endpoint)
            for name in models:
                self._unregister(name)
            note = self.note(endpoint)
            if note.document is not None:
                self.write_note(endpoint, None, note.generation)
            return found is not None
        if found is not None and (share := self._seen(endpoint, found).traffic.get(version)):
            raise UserError(
                self._component, "version", f"{version} of {endpoint} gets {share} % of the traffic",
                "Give the traffic to another first",
            )  # fmt: skip
        self._remove_endpoint(_trial(endpoint, version))
        there = self._undeploy(endpoint, version)
        self._unregister(self._model_name(endpoint, version))
        return there

    def note(self, endpoint: str) -> Note:
        """Return what an object of the bucket says about a rollout; see Backend."""

        def read(seconds: float) -> Note:
            blob = self._blob(endpoint)  # anew: one that was read would ask for the generation that it had then
            try:
                content = blob.download_as_bytes(timeout=seconds, retry=None)
            except NotFound:
                return Note(None, "0")
            return Note(json.loads(content), str(blob.generation))

        return self._calls("read the note of a rollout", read)

    def write_note(self, endpoint: str, document: Mapping[str, Any] | None, generation: str) -> Note:
        """Write that object, if it is of the generation that was read; see Backend."""
        blob = self._blob(endpoint)
        # JSON's null takes the place of a note: an object that is gone could come back as another's first one.
        content = json.dumps(document, sort_keys=True).encode()

        def write(seconds: float) -> Note:
            try:
                blob.upload_from_string(
                    content, "application/json", if_generation_match=int(generation), timeout=seconds, retry=None
                )
            except GoogleAPICallError as error:
                if error.code != 412:
                    raise
                now = self.note(endpoint)
                # It may be ours, from an attempt whose answer was lost.
                if now.document != (None if document is None else json.loads(content)) or now.generation == generation:
                    raise Changed(f"the rollout of {endpoint} is another's") from None
                return now
            return Note(None if document is None else dict(document), str(blob.generation))

        return self._calls("write the note of a rollout", write)

    def _name(self, endpoint: str) -> str:
        return f"{self._parent}/endpoints/{endpoint}"

    def _model_name(self, endpoint: str, version: str) -> str:
        return f"{self._parent}/models/{_model_id(endpoint, version)}"

    def _get(self, endpoint: str) -> Any:
        def get(seconds: float) -> Any:
            try:
                return self._endpoints.get_endpoint(name=self._name(endpoint), timeout=seconds, retry=None)
            except NotFound:
                return None

        return self._calls(f"ask for the endpoint {endpoint}", get)

    def _seen(self, endpoint: str, found: Any) -> Endpoint:
        names = {each.id: each.display_name for each in found.deployed_models}
        location = self._parent.split("/")[3]
        versions = {name: Version(name, name.removeprefix("v")) for name in names.values()}
        return Endpoint(
            endpoint,
            f"https://{location}-aiplatform.googleapis.com/v1/{found.name}:predict",
            versions,
            {names[own]: share for own, share in found.traffic_split.items() if share and own in names},
            "",
            _generation(found),
        )

    def _ensured(self, what: str, there: Callable[[], T | None], make: Callable[[float], Any]) -> T:
        """Return what is there, made unless it is; of those that race one makes it, and the others wait."""
        end = time.monotonic() + self._ready
        while (found := there()) is None:
            if time.monotonic() > end:
                raise self._calls.refusal(f"cannot {what} within {self._ready:g} s", "Look at it there")

            def attempt(seconds: float) -> None:
                try:
                    # What the operation comes to is seen by looking; an error of its own is told.
                    make(seconds).result(timeout=max(1.0, end - time.monotonic()))
                except TimeoutError:
                    if time.monotonic() < end:
                        raise
                except GoogleAPICallError as error:
                    if error.code != 409:
                        raise
                    time.sleep(min(POLL, max(0.0, end - time.monotonic())))  # another makes it

            self._calls(what, attempt)
        return found

    def _gone(self, what: str, delete: Callable[[float], Any]) -> None:
        """Let something be gone, whoever deletes it.

        Args:
            delete: Begins to delete it, and returns the operation; None: it is not there, or stays.
        """
        end = time.monotonic() + self._ready

        def attempt(seconds: float) -> None:
            try:
                operation = delete(seconds)
                if operation is not None:
                    operation.result(timeout=max(1.0, end - time.monotonic()))
            except NotFound:
                pass
            except TimeoutError:
                if time.monotonic() < end:
                    raise
                raise self._calls.refusal(f"cannot {what} within {self._ready:g} s", "Look at it there") from None

        self._calls(what, attempt)

    def _register(self, endpoint: str, model: Candidate) -> None:
        name = self._model_name(endpoint, model.version)
        variables = {
            "PENSTOCK_MODEL_NAME": endpoint,
            "PENSTOCK_MODEL_VERSION": model.version,
            **{str(key): str(value) for key, value in self._options.get("variables", {}).items()},
        }
        message: dict[str, Any] = {
            "display_name": f"{endpoint}-{model.version}",
            "labels": {"penstock-digest": model.digest[:63], ENDPOINT: endpoint},
            "container_spec": {
                "image_uri": str(self._options["image"]),
                "ports": [{"container_port": 8080}],
                "predict_route": "/predict",
                "health_route": "/health",
                "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
            },
        } | self._encrypted()

        def there() -> Any:
            def get(seconds: float) -> Any:
                try:
                    return self._models.get_model(name=name, timeout=seconds, retry=None)
                except NotFound:
                    return None

            return self._calls(f"ask for the model {name}", get)

        def upload(seconds: float) -> Any:
            message["artifact_uri"] = model.uri if model.uri.startswith("gs://") else self._uploaded(model)
            request = {"parent": self._parent, "model": message, "model_id": name.rpartition("/")[2]}
            return self._models.upload_model(request=request, timeout=seconds)

        self._ensured(f"register the model {name}", there, upload)

    def _uploaded(self, model: Candidate) -> str:
        """Return the gs:// folder that a model folder of this machine was uploaded to; named by its content."""
        folder = f"{str(self._options['staging_bucket']).rstrip('/')}/penstock-models/{model.digest}"
        bucket, path = vertex.place(folder)
        there = vertex.store().bucket(bucket)
        for file in sorted(each for each in model.folder.rglob("*") if each.is_file()):

            def upload(seconds: float, file: Path = file) -> None:
                blob = there.blob(f"{path}/{file.relative_to(model.folder).as_posix()}")
                blob.upload_from_filename(str(file), timeout=seconds, retry=None)

            self._calls(f"upload {file.name} to {folder}", upload)
        return folder

    def _make(self, endpoint: str, message: Mapping[str, Any]) -> None:
        request = {"parent": self._parent, "endpoint": {**message, **self._encrypted()}, "endpoint_id": endpoint}
        self._ensured(
            f"make the endpoint {endpoint}",
            lambda: self._get(endpoint),
            lambda seconds: self._endpoints.create_endpoint(request=request, timeout=seconds),
        )

    def _deploy(self, at: str, endpoint: str, model: Candidate, split: Mapping[str, int]) -> None:
        version, machines = model.version, int(self._options.get("machines", 1))
        deployed: dict[str, Any] = {
            "id": _deployed_id(version),
            "model": self._model_name(endpoint, version),
            "display_name": version,
            "dedicated_resources": {
                "machine_spec": {"machine_type": str(self._options.get("machine_type", "n1-standard-2"))},
                "min_replica_count": machines,
                "max_replica_count": int(self._options.get("max_machines", machines)),
            },
        }
        if self._options.get("service_account"):
            deployed["service_account"] = str(self._options["service_account"])
        request = {"endpoint": self._name(at), "deployed_model": deployed, "traffic_split": dict(split)}

        def there() -> Any:
            found = self._get(at)
            return (
                next((each for each in found.deployed_models if each.display_name == version), None) if found else None
            )

        self._ensured(
            f"deploy {version} to {at}",
            there,
            lambda seconds: self._endpoints.deploy_model(request=request, timeout=seconds),
        )

    def _undeploy(self, endpoint: str, version: str) -> bool:
        """Undeploy a version that gets no traffic, and return whether it was there."""
        there = False

        def undeploy(seconds: float) -> Any:
            nonlocal there
            found = self._get(endpoint)
            own = next((each.id for each in found.deployed_models if each.display_name == version), "") if found else ""
            if not own or found.traffic_split.get(own):
                return None
            there = True
            return self._endpoints.undeploy_model(endpoint=self._name(endpoint), deployed_model_id=own, timeout=seconds)

        self._gone(f"undeploy {version} from {endpoint}", undeploy)
        return there

    def _remove_endpoint(self, endpoint: str) -> None:
        """Take all models off an endpoint, and it away, if it is there."""

        def delete(seconds: float) -> Any:
            found = self._get(endpoint)
            for _ in range(_TRIES):
                if found is not None and found.traffic_split:
                    found = self._split(found, {}) or self._get(endpoint)
            if found is None:
                return None
            for each in found.deployed_models:
                self._undeploy(endpoint, each.display_name)
            return self._endpoints.delete_endpoint(name=self._name(endpoint), timeout=seconds)

        self._gone(f"remove the endpoint {endpoint}", delete)

    def _registered(self, endpoint: str) -> list[str]:
        """Return the resource names of the models that were registered for an endpoint."""
        request = {"parent": self._parent, "filter": f'labels.{ENDPOINT}="{endpoint}"'}
        return self._calls(
            f"list the models of {endpoint}",
            lambda seconds: [
                str(each.name) for each in self._models.list_models(request=request, timeout=seconds, retry=None)
            ],
        )

    def _unregister(self, name: str) -> None:
        self._gone(f"remove the model {name}", lambda seconds: self._models.delete_model(name=name, timeout=seconds))

    def _split(self, found: Any, split: Mapping[str, int]) -> Any:
        """Return the endpoint with a new split; None where another has changed it since it was read."""
        count = int(str(found.labels.get(GENERATION, "0")).partition("-")[0] or 0) + 1
        ours = f"{count}-{uuid.uuid4().hex}"
        endpoint = aiplatform_v1.Endpoint(
            name=found.name,
            display_name=found.display_name,
            traffic_split=dict(split),
            labels={**dict(found.labels), GENERATION: ours},
            etag=found.etag,
        )

        def update(seconds: float) -> Any:
            try:
                return self._endpoints.update_endpoint(
                    endpoint=endpoint, update_mask={"paths": ["traffic_split", "labels"]}, timeout=seconds, retry=None
                )
            except GoogleAPICallError as error:
                if error.code not in (404, 409, 412):
                    raise
            now = self._get(found.name.rpartition("/")[2])
            # It may be ours, from an attempt whose answer was lost.
            return now if now is not None and now.labels.get(GENERATION) == ours else None

        return self._calls("set the traffic", update)

    def _predicted(self, endpoint: str, model: Candidate) -> list[dict[str, Any]]:
        split = json.loads(model.example)["dataframe_split"]
        instances = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
        client = initializer.global_config.create_client(
            client_class=utils.PredictionClientWithOverride, prediction_client=True
        )
        try:
            answer = self._calls(
                "predict its example",
                lambda seconds: client.predict(
                    endpoint=self._name(endpoint), instances=instances, timeout=ANSWER, retry=None
                ),
                AGAIN,
            )
        except UserError as error:
            raise Unreachable(error.problem) from None
        whole = _whole(model)

        def restored(name: str, value: Any) -> Any:
            return int(value) if name in whole and isinstance(value, float) and value.is_integer() else value

        return [
            {name: restored(name, value) for name, value in each.items()} if isinstance(each, Mapping) else each
            for each in answer.predictions
        ]

    def _series(
        self, metric: str, endpoint: str, version: str, since: datetime.datetime
    ) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
        """Yield labels and values of the series of a metric; of what lies in an interval that began since then."""
        now = datetime.datetime.now(datetime.UTC)
        query = {
            "filter": f'metric.type="{metric}" AND resource.labels.endpoint_id="{endpoint}" '
            f'AND metric.labels.deployed_model_id="{_deployed_id(version)}"',
            "interval.startTime": since.astimezone(datetime.UTC).isoformat(),
            "interval.endTime": now.isoformat(),
        }
        project = self._parent.split("/")[1]
        address = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING", MONITORING).rstrip("/")
        credentials = initializer.global_config.credentials
        if credentials is None:
            credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/monitoring.read"])
        found: list[Mapping[str, Any]] = []

        def page(seconds: float) -> str:
            answer = AuthorizedSession(credentials).get(
                f"{address}/v3/projects/{project}/timeSeries", params=query, timeout=seconds
            )
            if answer.status_code != 200:
                raise from_http_response(answer)
            told = answer.json()
            found.extend(told.get("timeSeries", []))
            return str(told.get("nextPageToken", ""))

        try:
            while token := self._calls("ask Cloud Monitoring", page):
                query["pageToken"] = token
        except UserError as error:
            raise Unreachable(error.problem) from None
        for each in found:
            # Cloud Monitoring tells of every interval that ends in the time asked for, begun before or not.
            values = [
                point["value"]
                for point in each.get("points", [])
                if datetime.datetime.fromisoformat(point["interval"]["startTime"]) >= since
            ]
            if values:
                yield each.get("metric", {}).get("labels", {}), values

    def _blob(self, endpoint: str) -> Any:
        bucket, folder = vertex.place(str(self._options["staging_bucket"]))
        path = "/".join(filter(None, (folder.strip("/"), "penstock-endpoints", f"{endpoint}.json")))
        return vertex.store().bucket(bucket).blob(path)

    def _encrypted(self) -> dict[str, Any]:
        key = self._options.get("encryption_key")
        return {"encryption_spec": {"kms_key_name": str(key)}} if key else {}


def _trial(endpoint: str, version: str) -> str:
    return f"{endpoint}-try-{version}"


def _model_id(endpoint: str, version: str) -> str:
    return f"{endpoint}-{version}"


def _deployed_id(version: str) -> str:
    """Return the id of a deployed model: at most ten digits, the same for the same version."""
    return str(10**9 + int(hashlib.sha256(version.encode()).hexdigest(), 16) % (9 * 10**9))


def _histogram(distributions: Iterable[Mapping[str, Any]]) -> tuple[tuple[float, float], ...]:
    """Return the number of latencies up to each bound in seconds; see Cloud Monitoring's Distribution."""
    counted: dict[float, float] = {}
    for each in distributions:
        bounds = [bound / 1000 for bound in _bounds(each.get("bucketOptions", {}))]
        # Buckets without a count are left out at the end.
        for bound, count in zip([*bounds, math.inf], each.get("bucketCounts", []), strict=False):
            counted[bound] = counted.get(bound, 0.0) + float(count)
    return tuple(zip(sorted(counted), itertools.accumulate(counted[bound] for bound in sorted(counted)), strict=True))


def _bounds(options: Mapping[str, Any]) -> list[float]:
    """Return the upper bounds of buckets, but for the last one's, which is infinite."""
    if told := options.get("explicitBuckets"):
        return [float(bound) for bound in told.get("bounds", [])]
    if told := options.get("exponentialBuckets"):
        places = range(int(told["numFiniteBuckets"]) + 1)
        return [float(told["scale"]) * float(told["growthFactor"]) ** place for place in places]
    if told := options.get("linearBuckets"):
        places = range(int(told["numFiniteBuckets"]) + 1)
        return [float(told.get("offset", 0.0)) + float(told["width"]) * place for place in places]
    return []


def _generation(found: Any) -> str:
    """Return what changes with the traffic alone: our own count, and what is there, whoever set it."""
    split = json.dumps(sorted((own, share) for own, share in found.traffic_split.items() if share))
    return f"{found.labels.get(GENERATION, '0')}-{hashlib.sha256(split.encode()).hexdigest()[:12]}"


def _whole(model: Candidate) -> set[str]:
    """Return the outputs that are whole numbers, which Vertex AI hands on as floats."""
    written = yaml.safe_load((model.folder / "MLmodel").read_text(encoding="utf-8"))["signature"]
    return {each["name"] for each in json.loads(written["outputs"]) if each["type"] == "long"}
