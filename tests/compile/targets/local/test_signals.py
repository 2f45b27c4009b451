"""However a run is ended, nothing of it goes on and nothing half-written is taken for whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def slow(mark: str, data: dsl.Output[dsl.Dataset]):
    import subprocess
    import time

    with open(data.path, "w") as file:
        file.write("half")
    subprocess.Popen(["sleep", mark])
    time.sleep(float(mark))


@dsl.container_component
def stubborn(mark: str):
    return dsl.ContainerSpec(
        image="debian:12", command=["sh", "-c", 'trap "" INT TERM HUP; while true; do sleep "$0"; done', mark]
    )


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def after(data: dsl.Input[dsl.Dataset]):
    print("never")


@dsl.pipeline(name="long")
def long(mark: str):
    after(data=slow(mark=mark).outputs["data"])


PROGRAM = """
import sys
from pathlib import Path
from penstock.compile.targets import local

record = local.run(Path(sys.argv[1]), {"mark": sys.argv[3]}, root=Path(sys.argv[2]), jobs=2, runner="subprocess")
print("ended", record.state)
"""


def running(mark: str, program: str = "") -> list[int]:
    """Return the processes, zombies aside, whose command line holds the mark, and starts with the program."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark.encode() in line and line[0].startswith(program.encode()) and state != "Z":
                found.append(int(entry.name))
    return found


def wait_for(condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


@pytest.fixture
def start(compiled, tmp_path):
    """Start a run in a process of its own and return that when its first command is at work."""
    started = []

    def start_it(what, mark: str, **options) -> subprocess.Popen:
        command = [sys.executable, "-c", PROGRAM, str(compiled(what)), str(tmp_path / "root"), mark]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        started.append(process)
        wait_for(lambda: running(mark, "sleep"))
        return process

    yield start_it
    for process in started:
        process.kill()
        process.communicate()


def record_of(root: Path) -> dict:
    (folder,) = (root / "runs").iterdir()
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process_of_the_run_and_takes_its_course(start, tmp_path, number):
    mark = f"7{number}.123"
    process = start(long, mark)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) is (number == signal.SIGINT)
    wait_for(lambda: not running(mark))
    record = record_of(tmp_path / "root")
    assert (record["state"], record["error"]) == ("CANCELLED", f"ended by {signal.Signals(number).name}")
    assert [task["state"] for task in record["tasks"]] == ["CANCELLED", "CANCELLED"]
    folder = Path(record["folder"])
    assert not (folder / "tasks/slow/outputs").exists()
    assert (folder / "report.html").exists()


def test_a_second_signal_kills_what_ignores_the_first(start):
    mark = "74.123"
    process = start(stubborn, mark)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert running(mark)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert time.monotonic() - begin < 9  # the grace is ten
    wait_for(lambda: not running(mark))


def test_a_signal_that_the_user_ignores_stays_ignored(start):
    mark = "3.123"
    process = start(long, mark, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=20)
    assert output == "ended SUCCEEDED\n"


def test_after_sigkill_no_process_goes_on_and_nothing_half_written_is_an_output(start, tmp_path):
    mark = "76.123"
    process = start(long, mark)
    process.kill()
    process.communicate(timeout=20)
    record = record_of(tmp_path / "root")
    assert [task["state"] for task in record["tasks"]] == ["RUNNING", "PENDING"]
    assert [task["outputs"] for task in record["tasks"]] == [{"parameters": {}, "artifacts": {}}] * 2
    wait_for(lambda: not running(mark))
