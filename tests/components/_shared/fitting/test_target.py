import pyarrow as pa
import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.target import learn_target


def learned(values, task="auto", type=None):
    return learn_target(pa.chunked_array([pa.array(values, type)]), "y", task)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([True, False], "binary", (False, True)),
        (["no", "yes", "no"], "binary", ("no", "yes")),
        ([0, 1, 1], "binary", (0, 1)),
        ([5, 3], "binary", (3, 5)),
        ([0.0, 1.0, 1.0], "binary", (0, 1)),
        (["b", "a", "c", "a"], "multiclass", ("a", "b", "c")),
        ([2, 0, 1] * 2, "multiclass", (0, 1, 2)),
        (list(range(20)) * 2, "multiclass", tuple(range(20))),
        (list(range(21)) * 2, "regression", ()),
        ([2, 0, 1], "regression", ()),  # every value once
        ([0.5, 1.5], "regression", ()),
        ([1.0, 2.0, 3.0] * 5, "regression", ()),
    ],
)
def test_the_task_goes_by_type_and_values(values, task, classes):
    target = learned(values)
    assert (target.task, target.classes) == (task, classes)
    assert [type(label) for label in target.classes] == [type(label) for label in classes]


def test_decimals_and_dictionaries_are_read_as_what_they_hold():
    assert learned([1, 2, 3], type=pa.decimal128(10, 2)).task == "regression"
    target = learn_target(pa.chunked_array([pa.array(["b", "a"]).dictionary_encode()]), "y", "auto")
    assert target.classes == ("a", "b")


def test_a_told_task_goes_before_the_inferred_one():
    assert learned([0, 1, 2] * 5, "regression").classes == ()
    assert learned([1.0, 2.0, 3.0] * 5, "multiclass").classes == (1, 2, 3)
    assert learned([0, 1, 1], "regression").task == "regression"


def test_fractions_are_no_labels():
    with pytest.raises(UserError, match="task: 'y' holds fractions"):
        learned([0.5, 1.5, 2.5], "multiclass")


def test_labels_become_places_in_sorted_order():
    column = pa.chunked_array([pa.array(["b", "a"]), pa.array(["c", "b"])])
    assert learn_target(column, "y", "multiclass").labels(column, "train_set").tolist() == [1, 0, 2, 1]
