"""Pipelines and their versions in Kubeflow Pipelines, uploaded as packages."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from penstock.compile import graph
from penstock.compile.documents import Loader
from penstock.compile.errors import PenstockError
from penstock.compile.yaml_writer import to_yaml
from penstock.testing.kubeflow.lists import listed
from penstock.testing.multipart import parts
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.specs import accepted
from penstock.testing.times import now

_ROOT = "/apis/v2beta1/pipelines"
_ONE = f"{_ROOT}/{{pipeline}}"
_VERSION = f"{_ONE}/versions/{{version}}"
_LARGEST_PACKAGE = 32 << 20  # bytes
_FIELDS = ("pipeline_id", "display_name", "created_at", "description", "namespace")
_VERSION_FIELDS = ("pipeline_version_id", "display_name", "created_at", "pipeline_id", "description")


@dataclass(frozen=True)
class Package:
    """What was uploaded.

    Attributes:
        file: Name that the file had.
        content: Its very bytes.
        spec: Those of the spec in it: the same, unless the package is an archive.
        pipeline: What the spec says.
    """

    file: str
    content: bytes
    spec: bytes
    pipeline: graph.Pipeline

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes that came."""
        return hashlib.sha256(self.content).hexdigest()


class Pipelines:
    """All pipelines.

    Attributes:
        packages: What was uploaded, by the id of the version.
    """

    def __init__(self) -> None:
        self.packages: dict[str, Package] = {}
        self._pipelines: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, dict[str, Any]] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", f"{_ROOT}/upload", self._upload),
            Route("POST", f"{_ROOT}/upload_version", self._upload_version),
            Route("POST", _ROOT, self._create),
            Route("GET", _ROOT, self._list),
            Route("GET", f"{_ROOT}/names/{{name}}", self._by_name),
            Route("GET", _ONE, lambda request, pipeline: self._pipeline(pipeline)),
            Route("DELETE", _ONE, self._delete),
            Route("GET", f"{_ONE}/versions", self._list_versions),
            Route("GET", _VERSION, lambda request, pipeline, version: self._one_version(pipeline, version)),
            Route("DELETE", _VERSION, self._delete_version),
        ]

    def package(self, pipeline: str, version: str) -> Package:
        """Return what was uploaded as a version of a pipeline; the newest where none is named.

        Raises:
            ApiError: there is none.
        """
        if not version:
            own = [key for key, each in self._versions.items() if each["pipeline_id"] == pipeline]
            if not own:
                raise ApiError(404, f"Pipeline {pipeline} has no version")
            return self.packages[own[-1]]
        return self.packages[self._one_version(pipeline, version)["pipeline_version_id"]]

    def _pipeline(self, pipeline: str) -> dict[str, Any]:
        if pipeline not in self._pipelines:
            raise ApiError(404, f"Pipeline {pipeline} not found")
        return self._pipelines[pipeline]

    def _one_version(self, pipeline: str, version: str) -> dict[str, Any]:
        found = self._versions.get(version)
        if found is None or (pipeline and found["pipeline_id"] != pipeline):
            raise ApiError(404, f"Pipeline version {version} not found")
        return found

    def _new(self, name: str, description: str, namespace: str) -> dict[str, Any]:
        if not name.strip():
            raise ApiError(400, "Pipeline name cannot be empty")
        if any(each["display_name"] == name and each["namespace"] == namespace for each in self._pipelines.values()):
            raise ApiError(409, f"Already exist error: a pipeline named {name} is there; please specify a new name")
        pipeline = {
            "pipeline_id": str(uuid.uuid4()),
            "display_name": name,
            "name": name,
            "description": description,
            "namespace": namespace,
            "created_at": now(),
        }
        self._pipelines[pipeline["pipeline_id"]] = pipeline
        return pipeline

    def _new_version(self, pipeline: str, name: str, description: str, package: Package) -> dict[str, Any]:
        others = [each for each in self._versions.values() if each["pipeline_id"] == pipeline]
        if any(each["display_name"] == name for each in others):
            raise ApiError(409, f"Already exist error: the pipeline has a version {name}; please specify a new name")
        key = str(uuid.uuid4())
        version = {
            "pipeline_id": pipeline,
            "pipeline_version_id": key,
            "display_name": name,
            "name": name,
            "description": description,
            "created_at": now(),
            "pipeline_spec": documents(package.spec),
        }
        self._versions[key] = version
        self.packages[key] = package
        return version

    def _upload(self, request: Request) -> Any:
        package, query = _package(request), request.query
        name = query.get("display_name") or query.get("name") or package.file
        pipeline = self._new(name, query.get("description", ""), query.get("namespace", ""))
        self._new_version(pipeline["pipeline_id"], name, query.get("description", ""), package)
        return pipeline

    def _upload_version(self, request: Request) -> Any:
        package, query = _package(request), request.query
        pipeline = self._pipeline(query.get("pipelineid", ""))
        name = query.get("display_name") or query.get("name") or package.file
        return self._new_version(pipeline["pipeline_id"], name, query.get("description", ""), package)

    def _create(self, request: Request) -> Any:
        body = request.json()
        name = body.get("display_name") or body.get("name") or ""
        return self._new(name, body.get("description", ""), body.get("namespace", ""))

    def _list(self, request: Request) -> Any:
        namespace = request.query.get("namespace", "")
        found = [each for each in self._pipelines.values() if not namespace or each["namespace"] == namespace]
        return listed("pipelines", found, request, _FIELDS)

    def _by_name(self, request: Request, name: str) -> Any:
        for each in self._pipelines.values():
            if each["name"] == name and each["namespace"] == request.query.get("namespace", ""):
                return each
        raise ApiError(404, f"Pipeline {name} not found")

    def _delete(self, request: Request, pipeline: str) -> Any:
        self._pipeline(pipeline)
        own = [key for key, each in self._versions.items() if each["pipeline_id"] == pipeline]
        if own and request.query.get("cascade") != "true" and len(own) > 1:
            raise ApiError(400, f"Pipeline {pipeline} has {len(own)} versions; delete them first")
        for version in own:
            del self._versions[version]
        del self._pipelines[pipeline]
        return {}

    def _list_versions(self, request: Request, pipeline: str) -> Any:
        found = [each for each in self._versions.values() if each["pipeline_id"] == pipeline]
        return listed("pipeline_versions", found, request, _VERSION_FIELDS)

    def _delete_version(self, request: Request, pipeline: str, version: str) -> Any:
        self._one_version(pipeline, version)
        del self._versions[version]
        return {}


