"""Our own pipelines, converted and run step by step, give what they give in the local engine."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.compile.to_kfp import compiled
from penstock.components.deployment.backends import connect
from penstock.components.ingestion.ingest import ingest
from penstock.components.ingestion.samples import taxi
from penstock.components.registry.register import register
from penstock.components.training.fit import fit
from penstock.components.validation.validate import validate
from penstock.pipelines import continuous_training, tabular_training, tuned_training
from penstock.pipelines.tabular_training import TIPS
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


@pytest.fixture
def endpoints(tmp_path) -> Iterator[list[dict]]:
    """Options of a platform for each of the two runs; what they serve in the end is removed."""
    options = [{"state": str(tmp_path / name / "endpoints")} for name in ("local", "azure")]
    yield options
    for each in options:
        connect("local", each, "test").remove("taxi-tips", "")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_loop_replaces_the_champion_in_both(tmp_path, registries, endpoints):
    taxi.write(tmp_path / "trips", 7500)
    [january], [february] = ([*(tmp_path / "trips").glob(f"*2019-0{month}.csv")] for month in (1, 2))
    champion = tmp_path / "champion"
    train_set, eval_set, model, statistics = (champion / name for name in ("train", "eval", "model", "statistics"))
    ingest(str(january), train_set, eval_set, champion / "rejects", query=TIPS)
    validate(train_set, statistics, champion / "schema", champion / "anomalies", champion / "page", on_anomaly="report")
    fit(train_set, eval_set, model, target="big_tip")
    register(model, {}, model_name="taxi-tips", statistics=statistics, registry=registries[0], run_id="january")
    shutil.copy(*(registry.removeprefix("sqlite:///") for registry in registries))

    values = {
        "recent": str(february),
        "source": str(february),
        "gate": ["auc >= 0.4"],
        "options": endpoints[0],
    }
    # Each serves at a port of its own, and tells of the time.
    told = ["*.deploy.url", "*.roll-out.history", "*.roll-out.report"]
    inputs = {"options": json.dumps(endpoints[1])}
    assert same(continuous_training, tmp_path, registries, values, inputs=inputs, apart_from=told) == []
    assert succeeded(tmp_path) >= {"detect-drift", "train", "register", "deploy", "roll-out", "promote", "notify"}
