"""What TensorFlow Model Analysis finds on Beam, held to the local engine, metric by metric and slice by slice."""

import json
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.training.fit import fit
from tests.components.conftest import make_dataset  # noqa: F401  a fixture
from tests.containers.test_beam import in_image

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

TARGETS = {"binary": "tipped", "multiclass": "color", "regression": "fare"}
SLICES = ["zone", "driver", "distance", "night"]
GATES = {
    "binary": ["auc >= 0.6", "slice:zone.rows >= 1", "slice:driver=d3.accuracy >= 0", "slice:zone=nowhere.rows >= 1"],
    "multiclass": ["accuracy >= 0.99"],
    "regression": ["slice:night.r2 >= 0.5", "median_ae <= 9"],
}
# docs/beam.md says why; of all rows, and of slices, in which rows are few.
APPROXIMATE = {"auc": (1e-4, 0.002), "auc_ovr": (1e-4, 0.002), "pr_auc": (0.001, 0.05)}
RELATIVE = {"median_ae": 2**-13}


def rows(count: int, seed: int) -> pa.Table:
    some = np.random.default_rng(seed)
    distance, noise = some.normal(size=count), some.normal(size=count)
    zones = np.array(["a", "b", None], dtype=object)[some.integers(0, 3, count)]
    return pa.table(
        {
            "distance": distance,
            "zone": pa.array(zones, pa.string()),
            "driver": [f"d{int(number)}" for number in some.exponential(8, count)],
            "night": some.random(count) < 0.3,
            "tipped": distance + noise > 0,
            "color": pa.array(np.array(["blue", "green", "red"])[np.digitize(distance + noise, [-0.7, 0.7])]),
            "fare": 3 * distance + noise + 1000,
        }
    )


@pytest.fixture(scope="module")
def found(built, make_dataset, tmp_path_factory) -> dict[str, dict[str, Any]]:  # noqa: F811
    """Evaluations by case and engine."""
    folder = tmp_path_factory.mktemp("evaluations")
    train_set, eval_set = make_dataset(rows(1000, 1)), make_dataset(rows(1500, 2))
    for task, target in TARGETS.items():
        case = folder / "cases" / task
        case.mkdir(parents=True)
        fit(train_set, train_set, case / "model", target=target, features=["distance", "zone", "night"], max_rounds=20)
        shutil.copytree(eval_set, case / "eval_set")
        (case / "case.json").write_text(json.dumps({"slices": SLICES, "gate": GATES[task]}))
    in_image(built("beam").name, folder / "cases", folder / "output", "beam_evaluate.py")
    return {file.stem: json.loads(file.read_text()) for file in (folder / "output").glob("*.json")}


def both(found: dict[str, dict[str, Any]], task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return found[f"{task}-local"], found[f"{task}-beam"]


def held(here: dict[str, Any], there: dict[str, Any], where: str) -> None:
    assert here.keys() == there.keys()
    for name, metric in here.items():
        other = there[name]
        if metric["value"] is None:
            assert (other["value"], other["reason"]) == (None, metric["reason"]), (where, name)
        else:
            error = APPROXIMATE.get(name, (1e-7, 1e-7))[where != "all"]
            relative = RELATIVE.get(name, 1e-5)
            assert other["value"] == pytest.approx(metric["value"], rel=relative, abs=error), (where, name)


@pytest.mark.parametrize("task", TARGETS)
def test_metrics_of_all_rows_are_the_same(found, task):
    here, there = both(found, task)
    assert (here["engine"], there["engine"]) == ("local", "beam")
    held(here["metrics"], there["metrics"], "all")
    assert here["rows"] == there["rows"] == 1500


@pytest.mark.parametrize("task", TARGETS)
def test_slices_are_the_same_and_so_are_their_metrics(found, task):
    here, there = both(found, task)
    assert list(here["slices"]) == list(there["slices"]) == SLICES
    for column in SLICES:
        ours, theirs = here["slices"][column], there["slices"][column]
        assert ours["note"] == theirs["note"]
        assert [part["value"] for part in ours["slices"]] == [part["value"] for part in theirs["slices"]]
        for part, other in zip(ours["slices"], theirs["slices"], strict=True):
            assert part["rows"] == other["rows"]
            held(part["metrics"], other["metrics"], f"{column}={part['value']}")


@pytest.mark.parametrize("task", TARGETS)
def test_the_gate_says_the_same(found, task):
    here, there = both(found, task)
    assert here["blessed"] == there["blessed"]
    assert [entry["holds"] for entry in here["gate"]] == [entry["holds"] for entry in there["gate"]]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_curves_tell_the_same(found, task):
    here, there = (evaluation["curves"] for evaluation in both(found, task))
    assert there["confusion"] == here["confusion"]
    for name in ("confidence", "frequency", "rows"):
        assert there["calibration"][name] == pytest.approx(here["calibration"][name], rel=1e-5)
    if task == "multiclass":
        assert there["by_class"] == here["by_class"]
        return
    assert there["scores"] == here["scores"]
    ours = np.interp(there["roc"]["fpr"], here["roc"]["fpr"], here["roc"]["tpr"])
    assert np.abs(ours - there["roc"]["tpr"]).max() < 0.05
    assert there["roc"]["fpr"][0] == 0
    assert there["roc"]["tpr"][-1] == 1
    assert set(there["pr"]) == set(here["pr"])


def test_of_a_regression_no_plots_are_made(found):
    assert found["regression-beam"]["curves"] == {}
