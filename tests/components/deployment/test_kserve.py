"""What only KServe does: Knative makes a revision whenever what its pods are made of changes."""

import contextlib
import signal
import threading

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment import backends
from penstock.components.deployment.deploy import _candidate, deploy, set_traffic, undeploy
from penstock.components.deployment.endpoint import Changed
from penstock.testing import Fault
from tests.components.deployment import clouds
from tests.components.deployment.clouds import NAME, standing


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    clouds.quicken(monkeypatch)


@pytest.fixture
def cloud(two):
    with standing("kubeflow", {version: served for version, (_, served) in two.items()}) as cloud:
        yield cloud


@pytest.fixture
def put(cloud, two):
    """Deploy the first or the second model."""

    def put(number, **options):
        folder = list(two.values())[number][0]
        given = {"endpoint": NAME, "platform": "kubeflow", "options": {**cloud.options, **options}}
        return deploy(folder, model_uri=f"gs://models/{number}", **given).version

    return put


@pytest.fixture
def backend(cloud):
    return backends.connect("kubeflow", cloud.options, "test")


def revisions(cloud):
    """Return the version of each revision that Knative has made."""
    [service] = cloud.stand_in.services.values()
    return [each["template"]["labels"]["penstock.dev/version"] for each in service.revisions]


def test_neither_traffic_nor_notes_nor_leaving_the_former_version_make_a_revision(cloud, put, backend):
    first, second = put(0), put(1)
    given = {"endpoint": NAME, "platform": "kubeflow", "options": cloud.options}
    note = backend.note(NAME)
    for share in (10, 50, 100):
        set_traffic(traffic={first: 100 - share, second: share}, **given)
        note = backend.write_note(NAME, {"at": share}, note.generation)
    assert list(backend.get(NAME).versions) == [second, first]
    assert undeploy(version=first, **given)
    assert not undeploy(version=first, **given)
    set_traffic(traffic={second: 100}, **given)
    assert list(backend.get(NAME).versions) == [second]
    assert revisions(cloud) == [first, second]
    assert (cloud.shares(), backend.note(NAME)) == ({second: 100}, note)


def test_who_goes_back_from_all_traffic_makes_the_former_version_anew_and_may_return(cloud, put, backend):
    first, second = put(0), put(1)
    given = {"endpoint": NAME, "platform": "kubeflow", "options": cloud.options}
    for version in (second, first, second):
        set_traffic(traffic={version: 100}, **given)
        assert cloud.shares() == {version: 100}
    assert revisions(cloud) == [first, second, first, second]
    with pytest.raises(UserError, match="has had all traffic, and KServe splits none"):
        set_traffic(traffic={first: 50, second: 50}, **given)


def test_a_version_is_ready_when_pods_of_its_own_are_whatever_generation_was_observed(cloud, put, backend):
    cloud.stand_in.polls = 4
    first, second = put(0), put(1)
    assert cloud.shares() == {first: 100}
    assert revisions(cloud) == [first, second]
    [service] = cloud.stand_in.services.values()
    service.resource["status"]["observedGeneration"] = 77
    assert not backend._unready(service.resource, second)


def test_a_note_belongs_to_its_inference_service_and_goes_with_it(cloud, put, backend):
    put(0)
    backend.write_note(NAME, {"owner": "me"}, backend.note(NAME).generation)
    assert len(cloud.stand_in.config_maps) == 1
    undeploy(endpoint=NAME, platform="kubeflow", options=cloud.options)
    assert cloud.stand_in.config_maps == {}
    with pytest.raises(Changed):
        backend.write_note(NAME, {"owner": "me"}, "0")
    put(0)
    assert backend.note(NAME).document is None


def test_a_note_whose_answer_was_lost_is_ours_and_anothers_is_not(cloud, put, backend):
    put(0)
    cloud.stand_in.add_faults(Fault.lost("POST */configmaps"), Fault.lost("PUT */configmaps/*"))
    first = backend.write_note(NAME, {"owner": "me"}, "0")
    second = backend.write_note(NAME, {"owner": "still me"}, first.generation)
    assert cloud.stand_in.pending_faults == ()
    assert backend.note(NAME) == second
    with pytest.raises(Changed):
        backend.write_note(NAME, {"owner": "still me"}, first.generation)
    with pytest.raises(Changed):
        backend.write_note(NAME, {"owner": "still me"}, "0")


def test_of_equal_changes_of_traffic_that_race_one_wins(cloud, put, backend):
    first, second = put(0), put(1)
    seen, won = backend.get(NAME), []

    def move():
        with contextlib.suppress(Changed):
            won.append(backend.set_traffic(NAME, {first: 60, second: 40}, "", seen.generation))

    racers = [threading.Thread(target=move) for _ in range(10)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1


def test_a_version_that_was_ready_before_stays_where_a_deployment_is_interrupted(cloud, put, backend, two, monkeypatch):
    first, second = put(0), put(1)
    candidate = _candidate(list(two.values())[1][0], "gs://models/1")

    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(backend, "_wait_ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.create_or_update(NAME, candidate)
    assert sorted(backend.get(NAME).versions) == sorted([first, second])
    set_traffic(traffic={first: 100}, endpoint=NAME, platform="kubeflow", options=cloud.options)
    undeploy(version=second, endpoint=NAME, platform="kubeflow", options=cloud.options)
    with pytest.raises(KeyboardInterrupt):
        backend.create_or_update(NAME, candidate)
    assert list(backend.get(NAME).versions) == [first]


@pytest.mark.parametrize("raced", [True, False])
def test_a_first_version_that_does_not_become_ready_takes_no_other_with_it(
    cloud, put, backend, two, monkeypatch, raced
):
    (first, (folder, _)), (second, _) = two.items()
    labels, delete = {"penstock.dev/version": first}, backend._custom.delete_namespaced_custom_object
    cloud.stand_in.unready = lambda pod: "no memory" if labels.items() <= pod["metadata"]["labels"].items() else ""
    others, answers = [put] * raced, []

    def late(*args, **given):
        if others:
            others.pop()(1)
        answers.append("asked")
        return delete(*args, **given)

    monkeypatch.setattr(backend, "_ready", 0.2)
    monkeypatch.setattr(backend._custom, "delete_namespaced_custom_object", late)
    with pytest.raises(UserError, match=r"not ready after 0.2 s: no memory"):
        backend.create_or_update(NAME, _candidate(folder, "gs://models/0"))
    left = backend.get(NAME)
    assert answers == ["asked"]
    assert (list(left.versions) if left else []) == ([second] if raced else [])


def test_a_version_that_does_not_become_ready_is_gone_and_says_why(cloud, put, backend, two):
    first, broken = put(0), list(two)[1]
    labels = {"penstock.dev/version": broken}
    cloud.stand_in.unready = lambda pod: "no memory" if labels.items() <= pod["metadata"]["labels"].items() else ""
    with pytest.raises(UserError, match=r"not ready after 0.2 s: no memory"):
        put(1, ready_seconds=0.2)
    assert list(backend.get(NAME).versions) == [first]
    assert cloud.shares() == {first: 100}
