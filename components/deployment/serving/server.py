"""The HTTP server: routes, limits, health, and how it starts and ends.

aiohttp's low-level server reads and writes HTTP. The loop answers health and metrics; bodies are parsed, rows checked
and predicted in threads, so that health answers however much is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiohttp import web

from penstock.components._shared.errors import USER_ERROR_EXIT_CODE, UserError
from penstock.components.deployment.serving import buckets, openapi, payloads, served
from penstock.components.deployment.serving.metrics import CONTENT_TYPE, Metrics
from penstock.components.deployment.serving.payloads import PROTOCOLS, Protocol
from penstock.components.deployment.serving.refusal import Refusal, shown
from penstock.components.deployment.serving.request_log import RequestLog, Store, into_folder
from penstock.components.deployment.serving.settings import COMPONENT, Settings, read_token
from penstock.components.deployment.serving.signature import KINDS

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_LINGER = 2.0  # seconds in which the rest of a body that was refused is read and thrown away
_SETTLE = 0.05  # seconds for connections that were accepted to be read
_BACKLOG = 128  # connections that wait to be accepted
_FLUSH = 5.0  # seconds for the request log to be written at the end


@dataclass(frozen=True)
class Route:
    """What a path does.

    Attributes:
        label: Its name in the metrics.
        get: Answers GET and HEAD.
        protocol: Of predictions, which POST asks for.
        is_open: Whether it needs no token.
    """

    label: str
    get: Callable[[], web.Response] | None = None
    protocol: Protocol | None = None
    is_open: bool = False

    @property
    def methods(self) -> str:
        return "POST" if self.protocol else "GET, HEAD"


_OTHER = Route("other")


class Server:
    """A server of one model.

    Args:
        token: Bearer token; empty: none is asked for.
        tell: Told, in one line, what goes on.
    """

    def __init__(self, settings: Settings, token: bytes, tell: Callable[[str], None]) -> None:
        self._settings, self._token, self._tell = settings, token, tell
        self._metrics = Metrics()
        self._pool = ThreadPoolExecutor(settings.workers, "predict")
        self._store = _store(settings)
        self._log: RequestLog | None = None
        self._answering: served.Answering | None = None
        self._described: bytes | None = None
        self._draining = False
        self._handling = self._busy = 0
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._routes = self._fixed_routes()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the code to exit with."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)
        runner = web.ServerRunner(
            web.Server(
                self._handle,
                access_log=None,
                logger=_silent(),
                keepalive_timeout=self._settings.idle_seconds,
                lingering_time=_LINGER,
            ),
            shutdown_timeout=0,
        )
        await runner.setup()
        host, port = self._settings.host, self._settings.port
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
            await web.SockSite(runner, self._socket, backlog=_BACKLOG).start()
        except OSError as error:
            place = f"{host}:{port}"
            raise UserError(
                COMPONENT, "port", f"{place} cannot be listened on: {_reason(error)}", "Give another"
            ) from None
        port = self._socket.getsockname()[1]
        self._tell(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        failure = await self._load()
        if failure is None:
            await self._stop.wait()
            await self._drain(runner)
        else:
            print(failure, file=sys.stderr, flush=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.cleanup(), _LINGER)
        if self._log:
            await self._loop.run_in_executor(None, self._log.close, _FLUSH)
        return 0 if failure is None or self._stop.is_set() else USER_ERROR_EXIT_CODE

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    async def _load(self) -> str | None:
        """Load the model, and return why it cannot be."""
        began = time.monotonic()
        loaded: Future[served.Served] = Future()

        def work() -> None:
            try:
                result = served.load(self._settings)
            except BaseException as error:
                loaded.set_exception(error)
            else:
                loaded.set_result(result)

        # A daemon, so that a bucket which does not answer keeps no process alive.
        threading.Thread(target=work, name="load", daemon=True).start()
        waiting = asyncio.wrap_future(loaded)
        stopped = asyncio.ensure_future(self._stop.wait())
        either: set[asyncio.Future[Any]] = {waiting, stopped}
        await asyncio.wait(either, timeout=self._settings.load_seconds, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._stop.is_set():
            return f"{COMPONENT}: stopped while the model was loaded"
        if not waiting.done():
            return f"error: {COMPONENT}: model: not loaded within {self._settings.load_seconds:g} s."
        if error := waiting.exception():
            if not isinstance(error, UserError):
                traceback.print_exception(error)
            return f"error: {error}"
        self._serve(waiting.result())
        self._tell(
            f"{waiting.result().name} {waiting.result().version} is ready after {time.monotonic() - began:.1f} s"
        )
        return None

    def _serve(self, model: served.Served) -> None:
        settings = self._settings
        if self._store:
            self._log = RequestLog(
                self._store,
                model.signature,
                model.version,
                rows=settings.log_rows,
                seconds=settings.log_seconds,
                most_bytes=settings.log_bytes,
                count=lambda outcome, rows: self._metrics.logged.labels(outcome).inc(rows),
            )
        self._metrics.model.labels(model.name, model.version, str(model.model.facts.get("framework", ""))).set(1)
        self._answering = served.Answering(model, self._metrics, self._log, settings.log_sample)
        self._routes |= self._model_routes(model)
        document = openapi.Document(
            model.name, model.version, model.signature, settings.max_bytes, bool(self._token), model.example_rows
        )
        self._described = json.dumps(openapi.write(document, self._routes)).encode()
        self._metrics.ready.set(1)

    async def _drain(self, runner: web.ServerRunner) -> None:
        """Say that no more is wanted, then take no more, then end what is being worked on."""
        settings = self._settings
        self._draining = True
        self._metrics.ready.set(0)
        self._tell(f"draining: not ready; takes requests for {settings.drain_delay_seconds:g} s more")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._now.wait(), settings.drain_delay_seconds)
        # What is accepted while its server closes would be left open and unread: accept nothing first.
        self._loop.remove_reader(self._socket)
        await asyncio.sleep(_SETTLE)
        for site in list(runner.sites):
            await site.stop()
        # aiohttp's own shutdown would read no more of bodies that are still on their way.
        end = self._loop.time() + settings.drain_seconds
        while self._handling and not self._now.is_set() and self._loop.time() < end:
            await asyncio.sleep(0.02)
        self._tell(f"ends with {self._handling} requests unanswered" if self._handling else "drained")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.perf_counter()
        route = self._routes.get(request.path, _OTHER)
        self._handling += 1
        self._metrics.in_flight.inc()
        request_id = request.headers.get("X-Request-Id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = str(uuid.uuid4())
        try:
            response = await self._answer(request, route, request_id)
        except Refusal as refusal:
            response = self._refused(refusal, request_id)
        except ConnectionError:  # the client has gone: nobody is there to be answered
            self._metrics.errors.labels("disconnected").inc()
            raise
        except Exception:
            traceback.print_exc()
            response = self._refused(Refusal(500, "internal", "the server failed; its log says how"), request_id)
        finally:
            self._handling -= 1
            self._metrics.in_flight.dec()
            self._metrics.seconds.labels(route.label).observe(time.perf_counter() - began)
        response.headers["X-Request-Id"] = request_id
        if self._draining:
            response.force_close()
        self._metrics.requests.labels(route.label, response.status).inc()
        return response

    async def _answer(self, request: web.BaseRequest, route: Route, request_id: str) -> web.Response:
        if not route.is_open:
            self._authorize(request)
        if route.protocol and request.method == "POST":
            return await self._predict(request, route.protocol, request_id)
        if route.get and request.method in ("GET", "HEAD"):
            return route.get()
        if not (route.protocol or route.get):
            raise self._not_found(request.path)
        raise Refusal(405, "method", f"{request.path} takes {route.methods}", headers=[("Allow", route.methods)])

    def _authorize(self, request: web.BaseRequest) -> None:
        if not self._token:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if scheme.lower() != "bearer" or not known:
            raise Refusal(401, "unauthorized", "a bearer token is needed", headers=[("WWW-Authenticate", "Bearer")])

    async def _predict(self, request: web.BaseRequest, protocol: Protocol, request_id: str) -> web.Response:
        answering = self._answering
        if answering is None:
            raise Refusal(503, "loading", "the model is being loaded", headers=[("Retry-After", "1")])
        if self._busy >= self._settings.max_concurrent:
            most = self._settings.max_concurrent
            raise Refusal(503, "overloaded", f"{most} requests are at work already", headers=[("Retry-After", "1")])
        self._busy += 1
        work: asyncio.Future[bytes] | None = None
        try:
            content_type = payloads.check_content_type(protocol, request.headers.get("Content-Type", ""))
            if "Inference-Header-Content-Length" in request.headers:
                raise Refusal(415, "content_type", "the tensors are binary; this server takes them as JSON")
            body = await self._body(request)
            job = self._pool.submit(answering.answer, protocol, content_type, body, request_id)
            job.add_done_callback(self._release)
            work = asyncio.wrap_future(job)
            return await self._within(work)
        finally:
            if work is None:
                self._busy -= 1

    async def _within(self, work: asyncio.Future[bytes]) -> web.Response:
        seconds = self._settings.request_seconds
        try:
            answer = await asyncio.wait_for(work, seconds)
        except TimeoutError:
            raise Refusal(504, "timeout", f"the prediction was not there within {seconds:g} s") from None
        return web.Response(body=answer, content_type=payloads.JSON)

    def _release(self, job: Future[bytes]) -> None:
        # Called in the thread that worked; a request that nobody waits for any more is at work until then.
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._released)

    def _released(self) -> None:
        self._busy -= 1

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request, decompressed."""
        most, seconds = self._settings.max_bytes, self._settings.request_seconds
        too_large = Refusal(413, "too_large", f"the body has more than {most} bytes; send fewer rows at a time")
        if (request.content_length or 0) > most:
            raise too_large
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refusal(408, "timeout", f"the body was not there within {seconds:g} s") from None
        except (web.PayloadAccessError, web.RequestPayloadError) as error:
            raise Refusal(400, "malformed", f"the body cannot be read: {shown(str(error))}") from None
        return bytes(body)

    def _refused(self, refusal: Refusal, request_id: str) -> web.Response:
        self._metrics.errors.labels(refusal.kind).inc()
        response = _json(refusal.body(request_id), refusal.status)
        response.headers.update(refusal.headers)
        return response

    def _not_found(self, path: str) -> Refusal:
        if path.startswith("/v2/models/") and self._answering:
            model = self._answering.served
            return Refusal(
                404, "not_found", f"{shown(path)} is not here; the model is {model.name}, version {model.version}"
            )
        return Refusal(404, "not_found", f"there is no {shown(path)}; there are {', '.join(sorted(self._routes))}")

    def _fixed_routes(self) -> dict[str, Route]:
        """Return the routes that are there before the model is."""
        settings = self._settings
        live = Route("live", get=lambda: _json({"live": True}), is_open=True)
        ready = Route("ready", get=self._readiness, is_open=True)
        return {
            "/": live,
            "/v2/health/live": live,
            "/v2/health/ready": ready,
            "/ping": ready,
            "/version": Route("version", get=self._version, is_open=True),
            "/openapi.json": Route("openapi", get=self._openapi),
            "/v2": Route("v2", get=self._v2),
            "/metrics": Route("metrics", get=self._prometheus),
            "/score": Route("score", protocol=PROTOCOLS["azureml"]),
            "/invocations": Route("invocations", protocol=PROTOCOLS["mlflow"]),
            settings.predict_route: Route("predict", protocol=PROTOCOLS["vertex"]),
            settings.health_route: ready,
        }

    def _model_routes(self, model: served.Served) -> dict[str, Route]:
        """Return the routes that carry the model's name."""
        routes = {}
        for base in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{model.version}"):
            routes[base] = Route("v2_model", get=lambda: self._describe(model))
            routes[f"{base}/ready"] = Route("ready", get=lambda: self._readiness(model.name), is_open=True)
            routes[f"{base}/infer"] = Route("infer", protocol=PROTOCOLS["v2"])
        return routes

    def _readiness(self, name: str = "") -> web.Response:
        ready = self._answering is not None and not self._draining
        return _json({**({"name": name} if name else {}), "ready": ready}, 200 if ready else 503)

    def _openapi(self) -> web.Response:
        if self._described is None:
            raise Refusal(503, "loading", "the model is being loaded", headers=[("Retry-After", "1")])
        return web.Response(body=self._described, content_type=payloads.JSON)

    def _version(self) -> web.Response:
        found: dict[str, Any] = {"penstock": version("penstock")}
        if self._answering:
            model = self._answering.served
            found |= {"model_name": model.name, "model_version": model.version}
        return _json(found)

    def _v2(self) -> web.Response:
        return _json({"name": "penstock", "version": version("penstock"), "extensions": []})

    def _describe(self, model: served.Served) -> web.Response:
        def tensor(name: str, kind: str) -> dict[str, Any]:
            return {"name": name, "datatype": KINDS[kind].datatype, "shape": [-1]}

        return _json(
            {
                "name": model.name,
                "versions": [model.version],
                "platform": f"penstock_{model.model.facts.get('framework', 'model')}",
                "inputs": [tensor(each.name, each.type) for each in model.signature.inputs],
                "outputs": [tensor(name, kind) for name, kind in model.signature.outputs],
            }
        )

    def _prometheus(self) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def serve(settings: Settings, environment: Mapping[str, str]) -> int:
    """Serve until a signal ends it; return the code to exit with.

    Raises:
        UserError: The token cannot be read, the log cannot be kept there, or the port is taken.
    """
    token = read_token(settings.token, environment)
    # The loop waits for the interpreter's lock while a thread checks rows; by default for 5 ms at a time.
    sys.setswitchinterval(0.0005)

    async def run() -> int:
        return await Server(settings, token, _tell).run()

    return asyncio.run(run())


def _reason(error: OSError) -> str:
    # asyncio's text repeats the address; a name that cannot be resolved has no number that is known here.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def exit_now(code: int) -> None:
    """End the process, threads that still predict for nobody with it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _store(settings: Settings) -> Store | None:
    if not settings.log:
        return None
    if not buckets.is_bucket(settings.log):
        return into_folder(Path(settings.log).expanduser(), settings.log_keep_bytes, settings.log_keep_days)
    if settings.log_keep_bytes or settings.log_keep_days:
        raise UserError(
            COMPONENT, "PENSTOCK_LOG", f"{settings.log} is a bucket, and only folders are cleared from here",
            "Give the bucket a lifecycle rule, and leave PENSTOCK_LOG_KEEP_BYTES and PENSTOCK_LOG_KEEP_DAYS out",
        )  # fmt: skip
    return buckets.into_bucket(settings.log)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, content_type=payloads.JSON)


def _silent() -> logging.Logger:
    """Return a logger that says nothing of requests that are not HTTP, which anybody can send."""
    logger = logging.getLogger("penstock.serving.http")
    logger.disabled = True
    return logger


def _tell(line: str) -> None:
    print(f"serving: {line}", file=sys.stderr, flush=True)
