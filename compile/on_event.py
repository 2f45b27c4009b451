"""Submits pipelines on events: an HTTP entry point for Pub/Sub push subscriptions and Cloud Scheduler.

`application` is for any WSGI server, `on_event` for Cloud Run functions. Whoever may send messages may begin the runs
that the file in PENSTOCK_EVENTS lists, with the parameters that it lets them choose, and nothing else: where a run goes
to, as whom and with which settings stands in that file alone.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from penstock.compile import submission
from penstock.compile.errors import PenstockError
from penstock.compile.retrying import CallFailed
from penstock.compile.submission import Place, RemoteRun, Settings

CONFIGURATION = "PENSTOCK_EVENTS"
"""Variable of the environment: path of the YAML file of what may be submitted."""

_LARGEST = 10 << 20  # bytes: of a Pub/Sub message
_CALL = 20.0  # seconds that a bucket may take to answer
_DOWNLOAD = 40.0  # seconds that reading a spec may take, passing faults outlasted
_FIELDS = ("spec", "parameters", "target")
_SUFFIXES = (".yaml", ".yml", ".json")
_REASONS = {
    200: "OK", 400: "Bad Request", 405: "Method Not Allowed", 413: "Content Too Large", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip


@dataclass(frozen=True)
class Allowed:
    """A pipeline that messages may begin runs of.

    Attributes:
        spec: Path or gs:// URI of a compiled spec, or the name of a pipeline; messages name it so.
        parameters: Names of the parameters that messages may give.
        values: Parameters that they may not.
        sha256: Of the spec, where only that one may run whatever lies there.
    """

    spec: str
    target: str
    parameters: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    name: str | None = None
    place: Place = field(default_factory=Place)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Event:
    """A message as it came.

    Attributes:
        key: The same for each delivery of one message.
    """

    content: Mapping[str, Any]
    key: str


class Refused(PenstockError):
    """A message that is wrong, and will be wrong when it comes again."""


def handle(body: bytes, headers: Mapping[str, str], environment: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Submit what a message asks for, and return the HTTP status and the answer.

    The status is 200 for what was submitted, and for a message of Pub/Sub that is refused, which would come again
    otherwise; 400 for another one that is refused; 503 where trying again may help; 500 where the configuration or the
    rights of this service are wrong.

    Args:
        body: Of the request.
        headers: Of the request, by lower-case name.
        environment: Variables.
    """
    try:
        allowed = configuration(environment)
        event = read(body, headers)
        run = _submit(event, allowed)
    except Refused as error:
        _log("ERROR", f"refused: {error}", headers)
        return 200 if _is_pubsub(body, headers) else 400, {"refused": str(error)}
    except CallFailed as error:
        _log("ERROR", str(error), headers)
        return 503 if error.fault.passing else 500, {"error": str(error)}
    except PenstockError as error:
        _log("ERROR", str(error), headers)
        return 500, {"error": str(error)}
    _log("INFO", f"run {run.id} {'was there already' if run.adopted else 'begun'}: {run.url}", headers)
    return 200, {"run": run.id, "url": run.url, "adopted": run.adopted}


