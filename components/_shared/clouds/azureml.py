"""A workspace of Azure ML through azure-ai-ml: which one, calls that end, and what its exceptions stand for."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from azure.ai.ml import MLClient
from azure.ai.ml._utils import _asset_utils, _azureml_polling
from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from marshmallow.exceptions import ValidationError

from penstock.components._shared.clouds.calls import CALL, Calls, Failure
from penstock.components._shared.errors import UserError

# Its remarks on classes that it calls experimental would go into every step's log.
logging.getLogger("azure.ai.ml._utils._experimental").addHandler(logging.NullHandler())
# So would a dot for each look at what is being made, and the bars of uploads.
_azureml_polling.print = lambda *_, **__: None
_asset_utils.tqdm = functools.partial(_asset_utils.tqdm, disable=True)

T = TypeVar("T")

OPTIONS = {
    "subscription": "Subscription of the workspace. Without it: AZUREML_ARM_SUBSCRIPTION, which jobs there have.",
    "resource_group": "Its resource group. Without it: AZUREML_ARM_RESOURCEGROUP.",
    "workspace": "Its name. Without it: AZUREML_ARM_WORKSPACE_NAME.",
}
VARIABLES = {
    "subscription": "AZUREML_ARM_SUBSCRIPTION",
    "resource_group": "AZUREML_ARM_RESOURCEGROUP",
    "workspace": "AZUREML_ARM_WORKSPACE_NAME",
}
NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{1,30}[a-zA-Z0-9]")  # of endpoints and deployments
CONNECT = 10.0  # seconds that a connection may take
POLL = 1.0  # seconds between two looks at what another is making
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def where(options: Mapping[str, Any]) -> dict[str, str]:
    """Return subscription, resource group and workspace as options, or else the environment, name them."""
    return {name: str(options.get(name) or os.environ.get(variable, "")) for name, variable in VARIABLES.items()}


def unknown(options: Mapping[str, Any]) -> list[str]:
    """Return the options without which it is not known what workspace is meant."""
    return [f"a workspace without the option {name}" for name, value in where(options).items() if not value]


def connect(options: Mapping[str, Any], refuse: Callable[[str, str], UserError]) -> MLClient:
    """Return a client of a workspace; its credentials are those that DefaultAzureCredential finds.

    Args:
        refuse: Makes the error of a problem and its remedy.

    Raises:
        UserError: The cloud is not known.
    """
    place = where(options)
    limits = {"connection_timeout": CONNECT, "read_timeout": CONNECT}
    try:
        return MLClient(
            DefaultAzureCredential(process_timeout=int(CONNECT), **limits),
            place["subscription"],
            place["resource_group"],
            place["workspace"],
            # Without bars it does not look whether a file could be uploaded, and waits for ever for one that could not.
            show_progress=True,
            enable_telemetry=False,
            transport=_Limited(),
            retry_total=0,  # whoever calls asks again, and knows when not to
        )
    except Exception as error:  # whatever the client makes of a cloud that it does not know
        found = failure(error)
        raise refuse(
            f"it cannot be reached: {found.reason if found else error}", "See AZUREML_CURRENT_CLOUD"
        ) from error


class _Limited(RequestsTransport):
    """Sends requests, none of which waits for long: the client's own would wait five minutes for an answer."""

    def send(self, request: Any, **settings: Any) -> Any:
        return super().send(request, **{**settings, "connection_timeout": CONNECT, "read_timeout": CALL})


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what a work of many calls comes to, such as an upload; one that takes longer is left behind.

    Raises:
        TimeoutError: It takes longer.
    """
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"it takes longer than {seconds:g} s")
    if errors:
        raise errors[0]
    return outcome[0]


@dataclass(frozen=True)
class Works:
    """Works of many calls each, such as an upload, or to make something and wait for it.

    Attributes:
        seconds: That each may take.
    """

    calls: Calls
    seconds: float

    def __call__(self, what: str, work: Callable[[], T]) -> T:
        """Return what a work comes to, begun anew after passing faults.

        Args:
            what: As Calls has it.

        Raises:
            UserError: The service refuses, does not answer, or takes longer.
        """
        end = time.monotonic() + self.seconds

        def attempt(seconds: float) -> T:
            try:
                return within(max(1.0, end - time.monotonic()), work)
            except TimeoutError:
                if time.monotonic() < end:
                    raise
                raise self.calls.refusal(f"cannot {what} within {self.seconds:g} s", "Look at it there") from None

        return self.calls(what, attempt)

    def ensure(self, what: str, there: Callable[[], object], make: Callable[[], object]) -> None:
        """Let something be there: made where it is not, by one of those who make it at the same time.

        Args:
            there: Raises ResourceNotFoundError where it is not there, or not whole.
            make: Makes it, or goes on with what was begun.
        """
        end = time.monotonic() + self.seconds

        def attempt() -> None:
            while True:
                try:
                    there()
                    return
                except ResourceNotFoundError:
                    pass
                try:
                    make()
                    return
                except Exception as error:
                    # Another makes it, or uploads the same files. Where that one has ended, the next attempt mends it.
                    found = failure(error)
                    if found is None or found.status != 409 or time.monotonic() > end:
                        raise
                    time.sleep(POLL)

        self(what, attempt)

    def ensure_gone(self, what: str, delete: Callable[[], Any]) -> None:
        """Let something be gone.

        Args:
            delete: Begins to delete it.
        """

        def attempt() -> None:
            with contextlib.suppress(ResourceNotFoundError):
                delete().result()

        self(what, attempt)


def failure(error: Exception) -> Failure | None:
    """Return what an exception stands for; None: it is no fault of a call."""
    if isinstance(error, HttpResponseError) and error.status_code:
        headers = getattr(error.response, "headers", None) or {}
        after = str(headers.get("Retry-After", ""))
        said = getattr(getattr(error, "error", None), "message", None) or error.message or "no reason"
        return Failure(_short(said), int(error.status_code), float(after) if after.isdigit() else 0.0)
    if isinstance(error, ClientAuthenticationError):
        return Failure("no credentials; log in with az login, or give this step an identity", 401)
    if isinstance(error, MlException) and isinstance(error.__cause__, Exception):
        return failure(error.__cause__) or Failure(_short(error), 400)  # of an upload, for example, which it wraps
    if isinstance(error, MlException | ValidationError):
        return Failure(_short(error), 400)
    if isinstance(error, TimeoutError):
        return Failure(str(error) or "it does not answer")
    if isinstance(error, ServiceRequestError | ServiceResponseError | requests.RequestException | ConnectionError):
        return Failure("it does not answer")
    return None


def _short(message: object) -> str:
    return " ".join(_COLOURS.sub("", str(message)).split()).rstrip(".")[:300]
