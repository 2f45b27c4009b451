"""Endpoints of KServe, Vertex AI and Azure ML, through their real clients, against what stands for them here."""

import collections
import concurrent.futures
import contextlib
import json
import ssl
import threading
import urllib.request

import pytest

from penstock.components._shared.clouds import calls
from penstock.components._shared.errors import UserError
from penstock.components.deployment import backends
from penstock.components.deployment.backends import azureml as azureml_backend
from penstock.components.deployment.backends import kubeflow as kserve_backend
from penstock.components.deployment.backends import vertex as vertex_backend
from penstock.components.deployment.deploy import _candidate, deploy, set_traffic, undeploy
from penstock.components.deployment.endpoint import Changed
from penstock.components.deployment.roll_out import roll_out
from penstock.components.deployment.serving import payloads
from penstock.testing import Answer, ApiError, AzureMLStandIn, Fault, KServeStandIn, VertexStandIn

NAME = "taxi-tips"
PLATFORMS = ("kubeflow", "vertex", "azureml")
IMAGE = "r.example.com/penstock/serving@sha256:1"
WRITES = {
    "kubeflow": ("POST */inferenceservices", "PUT */inferenceservices/*"),
    "vertex": ("POST */endpoints", "POST *:deployModel", "POST */models:upload", "PATCH */endpoints/*"),
    "azureml": ("PUT */onlineEndpoints/taxi-tips", "PUT */deployments/*", "PUT */models/*"),
}
TRAFFIC = {"kubeflow": "PUT */inferenceservices/*", "vertex": "PATCH */endpoints/*",
           "azureml": "PUT */onlineEndpoints/taxi-tips"}  # fmt: skip


class Cloud:
    """A stand-in whose containers predict with the models of this test."""

    def __init__(self, platform, stand_in, loaded):
        self.platform, self.stand_in = platform, stand_in
        self.loaded = loaded  # served models by version
        self.broken: set[str] = set()  # versions that answer with an error
        self.counts = collections.Counter()  # answers by version and status, which KServe's pods tell themselves
        self.options = {"image": IMAGE, **getattr(self, f"_{platform}")()}

    def predicted(self, version, protocol, body):
        """Return status and records of an answer."""
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
                    self.predicted(version, "mlflow", self.example)
                return Answer("".join(
                    f'penstock_requests_total{{route="invocations",status="{status}"}} {count}\n'
                    for (own, status), count in self.counts.items() if own == version
                ))  # fmt: skip
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
        return {"staging_bucket": "gs://notes"}

    def _azureml(self):
        def serve(own, deployment, request):
            status, records = self.predicted(own, "azureml", request.content)
            return Answer(records if status == 200 else {"error": "it is broken", "kind": "model"}, status)

        self.stand_in.online_endpoints.serve = serve
        scope = self.stand_in.scope
        return {"subscription": scope.subscription, "resource_group": scope.group, "workspace": scope.workspace}

    def shares(self):
        """Return the traffic as the platform itself has it, by version."""
        if self.platform == "kubeflow":
            [service] = self.stand_in.services.values()
            names = {each["name"]: each["template"]["labels"]["penstock.dev/version"] for each in service.revisions}
            return {names[name]: share for name, share in self.stand_in.traffic(NAME).items()}
        if self.platform == "vertex":
            [found] = [each for each in self.stand_in.endpoints._resources.kept.all() if each["displayName"] == NAME]
            names = {each["id"]: each["displayName"] for each in found["deployedModels"]}
            return {names[own]: share for own, share in found["trafficSplit"].items()}
        return self.stand_in.online_endpoints.traffic(NAME)

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


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for module in (kserve_backend, vertex_backend, azureml_backend):
        monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.02)


@pytest.fixture(scope="module")
def two(models, loaded):
    """Two models, and what serves each by the version that it is deployed as."""
    found = {}
    for name in ("xgboost-binary", "lightgbm-binary"):
        folder = models(name)
        found[_candidate(folder, "").version] = folder, loaded(name)
    return found


