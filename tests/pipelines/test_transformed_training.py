"""The graph goes from where it is written to where it is embedded, each in the image that can."""

import pytest

from penstock.compile.ports import parse_spec
from penstock.compile.to_kfp import compiled
from penstock.components.images import image
from penstock.pipelines import transformed_training


@pytest.fixture(scope="module")
def spec():
    return parse_spec(compiled(transformed_training).text, "transformed_training")


def test_each_step_runs_in_the_image_that_has_what_it_needs(spec):
    executors = spec["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-"): body["container"]["image"] for name, body in executors.items()} == {
        "ingest": image("tabular"),
        "transform": image("beam"),
        "train": image("tensorflow"),
        "evaluate": image("beam"),
        "register": image("tabular"),
    }


def test_the_model_is_given_the_graph_and_the_rows_that_it_was_made_of(spec):
    tasks = spec["root"]["dag"]["tasks"]

    def source(task, name):
        found = tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]
        return found["producerTask"], found["outputArtifactKey"]

    assert source("train", "transform_graph") == ("transform", "transform_graph")
    for task in ("transform", "train"):
        assert source(task, "train_set") == ("ingest", "train_set")
    assert source("evaluate", "eval_set") == ("ingest", "eval_set")
    assert source("evaluate", "model") == ("train", "model")
