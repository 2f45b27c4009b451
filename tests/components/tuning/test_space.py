import pytest

from penstock.components._shared.errors import UserError
from penstock.components.tuning.space import parse


def refusal(space):
    with pytest.raises(UserError) as refused:
        parse(space)
    return str(refused.value)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"type": "float", "low": 2, "high": 1}, "eta: the range from 2 to 1 is empty"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "eta: log needs a range above 0, and low is 0"),
        ({"type": "float", "low": -1, "high": 1, "log": True}, "eta: log needs a range above 0, and low is -1"),
        ({"type": "float", "low": 0}, "eta: high is missing"),
        ({"type": "float", "low": 0, "high": float("nan")}, "eta: high is nan"),
        ({"type": "float", "low": 0, "high": True}, "eta: high is True"),
        ({"type": "int", "low": 1.5, "high": 3}, "eta: low is 1.5, which is no integer"),
        ({"type": "int", "low": 1, "high": 8, "log": True, "step": 2}, "eta: step and log exclude each other"),
        ({"type": "int", "low": 1, "high": 8, "step": 0}, "eta: step is 0"),
        ({"type": "categorical", "choices": []}, "eta: it has no choices"),
        ({"type": "categorical", "choices": [1, "1"]}, "eta: two choices read the same"),
        ({"type": "categorical", "choices": [[1]]}, "eta: the choice [1] is no single value"),
        (
            {"type": "loguniform", "low": 1, "high": 2},
            "eta: type 'loguniform' is unknown. Choose one of float, int",
        ),
        ({"type": "float", "min": 1, "high": 2}, "eta: 'min' means nothing of type float"),
        ([1, 2], "eta: it is [1, 2]"),
        ({"type": "int", "low": 1, "high": 2, "when": {"trees": [1]}}, "names 'trees', which is not in the space"),
        ({"type": "int", "low": 1, "high": 2, "when": {"eta": [1]}}, "eta: its condition depends on itself"),
        ({"type": "int", "low": 1, "high": 2, "when": {}}, "eta: its condition is {}"),
    ],
)
def test_a_bad_parameter_is_named(given, part):
    message = refusal({"eta": given})
    assert message.startswith("tune: space: ")
    assert part in message


def test_an_empty_space_is_refused():
    assert "it names no hyperparameter" in refusal({})


@pytest.mark.parametrize(
    ("parent", "value", "part"),
    [
        ({"type": "categorical", "choices": ["a", "b"]}, "c", "'p' is never 'c'. It is one of 'a', 'b'"),
        ({"type": "int", "low": 1, "high": 3}, 4, "'p' is never 4. It is one of integers from 1 to 3"),
        ({"type": "float", "low": 1, "high": 3}, 2, "its condition is on 'p', a float"),
        ({"type": "categorical", "choices": [True, False]}, 1, "'p' is never 1"),
    ],
)
def test_a_condition_on_what_the_parent_never_is_is_refused(parent, value, part):
    message = refusal({"p": parent, "q": {"type": "int", "low": 1, "high": 2, "when": {"p": [value]}}})
    assert "q: " in message
    assert part in message


def test_parents_come_first_whatever_the_order_of_the_object():
    space = parse(
        {
            "c": {"type": "int", "low": 1, "high": 2, "when": {"b": 1}},
            "b": {"type": "int", "low": 1, "high": 2, "when": {"a": "x"}},
            "a": {"type": "categorical", "choices": ["x", "y"]},
        }
    )
    assert [each.name for each in space.parameters] == ["a", "b", "c"]
    assert space.grid() == [{"a": "x", "b": 1, "c": 1}, {"a": "x", "b": 1, "c": 2}, {"a": "x", "b": 2}, {"a": "y"}]


def test_integers_that_came_as_floats_are_integers_again():
    space = parse({"d": {"type": "int", "low": 2.0, "high": 4.0}, "e": {"type": "categorical", "choices": [3.0, 0.5]}})
    assert space.grid()[0] == {"d": 2, "e": 3}
    assert isinstance(space.grid()[0]["d"], int)
    assert isinstance(space.grid()[0]["e"], int)


def test_a_grid_ends_at_the_last_step_and_needs_one():
    steps = parse({"x": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.1}}).grid()
    assert [point["x"] for point in steps] == [0.1, 0.2, 0.3, 0.4, 0.5]
    with pytest.raises(UserError, match="x: a grid needs its values"):
        parse({"x": {"type": "float", "low": 0.1, "high": 0.5}}).grid()
    with pytest.raises(UserError, match="more than 100,000 points"):
        parse({name: {"type": "int", "low": 1, "high": 99} for name in "xyz"}).grid()