@pytest.fixture(params=PLATFORMS)
def cloud(request, two):
    with standing(request.param, {version: served for version, (_, served) in two.items()}) as cloud:
        yield cloud


@pytest.fixture
def put(cloud, two):
    """Deploy the first or the second model."""

    def put(number, **options):
        folder = list(two.values())[number][0]
        return deploy(
            folder, endpoint=NAME, model_uri=f"gs://models/{number}", platform=cloud.platform,
            options={**cloud.options, **options},
        )  # fmt: skip

    return put


def test_a_version_is_tried_before_it_gets_traffic_and_traffic_moves_by_the_platforms_own_split(cloud, put, two):
    first = put(0)
    assert (first.traffic, first.current, cloud.shares()) == (100, first.version, {first.version: 100})
    second = put(1)
    assert (second.traffic, second.current) == (0, first.version)
    assert cloud.shares() == {first.version: 100}
    assert cloud.counts[second.version, 200] == 1  # its own example, and nobody else's request
    assert put(1) == second
    given = {"endpoint": NAME, "platform": cloud.platform, "options": cloud.options}
    assert set_traffic(traffic={first.version: 70, second.version: 30}, **given) == {first.version: 100}
    assert cloud.shares() == {first.version: 70, second.version: 30}
    with pytest.raises(UserError, match=f"{second.version} of {NAME} gets 30 % of the traffic"):
        undeploy(version=second.version, **given)
    set_traffic(traffic={first.version: 100}, **given)
    assert undeploy(version=second.version, **given)
    assert not undeploy(version=second.version, **given)
    assert cloud.shares() == {first.version: 100}
    assert undeploy(**given)
    assert backends.connect(cloud.platform, cloud.options, "test").get(NAME) is None


def test_a_version_that_fails_its_smoke_test_is_gone_again_and_traffic_as_it_was(cloud, put, two):
    first = put(0)
    second = list(two)[1]
    cloud.broken = {second}
    with pytest.raises(UserError, match=f"version {second} failed its smoke test before it got any traffic.*broken"):
        put(1)
    assert cloud.shares() == {first.version: 100}
    backend = backends.connect(cloud.platform, cloud.options, "test")
    assert list(backend.get(NAME).versions) == [first.version]


def test_faults_on_the_way_make_nothing_twice(cloud, put):
    cloud.stand_in.add_faults(
        *(fault(on) for on in WRITES[cloud.platform] for fault in (Fault.lost, Fault.reset, Fault.answer))
    )
    first, second = put(0), put(1)
    set_traffic(
        endpoint=NAME, traffic={first.version: 50, second.version: 50}, platform=cloud.platform, options=cloud.options
    )
    assert cloud.shares() == {first.version: 50, second.version: 50}
    assert cloud.stand_in.pending_faults == ()


def test_who_was_too_late_changes_nothing(cloud, put):
    first, second = put(0), put(1)
    backend = backends.connect(cloud.platform, cloud.options, "test")
    seen = backend.get(NAME)
    note = backend.note(NAME)
    assert note.document is None
    written = backend.write_note(NAME, {"owner": "me"}, note.generation)
    assert backend.note(NAME) == written
    assert backend.get(NAME).generation == seen.generation  # a note is no change of traffic
    with pytest.raises(Changed):
        backend.write_note(NAME, {"owner": "you"}, note.generation)
    backend.set_traffic(NAME, {first.version: 90, second.version: 10}, "", seen.generation)
    with pytest.raises(Changed):
        backend.set_traffic(NAME, {first.version: 10, second.version: 90}, "", seen.generation)
    assert cloud.shares() == {first.version: 90, second.version: 10}
    assert backend.write_note(NAME, None, written.generation).document is None


RACERS = {"kubeflow": 50, "vertex": 50, "azureml": 3}  # a client of Azure ML takes its time


