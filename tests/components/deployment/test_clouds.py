"""Endpoints of KServe, Vertex AI and Azure ML, through their real clients, against what stands for them here."""

import concurrent.futures
import datetime
import json
import math
import time
from dataclasses import replace

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment import backends
from penstock.components.deployment.backends import vertex as vertex_backend
from penstock.components.deployment.component import roll_out as component
from penstock.components.deployment.deploy import _candidate, deploy, set_traffic, undeploy
from penstock.components.deployment.endpoint import Changed
from penstock.components.deployment.roll_out import roll_out
from penstock.testing import Fault
from tests.components.deployment import clouds
from tests.components.deployment.clouds import LATE, MINUTE, NAME, PLATFORMS, standing

GATE = component.component_spec.inputs["gate"].default
WRITES = {
    "kubeflow": ("POST */inferenceservices", "PUT */inferenceservices/*"),
    "vertex": ("POST */endpoints", "POST *:deployModel", "POST */models:upload", "PATCH */endpoints/*"),
    "azureml": ("PUT */onlineEndpoints/taxi-tips", "PUT */deployments/*", "PUT */models/*"),
}
TRAFFIC = {"kubeflow": "PUT */inferenceservices/*", "vertex": "PATCH */endpoints/*",
           "azureml": "PUT */onlineEndpoints/taxi-tips"}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    clouds.quicken(monkeypatch)


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


RACERS = 50


@pytest.mark.parametrize(
    "cloud", ["kubeflow", "vertex", pytest.param("azureml", marks=pytest.mark.slow)], indirect=True
)
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

    with concurrent.futures.ThreadPoolExecutor(RACERS) as pool:
        assert set(map(tuple, pool.map(deployed, range(RACERS)))) == {tuple(sorted((first.version, candidate.version)))}
        assert cloud.shares() == {first.version: 100}
        seen = backend.get(NAME)
        [won] = [share for share in pool.map(moved, range(1, RACERS + 1)) if share]
    assert cloud.shares() == {first.version: 100 - won, candidate.version: won}


@pytest.fixture
def roll(cloud, tmp_path):
    """Return a function that rolls out a version while requests come, and gives what came out and the steps."""

    def roll(version, options=None, **given):
        asked = {"steps": [50, 100], "hold": {"seconds": 5, "requests": 4}, "gate": GATE, "on_rollback": "report"}
        with cloud.load(next(iter(cloud.loaded.values())).example):
            found = roll_out(
                tmp_path / "history.json", tmp_path / "report.html", endpoint=NAME, version=version,
                platform=cloud.platform, options={**cloud.options, **(options or {})}, **{**asked, **given},
            )  # fmt: skip
        return found, json.loads((tmp_path / "history.json").read_text())["steps"]

    return roll


# By default a version that does well everywhere, and each that does not where that costs least.
KINDS = {"good": PLATFORMS, "broken": ("kubeflow",), "slow": ("kubeflow", "vertex")}


@pytest.mark.parametrize(
    ("cloud", "kind"),
    [
        pytest.param(platform, kind, marks=[] if platform in platforms else [pytest.mark.slow])
        for kind, platforms in KINDS.items()
        for platform in PLATFORMS
    ],
    indirect=["cloud"],
)
def test_a_rollout_by_the_default_gate_goes_on_while_it_holds_and_back_where_it_does_not(cloud, put, roll, kind):
    first, second = put(0), put(1)
    if kind != "good":
        setattr(cloud, kind, {second.version})
    found, steps = roll(second.version)
    assert found.promoted is (kind == "good"), found.reason
    assert cloud.shares() == {(second if kind == "good" else first).version: 100}
    if kind != "good":
        assert {"broken": "error_rate", "slow": "latency_p99"}[kind] in found.reason
        return
    for step in steps:
        assert [finding["holds"] for finding in step["findings"]] == [True] * len(GATE)
        assert 0 < step["new"]["latency_p50"] <= step["new"]["latency_p95"] <= step["new"]["latency_p99"]


