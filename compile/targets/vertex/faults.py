"""Tells what an exception of Google's libraries stands for."""

from __future__ import annotations

from penstock.compile.retrying import Fault, retry_after

_ADVICE = {
    401: "; log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    403: "; the credentials that are used need the role roles/aiplatform.user there, and "
    "roles/iam.serviceAccountUser on the service account of the run",
}


def fault_of(error: Exception) -> Fault | None:
    """Return what kept a call from its answer; None: the exception is of another kind."""
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import RefreshError, TransportError
    from google.protobuf.json_format import ParseError

    if isinstance(error, GoogleAPICallError):
        status = int(error.code or 0)
        response = error.response
        seconds = retry_after(response.headers.get("Retry-After")) if hasattr(response, "headers") else None
        return Fault(f"Vertex AI answered {status}: {_short(error.message)}{_ADVICE.get(status, '')}", status, seconds)
    if isinstance(error, requests.exceptions.SSLError):
        return Fault("the certificate of its API cannot be trusted; REQUESTS_CA_BUNDLE names others", 0)
    if isinstance(error, requests.exceptions.Timeout):
        return Fault("Vertex AI did not answer in time")
    if isinstance(error, requests.exceptions.RequestException | TransportError | ConnectionError):
        return Fault("no connection to Vertex AI")
    if isinstance(error, RefreshError):
        return Fault(f"Google's credentials were refused{_ADVICE[401]}", 401)
    if isinstance(error, ParseError):
        return Fault("what answers is not Vertex AI's API; see --location and --endpoint", 0)
    return None


def _short(message: object) -> str:
    text = " ".join(str(message).split()).rstrip(".")
    return text if len(text) <= 500 else f"{text[:499]}…"
