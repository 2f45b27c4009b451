"""A workspace of Azure ML with its computes and datastores, and the cloud around it: its endpoints, its tokens."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.azureml.blobs import ACCOUNT, SUFFIX, Blobs
from penstock.testing.azureml.resources import Kept, Scope, check_name, listed, properties_of
from penstock.testing.server import Answer, ApiError, Request, Route

TENANT = "00000000-0000-0000-0000-0000000000aa"
CLOUD = "PenstockTesting"
ML = "https://ml.azure.testing"  # what tokens for Azure ML itself are for
ARTIFACTS = "azureml"  # the container of logs and of what runs leave
_DEFAULT_DATASTORE, _ARTIFACTS = _OWN_DATASTORES = ("workspaceblobstore", "workspaceartifactstore")
_LIFE = 86_400  # seconds


def token(audience: str) -> str:
    """Return a token that looks like one of Azure's: a JWT, which nobody signed.

    Args:
        audience: What it is for; a scope, too.
    """
    claims = {
        "aud": audience.removesuffix("/.default").rstrip("/"),
        "iss": f"https://sts.windows.net/{TENANT}/",
        "tid": TENANT,
        "oid": "00000000-0000-0000-0000-0000000000bb",
        "appid": "00000000-0000-0000-0000-0000000000cc",
        "name": "penstock.testing",
        "iat": int(time.time()),
        "exp": int(time.time()) + _LIFE,
    }
    parts = [json.dumps(each, separators=(",", ":")).encode() for each in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in [*parts, b"not signed"])


class Workspace:
    """The workspace.

    Args:
        computes: Sizes of virtual machines by the names of clusters.
        url: Returns the address of the stand-in.
    """

    def __init__(self, scope: Scope, computes: Mapping[str, str], blobs: Blobs, url: Callable[[], str]) -> None:
        self.scope = scope
        self.location = "westeurope"
        self._url = url
        self._blobs = blobs
        self._own_id = str(uuid.uuid5(uuid.NAMESPACE_URL, scope.id))
        self.container = f"azureml-blobstore-{self._own_id}"
        blobs.make(self.container)
        blobs.make(ARTIFACTS)
        self.computes = {
            name: Kept(f"{scope.id}/computes/{name}", "computes", name, _cluster(size, self.location))
            for name, size in computes.items()
        }
        self._datastores = {
            name: Kept(f"{scope.id}/datastores/{name}", "datastores", name, _blob_datastore(container, name))
            for name, container in ((_DEFAULT_DATASTORE, self.container), (_ARTIFACTS, ARTIFACTS))
        }

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        one = "/datastores/{name}"
        return [
            Route("GET", "/metadata/endpoints", self._endpoints),
            Route("GET", "/identity/token", self._token),
            Route("GET", "/discovery", lambda request: self._discovery()),
            *self.scope.within(
                [
                    Route("GET", "", lambda request: self._workspace()),
                    Route("GET", "/computes", self._list_computes),
                    Route("GET", "/computes/{name}", lambda request, name: self._compute(name)),
                    Route("GET", "/datastores", self._list_datastores),
                    Route("GET", one, lambda request, name: self._datastore(name)),
                    Route("PUT", one, self._put_datastore),
                    Route("DELETE", one, self._delete_datastore),
                    Route("POST", f"{one}/listSecrets", lambda request, name: self._secrets(name)),
                    Route("GET", "/operations/{kind}:{key...}", lambda request, kind, key: Answer(status=200)),
                ]
            ),
        ]

    def check_compute(self, given: str, where: str) -> None:
        """Refuse a compute that is not there.

        Args:
            given: Its id; a binding and "serverless" are always there.
            where: How errors call the place that names it.

        Raises:
            ApiError: there is none of that name.
        """
        name = given.rpartition("/")[2]
        if given.startswith("${{") or name.lower() == "serverless" or name in self.computes:
            return
        raise ApiError(404, f"{where}: Compute with name {name} not found. There are {_names(self.computes)}.")

    def _workspace(self) -> dict[str, Any]:
        around = f"/subscriptions/{self.scope.subscription}/resourceGroups/{self.scope.group}/providers"
        return {
            "id": self.scope.id,
            "name": self.scope.workspace,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "kind": "Default",
            "location": self.location,
            "tags": {},
            "identity": {"type": "SystemAssigned", "principalId": str(uuid.UUID(int=1)), "tenantId": TENANT},
            "properties": {
                "friendlyName": self.scope.workspace,
                "workspaceId": self._own_id,
                "tenantId": TENANT,
                "provisioningState": "Succeeded",
                "discoveryUrl": f"{self._url()}/discovery",
                "mlFlowTrackingUri": f"azureml://{self._url().partition('://')[2]}/mlflow/v1.0{self.scope.id}",
                "storageAccount": f"{around}/Microsoft.Storage/storageAccounts/{ACCOUNT}",
                "keyVault": f"{around}/Microsoft.KeyVault/vaults/vault",
                "applicationInsights": f"{around}/Microsoft.insights/components/insights",
                "publicNetworkAccess": "Enabled",
                "hbiWorkspace": False,
            },
        }

    def _discovery(self) -> dict[str, str]:
        services = ("api", "catalog", "experimentation", "history", "gallery", "hyperdrive", "modelmanagement")
        return {**dict.fromkeys(services, self._url()), "studio": ML}

    def _endpoints(self, request: Request) -> list[dict[str, Any]]:
        """Return what this cloud is made of, as ARM_CLOUD_METADATA_URL asks for it."""
        return [
            {
                "name": CLOUD,
                "portal": "https://portal.azure.testing/",
                "resourceManager": f"{self._url()}/",
                "authentication": {"loginEndpoint": f"{self._url()}/", "tenant": "common"},
                "suffixes": {"storage": SUFFIX},
            }
        ]

    def _token(self, request: Request) -> dict[str, str]:
        """Return a token as the managed identity of a machine in the cloud gets it."""
        resource = request.query.get("resource", "")
        if "x-identity-header" not in request.headers or not resource:
            raise ApiError(400, "expected the header X-IDENTITY-HEADER, and a resource in the query")
        expires = str(int(time.time()) + _LIFE)
        return {
            "access_token": token(resource), "expires_on": expires, "resource": resource, "token_type": "Bearer",
        }  # fmt: skip

    def _compute(self, name: str) -> dict[str, Any]:
        if name not in self.computes:
            raise ApiError(404, f"Compute with name {name} not found. There are {_names(self.computes)}.")
        kept = self.computes[name]
        return {**kept.resource(), "location": self.location}

    def _list_computes(self, request: Request) -> Any:
        return listed([self._compute(name) for name in self.computes], request)

    def _datastore(self, name: str) -> dict[str, Any]:
        if name not in self._datastores:
            raise ApiError(404, f"Datastore {name} not found. There are {_names(self._datastores)}.")
        # The account of its own ones is where this server happens to listen.
        account = {"accountName": self._account} if name in _OWN_DATASTORES else {}
        return self._datastores[name].resource(**account)

    @property
    def _account(self) -> str:
        return f"{self._url().partition('://')[2]}/{ACCOUNT}"

    def _list_datastores(self, request: Request) -> Any:
        found = [self._datastore(name) for name in self._datastores]
        if "isDefault" in request.query:
            wanted = request.query["isDefault"].lower() == "true"
            found = [each for each in found if bool(each["properties"].get("isDefault")) == wanted]
        return listed(found, request)

    def _put_datastore(self, request: Request, name: str) -> Any:
        check_name(name, "Datastore")
        given = properties_of(request)
        if name in _OWN_DATASTORES:
            raise ApiError(400, f"The datastore {name} belongs to the workspace and cannot be changed.")
        if not given.get("datastoreType"):
            raise ApiError(400, "The datastoreType is required.")
        # What opens doors is taken and not shown again.
        given["credentials"] = {
            key: value for key, value in (given.get("credentials") or {}).items() if key != "secrets"
        }
        self._datastores[name] = Kept(f"{self.scope.id}/datastores/{name}", "datastores", name, given)
        return Answer(self._datastore(name), 201)

    def _delete_datastore(self, request: Request, name: str) -> Any:
        self._datastore(name)
        if name in _OWN_DATASTORES:
            raise ApiError(400, f"The datastore {name} belongs to the workspace and cannot be deleted.")
        del self._datastores[name]
        return Answer(status=200)

    def _secrets(self, name: str) -> Any:
        self._datastore(name)
        if name not in _OWN_DATASTORES:
            raise ApiError(400, f"The stand-in keeps no secrets of the datastore {name}.")
        return {"secretsType": "Sas", "sasToken": self._blobs.sas()}


def _blob_datastore(container: str, name: str) -> dict[str, Any]:
    return {
        "datastoreType": "AzureBlob",
        "containerName": container,
        "endpoint": SUFFIX,
        "protocol": "https",
        "serviceDataAccessAuthIdentity": "None",
        "isDefault": name == _DEFAULT_DATASTORE,
        "credentials": {"credentialsType": "AccountKey"},
        "tags": {},
    }


def _cluster(size: str, location: str) -> dict[str, Any]:
    scale = {"minNodeCount": 0, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT2M"}
    return {
        "computeType": "AmlCompute",
        "computeLocation": location,
        "provisioningState": "Succeeded",
        "isAttachedCompute": False,
        "disableLocalAuth": True,
        "properties": {
            "vmSize": size,
            "vmPriority": "Dedicated",
            "osType": "Linux",
            "scaleSettings": scale,
            "allocationState": "Steady",
            "currentNodeCount": 0,
            "targetNodeCount": 0,
            "remoteLoginPortPublicAccess": "NotSpecified",
            "enableNodePublicIp": True,
        },
    }


def _names(known: Mapping[str, Any]) -> str:
    return ", ".join(known) or "none"
