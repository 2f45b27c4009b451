"""Programs can follow a run by its events, and nothing that becomes of their reader matters to it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.compile.cli import penstock
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import events
from penstock.compile.targets.local.outbox import Outbox
from penstock.compile.targets.local.record import RunRecord, State, TaskRecord

STEPS = Path(__file__).parents[2] / "user" / "steps.py"
COMMAND = [sys.executable, "-m", "penstock.compile.cli"]


def run(*tasks: TaskRecord, **fields: Any) -> RunRecord:
    defaults: dict[str, Any] = {"state": State.RUNNING, "started": "2026-03-01T12:00:00+00:00", "seconds": 1.0}
    return RunRecord("run-1", "p", "/runs/run-1", "5" * 64, {}, **{**defaults, **fields}, tasks=tasks)


def task(path: str, state: State = State.PENDING, **fields: Any) -> TaskRecord:
    return TaskRecord(path, path.rpartition(".")[2], fields.pop("kind", "container"), state=state, **fields)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events of a run and its run.json."""
    folder = tmp_path_factory.mktemp("followed")
    arguments = ["run", f"{STEPS}:choosing", "--root", folder, "-p", "n=2", "--events", folder / "events", "--json"]
    result = CliRunner().invoke(penstock, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return lines(folder / "events"), json.loads(result.stdout)


def test_every_event_says_when_of_which_run_and_in_which_order(followed) -> None:
    found, record = followed
    assert [event["sequence"] for event in found] == [*range(1, len(found) + 1)]
    assert {(event["format"], event["run"]) for event in found} == {("penstock.event/1", record["id"])}
    times = [event["time"] for event in found]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)


def test_a_run_begins_with_its_tasks_and_ends_with_its_outputs(followed) -> None:
    found, record = followed
    first, last = found[0], found[-1]
    assert (first["event"], last["event"]) == ("run_started", "run_ended")
    for name in ("pipeline", "folder", "spec_sha256", "started", "resumed"):
        assert first[name] == record[name]
    assert [task["path"] for task in first["tasks"]] == ["count", "rate", "condition-1", "condition-1.count-2"]
    for name in ("state", "seconds", "error", "outputs"):
        assert last[name] == record[name]


def test_every_change_of_a_task_is_an_event_that_ends_as_run_json_has_it(followed) -> None:
    found, record = followed
    changes = [event for event in found if event["event"] == "task"]
    assert [(event["path"], event["state"]) for event in changes] == [
        ("count", "RUNNING"),
        ("count", "SUCCEEDED"),
        ("rate", "RUNNING"),
        ("rate", "SUCCEEDED"),
        ("condition-1", "RUNNING"),
        ("condition-1.count-2", "RUNNING"),
        ("condition-1.count-2", "SUCCEEDED"),
        ("condition-1", "SUCCEEDED"),
    ]
    kept = {task["path"]: task for task in record["tasks"]}
    for event in changes:
        if event["state"] == "SUCCEEDED":
            told = {name: value for name, value in event.items() if name in kept["count"]}
            assert told == {name: kept[event["path"]][name] for name in told}
            assert {"kind", "started", "seconds", "exit_code", "error", "runner", "metrics", "outputs"} <= set(told)


def test_every_field_is_documented(followed) -> None:
    found, record = followed
    text = (Path(__file__).parents[4] / "docs" / "runs.md").read_text()
    fields = {name for event in found for name in event} | {*record["tasks"][0]} | {*record}
    assert sorted(name for name in fields if f"`{name}`" not in text) == []


def test_a_second_run_is_appended(tmp_path: Path) -> None:
    for _ in range(2):
        one = events.Events(str(tmp_path / "e"))
        one(run())
        one(run(state=State.SUCCEEDED))
        assert one.close() is None
    assert [event["event"] for event in lines(tmp_path / "e")] == ["run_started", "run_ended"] * 2


def test_warnings_and_retries_are_events_once(tmp_path: Path) -> None:
    one = events.Events(str(tmp_path / "e"))
    first = run(task("a", State.RUNNING), warnings=("mind the gap",))
    one(first)
    one(first)
    again = run(task("a", State.RUNNING, retries=("it broke",)), warnings=("mind the gap", "and this"))
    one(again)
    one(again)
    assert one.close() is None
    found = [(event["event"], event.get("message"), event.get("retries")) for event in lines(tmp_path / "e")]
    assert found == [
        ("run_started", None, None),
        ("warning", "mind the gap", None),
        ("task", None, []),
        ("warning", "and this", None),
        ("task", None, ["it broke"]),
    ]


def test_what_holds_others_begins_before_them_and_ends_after_them() -> None:
    changes = events.Changes()
    begun = changes(run(task("a", State.RUNNING, kind="dag"), task("a.b", State.RUNNING)))
    ended = changes(run(task("a", State.FAILED, kind="dag"), task("a.b", State.FAILED), task("c", State.RUNNING)))
    assert [one.path for one in begun] == ["a", "a.b"]
    assert [one.path for one in ended] == ["a.b", "a", "c"]


