"""How far attributions have moved, and what is written of it."""

import json

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.components._shared.errors import UserError
from penstock.components.monitoring.attributions import compare, ndcg
from penstock.components.monitoring.drift import Limits, detect

# The example of SageMaker's developer guide: scores in training and in production.
SCORES = {"sat": (0.70, 0.10), "gpa": (0.50, 0.20), "rank": (0.05, 0.70)}


def attributions(side: int, **more) -> dict:
    """Return columns as explain writes them; signs differ, and the mean of the absolute values is the score."""
    columns = {f"attribution_{name}": [score[side] * 1.5, -score[side] * 0.5] for name, score in SCORES.items()}
    return {"row": [0, 1], "prediction": [0.1, 0.9], **columns, **more}


@pytest.fixture
def detected(make_dataset, tmp_path):
    """Return a function that compares rows that are the same, with attributions that may not be."""

    def run(reference, current, threshold=0.9):
        rows = make_dataset({"sat": [1.0, 2.0]})
        result = detect(
            rows,
            tmp_path / "drift",
            tmp_path / "report.html",
            tmp_path / "prometheus",
            reference=rows,
            attributions=make_dataset(current),
            reference_attributions=make_dataset(reference),
            limits=Limits(attribution_threshold=threshold),
        )
        return result, json.loads((tmp_path / "drift").read_text())["attributions"]

    return run


def test_a_reversed_ranking_is_found_and_measured_as_its_source_says(detected, tmp_path):
    result, found = detected(attributions(0), attributions(1))
    # By hand: gains of the reference in the order of the current rows, over those in its own order.
    by_hand = (0.05 / 1 + 0.50 / np.log2(3) + 0.70 / 2) / (0.70 / 1 + 0.50 / np.log2(3) + 0.05 / 2)
    assert found["ndcg"] == pytest.approx(by_hand)
    assert found["ndcg"] == result.metrics["attribution_ndcg"] == pytest.approx(0.6877, abs=1e-4)
    assert (found["drifted"], result.attributions, result.drifted) == (True, True, ())
    first = found["columns"][0]
    assert (first["name"], first["rank"]) == ("sat", {"reference": 1, "current": 3})
    assert first["mean_absolute"] == {"reference": pytest.approx(0.7), "current": pytest.approx(0.1)}
    assert (first["change"], first["relative_change"]) == (pytest.approx(-0.6), pytest.approx(-6 / 7))
    assert "Attributions drifted: NDCG 0.688, threshold 0.9" in (tmp_path / "report.html").read_text()


def test_the_same_order_is_no_drift_however_the_sizes_changed(detected, tmp_path):
    grown = {name: [3 * value for value in values] for name, values in attributions(0).items()}
    result, found = detected(attributions(0), grown)
    assert (found["ndcg"], found["drifted"], result.attributions) == (1.0, False, False)
    assert found["columns"][0]["relative_change"] == pytest.approx(2.0)
    assert "No attribution drift" in (tmp_path / "report.html").read_text()


def test_the_threshold_decides(detected):
    assert detected(attributions(0), attributions(1), threshold=0.6)[0].attributions is False
    assert detected(attributions(0), attributions(1), threshold=0.7)[0].attributions is True


def test_gauges_say_what_the_document_says(detected, tmp_path):
    _, found = detected(attributions(0), attributions(1))
    gauges = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families((tmp_path / "prometheus").read_text())
        for sample in family.samples
    }
    assert gauges[("penstock_attribution_ndcg",)] == found["ndcg"]
    assert gauges[("penstock_attributions_drifted",)] == 1
    for each in found["columns"]:
        for name, value in each["mean_absolute"].items():
            assert gauges["penstock_attribution", ("column", each["name"]), ("set", name)] == value


def test_one_column_has_one_order_and_equal_ones_share_their_places():
    assert ndcg(np.array([0.3]), np.array([0.7])) == 1.0
    one_way, other_way = (1 + 0.5 / np.log2(3)), (0.5 + 1 / np.log2(3))
    assert ndcg(np.array([1.0, 0.5]), np.array([0.2, 0.2])) == pytest.approx((one_way + other_way) / 2 / one_way)


def test_rows_of_every_class_count(make_dataset):
    by_class = make_dataset({"class": ["a", "b"], "attribution_x": [1.0, -3.0], "attribution_y": [0.5, 0.5]})
    assert compare(by_class, by_class, 0.9)["columns"][0]["mean_absolute"] == {"reference": 2.0, "current": 2.0}


@pytest.mark.parametrize(
    ("reference", "current", "message"),
    [
        ({"x": [1.0]}, attributions(1), "reference_attributions: it has no column attribution_…"),
        (attributions(0), {"attribution_sat": [1.0]}, "attributions: it lacks those of gpa, rank; the reference is of"),
        (attributions(0), attributions(1, attribution_age=[0.0, 0.0]), "it has those of other columns, too"),
        ({"attribution_x": [0.0]}, {"attribution_x": [1.0]}, "no column adds anything to a prediction"),
        ({"attribution_x": [1.0]}, {"attribution_x": [float("nan")]}, "attributions: those of x are not all numbers"),
    ],
)
def test_attributions_that_cannot_be_compared_are_refused(detected, reference, current, message):
    with pytest.raises(UserError, match=message):
        detected(reference, current)


@pytest.mark.parametrize(
    ("given", "missing"),
    [("attributions", "reference_attributions"), ("reference_attributions", "attributions")],
)
def test_one_without_the_other_is_refused(make_dataset, tmp_path, given, missing):
    rows = make_dataset({"n": [1, 2]})
    outputs = (tmp_path / "drift", tmp_path / "report", tmp_path / "prometheus")
    with pytest.raises(UserError, match=f"detect_drift: {missing}: it is not given, the other is"):
        detect(rows, *outputs, reference=rows, **{given: rows})
