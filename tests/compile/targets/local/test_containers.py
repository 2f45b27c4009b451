"""A task in a container gives what it would on Kubernetes, sees only what is its own, and leaves nothing behind."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound
from hypothesis import given
from hypothesis import strategies as st

from penstock.compile import container_engine as module
from penstock.compile import launcher
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.containers import Containers, available
from penstock.compile.targets.local.setting import Mount, Setting

APPLETS = (
    "cat", "chown", "df", "dd", "echo", "env", "false", "head", "id", "kill", "ls",
    "mkdir", "pwd", "sh", "sleep", "tail", "touch", "true", "yes",
)  # fmt: skip
UID = 12345
TEXT = {"text": launcher.Parameter("STRING")}
FOLDER = {"data": launcher.ArtifactPort({"schemaTitle": "system.Dataset"})}


@pytest.fixture(scope="module")
def engine():
    """The engine's client; its tests skip where none answers."""
    if reason := available():
        pytest.skip(reason)
    with contextlib.closing(docker.from_env().api) as client:
        yield client


@pytest.fixture(scope="module")
def file_system():
    """A tar of all that the test images hold: busybox, and a user called app."""
    found = shutil.which("busybox")
    content = Path(found).read_bytes() if found else b""
    if not content or b"/ld-linux" in content or b"/ld-musl" in content:
        pytest.skip("there is no static busybox; Debian's package busybox-static has one")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, content: bytes = b"", **attributes):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            tar.addfile(member, io.BytesIO(content))

        add("bin/busybox", content, mode=0o755)
        for applet in APPLETS:
            add(f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        add("etc/passwd", f"root:x:0:0::/:/bin/sh\napp:x:{UID}:{UID}::/:/bin/sh\n".encode())
        add("tmp", type=tarfile.DIRTYPE, mode=0o1777)
        add("app", type=tarfile.DIRTYPE, mode=0o755)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(engine, file_system):
    """Names of images by what is special about them."""
    special = {
        "plain": [],
        "numeric": [f"USER {UID}"],
        "named": ["USER app"],
        "entrypoint": ['ENTRYPOINT ["/bin/echo", "from", "the", "image"]', 'CMD ["alone"]'],
        "sealed": [f"USER {UID}", "LABEL penstock.read-only-root=true"],
        "sharing": [f"USER {UID}", 'LABEL penstock.shared-folders="registry ../outside"'],
        "elsewhere": ["WORKDIR /app"],
        "pathless": ["ENV PATH=/nowhere"],
        "checked": ["HEALTHCHECK --interval=1s CMD touch /app/checked"],
    }
    repository = f"penstock-test-{secrets.token_hex(4)}"
    for tag, changes in special.items():
        engine.import_image_from_data(file_system, repository=repository, tag=tag, changes=["ENV PATH=/bin", *changes])
    yield {tag: f"{repository}:{tag}" for tag in special}
    for tag in special:
        engine.remove_image(f"{repository}:{tag}", force=True)


@pytest.fixture
def place(tmp_path, engine):
    """The run's folder; whatever a failed test leaves of its containers is removed."""
    folder = tmp_path / "runs" / f"run-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    yield folder
    for left in listed(engine, folder.name):
        engine.remove_container(left, force=True)


@pytest.fixture
def containers(engine, place):
    with Containers(place, place.name) as found:
        yield found
    assert listed(engine, place.name) == []


@pytest.fixture
def inside(containers, images):
    """A function that returns the runner of an image, by what is special about it, and a setting."""
    return lambda image, **setting: containers.runner(images[image], setting=Setting(**setting))


def listed(engine, run: str, **options) -> list[str]:
    """Return the containers of a run."""
    return [found["Id"] for found in engine.containers(all=True, filters={"label": f"penstock.run={run}"}, **options)]


def wait_for(condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def shell(script: str, *args: str, **options) -> launcher.Task:
    """Return a task that runs a script; `$0` is its first argument."""
    return launcher.Task("task", ["sh", "-c", script], args, **options)


def carry_out(runner, place: Path, task: launcher.Task, name: str = "task", env=None, **options) -> launcher.Outputs:
    folder = place / "tasks" / name
    return launcher.run(task, {}, {}, folder, env=env or {}, runner=runner, own_tmpdir=False, **options)


def said(place: Path, name: str = "task") -> str:
    return (place / "tasks" / name / "log.txt").read_text()


def printed(runner, place: Path, script: str, *args: str, **options) -> str:
    """Return what a script prints."""
    carry_out(runner, place, shell(script, *args), **options)
    return said(place)


TEXT_OUTPUT = "{{$.outputs.parameters['text'].output_file}}"
DATA_OUTPUT = "{{$.outputs.artifacts['data'].path}}"


@pytest.mark.docker
class TestWhatComesOut:
    def test_outputs_are_where_a_process_would_have_left_them(self, inside, place):
        script = 'echo -n hello > "$0"; mkdir -p "$1" && echo 1 > "$1/part"'
        task = shell(script, TEXT_OUTPUT, DATA_OUTPUT, output_parameters=TEXT, output_artifacts=FOLDER)
        outputs = carry_out(inside("plain"), place, task)
        assert outputs.parameters == {"text": "hello"}
        assert Path(outputs.artifacts["data"].uri, "part").read_text() == "1\n"
        assert not (place / "tasks/task/work").exists()

    def test_both_outputs_go_to_the_log_and_the_stream(self, inside, place):
        stream = io.BytesIO()
        runner = inside("plain")
        carry_out(runner, place, shell("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three"), stream=stream)
        assert said(place) == stream.getvalue().decode() == "one\ntwo\nthree\n"

    def test_the_log_grows_while_the_task_runs(self, inside, place):
        stop = launcher.Stop(grace=1)
        runner = inside("plain")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(carry_out, runner, place, shell("echo begun; sleep 100"), stop=stop)
            log = place / "tasks/task/log.txt"
            wait_for(lambda: log.exists() and log.read_text() == "begun\n")
            assert not running.done()
            stop.kill()
            with pytest.raises(launcher.Stopped):
                running.result()

    def test_of_a_large_output_nothing_is_lost(self, inside, place):
        script = "yes 0123456789abcde | head -c 20000000; yes fedcba987654321 | head -c 20000000 >&2"
        carry_out(inside("plain"), place, shell(script))
        text = said(place)
        assert len(text) == 40_000_000
        assert text.count("0123456789abcde\n") == text.count("fedcba987654321\n") == 1_250_000

    def test_a_container_that_ends_at_once_has_its_own_exit_code_and_all_its_output(self, inside, place):
        runner = inside("plain")

        def fail(number: int) -> tuple[int | None, str]:
            with pytest.raises(launcher.TaskError) as caught:
                carry_out(runner, place, shell(f"echo {number}; exit 3"), str(number))
            return caught.value.exit_code, said(place, str(number))

        def descriptors() -> int:
            return len(os.listdir("/dev/fd"))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(fail, range(20))) == [(3, f"{number}\n") for number in range(20)]
            before = descriptors()
            assert list(pool.map(fail, range(20, 50))) == [(3, f"{number}\n") for number in range(20, 50)]
        assert descriptors() < before + 10

    def test_a_signal_that_ended_the_command_is_named(self, inside, place):
        with pytest.raises(launcher.TaskError, match="killed by SIGKILL"):
            carry_out(inside("plain"), place, shell("kill -9 $$"))

    def test_a_command_that_is_not_in_the_image_fails_with_its_name(self, inside, place):
        task = launcher.Task("task", ["no-such-command"])
        with pytest.raises(launcher.TaskError, match="no-such-command"):
            carry_out(inside("plain"), place, task)

    def test_memory_that_ran_out_is_the_reason(self, inside, place, engine):
        runner = inside("plain")
        script = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/null bs=500M count=1"
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(carry_out, runner, place, shell(script))
            wait_for(lambda: (place / "tasks/task/log.txt").exists() and said(place))
            (identity,) = listed(engine, place.name)
            engine.update_container(identity, mem_limit="32m", memswap_limit="32m")
            engine.exec_start(engine.exec_create(identity, ["touch", "/tmp/go"]))
            with pytest.raises(launcher.TaskError, match="ran out of memory"):
                running.result()

    def test_a_container_that_closes_its_output_is_waited_for(self, inside, place, monkeypatch):
        monkeypatch.setattr(module, "_SILENCE", 0.1)
        task = shell("exec >&- 2>&-; sleep 1; exit 4")
        begin = time.monotonic()
        with pytest.raises(launcher.TaskError) as caught:
            carry_out(inside("plain"), place, task)
        assert (caught.value.exit_code, time.monotonic() - begin > 1) == (4, True)


@pytest.mark.docker
class TestTheCommand:
    def test_without_command_the_image_s_own_runs(self, inside, place):
        carry_out(inside("entrypoint"), place, launcher.Task("task", []))
        assert said(place) == "from the image alone\n"

    def test_arguments_go_to_the_entrypoint_of_the_image(self, inside, place):
        task = launcher.Task("task", [], ["with", "arguments"])
        carry_out(inside("entrypoint"), place, task)
        assert said(place) == "from the image with arguments\n"

    def test_a_command_replaces_entrypoint_and_arguments_of_the_image(self, inside, place):
        task = launcher.Task("task", ["echo", "mine"])
        carry_out(inside("entrypoint"), place, task)
        assert said(place) == "mine\n"

    def test_it_starts_in_the_folder_of_its_image(self, inside, place):
        assert printed(inside("elsewhere"), place, "pwd") == "/app\n"

    def test_health_checks_of_its_image_are_not_for_tasks(self, inside, place):
        assert printed(inside("checked"), place, "sleep 2; ls /app") == ""

    def test_its_environment_is_the_one_it_is_given(self, inside, place, monkeypatch):
        monkeypatch.setenv("CANARY", "of this machine")
        runner = inside("plain", env={"B": "of the platform", "C": "x=y z"})
        lines = printed(runner, place, "env", env={"A": "1", "B": "of the task"}).splitlines()
        found = dict(line.split("=", 1) for line in lines)
        for shells_own in ("HOSTNAME", "HOME", "SHLVL", "PWD"):
            found.pop(shells_own, None)
        assert found == {"PATH": "/bin", "A": "1", "B": "of the platform", "C": "x=y z"}

    def test_shared_memory_has_the_size_that_is_asked_for(self, inside, place):
        runner = inside("plain", shared_memory="96Mi")
        assert printed(runner, place, "df -k /dev/shm | tail -1").split()[1] == str(96 * 1024)

    def test_a_size_that_is_none_is_refused(self, inside, place):
        with pytest.raises(launcher.TaskError, match=r"'lots'.*64Mi"):
            carry_out(inside("plain", shared_memory="lots"), place, shell("true"))


@pytest.mark.docker
class TestWhatItSees:
    def test_it_sees_the_run_s_folder_and_nothing_beside_it(self, inside, place):
        (place.parent / "other").write_text("of another run")
        (place / "spec.yaml").write_text("of this run")
        script = 'exec 2>&1; ls "$0"; cat "$1"; echo; echo changed > "$1" || ls "$2"'
        text = printed(inside("plain"), place, script, str(place.parent), str(place / "spec.yaml"), str(place))
        name, content, refusal, *listing = text.splitlines()
        assert (name, content, listing) == (place.name, "of this run", ["spec.yaml", "tasks"])
        assert "Read-only file system" in refusal
        assert (place / "spec.yaml").read_text() == "of this run"

    def test_it_cannot_write_the_outputs_of_another_task(self, inside, place):
        (place / "tasks/other/outputs").mkdir(parents=True)
        with pytest.raises(launcher.TaskError, match="Read-only file system"):
            carry_out(
                inside("plain"),
                place,
                shell('echo x > "$0/x"', str(place / "tasks/other/outputs")),
            )

    def test_mounts_are_at_their_paths_and_as_read_only_as_they_say(self, inside, place, tmp_path):
        (tmp_path / "volume").mkdir()
        (tmp_path / "secret").write_text("a secret")
        mounts = (
            Mount("/data/volume", tmp_path / "volume"),
            Mount("/etc/secret/key", tmp_path / "secret", read_only=True),
        )
        runner = inside("plain", mounts=mounts)
        text = printed(
            runner,
            place,
            "exec 2>&1; cat /etc/secret/key; echo kept > /data/volume/x; echo x > /etc/secret/key || true",
        )
        assert text.startswith("a secret")
        assert "Read-only file system" in text
        assert (tmp_path / "volume/x").read_text() == "kept\n"

    def test_a_mount_that_is_not_here_is_the_task_s_error(self, inside, place, tmp_path):
        runner = inside("plain", mounts=(Mount("/data", tmp_path / "nowhere"),))
        with pytest.raises(launcher.TaskError, match=r"nowhere; the engine has to see this machine's files"):
            carry_out(runner, place, shell("true"))


@pytest.mark.docker
class TestItsUser:
    SCRIPT = 'umask 077; id -u; echo hello > "$0"; mkdir "$1"; echo 1 > "$1/part"; cat /proc/self/status'

    def run(self, runner, place) -> tuple[launcher.Outputs, list[str]]:
        place.chmod(0o700)
        task = shell(self.SCRIPT, TEXT_OUTPUT, DATA_OUTPUT, output_parameters=TEXT, output_artifacts=FOLDER)
        before = os.umask(0o077)
        try:
            return carry_out(runner, place, task), said(place).splitlines()
        finally:
            os.umask(before)

    @pytest.mark.parametrize("image", ["numeric", "sealed", "named"])
    def test_a_user_other_than_root_writes_outputs(self, inside, place, image):
        outputs, lines = self.run(inside(image), place)
        assert lines[0] == str(UID)
        assert outputs.parameters == {"text": "hello\n"}
        assert (place / "tasks/task/outputs").stat().st_mode & 0o777 == 0o755

    def test_what_one_user_wrote_another_can_read(self, inside, place):
        outputs, _ = self.run(inside("numeric"), place)
        runner = inside("plain", user=UID + 1)
        path = str(Path(outputs.artifacts["data"].uri, "part"))
        carry_out(runner, place, shell('cat "$0"', path), "reader")
        assert said(place, "reader") == "1\n"

    def test_a_numeric_user_has_no_capabilities_and_cannot_gain_any(self, inside, place):
        _, lines = self.run(inside("numeric"), place)
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert (status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "1")

    def test_a_setting_s_user_and_group_come_before_the_image_s(self, inside, place):
        runner = inside("named", user=777, group=888)
        assert printed(runner, place, "id -u; id -g") == "777\n888\n"

    def test_a_setting_s_group_alone_keeps_the_image_s_user(self, inside, place):
        runner = inside("numeric", group=888)
        assert printed(runner, place, "id -u; id -g") == f"{UID}\n888\n"

    def test_the_root_is_read_only_where_the_image_says_so(self, inside, place):
        script = "echo x > /tmp/x && cat /tmp/x; touch /app/x"
        with pytest.raises(launcher.TaskError, match="exit code 1"):
            carry_out(inside("sealed"), place, shell(script))
        assert sorted(said(place).splitlines()) == ["touch: /app/x: Read-only file system", "x"]

    def test_other_images_write_their_root(self, inside, place):
        script = "touch /app/x && ls /app"
        assert printed(inside("plain"), place, script) == "x\n"

    AS_SOMEBODY = """
import sys
from pathlib import Path
from penstock.compile import launcher
from penstock.compile.targets.local.containers import Containers
from penstock.compile.targets.local.setting import Setting

folder, image = Path(sys.argv[1]), sys.argv[2]
port = launcher.ArtifactPort({"schemaTitle": "system.Dataset"})
path = "{{$.outputs.artifacts['data'].path}}"
script = 'PATH=/bin; umask 077; mkdir -p "$0/inner" "$1/deep"; echo 1 > "$0/inner/part"; touch "$1/deep/x"'
args = [path, str(folder / "tasks/task/work")]
task = launcher.Task("task", ["/bin/sh", "-c", script], args, output_artifacts={"data": port})
with Containers(folder, folder.name) as containers:
    runner = containers.runner(image, setting=Setting())
    found = launcher.run(task, {}, {}, folder / "tasks/task", env={}, runner=runner, own_tmpdir=False)
print(Path(found.artifacts["data"].uri, "inner/part").read_text(), (folder / "tasks/task/work").exists())
"""

    @pytest.fixture
    def as_somebody(self, engine):
        """Run a task as a user of this machine who is not root; return what came of it and the run's folder."""
        socket_path = Path("/var/run/docker.sock")
        if os.geteuid() != 0 or not shutil.which("setpriv") or not socket_path.exists():
            pytest.skip("only root can become another user who may use the engine")
        become = ["setpriv", "--reuid", "23456", "--regid", "23456", "--groups", str(socket_path.stat().st_gid)]
        become += ["sh", "-c", 'exec "$0" "$@"']  # setpriv itself would start it as root
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        for python in filter(None, (sys.executable, shutil.which("python3", path=os.defpath))):
            if not subprocess.run([*become, python, "-c", "import docker"], env=env, capture_output=True).returncode:
                break
        else:
            pytest.skip("another user cannot start this Python")
        home = Path(tempfile.mkdtemp())
        folder = home / f"run-{secrets.token_hex(4)}"
        folder.mkdir()
        for path in (home, folder):
            os.chown(path, 23456, 23456)
        env["HOME"] = str(home)

        def run(image: str) -> tuple[subprocess.CompletedProcess, Path]:
            line = [*become, python, "-c", self.AS_SOMEBODY, str(folder), image]
            return subprocess.run(line, capture_output=True, text=True, timeout=60, env=env), folder

        yield run
        shutil.rmtree(home)

    @pytest.mark.parametrize("image", ["plain", "numeric", "named"])
    def test_an_ordinary_user_can_read_and_remove_what_a_container_wrote(self, as_somebody, images, image):
        ended, folder = as_somebody(images[image])
        assert ended.stdout == "1\n False\n", ended.stderr
        assert {path.stat().st_uid for path in folder.rglob("*")} == {23456}

    def test_outputs_that_an_ordinary_user_cannot_read_fail_the_task(self, as_somebody, images):
        ended, folder = as_somebody(images["pathless"])
        last = ended.stderr.splitlines()[-1]
        assert "TaskError: task: its outputs cannot be read: what it wrote belongs to the user of its container" in last
        assert "penstock: what it wrote belongs to" in said(folder)


@pytest.mark.docker
class TestItsEnd:
    STUBBORN = "trap '' TERM INT; echo begun; while true; do sleep 0.1; done"
    GENTLE = "trap 'echo ended gently; exit 0' TERM; echo begun; while true; do sleep 0.1; done"

    @contextlib.contextmanager
    def at_work(self, inside, place, script: str, stop: launcher.Stop):
        runner = inside("plain")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(carry_out, runner, place, shell(script), stop=stop)
            wait_for(lambda: (place / "tasks/task/log.txt").exists() and "begun" in said(place))
            yield running

    def test_a_task_that_takes_too_long_is_ended(self, inside, place, engine):
        begin = time.monotonic()
        with pytest.raises(launcher.TaskError, match=r"timed out after 0\.5 s"):
            carry_out(
                inside("plain", timeout=50),
                place,
                shell(self.GENTLE, timeout=0.5),
                stop=launcher.Stop(grace=30),
            )
        assert "ended gently" in said(place)
        assert time.monotonic() - begin < 20

    def test_the_shorter_timeout_counts_and_who_ignores_it_is_killed(self, inside, place):
        with pytest.raises(launcher.TaskError, match=r"timed out after 0\.5 s"):
            carry_out(
                inside("plain", timeout=0.5),
                place,
                shell(self.STUBBORN, timeout=50),
                stop=launcher.Stop(grace=1),
            )

    def test_a_task_that_closed_its_output_times_out_too(self, inside, place):
        with pytest.raises(launcher.TaskError, match="timed out after 1 s"):
            carry_out(
                inside("plain"),
                place,
                shell("exec >&- 2>&-; sleep 100", timeout=1),
                stop=launcher.Stop(grace=1),
            )

    def test_a_stop_reaches_the_command_before_it_is_killed(self, inside, place, engine):
        stop = launcher.Stop(grace=30)
        with self.at_work(inside, place, self.GENTLE, stop) as running:
            stop.request()
            with pytest.raises(launcher.Stopped):
                running.result(timeout=20)
        assert "ended gently" in said(place)
        wait_for(lambda: not listed(engine, place.name))

    def test_a_stop_reaches_a_command_that_handles_no_signal(self, inside, place):
        stop = launcher.Stop(grace=30)
        with self.at_work(inside, place, "echo begun; exec sleep 100", stop) as running:
            stop.request()
            with pytest.raises(launcher.Stopped):
                running.result(timeout=20)

    def test_a_stop_kills_after_the_grace(self, inside, place, engine):
        stop = launcher.Stop(grace=1)
        with self.at_work(inside, place, self.STUBBORN, stop) as running:
            begin = time.monotonic()
            stop.request()
            assert time.monotonic() - begin < 1, "it does not wait for the grace"
            with pytest.raises(launcher.Stopped):
                running.result(timeout=20)
        assert 1 < time.monotonic() - begin < 10
        wait_for(lambda: not listed(engine, place.name))

    def test_a_second_stop_kills_at_once(self, inside, place):
        stop = launcher.Stop(grace=60)
        with self.at_work(inside, place, self.STUBBORN, stop) as running:
            stop.request()
            stop.kill()
            with pytest.raises(launcher.Stopped):
                running.result(timeout=20)

    def test_nothing_starts_after_a_stop(self, inside, place, engine):
        stop = launcher.Stop()
        stop.request()
        with pytest.raises(launcher.Stopped):
            carry_out(inside("plain"), place, shell("true"), stop=stop)
        assert said_nothing(place)

    def test_leaving_removes_what_is_still_at_work(self, images, place, engine):
        with Containers(place, place.name) as containers:
            runner = containers.runner(images["plain"], setting=Setting())
            stop = launcher.Stop()
            thread = threading.Thread(target=ended, args=(carry_out, runner, place, shell(self.STUBBORN), stop))
            thread.start()
            wait_for(lambda: (place / "tasks/task/log.txt").exists() and "begun" in said(place))
        assert listed(engine, place.name) == []
        thread.join(20)
        assert not thread.is_alive()

    PROGRAM = """
import sys
from pathlib import Path
from penstock.compile import launcher
from penstock.compile.targets.local.containers import Containers
from penstock.compile.targets.local.setting import Setting

folder, image, script = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with Containers(folder, folder.name) as containers:
    runner = containers.runner(image, setting=Setting())
    launcher.run(launcher.Task("task", ["sh", "-c", script]), {}, {}, folder / "tasks/task", env={}, runner=runner)
"""

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_an_engine_that_is_killed_leaves_no_container(self, images, place, engine, number):
        program = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, str(place), images["plain"], self.STUBBORN], stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: listed(engine, place.name))
            program.send_signal(number)
            wait_for(lambda: not listed(engine, place.name))
        finally:
            program.kill()
            program.wait()

    def test_a_resumed_run_finds_no_container_of_its_killed_engine(self, images, place, engine):
        labels = {"penstock.run": place.name, "penstock.folder": str(place)}
        left = engine.create_container(images["plain"], ["sleep", "100"], labels=labels)["Id"]
        engine.start(left)
        other = engine.create_container(images["plain"], ["sleep", "100"], labels={"penstock.run": place.name})["Id"]
        with Containers(place, place.name):
            assert listed(engine, place.name) == [other]


