"""What follows from sums by slice is what the local engine measures; that Beam adds up so is shown in the image."""

import numpy as np
import pyarrow as pa
import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.metrics.bootstrap import measure
from penstock.components._shared.metrics.calibration import BINS, bin_of
from penstock.components._shared.metrics.tasks import TASKS, Scored
from penstock.components._shared.slices import counts_of, cut, rule_of
from penstock.components.evaluation import on_beam
from penstock.components.evaluation.curves import curves_of
from penstock.components.evaluation.evaluate import evaluate
from penstock.components.evaluation.sums import Sums, curves, measured


def scored(task: str, rows: int, seed: int = 0) -> Scored:
    some = np.random.default_rng(seed)
    if task == "regression":
        actual = some.normal(1000, 3, rows)
        return Scored(actual, actual + some.normal(size=rows))
    classes = {"binary": 2, "multiclass": 3}[task]
    probabilities = some.dirichlet(np.ones(classes), rows)
    drawn = (probabilities.cumsum(axis=1) > some.random(rows)[:, None]).argmax(axis=1)
    return Scored(drawn, probabilities)


def sums_of(task: str, rows: Scored) -> Sums:
    """Return what TFMA adds up, added up by NumPy; areas are those of the local engine."""
    labels, predicted = rows.labels, rows.predictions
    values, _ = measure(TASKS[task], rows, 0, 0.95, [0])
    centre = labels.mean() - 5
    means = {name: float(mean(labels, predicted, centre).mean()) for name, mean in on_beam.MEANS[task].items()}
    sums = Sums(rows=len(labels), means=means)
    if task == "regression":
        means["median"] = float(np.median(np.abs(predicted - labels)))
        return sums
    classes = predicted.shape[1]
    chosen = (predicted[:, 1] >= 0.5).astype(int) if classes == 2 else predicted.argmax(axis=1)
    sums.matrix = np.zeros((classes, classes))
    np.add.at(sums.matrix, (labels, chosen), 1)
    confidence, true = (predicted[:, 1], labels) if classes == 2 else on_beam._confidence(labels, predicted)
    bins = bin_of(confidence)
    sums.calibration = np.column_stack(
        [np.bincount(bins, what, BINS) for what in (confidence, true, np.ones(len(bins)))]
    )
    areas = values.values
    sums.areas = (
        {"auc": areas.get("auc", 0.5), "pr_auc": areas.get("pr_auc", 0.0)}
        if task == "binary"
        else {f"auc/{number}": areas.get("auc_ovr", 0.5) for number in range(classes)}
    )
    return sums


@pytest.mark.parametrize("rows", [2, 3, 500])
@pytest.mark.parametrize("task", TASKS)
def test_metrics_that_follow_from_sums_are_those_of_the_local_engine(task, rows):
    given = scored(task, rows)
    wanted, _ = measure(TASKS[task], given, 0, 0.95, [0])
    found = measured(task, sums_of(task, given))
    assert found.rows == wanted.rows
    assert found.undefined == wanted.undefined
    for name, value in found.values.items():
        assert value == pytest.approx(wanted.values[name], rel=1e-9), name


def test_a_constant_target_and_one_that_is_0_have_the_reasons_of_the_local_engine():
    for actual in (np.full(5, 3.0), np.array([0.0, 1.0, 2.0])):
        given = Scored(actual, actual + 1)
        wanted, _ = measure(TASKS["regression"], given, 0, 0.95, [0])
        found = measured("regression", sums_of("regression", given))
        assert found.undefined == wanted.undefined
        assert wanted.undefined


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_curves_that_follow_from_sums_are_those_of_the_local_engine(task):
    given, classes = scored(task, 300), ("a", "b", "c")[: 2 if task == "binary" else 3]
    sums = sums_of(task, given)
    sums.scores, sums.curve = np.zeros((30, 2)), np.array([[1.0, 0, 0], [0.5, 3, 1], [0.0, 4, 2]])
    wanted, found = curves_of(task, given, classes), curves(task, sums, classes)
    assert set(found) == set(wanted)
    assert found["confusion"] == wanted["confusion"]
    assert found.get("by_class") == wanted.get("by_class")
    for name, values in wanted["calibration"].items():
        assert found["calibration"][name] == pytest.approx(values)
    if task == "binary":
        assert found["roc"] == {"fpr": [0, 0.5, 1], "tpr": [0, 0.75, 1], "thresholds": [1.0, 0.5, 0.0]}
        assert found["pr"] == {"recall": [0.75, 1], "precision": [0.75, 4 / 6], "thresholds": [0.5, 0.0]}


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["b", "a", None, "b", "null"]),
        pa.array([f"v{n % 31}" for n in range(400)] + ["other"] * 9 + [None]),
        pa.array([*np.linspace(0, 1, 100), None, float("nan")], from_pandas=False),
        pa.array([True, None, False]),
    ],
    ids=["texts", "many", "numbers", "booleans"],
)
def test_a_worker_puts_each_row_into_the_slice_that_the_local_engine_does(values):
    column = pa.chunked_array([values])
    rule = rule_of(counts_of([column], "x", "evaluate", "slices"))
    member = on_beam.Membership("x", rule)
    places = np.full(len(values), "", object)
    for found in cut(column, "x", "evaluate", "slices").slices:
        places[found.places] = found.name
    for first in range(0, len(values), 7):  # a row group knows nothing of the others
        codes = member.codes(values.slice(first, 7))
        assert [member.place(code)[1] for code in codes] == places[first : first + 7].tolist()
    one = on_beam.Membership("x", "v30")
    assert [one.place(code) for code in one.codes(pa.array(["v30", "v3", None]))] == [("x", "v30"), None, None]


def test_without_the_image_beam_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match="evaluate: engine: 'beam' needs apache_beam and tensorflow_model_analysis"):
        evaluate("no model", "no rows", "e", "r", engine="beam")
    with pytest.raises(UserError, match="evaluate: engine: there is no engine 'spark'"):
        evaluate("no model", "no rows", "e", "r", engine="spark")
