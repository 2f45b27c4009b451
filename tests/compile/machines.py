"""Another machine: a container engine of a test's own that has built nothing yet, and a disk as small as is wanted.

And a base image that is pushed and loaded in no time, for images whose content does not matter.
"""

import contextlib
import io
import os
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from penstock.compile.targets.local.containers import available

MEGABYTE = 1 << 20
BASE = f"penstock-test-base:{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def base() -> Iterator[Any]:
    """The engine's client, once it has the image BASE; its tests skip where there is no engine, or no busybox."""
    if reason := available():
        pytest.skip(reason)
    import docker

    program = shutil.which("busybox")
    if program is None or b"/ld-linux" in (content := Path(program).read_bytes()):
        pytest.skip("there is no static busybox; Debian's package busybox-static has one")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name in ("busybox", *sorted({*applets} - {"busybox"})):
            member = tarfile.TarInfo(f"bin/{name}")
            member.mode = 0o755
            if name == "busybox":
                member.size = len(content)
            else:
                member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(member, io.BytesIO(content))
    with contextlib.closing(docker.from_env().api) as client:
        name, tag = BASE.split(":")
        client.import_image_from_data(written.getvalue(), repository=name, tag=tag)
        yield client
        client.remove_image(BASE, force=True)


@contextlib.contextmanager
def machine(images: Sequence[str], spare: int = 1024 * MEGABYTE, registry: Path | None = None) -> Iterator[str]:
    """Yield, as DOCKER_HOST takes it, the address of an engine that has some of this machine's images, and no others.

    It has a network of its own, in which there is nothing: on that of this machine it would remove the bridge of the
    engine that is at work there.

    Args:
        spare: Bytes that its disk, which is memory, has left.
        registry: Configuration of a registry that is served there, too, at the same address.
    """
    program = shutil.which("dockerd")
    if program is None or not shutil.which("ip") or os.geteuid():
        pytest.skip("a container engine of one's own needs dockerd, ip and root")
    # A socket's path has to be short, which those of tests are not.
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as name:
        folder = Path(name)
        space = f"penstock-{secrets.token_hex(4)}"
        disk, address = folder / "disk", f"unix://{folder}/socket"
        disk.mkdir()
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={4096 * MEGABYTE}", "tmpfs", disk]
        if subprocess.run(mounted, capture_output=True).returncode:
            pytest.skip("this machine mounts no tmpfs")
        with contextlib.ExitStack() as stack:
            stack.callback(subprocess.run, ["umount", "--lazy", disk], check=True)
            log = stack.enter_context((folder / "log").open("w"))
            stack.callback(subprocess.run, ["umount", "--lazy", folder / "exec/netns/default"], capture_output=True)
            process = _started(
                stack,
                log,
                "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"',
                program, "--host", address, "--data-root", disk, "--exec-root", folder / "exec",
                "--pidfile", folder / "pid", "--bridge", "none", "--iptables=false", "--ip6tables=false",
                "--ip-forward=false", "--ip-masq=false", "--containerd-namespace", space,
                "--containerd-plugins-namespace", f"{space}-plugins",
            )  # fmt: skip
            if not answers(address):
                pytest.skip(f"dockerd does not start: {(folder / 'log').read_text()[-300:]}")
            if registry:
                inside = f"--net=/proc/{process.pid}/ns/net"
                _started(stack, log, "nsenter", inside, "docker-registry", "serve", registry)
            with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
                load = ["docker", "--host", address, "load", "--quiet"]
                subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
            used = shutil.disk_usage(disk).used
            subprocess.run(["mount", "-o", f"remount,size={used + spare}", disk], check=True)
            yield address


def _started(stack: contextlib.ExitStack, log: IO[str], *command: str | Path) -> subprocess.Popen:
    """Start a process that ends when the stack is left."""
    process = subprocess.Popen(command, stdout=log, stderr=log)
    stack.callback(process.wait, 60)
    stack.callback(process.terminate)
    return process


def answers(address: str) -> bool:
    for _ in range(100):
        if not subprocess.run(["docker", "--host", address, "version"], capture_output=True).returncode:
            return True
        time.sleep(0.2)
    return False
