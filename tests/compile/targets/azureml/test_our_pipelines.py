"""Our own pipelines, converted and run step by step, give what they give in the local engine."""

import json
from pathlib import Path

import pytest

from penstock.compile.to_kfp import compiled
from penstock.pipelines import tabular_training, tuned_training
from tests.compile.targets.azureml.parity import differences

UNSTAMPED = dict.fromkeys(("git_commit", "spec_sha256"), "0" * 40)


@pytest.fixture
def registries(tmp_path) -> list[str]:
    """A registry for each of the two runs."""
    for name in ("local", "azure"):
        (tmp_path / name).mkdir()
    return [f"sqlite:///{tmp_path / name}/models.db" for name in ("local", "azure")]


def succeeded(folder: Path) -> set[str]:
    """Return the names of the tasks that the job has carried out."""
    record = json.loads((folder / "azureml-runs/parity/run.json").read_text())
    return {path.rpartition(".")[2] for path, task in record["tasks"].items() if task["state"] == "SUCCEEDED"}


def same(pipeline, folder: Path, registries: list[str], values: dict, **more) -> list[str]:
    spec = folder / "spec.yaml"
    compiled(pipeline).write(spec)
    given = {**UNSTAMPED, **values, "registry": registries[0]}
    inputs = {"registry": registries[1], **more.pop("inputs", {})}
    return differences(spec, folder, given, inputs=inputs, **more)


@pytest.mark.slow
def test_a_training_gives_the_same_model_metrics_and_fingerprints(tmp_path, registries):
    assert same(tabular_training, tmp_path, registries, {"source": "sample://taxi?rows=2000"}) == []
    assert succeeded(tmp_path) >= {"ingest", "train", "evaluate", "register"}


@pytest.mark.slow
def test_a_search_gives_the_same_hyperparameters_and_model(tmp_path, registries):
    values = {"source": "sample://taxi?rows=1000", "max_trials": 2, "gate": ["auc >= 0.4"]}
    told = ["tune.metrics", "tune.trials", "tune.report"]  # of the seconds that trials took
    assert same(tuned_training, tmp_path, registries, values, apart_from=told) == []
    assert succeeded(tmp_path) >= {"tune", "train", "evaluate", "explain", "model-card", "register"}
