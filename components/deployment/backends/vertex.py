"""An Endpoint of Vertex AI: a deployed model a version, and the endpoint's own traffic split.

Vertex AI has no way to ask a deployed model that gets no traffic. So a version is tried at an endpoint of its own,
NAME-try-VERSION, which is there for the length of the test. Metrics come from Cloud Monitoring, a minute or three late.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
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
}  # fmt: skip
READY = 3600.0  # seconds for a model to be deployed
POLL = 10.0  # seconds between two looks at what is being made
ANSWER = 60.0  # seconds for a prediction
GENERATION = "penstock-traffic"  # label that counts our changes of traffic
MONITORING = "https://monitoring.googleapis.com"
RESPONSES = "aiplatform.googleapis.com/prediction/online/response_count"
_TRIES = 20  # at a change while others change the endpoint


def connect(options: Mapping[str, Any], component: str) -> Vertex:
    """Return the endpoints of a project and location.

    Args:
        options: `project` and `location`, by default the environment's; `image`, our serving image by digest;
            `staging_bucket`, a gs:// folder for the notes of rollouts, and for models that lie in no bucket;
            `machine_type` (n1-standard-2), `machines` (1) and `max_machines`; `service_account`, `encryption_key`;
            `variables` of the server by name; `ready_seconds`.

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
    measures = frozenset({"requests", "error_rate", "refusal_rate"})
    shadows = False

    def __init__(self, options: Mapping[str, Any], component: str) -> None:
        self._options, self._component = options, component
        self._calls = Calls(self, component, "platform")
        self._parent = vertex.connect(options)
        self._endpoints = vertex.client(utils.EndpointClientWithOverride)
        self._models = vertex.client(utils.ModelClientWithOverride)
        self._ready = float(options.get("ready_seconds", READY))

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
        try:
            self._deploy(endpoint, endpoint, model, {})
        except BaseException:
            self._undeploy(endpoint, model.version)
            raise
        found = self._get(endpoint)
        assert found is not None
        return self._seen(endpoint, found)

    def smoke(self, endpoint: str, version: str, model: Candidate) -> list[dict[str, Any]]:
        """Deploy the version to an endpoint of its own for as long as it takes to ask it; see Backend."""
        alone = _trial(endpoint, version)
        try:
            self._make(alone, {"display_name": alone, "labels": {"penstock-try": endpoint}})
            self._deploy(alone, endpoint, model, {"0": 100})
            return self._predicted(alone, model)
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
        own = _deployed_id(version)
        project = self._parent.split("/")[1]
        series = self._series(project, endpoint, own, since)
        counts: dict[int, float] = {}
        for each in series:
            code = str(each.get("metric", {}).get("labels", {}).get("response_code", "0"))
            status = int(code) if code.isdecimal() else 0
            total = sum(float(point["value"].get("int64Value", 0)) for point in each.get("points", []))
            counts[status] = counts.get(status, 0.0) + total
        return Reading(counts)

    def answers(self, endpoint: str, version: str, since: datetime.datetime) -> Any:
        """Vertex AI has no agreement of versions to ask this for; see Backend."""
        raise Unreachable("Vertex AI keeps no answers")

    def remove(self, endpoint: str, version: str) -> bool:
        """Undeploy the version, or all with the endpoint; see Backend."""
        found = self._get(endpoint)
        if not version:
            if found is not None:
                for each in found.deployed_models:
                    self._remove_endpoint(_trial(endpoint, each.display_name))
                self._remove_endpoint(endpoint)
                for each in found.deployed_models:
                    self._unregister(endpoint, each.display_name)
                self.write_note(endpoint, None, self.note(endpoint).generation)
            return found is not None
        if found is not None and (share := self._seen(endpoint, found).traffic.get(version)):
            raise UserError(
                self._component, "version", f"{version} of {endpoint} gets {share} % of the traffic",
                "Give the traffic to another first",
            )  # fmt: skip
        self._remove_endpoint(_trial(endpoint, version))
        there = self._undeploy(endpoint, version)
        self._unregister(endpoint, version)
        return there

    def note(self, endpoint: str) -> Note:
        """Return what an object of the bucket says about a rollout; see Backend."""
        blob = self._blob(endpoint)

        def read(seconds: float) -> Note:
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
        versions = {
            name: Version(name, str(found.labels.get(f"penstock-{name}", name.removeprefix("v"))))
            for name in names.values()
        }
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
                    operation = make(seconds)
                    operation.result(timeout=max(1.0, end - time.monotonic()))
                except GoogleAPICallError as error:
                    if error.code != 409:
                        raise
                    time.sleep(min(POLL, max(0.0, end - time.monotonic())))  # another makes it

            self._calls(what, attempt)
        return found

    def _register(self, endpoint: str, model: Candidate) -> None:
        name = self._model_name(endpoint, model.version)
        variables = {
            "PENSTOCK_MODEL_NAME": endpoint,
            "PENSTOCK_MODEL_VERSION": model.version,
            **{str(key): str(value) for key, value in self._options.get("variables", {}).items()},
        }
        message: dict[str, Any] = {
            "display_name": f"{endpoint}-{model.version}",
            "artifact_uri": model.uri if model.uri.startswith("gs://") else self._uploaded(model),
            "labels": {"penstock-digest": model.digest[:63]},
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

        request = {"parent": self._parent, "model": message, "model_id": name.rpartition("/")[2]}
        self._ensured(
            f"register the model {name}",
            there,
            lambda seconds: self._models.upload_model(request=request, timeout=seconds),
        )

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
        """Undeploy a version that gets no traffic, if it is there."""

        def undeploy(seconds: float) -> bool:
            found = self._get(endpoint)
            own = next((each.id for each in found.deployed_models if each.display_name == version), "") if found else ""
            if not own:
                return False
            try:
                operation = self._endpoints.undeploy_model(
                    endpoint=self._name(endpoint), deployed_model_id=own, timeout=seconds
                )
                operation.result(timeout=self._ready)
            except NotFound:  # another attempt has got through
                pass
            return True

        return self._calls(f"undeploy {version} from {endpoint}", undeploy)

    def _remove_endpoint(self, endpoint: str) -> None:
        """Take all models off an endpoint, and it away, if it is there."""

        def delete(seconds: float) -> None:
            found = self._get(endpoint)
            if found is None:
                return
            if found.traffic_split:
                self._split(found, {})
            for each in found.deployed_models:
                self._undeploy(endpoint, each.display_name)
            try:
                operation = self._endpoints.delete_endpoint(name=self._name(endpoint), timeout=seconds)
                operation.result(timeout=self._ready)
            except NotFound:
                pass

        self._calls(f"remove the endpoint {endpoint}", delete)

    def _unregister(self, endpoint: str, version: str) -> None:
        def delete(seconds: float) -> None:
            try:
                operation = self._models.delete_model(name=self._model_name(endpoint, version), timeout=seconds)
                operation.result(timeout=self._ready)
            except NotFound:
                pass

        self._calls(f"remove the model of {version}", delete)

    def _split(self, found: Any, split: Mapping[str, int]) -> Any:
        """Return the endpoint with a new split; None where another has changed it since it was read."""
        count = str(int(found.labels.get(GENERATION, "0") or 0) + 1)
        endpoint = aiplatform_v1.Endpoint(
            name=found.name,
            display_name=found.display_name,
            traffic_split=dict(split),
            labels={**dict(found.labels), GENERATION: count},
            etag=found.etag,
        )

        def update(seconds: float) -> Any:
            try:
                return self._endpoints.update_endpoint(
                    endpoint=endpoint, update_mask={"paths": ["traffic_split", "labels"]}, timeout=seconds, retry=None
                )
            except GoogleAPICallError as error:
                if error.code not in (409, 412):
                    raise
                return None

        return self._calls("set the traffic", update)

    def _predicted(self, endpoint: str, model: Candidate) -> list[dict[str, Any]]:
        split = json.loads(model.example)["dataframe_split"]
        instances = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
        client = initializer.global_config.create_client(
            client_class=utils.PredictionClientWithOverride, prediction_client=True
        )
        try:
            answer = client.predict(endpoint=self._name(endpoint), instances=instances, timeout=ANSWER)
        except Exception as error:
            failure = self.failure(error)
            if failure is None:
                raise
            raise Unreachable(f"it does not predict its example: {failure.reason}") from None
        whole = _whole(model)
        return [
            {name: int(value) if name in whole else value for name, value in dict(each).items()}
            for each in answer.predictions
        ]

    def _series(self, project: str, endpoint: str, own: str, since: datetime.datetime) -> Sequence[Mapping[str, Any]]:
        now = datetime.datetime.now(datetime.UTC)
        query = {
            "filter": f'metric.type="{RESPONSES}" AND resource.labels.endpoint_id="{endpoint}" '
            f'AND metric.labels.deployed_model_id="{own}"',
            "interval.startTime": since.astimezone(datetime.UTC).isoformat(),
            "interval.endTime": now.isoformat(),
        }
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
            found.extend(answer.json().get("timeSeries", []))
            return str(answer.json().get("nextPageToken", ""))

        try:
            while token := self._calls("ask Cloud Monitoring", page):
                query["pageToken"] = token
        except UserError as error:
            raise Unreachable(error.problem) from None
        return found

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


def _generation(found: Any) -> str:
    """Return what changes with the traffic alone: our own count, and what is there, whoever set it."""
    split = json.dumps(sorted((own, share) for own, share in found.traffic_split.items() if share))
    return f"{found.labels.get(GENERATION, '0')}-{hashlib.sha256(split.encode()).hexdigest()[:12]}"


def _whole(model: Candidate) -> set[str]:
    """Return the outputs that are whole numbers, which Vertex AI hands on as floats."""
    written = yaml.safe_load((model.folder / "MLmodel").read_text(encoding="utf-8"))["signature"]
    return {each["name"] for each in json.loads(written["outputs"]) if each["type"] == "long"}
