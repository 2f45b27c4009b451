"""What is refused before anything is transformed; what TensorFlow Transform makes of rows is shown in the image."""

import datetime

import pyarrow as pa
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.transformation import examples, failing
from penstock.components.transformation.preprocessing import declared, load
from penstock.components.transformation.transform import transform

COLUMNS = {"fare": "number", "trips": "whole number", "zone": "text"}


@pytest.mark.parametrize(
    ("features", "keep", "words"),
    [
        ({"tip": "scale"}, [], "features: there is no column 'tip'. The columns are fare, trips, zone."),
        ({}, ["tip"], "there is no column 'tip'"),
        ({"fare": "square"}, [], "'square' of 'fare' is no way to transform it. Choose one of scale, bucketize,"),
        ({"fare": {"scale": 1, "hash": 2}}, [], "is no way to transform it"),
        ({"fare": "bucketize"}, [], 'bucketize of \'fare\' needs a number. Give it as {"fare": {"bucketize": 10}}.'),
        ({"fare": {"bucketize": 1}}, [], "1 does not go with bucketize of 'fare'. Give a whole number from 2."),
        ({"fare": {"bucketize": 2.5}}, [], "2.5 does not go with bucketize"),
        ({"fare": {"scale": 2}}, [], "2 does not go with scale of 'fare'. Give none."),
        ({"zone": "scale"}, [], "scale is not for 'zone', which holds texts. It is for numbers."),
        (
            {"fare": "vocabulary"},
            [],
            "vocabulary is not for 'fare', which holds numbers. It is for texts and whole numbers.",
        ),
    ],
)
def test_a_declaration_that_does_not_go_with_the_columns_is_refused(features, keep, words):
    with pytest.raises(UserError) as error:
        declared(features, keep, COLUMNS)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "has no function preprocessing_fn"),
        ("def f(:\n", "cannot be run: SyntaxError"),
        ("import no_such_module\n", "cannot be run: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_file_without_the_function_is_refused(tmp_path, text, words):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load(str(file))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_gives_its_function(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("TWO = 2\ndef preprocessing_fn(inputs):\n    return {'x': inputs['x'] * TWO}\n")
    assert load(str(file))({"x": 3}) == {"x": 6}


def test_columns_are_dense_where_no_value_is_missing(make_dataset):
    data = make_dataset(
        {
            "fare": [1.5, 2.5],
            "trips": [1, None],
            "when": [datetime.date(2018, 1, 1)] * 2,
            "zones": pa.array([["a"], []]),
        }
    )
    found = examples.columns_of([open_dataset(data, "transform", "train_set")], "transform")
    assert [(column.name, column.holds, column.dense) for column in found] == [
        ("fare", "number", True),
        ("trips", "whole number", False),
        ("when", "whole number", True),
        ("zones", "text", False),
    ]


def test_a_value_that_is_missing_in_either_set_makes_the_column_sparse_in_both(make_dataset):
    sets = [open_dataset(make_dataset({"fare": fares}), "transform", "x") for fares in ([1.5, 2.5], [1.5, None])]
    assert [column.dense for column in examples.columns_of(sets, "transform")] == [False]
    assert [column.dense for column in examples.columns_of(sets[:1], "transform")] == [True]


def test_sets_with_other_columns_and_columns_that_cannot_be_read_are_named(make_dataset):
    one, other = (open_dataset(make_dataset({name: [1]}), "transform", "x") for name in ("fare", "tip"))
    with pytest.raises(UserError, match="transform: eval_set: its column 'fare' is not that of train_set"):
        examples.columns_of([one, other], "transform")
    nested = open_dataset(make_dataset({"place": pa.array([{"x": 1}])}), "transform", "x")
    with pytest.raises(UserError, match=r"train_set: column 'place' is of type struct<x: int64>"):
        examples.columns_of([nested], "transform")


def test_values_become_lists_of_the_types_that_tensors_have():
    column = examples.Column("when", "whole number", listed=False, missing=True)
    moments = pa.array([datetime.datetime(1970, 1, 1, 0, 0, 1), None], pa.timestamp("ns"))
    assert examples._listed(moments, column).to_pylist() == [[1_000_000], None]
    column = examples.Column("zones", "text", listed=True, missing=True)
    zones = pa.array([["a", "b"], None, []])
    found = examples._listed(zones, column)
    assert found.to_pylist() == [[b"a", b"b"], None, []]
    assert found.type == pa.large_list(pa.large_binary())
    price = pa.array([1, 2], pa.decimal128(5, 2))
    assert examples._listed(price, examples.Column("p", "number", False, False)).type == pa.large_list(pa.float32())


def test_of_an_error_in_a_graph_the_line_that_says_what_is_wrong_is_shown():
    error = ValueError(
        'An error occurred while trying to apply the transformation: "Graph execution error:\n\n'
        "Detected at node StringToNumber defined at (most recent call last):\n<stack traces unavailable>\n"
        'StringToNumberOp could not correctly convert string: fifty\n\t [[{{node StringToNumber}}]] [Op:x]".'
    )
    assert failing._said(error) == "StringToNumberOp could not correctly convert string: fifty"


def test_without_beam_the_image_and_the_extra_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"transform: beam_options: 'beam' needs apache_beam and .* penstock/beam"
    ) as error:
        transform(("a", ""), None, tmp_path / "b", tmp_path / "c", tmp_path / "d")
    assert "pip install 'penstock[beam]'" in str(error.value)
