"""Metrics of a rollout, by hand."""

import datetime
import math

import pyarrow as pa
import pytest

from penstock.components.deployment import measure
from penstock.components.deployment.endpoint import Reading, Unreachable
from penstock.components.deployment.serving.metrics import Metrics

SECONDS = ((0.1, 50.0), (0.2, 90.0), (math.inf, 100.0))


def test_a_quantile_is_linear_within_its_bucket_and_ends_at_the_last_bound():
    assert measure.quantile(SECONDS, 0.5) == pytest.approx(0.1)
    assert measure.quantile(SECONDS, 0.7) == pytest.approx(0.15)
    assert measure.quantile(SECONDS, 0.99) == pytest.approx(0.2)
    assert measure.quantile((), 0.5) is None


def test_a_window_is_the_difference_of_two_readings():
    before = Reading({200: 10.0, 500: 1.0}, SECONDS, {"p": ((0.5, 4.0), (1.0, 10.0))}, {"a": 3.0})
    after = Reading(
        {200: 30.0, 400: 2.0, 500: 6.0},
        tuple((b, 2 * n) for b, n in SECONDS),
        {"p": ((0.5, 5.0), (1.0, 12.0))},
        {"a": 4.0, "b": 1.0},
    )
    window = measure.between(before, after)
    assert window.requests == {200: 20.0, 400: 2.0, 500: 5.0}
    assert window.seconds == SECONDS
    assert window.outputs == {"p": ((0.5, 1.0), (1.0, 2.0))}
    assert window.labels == {"a": 1.0, "b": 1.0}
    found = measure.values(window)
    assert found["requests"] == 27
    assert found["error_rate"] == pytest.approx(5 / 27)
    assert found["refusal_rate"] == pytest.approx(2 / 27)
    assert measure.values(Reading()) == {"requests": 0.0}


def test_quantiles_that_a_platform_tells_itself_are_taken_as_they_are():
    window = measure.between(Reading({200: 1.0}), Reading({200: 9.0}, quantiles={0.5: 0.2, 0.99: 0.7}))
    assert measure.values(window) == {
        "requests": 8.0, "error_rate": 0.0, "refusal_rate": 0.0, "latency_p50": 0.2, "latency_p99": 0.7,
    }  # fmt: skip


def test_a_server_that_was_started_anew_counts_from_zero():
    assert measure.between(Reading({200: 100.0}), Reading({200: 7.0})).requests == {200: 7.0}


def test_the_distance_of_predictions_is_that_of_the_output_that_differs_most():
    one = Reading({}, (), {"p": ((0.5, 10.0), (1.0, 10.0))}, {"a": 10.0})
    other = Reading({}, (), {"p": ((0.5, 0.0), (1.0, 10.0))}, {"a": 10.0})
    assert measure.prediction_distance(one, one) == 0.0
    assert measure.prediction_distance(one, other) == 1.0
    assert measure.prediction_distance(one, Reading()) is None


def answers(predictions, ids="abcd", **more):
    columns = {"request_id": list(ids)[: len(predictions)], "row": pa.array([0] * len(predictions), pa.int32())}
    return pa.table({**columns, "prediction": predictions, **more})


def test_versions_agree_on_rows_that_both_answered():
    assert measure.agreement(answers(["x", "y", "x", "x"]), answers(["x", "x"], "ab")) == (0.5, 2)
    assert measure.agreement(answers([1.0, 2.0]), answers([1.0], "z")) == (None, 0)
    wide = [0.0, 100.0, 50.0, 20.0]
    assert measure.agreement(answers(wide), answers([0.5, 100.0, 52.0, 20.0])) == (0.75, 4)


def test_quality_is_measured_of_answers_with_a_label():
    table = answers([True, False, True], probability_false=[0.1, 0.8, 0.4], probability_true=[0.9, 0.2, 0.6])
    labels = pa.table({"request_id": ["a", "b", "c", "z"], "row": [0, 0, 0, 0], "late": [True, False, False, True]})
    assert measure.quality(table, labels, "late")["accuracy"] == pytest.approx(2 / 3)
    numbers = pa.table({"request_id": ["a"], "row": [0], "price": [3]})
    assert measure.quality(answers([1.0, 2.0]), numbers, "price")["rmse"] == pytest.approx(2.0)
    assert measure.quality(answers([1.0], "z"), numbers, "price") == {}
    with pytest.raises(ValueError, match="'late' holds maybe, but the version knows false, true"):
        measure.quality(table, labels.set_column(2, "late", pa.array(["true", "maybe", "false", "true"])), "late")


def test_what_the_server_tells_is_read_of_the_routes_that_predict():
    told = Metrics()
    told.requests.labels("predict", 200).inc(3)
    told.requests.labels("infer", 500).inc()
    told.requests.labels("metrics", 200).inc(50)
    told.seconds.labels("predict").observe(0.0007)
    told.seconds.labels("metrics").observe(3)
    found = measure.read_exposition(told.text().decode())
    assert found.requests == {200: 3.0, 500: 1.0}
    assert dict(found.seconds)[0.0005] == 0.0
    assert found.seconds[-1] == (math.inf, 1.0)
    with pytest.raises(Unreachable):
        measure.read_exposition('penstock_requests_total{route="predict"} 1 2 3 4')


def test_a_log_that_is_not_there_yet_has_no_rows(tmp_path):
    assert measure.read_log(tmp_path, datetime.datetime.now(datetime.UTC)).num_rows == 0
