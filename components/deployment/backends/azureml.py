"""A managed online endpoint of Azure ML: a deployment a version, and the endpoint's own shares of the traffic.

Azure ML knows no condition on a change of an endpoint. So those who set traffic hold a blob of the workspace's storage
while they do, and a tag counts the changes. The note of a rollout is a blob, guarded by its ETag. Metrics come from
Azure Monitor, by the minute and some minutes late.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import requests
from azure.ai.ml.entities import Environment, ManagedOnlineDeployment, ManagedOnlineEndpoint, Model
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient

from penstock.components._shared.clouds import azureml
from penstock.components._shared.clouds.calls import CALL, Calls, Failure
from penstock.components._shared.errors import UserError
from penstock.components.deployment.endpoint import Candidate, Changed, Endpoint, Note, Reading, Unreachable, Version
from penstock.components.deployment.options import check_options

OPTIONS = {
    "subscription": str, "resource_group": str, "workspace": str, "image": str, "instance_type": str, "instances": int,
    "auth_mode": str, "mirror": int, "variables": dict, "ready_seconds": float, "metrics_seconds": float,
}  # fmt: skip
READY = 3600.0  # seconds for a deployment to be ready
ANSWER = 60.0  # seconds for a prediction
AGAIN = 5.0  # seconds in which one that failed is asked for again
HELD = 60.0  # seconds without a sign of life after which whoever holds an endpoint is taken for dead
HOLDING = 900.0  # seconds to wait for those who hold it
POLL = 1.0  # seconds between two attempts to hold an endpoint
COUNT = "penstock-traffic"  # tag that counts our changes of traffic
DIGEST = "penstock-digest"  # tag of deployments
MOST_MIRRORED = 50  # per cent of the requests that Azure ML copies
MODES = ("aad_token", "aml_token", "key")
REQUESTS = "RequestsPerMinute"
LATENCIES = {
    0.5: "RequestLatency_P50",
    0.9: "RequestLatency_P90",
    0.95: "RequestLatency_P95",
    0.99: "RequestLatency_P99",
}
MINUTE = 60.0  # seconds of a point of Azure Monitor
LAG = 300.0  # seconds for a request to be counted
_PORT = 8080


def connect(options: Mapping[str, Any], component: str) -> AzureML:
    """Return the endpoints of a workspace.

    Args:
        options: `subscription`, `resource_group` and `workspace`, by default those of the job this step is; `image`,
            our serving image by digest; `instance_type` (Standard_DS3_v2) and `instances` (1); `auth_mode` of a new
            endpoint (aad_token); `mirror`, per cent of the requests that a shadow gets copies of (50); `variables` of
            the server by name; `ready_seconds`; `metrics_seconds` that Azure Monitor may take to count a request (300).

    Raises:
        UserError: An option is unknown, wrong or missing.
    """
    check_options(options, OPTIONS, component)

    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(component, "options", problem, remedy)

    if missing := azureml.unknown(options):
        raise refuse(f"there is {missing[0]}", "Give it")
    if options.get("auth_mode", MODES[0]) not in MODES:
        raise refuse(f"auth_mode is {options['auth_mode']!r}", f"Give one of {', '.join(MODES)}")
    if not 1 <= int(options.get("mirror", MOST_MIRRORED)) <= MOST_MIRRORED:
        raise refuse(f"mirror is {options['mirror']}", f"Give 1 to {MOST_MIRRORED}: Azure ML copies no more")
    if int(options.get("instances", 1)) < 1:
        raise refuse(f"instances is {options['instances']}", "Give 1 or more")
    return AzureML(options, component, refuse)


class AzureML:
    """The managed online endpoints of one workspace."""

    name = "Azure ML"
    measures = frozenset({"requests", "error_rate", "refusal_rate", "latency_p50", "latency_p95", "latency_p99"})
    shadows = True

    def __init__(self, options: Mapping[str, Any], component: str, refuse: Callable[[str, str], UserError]) -> None:
        self._options, self._component = options, component
        self._calls = Calls(self, component, "platform")
        self._client = azureml.connect(options, refuse)
        self._works = azureml.Works(self._calls, float(options.get("ready_seconds", READY)))
        self.lag = float(options.get("metrics_seconds", LAG))

    def failure(self, error: Exception) -> Failure | None:
        """See Service."""
        return azureml.failure(error)

    def get(self, endpoint: str) -> Endpoint | None:
        """Return the endpoint; see Backend."""
        found = self._get(endpoint)
        return self._seen(found) if found is not None else None

    def create_or_update(self, endpoint: str, model: Candidate) -> Endpoint:
        """Register the model, make the endpoint, and a deployment of it without traffic; see Backend."""
        if not self._options.get("image"):
            raise UserError(self._component, "options", "no image is given", "Give our serving image, by its digest")
        registered = self._registered(endpoint, model)
        self._works.ensure(
            f"make the endpoint {endpoint}",
            lambda: self._client.online_endpoints.get(endpoint),
            lambda: self._client.online_endpoints.begin_create_or_update(
                ManagedOnlineEndpoint(
                    name=endpoint, auth_mode=str(self._options.get("auth_mode", MODES[0])), tags={COUNT: "0"}
                )
            ).result(),
        )
        there = self._deployments(endpoint)
        try:
            self._works.ensure(
                f"deploy {model.version} to {endpoint}",
                lambda: self._finished(endpoint, model.version),
                lambda: self._client.online_deployments.begin_create_or_update(
                    self._deployment(endpoint, model, registered)
                ).result(),
            )
        except BaseException:
            if model.version not in there:
                self._delete(endpoint, model.version)
            raise
        found = self._get(endpoint)
        if found is None:
            raise UserError(self._component, "endpoint", f"{endpoint} was removed by others", "Deploy again")
        return self._seen(found)

    def smoke(self, endpoint: str, version: str, model: Candidate) -> list[dict[str, Any]]:
        """Ask the deployment by its name; see Backend."""
        # The client's own way to ask breaks off at errors that are not told as Azure tells its own.
        try:
            answer = self._calls(f"ask {version}", lambda seconds: self._asked(endpoint, version, model.example), AGAIN)
        except UserError as error:
            raise Unreachable(error.problem) from None
        try:
            predictions: list[dict[str, Any]] = json.loads(answer)
        except ValueError:
            raise Unreachable(f"it answers {answer[:200]!r}") from None
        if not isinstance(predictions, list):
            raise Unreachable(f"it answers {answer[:200]!r}")
        return predictions

    def _asked(self, endpoint: str, version: str, body: bytes) -> str:
        found = azureml.within(CALL, lambda: self._client.online_endpoints.get(endpoint))
        keys = azureml.within(CALL, lambda: self._client.online_endpoints.get_keys(endpoint))
        key = getattr(keys, "access_token", None) or getattr(keys, "primary_key", "")
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "azureml-model-deployment": version,
        }
        answer = requests.post(str(found.scoring_uri), data=body, headers=headers, timeout=ANSWER)
        if answer.status_code != 200:
            raise _Answered(answer)
        return answer.text

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], shadow: str, generation: str) -> Endpoint:
        """Set shares and copies in one change, while others of us wait; see Backend."""
        self._unchanged(endpoint, generation)
        with self._held(endpoint):
            found = self._unchanged(endpoint, generation)
            known = self._deployments(endpoint)
            for version in (*traffic, *([shadow] if shadow else [])):
                if version not in known:
                    raise UserError(
                        self._component, "version", f"{endpoint} has no version {version}",
                        f"It has {', '.join(known) or 'none'}",
                    )  # fmt: skip
            found.traffic = dict(traffic)
            found.mirror_traffic = {shadow: int(self._options.get("mirror", MOST_MIRRORED))} if shadow else {}
            found.tags = {**(found.tags or {}), COUNT: str(int((found.tags or {}).get(COUNT, "0")) + 1)}
            self._works(
                "set the traffic",
                lambda: self._client.online_endpoints.begin_create_or_update(found).result(),
            )
            after = self._get(endpoint)
            if after is None:
                raise Changed(f"{endpoint} has changed")
            return self._seen(after)

    def reading(self, endpoint: str, version: str, since: datetime.datetime) -> Reading:
        """Return what Azure Monitor has counted since then; see Backend."""
        found = self._get(endpoint)
        if found is None:
            raise Unreachable(f"there is no endpoint {endpoint}")
        counts: dict[int, float] = {}
        for _, labels, points in self._metrics(found.id, [REQUESTS], version, since, " and statusCode eq '*'"):
            code = labels.get("statuscode", "")
            status = int(code) if code.isdecimal() else 0
            counts[status] = counts.get(status, 0.0) + sum(points)
        largest = {
            name: max(points) / 1000
            for name, _, points in self._metrics(found.id, list(LATENCIES.values()), version, since)
            if points
        }
        return Reading(counts, quantiles={q: largest[name] for q, name in LATENCIES.items() if name in largest})

    def _metrics(
        self, endpoint: str, names: Sequence[str], version: str, since: datetime.datetime, split: str = ""
    ) -> Iterator[tuple[str, dict[str, str], list[float]]]:
        """Yield name, labels and the numbers of each series, of the whole minutes since then.

        Args:
            endpoint: Id of the resource.
            split: What is added to the filter, to have a series for each value of a dimension.
        """
        first = datetime.datetime.fromtimestamp(math.ceil(since.timestamp() / MINUTE) * MINUTE, datetime.UTC)
        now = datetime.datetime.now(datetime.UTC)
        if first >= now:
            return
        query = {
            "api-version": "2023-10-01",
            "metricnames": ",".join(names),
            "aggregation": "Average",  # of the one number that a minute has
            "interval": "PT1M",
            "timespan": f"{first:%Y-%m-%dT%H:%M:%S.%fZ}/{now:%Y-%m-%dT%H:%M:%S.%fZ}",
            "$filter": f"deployment eq '{version}'{split}",
            "top": "100",
        }
        manager = str(self._client._base_url).rstrip("/")

        def ask(seconds: float) -> Any:
            token = self._client._credential.get_token(f"{manager}/.default").token
            answer = requests.get(
                f"{manager}{endpoint}/providers/Microsoft.Insights/metrics",
                params=query, headers={"Authorization": f"Bearer {token}"}, timeout=seconds,
            )  # fmt: skip
            if answer.status_code != 200:
                raise _Answered(answer)
            return answer.json()

        try:
            told = self._calls("ask Azure Monitor", ask)
        except UserError as error:
            raise Unreachable(error.problem) from None
        for metric in told.get("value", []):
            for series in metric.get("timeseries", []):
                labels = {each["name"]["value"].lower(): each["value"] for each in series.get("metadatavalues", [])}
                points = [
                    float(point["average"])
                    for point in series.get("data", [])
                    if point.get("average") is not None and datetime.datetime.fromisoformat(point["timeStamp"]) >= first
                ]
                yield metric["name"]["value"], labels, points

    def answers(self, endpoint: str, version: str, since: datetime.datetime) -> Any:
        """What deployments answer is not read from here; see Backend."""
        raise Unreachable("the answers of deployments are not collected")

    def remove(self, endpoint: str, version: str) -> bool:
        """Delete the deployment, or the endpoint with all; see Backend."""
        found = self._get(endpoint)
        if not version:
            self._works.ensure_gone(
                f"remove the endpoint {endpoint}", lambda: self._client.online_endpoints.begin_delete(endpoint)
            )
            note = self.note(endpoint)  # which one who was killed may have left
            if note.document is not None:
                self.write_note(endpoint, None, note.generation)
        if found is None or not version:
            return found is not None
        seen = self._seen(found)
        if version in seen.traffic or version == seen.shadow:
            role = f"gets {seen.traffic[version]} % of the traffic" if version in seen.traffic else "shadows"
            raise UserError(
                self._component, "version", f"{version} of {endpoint} {role}", "Give the traffic to another first"
            )
        there = version in seen.versions
        self._delete(endpoint, version)
        return there

    def note(self, endpoint: str) -> Note:
        """Return what a blob says about a rollout; see Backend."""
        return self._read(self._blob(endpoint, "rollout"))

    def write_note(self, endpoint: str, document: Mapping[str, Any] | None, generation: str) -> Note:
        """Write that blob, if it is what was read; see Backend."""
        # JSON's null takes the place of a note: a blob that is gone could come back as another's first one.
        written = self._write(self._blob(endpoint, "rollout"), document, generation)
        if written is None:
            raise Changed(f"the rollout of {endpoint} is another's")
        return written

    def _unchanged(self, endpoint: str, generation: str) -> Any:
        found = self._get(endpoint)
        if found is None or _generation(found) != generation:
            raise Changed(f"{endpoint} has changed")
        return found

    def _get(self, endpoint: str) -> Any:
        def get() -> Any:
            try:
                return self._client.online_endpoints.get(endpoint)
            except ResourceNotFoundError:
                return None

        return self._works(f"ask for the endpoint {endpoint}", get)

    def _deployments(self, endpoint: str) -> dict[str, Any]:
        found = self._works("list the deployments", lambda: list(self._client.online_deployments.list(endpoint)))
        return {str(each.name): each for each in found}

    def _finished(self, endpoint: str, version: str) -> Any:
        found = self._client.online_deployments.get(version, endpoint)
        if str(found.provisioning_state) != "Succeeded":
            raise ResourceNotFoundError("it was never finished")  # the same again waits for it, or mends it
        return found

    def _seen(self, found: Any) -> Endpoint:
        versions = {
            name: Version(name, str((each.tags or {}).get(DIGEST, "")))
            for name, each in self._deployments(found.name).items()
        }
        return Endpoint(
            found.name, str(found.scoring_uri or ""), versions, _traffic(found), _shadow(found), _generation(found)
        )

    def _registered(self, endpoint: str, model: Candidate) -> str:
        name = f"{endpoint}-{model.version}"
        self._works.ensure(
            f"register the model {name}",
            lambda: self._client.models.get(name, "1"),
            # Not of MLflow's type, which Azure ML would serve by a server of its own.
            lambda: self._client.models.create_or_update(
                Model(name=name, version="1", path=str(model.folder), type="custom_model", tags={DIGEST: model.digest})
            ),
        )
        return f"azureml:{name}:1"

    def _deployment(self, endpoint: str, model: Candidate, registered: str) -> ManagedOnlineDeployment:
        image = str(self._options["image"])
        routes = {"liveness_route": "/", "readiness_route": "/health", "scoring_route": "/score"}
        return ManagedOnlineDeployment(
            name=model.version,
            endpoint_name=endpoint,
            model=registered,
            environment=Environment(
                name=f"penstock-serving-{hashlib.sha256(image.encode()).hexdigest()[:16]}",
                version="1",
                image=image,
                inference_config={name: {"port": _PORT, "path": path} for name, path in routes.items()},
            ),
            instance_type=str(self._options.get("instance_type", "Standard_DS3_v2")),
            instance_count=int(self._options.get("instances", 1)),
            environment_variables={
                **{str(name): str(value) for name, value in self._options.get("variables", {}).items()},
                "PENSTOCK_MODEL_NAME": endpoint,
                "PENSTOCK_MODEL_VERSION": model.version,
            },
            tags={DIGEST: model.digest},
        )

    def _delete(self, endpoint: str, version: str) -> None:
        self._works.ensure_gone(
            f"remove {version} from {endpoint}",
            lambda: self._client.online_deployments.begin_delete(version, endpoint),
        )

    # Blobs of the workspace's own storage.

    @functools.cached_property
    def _store(self) -> Any:
        return self._works(
            "ask for the default datastore", lambda: self._client.datastores.get_default(include_secrets=True)
        )

    def _blob(self, endpoint: str, kind: str) -> BlobClient:
        store = self._store
        secret = getattr(store.credentials, "sas_token", None) or getattr(store.credentials, "account_key", None)
        return BlobClient(
            f"{store.protocol}://{store.account_name}.blob.{store.endpoint}",
            store.container_name,
            f"penstock-endpoints/{endpoint}/{kind}.json",
            credential=secret or self._client._credential,
            connection_timeout=azureml.CONNECT,
            read_timeout=CALL,
            retry_total=0,
        )

    def _read(self, blob: BlobClient) -> Note:
        def read(seconds: float) -> Note:
            try:
                stream = blob.download_blob()
                return Note(json.loads(stream.readall()), str(stream.properties.etag))
            except ResourceNotFoundError:
                return Note(None, "0")

        return self._calls("read what is written of the endpoint", read)

    def _write(self, blob: BlobClient, document: Mapping[str, Any] | None, generation: str) -> Note | None:
        """Return what is written in place of what was read; None: another was faster."""
        content = json.dumps(document, sort_keys=True).encode()
        condition: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
        if generation != "0":
            condition = {"etag": generation, "match_condition": MatchConditions.IfNotModified}

        def write(seconds: float) -> Note | None:
            try:
                written = blob.upload_blob(content, overwrite=True, **condition)
            except (ResourceExistsError, ResourceModifiedError):
                now = self._read(blob)
                # It may be ours, from an attempt whose answer was lost.
                ours = now.generation != generation and now.document == json.loads(content)
                return now if ours else None
            return Note(None if document is None else dict(document), str(written["etag"]))

        return self._calls("write it down at the endpoint", write)

    @contextlib.contextmanager
    def _held(self, endpoint: str) -> Iterator[None]:
        """Hold an endpoint against others of us, who do so for as long as a change takes."""
        blob = self._blob(endpoint, "traffic")
        held, over = self._taken(endpoint, blob), threading.Event()

        def stay() -> None:
            nonlocal held
            while not over.wait(HELD / 4):
                with contextlib.suppress(UserError):
                    held = self._write(blob, {"owner": uuid.uuid4().hex}, held.generation) or held

        staying = threading.Thread(target=stay, daemon=True)
        staying.start()
        try:
            yield
        finally:
            over.set()
            staying.join()
            with contextlib.suppress(UserError):  # what was to be changed is; others wait a little longer
                self._write(blob, None, held.generation)

    def _taken(self, endpoint: str, blob: BlobClient) -> Note:
        """Return what was written into the blob once it was free, or its owner gave no sign of life for so long."""
        owner = {"owner": uuid.uuid4().hex}
        end, since, seen = time.monotonic() + HOLDING, time.monotonic(), ""
        while True:
            found = self._read(blob)
            if found.generation != seen:
                since, seen = time.monotonic(), found.generation
            if found.document is None or time.monotonic() - since > HELD:
                mine = self._write(blob, owner, found.generation)
                if mine is not None:
                    return mine
            elif time.monotonic() > end:
                raise self._calls.refusal(f"{endpoint} is held by others all the time", "Try again when it is quiet")
            time.sleep(POLL)


class _Answered(HttpResponseError):
    """An answer, of Azure Monitor or of a deployment, that is an error."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__(message=answer.text[:300])
        self.status_code, self.response = answer.status_code, answer  # whose headers say when to ask again


def _traffic(found: Any) -> dict[str, int]:
    return {str(name): int(share) for name, share in (found.traffic or {}).items() if share}


def _shadow(found: Any) -> str:
    return next((str(name) for name, share in (found.mirror_traffic or {}).items() if share), "")


def _generation(found: Any) -> str:
    """Return what changes with traffic and shadow alone: our own count, and what is there, whoever set it."""
    text = json.dumps([sorted(_traffic(found).items()), _shadow(found)])
    return f"{(found.tags or {}).get(COUNT, '0')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
