"""How stand-ins run things, whatever becomes of the process that they are in."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.compile import from_kfp
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.record import State
from penstock.testing import Engine, Script
from penstock.testing.runs import Job

PROGRAM = """
import sys, time
from pathlib import Path
from penstock.compile import from_kfp
from penstock.testing import Engine
from penstock.testing.runs import Job

folder, spec = Path(sys.argv[1]), Path(sys.argv[2])
run = Engine(root=folder).start(Job("run-1", spec.read_bytes(), from_kfp.read(spec), {}, folder))
while not run.poll().tasks or run.poll().tasks[0].state != "RUNNING":
    time.sleep(0.02)
print("at work", flush=True)
time.sleep(60)
"""


def job(specs, folder, name="doubling", **parameters):
    content = Path(specs[name]).read_bytes()
    return Job("run-1", content, from_kfp.parse(content.decode()), parameters, folder)


def ended(run, seconds=60):
    end = time.monotonic() + seconds
    while not (found := run.poll()).ended:
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_a_run_ends_with_the_process_that_started_it_even_when_that_is_killed(specs, tmp_path):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path, specs["waiting"]], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "at work\n"
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    record, end = tmp_path / "runs" / "run-1" / "run.json", time.monotonic() + 60
    while json.loads(record.read_text())["state"] != "CANCELLED":
        assert time.monotonic() < end
        time.sleep(0.05)
    program.stdout.close()


def test_a_spec_that_cannot_run_here_fails_with_the_reason(specs, tmp_path):
    run = Engine(runner="rocket").start(job(specs, tmp_path, number=1))
    found = ended(run)
    assert (found.state, found.error) == (State.FAILED, "there is no runner rocket; there are auto, subprocess, docker")
    run.close()


def test_a_cancel_before_anything_has_begun_is_one(specs, tmp_path):
    run = Engine().start(job(specs, tmp_path, "waiting"))
    run.cancel()
    assert ended(run).state is State.CANCELLED
    run.close()


def test_a_script_that_names_no_state_is_refused_when_it_is_made():
    with pytest.raises(PenstockError, match="DONE is no state of a script; there are PENDING"):
        Script("PENDING DONE")
    with pytest.raises(PenstockError, match="a script needs a state"):
        Script(" ")


def test_a_list_does_not_move_a_script_on(specs, tmp_path):
    run = Script("PENDING RUNNING SUCCEEDED").start(job(specs, tmp_path))
    assert [run.peek().state for _ in range(3)] == [State.PENDING] * 3
    assert [run.poll().state, run.poll().state, run.peek().state] == [State.PENDING, State.RUNNING, State.RUNNING]
