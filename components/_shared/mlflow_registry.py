"""The MLflow registry that evaluate reads and register writes: where it is, and calls that end and speak plainly."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlsplit, urlunsplit

# MLflow reads these when it is imported or called. Left alone, a server that does not answer is waited for for
# twenty minutes, and every import reports home.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "300")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from penstock.components._shared.errors import UserError
from penstock.components._shared.paths import user_path

CHAMPION = "champion"
EXPERIMENT = "penstock"
FORMS = "sqlite:////data/mlflow.db (a file) or https://mlflow.example.com (a server)"
DATABASE_DEADLINE = 120.0  # seconds to wait while another process sets up the same SQLite file
LONGEST_NAME = 200

# What fails is raised; logged as well, one line for the user would become a page.
for _logger in ("mlflow", "alembic"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Registry:
    """An MLflow registry that has answered.

    Attributes:
        uri: Without user and password, fit to be shown.
        component: Component on whose behalf it is called, for its errors.
    """

    uri: str
    client: MlflowClient
    component: str

    def speaking(self) -> AbstractContextManager[None]:
        """Turn failures of calls in a block into one line that names the registry."""
        return _speaking(self.uri, self.component)

    def aliases(self, name: str) -> dict[str, str]:
        """Return version by alias of a registered model; empty if there is no such model."""
        with self.speaking():
            try:
                return {
                    alias: str(version) for alias, version in self.client.get_registered_model(name).aliases.items()
                }
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise

    def folder(self, name: str, version: str, into: Path) -> Path:
        """Return the folder of a version's files, fetched into the existing folder `into`."""
        with self.speaking():
            source = self.client.get_model_version_download_uri(name, version)
            return Path(download_artifacts(artifact_uri=source, dst_path=str(into), tracking_uri=self.uri))

    def experiment(self) -> str:
        """Return the id of the experiment that holds the runs of registered models, created if need be."""
        with self.speaking():
            found = self.client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                try:
                    return str(self.client.create_experiment(EXPERIMENT, artifact_location=self._artifacts()))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self.client.get_experiment_by_name(EXPERIMENT)
            return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        # A server knows where its artifacts go; a SQLite file would have them in the working directory.
        database = _database(self.uri)
        return (database.parent / "artifacts").as_uri() if database else None


def open_registry(uri: str, component: str) -> Registry:
    """Return the registry at `uri`, once it has answered.

    Args:
        uri: SQLite file or MLflow server. Empty: MLFLOW_REGISTRY_URI, else MLFLOW_TRACKING_URI, else a SQLite file in
            the local run folder.
        component: Component that asks.

    Raises:
        UserError: None is configured, the URI is not one of the supported forms, or it does not answer.
    """
    found = _without_credentials(_resolve(uri, component))
    with _speaking(found, component), _setup(_database(found), component):
        client = MlflowClient(tracking_uri=found, registry_uri=found)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return Registry(found, client, component)


def check_model_name(name: str, component: str) -> None:
    """Refuse a name that MLflow would not take."""
    problem = None
    if not name.strip():
        problem = "it is empty"
    elif wrong := sorted(set(name) & set("/:\\%\"'")):
        problem = f"{name!r} contains {' '.join(wrong)}"
    elif name != name.strip() or name.startswith(".") or not name.isprintable():
        problem = f"{name!r} starts or ends with a space, starts with a dot, or holds control characters"
    elif len(name) > LONGEST_NAME:
        problem = f"it has {len(name)} characters, {LONGEST_NAME} at most are allowed"
    if problem:
        raise UserError(component, "model_name", problem, "Give a name such as taxi-tips")


@contextmanager
def _speaking(uri: str, component: str) -> Iterator[None]:
    """Turn failures of the registry at `uri` into one line that names it."""
    try:
        yield
    except (MlflowException, OSError, sqlalchemy.exc.SQLAlchemyError) as error:  # those of requests are OSErrors
        problem, remedy = _explain(error)
        raise UserError(component, "registry", f"{uri} {problem}", remedy) from error


def without_userinfo(text: str) -> str:
    """Return `text` with user and password taken out of every URI in it."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def _explain(error: Exception) -> tuple[str, str]:
    text = without_userinfo(" ".join(str(error).split()))
    if re.search(r"Max retries exceeded|Connection|timed? ?out", text):
        reason = re.findall(r"Errno -?\d+\] ([^'\")(]+)|(timed out|too many \d+ error responses)", text)
        last = next((part for parts in reversed(reason) for part in parts if part), "no connection")
        return f"does not answer ({last.strip()})", "Check the URI and that the server is up, then run the step again"
    code = getattr(error, "error_code", type(error).__name__)
    return f"refused a call ({code}: {text[:300]})", "Check the registry and the rights of this user there"


def _resolve(uri: str, component: str) -> str:
    places: Mapping[str, str] = os.environ
    found = uri.strip() or places.get("MLFLOW_REGISTRY_URI") or places.get("MLFLOW_TRACKING_URI")
    if not found:
        if not places.get("PENSTOCK_ROOT"):
            raise UserError(
                component,
                "registry",
                "no registry is given, and neither MLFLOW_REGISTRY_URI nor MLFLOW_TRACKING_URI is set",
                f"Give a URI such as {FORMS}",
            )
        found = f"sqlite:///{Path(places['PENSTOCK_ROOT']).absolute() / 'registry' / 'mlflow.db'}"
    scheme = urlsplit(found).scheme
    if scheme not in ("sqlite", "http", "https") or (scheme != "sqlite" and not urlsplit(found).hostname):
        raise UserError(
            component,
            "registry",
            f"{without_userinfo(found)!r} is not a URI of a known form",
            f"Give a URI such as {FORMS}",
        )
    if scheme == "sqlite":
        path = found.removeprefix("sqlite:///")
        if path == found or not path or path.startswith(":memory:") or "?" in path:
            raise UserError(component, "registry", f"{found!r} names no file", "Write sqlite:////data/mlflow.db")
        found = f"sqlite:///{user_path(path).absolute()}"
    return found.rstrip("/")


def _without_credentials(uri: str) -> str:
    # MLflow writes the URI into messages, runs and versions; user and password reach it through its variables.
    parts = urlsplit(uri)
    if parts.scheme == "sqlite" or "@" not in parts.netloc:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def _setup(database: Path | None, component: str) -> Iterator[None]:
    # The first to open a SQLite file creates its tables, which takes seconds; two at once would break each other.
    # The lock file then names the file that is ready.
    if database is None:
        yield
        return
    lock = database.with_name(database.name + ".setup-lock")
    if _ready(database, lock):
        yield
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise UserError(
            component, "registry", f"{database} cannot be written ({error.strerror})", "Give another place"
        ) from None
    with file:
        _wait_for(file, database, component)
        yield
        file.truncate(0)
        file.write(str(database.stat().st_ino))


def _ready(database: Path, lock: Path) -> bool:
    try:
        return lock.read_text() == str(database.stat().st_ino)
    except OSError:
        return False


def _wait_for(file: TextIO, database: Path, component: str) -> None:
    deadline = time.monotonic() + DATABASE_DEADLINE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(
                    component,
                    "registry",
                    f"another process has been setting up {database} for {DATABASE_DEADLINE:g} s",
                    "Run the step again when it is done",
                ) from None
            time.sleep(0.05)
