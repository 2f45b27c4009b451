"""What tasks are called where a run is summed up."""

from dataclasses import replace

import pytest

from penstock.compile.targets.local.outline import Told, message, title, titles, unmet
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


def test_the_first_of_one_name_goes_by_it_and_others_by_their_paths():
    tasks = [
        record("condition-1", kind="dag"),
        record("condition-1.notify"),
        record("condition-2.notify"),
        record("condition-1.train"),
        record("for-loop-1.0.train"),
    ]
    assert titles(tasks) == {
        "condition-1.notify": "notify",
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
        "register", "register-2", "validate", "validated-2.validate", "fit[0]", "outer.fit[0]",
    ]  # fmt: skip


def test_no_two_tasks_are_called_the_same_whatever_they_are_named():
    named = [("a.b", "notify"), ("b", "a.b"), ("notify", "x"), ("a.c", "a.b"), ("c.b", "b")]
    tasks = [record(path, name) for path, name in named]
    called = titles(tasks)
    assert len(set(called.values())) == len(tasks)


def test_the_first_is_the_one_that_began_first():
    began = [("condition-3.validate", "12:00:02"), ("condition-2.validate", "12:00:01"), ("condition-1.validate", "")]
    tasks = [replace(record(path), started=time or None) for path, time in began]
    assert titles(tasks) == {
        "condition-3.validate": "condition-3.validate",
        "condition-2.validate": "validate",
        "condition-1.validate": "condition-1.validate",
    }


def told(*tasks: TaskRecord) -> list[str]:
    found = Told(tasks)
    return [task.path for task in tasks if found.tells(task)]


def at(state: State, path: str, name: str = "", kind: str = "container", condition: str | None = None) -> TaskRecord:
    began = "2026-11-27T12:00:00.000+00:00" if state in (State.RUNNING, State.SUCCEEDED, State.FAILED) else None
    return replace(record(path, name, kind), state=state, started=began, condition=condition)


def test_groups_that_have_begun_give_way_to_their_steps_and_those_that_have_not_stand_for_them():
    assert told(
        at(State.SUCCEEDED, "validated", kind="dag"),
        at(State.SUCCEEDED, "validated.validate"),
        at(State.RUNNING, "for-loop-1", kind="dag"),
        at(State.RUNNING, "for-loop-1.0", kind="dag"),
        at(State.RUNNING, "for-loop-1.0.fit"),
        at(State.PENDING, "for-loop-1.1", kind="dag"),
        at(State.PENDING, "deployed", kind="dag"),
        at(State.PENDING, "deployed.deploy"),
        at(State.PENDING, "condition-2", kind="dag"),
        at(State.PENDING, "condition-2.tell"),
        at(State.PENDING, "condition-3", "blessed", kind="dag"),
        at(State.PENDING, "condition-3.register"),
        at(State.SUCCEEDED, "for-loop-4", kind="dag"),
    ) == ["validated.validate", "for-loop-1.0.fit", "deployed", "condition-2.tell", "condition-3", "for-loop-4"]


def test_a_group_that_failed_is_told_of_only_if_nothing_in_it_did():
    assert told(
        at(State.FAILED, "outer", kind="dag"),
        at(State.FAILED, "outer.condition-1", kind="dag"),
        at(State.CANCELLED, "outer.condition-1.tell"),
    ) == ["outer.condition-1"]
    assert told(at(State.FAILED, "outer", kind="dag"), at(State.FAILED, "outer.tell")) == ["outer.tell"]


FORK = "condition-branches-1"


def branches(first: State, second: State, kind: str = "dag") -> list[str]:
    groups = [
        at(State.RUNNING, FORK, kind="dag"),
        at(first, f"{FORK}.condition-2", "here", "dag"),
        at(second, f"{FORK}.condition-3", "there", "dag"),
    ]
    return told(
        *(groups if kind == "dag" else []),
        at(first, f"{FORK}.condition-2.fit"),
        at(second, f"{FORK}.condition-3.fit-2"),
        at(State.SKIPPED, "condition-9", "blessed", "dag", "x == 1"),
        at(State.SKIPPED, "condition-9.register"),
    )


def test_a_branch_that_is_not_taken_is_told_of_only_where_no_other_is():
    assert branches(State.SUCCEEDED, State.SKIPPED) == [f"{FORK}.condition-2.fit", "condition-9"]
    assert branches(State.SKIPPED, State.RUNNING) == [f"{FORK}.condition-3.fit-2", "condition-9"]
    assert branches(State.SKIPPED, State.SKIPPED) == [f"{FORK}.condition-2", f"{FORK}.condition-3", "condition-9"]


def test_so_it_is_where_groups_have_no_records():
    assert branches(State.SKIPPED, State.RUNNING, "") == [f"{FORK}.condition-3.fit-2", "condition-9"]
    assert len(branches(State.SKIPPED, State.SKIPPED, "")) == 3


def test_a_step_of_a_branch_without_a_name_is_skipped_for_the_outermost_condition():
    tasks = [
        at(State.SKIPPED, "condition-1", kind="dag", condition="a == 1"),
        at(State.SKIPPED, "condition-1.condition-2", kind="dag", condition="b == 1"),
        at(State.SKIPPED, "condition-1.condition-2.register"),
    ]
    assert told(*tasks) == ["condition-1.condition-2.register"]
    assert Told(tasks).condition(tasks[-1]) == "a == 1"


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
