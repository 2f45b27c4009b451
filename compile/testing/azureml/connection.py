"""Points azure-ai-ml at a stand-in, and back."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from penstock.compile.errors import PenstockError
from penstock.testing.azureml.blobs import SUFFIX
from penstock.testing.azureml.workspace import CLOUD, ML, token

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import AccessToken

    from penstock.testing.azureml.stand_in import AzureMLStandIn

_POLL = 0.1  # seconds between two looks at a job that is streamed, where the SDK takes two or more


class Credential:
    """A credential whose tokens open no door but the stand-in's, which asks for any."""

    def get_token(self, *scopes: str, **settings: Any) -> AccessToken:
        """Return a token for the first of the scopes."""
        from azure.core.credentials import AccessToken

        return AccessToken(token(scopes[0]), int(time.time()) + 3600)


def environment(stand_in: AzureMLStandIn) -> dict[str, str]:
    """Return the variables by which azure-ai-ml and azure-identity find a stand-in."""
    assert stand_in.ca_file is not None
    trusted = stand_in.folder / "trusted.pem"
    if not trusted.exists():
        # The stand-in's certificate comes before those that are trusted already: another stand-in's has the same name.
        before = Path(os.environ.get("REQUESTS_CA_BUNDLE") or "")
        if not before.is_file():  # it may be a folder, too
            before = Path(importlib.import_module("certifi").where())
        trusted.write_bytes(stand_in.ca_file.read_bytes() + b"\n" + before.read_bytes())
    direct = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1")))
    return {
        "ARM_CLOUD_METADATA_URL": f"{stand_in.url}/metadata/endpoints",
        "AZUREML_CURRENT_CLOUD": CLOUD,
        "REQUESTS_CA_BUNDLE": str(trusted),
        "NO_PROXY": direct,
        "no_proxy": direct,
        # What private previews keep from one process to the next, and would look for here.
        "AZURE_ML_DISABLE_ON_DISK_CACHE": "true",
        # How a machine in the cloud gets its tokens, which DefaultAzureCredential looks for.
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        "IDENTITY_ENDPOINT": f"{stand_in.url}/identity/token",
        "IDENTITY_HEADER": "penstock.testing",
    }


def client(stand_in: AzureMLStandIn, settings: Mapping[str, Any]) -> MLClient:
    """Return a client of a stand-in.

    Raises:
        PenstockError: azure-ai-ml is not installed.
    """
    ml = _installed("azure.ai.ml")
    scope = stand_in.scope
    found: MLClient = ml.MLClient(
        Credential(),
        scope.subscription,
        scope.group,
        scope.workspace,
        **{"cloud": CLOUD, "show_progress": False, "enable_telemetry": False, **settings},
    )
    return found


@contextlib.contextmanager
def connected(stand_in: AzureMLStandIn) -> Iterator[None]:
    """Let every MLClient that is made in the block find a stand-in.

    Raises:
        PenstockError: azure-ai-ml is not installed.
    """
    clouds = _installed("azure.ai.ml._azure_environments")
    streams = _installed("azure.ai.ml.operations._job_ops_helper")
    keys = clouds.EndpointURLS
    cloud = {
        keys.AZURE_PORTAL_ENDPOINT: "https://portal.azure.testing/",
        keys.RESOURCE_MANAGER_ENDPOINT: f"{stand_in.url}/",
        keys.ACTIVE_DIRECTORY_ENDPOINT: f"{stand_in.url}/",
        keys.AML_RESOURCE_ID: f"{ML}/",
        keys.STORAGE_ENDPOINT: SUFFIX,
        keys.REGISTRY_DISCOVERY_ENDPOINT: f"{stand_in.url}/",
    }
    with (
        mock.patch.dict("os.environ", environment(stand_in)),
        mock.patch.dict(clouds._environments, {CLOUD: cloud}),
        mock.patch.object(streams, "_wait_before_polling", return_value=_POLL),
    ):
        yield


def _installed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PenstockError(f"azure-ai-ml is missing ({error}); pip install 'penstock[azureml]'") from error
