"""What goes is what was asked for and what is of no use any more, and a kill in between leaves nothing half."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import removal, runs
from penstock.compile.targets.local.record import RunRecord, State
from penstock.compile.targets.local.removal import Criteria

DAY = datetime.timedelta(days=1)
ALL = Criteria(keep=0)


def make(root: Path, name: str, days: float = 0, size: int = 0, **fields: Any) -> Path:
    folder = root / "runs" / name
    (folder / "tasks" / "a" / "outputs").mkdir(parents=True)
    (folder / "tasks" / "a" / "outputs" / "data").write_bytes(b"x" * size)
    began = datetime.datetime.now(datetime.UTC) - days * DAY
    defaults: dict[str, Any] = {"state": State.SUCCEEDED, "seconds": 1.0, "tasks": (), "started": began.isoformat()}
    record = RunRecord(name, "p", str(folder), "5" * 64, {}, **{**defaults, **fields})
    (folder / "run.json").write_text(json.dumps(record.to_json()))
    return folder


def environment(root: Path, name: str, days: float) -> Path:
    folder = root / "environments" / name
    folder.mkdir(parents=True)
    (folder / "penstock.json").touch()
    for path in (folder / "penstock.json", folder):
        age(path, days)
    return folder


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * 86400,) * 2)


def planned(root: Path, criteria: Criteria = ALL) -> list[str]:
    return [item.name for item in removal.plan(root, criteria)]


def removed(root: Path, criteria: Criteria = ALL) -> list[str]:
    done = [*removal.remove(removal.plan(root, criteria))]
    assert [problem for _, problem in done if problem] == []
    return [item.name for item, _ in done]


@pytest.fixture
def four(tmp_path: Path) -> Path:
    make(tmp_path, "new", 0)
    make(tmp_path, "broken", 1, state=State.FAILED)
    make(tmp_path, "killed", 8, state=State.RUNNING)
    make(tmp_path, "old", 40)
    return tmp_path


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        (Criteria(keep=2), ["killed", "old"]),
        (Criteria(keep=0), ["new", "broken", "killed", "old"]),
        (Criteria(older_than=7 * DAY), ["killed", "old"]),
        (Criteria(failed=True), ["broken", "killed"]),
        (Criteria(failed=True, older_than=7 * DAY), ["killed"]),
        (Criteria(keep=3, older_than=7 * DAY), ["old"]),
        (Criteria(keep=4, failed=True), []),
        (Criteria(), []),
    ],
)
def test_a_run_goes_when_it_meets_every_criterion(criteria: Criteria, expected: list[str], four: Path) -> None:
    assert planned(four, criteria) == expected
    assert len(list((four / "runs").iterdir())) == 4  # a plan removes nothing
    assert removed(four, criteria) == expected
    assert {run.id for run in runs.listed(four)} == {"new", "broken", "killed", "old"} - {*expected}
    assert [path.name for path in (four / "runs").iterdir() if path.name.startswith(".")] == []


def test_a_run_that_was_resumed_is_as_old_as_that(tmp_path: Path) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - DAY
    make(tmp_path, "resumed", 40, resumed=(yesterday.isoformat(),))
    assert planned(tmp_path, Criteria(older_than=7 * DAY)) == []


def test_a_run_at_work_stays(tmp_path: Path) -> None:
    folder = make(tmp_path, "one", 40, state=State.RUNNING)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert planned(tmp_path) == []


def test_a_run_that_has_begun_to_work_since_the_plan_stays(tmp_path: Path) -> None:
    folder = make(tmp_path, "one", state=State.FAILED)
    (folder / "lock").touch()
    items = removal.plan(tmp_path, ALL)
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [(_, problem)] = removal.remove(items)
    assert problem == "it has begun to work meanwhile"
    assert (folder / "run.json").exists()


def test_a_folder_that_is_not_known_to_be_a_run_s_stays(tmp_path: Path) -> None:
    notes = tmp_path / "runs" / "notes"
    notes.mkdir(parents=True)
    (notes / "spec.yaml").touch()
    (notes / "mine.txt").touch()
    age(notes, 400)
    assert planned(tmp_path) == []


def test_volumes_and_the_registry_stay(tmp_path: Path) -> None:
    make(tmp_path, "one", 400)
    for path in (tmp_path / "volumes" / "v" / "x.unfinished", tmp_path / "mlflow.db", tmp_path / "mlartifacts" / "m"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        age(path, 400)
    assert removed(tmp_path, Criteria(keep=0, older_than=DAY)) == ["one"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["m", "mlflow.db", "x.unfinished"]


def test_entries_of_the_cache_go_with_their_run(tmp_path: Path) -> None:
    make(tmp_path, "here")
    make(tmp_path, "going", 1)
    contents = {
        "here": {"run": "here"},
        "going": {"run": "going"},
        "gone": {"run": "gone"},
        "odd": [],
        "up": {"run": 3},
    }
    for name, content in contents.items():
        path = tmp_path / "cache" / name[:2] / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    assert removed(tmp_path, Criteria(keep=1)) == ["going", "going", "gone", "odd", "up"]
    assert [path.stem for path in tmp_path.glob("cache/*/*.json")] == ["here"]


def test_environments_go_when_they_were_not_used_for_so_long(tmp_path: Path) -> None:
    environment(tmp_path, "old", 40)
    used = environment(tmp_path, "used", 40)
    age(used / "penstock.json", 1)
    assert planned(tmp_path, Criteria(keep=0)) == []
    assert removed(tmp_path, Criteria(older_than=30 * DAY)) == ["old"]
    assert [path.name for path in (tmp_path / "environments").iterdir()] == ["used"]


def test_environments_stay_while_a_run_is_at_work(tmp_path: Path) -> None:
    environment(tmp_path, "old", 40)
    folder = make(tmp_path, "one", state=State.RUNNING)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert planned(tmp_path, Criteria(older_than=30 * DAY)) == []


def test_halves_go_once_nobody_can_be_at_them_any_more(tmp_path: Path) -> None:
    kept = make(tmp_path, "kept")
    never = tmp_path / "runs" / "never"
    halves = [
        tmp_path / "cache" / "ab" / "abc.json.x1.unfinished",
        kept / "run.json.unfinished",
        never / "spec.yaml",
        tmp_path / "environments" / "e1" / "bin" / "python3",
        tmp_path / "environments" / "e2.77.removed" / "bin",
    ]
    for path in halves:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert planned(tmp_path, Criteria(failed=True)) == []
    for path in (*halves, never, *(tmp_path / "environments").iterdir()):
        age(path, 1)
    assert removed(tmp_path, Criteria(failed=True)) == [
        "cache/ab/abc.json.x1.unfinished",
        "environments/e1",
        "environments/e2.77.removed",
        "runs/kept/run.json.unfinished",
        "runs/never",
    ]
    assert [run.id for run in runs.listed(tmp_path)] == ["kept"]


def test_files_of_two_names_count_once_both_go(tmp_path: Path) -> None:
    first, second = make(tmp_path, "first", 2, size=1_000_000), make(tmp_path, "second", 1)
    data = "tasks/a/outputs/data"
    (second / data).unlink()
    os.link(first / data, second / data)
    sizes = {item.name: item.bytes for item in removal.plan(tmp_path, Criteria(keep=1))}
    assert sizes["first"] < 1_000_000
    both = removal.plan(tmp_path, ALL)
    assert 1_000_000 < sum(item.bytes for item in both) < 1_100_000
    removed(tmp_path, Criteria(keep=1))
    assert (second / data).stat().st_size == 1_000_000


def test_folders_that_may_not_be_written_are_removed_too_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(0o500)
    folder = make(tmp_path, "one") / "tasks" / "a"
    (folder / "link").symlink_to(outside)
    (folder / "outputs").chmod(0o500)
    folder.chmod(0o500)
    assert removed(tmp_path) == ["one"]
    assert outside.stat().st_mode & 0o777 == 0o500


def test_what_cannot_be_removed_is_told_and_the_rest_goes(tmp_path: Path) -> None:
    make(tmp_path, "one", 1)
    make(tmp_path, "two", 2)
    items = removal.plan(tmp_path, ALL)
    broken = removal.Item("run", "none", tmp_path / "runs" / "one" / "run.json" / "none")
    done = {item.name: problem for item, problem in removal.remove([broken, *items])}
    assert done == {"none": f"{broken.path}: Not a directory", "one": "", "two": ""}


def test_a_kill_half_way_leaves_no_half_run_and_the_next_time_cleans_up(tmp_path: Path) -> None:
    make(tmp_path, "one", 1)
    make(tmp_path, "two", 2)
    program = f"""
import os, signal
from pathlib import Path
from penstock.compile.targets.local import removal

os.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # it gets as far as the first file
root = Path({str(tmp_path)!r})
print([*removal.remove(removal.plan(root, removal.Criteria(keep=0)))])
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [run.id for run in runs.listed(tmp_path)] == ["two"]
    [half] = [path for path in (tmp_path / "runs").iterdir() if path.name.startswith(".removing-one-")]
    assert removed(tmp_path, Criteria(keep=1)) == [f"runs/{half.name}"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two"]


@pytest.mark.parametrize(("text", "hours"), [("90m", 1.5), ("12h", 12), ("30d", 720), ("2w", 336)])
def test_ages_are_numbers_with_a_unit(text: str, hours: float) -> None:
    assert removal.age(text) == datetime.timedelta(hours=hours)


@pytest.mark.parametrize("text", ["30", "d", "1.5d", "-1d", "30 d", "1y", "9999999d", "٣d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(PenstockError, match="such as 90m, 12h, 30d or 2w"):
        removal.age(text)
