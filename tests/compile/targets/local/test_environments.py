"""Packages that tasks install go into environments of their own, made once, and never into the user's."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
from kfp import dsl

from penstock.compile import commands, from_kfp, graph, launcher
from penstock.compile.targets.local import convert, environments
from penstock.compile.targets.local.environments import Environments

HERE = "iniconfig"  # a small package that is installed here


def wheel(folder: Path, name: str, number: str = "1.0", body: str = "", files: dict[str, str] | None = None) -> Path:
    """Write a wheel with one module, `name`, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{number}-py3-none-any.whl"
    info = f"{name}-{number}.dist-info"
    content = {
        **(files or {f"{name}.py": body or f"number = {number!r}\n"}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in content) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**content, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def made(tmp_path):
    """Return a function that asks for an environment, by default of tmp_path/root."""
    kept = Environments(tmp_path / "root")

    def make(*installs, log=tmp_path / "log.txt", stop=None, of=kept, env=None) -> Path:
        return of.python(installs, log=log, stop=stop or launcher.Stop(), env=env)

    return make


@pytest.fixture
def silent():
    """Return the address of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def said(bin: Path, code: str) -> str:
    env = environments.within(bin, os.environ)
    return subprocess.run(["python3", "-c", code], env=env, check=True, capture_output=True, text=True).stdout.strip()


def offline(*words: str) -> tuple[str, ...]:
    return ("--quiet", "--no-index", *words)


def test_a_package_is_installed_beside_what_is_here_and_not_into_it(made, tmp_path):
    bin = made(offline(f"tinypack @ {wheel(tmp_path, 'tinypack').as_uri()}"))
    assert bin.parent.parent == tmp_path / "root" / "environments"
    assert said(bin, "import tinypack, kfp.dsl, penstock.compile; print(tinypack.number)") == "1.0"
    assert said(bin, "import os, shutil; print(os.environ['VIRTUAL_ENV'], shutil.which('python3'))").split() == [
        str(bin.parent), str(bin / "python3"),
    ]  # fmt: skip
    with pytest.raises(ModuleNotFoundError):
        import tinypack  # noqa: F401


def test_another_version_of_what_is_here_wins_inside_and_the_one_here_stays(made, tmp_path):
    before = version(HERE)
    wheel(tmp_path / "wheels", HERE, "99.0")
    bin = made(offline("--find-links", str(tmp_path / "wheels"), f"{HERE}==99.0"))
    inside = said(bin, f"import importlib.metadata, {HERE}; print(importlib.metadata.version('{HERE}'), {HERE}.number)")
    assert inside == "99.0 99.0"
    assert version(HERE) == before
    assert (Path(sys.prefix) / "lib").is_dir()
    whole = subprocess.run(
        [sys.executable, "-c", f"import {HERE}; print({HERE}.__file__)"], capture_output=True, text=True
    )
    assert whole.stdout.startswith(sys.prefix)


def test_what_is_here_in_a_fitting_version_is_not_installed_again(made):
    bin = made(offline(HERE))
    assert said(bin, f"import {HERE}; print({HERE}.__file__)").startswith(sys.prefix)


def test_a_module_of_a_namespace_that_others_here_share_is_found(made, tmp_path):
    path = wheel(tmp_path, "ours", files={"google/ours.py": "number = 1\n", "google/protobuf_too/__init__.py": ""})
    bin = made(offline(f"ours @ {path.as_uri()}"))
    assert said(bin, "import google.protobuf, google.ours; print(google.ours.number)") == "1"


def test_an_environment_is_made_once_and_found_in_no_time(made, tmp_path):
    words = offline(f"tinypack @ {wheel(tmp_path, 'tinypack').as_uri()}")
    bin = made(words)
    begin = time.monotonic()
    assert made(words, log=tmp_path / "second.txt") == bin
    assert time.monotonic() - begin < 1
    assert not (tmp_path / "second.txt").exists()
    assert made(words, of=Environments(tmp_path / "root")) == bin
    assert (tmp_path / "log.txt").read_text().count("--- installing") == 1


@pytest.mark.slow
def test_other_packages_other_settings_and_other_content_make_another_environment(made, tmp_path):
    path = wheel(tmp_path, "tinypack")
    words = offline(f"tinypack @ {path.as_uri()}")
    first = made(words)
    assert len({first, made(), made(env={**os.environ, "PIP_PRE": "1"}), made(("--pre", HERE))}) == 4
    wheel(tmp_path, "tinypack", body="number = 'changed'\n")
    assert said(made(words), "import tinypack; print(tinypack.number)") == "changed"


def test_twenty_that_ask_at_once_make_one(made, tmp_path):
    words = offline(f"tinypack @ {wheel(tmp_path, 'tinypack').as_uri()}")
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda number: made(words, log=tmp_path / f"{number}" / "log.txt"), range(20)))
    assert len(set(found)) == 1
    logs = [path.read_text() for path in tmp_path.glob("*/log.txt")]
    assert len([text for text in logs if "--- installing tinypack @" in text]) == 1


@pytest.mark.slow
def test_runs_of_two_engines_make_one(tmp_path):
    words = offline(f"tinypack @ {wheel(tmp_path, 'tinypack').as_uri()}")
    code = f"""
        from pathlib import Path
        import sys
        from penstock.compile import launcher
        from penstock.compile.targets.local.environments import Environments
        log = Path(sys.argv[1])
        print(Environments(Path({str(tmp_path)!r})).python([{words!r}], log=log, stop=launcher.Stop()))
    """
    line = [sys.executable, "-c", textwrap.dedent(code)]
    logs = [tmp_path / "1.txt", tmp_path / "2.txt"]
    both = [subprocess.Popen([*line, str(log)], stdout=subprocess.PIPE, text=True) for log in logs]
    assert len({one.communicate()[0] for one in both}) == 1
    assert sum(log.exists() and "--- installing" in log.read_text() for log in logs) == 1


@pytest.mark.slow
def test_a_half_made_one_and_one_whose_python_has_gone_are_made_again(made, tmp_path):
    words = offline(f"tinypack @ {wheel(tmp_path, 'tinypack').as_uri()}")
    bin = made(words)
    (bin.parent / "penstock.json").unlink()
    (bin.parent / "junk").touch()
    assert made(words) == bin
    assert not (bin.parent / "junk").exists()
    for link in bin.glob("python*"):
        link.unlink()
        link.symlink_to(tmp_path / "gone")
    assert said(made(words), "import tinypack; print(tinypack.number)") == "1.0"


def test_a_package_that_is_nowhere_is_one_line_and_leaves_nothing(made, tmp_path):
    with pytest.raises(launcher.TaskError) as caught:
        made(offline("--find-links", str(tmp_path), "nosuchpackage==7"))
    message = str(caught.value)
    assert message.startswith(
        "cannot install nosuchpackage==7: pip: No matching distribution found for nosuchpackage==7;"
    )
    assert message.endswith(f"or this machine offline; see {tmp_path / 'log.txt'}")
    assert caught.value.exit_code == 1
    assert [path.suffix for path in (tmp_path / "root" / "environments").iterdir()] == [".lock"]


@pytest.mark.slow
def test_those_who_wait_for_one_that_fails_fail_with_it_and_a_later_attempt_tries_again(made, tmp_path):
    words = offline("--find-links", str(tmp_path / "wheels"), "late")
    (tmp_path / "wheels").mkdir()

    def attempt(number: int) -> str:
        with pytest.raises(launcher.TaskError) as caught:
            made(words, log=tmp_path / f"{number}" / "log.txt")
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        messages = set(pool.map(attempt, range(8)))
    assert len(messages) == 1
    wheel(tmp_path / "wheels", "late")
    assert said(made(words), "import late; print(late.number)") == "1.0"


def test_an_index_out_of_reach_is_told_as_such_without_its_password(made, tmp_path):
    env = {**os.environ, "INDEX_TOKEN": "hush-token"}
    words = ("--quiet", "--index-url", "http://me:${INDEX_TOKEN}@127.0.0.1:9/simple",
             "--extra-index-url", "http://you:hush-password@127.0.0.1:9/simple?key=hush-query",
             "absent",
             "other @ http://me:hush-password@127.0.0.1:9/other-1-py3-none-any.whl?sig=hush-query")  # fmt: skip
    with pytest.raises(launcher.TaskError, match="this machine may be offline") as caught:
        made(words, env=env)
    assert "cannot install absent, other @ http://127.0.0.1:9/other-1-py3-none-any.whl?…: pip: " in str(caught.value)
    assert "hush" not in str(caught.value)


def test_no_password_is_kept_and_a_new_one_finds_the_same_environment(made, tmp_path):
    path = wheel(tmp_path, "tinypack").as_uri()
    bins = {
        made(offline("--extra-index-url", f"http://me:{word}@127.0.0.1:9/simple", f"tinypack @ {path}"))
        for word in ("hush-one", "hush-two")
    }
    (bin,) = bins
    marker = json.loads((bin.parent / "penstock.json").read_text())
    assert marker["packages"] == [f"tinypack @ {path}"]
    for file in [bin.parent / "penstock.json", tmp_path / "log.txt"]:
        assert "hush" not in file.read_text()


def test_a_stop_ends_pip_and_leaves_nothing(made, silent, tmp_path):
    stop = launcher.Stop(grace=0.5)
    threading.Timer(1.5, stop.request).start()
    begin = time.monotonic()
    with pytest.raises(launcher.Stopped):
        made(("--index-url", f"http://{silent}/simple", "absent"), stop=stop)
    assert time.monotonic() - begin < 8
    assert [path.suffix for path in (tmp_path / "root" / "environments").iterdir()] == [".lock"]


def test_a_stop_ends_the_wait_for_another(made, silent, tmp_path):
    words = ("--index-url", f"http://{silent}/simple", "absent")
    first, second = launcher.Stop(grace=0.5), launcher.Stop()
    ended = []

    def attempt() -> None:
        with pytest.raises(launcher.Stopped):
            made(words, stop=first)
        ended.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    while "--- installing" not in ((tmp_path / "log.txt").read_text() if (tmp_path / "log.txt").exists() else ""):
        time.sleep(0.02)
    threading.Timer(0.3, second.request).start()
    with pytest.raises(launcher.Stopped):
        made(words, log=tmp_path / "second.txt", stop=second)
    assert "--- waiting for another task" in (tmp_path / "second.txt").read_text()
    first.request()
    thread.join()
    assert ended


def test_an_index_that_never_answers_is_given_up(made, silent, monkeypatch):
    monkeypatch.setattr(environments, "DEADLINE", 1.0)
    with pytest.raises(launcher.TaskError, match="cannot install absent: timed out after"):
        made(("--index-url", f"http://{silent}/simple", "absent"), stop=launcher.Stop(grace=0.5))


@pytest.mark.slow
def test_without_pip_here_one_is_put_into_the_environment(made, tmp_path):
    bare, top = tmp_path / "bare", Path(launcher.__file__).parents[2]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    code = f"""
        from pathlib import Path
        import sys, types
        sys.path.append({os.fspath(top)!r})
        package = types.ModuleType("penstock.compile.targets.local")  # without what its __init__ needs
        package.__path__ = [{os.fspath(Path(environments.__file__).parent)!r}]
        sys.modules[package.__name__] = package
        from penstock.compile import launcher
        from penstock.compile.targets.local.environments import Environments
        words = {offline(f"tinypack @ {wheel(tmp_path, 'tinypack').as_uri()}")!r}
        print(Environments(Path({str(tmp_path)!r})).python([words], log=Path("log.txt"), stop=launcher.Stop()))
    """
    line = [bare / "bin" / "python", "-c", textwrap.dedent(code)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert said(Path(done.stdout.strip()), "import tinypack; print(tinypack.number)") == "1.0"


def test_a_lightweight_component_finds_its_package_and_kfp(made, tmp_path, compiled):
    source = wheel(tmp_path, "tinypack").as_uri()

    @dsl.component(base_image="python:3.11", packages_to_install=[f"tinypack @ {source}"])
    def using() -> str:
        import tinypack

        return tinypack.number

    (task,) = from_kfp.read(compiled(using)).dag.tasks.values()
    assert isinstance(task.component.body, graph.Container)
    installs = commands.start_installs(task.component.body.command)
    runner = Environments(tmp_path / "root").runner(installs)
    for number in range(2):
        outputs = launcher.run(convert.task(task), {}, {}, tmp_path / f"{number}", runner=runner)
        assert outputs.parameters == {"Output": "1.0"}
    assert "--- installed in" in (tmp_path / "0" / "log.txt").read_text()
    assert "--- install" not in (tmp_path / "1" / "log.txt").read_text()
    shutil.rmtree(tmp_path / "root")
    wheel(tmp_path, "tinypack").unlink()
    with pytest.raises(launcher.TaskError, match=r"^using: cannot install tinypack @ file:"):
        launcher.run(convert.task(task), {}, {}, tmp_path / "2", runner=runner)
