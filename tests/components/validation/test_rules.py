"""Each rule of a feature: data that break it, and data that do not."""

import datetime
import math

import pyarrow as pa
import pytest

BROKEN = {
    # name: (schema of the feature x without its name, values that conform, values that do not, expected types)
    "type": ("type: FLOAT", [1.5], [1], ["UNEXPECTED_DATA_TYPE"]),
    "type bytes": ("type: INT", [1], ["a"], ["UNEXPECTED_DATA_TYPE"]),
    "min_fraction": (
        "type: INT presence { min_fraction: 0.5 }",
        [1, None],
        [1, None, None],
        ["FEATURE_TYPE_LOW_FRACTION_PRESENT"],
    ),
    "min_fraction 1": (
        "type: INT presence { min_fraction: 1 }",
        [1, 2],
        [*[1] * 9999, None],
        ["FEATURE_TYPE_LOW_FRACTION_PRESENT"],
    ),
    "min_count": (
        "type: INT presence { min_count: 2 }",
        [1, 2, None],
        [1, None, None],
        ["FEATURE_TYPE_LOW_NUMBER_PRESENT"],
    ),
    "present nowhere": (
        "type: INT presence { min_count: 1 }",
        [1],
        pa.nulls(2, pa.int64()),
        ["FEATURE_TYPE_NOT_PRESENT"],
    ),
    "value_count min": (
        "type: INT value_count { min: 1 max: 2 }",
        [[1], [1, 2]],
        [[1], []],
        ["FEATURE_TYPE_LOW_NUMBER_VALUES"],
    ),
    "value_count max": (
        "type: INT value_count { min: 1 max: 2 }",
        [[1], [1, 2]],
        [[1], [1, 2, 3]],
        ["FEATURE_TYPE_HIGH_NUMBER_VALUES"],
    ),
    "value_counts": (
        "type: INT value_counts { value_count { max: 1 } }",
        [[1]],
        [[1, 2]],
        ["FEATURE_TYPE_HIGH_NUMBER_VALUES"],
    ),
    "shape of absent values": ("type: INT shape {}", [1, 2], [1, None], ["INVALID_FEATURE_SHAPE"]),
    "shape of lists": (
        "type: INT shape { dim { size: 2 } dim { size: 2 } }",
        [[1, 2, 3, 4]],
        [[1, 2, 3]],
        ["INVALID_FEATURE_SHAPE"],
    ),
    "shape of lists that differ": (
        "type: INT shape { dim { size: 2 } }",
        [[1, 2]],
        [[1, 2], [1]],
        ["INVALID_FEATURE_SHAPE"],
    ),
    "int_domain min": ("type: INT int_domain { min: 0 max: 5 }", [0, 5], [-1, 5], ["INT_TYPE_SMALL_INT"]),
    "int_domain max": ("type: INT int_domain { min: 0 max: 5 }", [0, 5], [0, 6], ["INT_TYPE_BIG_INT"]),
    "int_domain both": (
        "type: INT int_domain { min: 0 max: 5 }",
        [0, 5],
        [-1, 6],
        ["INT_TYPE_SMALL_INT", "INT_TYPE_BIG_INT"],
    ),
    "int_domain categorical": (
        "type: INT int_domain { is_categorical: true max: 9 }",
        [1, 9],
        [1, 10],
        ["INT_TYPE_BIG_INT"],
    ),
    "int_domain of strings": ("type: BYTES int_domain { max: 20 }", ["3", "20"], ["3", "100"], ["INT_TYPE_BIG_INT"]),
    "int_domain of words": ("type: BYTES int_domain {}", ["3", "-20"], ["3", "1_0"], ["INT_TYPE_NOT_INT_STRING"]),
    "int_domain of long strings": (
        "type: BYTES int_domain {}",
        ["9223372036854775807"],
        ["9223372036854775808"],
        ["INT_TYPE_NOT_INT_STRING"],
    ),
    "float_domain min": ("type: FLOAT float_domain { min: 0.1 }", [0.1, 5.0], [0.099, 5.0], ["FLOAT_TYPE_SMALL_FLOAT"]),
    "float_domain max": ("type: FLOAT float_domain { max: 0.7 }", [0.1, 0.7], [0.1, 0.71], ["FLOAT_TYPE_BIG_FLOAT"]),
    "disallow_nan": (
        "type: FLOAT float_domain { disallow_nan: true }",
        [1.0, None, math.inf],
        [1.0, math.nan],
        ["FLOAT_TYPE_HAS_NAN"],
    ),
    "disallow_nan, nothing else": (
        "type: FLOAT float_domain { disallow_nan: true min: 1 }",
        [1.0],
        [math.nan],
        ["FLOAT_TYPE_HAS_NAN"],
    ),
    "disallow_inf": (
        "type: FLOAT float_domain { disallow_inf: true }",
        [1e300, math.nan],
        [1.0, -math.inf],
        ["FLOAT_TYPE_HAS_INF"],
    ),
    "float_domain of strings": (
        "type: BYTES float_domain { max: 1 }",
        ["0.5", "1e0"],
        ["0.5", "2"],
        ["FLOAT_TYPE_BIG_FLOAT"],
    ),
    "float_domain of words": ("type: BYTES float_domain {}", ["0.5"], ["0.5", "half"], ["FLOAT_TYPE_STRING_NOT_FLOAT"]),
    "nan as a string": (
        "type: BYTES float_domain { disallow_nan: true }",
        ["0.5"],
        ["0.5", "nan"],
        ["FLOAT_TYPE_HAS_NAN"],
    ),
    "string_domain": (
        'type: BYTES string_domain { value: "a" value: "b" }',
        ["a", "b", None],
        ["a", "c"],
        ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"],
    ),
    "named domain": ('type: BYTES domain: "letters"', ["a", "b"], ["a", "c"], ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]),
    "min_domain_mass": (
        'type: BYTES domain: "letters" distribution_constraints { min_domain_mass: 0.9 }',
        [*["a"] * 9, "c"],
        [*["a"] * 8, "c"],
        ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"],
    ),
    "not utf-8": (
        'type: BYTES domain: "letters"',
        pa.array([b"a"], pa.binary()),
        pa.array([b"a", b"\xff"], pa.binary()),
        ["ENUM_TYPE_INVALID_UTF8"],
    ),
    "bool_domain small": ("type: INT bool_domain {}", [0, 1], [-1, 1], ["BOOL_TYPE_SMALL_INT"]),
    "bool_domain big": ("type: INT bool_domain {}", [True, False], [0, 2], ["BOOL_TYPE_BIG_INT"]),
    "bool_domain of floats": ("type: FLOAT bool_domain {}", [0.0, 1.0], [0.0, 1.5], ["BOOL_TYPE_UNEXPECTED_FLOAT"]),
    "bool_domain of fractions": (
        "type: FLOAT bool_domain {}",
        [0.0, 1.0],
        [0.0, *[0.5] * 20, 1.0],
        ["BOOL_TYPE_UNEXPECTED_FLOAT"],
    ),
    "bool_domain of nan": ("type: FLOAT bool_domain {}", [0.0], [0.0, math.nan], ["BOOL_TYPE_UNEXPECTED_FLOAT"]),
    "bool_domain of strings": (
        'type: BYTES bool_domain { true_value: "yes" false_value: "no" }',
        ["yes", "no"],
        ["yes", "maybe"],
        ["BOOL_TYPE_UNEXPECTED_STRING"],
    ),
    "unique min": (
        "type: BYTES unique_constraints { min: 2 max: 3 }",
        ["a", "b"],
        ["a", "a"],
        ["FEATURE_TYPE_LOW_UNIQUE"],
    ),
    "unique max": (
        "type: BYTES unique_constraints { min: 2 max: 3 }",
        ["a", "b", "c"],
        ["a", "b", "c", "d"],
        ["FEATURE_TYPE_HIGH_UNIQUE"],
    ),
    "unique min alone": (
        "type: BYTES unique_constraints { min: 2 }",
        list("abcdefgh"),
        ["a"],
        ["FEATURE_TYPE_LOW_UNIQUE"],
    ),
    "unique of categorical integers": (
        "type: INT int_domain { is_categorical: true } unique_constraints { max: 2 }",
        [7, 8, 7],
        [7, 8, 9],
        ["FEATURE_TYPE_HIGH_UNIQUE"],
    ),
    "times": (
        "type: INT int_domain { min: 0 }",
        [datetime.datetime(1970, 1, 1)],
        [datetime.datetime(1969, 1, 1)],
        ["INT_TYPE_SMALL_INT"],
    ),
}
LETTERS = 'string_domain { name: "letters" value: "a" value: "b" }'


