"""`penstock runs`, as people and scripts use it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.compile.cli import penstock

STEPS = Path(__file__).parent / "user" / "steps.py"
COMMAND = [sys.executable, "-m", "penstock.compile.cli"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(penstock, [*map(str, arguments)], prog_name="penstock")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a run that succeeded, one that failed, one that was killed, and a folder that is none."""
    root = tmp_path_factory.mktemp("made")
    assert call("run", f"{STEPS}:choosing", "--root", root, "-p", "n=2").exit_code == 0
    assert call("run", f"{STEPS}:failing", "--root", root).exit_code == 1
    process = subprocess.Popen(
        [*COMMAND, "run", f"{STEPS}:waiting", "--root", root], stderr=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stderr
    assert "running" in process.stderr.readline()
    listed = json.loads(call("runs", "list", "--root", root, "--json").stdout)
    assert listed[0]["state"] == "RUNNING"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20  # its guard holds the lock until its tasks have ended
    while call("runs", "list", "--root", root).stdout.count("running") and time.monotonic() < deadline:
        time.sleep(0.05)
    (root / "runs" / "odd").mkdir()
    (root / "runs" / "odd" / "run.json").write_text('{"format": "penst')
    os.utime(root / "runs" / "odd", (0, 0))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to remove from."""
    return Path(shutil.copytree(made, tmp_path / "root"))


@pytest.mark.parametrize("command", ["list", "show", "open", "gc"])
def test_help_of_every_command_has_an_example(command: str) -> None:
    result = call("runs", command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?: penstock runs {command}", result.output)


def test_list_shows_the_newest_first_with_how_far_each_came(made: Path) -> None:
    result = call("runs", "list", "--root", made, "--size")
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["id", "state", "started", "(UTC)", "took", "tasks", "size", "pipeline"]
    assert [(row.split()[1], row.split()[-1]) for row in rows[:3]] == [
        ("killed", "waiting"),
        ("failed", "failing"),
        ("succeeded", "choosing"),
    ]
    assert [re.search(r"\d/\d", row)[0] for row in rows[:3]] == ["0/2", "0/2", "3/3"]  # type: ignore[index]
    assert all(re.search(r"  [\d.]+ kB( |$)", row) for row in rows)
    assert rows[3].split()[:2] == ["odd", "unreadable"]
    assert "odd/run.json: not the record of a run: Unterminated string" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_list_leaves_out_the_pipeline_where_the_terminal_is_narrow_and_never_cuts_an_id(made: Path) -> None:
    for columns, last in ((80, "tasks"), (160, "pipeline")):
        main, other = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1"}
        subprocess.run(
            [*COMMAND, "runs", "list", "--root", made],
            env=environment,
            stdin=other,
            stdout=other,
            timeout=60,
            check=True,
        )
        written = re.sub(r"\x1b\[[0-9;]*m", "", os.read(main, 65536).decode())
        os.close(main)
        os.close(other)
        head, *rows = written.splitlines()
        assert head.split()[-1] == last
        assert len(rows) == 4
        assert all((made / "runs" / row.split()[0]).is_dir() for row in rows)


def test_list_says_the_same_as_json(made: Path) -> None:
    result = call("runs", "list", "--root", made, "--json")
    found = json.loads(result.stdout)
    assert [run["state"] for run in found] == ["KILLED", "FAILED", "SUCCEEDED", "UNREADABLE"]
    record = json.loads((made / "runs" / found[2]["id"] / "run.json").read_text())
    assert found[2] == {
        "id": record["id"],
        "pipeline": "choosing",
        "state": "SUCCEEDED",
        "started": record["started"],
        "seconds": record["seconds"],
        "tasks": {"done": 3, "total": 3},
        "folder": record["folder"],
    }
    assert "Unterminated string" in found[3]["problem"]


def test_list_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    result = call("runs", "list", "--root", tmp_path / "none")
    assert (result.exit_code, "begin one: penstock run" in result.stdout) == (0, True)
    assert json.loads(call("runs", "list", "--root", tmp_path / "none", "--json").stdout) == []


def test_show_tells_tasks_outputs_metrics_and_places(made: Path) -> None:
    result = call("runs", "show", "choosing", "--root", made)
    assert result.exit_code == 0
    assert re.search(r"(?m)^choosing-\S+  succeeded$", result.stdout)
    assert re.search(r"(?m)^✓ count +\d\.\d s", result.stdout)
    assert re.search(r"(?m)^✓ count-2 ", result.stdout)  # inside the condition, of which nothing is told
    assert "enough" not in result.stdout
    assert re.search(r"(?m)^n +2 *$", result.stdout)
    assert re.search(r"(?m)^rate +score +0\.731235", result.stdout)
    assert re.search(r"(?m)^report +\S+/report\.html$", result.stdout)
    assert "error" not in result.stdout


def test_show_tells_what_went_wrong_and_how_to_go_on(made: Path) -> None:
    result = call("runs", "show", "failing", "--root", made)
    assert result.exit_code == 0
    assert re.search(r"(?m)^✗ refuse .*failed: text: that is not wanted", result.stdout)
    assert "error: refuse: text: that is not wanted. Give another." in result.stdout
    log = re.search(r"(?m)^  log: (\S+)$", result.stdout)
    assert log
    assert Path(log[1]).is_file()
    assert re.search(r"(?m)^to go on from there: penstock run --resume failing-\S+ --root ", result.stdout)


def test_show_tells_a_killed_run_from_one_at_work(made: Path) -> None:
    result = call("runs", "show", "latest", "--root", made)
    assert result.exit_code == 0
    assert re.search(r"(?m)^waiting-\S+  killed$", result.stdout)
    assert re.search(r"(?m)^■ count +cancelled", result.stdout)
    assert "error: the engine was gone before the run had ended" in result.stdout
    assert "report " not in result.stdout


def test_show_json_is_run_json(made: Path) -> None:
    result = call("runs", "show", "choosing", "--root", made, "--json")
    [path] = made.glob("runs/choosing-*/run.json")
    assert json.loads(result.stdout) == json.loads(path.read_text())


def test_show_log_is_the_log_of_a_task_and_nothing_else(made: Path) -> None:
    [path] = made.glob("runs/choosing-*/tasks/condition-1.count-2/log.txt")
    for name in ("condition-1.count-2", "count-2"):
        result = call("runs", "show", "choosing", "--root", made, "--log", name)
        assert result.stdout_bytes == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["show", "choosing", "--log", "none"],
            "no task none has a log; those that have: count, rate, condition-1.count-2",
        ),
        (["show", "choosing", "--log", "condition-1"], "task condition-1 has no log: it ran no command"),
        (["show", "choosing", "--log", "count", "--json"], "a log is no JSON"),
        (["show", "nothing"], "there is no run nothing in"),
        (["show", "odd"], "odd/run.json: not the record of a run"),
        (["show", "odd", "--json"], "odd/run.json: not the record of a run"),
        (["show"], "Missing argument 'ID'"),
        (["open", "odd"], "odd/run.json: not the record of a run"),
        (["gc"], "say which runs to remove: --keep 10, --older-than 30d, --failed; there are 4 (1 killed, 1 failed, "),
        (["gc", "--older-than", "soon"], "--older-than soon: give minutes, hours, days or weeks"),
        (["gc", "--keep", "-1"], "-1 is not in the range x>=0"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments: list[str], expected: str, made: Path) -> None:
    result = call("runs", *arguments, "--root", made)
    assert expected in " ".join(result.stderr.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.output


def test_open_opens_the_report_where_there_is_a_screen(made: Path, tmp_path: Path) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    [report] = made.glob("runs/choosing-*/report.html")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def opened(*options: str, **screen: str) -> bool:
        env = {
            name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
        }
        done = subprocess.run(
            [*COMMAND, "runs", "open", "choosing", "--root", made, *options],
            env={**env, "PATH": path, **screen},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(report), "")
        deadline = time.monotonic() + (5 if screen and not options else 0.2)
        while not (tmp_path / "opened").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return (tmp_path / "opened").exists()

    if sys.platform == "linux":
        assert not opened()
        assert not opened("--print", DISPLAY=":0")
        assert opened(DISPLAY=":0")
        assert (tmp_path / "opened").read_text().strip() == str(report)


def test_open_makes_the_report_that_a_killed_run_did_not(root: Path) -> None:
    result = call("runs", "open", "waiting", "--root", root, "--print")
    assert result.exit_code == 0
    assert "the engine was gone before the run had ended" in Path(result.stdout.strip()).read_text()


def test_gc_shows_first_and_removes_then(root: Path) -> None:
    (root / "volumes").mkdir()
    shown = call("runs", "gc", "--root", root, "--failed", "--dry-run")
    assert shown.exit_code == 0
    assert re.findall(r"(?m)^would remove run (\w+)-\S+  [\d.]+ kB$", shown.stdout) == ["waiting", "failing"]
    assert re.search(r"(?m)^would free [\d.]+ kB$", shown.stdout)
    assert f"{root / 'volumes'} holds your data and stays" in shown.stdout
    assert len(list((root / "runs").iterdir())) == 4
    done = call("runs", "gc", "--root", root, "--failed")
    assert done.stdout == shown.stdout.replace("would remove", "removed").replace("would free", "freed")
    assert {path.name.partition("-")[0] for path in (root / "runs").iterdir()} == {"choosing", "odd"}
    again = call("runs", "gc", "--root", root, "--failed")
    assert (again.exit_code, again.stdout.splitlines()[0]) == (0, "nothing to remove")


def test_gc_takes_what_the_cache_knew_of_the_run_with_it(root: Path) -> None:
    assert list(root.glob("cache/*/*.json"))
    result = call("runs", "gc", "--root", root, "--keep", 0)
    assert re.search(r"(?m)^removed \d+ entr(y|ies) of the cache that nobody can use$", result.stdout)
    assert list(root.glob("cache/*/*.json")) == []


def test_gc_says_the_same_as_json(root: Path) -> None:
    found = json.loads(call("runs", "gc", "--root", root, "--failed", "--json").stdout)
    assert [(item["kind"], Path(item["path"]).name.partition("-")[0]) for item in found["removed"][:2]] == [
        ("run", "waiting"),
        ("run", "failing"),
    ]
    assert found["bytes"] == sum(item["bytes"] for item in found["removed"]) > 0
    assert (found["dry_run"], found["failed"]) == (False, [])


def test_a_run_at_work_is_not_removed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", f"{STEPS}:waiting", "--root", tmp_path], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stderr
        assert "running" in process.stderr.readline()
        assert call("runs", "gc", "--root", tmp_path, "--keep", 0).stdout == "nothing to remove\n"
        shown = call("runs", "show", "latest", "--root", tmp_path).stdout
        assert re.search(r"(?m)^running for ", shown)
        assert call("runs", "open", "latest", "--root", tmp_path).exit_code == 2
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    finally:
        process.kill()
    assert "removed run waiting-" in call("runs", "gc", "--root", tmp_path, "--keep", 0).stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("penstock runs show --root {root} fai", ["failing-"]),
        ("penstock runs open --root {root} ", ["waiting-", "failing-", "choosing-", "odd", "latest"]),
        ("penstock run --root {root} --resume wai", ["waiting-"]),
    ],
)
def test_completion_offers_ids(words: str, expected: list[str], made: Path) -> None:
    words = words.format(root=made)
    done = subprocess.run(
        COMMAND,
        env={
            **os.environ,
            "_PENSTOCK_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = [line.removeprefix("plain,") for line in done.stdout.split()]
    assert len(found) == len(expected), found
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True)), found
