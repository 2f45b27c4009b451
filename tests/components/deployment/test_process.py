"""Processes that outlive their starters."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from penstock.components.deployment.local.process import Process
from tests.components.deployment.endpoints import ended, forked


def test_a_process_is_found_by_its_folder_and_started_once(tmp_path):
    process = Process(tmp_path)
    assert (process.runs(), process.pid()) == (False, 0)
    assert process.start(["/bin/sh", "-c", "echo here; exec sleep 60"], {})
    assert not process.start(["/bin/sleep", "60"], {})
    pid = process.pid()
    os.kill(pid, 0)
    process.stop((signal.SIGTERM, 5.0))
    assert not process.runs()
    assert process.said() == "here"


def test_whoever_started_it_may_be_killed(tmp_path):
    process = Process(tmp_path)

    def start_and_die():
        process.start(["/bin/sleep", "60"], {})
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(start_and_die)) == -signal.SIGKILL
    assert process.runs()
    process.stop()
    assert not process.runs()


def test_what_does_not_heed_sigterm_is_killed(tmp_path):
    process = Process(tmp_path)
    process.start(["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"], {})
    while process.said() != "deaf":
        time.sleep(0.01)
    process.stop((signal.SIGTERM, 0.2))
    assert not process.runs()


def test_those_who_look_do_not_see_each_other(tmp_path):
    process = Process(tmp_path)
    (tmp_path / "alive").touch()
    with ThreadPoolExecutor(8) as pool:
        looks = [pool.submit(lambda: any(process.runs() for _ in range(500))) for _ in range(8)]
        assert not any(look.result() for look in looks)
        looks = [pool.submit(lambda: [process.runs() for _ in range(2000)]) for _ in range(8)]
        assert process.start(["/bin/sleep", "60"], {})
    process.stop()


def test_a_number_that_is_another_process_by_now_is_left_alone(tmp_path):
    process = Process(tmp_path)
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "alive").touch()
    assert process.pid() == 0
    process.stop((signal.SIGTERM, 1.0))  # not this one
