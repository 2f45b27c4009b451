"""What tests of the platforms share."""

import contextlib
import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from kfp import dsl

from penstock.compile.cli import penstock
from penstock.compile.to_kfp import compiled

TABLE, NAMES = {"a": 1}, ["x"]
PULLED = {"imagePullPolicy": "Always"}

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def double(number: int) -> int:
    return 2 * number


@component
def check(number: int, table: dict, names: list, share: float, strict: bool):
    if strict and number < 0:
        raise ValueError("negative")


@dsl.pipeline(name="Weekly Doubling")
def weekly(number: int = 3, table: dict = TABLE, names: list = NAMES, share: float = 0.5, strict: bool = True):
    doubled = double(number=number)
    with dsl.If(doubled.output > 0):
        check(number=doubled.output, table=table, names=names, share=share, strict=strict)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A compiled pipeline of two steps, the second under a condition."""
    path = tmp_path / "weekly.yaml"
    compiled(weekly).write(path)
    return path


@pytest.fixture
def two_documents(spec: Path) -> Path:
    """The same with settings for Kubernetes as a second document."""
    path = spec.with_name("two.yaml")
    settings = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-double": PULLED}}}}}
    path.write_text(f"{spec.read_text()}---\n{yaml.safe_dump(settings)}")
    return path


@pytest.fixture
def call() -> Callable[..., Result]:
    """Run the command in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(penstock, [*map(str, arguments)], prog_name="penstock")

    return invoke


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    """File of credentials for an account that does not exist; its requests are signed, and nobody is asked for it."""
    key = tmp_path / "key.pem"
    make = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key]
    subprocess.run(make, check=True, capture_output=True)
    path = tmp_path / "account.json"
    account = {
        "type": "service_account",
        "client_email": "submitter@test-project.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:9/token",
        "private_key": key.read_text(),
        "project_id": "test-project",
    }
    path.write_text(json.dumps(account))
    return path


@pytest.fixture
def started(tmp_path: Path):
    """Start the command in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object, stdin: object = subprocess.DEVNULL, **environment: str) -> subprocess.Popen[str]:
        # Without byte-code, the SDKs take many seconds to import.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.compile.cli", *map(str, arguments)],
            env={**inherited, **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_until(true: Callable[[], object], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.text = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ.update(environment, TERM="dumb")
            os.execv(sys.executable, [sys.executable, "-m", "penstock.compile.cli", *map(str, arguments)])

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.close(self._terminal)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def expect(self, text: str, seconds: float = 40) -> None:
        """Read on until the command has written a text."""
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, self.text
            self._read()

    def ended(self, seconds: float = 40) -> int:
        """Read on to the end, and return the exit code."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, self.text
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        if select.select([self._terminal], [], [], 0.2)[0]:
            try:
                chunk = os.read(self._terminal, 4096)
            except OSError:  # how Linux tells the end
                return False
            self.text += chunk.decode(errors="replace")
            return bool(chunk)
        return True
