"""Virtual environments for packages that tasks install when they start: made once per set and kept."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import site
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from penstock.compile import commands, launcher

DEADLINE = 1800.0  # seconds for one environment, from the first package to the last
PIP = ("--no-input", "--disable-pip-version-check", "--timeout", "20", "--retries", "3")

_UNREACHABLE = re.compile(r"Retrying \(|Connection\w*Error|ReadTimeout|name resolution")
_MARKER = "penstock.json"  # written last
_FORMAT = 1  # changes when environments are made in another way
_BEHIND = "zz-penstock.pth"  # read after all other .pth files of the environment
_LEFT_OUT = {"PYTHONHOME", "PIP_PYTHON", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_REPORT"}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_USER = re.compile(r"(?<=://)[^/?#\s'\"]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"#]*")
_FILE = re.compile(r"(?:.*[@=\s])?(?:file://(?:localhost)?)?(/[^#?;]*)")
_NAMES_FILES = ("-f", "--find-links", "-c", "--constraint")  # beside the packages themselves
_SETTINGS_OF_FILES = ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_REQUIREMENT")


class Environments:
    """The environments of one root, for any number of threads and runs at once.

    An environment is the interpreter that runs this, what pip installed for a task, and behind that all that this
    interpreter has: what is here already is not installed again, and another version of it wins inside.
    """

    def __init__(self, root: Path) -> None:
        self.folder = Path(os.path.abspath(root)) / "environments"
        self._failed: dict[str, tuple[float, str]] = {}

    def python(
        self,
        installs: Sequence[Sequence[str]],
        *,
        log: Path,
        stop: launcher.Stop,
        env: Mapping[str, str] | None = None,
    ) -> Path:
        """Return the folder of commands of the environment that has what a task installs, made now if it is not there.

        Args:
            installs: Arguments of each `pip install`, as commands.start_installs returns them.
            log: File that pip's output is appended to.
            stop: Ends the making early.
            env: The task's environment in place of this process's own: $NAME in arguments, indexes, proxies.

        Raises:
            TaskError: pip failed or took too long.
            Stopped: it was ended through `stop`.
        """
        request = _Request.of(installs, os.environ if env is None else env, log, stop)
        folder = self.folder / self._key(request)
        if not _is_made(folder):
            try:
                log.parent.mkdir(parents=True, exist_ok=True)
                self.folder.mkdir(parents=True, exist_ok=True)
                with _locked(folder, log, stop):
                    if not _is_made(folder):
                        self._make(folder, request)
            except OSError as error:
                raise launcher.TaskError(f"{folder} cannot be made: {error}") from error
        with contextlib.suppress(OSError):
            os.utime(folder / _MARKER)  # when it was used last: `penstock runs gc` goes by that
        return folder / "bin"

    def runner(self, installs: Sequence[Sequence[str]]) -> launcher.Runner:
        """Return what runs a command in a process, as `launcher.run_process` does, inside such an environment."""

        def run(
            command: Sequence[str],
            args: Sequence[str],
            env: Mapping[str, str],
            folder: Path,
            log: Path,
            *,
            stop: launcher.Stop,
            timeout: float | None = None,
            stream: BinaryIO | None = None,
        ) -> int:
            inside = within(self.python(installs, log=log, stop=stop, env=env), env)
            return launcher.run_process(command, args, inside, folder, log, stop=stop, timeout=timeout, stream=stream)

        return run

    def _make(self, folder: Path, request: _Request) -> None:
        # Who waited for an attempt that failed fails with it: each would fail anew, one after the other.
        ended, reason = self._failed.get(folder.name, (0.0, ""))
        if ended > request.asked:
            raise launcher.TaskError(reason)
        listed = ", ".join(request.packages)
        begin = time.monotonic()
        _note(request.log, f"installing {listed} into {folder}")
        try:
            _remove(folder)
            venv.EnvBuilder(symlinks=True).create(folder)
            _behind(folder).write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in self._own))
            _install(folder, request)
        except launcher.TaskError as error:
            reason = f"cannot install {listed}: {error}; see {request.log}"
            self._failed[folder.name] = (time.monotonic(), reason)
            _remove(folder)
            raise launcher.TaskError(reason, error.exit_code) from error
        except BaseException:
            _remove(folder)
            raise
        seconds = round(time.monotonic() - begin, 1)
        about = {"packages": request.packages, "python": sys.version, "engine": sys.executable, "seconds": seconds}
        half = folder / f"{_MARKER}.unfinished"
        half.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        half.replace(folder / _MARKER)
        _note(request.log, f"installed in {seconds} s")

    def _key(self, request: _Request) -> str:
        """Return the name of an environment. Users and passwords in URLs are not part of it: tokens change."""
        settings = {name: value for name, value in request.env.items() if name.startswith("PIP_")}
        files = [_content(settings[name]) for name in _SETTINGS_OF_FILES if name in settings]
        for words in request.installs:
            named = [word for before, word in itertools.pairwise(words) if before in _NAMES_FILES]
            files += [_content(word) for word in (*commands.packages([words]), *named)]
        parts = [
            [[_USER.sub("", word) for word in words] for words in request.installs],
            sorted((name, _USER.sub("", value)) for name, value in settings.items()),
            files,
            self._engine,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    @cached_property
    def _own(self) -> list[str]:
        """Folders of packages of this interpreter, in their order."""
        folders = {*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])}
        return [path for path in sys.path if path in folders and os.path.isdir(path)]

    @cached_property
    def _engine(self) -> list[object]:
        """What environments take from this interpreter: another version of a package makes another environment."""
        installed = [sorted(name for name in os.listdir(path) if name.endswith("-info")) for path in self._own]
        return [_FORMAT, sys.version, sys.executable, sys.prefix, sys.base_prefix, self._own, installed]


def within(bin: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables as they are inside a virtual environment, given its folder of commands."""
    inside = {name: value for name, value in env.items() if name != "PYTHONHOME"}
    path = os.pathsep.join([str(bin), env.get("PATH", os.defpath)])
    return {**inside, "PATH": path, "VIRTUAL_ENV": str(bin.parent)}


