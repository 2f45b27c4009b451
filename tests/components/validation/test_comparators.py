"""Drift and skew."""

import pytest
from google.protobuf import text_format
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0.anomalies_pb2 import DriftSkewInfo
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics

from penstock.components.validation.anomalies import Baselines, find
from penstock.components.validation.comparators import divergence

WORDS = {"x": ["a"] * 6 + ["b"] * 4}
SHIFTED = {"x": ["a"] * 9 + ["b"]}


def schema(comparator: str, which: str = "drift_comparator", rest: str = "type: BYTES") -> str:
    return f'feature {{ name: "x" {rest} {which} {{ {comparator} }} }}'


@pytest.mark.parametrize(("which", "against"), [("drift_comparator", "previous"), ("skew_comparator", "serving")])
def test_l_infinity_above_its_threshold(verdict_on, kinds_of, which, against):
    # The share of "a" is 0.6 here and 0.9 there.
    fine = verdict_on(WORDS, schema("infinity_norm { threshold: 0.31 }", which), **{against: SHIFTED})
    assert kinds_of(fine) == {}
    high = verdict_on(WORDS, schema("infinity_norm { threshold: 0.29 }", which), **{against: SHIFTED})
    assert kinds_of(high) == {"x": ["COMPARATOR_L_INFTY_HIGH"]}
    reason = high.anomalies.anomaly_info["x"].reason[0]
    assert against in reason.short_description
    assert "is 0.3, above 0.29" in reason.description
    for verdict in (fine, high):
        [info] = verdict.anomalies.drift_skew_info
        [measured] = info.drift_measurements if which.startswith("drift") else info.skew_measurements
        assert measured.type == DriftSkewInfo.Measurement.L_INFTY
        assert measured.value == pytest.approx(0.3)


def test_normalized_absolute_difference(verdict_on, kinds_of):
    # 6 and 9 of "a", 20 values in all.
    comparator = "normalized_abs_difference { threshold: %s }"
    assert kinds_of(verdict_on(WORDS, schema(comparator % 0.16), previous=SHIFTED)) == {}
    found = kinds_of(verdict_on(WORDS, schema(comparator % 0.14), previous=SHIFTED))
    assert found == {"x": ["COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH"]}


def test_jensen_shannon_of_words(verdict_on, kinds_of):
    comparator = "jensen_shannon_divergence { threshold: %s }"
    expected = jensenshannon([0.6, 0.4], [0.9, 0.1], base=2) ** 2
    assert 0.09 < expected < 0.1
    verdict = verdict_on(WORDS, schema(comparator % 0.09), previous=SHIFTED)
    assert kinds_of(verdict) == {"x": ["COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"]}
    assert verdict.anomalies.drift_skew_info[0].drift_measurements[0].value == pytest.approx(expected)
    assert kinds_of(verdict_on(WORDS, schema(comparator % 0.1), previous=SHIFTED)) == {}


@pytest.mark.parametrize("source", ["", "source { type: STANDARD }", "source { type: QUANTILES }"])
def test_jensen_shannon_of_numbers(verdict_on, kinds_of, source):
    demands = schema(f"jensen_shannon_divergence {{ threshold: 0.5 {source} }}", rest="type: FLOAT")
    near, far = {"x": [float(i) for i in range(100)]}, {"x": [float(i) for i in range(200, 300)]}
    assert kinds_of(verdict_on(near, demands, previous=near)) == {}
    verdict = verdict_on(near, demands, previous=far)
    assert kinds_of(verdict) == {"x": ["COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"]}
    assert verdict.anomalies.drift_skew_info[0].drift_measurements[0].value == pytest.approx(1)