def test_of_racing_deployers_one_makes_the_version_and_of_racing_changes_of_traffic_one_wins(cloud, put, two):
    first = put(0)
    candidate = _candidate(list(two.values())[1][0], "gs://models/1")
    backend = backends.connect(cloud.platform, cloud.options, "test")

    def deployed(_):
        return sorted(backend.create_or_update(NAME, candidate).versions)

    def moved(share):
        try:
            backend.set_traffic(NAME, {first.version: 100 - share, candidate.version: share}, "", seen.generation)
        except Changed:
            return 0
        return share

    racers = RACERS[cloud.platform]
    with concurrent.futures.ThreadPoolExecutor(racers) as pool:
        assert set(map(tuple, pool.map(deployed, range(racers)))) == {tuple(sorted((first.version, candidate.version)))}
        assert cloud.shares() == {first.version: 100}
        seen = backend.get(NAME)
        [won] = [share for share in pool.map(moved, range(1, racers + 1)) if share]
    assert cloud.shares() == {first.version: 100 - won, candidate.version: won}


@pytest.mark.parametrize("broken", [False, True], ids=["good", "broken"])
def test_a_rollout_goes_on_while_its_gate_holds_and_back_where_it_does_not(cloud, put, broken, tmp_path):
    first, second = put(0), put(1)
    example = next(iter(cloud.loaded.values())).example
    cloud.broken = {second.version} if broken else set()
    given = {
        "endpoint": NAME, "version": second.version, "platform": cloud.platform, "options": cloud.options,
        "steps": [20, 50, 100], "hold": {"seconds": 3, "requests": 5, "least": 1}, "gate": ["error_rate <= 0.02"],
        "on_rollback": "report",
    }  # fmt: skip
    with cloud.load(example):
        found = roll_out(tmp_path / "history.json", tmp_path / "report.html", **given)
    assert found.promoted is not broken
    assert cloud.shares() == {(first if broken else second).version: 100}


REFUSED = [
    ("kubeflow", {"zone": "a"}, "'zone' is unknown. Known are namespace"),
    ("kubeflow", {"min_replicas": 0}, "min_replicas 0, max_replicas 0"),
    ("kubeflow", {"variables": {"PENSTOCK_TOKEN": "env:T"}}, "tokens are checked at the cluster's gateway"),
    ("vertex", {"staging_bucket": "/data"}, "staging_bucket is no gs:// folder"),
    ("vertex", {"machines": 3, "max_machines": 2}, "machines 3, max_machines 2"),
    ("vertex", {"image": ""}, "no image is given"),
    ("azureml", {"workspace": ""}, "there is a workspace without the option workspace"),
    ("azureml", {"mirror": 80}, "mirror is 80. Give 1 to 50: Azure ML copies no more"),
    ("azureml", {"auth_mode": "none"}, "auth_mode is 'none'. Give one of aad_token"),
]


def test_settings_that_mean_nothing_are_refused_by_name_before_anything_is_sent(cloud, put):
    cloud.stand_in.forget()
    for platform, options, part in REFUSED:
        if platform == cloud.platform:
            with pytest.raises(UserError) as refused:
                put(0, **options)
            assert part in str(refused.value)
    assert cloud.stand_in.requests == ()


def test_metrics_and_shadows_that_a_platform_does_not_have_are_refused_before_traffic_moves(cloud, put, tmp_path):
    put(0)
    second = put(1)
    given = {"endpoint": NAME, "version": second.version, "platform": cloud.platform, "options": cloud.options}
    cloud.stand_in.forget()
    with pytest.raises(UserError, match="agreement"):
        roll_out(tmp_path / "h", tmp_path / "r", gate=["agreement >= 0.9"], **given)
    if cloud.platform != "azureml":
        with pytest.raises(UserError, match=f"{cloud.platform} cannot shadow"):
            roll_out(tmp_path / "h", tmp_path / "r", strategy="shadow", **given)
    assert cloud.stand_in.seen(TRAFFIC[cloud.platform]) == ()
