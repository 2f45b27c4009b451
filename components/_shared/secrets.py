"""Secrets by reference: parameters say where a secret is, and never what it is.

env:NAME                                          a variable of the environment, as Kubernetes puts one there
file:PATH                                         a file, as Kubernetes mounts one
gcp:projects/P/secrets/NAME[/versions/VERSION]    Google Secret Manager; the latest version where none is named
azure:https://VAULT.vault.azure.net/secrets/NAME[/VERSION]    Azure Key Vault
"""

from __future__ import annotations

import base64
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.components._shared.errors import UserError

SECONDS = 30.0
SECRET_MANAGER = "https://secretmanager.googleapis.com"  # noqa: S105 - an address
# Only they are shown the identity of whoever asks.
KEY_VAULTS = (".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net")


class _Missing(Exception):
    """A reference leads to nothing; the message says why, and the second argument what to do."""


def read_secret(reference: str, component: str, argument: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the secret that a reference leads to, without white space around it.

    Args:
        reference: See above.
        environment: Variables; None: those of this process.

    Raises:
        UserError: The reference is of another form, or leads to nothing. The error never shows what stands in place of
            a reference, for that may be the secret itself.
    """
    kind, _, place = reference.partition(":")
    if kind not in _KINDS or not place:
        known = "file:PATH, env:NAME, gcp:projects/… or azure:https://…"
        raise UserError(component, argument, "is no reference to a secret", f"Write {known}, never the secret")
    try:
        secret = _KINDS[kind](place, os.environ if environment is None else environment).strip()
    except _Missing as missing:
        problem, remedy = missing.args
        raise UserError(component, argument, problem, remedy) from None
    except ImportError as error:
        raise UserError(
            component, argument, f"{reference} needs a package that is not installed ({error.name})", _EXTRAS[kind]
        ) from None
    if not secret:
        raise UserError(component, argument, f"{reference} holds nothing", "Put the secret there")
    return secret


def _file(place: str, _: Mapping[str, str]) -> str:
    try:
        return Path(place).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise _Missing(f"{place} cannot be read: {reason}", "Mount the secret") from None


def _variable(place: str, environment: Mapping[str, str]) -> str:
    if place not in environment:
        raise _Missing(f"the variable {place} is not set", "Set it from a secret of the platform")
    return environment[place]


def _secret_manager(place: str, _: Mapping[str, str]) -> str:
    import google.auth
    import google.auth.exceptions
    import requests
    from google.auth.transport.requests import AuthorizedSession

    if not re.fullmatch(r"projects/[^/]+/secrets/[^/]+(/versions/[^/]+)?", place):
        raise _Missing(f"gcp:{place} names no secret", "Write gcp:projects/PROJECT/secrets/NAME")
    version = place if "/versions/" in place else f"{place}/versions/latest"
    try:
        credentials, _project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        answer = AuthorizedSession(credentials).get(f"{SECRET_MANAGER}/v1/{version}:access", timeout=SECONDS)
    except (google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
        raise _Missing(f"gcp:{place} cannot be read: {type(error).__name__}", "Check network and identity") from None
    if answer.status_code != 200:
        raise _Missing(f"gcp:{place} cannot be read: status {answer.status_code}", "Check its name and who may read it")
    return base64.b64decode(answer.json()["payload"]["data"]).decode()


def _key_vault(place: str, _: Mapping[str, str]) -> str:
    import requests
    from azure.core.exceptions import AzureError
    from azure.identity import DefaultAzureCredential

    address = urllib.parse.urlsplit(place)
    if address.scheme != "https" or not (address.hostname or "").endswith(KEY_VAULTS) or address.query:
        raise _Missing(
            "azure:… names no secret of a Key Vault", "Write azure:https://VAULT.vault.azure.net/secrets/NAME"
        )
    vault = (address.hostname or "").partition(".")[2]
    try:
        token = DefaultAzureCredential().get_token(f"https://{vault}/.default").token
        answer = requests.get(
            place,
            params={"api-version": "7.4"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS,
            allow_redirects=False,
        )
    except (AzureError, requests.RequestException) as error:
        raise _Missing(f"azure:{place} cannot be read: {type(error).__name__}", "Check network and identity") from None
    if answer.status_code != 200:
        raise _Missing(
            f"azure:{place} cannot be read: status {answer.status_code}", "Check its name and who may read it"
        )
    return str(answer.json()["value"])


_KINDS: dict[str, Callable[[str, Mapping[str, str]], str]] = {
    "file": _file,
    "env": _variable,
    "gcp": _secret_manager,
    "azure": _key_vault,
}
_EXTRAS = {"gcp": "pip install 'penstock[gcs]'", "azure": "pip install 'penstock[azure-storage]'"}