def test_an_outlier_stretches_equally_wide_buckets_and_only_one_of_ten_quantiles(verdict_on):
    measured = {}
    usual = [float(i % 100) for i in range(1000)]
    for source in ("STANDARD", "QUANTILES"):
        comparator = f"jensen_shannon_divergence {{ threshold: 0.5 source {{ type: {source} }} }}"
        verdict = verdict_on({"x": usual}, schema(comparator, rest="type: FLOAT"), previous={"x": [*usual, 1e6]})
        measured[source] = verdict.anomalies.drift_skew_info[0].drift_measurements[0].value
    assert measured["QUANTILES"] < 0.1 < 0.9 < measured["STANDARD"]


def test_all_measures_at_once(verdict_on, kinds_of):
    comparators = "infinity_norm { threshold: 0.1 } jensen_shannon_divergence { threshold: 0.01 }"
    verdict = verdict_on(WORDS, schema(comparators), previous=SHIFTED)
    assert kinds_of(verdict) == {"x": ["COMPARATOR_L_INFTY_HIGH", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"]}


def test_a_baseline_without_the_feature_is_an_anomaly(verdict_on, kinds_of):
    verdict = verdict_on(WORDS, schema("infinity_norm { threshold: 0.1 }"), previous={"y": [1]})
    assert kinds_of(verdict) == {"x": ["COMPARATOR_CONTROL_DATA_MISSING"]}


def test_no_baseline_is_said(verdict_on):
    verdict = verdict_on(
        WORDS, schema("infinity_norm { threshold: 0.1 }") + "dataset_constraints { num_examples_drift_comparator {} }"
    )
    assert verdict.count == 0
    assert [str(item) for item in verdict.unchecked] == [
        "the schema: dataset_constraints.num_examples_drift_comparator is not checked: "
        "no previous_statistics are given",
        "feature 'x': drift_comparator is not checked: no previous_statistics are given",
    ]


def test_l_infinity_of_numbers_is_not_checked_and_says_so(verdict_on):
    verdict = verdict_on(
        {"x": [1.5, 2.5]}, schema("infinity_norm { threshold: 0.1 }", rest="type: FLOAT"), previous={"x": [9.0]}
    )
    assert verdict.count == 0
    [item] = verdict.unchecked
    assert (item.feature, item.rule) == ("x", "drift_comparator.infinity_norm")
    assert "is_categorical" in item.reason


def test_categorical_numbers_are_compared_by_value(verdict_on, kinds_of):
    demands = schema("infinity_norm { threshold: 0.4 }", rest="type: INT int_domain { is_categorical: true }")
    assert kinds_of(verdict_on({"x": [1, 1, 2]}, demands, previous={"x": [1, 2, 2]})) == {}
    assert kinds_of(verdict_on({"x": [1, 1, 2]}, demands, previous={"x": [7, 2, 2]})) == {
        "x": ["COMPARATOR_L_INFTY_HIGH"]
    }


def test_bools_described_with_and_without_a_schema_compare(statistics_of, verdict_on):
    counted = statistics_of({"x": [True, False, True]}, 'feature { name: "x" type: INT bool_domain {} }').features[0]
    measured = statistics_of({"x": [True, False, True]}).features[0]
    assert counted.HasField("string_stats")
    assert measured.HasField("num_stats")
    assert divergence(counted, measured) == pytest.approx(0)


def test_statistics_that_others_wrote_serve_as_a_baseline(statistics_of):
    previous = text_format.Parse(
        """
        num_examples: 4
        features {
          name: "x" type: STRING
          string_stats {
            common_stats { num_non_missing: 4 min_num_values: 1 max_num_values: 1 avg_num_values: 1 }
            unique: 2
            rank_histogram { buckets { label: "a" sample_count: 3 } buckets { label: "b" sample_count: 1 } }
          }
        }
        features { name: "nothing is known of it" type: INT }
        """,
        DatasetFeatureStatistics(),
    )
    demands = text_format.Parse(schema("infinity_norm { threshold: 0.1 }"), Schema())
    verdict = find(statistics_of({"x": ["a", "b"]}), demands, baselines=Baselines(previous=previous))
    assert verdict.anomalies.drift_skew_info[0].drift_measurements[0].value == pytest.approx(0.25)
    assert find(previous, demands).count == 0  # and as the data at hand
