"""What the stand-ins are made of: an HTTP server on 127.0.0.1 with routes, a journal and faults."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock.testing.certificate import certificate
from penstock.testing.faults import Fault, Kind, matches

_HIDDEN = "(not kept)"
# Values that open doors. They are not needed to tell what a client did.
_SECRET_HEADERS = re.compile(r"authorization|cookie|token|secret|api-?key|signature", re.IGNORECASE)
_SECRET_QUERY = re.compile(r"sig|signature|key|token|access_token|code", re.IGNORECASE)
_LONGEST_SILENCE = 60.0  # seconds that a connection may be idle
_LARGEST_BODY = 1 << 30  # bytes


@dataclass(frozen=True)
class Request:
    """A request as it came, and what became of it.

    Attributes:
        path: Decoded, without the query.
        query: The last value of each name.
        headers: By lower-case name, without the values of those that hold secrets.
        body: What JSON in the body says; None for any other body.
        content: The body's bytes; the journal keeps none that are not JSON.
        status: Status of the answer; None where none was sent, or not yet.
        fault: What it met in place of, or beside, an answer.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content: bytes = field(default=b"", repr=False)
    status: int | None = None
    fault: Fault | None = None

    def json(self) -> dict[str, Any]:
        """Return the JSON object in the body.

        Raises:
            ApiError: there is none.
        """
        if not isinstance(self.body, dict):
            raise ApiError(400, "expected a JSON object as the body")
        return self.body


@dataclass(frozen=True)
class Answer:
    """An answer; what is neither bytes nor text is sent as JSON."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, dict[str, str]]:
        """Return the body's bytes and all headers."""
        if self.body is None:
            content, kind = b"", ""
        elif isinstance(self.body, bytes):
            content, kind = self.body, "application/octet-stream"
        elif isinstance(self.body, str):
            content, kind = self.body.encode(), "text/plain; charset=utf-8"
        else:
            content, kind = json.dumps(self.body, allow_nan=False).encode(), "application/json; charset=utf-8"
        given = {"Content-Type": kind} if kind else {}
        return content, {**given, **self.headers}


class ApiError(Exception):
    """What a service refuses, with the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


Handler = Callable[..., Any]


@dataclass(frozen=True)
class Route:
    """Whom requests go to.

    Attributes:
        method: HTTP method.
        path: Path in which {name} stands for a segment, up to a ":", and {name...} for one or more of them.
        handler: Is given the request, and by name what stood for each; returns an Answer, or what goes into one.
    """

    method: str
    path: str
    handler: Handler

    @property
    def pattern(self) -> re.Pattern[str]:
        """The path as a regular expression."""
        pieces = re.split(r"\{(\w+)(\.\.\.)?\}", self.path)
        found = re.escape(pieces[0])
        for name, more, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            found += f"(?P<{name}>{'.+' if more else '[^/:]+'}){re.escape(text)}"
        return re.compile(found)


class StandIn:
    """A service of a platform, played on 127.0.0.1: started by `with`, gone at its end.

    A subclass gives `routes` and, where its clients expect it, the form of errors.

    Args:
        faults: What goes wrong; more can be added while it runs.
        tls: Whether it speaks HTTPS. `ca_file` is then the certificate that clients have to trust.
        port: Port to listen on; 0: any that is free.

    Attributes:
        folder: Folder of its own, removed at the end.
        lock: Held while a request is carried out, so that handlers need not think of each other.
    """

    def __init__(self, *, faults: Iterable[Fault] = (), tls: bool = False, port: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"penstock-{type(self).__name__.lower()}-"))
        self.lock = threading.RLock()
        self.ca_file: Path | None = None
        self._journal: list[Request] = []
        self._faults: list[_Planned] = []
        self._noting = threading.Lock()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._routes = [(route.method, route.pattern, route.handler) for route in self.routes()]
        self.set_faults(*faults)
        try:
            self._server = _Server(("127.0.0.1", port), self)
            if tls:
                self.ca_file, key = certificate(self.folder)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.ca_file, key)
                self._server.context = context
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to; the first that fits is taken."""
        raise NotImplementedError

    def error_body(self, status: int, message: str) -> Any:
        """Return the body by which this service tells of an error."""
        return {"error": {"code": status, "message": message}}

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def url(self) -> str:
        """Address with its scheme, without a slash at the end."""
        return f"{'https' if self.ca_file else 'http'}://{self.address}"

    # What was asked, and what goes wrong.

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request since the start, or since `forget`, in the order in which they came."""
        with self._noting:
            return tuple(self._journal)

    def seen(self, on: str) -> tuple[Request, ...]:
        """Return the requests that a pattern such as "POST */pipelineJobs" fits."""
        return tuple(request for request in self.requests if matches(on, request.method, request.path))

    def forget(self) -> None:
        """Begin the journal anew."""
        with self._noting:
            self._journal.clear()

    def add_faults(self, *faults: Fault) -> None:
        """Let more go wrong, after what is to go wrong already."""
        with self._noting:
            self._faults += [_Planned(fault) for fault in faults]

    def set_faults(self, *faults: Fault) -> None:
        """Let only this go wrong from now on; without faults, nothing."""
        with self._noting:
            self._faults = []
        self.add_faults(*faults)

    @property
    def pending_faults(self) -> tuple[Fault, ...]:
        """The faults that have not all happened yet, each with the times that are left."""
        with self._noting:
            return tuple(
                dataclasses.replace(each.fault, times=each.fault.times - each.happened)
                for each in self._faults
                if each.fault.times > each.happened
            )

    def close(self) -> None:
        """End the server, what it runs, and its connections; removes its folder. Can be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._noting:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Below: a request on its way.

    def _receive(self, request: Request) -> tuple[int, Fault | None]:
        with self._noting:
            fault = next((each.fault for each in self._faults if each.happens(request)), None)
            kept = request if request.body is not None else dataclasses.replace(request, content=b"")
            self._journal.append(dataclasses.replace(kept, fault=fault))
            return len(self._journal) - 1, fault

    def _answered(self, number: int, request: Request, status: int) -> None:
        with self._noting:
            # After `forget` there may be another one in its place.
            if number < len(self._journal) and self._journal[number].path == request.path:
                self._journal[number] = dataclasses.replace(self._journal[number], status=status)

    def _carry_out(self, request: Request) -> Answer:
        try:
            with self.lock:
                return self._routed(request)
        except ApiError as error:
            return Answer(self.error_body(error.status, error.message), error.status)

    def _routed(self, request: Request) -> Answer:
        for method, pattern, handler in self._routes:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                result = handler(request, **found.groupdict())
                return result if isinstance(result, Answer) else Answer(result)
        raise ApiError(404, f"{type(self).__name__} has no {request.method} {request.path}")

    def _connected(self, connection: socket.socket, there: bool) -> None:
        with self._noting:
            (self._connections.add if there else self._connections.discard)(connection)


