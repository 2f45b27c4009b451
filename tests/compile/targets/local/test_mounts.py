"""Processes find folders where they expect them, by links that never take the place of anything else."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from penstock.compile import launcher
from penstock.compile.targets.local import mounts
from penstock.compile.targets.local.setting import Mount


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "volumes" / "data"
    folder.mkdir(parents=True)
    (folder / "here").write_text("yes")
    return folder


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(mounts.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))


def mounted(*found: Mount, patience: float = 5.0):
    return mounts.mounted(found, launcher.Stop(), patience)


def test_a_link_is_there_while_it_is_needed_and_so_are_its_parents(tmp_path, source):
    path = tmp_path / "mnt" / "deep" / "data"
    with mounted(Mount(str(path), source)):
        assert (path / "here").read_text() == "yes"
        (path / "written").write_text("stays")
    assert not (tmp_path / "mnt").exists()
    assert (source / "written").read_text() == "stays"


def test_it_goes_after_a_failure_too(tmp_path, source):
    path = tmp_path / "data"
    with pytest.raises(RuntimeError), mounted(Mount(str(path), source)):
        raise RuntimeError
    assert not os.path.lexists(path)


def test_one_path_is_shared_by_tasks_that_want_the_same_folder(tmp_path, source):
    path = tmp_path / "data"
    with mounted(Mount(str(path), source)):
        with mounted(Mount(str(path), source)):
            pass
        assert (path / "here").exists()
    assert not os.path.lexists(path)


def test_tasks_that_want_different_folders_at_one_path_take_turns(tmp_path, source):
    path, other = tmp_path / "data", tmp_path / "other"
    other.mkdir()
    seen, entered = [], threading.Event()

    def second():
        with mounted(Mount(str(path), other)):
            seen.append(os.readlink(path))

    with mounted(Mount(str(path), source)):
        thread = threading.Thread(target=lambda: (entered.set(), second()))
        thread.start()
        entered.wait()
        time.sleep(0.25)
        seen.append(os.readlink(path))
    thread.join(10)
    assert seen == [str(source), str(other)]
    assert not os.path.lexists(path)


def test_all_paths_are_taken_or_none(tmp_path, source):
    a, b, other = tmp_path / "a", tmp_path / "b", tmp_path / "other"
    other.mkdir()
    with (
        mounted(Mount(str(b), source)),
        pytest.raises(launcher.TaskError, match=f"{b} has been in use by another task for 0 s"),
        mounted(Mount(str(a), source), Mount(str(b), other), patience=0),
    ):
        pass
    assert not os.path.lexists(a)


def test_waiting_ends_when_the_run_is_stopped(tmp_path, source):
    stop = launcher.Stop()
    stop.request()
    with (
        mounted(Mount(str(tmp_path / "a"), source)),
        pytest.raises(launcher.Stopped),
        mounts.mounted([Mount(str(tmp_path / "a"), tmp_path)], stop),
    ):
        pass


@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link", "broken"])
def test_whatever_is_at_a_path_stays_and_the_error_says_what_to_do(tmp_path, source, kind):
    path = tmp_path / "data"
    if kind in ("folder", "empty"):
        path.mkdir()
        if kind == "folder":
            (path / "mine").write_text("mine")
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path if kind == "link" else tmp_path / "nothing")
    before = path.lstat()
    assert bool(mounts.obstacle(str(path))) == (not path.is_symlink())
    with pytest.raises(launcher.TaskError) as caught, mounted(Mount(str(path), source)):
        pass
    assert str(caught.value) == (
        f"{path} cannot be mounted for a process: something else is there; use --runner docker"
    )
    assert path.lstat() == before


def test_a_link_of_the_users_own_to_the_same_folder_is_used_and_stays(tmp_path, source):
    path = tmp_path / "data"
    path.symlink_to(source)
    with mounted(Mount(str(path), source)):
        assert (path / "here").exists()
    assert os.readlink(path) == str(source)


def test_whether_a_link_can_be_made_is_known_before(tmp_path):
    (tmp_path / "file").write_text("")
    assert mounts.obstacle(str(tmp_path / "a" / "b")) == ""
    assert mounts.obstacle(str(tmp_path / "file")).endswith("something else is there; use --runner docker")
    blocked = mounts.obstacle(str(tmp_path / "file" / "b"))
    assert blocked.endswith(
        f"a link there cannot be made: {tmp_path / 'file'} cannot be written to; use --runner docker"
    )


def test_a_path_that_cannot_be_made_is_an_error_in_one_line(source):
    with (
        pytest.raises(launcher.TaskError, match="/proc/x/data cannot be mounted for a process: a link there cannot"),
        mounted(Mount("/proc/x/data", source)),
    ):
        pass


def test_one_mount_may_lie_in_another(tmp_path, source):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "deep").write_text("")
    with mounted(Mount(str(tmp_path / "a" / "b"), inner), Mount(str(tmp_path / "a"), source)):
        assert (tmp_path / "a" / "b" / "deep").exists()
        assert (tmp_path / "a" / "here").exists()
    assert [item.name for item in source.iterdir()] == ["here"]


HOLD = """
import sys, tempfile, time
from pathlib import Path
from penstock.compile import launcher
from penstock.compile.targets.local import mounts
from penstock.compile.targets.local.setting import Mount
tempfile.gettempdir = lambda: sys.argv[1]
with mounts.mounted([Mount(sys.argv[2], Path(sys.argv[3]))], launcher.Stop()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_engine_is_waited_for_and_the_link_of_a_killed_one_is_replaced(tmp_path, source):
    path, other = tmp_path / "data", tmp_path / "other"
    other.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "tmp"), str(path), str(other)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(launcher.TaskError, match="in use by another task"),
            mounted(Mount(str(path), source), patience=0),
        ):
            pass
        assert os.readlink(path) == str(other)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert os.readlink(path) == str(other)
    with mounted(Mount(str(path), source)):
        assert (path / "here").exists()
    assert not os.path.lexists(path)


def test_many_threads_never_see_the_folder_of_another(tmp_path):
    path, folders = tmp_path / "data", [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    wrong = []

    def use(folder):
        for _ in range(3):
            with mounted(Mount(str(path), folder), patience=60):
                if (path / "name").read_text() != folder.name:
                    wrong.append(folder)

    threads = [threading.Thread(target=use, args=(folder,)) for folder in folders * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not os.path.lexists(path)


def test_a_runner_has_them_in_place_and_empties_what_has_to_be_fresh(tmp_path, source):
    fresh = tmp_path / "fresh"
    (fresh / "folder").mkdir(parents=True)
    (fresh / "link").symlink_to(source)
    found = [Mount(str(tmp_path / "a"), source), Mount(str(tmp_path / "b"), fresh, fresh=True)]
    runner = mounts.in_place(found, mounts.emptied(found, launcher.run_process))
    log = tmp_path / "log"
    command = ["sh", "-c", "cat a/here; ls b; touch b/x", "sh"]
    for _ in range(2):
        assert runner(command, [], {"PATH": os.environ["PATH"]}, tmp_path, log, stop=launcher.Stop()) == 0
    assert log.read_text() == "yesyes"
    assert (source / "here").exists()
    assert not os.path.lexists(tmp_path / "a")