def test_tasks_that_did_not_change_are_not_looked_at() -> None:
    looks = []

    class Seen:
        path, retries = "a", ()

        @property
        def state(self) -> State:
            looks.append(self)
            return State.PENDING

    tasks = tuple(Seen() for _ in range(1000))
    changes = events.Changes()
    changes(run(*tasks))  # type: ignore[arg-type]
    looks.clear()
    found = changes(run(*tasks[:-1], task("b", State.RUNNING), task("c", State.RUNNING)))  # type: ignore[arg-type]
    assert [one.path for one in found] == ["b", "c"]
    assert looks == []


def test_a_fifo_is_read_while_the_run_goes_on(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    one = events.Events(str(fifo))
    one(run(task("a")))  # nobody reads yet, and nobody waits
    with fifo.open() as reader:
        assert json.loads(reader.readline())["event"] == "run_started"
        one(run(task("a", State.RUNNING)))
        assert json.loads(reader.readline())["path"] == "a"
        assert one.close() is None


def test_a_fifo_that_nobody_reads_is_given_up_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LAST_WAIT", 0.1)
    os.mkfifo(tmp_path / "fifo")
    one = events.Events(str(tmp_path / "fifo"))
    one(run())
    one(run(state=State.SUCCEEDED))
    assert one.close() == f"--events {tmp_path}/fifo: 2 of 2 events were not written: nobody reads it"


def test_a_reader_that_does_not_read_does_not_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LAST_WAIT", 0.1)
    reading, writing = os.pipe()
    one = events.Events(f"/dev/fd/{writing}")
    begin = time.monotonic()
    for number in range(1000):  # more than a pipe holds
        one(run(task("a", State.RUNNING, retries=("again",) * number)))
    assert time.monotonic() - begin < 60
    warning = one.close()
    os.close(reading)
    os.close(writing)
    assert warning is not None
    assert warning.endswith("of 1001 events were not written: its reader does not read")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_costs_one_warning(tmp_path: Path) -> None:
    arguments = ["run", f"{STEPS}:choosing", "--root", str(tmp_path), "-p", "n=0", "--events", "/dev/full"]
    result = CliRunner().invoke(penstock, arguments)
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "events were not written: No space left on device" in warnings[0]


def test_a_reader_that_has_gone_costs_one_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} run {STEPS}:choosing --root {tmp_path} -p n=0 --events - | head -n 1",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["event"] == "run_started"
    assert done.stderr.count("warning") == 1
    assert "events were not written: Broken pipe" in done.stderr
    [record] = tmp_path.glob("runs/*/run.json")
    assert json.loads(record.read_text())["state"] == "SUCCEEDED"


def test_stdout_holds_events_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", f"{STEPS}:failing", "--root", str(tmp_path), "--events", "-"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (found[-1]["event"], found[-1]["state"]) == ("run_ended", "FAILED")
    [failed] = [event for event in found if event.get("state") == "FAILED" and event["event"] == "task"]
    assert (failed["path"], failed["exit_code"]) == ("refuse", 65)
    assert "that is not wanted" in failed["error"]
    assert "error: refuse: text: that is not wanted" in done.stderr


def test_json_and_events_do_not_share_stdout(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        penstock, ["run", f"{STEPS}:choosing", "--root", str(tmp_path), "--events", "-", "--json"]
    )
    assert result.exit_code == 2
    assert "would both write to stdout" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match=r"--events .*/none/e: cannot be written: No such file or directory"):
        events.Events(str(tmp_path / "none" / "e"))
    result = CliRunner().invoke(
        penstock, ["run", f"{STEPS}:choosing", "--root", str(tmp_path), "--events", str(tmp_path / "none" / "e")]
    )
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_an_outbox_drops_what_it_has_no_room_for_and_counts_it() -> None:
    go = threading.Event()
    taken: list[int] = []

    def deliver(item: int) -> bool:
        go.wait()
        taken.append(item)
        return item != 1

    outbox = Outbox(deliver, room=3)
    outbox.put(0)
    while outbox._queue.qsize():  # the thread has taken it
        time.sleep(0.001)
    for item in range(1, 10):
        outbox.put(item)
    go.set()
    assert outbox.close(5) == 1 + 6  # the one refused, and those beyond the room
    assert taken == [0, 1, 2, 3]


def test_a_record_is_told_as_it_was_when_it_was_given(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    one = events.Events(str(tmp_path / "fifo"))
    first = run(task("a", State.RUNNING))
    one(first)
    one(dataclasses.replace(first, state=State.SUCCEEDED, tasks=(task("a", State.SUCCEEDED),)))
    with (tmp_path / "fifo").open() as reader:
        assert one.close() is None
        states = [json.loads(line).get("state") for line in reader]
    assert states == [None, "RUNNING", "SUCCEEDED", "SUCCEEDED"]