def spec_bytes(spec: Mapping[str, Any]) -> bytes:
    """Return the bytes of a spec that came as JSON: one document, or with a platform spec two."""
    inner = spec.get("pipeline_spec")
    both = [inner, spec["platform_spec"]] if isinstance(inner, Mapping) and "platform_spec" in spec else [inner or spec]
    return "---\n".join(to_yaml(document) for document in both).encode()


def parsed(spec: bytes, name: str, values: Mapping[str, Any] | None = None) -> graph.Pipeline:
    """Return what the bytes of a spec say.

    Args:
        name: How errors call it.
        values: Values of its parameters, by name, as far as they are given.

    Raises:
        ApiError: they are not a whole, valid pipeline.
    """
    try:
        return accepted(spec.decode(), name, "kubeflow", values)
    except (UnicodeDecodeError, PenstockError) as error:
        raise ApiError(400, f"Invalid input error: {error}") from error


def documents(spec: bytes) -> dict[str, Any]:
    """Return a spec as the API shows it: alone, or with its platform spec beside it."""
    found = [each for each in yaml.load_all(spec, Loader=Loader) if each is not None]
    return found[0] if len(found) == 1 else {"pipeline_spec": found[0], "platform_spec": found[1]}


def _package(request: Request) -> Package:
    form = parts(request.headers.get("content-type", ""), request.content)
    file = next((part for part in form if part.disposition("name") == "uploadfile"), None)
    if file is None:
        raise ApiError(400, "Failed to read pipeline form file uploadfile")
    if len(file.content) > _LARGEST_PACKAGE:
        raise ApiError(400, f"File size too large. Maximum supported size: {_LARGEST_PACKAGE}")
    name = file.disposition("filename")
    spec = _unpacked(name, file.content)
    return Package(name, file.content, spec, parsed(spec, name))


def _unpacked(name: str, content: bytes) -> bytes:
    try:
        if re.search(r"\.(tar\.gz|tgz)$", name):
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                member = _chosen([each.name for each in tar.getmembers() if each.isfile()])
                file = tar.extractfile(member)
                assert file is not None
                return file.read()
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return archive.read(_chosen(archive.namelist()))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ApiError(400, f"Invalid input error: {name}: not an archive: {error}") from error
    return content


def _chosen(names: Sequence[str]) -> str:
    specs = [name for name in names if name.endswith((".yaml", ".yml"))]
    if "pipeline.yaml" in specs:
        return "pipeline.yaml"
    if len(specs) != 1:
        raise ApiError(400, "Invalid input error: the archive needs a pipeline.yaml, or a single YAML file")
    return specs[0]
