"""Tells what an exception of Azure's libraries stands for."""

from __future__ import annotations

import re

from penstock.compile.retrying import Fault, retry_after

_LOG_IN = (
    "; log in with `az login`, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET or "
    "AZURE_FEDERATED_TOKEN_FILE"
)
_ADVICE = {
    401: _LOG_IN,
    403: "; the identity that is used needs the role AzureML Data Scientist on the workspace",
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MISSING_WORKSPACE = re.compile(
    r"MachineLearningServices/workspaces/[^/']+'|resource group|subscription", re.IGNORECASE
)


def fault_of(error: Exception) -> Fault | None:
    """Return what kept a call from its answer; None: the exception is of another kind."""
    import requests
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceRequestTimeoutError,
        ServiceResponseError,
        ServiceResponseTimeoutError,
    )

    if isinstance(error, HttpResponseError) and error.status_code:
        return _answered(error, int(error.status_code))
    if isinstance(error, ClientAuthenticationError):
        return Fault(f"Azure's credentials are missing or were refused{_LOG_IN}", 401)
    if isinstance(error, ServiceRequestError | ServiceResponseError | requests.exceptions.RequestException):
        cause = getattr(error, "inner_exception", None) or error
        if isinstance(cause, requests.exceptions.SSLError):
            return Fault("the certificate of its API cannot be trusted; REQUESTS_CA_BUNDLE names others", 0)
        late = isinstance(error, ServiceRequestTimeoutError | ServiceResponseTimeoutError)
        return Fault("Azure ML did not answer in time" if late else "no connection to Azure ML")
    return _of_client(error)


def _of_client(error: Exception) -> Fault | None:
    """Return what azure-ai-ml itself finds wrong, before it asks the service."""
    from azure.ai.ml.exceptions import MlException
    from marshmallow.exceptions import ValidationError

    if (
        isinstance(error, MlException)
        and isinstance(error.__cause__, Exception)
        and (found := fault_of(error.__cause__))
    ):
        return found  # of an upload, for example, which it wraps
    if isinstance(error, MlException | ValidationError):
        return Fault(f"azure-ai-ml refuses it: {_short(error)}", 0)
    return None


def _answered(error: object, status: int) -> Fault:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    said = getattr(getattr(error, "error", None), "message", None) or getattr(error, "message", "") or "no reason"
    text = _short(said)
    advice = _ADVICE.get(status, "")
    if status == 404 and _MISSING_WORKSPACE.search(text):
        advice = "; see --subscription, --resource-group and --workspace"
    return Fault(f"Azure ML answered {status}: {text}{advice}", status, retry_after(headers.get("Retry-After")))


def _short(message: object) -> str:
    text = " ".join(_COLOURS.sub("", str(message)).split()).rstrip(".")
    return text if len(text) <= 500 else f"{text[:499]}…"
