"""This machine: a process a version, and HAProxy before them. For laptops, single servers and tests."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.paths import user_path
from penstock.components._shared.secrets import read_secret
from penstock.components.deployment import measure
from penstock.components.deployment.endpoint import Candidate, Changed, Endpoint, Note, Reading, Unreachable, Version
from penstock.components.deployment.local import proxy
from penstock.components.deployment.local.process import Process
from penstock.components.deployment.local.state import Book, Deployed, State, lock
from penstock.components.deployment.options import check_options

OPTIONS = {"state": str, "host": str, "port": int, "token": str, "settings": dict, "ready_seconds": float}
READY = 120.0  # seconds for a server to be ready
ANSWER = 30.0  # seconds for it to answer
DRAIN = 30.0  # seconds for it to end
# What the backend sets itself; see docs/serving.md.
_OURS = {"PENSTOCK_HOST": "127.0.0.1", "PENSTOCK_PORT": "0", "PENSTOCK_DRAIN_DELAY_SECONDS": "1"}
# A file of the log is written soon, for a rollout reads it; and nobody else clears the log.
_DEFAULTS = {"PENSTOCK_LOG_SECONDS": "10", "PENSTOCK_LOG_KEEP_BYTES": str(1 << 30)}
_LISTENING = re.compile(r"^serving: listening on http://.*:(\d+)$", re.MULTILINE)


def connect(options: Mapping[str, Any], component: str) -> Local:
    """Return the endpoints of this machine.

    Args:
        options: `state`, the folder of the endpoints, by default `endpoints` of the local run folder; `host` and `port`
            that a new endpoint listens on, by default 127.0.0.1 and any that is free; `token`, a reference to the
            bearer token that new versions ask for; `settings`, variables of the server by name; `ready_seconds`.

    Raises:
        UserError: An option is unknown or wrong, or no folder is known.
    """
    check_options(options, OPTIONS, component)
    state = str(options.get("state", ""))
    if not state:
        if not os.environ.get("PENSTOCK_ROOT"):
            raise UserError(
                component, "options", "no folder for the endpoints is given", 'Give {"state": "path/of/a/folder"}'
            )
        state = str(Path(os.environ["PENSTOCK_ROOT"]).absolute() / "endpoints")
    settings = options.get("settings", {})
    for name, value in settings.items():
        if not name.startswith("PENSTOCK_") or name in _OURS or not isinstance(value, str):
            raise UserError(
                component,
                "options",
                f"settings has {name}={value!r}",
                f"Give texts by names such as PENSTOCK_THREADS (docs/serving.md), none of {', '.join(_OURS)}",
            )
    port = int(options.get("port", 0))
    if not 0 <= port <= 65535:
        raise UserError(component, "options", f"port is {port}", "Give one from 1 to 65535, or 0 for any that is free")
    return Local(
        user_path(state).absolute(),
        component,
        host=str(options.get("host", "127.0.0.1")),
        port=port,
        token=str(options.get("token", "")),
        settings=settings,
        ready_seconds=float(options.get("ready_seconds", READY)),
    )


class Local:
    """The endpoints of one folder."""

    measures = frozenset(measure.METRICS)
    shadows = True
    lag = 0.0

    def __init__(
        self,
        root: Path,
        component: str,
        *,
        host: str,
        port: int,
        token: str,
        settings: Mapping[str, str],
        ready_seconds: float,
    ) -> None:
        self._root, self._component = root, component
        self._host, self._port, self._token, self._settings = host, port, token, settings
        self._ready_seconds = ready_seconds

    def get(self, endpoint: str) -> Endpoint | None:
        """Return the endpoint as it is, its proxy told of all that is written down; None if there is none."""
        state = self._book(endpoint).read()
        if state is None:
            return None
        if self._is_stale(state):
            with self._changing(endpoint) as now:
                if now is None:
                    return None
                state = self._routed(now)
        return _seen(state)

    def create_or_update(self, endpoint: str, model: Candidate) -> Endpoint:
        """Let a process serve the model; see Backend."""
        proxy.program(self._component)
        version = model.version
        with self._version_lock(endpoint, version):
            self._sweep(endpoint, version)
            folder = self._folder(endpoint) / "versions" / version
            known = self._book(endpoint).read()
            before = known.versions.get(version) if known else None
            created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            wanted = before or Deployed(model.digest, model.uri, created, 0, self._token, dict(self._settings))
            try:
                self._copy(model.folder, folder / "model")
                return self._serving(endpoint, version, wanted)
            except BaseException:
                if before is None:
                    self._server(endpoint, version).stop()
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    def revive(self, endpoint: str) -> list[str]:
        """Start what has ended of an endpoint: servers by the settings that they had, its proxy where that was.

        Returns:
            The versions whose servers were started.

        Raises:
            UserError: There is no such endpoint, or something of it does not start; all else was tried, too.
        """
        proxy.program(self._component)
        state = self._book(endpoint).read()
        if state is None:
            raise UserError(self._component, "endpoint", f"there is no {endpoint} in {self._root}", "See what is there")
        started, problems = [], []
        for version in state.versions:
            try:
                if self._revived(endpoint, version):
                    started.append(version)
            except UserError as error:
                problems.append(error)
        self.get(endpoint)
        if problems:
            raise problems[0]
        return started

    def _revived(self, endpoint: str, version: str) -> bool:
        """Return whether the server of a version had ended and was started anew."""
        state = self._book(endpoint).read()
        if state is None or version not in state.versions or self._server(endpoint, version).runs():
            return False
        with self._version_lock(endpoint, version):
            state = self._book(endpoint).read()
            if state is None or version not in state.versions or self._server(endpoint, version).runs():
                return False
            self._serving(endpoint, version, state.versions[version])
            return True

    def _serving(self, endpoint: str, version: str, wanted: Deployed) -> Endpoint:
        """Let a process serve a version, and the proxy know where. The caller holds the version."""
        folder = self._folder(endpoint) / "versions" / version
        server = Process(folder / "server")
        if not server.runs():
            if not (folder / "model").is_dir():
                raise UserError(
                    self._component,
                    "version",
                    f"{version} of {endpoint} has ended, and its copy of the model is gone",
                    "Deploy the model again",
                )
            server.start(
                [sys.executable, "-P", "-m", "penstock.components.deployment.serving", str(folder / "model")],
                self._environment(endpoint, version, folder, wanted),
            )
        port = self._wait_ready(server)
        with self._changing(endpoint) as now:
            state = now or State(endpoint, self._host, self._port)
            before = state.versions.get(version)
            if before is None or before.port != port:
                # A server that was started anew has another port: the proxy has to hear of it.
                routed = state.routed if before is None else -1
                versions = {**state.versions, version: replace(wanted, port=port)}
                state = self._book(endpoint).write(replace(state, versions=versions, routed=routed))
            return _seen(self._routed(state))

    def smoke(self, endpoint: str, version: str, model: Candidate) -> list[dict[str, Any]]:
        """Ask the version's own port; see Backend."""
        deployed = self._deployed(endpoint, version)
        answer = self._ask(endpoint, version, deployed, "POST", "/invocations", model.example)
        try:
            predictions: list[dict[str, Any]] = json.loads(answer)["predictions"]
        except (ValueError, KeyError, TypeError):
            raise Unreachable(f"it answers {answer[:200]!r}") from None
        return predictions

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], shadow: str, generation: str) -> Endpoint:
        """Write it down and tell the proxy; see Backend. Servers that have ended are started anew before."""
        for version in (*traffic, *([shadow] if shadow else [])):
            self._revived(endpoint, version)
        with self._changing(endpoint) as state:
            if state is None or str(state.generation) != generation:
                raise Changed(f"{endpoint} has changed")
            for version in [*traffic, *([shadow] if shadow else [])]:
                if version not in state.versions:
                    known = ", ".join(state.versions) or "none"
                    raise UserError(
                        self._component, "version", f"{endpoint} has no version {version}", f"It has {known}"
                    )
                if not self._server(endpoint, version).runs():
                    raise UserError(
                        self._component, "version", f"{version} of {endpoint} does not run", "Deploy the model again"
                    )
            changed = replace(state, traffic=dict(traffic), shadow=shadow, generation=state.generation + 1)
            return _seen(self._routed(self._book(endpoint).write(changed)))

    def reading(self, endpoint: str, version: str, since: datetime.datetime) -> Reading:
        """Return what the server has counted since it started; see Backend."""
        deployed = self._deployed(endpoint, version)
        return measure.read_exposition(self._ask(endpoint, version, deployed, "GET", "/metrics").decode())

    def answers(self, endpoint: str, version: str, since: datetime.datetime) -> Any:
        """Return the rows of the server's request log; see Backend."""
        return measure.read_log(self._folder(endpoint) / "versions" / version / "requests", since)

    def remove(self, endpoint: str, version: str) -> bool:
        """End its server, or the proxy and all servers, and remove what they left; see Backend."""
        if not version:
            return self._remove_all(endpoint)
        with self._version_lock(endpoint, version):
            with self._changing(endpoint) as state:
                if state and (version in state.traffic or version == state.shadow):
                    role = f"gets {state.traffic[version]} % of the traffic" if version in state.traffic else "shadows"
                    raise UserError(
                        self._component,
                        "version",
                        f"{version} of {endpoint} {role}",
                        "Give another its part first",
                    )
                found = state is not None and version in state.versions
                if state and found:
                    versions = {name: each for name, each in state.versions.items() if name != version}
                    self._book(endpoint).write(replace(state, versions=versions))
            self._end(endpoint, version)
            return found

    def note(self, endpoint: str) -> Note:
        """Return what is written down about a rollout; see Backend."""
        state = self._book(endpoint).read()
        return Note(state.note, str(state.note_generation)) if state else Note(None, "0")

    def write_note(self, endpoint: str, document: Mapping[str, Any] | None, generation: str) -> Note:
        """Write that down; see Backend."""
        with self._changing(endpoint) as state:
            if state is None or str(state.note_generation) != generation:
                raise Changed(f"the rollout of {endpoint} is another's")
            note = None if document is None else dict(document)
            self._book(endpoint).write(replace(state, note=note, note_generation=state.note_generation + 1))
            return Note(note, str(state.note_generation + 1))

    def _folder(self, endpoint: str) -> Path:
        return self._root / endpoint

    def _book(self, endpoint: str) -> Book:
        return Book(self._folder(endpoint), self._component)

    def _server(self, endpoint: str, version: str) -> Process:
        return Process(self._folder(endpoint) / "versions" / version / "server")

    def _proxy(self, endpoint: str) -> proxy.Proxy:
        return proxy.Proxy(self._folder(endpoint) / "proxy", self._component)

    # Locks lie beside the endpoints' folders, for those come and go.
    def _lock_file(self, endpoint: str, version: str = "") -> Path:
        return self._root / ".locks" / (f"{endpoint}.{version}" if version else endpoint)

    @contextlib.contextmanager
    def _changing(self, endpoint: str) -> Iterator[State | None]:
        """Hold what is written down about an endpoint; held by others for moments only."""
        with lock(self._lock_file(endpoint), 60.0, self._component):
            yield self._book(endpoint).read()

    @contextlib.contextmanager
    def _version_lock(self, endpoint: str, version: str) -> Iterator[None]:
        """Hold a version; held by others while they start or end it."""
        with lock(self._lock_file(endpoint, version), self._ready_seconds + DRAIN + 60.0, self._component):
            yield

    def _deployed(self, endpoint: str, version: str) -> Deployed:
        state = self._book(endpoint).read()
        if state is None or version not in state.versions:
            raise Unreachable(f"{endpoint} has no version {version}")
        return state.versions[version]

    def _copy(self, model: Path, target: Path) -> None:
        """Copy a model folder, whole or not at all: the run that made it may be cleared away."""
        if target.is_dir():
            return
        unfinished = target.with_name("model.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            shutil.copytree(model, unfinished)
            unfinished.rename(target)
        except OSError as error:
            raise UserError(
                self._component,
                "model",
                f"it cannot be copied to {target}: {error.strerror or error}",
                "Make room there",
            ) from None

    def _environment(self, endpoint: str, version: str, folder: Path, wanted: Deployed) -> dict[str, str]:
        ours = {
            **_OURS,
            "PENSTOCK_MODEL_NAME": endpoint,
            "PENSTOCK_MODEL_VERSION": version,
            "PENSTOCK_LOG": str(folder / "requests"),
            "PENSTOCK_TOKEN": wanted.token,
            # The declarations of components, which need all of KFP, are not imported.
            "_KFP_RUNTIME": "true",
        }
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "AIP_", "KFP_"))
        }
        return {**inherited, **_DEFAULTS, **wanted.settings, **ours}

    def _wait_ready(self, server: Process) -> int:
        """Return the port of a server once it is ready."""
        end = time.monotonic() + self._ready_seconds
        while time.monotonic() < end and server.runs():
            found = _LISTENING.search(server.log.read_text(encoding="utf-8", errors="replace"))
            if found:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if _http(int(found[1]), "GET", "/v2/health/ready", None, {}, ANSWER)[0] == 200:
                        return int(found[1])
            time.sleep(0.05)
        state = f"is not ready after {self._ready_seconds:g} s" if server.runs() else "has ended"
        raise UserError(
            self._component, "model", f"its server {state}: {server.said()}", "Mend what it says, and deploy again"
        )

    def _ask(
        self, endpoint: str, version: str, deployed: Deployed, method: str, path: str, body: bytes | None = None
    ) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if deployed.token:
            headers["Authorization"] = f"Bearer {read_secret(deployed.token, self._component, 'options')}"
        try:
            status, answer = _http(deployed.port, method, path, body, headers, ANSWER)
        except (OSError, http.client.HTTPException) as error:
            server = self._server(endpoint, version)
            said = "" if server.runs() else f"; it has ended and said: {server.said()}"
            raise Unreachable(f"it does not answer ({error}){said}") from None
        if status != 200:
            raise Unreachable(f"{path} answers {status}: {answer[:500].decode(errors='replace')}")
        return answer

    def _is_stale(self, state: State) -> bool:
        return bool(state.traffic) and (state.routed != state.generation or not self._proxy(state.name).runs())

    def _routed(self, state: State) -> State:
        """Let the proxy do what is written down, and write down that it does. The caller holds the endpoint."""
        if not self._is_stale(state):
            return state
        standing = self._proxy(state.name)
        ports = {version: deployed.port for version, deployed in state.versions.items()}
        places = proxy.places(state.traffic, ports)
        shadow = f"{state.shadow}:{ports[state.shadow]}" if state.shadow else ""
        port = state.port
        try:
            if standing.runs():
                standing.route(places, shadow)
            else:
                port = standing.start(state.host, state.port, places, shadow)
        except OSError as error:
            raise UserError(
                self._component,
                "endpoint",
                f"the proxy of {state.name} does not take its routes ({error})",
                "Try again",
            ) from None
        return self._book(state.name).write(replace(state, port=port, routed=state.generation))

    def _sweep(self, endpoint: str, besides: str) -> None:
        """End what was started by those who were killed before they could write it down."""
        folder = self._folder(endpoint) / "versions"
        known = self._book(endpoint).read()
        for each in sorted(folder.iterdir()) if folder.is_dir() else []:
            if each.name == besides or (known and each.name in known.versions):
                continue
            with contextlib.suppress(UserError), lock(self._lock_file(endpoint, each.name), 0.0, self._component):
                now = self._book(endpoint).read()
                if now is None or each.name not in now.versions:
                    self._end(endpoint, each.name)

    def _end(self, endpoint: str, version: str) -> None:
        self._server(endpoint, version).stop((signal.SIGTERM, DRAIN))
        shutil.rmtree(self._folder(endpoint) / "versions" / version, ignore_errors=True)

    def _remove_all(self, endpoint: str) -> bool:
        with self._changing(endpoint) as state:
            folder = self._folder(endpoint)
            if not folder.is_dir():
                return False
            self._proxy(endpoint).stop()
            versions = folder / "versions"
            for each in sorted(versions.iterdir()) if versions.is_dir() else []:
                self._end(endpoint, each.name)
            shutil.rmtree(folder, ignore_errors=True)
            return state is not None


def _seen(state: State) -> Endpoint:
    versions = {
        name: Version(name, each.digest, f"http://127.0.0.1:{each.port}") for name, each in state.versions.items()
    }
    url = state.url if state.port and state.traffic else ""
    return Endpoint(state.name, url, versions, dict(state.traffic), state.shadow, str(state.generation))


def _http(
    port: int, method: str, path: str, body: bytes | None, headers: Mapping[str, str], seconds: float
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
