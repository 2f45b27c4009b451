"""What a workspace keeps in versions: code, environments, components, data, models."""

from __future__ import annotations

import re
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.azureml.blobs import PREFIX, Blobs
from penstock.testing.azureml.resources import (
    TYPE,
    Kept,
    Scope,
    changed,
    check_name,
    check_version,
    listed,
    properties_of,
    shown,
    system_data,
)
from penstock.testing.server import Answer, ApiError, Request, Route

_KINDS = {"codes": "Code", "environments": "Environment", "components": "Component", "data": "Data", "models": "Model"}
_REFERENCE = re.compile(r"/(\w+)/([^/]+)/versions/([^/]+)$")
Check = Callable[[str, dict[str, Any]], None]


class Assets:
    """All assets, by kind, name and version.

    Args:
        checks: By kind, what refuses an asset; it is given how errors call the asset, and its properties.
        url: Returns the address of the stand-in.
    """

    def __init__(self, scope: Scope, blobs: Blobs, checks: Mapping[str, Check], url: Callable[[], str]) -> None:
        self._scope = scope
        self._blobs = blobs
        self._checks = {
            "codes": self._check_code,
            "environments": _check_environment,
            "data": _check_data,
            "models": _check_model,
            **checks,
        }
        self._url = url
        self._kept: dict[str, dict[str, dict[str, Kept]]] = {kind: {} for kind in _KINDS}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        found = []
        for kind in _KINDS:
            found += self._routes_of(kind)
        found.append(Route("POST", "/codes/{name}/versions/{version}/startPendingUpload", self._start_upload))
        return self._scope.within(found)

    def _routes_of(self, kind: str) -> list[Route]:
        one = f"/{kind}/{{name}}/versions/{{version}}"
        return [
            Route("GET", f"/{kind}", lambda request: self._list_names(kind, request)),
            Route("GET", f"/{kind}/{{name}}", lambda request, name: self._name(kind, name)),
            Route("GET", f"/{kind}/{{name}}/versions", lambda request, name: self._list(kind, name, request)),
            Route("GET", one, lambda request, name, version: self.get(kind, name, version).resource()),
            Route("PUT", one, lambda request, name, version: self._put(kind, name, version, request)),
            Route("DELETE", one, lambda request, name, version: self._delete(kind, name, version)),
        ]

    def get(self, kind: str, name: str, version: str) -> Kept:
        """Return an asset.

        Raises:
            ApiError: there is none of that name and version.
        """
        versions = self._kept[kind].get(name, {})
        if version not in versions:
            known = f"it has {', '.join(versions)}" if versions else f"there is no {_KINDS[kind].lower()} {name}"
            raise ApiError(404, f"{_KINDS[kind]} {name}:{version} not found; {known}.")
        return versions[version]

    def referred(self, kind: str, reference: str, where: str) -> Kept | None:
        """Return the asset that a reference names; None where it lies in a registry, which nobody plays here.

        Args:
            reference: Id of a resource, or NAME:VERSION, with azureml: before it or not.
            where: How errors call the place that holds it.

        Raises:
            ApiError: there is none.
        """
        if reference.startswith("azureml://registries/"):
            return None
        found = _REFERENCE.search(reference)
        if found:
            wanted, name, version = found.groups()
        else:
            wanted, (name, _, version) = kind, reference.removeprefix("azureml:").partition(":")
        if wanted != kind or not version:
            raise ApiError(400, f"{where}: {reference!r} names no version of a {_KINDS[kind].lower()}.")
        try:
            return self.get(kind, name, version)
        except ApiError as error:
            raise ApiError(404, f"{where}: {error.message}") from error

    def files(self, code: str) -> dict[str, bytes]:
        """Return the files of a code asset, byte for byte, by their paths.

        Args:
            code: Its id, or NAME:VERSION.

        Raises:
            ApiError: there is none.
        """
        kept = self.referred("codes", code, "code")
        if kept is None:
            raise ApiError(404, f"{code} lies in a registry, which the stand-in does not have.")
        container, folder = self._place(kept.given["codeUri"])
        prefix = f"{folder}/" if folder else ""
        return {
            name.removeprefix(prefix): self._blobs.read(container, name) for name in self._within(container, folder)
        }

    def _within(self, container: str, folder: str) -> list[str]:
        return [
            name
            for name in self._blobs.names(container, folder)
            if not folder or name == folder or name.startswith(f"{folder}/")
        ]

    def _place(self, uri: str) -> tuple[str, str]:
        path = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
        container, _, folder = path.removeprefix(f"{PREFIX}/").partition("/")
        return container, folder.strip("/")

    def _check_code(self, what: str, given: dict[str, Any]) -> None:
        uri = given.get("codeUri") or ""
        if not uri.startswith(f"{self._url()}{PREFIX}/"):
            raise ApiError(400, f"{what}: codeUri: {uri!r} is not in the storage of this workspace.")
        container, folder = self._place(uri)
        if not self._within(container, folder):
            raise ApiError(400, f"{what}: codeUri: nothing was uploaded to {container}/{folder}.")

    def _start_upload(self, request: Request, name: str, version: str) -> Any:
        check_name(name, "Code")
        kind = request.json().get("pendingUploadType")
        if kind != "TemporaryBlobReference":
            raise ApiError(400, f"pendingUploadType: {kind!r} is none that there is; TemporaryBlobReference is.")
        upload = str(uuid.uuid4())
        container = f"upload-{upload}"
        self._blobs.make(container)
        uri = f"{self._url()}{PREFIX}/{container}"
        around = f"/subscriptions/{self._scope.subscription}/resourceGroups/{self._scope.group}/providers"
        return {
            "pendingUploadId": upload,
            "pendingUploadType": kind,
            "blobReferenceForConsumption": {
                "blobUri": uri,
                "storageAccountArmId": f"{around}/Microsoft.Storage/storageAccounts/account",
                "credential": {"credentialType": "SAS", "sasUri": f"{uri}?{self._blobs.sas()}"},
            },
        }

    def _put(self, kind: str, name: str, version: str, request: Request) -> Any:
        check_name(name, _KINDS[kind])
        check_version(version, _KINDS[kind])
        given = properties_of(request)
        if isinstance(spec := given.get("componentSpec"), dict):
            spec.pop("id", None)  # of the answer to an earlier request, sent back
        versions = self._kept[kind].get(name, {})
        if version in versions:
            kept = versions[version]
            changed(kept.given, given, f"{_KINDS[kind]} {name}:{version}")
            return kept.resource()
        if kind == "models":
            given = {"flavors": {}, **given}
        if kind in self._checks:
            self._checks[kind](f"{_KINDS[kind]} {name}:{version}", given)
        kept = Kept(f"{self._scope.id}/{kind}/{name}/versions/{version}", f"{kind}/versions", version, given)
        self._kept[kind].setdefault(name, {})[version] = kept
        return Answer(kept.resource(provisioningState="Succeeded"), 201)

    def _delete(self, kind: str, name: str, version: str) -> Any:
        self.get(kind, name, version)
        del self._kept[kind][name][version]
        return Answer(status=200)

    def _list(self, kind: str, name: str, request: Request) -> Any:
        if wanted := request.query.get("hash"):
            # Whoever asks for a content has made the name up, and takes that of the asset which has the content.
            every = [kept for versions in self._kept[kind].values() for kept in versions.values()]
            found = [kept.resource() for kept in every if _hash(kept) == wanted]
        else:
            found = [kept.resource() for kept in self._kept[kind].get(name, {}).values()]
        if "desc" in request.query.get("$orderBy", "").lower():
            found.reverse()
        return listed(shown(found, request), request)

    def _name(self, kind: str, name: str) -> dict[str, Any]:
        versions = self._kept[kind].get(name)
        if not versions:
            raise ApiError(404, f"{_KINDS[kind]} container {name} not found.")
        numbers = [int(version) for version in versions if version.isdigit()]
        first, *_, last = [*versions.values(), *versions.values()]
        return {
            "id": f"{self._scope.id}/{kind}/{name}",
            "name": name,
            "type": f"{TYPE}/{kind}",
            "systemData": system_data(first.created, last.modified),
            "properties": {
                "latestVersion": last.name,
                "nextVersion": str(max(numbers, default=0) + 1),
                "isArchived": False,
                "tags": {},
                "properties": {},
                **({"dataType": last.given.get("dataType")} if kind == "data" else {}),
            },
        }

    def _list_names(self, kind: str, request: Request) -> Any:
        own = [
            name
            for name, versions in self._kept[kind].items()
            if not all(kept.given.get("isAnonymous") for kept in versions.values())
        ]
        return listed([self._name(kind, name) for name in own], request)


def _hash(kept: Kept) -> str | None:
    return (kept.given.get("properties") or {}).get("hash_sha256")


def _check_environment(what: str, given: dict[str, Any]) -> None:
    image, build, conda = (given.get(key) for key in ("image", "build", "condaFile"))
    if bool(image) == bool(build):
        raise ApiError(400, f"{what}: either an image or a build context is required.")
    if build and conda:
        raise ApiError(400, f"{what}: a condaFile goes with an image, not with a build context.")


def _check_data(what: str, given: dict[str, Any]) -> None:
    if given.get("dataType") not in ("uri_file", "uri_folder", "mltable"):
        raise ApiError(400, f"{what}: dataType: {given.get('dataType')!r} is none of uri_file, uri_folder, mltable.")
    if not given.get("dataUri"):
        raise ApiError(400, f"{what}: the dataUri is required.")


def _check_model(what: str, given: dict[str, Any]) -> None:
    if given.get("modelType", "custom_model") not in ("custom_model", "mlflow_model", "triton_model"):
        raise ApiError(400, f"{what}: modelType: {given['modelType']!r} is none of custom, mlflow and triton_model.")
    if not given.get("modelUri"):
        raise ApiError(400, f"{what}: the modelUri is required.")
