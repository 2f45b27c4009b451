"""Schemas inferred from data."""

import math

import pyarrow as pa
import pytest
from google.protobuf import text_format

from penstock.components.validation.anomalies import find
from penstock.components.validation.inference import infer


def inferred(statistics, feature: str) -> str:
    schema = infer(statistics)
    [found] = [item for item in schema.feature if item.name == feature]
    return text_format.MessageToString(found, as_one_line=True)


PRESENT = "presence { min_fraction: 1.0 min_count: 1 }"
ONE = "shape { dim { size: 1 } }"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 5], f"{PRESENT} type: INT {ONE}"),
        ([1.5, 5], f"{PRESENT} type: FLOAT {ONE}"),
        ([2, None], "value_count { min: 1 max: 1 } type: INT presence { min_count: 1 }"),
        ([[1, 2], [3, 4]], f"{PRESENT} type: INT shape {{ dim {{ size: 2 }} }}"),
        ([[1, 2], [3]], f"value_count {{ min: 1 }} {PRESENT} type: INT"),
        ([[1, 2], []], f"{PRESENT} type: INT"),
        ([0, 1], f"{PRESENT} type: INT bool_domain {{ }} {ONE}"),
        ([True, True], f"{PRESENT} type: INT bool_domain {{ }} {ONE}"),
        ([0, 0], f"{PRESENT} type: INT {ONE}"),
        (["no", "yes"], f'{PRESENT} type: BYTES domain: "x" {ONE}'),
        (["true", "false"], f'{PRESENT} type: BYTES bool_domain {{ true_value: "true" false_value: "false" }} {ONE}'),
        (["true", "TRUE"], f'{PRESENT} type: BYTES domain: "x" {ONE}'),
        (["CLEAR"], f'{PRESENT} type: BYTES bool_domain {{ false_value: "CLEAR" }} {ONE}'),
        (["17", "-4"], f"{PRESENT} type: BYTES int_domain {{ }} {ONE}"),
        ([f"w{i}" for i in range(100)], f'{PRESENT} type: BYTES domain: "x" {ONE}'),
        ([f"w{i}" for i in range(101)], f"{PRESENT} type: BYTES {ONE}"),
        ([f"{i}" for i in range(1000)], f"{PRESENT} type: BYTES int_domain {{ }} {ONE}"),
        ([f"{i}" for i in range(1001)], f"{PRESENT} type: BYTES {ONE}"),
        (pa.array([b"a", b"\xff"], pa.binary()), f"{PRESENT} type: BYTES {ONE}"),
        (pa.nulls(2, pa.string()), "type: BYTES presence { min_count: 0 }"),
    ],
)
def test_a_feature_is_inferred_as_tfdv_does(statistics_of, values, expected):
    found = inferred(statistics_of({"x": values}), "x")
    assert sorted(found.split()) == sorted(f'name: "x" {expected}'.split())


def test_a_domain_holds_the_values_that_were_seen(statistics_of):
    [domain] = infer(statistics_of({"x": ["b", "a", "b", None]})).string_domain
    assert (domain.name, list(domain.value)) == ("x", ["a", "b"])


def test_data_have_no_anomalies_under_the_schema_inferred_from_them(statistics_of):
    data = {
        "n": [1, None, 3],
        "x": [0.5, math.nan, math.inf],
        "b": [True, None, False],
        "s": ["a", "b", None],
        "digits": ["1", "2", "3"],
        "l": [[1], [], None],
        "null": pa.nulls(3, pa.int64()),
        "bytes": pa.array([b"\xff", b"a", None], pa.binary()),
    }
    statistics = statistics_of(data)
    verdict = find(statistics, infer(statistics))
    assert (verdict.count, verdict.unchecked) == (0, ())
    # … nor when the statistics are made anew with that schema, which has categorical numbers counted.
    again = find(statistics_of(data, text_format.MessageToString(infer(statistics))), infer(statistics))
    assert (again.count, again.unchecked) == (0, ())