def application(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request; the WSGI entry point."""
    status, answer = 405, {"error": "messages are sent with POST"}
    if environ["REQUEST_METHOD"] == "POST":
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdigit() or int(length) > _LARGEST:
            status, answer = 413, {"error": f"a message has {_LARGEST} bytes at most"}
        else:
            body = environ["wsgi.input"].read(int(length))
            headers = {
                name.removeprefix("HTTP_").replace("_", "-").lower(): value
                for name, value in environ.items()
                if name.startswith("HTTP_")
            }
            status, answer = handle(body, headers, os.environ)
    content = json.dumps(answer).encode()
    start_response(
        f"{status} {_REASONS[status]}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(content)))],
    )
    return [content]


def on_event(request: Any) -> tuple[str, int, dict[str, str]]:
    """Answer a request; the entry point of a Cloud Run function.

    Args:
        request: Flask's, as the functions framework gives it.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    status, answer = handle(request.get_data(), headers, os.environ)
    return json.dumps(answer), status, {"Content-Type": "application/json"}


def configuration(environment: Mapping[str, str]) -> list[Allowed]:
    """Return what may be submitted.

    Raises:
        PenstockError: the file is not there, or says something that there is not.
    """
    path = environment.get(CONFIGURATION)
    if not path:
        raise PenstockError(f"{CONFIGURATION} is not set; give the path of the file of what may be submitted")
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PenstockError(f"{path}: cannot be read: {error}") from error
    rows = found.get("allow") if isinstance(found, Mapping) else None
    if not isinstance(rows, list) or set(found) != {"allow"}:
        raise PenstockError(f"{path}: expected a list `allow`, and nothing else")
    return [_allowed(row, f"{path}: allow[{number}]") for number, row in enumerate(rows)]


def read(body: bytes, headers: Mapping[str, str]) -> Event:
    """Return the message of a request: in Pub/Sub's envelope, or alone.

    Raises:
        Refused: it is none, or nothing tells its deliveries from each other.
    """
    outer = _json(body, "the request")
    content = outer
    message = outer.get("message")
    if isinstance(message, Mapping) and "spec" not in outer:
        try:
            content = _json(base64.b64decode(message.get("data") or "", validate=True), "the message's data")
        except (binascii.Error, TypeError, ValueError) as error:
            raise Refused("the message's data are not base64") from error
        key = str(message.get("messageId") or message.get("message_id") or "")
    else:
        job, time = headers.get("x-cloudscheduler-jobname"), headers.get("x-cloudscheduler-scheduletime")
        scheduled = f"{job}@{time}" if job and time else ""
        key = headers.get("x-goog-pubsub-message-id") or headers.get("idempotency-key") or scheduled
    if not key:
        raise Refused("nothing tells one delivery from another message; send a header Idempotency-Key")
    return Event(content, key)


def _submit(event: Event, allowed: list[Allowed]) -> RemoteRun:
    row, given = _chosen(event.content, allowed)
    content = _content(row.spec)
    if row.sha256 and hashlib.sha256(content).hexdigest() != row.sha256:
        raise PenstockError(f"{row.spec}: its SHA-256 is not {row.sha256}, which is the one allowed")
    try:
        prepared = submission.prepare(
            content, row.spec, {}, None, event.key, name=row.name, given={**row.values, **given}, settings=row.settings
        )
        submission.refuse_unsound(prepared, row.target)
    except PenstockError as error:
        # Without parameters of the message, the fault is not the message's.
        raise (Refused(str(error)) if given else error) from error
    return submission.target(row.target).connect(row.place).submit(prepared)


def _chosen(content: Mapping[str, Any], allowed: list[Allowed]) -> tuple[Allowed, Mapping[str, Any]]:
    """Return what a message may begin a run of, and its parameters.

    Raises:
        Refused: it may not.
    """
    if unknown := sorted(set(content) - set(_FIELDS)):
        raise Refused(f"a message has {', '.join(_FIELDS)}, not {', '.join(unknown)}")
    spec, target, given = content.get("spec"), content.get("target"), content.get("parameters") or {}
    if not isinstance(spec, str) or not isinstance(given, Mapping):
        raise Refused("a message has a spec, which is text, and parameters, which are an object")
    found = [row for row in allowed if row.spec == spec and target in (None, row.target)]
    if not found:
        raise Refused(f"{spec} may not be submitted{f' to {target}' if target else ''}")
    if len(found) > 1:
        raise Refused(f"{spec} may be submitted to {' and '.join(row.target for row in found)}; say which, as target")
    [row] = found
    if barred := sorted(set(given) - set(row.parameters)):
        raise Refused(f"{', '.join(barred)}: messages may give {', '.join(row.parameters) or 'no parameters'}")
    return row, given


def _content(spec: str) -> bytes:
    """Return the bytes of a spec.

    Raises:
        PenstockError: it is not there, or cannot be read.
    """
    if spec.startswith("gs://"):
        return _from_bucket(spec)
    if spec.endswith(_SUFFIXES):
        try:
            return Path(spec).read_bytes()
        except OSError as error:
            raise PenstockError(f"{spec}: cannot be read: {error.strerror}") from error
    from penstock.compile import catalog
    from penstock.compile.to_kfp import compiled

    return compiled(catalog.find(spec).function).text.encode()


def _from_bucket(uri: str) -> bytes:
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY
    except ImportError as error:
        raise PenstockError(
            f"{uri}: needs google-cloud-storage, which is not installed: pip install 'penstock[vertex]'"
        ) from error
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    try:
        blob = storage.Client().bucket(bucket).blob(name)
        return bytes(blob.download_as_bytes(timeout=_CALL, retry=DEFAULT_RETRY.with_timeout(_DOWNLOAD)))
    except (GoogleAPIError, GoogleAuthError, OSError, ValueError) as error:
        raise PenstockError(f"{uri}: cannot be read: {error}") from error


def _allowed(row: Any, where: str) -> Allowed:
    own = {field.name for field in dataclasses.fields(Allowed)} - {"place", "settings"}
    places, settings = ({field.name for field in dataclasses.fields(kind)} for kind in (Place, Settings))
    if not isinstance(row, Mapping) or not isinstance(row.get("spec"), str) or not isinstance(row.get("target"), str):
        raise PenstockError(f"{where}: expected a spec and a target, which are text")
    known = own | places | settings
    if unknown := sorted(map(str, set(row) - known)):
        raise PenstockError(f"{where}: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    allowed = Allowed(
        **{name: row[name] for name in own & set(row)} | {"parameters": tuple(row.get("parameters") or ())},
        place=Place(**{name: row[name] for name in places & set(row)}),
        settings=Settings(**{name: row[name] for name in settings & set(row)}),
    )
    if both := sorted(set(allowed.parameters) & set(allowed.values)):
        raise PenstockError(f"{where}: {', '.join(both)}: is in parameters, for messages to give, and in values")
    options = {**row, "label": row.get("labels")}
    submission.check_options(allowed.target, options)
    return allowed


def _json(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise Refused(f"{what}: is not JSON") from error
    if not isinstance(found, dict):
        raise Refused(f"{what}: expected an object, such as {{'spec': 'gs://BUCKET/weekly.yaml'}}")
    return found


def _is_pubsub(body: bytes, headers: Mapping[str, str]) -> bool:
    if "x-goog-pubsub-message-id" in headers:
        return True
    try:
        found = json.loads(body)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("message"), dict) and "subscription" in found


def _log(severity: str, message: str, headers: Mapping[str, str]) -> None:
    """Write a line that Cloud Logging reads: values of parameters are not among it."""
    line = {"severity": severity, "message": message}
    if trace := headers.get("x-cloud-trace-context", "").partition("/")[0]:
        line["trace"] = trace
    print(json.dumps(line), file=sys.stderr, flush=True)
