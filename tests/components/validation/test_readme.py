"""The examples of the stage's README."""

import os
import re
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

import penstock.components.validation
from penstock.components.validation.coverage import unimplemented

README = (Path(penstock.components.validation.__file__).parent / "README.md").read_text()


def example(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return text


def test_the_schema_is_one_and_all_of_it_is_checked():
    assert unimplemented(text_format.Parse(example("pbtxt"), Schema())) == []


def test_the_schema_is_broken_by_data_that_do_not_fit(verdict_on, kinds_of):
    rows = {
        "fare_amount": [10.0] * 999 + [501.0],
        "payment_type": [1] * 999 + [7],
        "store_and_fwd_flag": ["N"] * 998 + ["?"] * 2,
        "big_tip": [True] * 1000,
        "notes": [1] * 1000,
    }
    fitting = {**rows, "payment_type": [1] * 1000, "store_and_fwd_flag": ["N"] * 1000, "fare_amount": [10.0] * 1000}
    schema = example("pbtxt").replace("min_examples_count: 10000", "min_examples_count: 1000")
    assert kinds_of(verdict_on(fitting, schema, "TRAINING", previous=fitting, serving=fitting)) == {}
    assert kinds_of(verdict_on(rows, schema, "SERVING", previous=fitting, serving=fitting)) == {
        "fare_amount": ["FLOAT_TYPE_BIG_FLOAT"],
        "payment_type": ["INT_TYPE_BIG_INT"],
        "store_and_fwd_flag": ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"],
        "big_tip": ["SCHEMA_NEW_COLUMN"],
    }


def test_the_call_from_python_runs(make_dataset, tmp_path, monkeypatch, capsys):
    shutil.copytree(make_dataset({"n": [1, 2]}), tmp_path / "train_set")
    monkeypatch.chdir(tmp_path)
    exec(example("python"), {})
    assert capsys.readouterr().out == "True 0 ()\n"
    assert set(os.listdir()) == {"train_set", "statistics.pb", "schema.pbtxt", "anomalies.pbtxt", "report.html"}


@pytest.mark.parametrize("mark", ["<!-- ports -->", "<!-- /ports -->"])
def test_there_is_room_for_the_ports(mark):
    assert README.splitlines().count(mark) == 1