@pytest.mark.parametrize("name", BROKEN)
def test_data_that_break_a_rule_and_data_that_do_not(verdict_on, kinds_of, name):
    demands, good, bad, expected = BROKEN[name]
    schema = f'feature {{ name: "x" {demands} }} {LETTERS}'
    conforming = verdict_on({"x": good}, schema)
    assert kinds_of(conforming) == {}
    assert conforming.count == 0
    assert conforming.unchecked == ()
    broken = verdict_on({"x": bad}, schema)
    assert kinds_of(broken) == {"x": expected}
    assert broken.count == len(expected)


SENSELESS = {
    # name: (schema of the feature x without its name, values, expected types)
    "no type": ("presence { min_count: 1 }", [1], ["FEATURE_MISSING_TYPE"]),
    "no type but strings": (
        'domain: "letters"',
        ["c"],
        ["FEATURE_MISSING_TYPE", "ENUM_TYPE_UNEXPECTED_STRING_VALUES"],
    ),
    "negative fraction": ("type: INT presence { min_fraction: -1 }", [1], ["INVALID_SCHEMA_SPECIFICATION"]),
    "fraction above 1": ("type: INT presence { min_fraction: 2 }", [1], ["INVALID_SCHEMA_SPECIFICATION"]),
    "negative count": ("type: INT value_count { min: -1 }", [1], ["INVALID_SCHEMA_SPECIFICATION"]),
    "max below min": ("type: INT value_count { min: 1 max: 0 }", [1], ["INVALID_SCHEMA_SPECIFICATION"]),
    "max below min, nested": (
        "type: INT value_counts { value_count { min: 1 max: 0 } }",
        [1],
        ["INVALID_SCHEMA_SPECIFICATION"],
    ),
    "shape of nothing": ("type: INT shape { dim { size: 0 } }", [1], ["INVALID_SCHEMA_SPECIFICATION"]),
    "domain of another type": ("type: FLOAT int_domain { max: 1 }", [5.0], ["DOMAIN_INVALID_FOR_TYPE"]),
    "no such domain": ('type: BYTES domain: "words"', ["a"], ["INVALID_DOMAIN_SPECIFICATION"]),
    "value twice": (
        'type: BYTES string_domain { value: "a" value: "a" }',
        ["a"],
        ["INVALID_DOMAIN_SPECIFICATION"],
    ),
    "true is false": (
        'type: BYTES bool_domain { true_value: "a" false_value: "a" }',
        ["a"],
        ["INVALID_DOMAIN_SPECIFICATION"],
    ),
    "bool of numbers in words": ('type: INT bool_domain { true_value: "1" }', [1], ["BOOL_TYPE_INVALID_CONFIG"]),
    "bool of strings without words": ("type: BYTES bool_domain {}", ["true"], ["BOOL_TYPE_INVALID_CONFIG"]),
    "mass without domain": (
        "type: INT int_domain {} distribution_constraints { min_domain_mass: 0.5 }",
        [1],
        ["INVALID_SCHEMA_SPECIFICATION"],
    ),
    "unique of floats": ("type: FLOAT unique_constraints { min: 1 }", [1.0], ["FEATURE_TYPE_NO_UNIQUE"]),
    "nested otherwise": (
        "type: INT value_counts { value_count { min: 1 } value_count { min: 1 } }",
        [[1]],
        ["VALUE_NESTEDNESS_MISMATCH"],
    ),
}


