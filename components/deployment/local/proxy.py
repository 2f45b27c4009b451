"""HAProxy before the versions of an endpoint: shares of the traffic, a shadow, and the name of who answered.

Which version a request goes to stands in a map of HAProxy's with a hundred places, one of which each request draws. The
map is changed through HAProxy's socket, all places in one go: no moment sees a part of it, no connection is closed, and
nothing is reloaded. See "9.3. Unix Socket commands" of HAProxy's management guide (prepare map, commit map).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components.deployment.local.process import Process

HEADER = "X-Model-Version"
PLACES = 100
BACKLOG = 1024  # connections that wait to be accepted
_SECONDS = 10.0  # for HAProxy to answer, or to start
_STOP = 10.0  # seconds for requests to end when it is stopped
_TRAFFIC, _SHADOW, _MIRROR, _CONFIG, _SOCKET = "traffic.map", "shadow.map", "mirror.lua", "haproxy.cfg", "admin.sock"
_LEAST = (2, 6)

_CONFIGURATION = f"""\
global
    # One thread moves tens of thousands of requests a second, far more than the models behind it answer.
    nbthread 1
    # As many connections as half of these files, or of as many as it may have.
    fd-hard-limit 8192
    hard-stop-after 30s
    stats socket unix@{_SOCKET} mode 600 level admin
    stats timeout 10s
    lua-load {_MIRROR}
    # Bodies up to this size are copied to a shadow.
    tune.bufsize 131072

defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 90s
    timeout http-request 40s
    timeout http-keep-alive 75s
    # To the version that was drawn, and no other: a share is a share. One that is not there fails at once.
    retries 0
    http-error status 503 content-type application/json string '{{"error":"no version answers","kind":"unavailable"}}'

frontend endpoint
    bind fd@${{PENSTOCK_SOCKET}}
    option forwardfor
    http-request set-header X-Request-Id %[uuid()] unless {{ req.hdr(X-Request-Id) -m found }}
    http-request set-var(txn.to) rand({PLACES}),map_str({_TRAFFIC},none)
    http-request return status 503 content-type application/json string '{{"error":"no version yet"}}' \
if {{ var(txn.to) -m str none }}
    http-request set-var(txn.shadow) str(shadow),map_str({_SHADOW})
    http-request wait-for-body time 30s if METH_POST {{ var(txn.shadow) -m found }}
    http-request lua.mirror if METH_POST {{ var(txn.shadow) -m found }}
    http-response set-header {HEADER} %[var(txn.to),field(1,:)]
    default_backend versions

backend versions
    http-request set-dst ipv4(127.0.0.1)
    http-request set-dst-port var(txn.to),field(2,:)
    server version 0.0.0.0:0
"""

# Copies run beside the request, which waits for none of them. Beyond so many at once, or when the body has not come
# whole within the buffer, there is no copy: a shadow that is slow costs nobody anything.
_COPY = """\
local most, longest, flying = 64, 120000, 0
local passed_on = { "content-type", "content-encoding", "authorization", "x-request-id" }

