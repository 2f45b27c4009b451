"""Vertex AI through google-cloud-aiplatform: which project and location, and what its exceptions stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform, storage
from google.cloud.aiplatform import initializer

from penstock.components._shared.clouds.calls import Failure

OPTIONS = {
    "project": "Project. Without it: the environment's.",
    "location": "Region. Without it: the environment's.",
}


def connect(options: Mapping[str, Any]) -> str:
    """Return the resource name of the location that options, or else the environment, name."""
    given = {name: str(options[name]) for name in OPTIONS if options.get(name)}
    if given:
        aiplatform.init(**given)
    return str(initializer.global_config.common_location_path())


def client(kind: type) -> Any:
    """Return a client of a service of Vertex AI, such as utils.JobClientWithOverride."""
    return initializer.global_config.create_client(client_class=kind)


def store() -> Any:
    """Return a client of Cloud Storage, with the credentials and the project of Vertex AI's clients."""
    config = initializer.global_config
    return storage.Client(project=config.project, credentials=config.credentials)


def place(uri: str) -> tuple[str, str]:
    """Return bucket and path of a gs:// URI."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return bucket, path


def failure(error: Exception) -> Failure | None:
    """Return what an exception stands for; None: it is no fault of a call."""
    if isinstance(error, GoogleAPICallError):
        headers = getattr(error.response, "headers", None) or {}
        after = str(headers.get("Retry-After", ""))
        reason = " ".join(str(error.message).split())[:300]
        return Failure(reason, error.code, float(after) if after.isdigit() else 0.0)
    if isinstance(error, requests.RequestException | RetryError | ConnectionError | TimeoutError):
        return Failure("it does not answer")
    if isinstance(error, GoogleAuthError):
        return Failure(f"no credentials ({error})", 401)
    return None
