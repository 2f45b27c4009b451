"""What a model can read passes, as it is; what it cannot is named by row and field."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components._shared.tabular import encode
from penstock.components.deployment.serving import payloads
from penstock.components.deployment.serving.metrics import Metrics
from penstock.components.deployment.serving.payloads import PROTOCOLS
from penstock.components.deployment.serving.refusal import Refusal
from penstock.components.deployment.serving.served import Answering
from tests.components.deployment.conftest import row

numbers = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**53) + 1, 2**53 - 1)
text = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["red", "blüe"])
rows = st.lists(
    st.fixed_dictionaries(
        {"size": whole | whole.map(float), "color": text, "shut": st.booleans()},
        optional={
            "gaps": st.none() | whole | numbers,
            "share": st.none() | numbers,
            "open": st.none() | st.booleans(),
            "key": st.none() | text | st.lists(whole),
        },
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def model(loaded):
    return loaded("xgboost-binary")


@pytest.fixture(scope="module")
def answering(model):
    return Answering(model, Metrics(), None, 0)


@given(rows=rows)
@settings(deadline=None)
def test_valid_rows_become_the_matrix_that_pandas_and_the_models_own_code_make(model, rows):
    read = payloads.read(PROTOCOLS["vertex"], payloads.JSON, json.dumps({"instances": rows}).encode(), model.signature)
    names = [each.name for each in model.signature.inputs]
    frame = pd.DataFrame({name: pd.Series([each.get(name) for each in rows], dtype=object) for name in names})
    np.testing.assert_array_equal(
        model.signature.matrix(read.columns, read.count), encode(list(model.model.columns), frame)
    )


WRONG = {
    "size": st.none() | st.booleans() | text | st.just(0.5) | st.integers(2**53, 2**70) | st.lists(whole),
    "color": st.none() | st.booleans() | whole | numbers | st.just("\ud800") | st.dictionaries(text, text),
    "gaps": st.booleans() | text | st.just(10**400) | st.lists(whole),
    "open": whole | text | numbers,
    "shut": st.none() | whole | text,
}


@given(data=st.data(), place=st.integers(0, 4), field=st.sampled_from(sorted(WRONG)))
@settings(deadline=None)
def test_a_wrong_value_is_refused_with_its_row_and_its_field(answering, data, place, field):
    instances = [row(number) for number in range(1, 6)]
    instances[place][field] = data.draw(WRONG[field])
    with pytest.raises(Refusal) as refused:
        answering.answer(PROTOCOLS["vertex"], payloads.JSON, json.dumps({"instances": instances}).encode(), "id")
    assert (refused.value.status, refused.value.kind) == (400, "invalid")
    [problem] = refused.value.problems
    assert (problem.row, problem.field) == (place, field)
    assert f"row {place}, field {field!r}: " in refused.value.message


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("size", "12", "row 1, field 'size': is the text '12'; the model reads a whole number (long)"),
        ("size", True, "row 1, field 'size': is the boolean true; the model reads a whole number (long)"),
        ("size", 1.5, "row 1, field 'size': is 1.5; the model reads a whole number (long)"),
        ("size", 2**53, "row 1, field 'size': is 9007199254740992, beyond ±(2^53 - 1)"),
        ("size", None, "row 1, field 'size': is null; the model reads a whole number (long)"),
        ("color", 7, "row 1, field 'color': is the number 7; the model reads text (string)"),
        ("gaps", [1], "row 1, field 'gaps': is an array; the model reads a number (double)"),
        ("shut", 1, "row 1, field 'shut': is the number 1; the model reads a boolean"),
        ("open", "yes", "row 1, field 'open': is the text 'yes'; the model reads a boolean"),
        ("color", "x" * 99, None),
        ("gaps", "x" * 99, f"row 1, field 'gaps': is the text '{'x' * 58}…; the model reads a number (double)"),
    ],
)
def test_errors_tell_row_field_value_and_type(answering, field, value, problem):
    body = json.dumps({"instances": [row(1), {**row(2), field: value}]}).encode()
    if problem is None:
        answering.answer(PROTOCOLS["vertex"], payloads.JSON, body, "id")
        return
    with pytest.raises(Refusal) as refused:
        answering.answer(PROTOCOLS["vertex"], payloads.JSON, body, "id")
    assert str(refused.value) == problem


def test_a_number_beyond_a_double_is_refused(answering):
    body = json.dumps({"instances": [row(1)]}).replace('"gaps": 1', '"gaps": 1e999').encode()
    with pytest.raises(Refusal, match="row 0, field 'gaps': is inf, beyond what a double holds"):
        answering.answer(PROTOCOLS["vertex"], payloads.JSON, body, "id")


def test_a_missing_column_is_named_once_where_no_row_has_it(answering):
    body = json.dumps({"dataframe_split": {"columns": ["size", "shut"], "data": [[1, True], [2, False]]}}).encode()
    with pytest.raises(Refusal) as refused:
        answering.answer(PROTOCOLS["mlflow"], payloads.JSON, body, "id")
    assert str(refused.value) == "field 'color': is missing; the model reads text (string)"


def test_many_problems_are_listed_up_to_a_limit(answering):
    body = json.dumps({"instances": [{**row(number), "size": "?"} for number in range(5000)]}).encode()
    with pytest.raises(Refusal) as refused:
        answering.answer(PROTOCOLS["vertex"], payloads.JSON, body, "id")
    assert len(refused.value.body("id")["problems"]) == 20
    assert refused.value.message.endswith("; and more")


values = st.recursive(
    st.none() | st.booleans() | whole | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    ["instances", "inputs", "outputs", "id", "dataframe_split", "dataframe_records", "columns", "data", "input_data",
     "parameters", "params", "size", "color", "shut", "name", "datatype", "shape", "FP64", "INT64", "BYTES"]
)  # fmt: skip
bodies = st.recursive(
    values | keys,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


def answered(answering, protocol: str, kind: str, body: bytes) -> tuple[int, dict | list]:
    """Return status and JSON of what a body is answered with."""
    try:
        return 200, json.loads(answering.answer(PROTOCOLS[protocol], kind, body, "id"))
    except Refusal as refusal:
        return refusal.status, json.loads(json.dumps(refusal.body("id")))


@given(protocol=st.sampled_from(sorted(PROTOCOLS)), body=st.dictionaries(keys, bodies, max_size=4) | bodies)
@settings(deadline=None, max_examples=400)
def test_any_json_is_predicted_or_refused_as_the_callers_fault(answering, protocol, body):
    status, answer = answered(answering, protocol, payloads.JSON, json.dumps(body).encode())
    assert status in (200, 400)
    assert status == 200 or len(answer["error"]) < 2000


@given(body=st.binary(max_size=200), protocol=st.sampled_from(sorted(PROTOCOLS)), kind=st.sampled_from(["json", "csv"]))
@settings(deadline=None)
def test_any_bytes_are_predicted_or_refused_as_the_callers_fault(answering, body, protocol, kind):
    assert answered(answering, protocol, {"json": payloads.JSON, "csv": payloads.CSV}[kind], body)[0] in (200, 400)


@given(lines=st.lists(st.lists(text | whole.map(str) | st.sampled_from(["true", "nan", ""]), max_size=4), max_size=4))
@settings(deadline=None)
def test_any_csv_is_predicted_or_refused_as_the_callers_fault(answering, lines):
    body = "\n".join(["size,color,shut", *(",".join(line) for line in lines)]).encode()
    status, answer = answered(answering, "mlflow", payloads.CSV, body)
    assert status in (200, 400)
    if status == 200:
        assert all(math.isfinite(each["probability_true"]) for each in answer["predictions"])
