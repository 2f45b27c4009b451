"""Requests that are not of their protocol's form: each is told what is wrong with it."""

import json

import pytest

from penstock.components.deployment.serving import payloads
from penstock.components.deployment.serving.metrics import Metrics
from penstock.components.deployment.serving.payloads import PROTOCOLS
from penstock.components.deployment.serving.refusal import Refusal
from penstock.components.deployment.serving.served import Answering

TENSOR = {"name": "size", "datatype": "INT64", "shape": [1], "data": [1]}


def v2(**changed) -> dict:
    return {"inputs": [{name: value for name, value in {**TENSOR, **changed}.items() if value is not ...}]}


CASES = [
    ("vertex", [], "the body is an array, not an object"),
    ("vertex", None, "the body is null, not an object"),
    ("vertex", {}, "the body has none of instances; give one of them, not nothing"),
    ("vertex", {"instance": []}, "the body has none of instances; give one of them, not 'instance'"),
    ("vertex", {"instances": {}}, "instances is an object, not an array"),
    ("vertex", {"instances": [1]}, "instances[0] is the value 1, neither an object by column nor an array of values"),
    ("vertex", {"instances": [{}, []]}, "instances has objects and arrays; give one of the two"),
    ("vertex", {"instances": [[1, 2]]}, "instances[0] has 2 values for 6 columns"),
    ("vertex", {"instances": [], "parameters": {"top": 3}}, "parameters has 'top'; the model takes none"),
    ("vertex", {"instances": [], "parameters": 3}, "parameters is the value 3, not an object"),
    ("mlflow", {"inputs": {}, "instances": []}, "the body has both instances and inputs; give one of them"),
    ("mlflow", {"inputs": {"a": [1], "b": []}}, "inputs has columns of different lengths: 'a' 1, 'b' 0"),
    ("mlflow", {"inputs": {"a": 1}}, "inputs.a is the value 1, not an array"),
    ("mlflow", {"dataframe_split": []}, "dataframe_split is an array, not an object"),
    ("mlflow", {"dataframe_split": {"data": []}}, "dataframe_split.columns is null, not an array"),
    ("mlflow", {"dataframe_split": {"columns": [1], "data": []}}, "columns has the value 1, not a name"),
    ("mlflow", {"dataframe_split": {"columns": ["a", "a"], "data": []}}, "columns names a column twice"),
    ("mlflow", {"dataframe_split": {"columns": [], "data": [1]}}, "data[0] is the value 1, not an array"),
    ("mlflow", {"dataframe_split": {"columns": ["a"], "data": [[]]}}, "data[0] has 0 values for 1 columns"),
    ("azureml", {"input_data": 1}, "input_data is the value 1, not an array"),
    ("v2", {}, "inputs is null, not an array"),
    ("v2", {"inputs": [1]}, "inputs[0] is the value 1, not an object"),
    ("v2", v2(name=...), "inputs[0].name is null, not a string"),
    ("v2", v2(datatype="INT"), "inputs[0].datatype is the value 'INT', none of BOOL, BYTES, INT8"),
    ("v2", v2(datatype=["INT8"]), "inputs[0].datatype is an array, none of"),
    ("v2", v2(shape=[2]), "inputs[0] ('size') has 1 values and another shape than [1] or [1, 1]"),
    ("v2", v2(shape=[True]), "another shape than [1] or [1, 1]"),
    ("v2", v2(shape=...), "another shape than [1] or [1, 1]"),
    ("v2", v2(parameters={"binary_data_size": 8}, data=...), "inputs[0] is binary"),
    ("v2", v2(data=["x"]), "row 0, field 'size': is the value 'x', which is no INT64"),
    ("v2", v2(datatype="BYTES", data=["x"]), "field 'size': is of BYTES; the model reads a whole number (long), INT64"),
    ("v2", {"inputs": [TENSOR, TENSOR]}, "inputs has the tensor 'size' twice"),
    ("v2", {"inputs": [TENSOR, {**TENSOR, "name": "gaps", "shape": [2], "data": [1, 2]}]}, "tensors of different"),
    ("v2", {"inputs": [], "id": 3}, "id is the value 3, not a printable string of at most 128 characters"),
    ("v2", {"inputs": [], "id": "\ud800"}, "id is the value '\\ud800', not a printable string"),
    ("v2", {"inputs": [], "outputs": [{"name": "logit"}]}, "the value 'logit'; the model has prediction"),
]  # fmt: skip


@pytest.fixture(scope="module")
def answer(loaded):
    answering = Answering(loaded("xgboost-binary"), Metrics(), None, 0)
    return lambda protocol, body, kind=payloads.JSON: answering.answer(PROTOCOLS[protocol], kind, body, "id")


@pytest.mark.parametrize(("protocol", "body", "problem"), CASES, ids=[case[2][:40] for case in CASES])
def test_malformed_json_is_told(answer, protocol, body, problem):
    with pytest.raises(Refusal) as refused:
        answer(protocol, json.dumps(body).encode())
    assert refused.value.status == 400
    assert problem in refused.value.message


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "the body is not JSON: Expecting value: line 1 column 1"),
        (b'{"instances": [', "the body is not JSON: Expecting value: line 1 column 16"),
        (b'{"instances": [{"size": NaN}]}', "NaN is no JSON value; write null for what is missing"),
        (b'{"instances": [{"size": -Infinity}]}', "-Infinity is no JSON value"),
        (b"\xff\xfe", "the body is not UTF-8: byte 0"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b"1" * 10_000, "the body is not JSON: Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_told(answer, body, problem):
    with pytest.raises(Refusal) as refused:
        answer("vertex", body)
    assert refused.value.status == 400
    assert problem in refused.value.message


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("size,size\n1,2\n", "the header of the CSV names a column twice"),
        ("size,color,shut\n1,red\n", "line 2 of the CSV has 2 values for 3 columns"),
        ('size,color,shut\n1,"red', "line 2 of the CSV cannot be read: unexpected end of data"),
        (
            "size,color,shut\n1,red,true\nx,red,true\n",
            "row 1, field 'size': is 'x'; the model reads a whole number (long)",
        ),
        ("size,color,shut\n1,red,maybe\n", "row 0, field 'shut': is 'maybe'; the model reads a boolean"),
        ("size,color,shut\ninf,red,true\n", "row 0, field 'size': is 'inf'; the model reads a whole number (long)"),
        ("size,color,shut\n,red,true\n", "row 0, field 'size': is null; the model reads a whole number (long)"),
    ],
)
def test_malformed_csv_is_told(answer, body, problem):
    with pytest.raises(Refusal) as refused:
        answer("mlflow", body.encode(), payloads.CSV)
    assert refused.value.status == 400
    assert problem in refused.value.message


def test_csv_reads_quotes_gaps_and_a_byte_order_mark(answer):
    plain = json.loads(answer("mlflow", b"size,color,shut,gaps\n37,red,True,\n", payloads.CSV))
    quoted = json.loads(answer("mlflow", '\ufeffcolor,"size",shut\r\n"red",37.0,true\r\n'.encode(), payloads.CSV))
    assert plain == quoted