@pytest.mark.parametrize("cloud", LATE, indirect=True)
def test_metrics_that_come_late_are_waited_for_and_are_those_of_the_step(cloud, put, roll, monkeypatch):
    _, second = put(0), put(1)
    cloud.stand_in.monitoring.late = 0.5
    kind, reads = type(backends.connect(cloud.platform, cloud.options, "test")), []
    reading = kind.reading

    def without_latencies_at_first(self, endpoint, version, since):
        found = reading(self, endpoint, version, since)
        reads.append(sum(found.requests.values()) >= 4)
        return found if sum(reads) > 4 else replace(found, seconds=(), quantiles={})

    monkeypatch.setattr(kind, "reading", without_latencies_at_first)
    found, steps = roll(second.version, hold={"seconds": 0.1, "requests": 4})
    assert found.promoted, found.reason
    for step in steps:
        assert step["seconds"] >= 0.5
        assert step["new"]["requests"] >= 4
        assert step["new"]["latency_p99"] > 0
    assert steps[0]["current"]["latency_p99"] > 0


@pytest.mark.parametrize("cloud", ["vertex", pytest.param("azureml", marks=pytest.mark.slow)], indirect=True)
def test_without_metrics_in_time_nothing_is_promoted(cloud, put, roll):
    first, second = put(0), put(1)
    cloud.stand_in.monitoring.late = 1000
    found, _ = roll(second.version, options={"metrics_seconds": 0.4}, hold={"seconds": 0.2})
    assert (found.outcome, found.reason) == (
        "rolled_back", "at 50 %: 0 requests in 0.2 s and 0.4 s more to be counted are fewer than 1",
    )  # fmt: skip
    assert cloud.shares() == {first.version: 100}


@pytest.mark.parametrize("cloud", LATE, indirect=True)
def test_a_reading_holds_nothing_that_was_answered_before_it_began(cloud, put):
    first = put(0)
    backend = backends.connect(cloud.platform, cloud.options, "test")
    began = datetime.datetime.now(datetime.UTC)
    counted = cloud.counts[first.version, 200]
    time.sleep(MINUTE)
    with cloud.load(next(iter(cloud.loaded.values())).example):
        while cloud.counts[first.version, 200] < counted + 5:
            time.sleep(0.01)
    since = datetime.datetime.now(datetime.UTC)
    time.sleep(2 * MINUTE)
    found = backend.reading(NAME, first.version, began)
    assert found.requests == {200: cloud.counts[first.version, 200] - counted}
    if cloud.platform == "vertex":
        assert found.seconds[-1][1] == found.requests[200]
    else:
        assert list(found.quantiles) == [0.5, 0.9, 0.95, 0.99]
    after = backend.reading(NAME, first.version, since)
    assert (after.requests, after.seconds, after.quantiles) == ({}, (), {})


DISTRIBUTIONS = {
    "explicitBuckets": ({"bounds": [10, 20, 40]}, [0.01, 0.02, 0.04]),
    "exponentialBuckets": ({"numFiniteBuckets": 2, "growthFactor": 2, "scale": 10}, [0.01, 0.02, 0.04]),
    "linearBuckets": ({"numFiniteBuckets": 2, "width": 15, "offset": 10}, [0.01, 0.025, 0.04]),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_distributions_of_milliseconds_become_one_histogram_of_seconds(kind):
    options, bounds = DISTRIBUTIONS[kind]
    told = {"bucketOptions": {kind: options}}
    found = vertex_backend._histogram([{**told, "bucketCounts": ["1", "2"]}, {**told, "bucketCounts": [0, 3, 4, 1]}])
    assert found == tuple(zip([*bounds, math.inf], [1, 6, 10, 11], strict=True))
    assert vertex_backend._histogram([{"count": "3", "mean": 2.0}]) == ()


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
    if cloud.platform in LATE:
        with pytest.raises(UserError, match=r"'prediction_distance' in .* is not a metric here. Known are error_rate"):
            roll_out(tmp_path / "h", tmp_path / "r", gate=["prediction_distance <= 0.1"], **given)
    if cloud.platform != "azureml":
        with pytest.raises(UserError, match=f"{cloud.platform} cannot shadow"):
            roll_out(tmp_path / "h", tmp_path / "r", strategy="shadow", **given)
    assert cloud.stand_in.seen(TRAFFIC[cloud.platform]) == ()