core.register_action("mirror", { "http-req" }, function(txn)
    local body = txn.sf:req_body()
    local length = tonumber(txn.sf:req_hdr("content-length"))
    local whole = length == #body or (not length and #body < longest)
    if flying >= most or #body == 0 or not whole then return end
    local headers, given = {}, txn.http:req_get_headers()
    for _, name in ipairs(passed_on) do
        if given[name] then headers[name] = { given[name][0] } end
    end
    local port = string.match(txn:get_var("txn.shadow"), ":(%d+)$")
    flying = flying + 1
    local request = {
        url = "http://127.0.0.1:" .. port .. txn.sf:path(), headers = headers, body = body, timeout = 60000,
    }
    core.register_task(function()
        pcall(function() core.httpclient():post(request) end)
        flying = flying - 1
    end)
end)
"""


@cache
def program(component: str) -> str:
    """Return where HAProxy is.

    Raises:
        UserError: It is not installed, too old, or built without Lua.
    """
    found = shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    remedy = "Install HAProxy 2.6 or later (apt-get or brew install haproxy), and run the step outside of containers"
    if not found:
        raise UserError(component, "platform", "local needs haproxy, which is not installed", remedy)
    told = subprocess.run([found, "-vv"], capture_output=True, text=True, timeout=_SECONDS).stdout
    words = told.split()
    version = words[2] if len(words) > 2 else ""
    numbers = version.partition("-")[0].split(".")
    if not all(part.isdecimal() for part in numbers[:2]) or tuple(map(int, numbers[:2])) < _LEAST:
        raise UserError(component, "platform", f"{found} is version {version or 'unknown'}", remedy)
    if "+LUA" not in told:
        raise UserError(component, "platform", f"{found} was built without Lua", remedy)
    return found


class Proxy:
    """The proxy of one endpoint.

    Args:
        folder: Its folder.
        component: Component that uses it, for errors.
    """

    def __init__(self, folder: Path, component: str) -> None:
        self.folder, self._component = folder, component
        self._process = Process(folder)

    def runs(self) -> bool:
        """Return whether it runs."""
        return self._process.runs()

    def pid(self) -> int:
        """Return its number; 0 if it does not run."""
        return self._process.pid()

    def start(self, host: str, port: int, traffic: Mapping[int, str], shadow: str) -> int:
        """Start it and return the port that it listens on.

        Args:
            port: 0: any that is free.
            traffic: VERSION:PORT by place, 0 to 99.
            shadow: VERSION:PORT; empty: none.

        Raises:
            UserError: The port is taken, or it does not start.
        """
        haproxy = program(self._component)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_maps(traffic, shadow)
        (self.folder / _CONFIG).write_text(_CONFIGURATION)
        (self.folder / _MIRROR).write_text(_COPY)
        (self.folder / _SOCKET).unlink(missing_ok=True)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise UserError(
                self._component,
                "endpoint",
                f"its proxy cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                "End what listens there, or undeploy the endpoint and deploy it with another port",
            ) from None
        with listening:
            self._process.start(
                [haproxy, "-db", "-f", _CONFIG],
                {"PATH": os.environ.get("PATH", ""), "PENSTOCK_SOCKET": str(listening.fileno())},
                inherit=[listening.fileno()],
            )
            end = time.monotonic() + _SECONDS
            while time.monotonic() < end and self._process.runs():
                with contextlib.suppress(OSError):
                    self.ask("show info")
                    return int(listening.getsockname()[1])
                time.sleep(0.02)
        said = self._process.said()
        self._process.stop()
        raise UserError(self._component, "endpoint", f"its proxy does not start: {said}", "Mend what it says")

    def route(self, traffic: Mapping[int, str], shadow: str) -> None:
        """Send requests by these maps from now on.

        Raises:
            OSError: It does not answer, or refuses.
        """
        self._write_maps(traffic, shadow)
        for name, entries in ((_TRAFFIC, _lines(traffic)), (_SHADOW, _shadow_line(shadow))):
            prepared = self.ask(f"prepare map {name}")
            version = prepared.rpartition(":")[2].strip()
            if not version.isdecimal():
                raise OSError(f"HAProxy does not prepare {name}: {prepared.strip()}")
            for command in ([f"add map @{version} {name} <<\n{entries}"] if entries else []) + [
                f"commit map @{version} {name}"
            ]:
                if answer := self.ask(command).strip():
                    raise OSError(f"HAProxy refuses to change {name}: {answer}")

    def routes(self) -> tuple[dict[int, str], str]:
        """Return the maps as they are: VERSION:PORT by place, and of the shadow.

        Raises:
            OSError: It does not answer.
        """
        places = {int(key): value for key, value in self._entries(_TRAFFIC)}
        return places, dict(self._entries(_SHADOW)).get("shadow", "")

    def stop(self) -> None:
        """Take no more requests, and end when those that are there have ended."""
        self._process.stop((signal.SIGUSR1, _STOP), (signal.SIGTERM, 1.0))

    def ask(self, command: str) -> str:
        """Return the answer to a command of HAProxy's socket.

        Raises:
            OSError: It does not answer.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short(self.folder) as folder:
            connection.settimeout(_SECONDS)
            connection.connect(f"{folder}/{_SOCKET}")
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            answer = bytearray()
            while chunk := connection.recv(65536):
                answer += chunk
        return answer.decode()

    def _entries(self, name: str) -> Iterator[tuple[str, str]]:
        for line in self.ask(f"show map {name}").splitlines():
            parts = line.split()
            if len(parts) == 3:
                yield parts[1], parts[2]

    def _write_maps(self, traffic: Mapping[int, str], shadow: str) -> None:
        for name, text in ((_TRAFFIC, _lines(traffic)), (_SHADOW, _shadow_line(shadow))):
            unfinished = self.folder / f".{name}"
            unfinished.write_text(text)
            unfinished.replace(self.folder / name)


def places(traffic: Mapping[str, int], ports: Mapping[str, int]) -> dict[int, str]:
    """Return VERSION:PORT by place: as many places as a version has per cent of the traffic."""
    drawn = [f"{version}:{ports[version]}" for version, share in sorted(traffic.items()) for _ in range(share)]
    return dict(enumerate(drawn))


def _lines(traffic: Mapping[int, str]) -> str:
    return "".join(f"{place} {to}\n" for place, to in sorted(traffic.items()))


def _shadow_line(shadow: str) -> str:
    return f"shadow {shadow}\n" if shadow else ""


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Yield a name of a folder that leaves room for a socket's: those are 107 bytes at most."""
    if not os.path.isdir("/proc/self/fd"):
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
