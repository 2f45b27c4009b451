"""Endpoints of platforms that others run, as they stand here: stand-ins whose containers predict."""

import collections
import contextlib
import json
import ssl
import threading
import time
import urllib.request

from penstock.components._shared.clouds import azureml, calls
from penstock.components.deployment.backends import azureml as azureml_backend
from penstock.components.deployment.backends import kubeflow as kserve_backend
from penstock.components.deployment.backends import vertex as vertex_backend
from penstock.components.deployment.serving import payloads
from penstock.components.deployment.serving.metrics import Metrics
from penstock.testing import Answer, ApiError, AzureMLStandIn, KServeStandIn, VertexStandIn

NAME = "taxi-tips"
PLATFORMS = ("kubeflow", "vertex", "azureml")
LATE = ("vertex", "azureml")  # that count by the minute, and tell of it late
MINUTE = 0.1  # seconds that a minute takes here
SLOW = 0.25  # seconds
IMAGE = "r.example.com/penstock/serving@sha256:1"


class Cloud:
    """A stand-in whose containers predict with the models of this test."""

    def __init__(self, platform, stand_in, loaded):
        self.platform, self.stand_in = platform, stand_in
        self.loaded = loaded  # served models by version
        self.broken: set[str] = set()  # versions that answer with an error
        self.slow: set[str] = set()  # and those that take their time
        self.counts = collections.Counter()  # answers by version and status
        self.told = collections.defaultdict(Metrics)  # what KServe's pods tell themselves
        self.options = {"image": IMAGE, **getattr(self, f"_{platform}")()}

    def predicted(self, version, protocol, body):
        """Return status and records of an answer."""
        if version in self.slow:
            time.sleep(SLOW)
        if version in self.broken:
            self.counts[version, 500] += 1
            return 500, []
        served = self.loaded[version]
        columns = served.predict(payloads.read(payloads.PROTOCOLS[protocol], payloads.JSON, body, served.signature))
        self.counts[version, 200] += 1
        rows = len(next(iter(columns.values())))
        return 200, [{name: values.tolist()[row] for name, values in columns.items()} for row in range(rows)]

    def _kubeflow(self):
        def serve(pod, request):
            version = pod["metadata"]["labels"]["penstock.dev/version"]
            if request.path == "/metrics":
                if self.busy:  # requests come to every version that gets traffic
                    began = time.perf_counter()
                    status, _ = self.predicted(version, "mlflow", self.example)
                    self.told[version].requests.labels("invocations", status).inc()
                    self.told[version].seconds.labels("invocations").observe(time.perf_counter() - began)
                return Answer(self.told[version].text().decode())
            status, records = self.predicted(version, "mlflow", request.content)
            return Answer({"predictions": records} if status == 200 else {"error": "it is broken"}, status)

        self.busy, self.example = False, b""
        self.stand_in.serve = serve
        return {}

    def _vertex(self):
        self.stand_in.storage.put("gs://notes/.keep", b"")

        def predict(model, instances, parameters):
            version = model["displayName"].removeprefix(f"{NAME}-")
            status, records = self.predicted(version, "vertex", json.dumps({"instances": instances}).encode())
            if status != 200:
                raise ApiError(500, "the model is broken")
            return records

        self.stand_in.endpoints.predict = predict
        return {"staging_bucket": "gs://notes", **self._monitored()}

    def _azureml(self):
        def serve(own, deployment, request):
            status, records = self.predicted(own, "azureml", request.content)
            return Answer(records if status == 200 else {"error": "it is broken", "kind": "model"}, status)

        self.stand_in.online_endpoints.serve = serve
        scope = self.stand_in.scope
        place = {"subscription": scope.subscription, "resource_group": scope.group, "workspace": scope.workspace}
        return {**place, **self._monitored()}

    def _monitored(self):
        self.stand_in.monitoring.grain = MINUTE
        return {"metrics_seconds": 5.0}

    def shares(self):
        """Return the traffic as the platform itself has it, by version; none where there is no endpoint."""
        if self.platform == "kubeflow":
            if not self.stand_in.services:
                return {}
            [service] = self.stand_in.services.values()
            names = {each["name"]: each["template"]["labels"]["penstock.dev/version"] for each in service.revisions}
            return {names[name]: share for name, share in self.stand_in.traffic(NAME).items()}
        if self.platform == "vertex":
            found = [each for each in self.stand_in.endpoints._resources.kept.all() if each["displayName"] == NAME]
            names = {own["id"]: own["displayName"] for each in found for own in each["deployedModels"]}
            return {names[own]: share for each in found for own, share in each["trafficSplit"].items()}
        return self.stand_in.online_endpoints.traffic(NAME) if NAME in self.stand_in.online_endpoints._kept else {}

    def there(self):
        """Return all that the platform has: endpoints with their versions and traffic, models with theirs."""
        if self.platform == "kubeflow":
            versions = {
                name: sorted(kserve_backend._versions(each.resource))
                for (_, name), each in self.stand_in.services.items()
            }
            return versions, self.shares()
        if self.platform == "vertex":
            endpoints = {
                each["displayName"]: sorted(own["displayName"] for own in each["deployedModels"])
                for each in self.stand_in.endpoints._resources.kept.all()
            }
            models = {name: len(versions) for name, versions in sorted(self.stand_in.models._versions.items())}
            return endpoints, models, self.shares()
        endpoints = {name: sorted(own) for name, own in self.stand_in.online_endpoints._deployments.items()}
        models = {name: list(versions) for name, versions in sorted(self.stand_in.assets._kept["models"].items())}
        return endpoints, models, self.shares()

    def forget_models(self):
        """Let models of no endpoint be gone where they stay registered."""
        if self.platform == "azureml":
            used = {f"{NAME}-{own}" for own in self.stand_in.online_endpoints.deployments(NAME)}
            kept = self.stand_in.assets._kept["models"]
            for name in kept.keys() - used:
                del kept[name]
            for blobs in self.stand_in.blobs._containers.values():
                for name in [name for name in blobs if name.startswith("LocalUpload/")]:
                    del blobs[name]

    @contextlib.contextmanager
    def load(self, example):
        """Let requests come to the endpoint until the end of the block."""
        split = json.loads(example)["dataframe_split"]
        instances = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
        if self.platform == "kubeflow":
            self.busy, self.example = True, example
            yield
            self.busy = False
            return
        path, body = (
            (f"/v1/projects/test-project/locations/us-central1/endpoints/{NAME}:predict", {"instances": instances})
            if self.platform == "vertex"
            else (f"/inference/online/{NAME}/score", {"input_data": instances})
        )
        over = threading.Event()

        def ask():
            context = ssl._create_unverified_context() if self.platform == "azureml" else None
            while not over.is_set():
                headers = {"Content-Type": "application/json", "Authorization": "Bearer x"}
                request = urllib.request.Request(self.stand_in.url + path, json.dumps(body).encode(), headers)
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(request, timeout=10, context=context).close()

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        yield
        over.set()
        thread.join()


@contextlib.contextmanager
def standing(platform, loaded):
    kinds = {"kubeflow": KServeStandIn, "vertex": VertexStandIn, "azureml": AzureMLStandIn}
    with kinds[platform]() as stand_in, stand_in.connected():
        yield Cloud(platform, stand_in, loaded)


def quicken(monkeypatch):
    """Let nothing be waited for longer than it takes here."""
    for module in (kserve_backend, vertex_backend, azureml_backend, azureml):
        monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(azureml_backend, "MINUTE", MINUTE)