def said_nothing(place: Path) -> bool:
    log = place / "tasks/task/log.txt"
    return not log.exists() or not log.read_text()


def ended(function, runner, place, task, stop):
    with contextlib.suppress(launcher.TaskError):
        function(runner, place, task, stop=stop)


class Proxy:
    """Stands between a client and the engine, and can go away or fall silent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.silent = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(32)
        self.open: list[socket.socket] = [self.listener]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect("/var/run/docker.sock")
                self.open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self.copy, args=(source, target), daemon=True).start()

    def copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                if not self.silent.is_set():
                    target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.path.unlink(missing_ok=True)
        for end in self.open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.docker
class TestAnEngineThatFails:
    @pytest.fixture
    def proxy(self, engine, monkeypatch):
        if not Path("/var/run/docker.sock").exists():
            pytest.skip("the engine is not at /var/run/docker.sock")
        folder = Path(tempfile.mkdtemp())
        found = Proxy(folder / "engine.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{found.path}")
        yield found
        found.close()
        shutil.rmtree(folder)

    @pytest.mark.parametrize("way", ["gone", "silent"])
    def test_an_engine_that_vanishes_fails_the_task_and_is_not_waited_for(self, proxy, images, place, monkeypatch, way):
        monkeypatch.setattr(module, "_DEADLINE", 1.0)
        monkeypatch.setattr(module, "_SILENCE", 0.3)
        begin = time.monotonic()
        with Containers(place, place.name) as containers:
            runner = containers.runner(images["plain"], setting=Setting())
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(carry_out, runner, place, shell("echo begun; sleep 100"))
                wait_for(lambda: (place / "tasks/task/log.txt").exists() and "begun" in said(place))
                proxy.close() if way == "gone" else proxy.silent.set()
                with pytest.raises(launcher.TaskError, match="the container engine no longer answers"):
                    running.result(timeout=20)
        assert time.monotonic() - begin < 20


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:9"])
def test_without_an_engine_one_line_says_what_to_do(monkeypatch, tmp_path, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    reason = available()
    assert reason.startswith(f"no container engine answers at DOCKER_HOST={host}: ")
    assert reason.endswith(("its socket is not there", "Connection refused"))
    with pytest.raises(PenstockError) as caught, Containers(tmp_path, "run"):
        pytest.fail("it was entered")
    assert str(caught.value) == f"{reason}; start Docker, or use --runner subprocess"


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=20),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_output_is_the_same_however_it_arrives(frames, sizes):
    whole = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in frames)
    written = []
    take, position = module._Demultiplexer(written.append), 0
    for index in range(len(whole)):
        size = sizes[index % len(sizes)]
        take(whole[position : position + size])
        position += size
    assert b"".join(written) == b"".join(data for _, data in frames)


class Registry(http.server.BaseHTTPRequestHandler):
    """Serves one image, image:1, of one layer."""

    protocol_version = "HTTP/1.1"
    blobs: dict[str, bytes]
    manifest: bytes
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if self.path == "/v2/":
            self.answer(b"{}", "application/json")
        elif self.path.startswith("/v2/image/manifests/") and name in ("1", digest(self.manifest)):
            self.answer(self.manifest, "application/vnd.docker.distribution.manifest.v2+json")
        elif name in self.blobs:
            self.answer(self.blobs[name], "application/octet-stream")
        else:
            self.answer(
                b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}', "application/json", 404
            )

    do_HEAD = do_GET

    def answer(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest(content))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.docker
class TestImages:
    @pytest.fixture
    def registry(self, engine, file_system):
        """A registry and the name of its one image."""
        mark = secrets.token_hex(8)
        layer = gzip.compress(file_system)
        config = json.dumps(
            {
                "architecture": engine.version()["Arch"],
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Labels": {"mark": mark}},
                "rootfs": {"type": "layers", "diff_ids": [digest(file_system)]},
                "history": [{"created_by": "test"}],
            }
        ).encode()
        image = "application/vnd.docker.container.image.v1+json"
        tar = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"mediaType": image, "size": len(config), "digest": digest(config)},
                "layers": [{"mediaType": tar, "size": len(layer), "digest": digest(layer)}],
            }
        ).encode()
        blobs = {digest(config): config, digest(layer): layer}
        handler = type("Handler", (Registry,), {"blobs": blobs, "manifest": manifest, "asked": []})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            name = f"127.0.0.1:{server.server_port}/image:1"
            yield handler, name
            server.shutdown()
        with contextlib.suppress(ImageNotFound):
            engine.remove_image(name, force=True)

    def test_an_image_that_is_not_here_is_fetched_once(self, containers, registry, place):
        handler, name = registry
        told = []
        containers.prepare({name: False}, told.append)
        assert told == [f"fetching image {name}"]
        asked = len(handler.asked)
        containers.prepare({name: False}, told.append)
        carry_out(containers.runner(name, setting=Setting()), place, shell("echo hello"))
        assert (len(handler.asked), len(told), said(place)) == (asked, 1, "hello\n")

    def test_an_image_that_is_here_is_fetched_where_that_is_asked_for(self, containers, registry, place, engine):
        handler, name = registry
        engine.pull(name)
        containers.prepare({name: False})
        asked = len(handler.asked)
        runner = containers.runner(name, setting=Setting(always_pull=True))
        carry_out(runner, place, shell("true"))
        fetched = len(handler.asked)
        assert fetched > asked
        carry_out(runner, place, shell("true"))
        assert len(handler.asked) == fetched

    def test_a_run_keeps_to_the_image_that_it_began_with(self, containers, images, place, engine):
        repository = f"penstock-test-{secrets.token_hex(4)}"
        engine.tag(images["plain"], repository, "1")
        try:
            containers.prepare({f"{repository}:1": False})
            before = containers.identity(f"{repository}:1")
            engine.tag(images["elsewhere"], repository, "1")
            assert printed(containers.runner(f"{repository}:1", setting=Setting()), place, "pwd") == "/\n"
            assert before == containers.identity(images["plain"]) != containers.identity(images["elsewhere"])
        finally:
            engine.remove_image(f"{repository}:1")

    def test_all_images_that_cannot_be_had_are_named_in_one_line(self, containers, registry, images):
        _, name = registry
        missing = [f"{name[:-1]}2", "127.0.0.1:9/none:1"]
        with pytest.raises(PenstockError) as caught:
            containers.prepare(dict.fromkeys([*missing, images["plain"]], False))
        text = str(caught.value)
        assert all(f"{name}: " in text for name in missing)
        assert images["plain"] not in text
        assert "\n" not in text
        assert "manifest" in text
        assert "connection refused" in text

    def test_an_image_that_cannot_be_had_fails_its_task(self, containers, place):
        with pytest.raises(launcher.TaskError, match=r"127\.0\.0\.1:9/none:1.*connection refused"):
            carry_out(containers.runner("127.0.0.1:9/none:1", setting=Setting()), place, shell("true"))

    def test_a_registry_that_says_nothing_is_given_up(self, containers, monkeypatch):
        monkeypatch.setattr(module, "_FETCH_SILENCE", 1.0)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            name = f"127.0.0.1:{silent.getsockname()[1]}/image:1"
            with pytest.raises(PenstockError, match="no news from its registry for 1 s"):
                containers.prepare({name: False})


@pytest.mark.docker
def test_folders_that_an_image_shares_are_written_by_one_task_after_another(engine, images, tmp_path):
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    with Containers(folder, f"run-{secrets.token_hex(4)}", tmp_path) as found:
        runner = found.runner(images["sharing"], setting=Setting())
        script = 'echo $0 >>"$PENSTOCK_ROOT/registry/db"; ls "$PENSTOCK_ROOT"'
        for name in ("first", "second"):
            carry_out(runner, folder, shell(script, name), name)
            with (tmp_path / "registry" / "db").open("a") as file:  # as a task in a process does
                file.write("here\n")
    assert (tmp_path / "registry" / "db").read_text().split() == ["first", "here", "second", "here"]
    assert said(folder, "first").split() == ["registry", "runs"]


@pytest.mark.docker
def test_an_image_that_shares_nothing_sees_nothing_of_the_root(engine, images, tmp_path):
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (tmp_path / "registry").mkdir()
    with Containers(folder, f"run-{secrets.token_hex(4)}", tmp_path) as found:
        runner = found.runner(images["numeric"], setting=Setting())
        assert printed(runner, folder, f'ls {tmp_path}; echo "<$PENSTOCK_ROOT>"').split() == ["runs", "<>"]


@pytest.mark.docker
def test_containers_have_the_network_that_is_asked_for(engine, images, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with Containers(folder, f"run-{secrets.token_hex(4)}", network="none") as found:
        runner = found.runner(images["plain"], setting=Setting())
        assert printed(runner, folder, "ls /sys/class/net").split() == ["lo"]


@pytest.mark.docker
def test_images_that_are_built_here_are_never_looked_for_at_a_registry(containers):
    told = []
    with pytest.raises(PenstockError, match=r"penstock/nothing:1: is not here, where `penstock images build` makes it"):
        containers.prepare({"penstock/nothing:1": False}, told.append)
    assert told == []
