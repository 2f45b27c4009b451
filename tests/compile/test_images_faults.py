"""What goes wrong with engines, registries and disks ends in one clear line, and leaves no half of a file."""

import base64
import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.compile import container_engine, images
from penstock.compile.errors import PenstockError
from tests.compile.machines import BASE, MEGABYTE, machine
from tests.compile.test_images import (  # noqa: F401  fixtures
    DIGEST,
    PENSTOCK,
    compile_there,
    engine,
    environment,
    one_line,
    penstock,
    project,
    repository,
    write_dockerfile,
)
from tests.conftest import serving

PASSWORD = "open-sesame"
# What `htpasswd -nbB -C 5 ada` says of it.
HTPASSWD = "ada:$2y$05$2bRq7n4FoiLRnosi5lRxR.VS5uK.J1hYiKqjnylN39pQuKMLkHTmi\n"

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def digests(folder: Path) -> list[str]:
    """Return the names of all that is, or was to become, containers/digests.json."""
    return [path.name for path in (folder / "containers").iterdir() if "digests" in path.name]


@pytest.fixture
def guarded(tmp_path) -> Iterator[str]:
    """Address of a registry that wants a user and a password."""
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    with serving(tmp_path, auth={"htpasswd": {"realm": "here", "path": str(users)}}) as address:
        yield address


def test_a_registry_that_wants_a_login_gets_neither_image_nor_digest(repository, engine, guarded, tmp_path):  # noqa: F811
    build = penstock("images", "build", "one", "--registry", guarded, cwd=repository)
    assert build.returncode == 0, "what cannot be had is built"
    assert f"{guarded}/one" in build.stderr
    assert "no basic auth credentials" in build.stderr
    line = one_line(penstock("images", "push", "one", "--registry", guarded, cwd=repository))
    assert f"{guarded}/one: cannot be pushed: no basic auth credentials; log in with `docker login`" in line
    wrong = login(tmp_path / "wrong", guarded, "ada", "guess-of-mine")
    line = one_line(penstock("images", "push", "one", "--registry", guarded, cwd=repository, DOCKER_CONFIG=wrong))
    assert "cannot be pushed: unauthorized" in line
    assert "guess-of-mine" not in line
    assert digests(repository) == []


def test_who_has_logged_in_pushes_there(repository, engine, guarded, tmp_path):  # noqa: F811
    engine.build(environment(repository))
    config = login(tmp_path / "right", guarded, "ada", PASSWORD)
    done = penstock("images", "push", "one", "--registry", guarded, cwd=repository, DOCKER_CONFIG=config)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert digests(repository) == ["digests.json"]


def login(folder: Path, registry: str, user: str, password: str) -> str:
    """Return a folder for DOCKER_CONFIG that says what `docker login` has noted."""
    folder.mkdir()
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": word}}}))
    return str(folder)


@contextlib.contextmanager
def stalling(greets: bool) -> Iterator[tuple[str, threading.Event]]:
    """Serve a registry that answers nothing, or just that it is one; yield its address and what tells of a question."""
    asked, end = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if greets and self.path == "/v2/":
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                return
            asked.set()
            end.wait(60)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    address = f"127.0.0.1:{server.server_port}"
    try:
        yield address, asked
    finally:
        end.set()
        server.shutdown()
        thread.join()
        server.server_close()
        subprocess.run(["docker", "rmi", *named_after(address)], capture_output=True)


def named_after(address: str) -> list[str]:
    command = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if name.startswith(f"{address}/")]


@pytest.mark.parametrize("greets", [False, True], ids=["answers nothing", "stalls"])
def test_a_registry_that_does_not_go_on_is_given_up(repository, engine, monkeypatch, greets):  # noqa: F811
    built = engine.build(environment(repository))
    monkeypatch.setattr(images, "_STALLED", 2.0)
    began = time.monotonic()
    with (
        stalling(greets) as (address, _),
        pytest.raises(PenstockError, match=rf"{address}/one: cannot be pushed: no news for 2 s; .*--registry"),
    ):
        engine.push(built, address)
    assert time.monotonic() - began < 50


def test_an_image_is_built_where_the_registry_that_may_have_it_stalls(repository, engine, monkeypatch):  # noqa: F811
    monkeypatch.setattr(container_engine, "_FETCH_SILENCE", 2.0)
    began = time.monotonic()
    with stalling(greets=True) as (address, _):
        assert engine.build(environment(repository), address).seconds is not None
    assert "one: cannot be had there: no news from its registry for 2 s" in engine.said
    assert time.monotonic() - began < 50


def test_a_build_that_says_nothing_is_given_up(repository, engine, monkeypatch):  # noqa: F811
    monkeypatch.setattr(images, "_SILENCE", 2.0)
    write_dockerfile(repository, run="sleep 30")
    with pytest.raises(PenstockError, match=r"one: cannot be built: no news for 2 s"):
        engine.build(environment(repository))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_push_ends_on_a_signal_and_leaves_no_digests(repository, engine, number):  # noqa: F811
    engine.build(environment(repository))
    with stalling(greets=True) as (address, asked):
        process = subprocess.Popen(
            [PENSTOCK, "images", "push", "one", "--registry", address],
            cwd=repository,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(120)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == f"stopped by {number.name}"
    assert digests(repository) == []


def test_digests_stay_whole_where_their_disk_is_full(repository):  # noqa: F811
    one, two = images.environments(repository)
    with small_disk(repository / "containers"):
        path = images.write_digests(repository, "r.example", {one: ("t1", DIGEST)})
        before = path.read_bytes()
        with contextlib.suppress(OSError):
            (path.parent / "ballast").write_bytes(bytes(MEGABYTE))
        with pytest.raises(PenstockError, match=r"digests\.json: cannot be written: No space left on device"):
            images.write_digests(repository, "r.example", {two: ("t2", DIGEST)})
        assert path.read_bytes() == before
        assert digests(repository) == ["digests.json"]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put what a folder holds on a disk of 128 kB."""
    if os.geteuid():
        pytest.skip("a disk of one's own needs root")
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("RUN head -c 60000000 /dev/zero > /big", id="a command writes"),
        pytest.param("COPY big /big", id="the engine writes"),
    ],
)
def test_a_disk_that_is_full_ends_the_build_and_says_how_to_free_it(repository, engine, what, tmp_path):  # noqa: F811
    write_dockerfile(repository)
    dockerfile = repository / "containers" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + f"USER root\n{what}\n")
    (repository / "big").write_bytes(os.urandom(60_000_000))
    with machine([BASE], spare=20 * MEGABYTE) as address:
        line = one_line(penstock("images", "build", "one", cwd=repository, DOCKER_HOST=address, TMPDIR=str(tmp_path)))
        assert line.startswith("error: one: cannot be built: ")
        assert "no space left on device" in line.lower()
        assert line.endswith(
            "free some of the disk that holds the engine's images, for example with `docker image prune`"
        )
        push = penstock("images", "push", "one", "--registry", "127.0.0.1:9", cwd=repository, DOCKER_HOST=address)
        assert "penstock images build one" in one_line(push)
    assert digests(repository) == []
    assert "penstock images push" in one_line(compile_there(repository, "--registry", "127.0.0.1:9"))
