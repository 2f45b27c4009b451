"""Which columns there are, in which environment and stage, and what is demanded of the dataset as a whole."""

import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies, AnomalyInfo

A, B = 'feature { name: "a" type: INT }', 'feature { name: "b" type: INT presence { min_count: 1 } }'


def test_columns_that_came_and_columns_that_went(verdict_on, kinds_of):
    verdict = verdict_on({"a": [1], "c": [1]}, A + B)
    assert kinds_of(verdict) == {"b": ["SCHEMA_MISSING_COLUMN"], "c": ["SCHEMA_NEW_COLUMN"]}
    info = verdict.anomalies.anomaly_info["b"]
    assert list(info.path.step) == ["b"]
    assert info.severity == AnomalyInfo.ERROR
    assert info.short_description == info.reason[0].short_description


def test_a_column_that_is_not_demanded_may_be_absent(verdict_on, kinds_of):
    assert kinds_of(verdict_on({"b": [1]}, A + B)) == {}


@pytest.mark.parametrize(
    "stage", ["PLANNED", "ALPHA", "DEPRECATED", "DEBUG_ONLY", "DISABLED"], ids=lambda stage: stage.lower()
)
def test_features_set_aside_may_be_absent_or_wrong(verdict_on, kinds_of, stage):
    schema = f'feature {{ name: "x" type: INT presence {{ min_count: 1 }} lifecycle_stage: {stage} }}' + A
    assert kinds_of(verdict_on({"a": [1]}, schema)) == {}
    assert kinds_of(verdict_on({"a": [1], "x": ["text"]}, schema)) == {}


@pytest.mark.parametrize("stage", ["BETA", "PRODUCTION", "UNKNOWN_STAGE"])
def test_features_in_use_are_validated(verdict_on, kinds_of, stage):
    schema = f'feature {{ name: "x" type: INT presence {{ min_count: 1 }} lifecycle_stage: {stage} }}' + A
    assert kinds_of(verdict_on({"a": [1]}, schema)) == {"x": ["SCHEMA_MISSING_COLUMN"]}


def test_the_old_flag_for_deprecated_features_counts_too(verdict_on, kinds_of):
    assert kinds_of(verdict_on({"a": [1]}, A + B.replace("type", "deprecated: true type"))) == {}


LABEL = """
default_environment: "TRAINING" default_environment: "SERVING"
feature { name: "a" type: INT presence { min_count: 1 } }
feature { name: "label" type: INT presence { min_count: 1 } not_in_environment: "SERVING" }
feature { name: "hint" type: INT presence { min_count: 1 } in_environment: "DEBUGGING" not_in_environment: "TRAINING"
          not_in_environment: "SERVING" }
"""


@pytest.mark.parametrize(
    ("environment", "columns", "expected"),
    [
        ("TRAINING", "a label", {}),
        ("TRAINING", "a", {"label": ["SCHEMA_MISSING_COLUMN"]}),
        ("SERVING", "a", {}),
        ("SERVING", "a label", {"label": ["SCHEMA_NEW_COLUMN"]}),
        ("DEBUGGING", "hint", {}),
        ("", "a", {"label": ["SCHEMA_MISSING_COLUMN"], "hint": ["SCHEMA_MISSING_COLUMN"]}),
    ],
)
def test_features_belong_to_environments(verdict_on, kinds_of, environment, columns, expected):
    rows = {name: [1] for name in columns.split()}
    assert kinds_of(verdict_on(rows, LABEL, environment=environment)) == expected


def test_several_things_wrong_with_a_feature_are_one_anomaly_with_several_reasons(verdict_on):
    schema = 'feature { name: "x" type: INT presence { min_fraction: 1 } int_domain { max: 1 } }'
    verdict = verdict_on({"x": [5, None]}, schema)
    info = verdict.anomalies.anomaly_info["x"]
    assert verdict.count == len(info.reason) == 2
    assert info.short_description == "Multiple errors"
    assert info.description == " ".join(reason.description for reason in info.reason)


def test_names_that_look_like_paths_are_quoted_as_tfdv_does(verdict_on):
    verdict = verdict_on({"a.b": [1], "it's": [1], "(x)": [1], "plain": [1]}, A)
    assert set(verdict.anomalies.anomaly_info) == {"'a.b'", "'it''s'", "(x)", "plain"}
    assert verdict.anomalies.anomaly_name_format == Anomalies.SERIALIZED_PATH


def test_the_schema_is_kept_as_the_baseline(verdict_on):
    assert verdict_on({"a": [1]}, A).anomalies.baseline.feature[0].name == "a"


@pytest.mark.parametrize(
    ("constraints", "rows", "expected"),
    [
        ("min_examples_count: 3", 3, []),
        ("min_examples_count: 3", 2, ["DATASET_LOW_NUM_EXAMPLES"]),
        ("max_examples_count: 3", 3, []),
        ("max_examples_count: 3", 4, ["DATASET_HIGH_NUM_EXAMPLES"]),
        ("num_examples_drift_comparator { min_fraction_threshold: 0.5 }", 5, []),
        ("num_examples_drift_comparator { min_fraction_threshold: 0.5 }", 4, ["COMPARATOR_LOW_NUM_EXAMPLES"]),
        ("num_examples_drift_comparator { max_fraction_threshold: 1.5 }", 15, []),
        ("num_examples_drift_comparator { max_fraction_threshold: 1.5 }", 16, ["COMPARATOR_HIGH_NUM_EXAMPLES"]),
    ],
)
def test_numbers_of_examples(verdict_on, kinds_of, constraints, rows, expected):
    verdict = verdict_on({"a": [1] * rows}, A + f"dataset_constraints {{ {constraints} }}", previous={"a": [1] * 10})
    assert kinds_of(verdict) == ({"": expected} if expected else {})
    assert verdict.count == len(expected)
    assert verdict.unchecked == ()


def test_more_examples_than_none_before_are_too_many(verdict_on, kinds_of):
    schema = A + "dataset_constraints { num_examples_drift_comparator { max_fraction_threshold: 9 } }"
    nothing = pa.table({"a": pa.array([], pa.int64())})
    assert kinds_of(verdict_on({"a": [1]}, schema, previous=nothing)) == {"": ["COMPARATOR_HIGH_NUM_EXAMPLES"]}


def test_no_rows_are_an_anomaly_and_nothing_else_is_looked_at(verdict_on, kinds_of):
    verdict = verdict_on(
        pa.table({"c": pa.array([], pa.int64())}), A + B + "dataset_constraints { min_examples_count: 1 }"
    )
    assert kinds_of(verdict) == {"": ["NO_DATA_IN_SPAN", "DATASET_LOW_NUM_EXAMPLES"]}
    assert verdict.anomalies.data_missing
