"""What a server is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from penstock.components._shared.cores import cores
from penstock.components._shared.errors import UserError
from penstock.components._shared.secrets import read_secret

COMPONENT = "serving"
MODEL_VARIABLES = ("PENSTOCK_MODEL", "AIP_STORAGE_URI", "AZUREML_MODEL_DIR")
MOUNTED = "/mnt/models"  # where KServe puts a model
DEFAULT_PORT = 8080


def _setting(default: Any, *variables: str, least: float | None = None, most: float | None = None) -> Any:
    return field(default=default, metadata={"variables": variables, "least": least, "most": most})


@dataclass(frozen=True)
class Settings:
    """How to serve; each is read from the first of its variables that is set.

    Attributes:
        model: Model folder, or the folder above it; a path or gs://BUCKET/FOLDER.
        model_name: Name in the routes of the Open Inference Protocol.
        model_version: Version there, in the log and in the metrics; empty: the start of the model's own id.
        host: Address to listen on.
        port: Port to listen on; 0: any that is free.
        health_route: Route that answers 200 when the model is ready; Vertex AI names it.
        predict_route: Route of Vertex AI's protocol.
        token: Where the bearer token is, see _shared/secrets.py; empty: none is asked for.
        max_bytes: Longest body of a request, decompressed.
        max_concurrent: Requests for predictions that are worked on or wait at a time; others are answered 503.
        threads: Threads that predict.
        request_seconds: Seconds for a body to arrive and for its prediction, each.
        idle_seconds: Seconds after which a connection without a whole request is closed.
        load_seconds: Seconds for the model to be fetched and loaded.
        drain_delay_seconds: Seconds after SIGTERM in which requests are still taken, though readiness says no.
        drain_seconds: Seconds after those in which requests that are being worked on may end.
        log: Folder for the request log, a path or gs://BUCKET/FOLDER; empty: none is kept.
        log_sample: Share of requests that are logged, 0 to 1.
        log_rows: Rows after which a file of the log is written.
        log_seconds: Seconds after which a file of the log is written.
        log_bytes: Bytes of requests that may wait to be written; what comes on top of them is not logged.
        log_keep_bytes: Bytes of the log's files in its folder, of which the oldest go when there are more; 0: all stay.
        log_keep_days: Days after which a file of the log goes; 0: all stay.
    """

    model: str = _setting(MOUNTED, *MODEL_VARIABLES)
    model_name: str = _setting("model", "PENSTOCK_MODEL_NAME")
    model_version: str = _setting("", "PENSTOCK_MODEL_VERSION")
    host: str = _setting("127.0.0.1", "PENSTOCK_HOST")
    port: int = _setting(DEFAULT_PORT, "PENSTOCK_PORT", "AIP_HTTP_PORT", least=0, most=65535)
    health_route: str = _setting("/health", "AIP_HEALTH_ROUTE")
    predict_route: str = _setting("/predict", "AIP_PREDICT_ROUTE")
    token: str = _setting("", "PENSTOCK_TOKEN")
    max_bytes: int = _setting(8 << 20, "PENSTOCK_MAX_BYTES", least=1)
    max_concurrent: int = _setting(64, "PENSTOCK_MAX_CONCURRENT", least=1)
    threads: int = _setting(0, "PENSTOCK_THREADS", least=0, most=256)
    request_seconds: float = _setting(30.0, "PENSTOCK_REQUEST_SECONDS", least=0.001)
    idle_seconds: float = _setting(75.0, "PENSTOCK_IDLE_SECONDS", least=0.001)
    load_seconds: float = _setting(600.0, "PENSTOCK_LOAD_SECONDS", least=0.001)
    drain_delay_seconds: float = _setting(3.0, "PENSTOCK_DRAIN_DELAY_SECONDS", least=0)
    drain_seconds: float = _setting(20.0, "PENSTOCK_DRAIN_SECONDS", least=0)
    log: str = _setting("", "PENSTOCK_LOG")
    log_sample: float = _setting(1.0, "PENSTOCK_LOG_SAMPLE", least=0, most=1)
    log_rows: int = _setting(10_000, "PENSTOCK_LOG_ROWS", least=1)
    log_seconds: float = _setting(60.0, "PENSTOCK_LOG_SECONDS", least=0.001)
    log_bytes: int = _setting(32 << 20, "PENSTOCK_LOG_BYTES", least=1)
    log_keep_bytes: int = _setting(0, "PENSTOCK_LOG_KEEP_BYTES", least=0)
    log_keep_days: float = _setting(0.0, "PENSTOCK_LOG_KEEP_DAYS", least=0)

    @classmethod
    def read(cls, environment: Mapping[str, str], **given: Any) -> Settings:
        """Return the settings of an environment; what is given goes before it.

        Raises:
            UserError: A value is of another kind or beyond its bounds.
        """
        values = dict(given)
        for each in fields(cls):
            variables = each.metadata["variables"]
            named = next((name for name in variables if environment.get(name, "").strip()), None)
            if named is not None and each.name not in values:
                values[each.name] = _value(named, environment[named].strip(), each.metadata, type(each.default))
        settings = cls(**values)
        for variable, route in (
            ("AIP_HEALTH_ROUTE", settings.health_route),
            ("AIP_PREDICT_ROUTE", settings.predict_route),
        ):
            if not route.startswith("/"):
                raise UserError(COMPONENT, variable, f"{route!r} is no route", "Give a path that starts with /")
        for variable, name in (
            ("PENSTOCK_MODEL_NAME", settings.model_name),
            ("PENSTOCK_MODEL_VERSION", settings.model_version),
        ):
            if "/" in name or not name.isprintable():
                raise UserError(COMPONENT, variable, f"{name!r} cannot be part of a route", "Leave slashes out of it")
        return settings

    @property
    def workers(self) -> int:
        """Threads that predict; where none are set, one a processor and at most four."""
        return self.threads or min(4, cores())


def read_token(reference: str, environment: Mapping[str, str]) -> bytes:
    """Return the token that a reference leads to; empty where there is no reference.

    Raises:
        UserError: The reference is of another form, or leads to nothing.
    """
    if not reference:
        return b""
    return read_secret(reference, COMPONENT, "PENSTOCK_TOKEN", environment).encode()


def _value(variable: str, text: str, bounds: Mapping[str, Any], kind: type) -> Any:
    if kind is str:
        return text
    least, most = bounds["least"], bounds["most"]
    try:
        value = kind(text)
        within = (least is None or value >= least) and (most is None or value <= most)  # NaN is not
    except ValueError:
        within = False
    if not within:
        wanted = "a whole number" if kind is int else "a number"
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UserError(COMPONENT, variable, f"{text!r} is not {wanted} {limits}", "Correct it, or leave it out")
    return value
