"""Rewrites give the next spec and leave the one that they were given alone."""

import copy

import pytest

from penstock.compile import rewrites

DIGEST = "sha256:" + "ab" * 32
REGISTRY = "europe-docker.pkg.dev/acme/images"


def spec(*images: str) -> dict:
    executors = {f"exec-{index}": {"container": {"image": image, "args": ["a"]}} for index, image in enumerate(images)}
    executors["exec-importer"] = {"importer": {"artifactUri": {"constant": "gs://b/c"}}}
    return {"pipelineInfo": {"name": "p"}, "deploymentSpec": {"executors": executors}, "root": {}}


def images_of(spec: dict) -> list[str]:
    return list(rewrites.images(spec))


def test_images_of_the_registry_are_named_by_their_digest_and_others_stay():
    before = spec("penstock/tabular:0.1.0", "python:3.11", "penstock/serving:0.1.0")
    kept = copy.deepcopy(before)
    after = rewrites.pin_images(before, {"penstock/tabular": DIGEST}, REGISTRY)
    assert images_of(after) == [f"{REGISTRY}/tabular@{DIGEST}", "python:3.11", "penstock/serving:0.1.0"]
    assert before == kept


def test_nothing_but_images_changes():
    before = spec("penstock/tabular:0.1.0")
    after = rewrites.pin_images(before, {"penstock/tabular": DIGEST}, f"{REGISTRY}/")
    after["deploymentSpec"]["executors"]["exec-0"]["container"]["image"] = "penstock/tabular:0.1.0"
    assert after == before


def test_pinning_twice_is_pinning_once():
    once = rewrites.pin_images(spec("penstock/tabular:0.1.0"), {"penstock/tabular": DIGEST}, REGISTRY)
    assert rewrites.pin_images(once, {"penstock/tabular": DIGEST}, REGISTRY) == once


def test_an_image_that_has_a_digest_keeps_it():
    named = f"penstock/tabular@sha256:{'cd' * 32}"
    after = rewrites.pin_images(spec(named), {"penstock/tabular": DIGEST}, REGISTRY, ["penstock/tabular"])
    assert images_of(after) == [named]


def test_images_that_may_keep_their_tag_go_to_the_registry_with_it():
    after = rewrites.pin_images(spec("penstock/tabular:0.1.0", "python:3.11"), {}, REGISTRY, ["penstock/tabular"])
    assert images_of(after) == [f"{REGISTRY}/tabular:0.1.0", "python:3.11"]


def test_an_image_without_a_digest_is_mutable():
    assert rewrites.mutable_images(spec("python:3.11", f"a/b@{DIGEST}", "python:3.11", "c")) == ["python:3.11", "c"]


@pytest.mark.parametrize(
    ("others", "after"),
    [
        ({"tabular": "tensorflow"}, ["penstock/tensorflow:0.1.0", "python:3.11", f"r/tensorflow@{DIGEST}"]),
        ({"penstock/tabular": "own"}, ["penstock/own:0.1.0", "python:3.11", f"r/tabular@{DIGEST}"]),
        ({"python": "r/python@sha256:1"}, ["penstock/tabular:0.1.0", "r/python@sha256:1", f"r/tabular@{DIGEST}"]),
        ({"python": "debian:13"}, ["penstock/tabular:0.1.0", "debian:13", f"r/tabular@{DIGEST}"]),
    ],
)
def test_images_are_swapped_by_name_or_by_repository(others, after):
    before = spec("penstock/tabular:0.1.0", "python:3.11", f"r/tabular@{DIGEST}")
    kept = copy.deepcopy(before)
    assert images_of(rewrites.swap_images(before, others)) == after
    assert before == kept


def test_an_image_to_swap_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="serving"):
        rewrites.swap_images(spec("penstock/tabular:0.1.0"), {"tabular": "tensorflow", "serving": "own"})


def pools(image: str) -> list:
    return [
        {"machine_spec": {"machine_type": "n1"}, "container_spec": {"image_uri": image, "args": ["penstock/tabular"]}}
    ]


def test_images_that_jobs_and_models_of_vertex_name_in_values_are_pinned_too():
    before = spec("python:3.11")
    given = {"inputs": {"parameters": {"pools": {"runtimeValue": {"constant": pools("penstock/tabular:0.1.0")}}}}}
    served = {"containerSpec": {"imageUri": "penstock/serving:0.1.0", "predictRoute": "/predict"}}
    from_parameter = {"containerSpec": {"imageUri": "{{$.inputs.parameters['image']}}"}}
    before["root"] = {"dag": {"tasks": {"train": given}}}
    before["components"] = {
        "a": {"inputDefinitions": {"parameters": {"pools": {"defaultValue": pools("penstock/tabular:0.1.0")}}}}
    }
    before["deploymentSpec"]["executors"]["exec-importer"]["importer"]["metadata"] = served
    before["deploymentSpec"]["executors"]["exec-other"] = {"importer": {"metadata": from_parameter}}
    kept = copy.deepcopy(before)
    after = rewrites.pin_images(before, {"penstock/tabular": DIGEST, "penstock/serving": DIGEST}, REGISTRY)
    assert images_of(after) == ["python:3.11", f"{REGISTRY}/serving@{DIGEST}", f"{REGISTRY}/tabular@{DIGEST}"]
    assert rewrites.mutable_images(after) == ["python:3.11"]
    pinned = after["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]["pools"]["runtimeValue"]["constant"]
    assert pinned == pools(f"{REGISTRY}/tabular@{DIGEST}")
    assert after["deploymentSpec"]["executors"]["exec-other"] == {"importer": {"metadata": from_parameter}}
    assert before == kept


def test_a_spec_without_executors_stays_as_it_is():
    assert rewrites.pin_images({"root": {}}, {"a": DIGEST}, REGISTRY) == {"root": {}}


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("python", ("python", "")),
        ("python:3.11", ("python", ":3.11")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "")),
        ("localhost:5000/a/b:1", ("localhost:5000/a/b", ":1")),
        (f"a/b:1@{DIGEST}", ("a/b", f"@{DIGEST}")),
    ],
)
def test_a_port_is_no_tag(image, parts):
    assert rewrites.split(image) == parts


@pytest.mark.parametrize("enabled", [True, False])
def test_caching_is_switched_for_the_tasks_of_every_component(enabled):
    task = {"componentRef": {"name": "comp-a"}, "cachingOptions": {} if enabled else {"enableCache": True}}
    dag = {"dag": {"tasks": {"a": task}, "outputs": {}}}
    before = {
        **spec("python:3.11"),
        "root": {**dag, "inputDefinitions": {}},
        "components": {"comp-b": dag, "comp-a": {}},
    }
    kept = copy.deepcopy(before)
    after = rewrites.set_caching(before, enabled)
    wanted = {"enableCache": True} if enabled else {}
    for component in (after["root"], after["components"]["comp-b"]):
        assert component["dag"]["tasks"]["a"] == {**task, "cachingOptions": wanted}
        assert component["dag"]["outputs"] == {}
    assert after["components"]["comp-a"] == {}
    assert before == kept
    assert rewrites.set_caching(after, enabled) == after