@pytest.mark.parametrize("name", SENSELESS)
def test_demands_that_make_no_sense_are_anomalies(verdict_on, kinds_of, name):
    demands, values, expected = SENSELESS[name]
    assert kinds_of(verdict_on({"x": values}, f'feature {{ name: "x" {demands} }} {LETTERS}')) == {"x": expected}


def test_unexpected_values_are_named_with_their_share(verdict_on):
    verdict = verdict_on(
        {"x": ["a"] * 150 + ["zz"] * 49 + ["q"]}, f'feature {{ name: "x" type: BYTES domain: "letters" }} {LETTERS}'
    )
    info = verdict.anomalies.anomaly_info["x"]
    assert info.short_description == "Unexpected values"
    assert info.description == "Values outside the domain: 'zz' (24%), 'q' (<1%)."


def test_a_domain_that_sees_the_frequent_values_only_says_so(verdict_on):
    values = [f"{i}" for i in range(1001)]
    verdict = verdict_on({"x": values}, 'feature { name: "x" type: BYTES int_domain { min: 0 } }')
    assert verdict.count == 0
    [unchecked] = verdict.unchecked
    assert (unchecked.feature, unchecked.rule) == ("x", "int_domain")
    assert "1000 most frequent values of 1001" in unchecked.reason
