"""A task that is forked does what it does as a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kfp import dsl

from penstock.compile import launcher
from penstock.compile.targets.local.forkserver import ForkServer

HEAD = "\nimport kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def compiled():
    pass


SCRIPT = compiled.component_spec.implementation.container.command[2]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **more}


@pytest.fixture(scope="module")
def server():
    with ForkServer(environment()) as server:
        yield server


def start(runner, source, folder, *, env=None, script=SCRIPT, **how):
    """Return the exit code of a program as a component; its output is in log.txt."""
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    given = {"inputs": {}, "outputs": {"outputFile": str(folder / "output.json")}}
    temporary = launcher._short(work)
    try:
        return runner(
            ["sh", "-ec", script, HEAD + source],
            ["--executor_input", json.dumps(given), "--function_to_execute", "main"],
            {**(env or environment()), "TMPDIR": str(temporary)},
            work,
            folder / "log.txt",
            **{"stop": launcher.Stop(), **how},
        )
    finally:
        if temporary != work:
            temporary.unlink()


def function(body, before=""):
    return f"{textwrap.dedent(before)}\ndef main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"


def steady(text, folder):
    """Return a text without what is new every time."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"/[^\s'\"`]*/penstock-[0-9a-f]{8}\b", "FOLDER/work", text)
    text = re.sub(r"/tmp\.\w{10}\b", "/TEMPORARY", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "TIME", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def said(folder):
    """Return what a program said, without what KFP's executor did."""
    lines = (folder / "log.txt").read_text().splitlines()
    return [line for line in launcher._without_executor(lines) if line]


def both_ways(server, source, tmp_path, monkeypatch, **how):
    """Return exit code, output and the reason of a failure, of a process of its own and of a fork."""
    found = []
    for name in ("plain", "forked"):
        folder = tmp_path / name[0]  # of one length: reasons are cut
        with monkeypatch.context() as patch:
            runner = launcher.run_process
            if name == "forked":
                runner = server.run
                patch.setattr(launcher, "run_process", lambda *_, **__: pytest.fail("was not forked"))
            code = start(runner, source, folder, **how)
        log = folder / "log.txt"
        reason = steady(launcher.failure(code, log), folder)
        found.append((code, steady(log.read_text(errors="replace"), folder), reason))
    return found


@pytest.fixture
def forked(server, monkeypatch):
    """The runner, with the other way barred."""
    monkeypatch.setattr(launcher, "run_process", lambda *_, **__: pytest.fail("was not forked"))
    return server.run


PROGRAMS = {
    "success": "print('hello')",
    "no line end": "print('hello', end='')",
    "an exception": """
        def inner(depth):
            if depth:
                inner(depth - 1)
            raise ValueError('no good')
        try:
            inner(2)
        except ValueError as error:
            raise RuntimeError('worse') from error
        """,
    "an exception with a note": "error = ValueError(1); error.add_note('note'); raise error",
    "a group of exceptions": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "a user's error": "import sys; print('error: mend it', file=sys.stderr); sys.exit(65)",
    "exit with text": "import sys; sys.exit('text')",
    "exit without code": "import sys; sys.exit()",
    "exit with a large code": "import sys; sys.exit(300)",
    "exit at once": "import os; print('said'); os._exit(3)",
    "a hook for exceptions": """
        import sys, traceback
        sys.excepthook = lambda kind, value, trace: print('hook', kind, value, traceback.format_tb(trace))
        raise ValueError(3)
        """,
    "an exception in a thread": """
        import threading
        def inner():
            raise ValueError(1)
        thread = threading.Thread(target=inner); thread.start(); thread.join()
        """,
    "an exception in a destructor": """
        class Object:
            def __del__(self):
                raise ValueError('in the destructor')
        Object()
        """,
    "output by several": """
        import os, subprocess
        print('a')
        os.system('echo b')
        subprocess.run('echo c; echo d >&2', shell=True)
        os.write(1, b'e')
        print('f')
        """,
    "no input": "import sys; print(repr(sys.stdin.read()), sys.stdin.isatty()); input()",
    "logging": "import logging; logging.info('i'); logging.getLogger('x').error('e'); logging.debug('d')",
    "warnings": "import warnings; warnings.warn('w'); warnings.warn('d', DeprecationWarning)",
    "a module that is not there": "import does_not_exist",
    "its own source": """
        import inspect, pickle
        print(__file__, __name__, inspect.getsource(main), pickle.loads(pickle.dumps(main)) is main)
        """,
    "temporary files": """
        import os, tempfile
        print(os.path.dirname(tempfile.mkdtemp()), tempfile.gettempdir())
        """,
    "a thread that ends late": """
        import threading, time
        threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()
        """,
    "the end of the interpreter": """
        import atexit
        atexit.register(print, 'bye')
        global file, last
        file = open('unclosed', 'w')
        file.write('hello')
        class Last:
            def __del__(self):
                print('deleted')
        last = Last()
        """,
    "environment": """
        import os, subprocess
        print(sorted(item for item in os.environ.items() if item[0] != '_'))
        inherited = subprocess.run(['env'], capture_output=True, text=True).stdout
        print(sorted(line for line in inherited.splitlines() if not line.startswith('_=')))
        print(os.getcwd())
        """,
    "the interpreter": """
        import sys
        print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode, sys.pycache_prefix, sys.excepthook)
        print(sys.argv, sys.orig_argv, sys.executable, sys.prefix, sys.base_prefix)
        print(sys.path, sys.path_hooks, sys.meta_path)
        """,
    "the main module": """
        import sys
        names = ('__name__', '__file__', '__package__', '__spec__', '__doc__', '__annotations__', '__builtins__')
        print({name: getattr(sys.modules['__main__'], name) for name in names}, 'executor_main' in vars(kfp.dsl))
        """,
    "streams": """
        import sys
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            print(stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.name, stream.mode)
        print(sys.stdout is sys.__stdout__)
        """,
    "locale and time": """
        import locale, os, time
        print(locale.getlocale(), locale.setlocale(locale.LC_ALL), time.tzname)
        os.environ['TZ'] = 'XYZ-5'
        time.tzset()
        print(time.tzname, os.popen('date +%Z').read())
        """,
    "signals": """
        import signal
        print([(number, str(signal.getsignal(number))) for number in sorted(signal.valid_signals())])
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1))
        """,
    "a handler": """
        import os, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: (print('told'), sys.exit(7)))
        os.kill(os.getpid(), signal.SIGTERM)
        """,
    "an alarm": "import signal, time; signal.alarm(0); signal.setitimer(signal.ITIMER_REAL, 0); print('none')",
    "limits": """
        import os, resource
        names = sorted(name for name in dir(resource) if name.startswith('RLIMIT'))
        print([(name, resource.getrlimit(getattr(resource, name))) for name in names])
        print(os.umask(0), os.getpriority(os.PRIO_PROCESS, 0), os.getuid(), os.getgroups())
        """,
    "groups": "import os; print(os.getsid(0) == os.getpgid(0))",
    "descriptors": """
        import os
        found = []
        for number in range(200):
            try:
                found.append((number, os.get_inheritable(number)))
            except OSError:
                pass
        print(found)
        """,
    "own children": """
        import os
        try:
            os.waitpid(-1, 0)
        except ChildProcessError as error:
            print(error)
        if not os.fork():
            os._exit(4)
        print(os.wait()[1])
        """,
    "collector and threads": """
        import faulthandler, gc, threading, warnings
        print(gc.isenabled(), gc.get_threshold(), gc.callbacks, gc.get_debug(), threading.active_count())
        print(threading.main_thread() is threading.current_thread(), faulthandler.is_enabled(), warnings.filters)
        """,
    "closed output": "import os; os.close(1); os.close(2); print('to nobody')",
    "text of all kinds": "print('é漢😀', 'x' * 300_000)",
    "modules of its own": """
        with open('mine.py', 'w') as file:
            file.write('print(__name__, __file__)')
        import mine
        """,
    "asyncio": """
        import asyncio
        async def inner():
            process = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)
            return await process.communicate()
        print(asyncio.run(inner()))
        """,
}


@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS)
def test_a_fork_says_and_returns_what_a_process_of_its_own_does(body, server, tmp_path, monkeypatch):
    plain, forked = both_ways(server, function(body), tmp_path, monkeypatch)
    assert forked == plain


@pytest.mark.parametrize("source", ["def main():\n    return (\n", "x = 1\n"], ids=["syntax", "no such function"])
def test_a_source_that_does_not_run_is_reported_alike(source, server, tmp_path, monkeypatch):
    plain, forked = both_ways(server, source, tmp_path, monkeypatch)
    assert forked == plain
    assert forked[0] == 1


def test_worker_processes_find_their_functions(server, tmp_path, monkeypatch):
    source = function(
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        for method in multiprocessing.get_all_start_methods():
            with multiprocessing.get_context(method).Pool(2) as pool:
                print(method, pool.map(square, range(5)))
        with ProcessPoolExecutor(2) as executor:
            print(list(executor.map(square, range(5))))
        print(multiprocessing.parent_process(), multiprocessing.current_process())
        from multiprocessing import shared_memory
        memory = shared_memory.SharedMemory(create=True, size=8)
        memory.close()
        memory.unlink()
        """,
        "def square(number):\n    return number * number\n",
    )
    plain, forked = both_ways(server, source, tmp_path, monkeypatch)
    assert forked == plain
    assert forked[1].count("[0, 1, 4, 9, 16]") >= 3


def test_without_a_locale_python_chooses_the_same_one(tmp_path, monkeypatch):
    env = {name: value for name, value in environment().items() if not name.startswith(("LC_", "LANG"))}
    with ForkServer(env) as server:
        for name in ("environment", "locale and time"):
            plain, forked = both_ways(server, function(PROGRAMS[name]), tmp_path / name, monkeypatch, env=env)
            assert forked == plain


@pytest.mark.parametrize(
    ("number", "text"), [(signal.SIGKILL, "SIGKILL; the machine may be"), (signal.SIGSEGV, "SIGSEGV")]
)
def test_a_signal_is_told_as_one_where_the_shell_would_tell_of_a_code(number, text, forked, tmp_path):
    code = start(forked, function(f"import os; os.kill(os.getpid(), {number:d})"), tmp_path)
    assert code == -number
    assert text in launcher.failure(code, tmp_path / "log.txt")


def test_an_interrupt_nobody_handles_ends_it_as_a_signal(forked, tmp_path):
    assert start(forked, function("raise KeyboardInterrupt"), tmp_path) == -signal.SIGINT


def test_tasks_do_not_share_random_numbers(forked, tmp_path):
    body = "import random, tempfile, uuid; print(random.random(), uuid.uuid4(), tempfile.mktemp())"
    for name in ("one", "two"):
        assert start(forked, function(body), tmp_path / name) == 0
    assert not set(said(tmp_path / "one")[0].split()) & set(said(tmp_path / "two")[0].split())


def test_one_task_leaves_nothing_to_the_next(forked, tmp_path):
    body = """
        import os, sys
        print(os.environ.get('LEFT'), hasattr(sys, 'left'), 'csv' in sys.modules)
        os.environ['LEFT'] = 'x'; sys.left = 1; import csv
        """
    for name in ("one", "two"):
        assert start(forked, function(body), tmp_path / name) == 0
    assert said(tmp_path / "two") == ["None False False"]


def test_tasks_run_side_by_side(forked, tmp_path):
    def one(number):
        body = f"import time; time.sleep(0.5); print({number})"
        return start(forked, function(body), tmp_path / str(number))

    begin = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(16))) == [0] * 16
    assert time.monotonic() - begin < 7  # one after another they take eight
    assert [said(tmp_path / str(number)) for number in range(16)] == [[str(number)] for number in range(16)]


def test_the_log_is_appended_to(forked, tmp_path):
    (tmp_path / "log.txt").write_text("before\n")
    start(forked, function("print('after')"), tmp_path)
    assert said(tmp_path) == ["before", "after"]


# Ends


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def number_in(path):
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


SLEEP = """
    import os, subprocess, time
    child = subprocess.Popen(['sleep', '600'])
    with open('../child', 'w') as file:
        print(child.pid, file=file)
    with open('../own', 'w') as file:
        print(os.getpid(), file=file)
    time.sleep(600)
    """
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(SLEEP)


def test_what_it_leaves_running_ends_with_it(forked, tmp_path):
    body = textwrap.dedent(SLEEP).replace("time.sleep(600)", "return")
    assert start(forked, function(body), tmp_path) == 0
    wait_for(lambda: not is_alive(number_in(tmp_path / "child")))


@pytest.mark.parametrize("body", [SLEEP, DEAF], ids=["obedient", "deaf"])
def test_a_timeout_ends_the_whole_group(body, forked, tmp_path):
    with pytest.raises(launcher.TaskError, match=r"timed out after 1 s"):
        start(forked, function(body), tmp_path, timeout=1, stop=launcher.Stop(grace=0.3))
    for name in ("own", "child"):
        wait_for(lambda name=name: not is_alive(number_in(tmp_path / name)))


@pytest.mark.parametrize(("body", "least"), [(SLEEP, 0), (DEAF, 0.5)], ids=["obedient", "deaf"])
def test_stopping_kills_what_ignores_the_signal_after_the_grace(body, least, forked, tmp_path):
    stop, asked = launcher.Stop(grace=0.5), []

    def ask():
        number_in(tmp_path / "own")
        asked.append(time.monotonic())
        stop.request()

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(launcher.Stopped):
        start(forked, function(body), tmp_path, stop=stop)
    assert least <= time.monotonic() - asked[0] < 60  # it sleeps for ten minutes
    thread.join()
    for name in ("own", "child"):
        wait_for(lambda name=name: not is_alive(number_in(tmp_path / name)))


def test_a_second_stop_kills_at_once(forked, tmp_path):
    stop = launcher.Stop(grace=600)
    threading.Thread(target=lambda: (number_in(tmp_path / "own"), stop.request(), stop.kill())).start()
    with pytest.raises(launcher.Stopped):
        start(forked, function(DEAF), tmp_path, stop=stop)


def test_nothing_starts_once_stopped(forked, tmp_path):
    stop = launcher.Stop()
    stop.request()
    with pytest.raises(launcher.Stopped):
        start(forked, function("print('started')"), tmp_path, stop=stop)
    assert (tmp_path / "log.txt").read_text() == ""


def test_the_guard_knows_its_group_while_it_lives(forked, tmp_path):
    told = []
    start(
        forked,
        function("import os; print(os.getpid())"),
        tmp_path,
        stop=launcher.Stop(watch=lambda *how: told.append(how)),
    )
    group = int(said(tmp_path)[0])
    assert told == [(group, True), (group, False)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_zombie_and_no_descriptor_is_left(server, tmp_path):
    start(server.run, function("pass"), tmp_path / "0")
    pid = server._popen.pid
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(1, 6):
        start(server.run, function("pass"), tmp_path / str(number))
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: not children.read_text().strip())
    assert len(os.listdir(f"/proc/{pid}/fd")) == before


def test_the_end_of_the_context_ends_what_is_at_work(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with ForkServer(environment()) as server:
            task = pool.submit(start, server.run, function(DEAF), tmp_path)
            pids = [number_in(tmp_path / "own"), number_in(tmp_path / "child"), server._popen.pid]
        with pytest.raises(launcher.TaskError):
            task.result(10)
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid))


def test_when_the_server_is_killed_its_tasks_fail_and_the_next_do_without_it(tmp_path):
    with ForkServer(environment()) as server:
        threading.Thread(
            target=lambda: (number_in(tmp_path / "own"), os.kill(server._popen.pid, signal.SIGKILL)), daemon=True
        ).start()
        with pytest.raises(launcher.TaskError, match="forked from ended before it did, killed by someone") as failed:
            start(server.run, function(DEAF), tmp_path)
        assert failed.value.exit_code is None
        for name in ("own", "child"):
            wait_for(lambda name=name: not is_alive(number_in(tmp_path / name)))
        assert start(server.run, function("print('alone')"), tmp_path / "next") == 0
    assert said(tmp_path / "next") == ["alone"]


def test_a_server_that_does_not_answer_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr("penstock.compile.targets.local.forkserver._LONGEST_SILENCE", 1.0)
    stop = launcher.Stop(grace=0.2)
    with ForkServer(environment()) as server:
        threading.Thread(
            target=lambda: (number_in(tmp_path / "own"), os.kill(server._popen.pid, signal.SIGSTOP), stop.request()),
            daemon=True,
        ).start()
        with pytest.raises(launcher.Stopped):
            start(server.run, function(SLEEP), tmp_path, stop=stop)
        wait_for(lambda: not is_alive(number_in(tmp_path / "own")))


def test_when_the_engine_is_killed_its_tasks_and_the_server_end(tmp_path):
    script = tmp_path / "engine.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pathlib import Path
            from tests.compile.targets.local import test_forkserver as the
            with the.ForkServer(the.environment()) as server:
                the.start(server.run, the.function(the.DEAF), Path({str(tmp_path)!r}))
            """
        )
    )
    root = Path(__file__).parents[4]
    engine = subprocess.Popen([sys.executable, script], env=environment(PYTHONPATH=str(root)))
    try:
        pids = [number_in(tmp_path / "own"), number_in(tmp_path / "child")]
        if sys.platform == "linux":
            pids += map(int, Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split())
    finally:
        engine.kill()
        engine.wait()
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid))


