"""Tells what an exception of KFP's client library stands for."""

from __future__ import annotations

import json

from penstock.compile.retrying import Fault, retry_after

_ADVICE = {
    401: "; give --token or --cookies",
    403: "; the account needs to be a contributor of the namespace, see --namespace",
}


def fault_of(error: Exception) -> Fault | None:
    """Return what kept a call from its answer; None: the exception is of another kind."""
    import urllib3
    from kfp_server_api import ApiException

    if isinstance(error, ApiException):
        if not error.status:
            return Fault("the certificate of Kubeflow cannot be trusted; see --ca-cert", 0)
        status = int(error.status)
        seconds = retry_after((error.headers or {}).get("Retry-After"))
        said = _message(error.body) or error.reason or "no reason"
        return Fault(f"Kubeflow answered {status}: {said}{_ADVICE.get(status, '')}", status, seconds)
    if isinstance(error, urllib3.exceptions.LocationValueError):
        return Fault("--host is no address, such as https://kubeflow.example.com/pipeline", 0)
    if isinstance(error, urllib3.exceptions.HTTPError):
        reason = getattr(error, "reason", error)
        if isinstance(reason, urllib3.exceptions.SSLError):
            return Fault("the certificate of Kubeflow cannot be trusted; see --ca-cert", 0)
        refused = isinstance(reason, urllib3.exceptions.NewConnectionError)  # which urllib3 counts among the late
        late = isinstance(reason, urllib3.exceptions.TimeoutError) and not refused
        return Fault("Kubeflow did not answer in time" if late else "no connection to Kubeflow")
    return None


def _message(body: object) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = json.loads(text)
        text = str(found.get("message") or found.get("error") or text)
    except (ValueError, AttributeError):
        pass
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 500 else f"{text[:499]}…"