@dataclass(frozen=True)
class _Request:
    """What a task installs.

    Attributes:
        installs: Arguments of each `pip install`, with variables replaced.
        packages: The packages among them, fit to be shown.
        secrets: What of the arguments is not.
        asked: Time by the monotonic clock.
    """

    installs: Sequence[Sequence[str]]
    packages: Sequence[str]
    secrets: frozenset[str]
    env: Mapping[str, str]
    log: Path
    stop: launcher.Stop
    asked: float

    @staticmethod
    def of(installs: Sequence[Sequence[str]], env: Mapping[str, str], log: Path, stop: launcher.Stop) -> _Request:
        """Return what `Environments.python` is asked for."""
        # The shell of KFP's installer replaces $NAME: so an index gets its password.
        used = {one or other for words in installs for word in words for one, other in _VARIABLE.findall(word)}
        values = {name: env.get(name, "") for name in used}
        whole = [
            [_VARIABLE.sub(lambda match: values[match.group(1) or match.group(2)], word) for word in words]
            for words in installs
        ]
        secrets = {*values.values(), *(secret for words in whole for word in words for secret in _secrets(word))}
        packages = [_shown(name) for name in commands.packages(installs)]
        return _Request(
            whole, packages, frozenset(one for one in secrets if len(one) > 3), env, log, stop, time.monotonic()
        )


def _install(folder: Path, request: _Request) -> None:
    over = time.monotonic() + DEADLINE
    env = {name: value for name, value in within(folder / "bin", request.env).items() if name not in _LEFT_OUT}
    env["PIP_USER"] = "0"
    python = [str(folder / "bin" / "python3"), "-I", "-m"]
    calls = [([*python, "pip", "install", *PIP], words) for words in request.installs]
    if importlib.util.find_spec("pip") is None:  # uv makes environments without it
        if importlib.util.find_spec("ensurepip") is None:
            raise launcher.TaskError(f"there is no pip for {sys.executable}; install pip where penstock is")
        calls.insert(0, ([*python, "ensurepip"], []))
    for command, words in calls:
        start = request.log.stat().st_size
        left = max(over - time.monotonic(), 0.1)
        code = launcher.run_process(command, words, env, folder, request.log, stop=request.stop, timeout=left)
        if code:
            raise launcher.TaskError(_failure(code, start, request), code)


def _failure(code: int, start: int, request: _Request) -> str:
    """Return what pip said last, and whether the network may be the reason, from its part of the log."""
    with request.log.open("rb") as file:
        file.seek(start)
        said = file.read().decode("utf-8", "replace")
    errors = re.findall(r"^ERROR: (.*\S)", said, re.MULTILINE)
    reason = f"pip: {errors[-1][:500]}" if errors and code > 0 else launcher.failure(code, request.log, start)
    for secret in sorted(request.secrets, key=len, reverse=True):
        reason = reason.replace(secret, "****")
    if _UNREACHABLE.search(said):
        reason += "; this machine may be offline"
    elif "from versions: none" in said:
        reason += "; the name may be wrong, or this machine offline"
    return _shown(reason)


def _shown(text: str) -> str:
    return _QUERY.sub(r"\1?…", _USER.sub("", text))


def _secrets(word: str) -> Iterator[str]:
    """Yield user, password and query of a URL, as written and decoded."""
    for match in _USER.finditer(word):
        for part in match.group()[:-1].split(":"):
            yield from (one for one in (part, unquote(part)) if one != "git")
    if "://" in word and (query := word.partition("?")[2]):
        yield query.partition("#")[0]


def _content(word: str) -> object:
    """Return what tells whether a file or folder that an argument names has changed; None where it names none."""
    match = _FILE.fullmatch(word.strip())
    if not match:
        return None
    top = Path(unquote(match.group(1)))
    files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
    found = []
    for path in files:
        with contextlib.suppress(OSError):
            about = path.stat()
            found.append([str(path), about.st_size, about.st_mtime_ns])
    return found


def _behind(folder: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / version / "site-packages" / _BEHIND


def _is_made(folder: Path) -> bool:
    # Its interpreter is a link: that of an engine that was upgraded leads nowhere.
    return (folder / _MARKER).exists() and (folder / "bin" / "python3").exists()


def _remove(folder: Path) -> None:
    """Remove an environment, under another name: the pip of an engine that was killed may still write there."""
    away = folder.with_name(f"{folder.name}.{os.getpid()}.removed")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, log: Path, stop: launcher.Stop) -> Iterator[None]:
    over = time.monotonic() + DEADLINE
    waiting = False
    with folder.with_name(f"{folder.name}.lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    waiting = True
                    _note(log, f"waiting for another task that makes {folder}")
                if time.monotonic() > over:
                    what = f"another task has been making {folder} for {DEADLINE:.0f} s"
                    raise launcher.TaskError(f"{what}; end it and try again") from None
                if stop.wait(0.1):
                    raise launcher.Stopped from None
        yield


def _note(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"--- {text}\n")