# What is not forked


@pytest.fixture
def plain(monkeypatch):
    """Calls of the other way, in place of it."""
    calls = []

    def run_process(*how, **more):
        calls.append((how, more))
        return 0

    monkeypatch.setattr(launcher, "run_process", run_process)
    return calls


@pytest.mark.parametrize(
    "more",
    [
        {"TZ": "Asia/Tokyo"},
        {"PYTHONPATH": "/somewhere"},
        {"PYTHONHASHSEED": "1"},
        {"LC_ALL": "C"},
        {"LD_PRELOAD": ""},
        {"MALLOC_ARENA_MAX": "1"},
        {"HOME": "/elsewhere"},
        {"PATH": os.defpath},
        {"LARGE": "x" * (1 << 17)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_an_environment_that_python_reads_at_its_start_is_not_forked_into(more, server, plain, tmp_path):
    start(server.run, function("pass"), tmp_path, env=environment(**more))
    assert len(plain) == 1


def test_another_environment_is(forked, tmp_path):
    assert (
        start(forked, function("import os; print(os.environ['OTHER'])"), tmp_path, env=environment(OTHER="x=\udcff"))
        == 0
    )


@pytest.mark.parametrize(
    "script",
    [
        SCRIPT.replace("python3", "python"),
        SCRIPT.replace("_KFP_RUNTIME=true ", ""),
        SCRIPT.replace("kfp.dsl.", "kfp.components."),
        SCRIPT + "echo done\n",
        SCRIPT.replace("\n", " "),
        'exec "$@"',
    ],
)
def test_another_command_is_not_forked(script, server, plain, tmp_path):
    start(server.run, function("pass"), tmp_path, script=script)
    assert len(plain) == 1


def test_space_between_words_does_not_make_another_command(forked, tmp_path):
    script = re.sub(" +", "  ", SCRIPT).replace("\n\n", "\n")
    assert script != SCRIPT
    assert start(forked, function("pass"), tmp_path, script=script) == 0


def test_what_goes_on_somewhere_else_too_is_not_forked(server, plain, tmp_path):
    start(server.run, function("pass"), tmp_path, stream=sys.stdout.buffer)
    assert plain[0][1]["stream"] is sys.stdout.buffer


def test_text_that_no_process_can_be_given_fails_as_ever(server, tmp_path):
    with pytest.raises(launcher.TaskError, match="cannot be started"):
        start(server.run, function("'\0'"), tmp_path)
    with pytest.raises(launcher.TaskError, match="Argument list too long"):
        start(server.run, function("'" + "x" * (1 << 17) + "'"), tmp_path / "long")


def test_a_log_that_cannot_be_written_is_not_the_tasks_failure(server, tmp_path):
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        start(server.run, function("pass"), tmp_path)


def test_a_server_that_cannot_start_is_done_without(plain, monkeypatch, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit(1)")
    monkeypatch.setattr("penstock.compile.targets.local.forkserver._SERVER", program)
    with ForkServer(environment()) as server:
        for name in ("one", "two"):
            assert start(server.run, function("pass"), tmp_path / name) == 0
    assert len(plain) == 2


def test_a_python_that_starts_with_threads_is_not_forked(plain, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    env = environment(PYTHONPATH=str(tmp_path))
    with ForkServer(env) as server:
        assert start(server.run, function("pass"), tmp_path / "task", env=env) == 0
    assert len(plain) == 1


def test_nothing_starts_before_it_is_needed_and_nothing_after_the_end(plain, tmp_path):
    with ForkServer(environment()) as server:
        assert server._popen is None
    start(server.run, function("pass"), tmp_path)
    assert server._popen is None
    assert len(plain) == 1
