"""Runs are read as they are: at work, ended, killed, half-written or of another make."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import runs
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State, TaskRecord, Values

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes a run's folder: its id, how many days ago it began, and fields of its record."""

    def make_it(name: str, days: float = 0, **fields: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        defaults: dict[str, Any] = {"state": State.SUCCEEDED, "seconds": 1.0, "tasks": (), "started": began.isoformat()}
        record = RunRecord(name, "p", str(folder), "5" * 64, {}, **{**defaults, **fields})
        (folder / "run.json").write_text(json.dumps(record.to_json()))
        return folder

    return make_it


@pytest.fixture
def at_work() -> Iterator[Callable[[Path], None]]:
    """Return a function that holds a run's lock as its engine does."""
    held: list[int] = []

    def hold(folder: Path) -> None:
        held.append(os.open(folder / "lock", os.O_RDWR | os.O_CREAT))
        fcntl.flock(held[-1], fcntl.LOCK_EX)

    yield hold
    for lock in held:
        os.close(lock)


def test_a_record_is_read_as_it_was_written(make: Make) -> None:
    artifact = ArtifactRecord("data", "system.Dataset", "tasks/a/outputs/data", {"rows": 3})
    task = TaskRecord(
        "a", "a", "container", ("b",), "x > 1", State.FAILED, "2026-03-01T12:00:00+00:00", 1.5,
        Values({"n": 1}, {"data": [artifact]}), Values({}, {"out": [artifact]}), {"score": 0.5}, "tasks/a/log.txt", 3,
        "it broke", ("once", "twice"), "process",
    )  # fmt: skip
    folder = make("one", tasks=(task,), resumed=("2026-03-02T12:00:00+00:00",), warnings=("mind",), cwd="/home")
    record = runs.read(folder)
    assert record.tasks == (task,)
    assert json.loads(json.dumps(record.to_json())) == json.loads((folder / "run.json").read_text())


def test_what_a_newer_version_has_added_is_left_out(make: Make) -> None:
    folder = make("one", tasks=(TaskRecord("a", "a", "container"),))
    content = json.loads((folder / "run.json").read_text())
    content["colour"] = content["tasks"][0]["colour"] = "red"
    del content["warnings"]
    (folder / "run.json").write_text(json.dumps(content))
    assert runs.read(folder).tasks == (TaskRecord("a", "a", "container"),)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": "penstock.run/2"}, "its format is 'penstock.run/2', not 'penstock.run/1'"),
        ({"state": "DANCING"}, "'DANCING' is not a valid State"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"tasks": [3]}, "not the record of a run"),
        ({"tasks": None}, "not the record of a run"),
        ({"started": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
        ({"pipeline": None}, "pipeline is None"),
        ({"resumed": ["yesterday"]}, "Invalid isoformat string: 'yesterday'"),
    ],
)
def test_a_foreign_record_is_unreadable_with_the_reason(change: dict[str, Any], problem: str, make: Make) -> None:
    folder = make("one")
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(content | change))
    [found] = runs.listed(folder.parents[1])
    assert (found.state, found.record) == (runs.UNREADABLE, None)
    assert problem in found.problem


@pytest.mark.parametrize("text", ["", "[", '{"format": "pens', "[" * 100_000, "\xff", "3", "null", '{"format": 1}'])
def test_a_half_record_is_unreadable(text: str, make: Make) -> None:
    folder = make("one")
    (folder / "run.json").write_text(text, encoding="latin-1")
    [found] = runs.listed(folder.parents[1])
    assert found.state == runs.UNREADABLE
    assert str(folder / "run.json") in found.problem


def test_running_without_an_engine_is_killed(make: Make, at_work: Callable[[Path], None]) -> None:
    tasks = (TaskRecord("a", "a", "container", state=State.RUNNING), TaskRecord("b", "b", "container"))
    dead = make("dead", state=State.RUNNING, tasks=tasks)
    alive = make("alive", state=State.RUNNING, tasks=tasks)
    at_work(alive)
    found = {run.id: run for run in runs.listed(alive.parents[1])}
    assert runs.is_alive(alive)
    assert not runs.is_alive(dead)
    assert found["alive"].state == State.RUNNING
    assert found["dead"].state == runs.KILLED
    record = found["dead"].record
    assert record is not None
    assert {task.state for task in record.tasks} == {State.CANCELLED}


def test_a_lock_that_nobody_holds_is_no_engine(make: Make) -> None:
    folder = make("one", state=State.RUNNING)
    (folder / "lock").touch()
    assert not runs.is_alive(folder)
    assert not runs.is_alive(folder.parent / "none")


def test_a_lock_that_cannot_be_looked_at_is_taken_for_an_engine_s(make: Make) -> None:
    folder = make("one", state=State.RUNNING)
    (folder / "lock").symlink_to("lock")
    assert runs.is_alive(folder)


def test_two_that_look_at_once_do_not_take_each_other_for_the_engine(make: Make) -> None:
    folder = make("one")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert not runs.is_alive(folder)


def test_one_that_has_just_begun_has_no_record_and_runs(make: Make, at_work: Callable[[Path], None]) -> None:
    folder = make("one")
    (folder / "run.json").unlink()
    at_work(folder)
    [found] = runs.listed(folder.parents[1])
    assert (found.state, found.record) == (State.RUNNING, None)


def test_runs_are_listed_newest_first_and_nothing_else(make: Make) -> None:
    for name, days in (("b", 2.0), ("c", 1.0), ("a", 3.0)):
        root = make(name, days).parents[1]
    (root / "runs" / "note.txt").touch()
    (root / "runs" / ".removing-d").mkdir()
    assert [run.id for run in runs.listed(root)] == ["c", "b", "a"]
    assert runs.listed(root / "none") == []


def test_a_run_is_found_by_its_id_the_beginning_of_one_or_as_the_latest(make: Make) -> None:
    for name, days in (("train-1", 3.0), ("train-12", 2.0), ("score-1", 1.0)):
        root = make(name, days).parents[1]
    assert runs.find(root, "train-1").id == "train-1"
    assert runs.find(root, "train-12").id == "train-12"
    assert runs.find(root, "s").id == "score-1"
    assert runs.find(root, "latest").id == "score-1"
    with pytest.raises(PenstockError, match=r"train begins the ids of 2 runs: train-12, train-1$"):
        runs.find(root, "train")
    with pytest.raises(PenstockError, match=r"there is no run other in .*; known: score-1, train-12, train-1$"):
        runs.find(root, "other")
    with pytest.raises(PenstockError, match=r"there is no run in .*none/runs"):
        runs.find(root / "none", "latest")


def test_progress_counts_what_needs_nothing_more(make: Make) -> None:
    states = (State.SUCCEEDED, State.SKIPPED, State.FAILED, State.CANCELLED, State.RUNNING)
    tasks = [TaskRecord(state, state, "container", state=state) for state in states]
    root = make("one", tasks=(*tasks, TaskRecord("d", "d", "dag", state=State.SUCCEEDED))).parents[1]
    assert runs.listed(root)[0].progress == (2, 5)