class _Planned:
    """A fault with how often it fitted and happened."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.fitted = 0
        self.happened = 0

    def happens(self, request: Request) -> bool:
        if self.happened >= self.fault.times or not matches(self.fault.on, request.method, request.path):
            return False
        self.fitted += 1
        if self.fitted <= self.fault.after:
            return False
        self.happened += 1
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.context: ssl.SSLContext | None = None
        super().__init__(address, _Connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a client that is slow to shake hands keeps no other waiting.
        request.settimeout(_LONGEST_SILENCE)
        self.stand_in._connected(request, True)
        plain = request
        try:
            if self.context:
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        finally:
            self.stand_in._connected(plain, False)
            if request is not plain:
                with contextlib.suppress(OSError):
                    request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave out what a client did: it hung up, or does not trust the certificate."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        stand_in = self.server.stand_in
        request = self._request()
        if request is None:
            return
        number, fault = stand_in._receive(request)
        if fault and fault.kind is Kind.STALL:
            stand_in._closing.wait(fault.seconds)
        if stand_in._closing.is_set() or (fault and fault.kind is Kind.RESET):
            self._reset()
            return
        if fault and fault.kind is Kind.STATUS:
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            body = stand_in.error_body(fault.status, f"the service answers {fault.status} now, as the test asked")
            answer = Answer(body, fault.status, headers)
        else:
            try:
                answer = stand_in._carry_out(request)
                content = answer.encoded()
            except Exception as bug:  # the client has to hear of it, whatever it is
                answer = Answer(stand_in.error_body(500, f"{type(bug).__name__} in the stand-in: {bug}"), 500)
                traceback.print_exc()
        if fault and fault.kind is Kind.LOST:
            self._reset()
            return
        content = answer.encoded()
        stand_in._answered(number, request, answer.status)
        self._send(answer.status, *content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def _request(self) -> Request | None:
        parts = urllib.parse.urlsplit(self.path)
        content = self._content()
        if content is None:
            return None
        body = None
        if content and "json" in self.headers.get("Content-Type", ""):
            with contextlib.suppress(ValueError):
                body = json.loads(content)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return Request(
            method=self.command,
            path=urllib.parse.unquote(parts.path),
            query={name: _HIDDEN if _SECRET_QUERY.fullmatch(name) else value for name, value in query.items()},
            headers={
                name.lower(): _HIDDEN if _SECRET_HEADERS.search(name) else value for name, value in self.headers.items()
            },
            body=body,
            content=content,
        )

    def _content(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            content = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return content
        size = int(self.headers.get("Content-Length") or 0)
        if size > _LARGEST_BODY:
            self._send(413, b"", {"Connection": "close"})
            self.close_connection = True
            return None
        return self.rfile.read(size)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status >= 200 and status != 204 and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(content)
        self.wfile.flush()

    def _reset(self) -> None:
        """Cut the connection so that the client is told at once."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError("as the test asked")
