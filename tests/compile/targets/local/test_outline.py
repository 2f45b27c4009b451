"""What tasks are called where a run is summed up."""

from dataclasses import replace

import pytest

from penstock.compile.targets.local.outline import message, title, titles, unmet
from penstock.compile.targets.local.record import State, TaskRecord


def record(path: str, name: str = "", kind: str = "container") -> TaskRecord:
    return TaskRecord(path, name or path.rpartition(".")[2], kind)


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("train", "train", "train"),
        ("condition-branches-1.condition-3.condition-2.register", "register", "register"),
        ("condition-1.train", "train with features", "train with features"),
        ("for-loop-1.0.train", "train", "train[0]"),
        ("for-loop-1.2.condition-3.for-loop-4.1.train", "train", "train[2][1]"),
        ("for-loop-1.3", "3", "for-loop-1[3]"),
        ("for-loop-1.0.train", "train[0]", "train[0]"),
    ],
)
def test_a_task_goes_by_its_own_name_and_its_iteration(path, name, said):
    assert title(path, name) == said


def test_two_of_one_name_go_by_their_paths_and_others_do_not():
    tasks = [
        record("condition-1", kind="dag"),
        record("condition-1.notify"),
        record("condition-2.notify"),
        record("condition-1.train"),
        record("for-loop-1.0.train"),
    ]
    assert titles(tasks) == {
        "condition-1.notify": "condition-1.notify",
        "condition-2.notify": "condition-2.notify",
        "condition-1.train": "train",
        "for-loop-1.0.train": "train[0]",
    }


def test_where_paths_without_what_the_compiler_made_up_tell_two_apart_they_go_by_these():
    tasks = [
        record("condition-branches-1.condition-2.register"),
        record("condition-branches-1.condition-3.register-2", "register"),
        record("validated.condition-branches-101.condition-102.validate"),
        record("validated-2.condition-branches-101.condition-102.validate"),
        record("for-loop-1.0.inner.fit", "fit"),
        record("for-loop-1.0.outer.fit", "fit"),
    ]
    assert list(titles(tasks).values()) == [
        "register", "register-2", "validated.validate", "validated-2.validate", "inner.fit[0]", "outer.fit[0]",
    ]  # fmt: skip


def test_the_one_of_several_branches_that_was_taken_goes_by_its_name():
    tasks = [record("condition-2.validate"), replace(record("condition-3.validate"), state=State.SKIPPED)]
    assert titles(tasks) == {"condition-2.validate": "validate", "condition-3.validate": "condition-3.validate"}


@pytest.mark.parametrize("said", ["roll out: gone", "roll-out: gone", "roll_out: gone", "gone"])
def test_a_failed_task_does_not_repeat_its_name_however_it_is_written(said):
    assert message(replace(record("condition-1.roll-out", "roll out"), error=said)) == "gone"


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("inputs.parameter_values['pipelinechannel--rate-good'] == true", "not (rate-good == true)"),
        ("!(inputs.parameter_values['pipelinechannel--repo'] == '')", "repo == ''"),
        (
            "!(inputs.parameter_values['a'] == 1) && !(inputs.parameter_values['b'] == 1)",
            "not (!(a == 1) && !(b == 1))",
        ),
    ],
)
def test_what_skips_a_task_is_said_without_two_negations(condition, said):
    assert unmet(condition) == said
