"""Batch endpoints of Azure ML with their deployments, and the jobs that are made by invoking them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.blobs import Blobs
from penstock.testing.azureml.endpoints import Endpoints
from penstock.testing.azureml.jobs import Jobs
from penstock.testing.azureml.resources import TYPE, Scope, listed, properties_of
from penstock.testing.azureml.workspace import Workspace
from penstock.testing.server import Answer, ApiError, Request, Route

# Given the properties of a deployment and the files of its input by name, returns those of its output.
Score = Callable[[Mapping[str, Any], Mapping[str, bytes]], Mapping[str, bytes]]

STEP, OUTPUT = "batchscoring", "score"  # Azure ML's names of a batch job's one step, and of what it leaves
_DATASTORE = re.compile(r"azureml://(?:.*/)?datastores/(\w+)/paths/(.*)")


class BatchEndpoints(Endpoints):
    """All batch endpoints; see Endpoints.

    Attributes:
        score: Stands for the scoring of a job's input. None: jobs leave nothing.
    """

    kind, scored = "batch", "jobs"

    def __init__(
        self,
        scope: Scope,
        workspace: Workspace,
        assets: Assets,
        jobs: Jobs,
        blobs: Blobs,
        url: Callable[[], str],
    ) -> None:
        super().__init__(scope, workspace, url)
        self.score: Score | None = None
        self._assets, self._jobs, self._blobs = assets, jobs, blobs
        self._invoked: dict[str, list[str]] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        listing = [Route("GET", "/batchEndpoints/{name}/jobs", self._list_jobs)]
        return [
            *self._scope.within(self._managed()),
            *self._scope.within(listing, "/mferp/managementfrontend"),
            Route("POST", "/inference/batch/{name}/jobs", self._invoke),
        ]

    def _check(self, name: str, given: Mapping[str, Any]) -> None:
        if str(given.get("authMode")).lower() != "aadtoken":  # the client writes it as it likes
            raise ApiError(400, f"authMode: batch endpoints have AADToken, not {given.get('authMode')!r}.")
        default = (given.get("defaults") or {}).get("deploymentName")
        if default and default not in self._deployments.get(name, {}):
            raise ApiError(400, f"defaults.deploymentName: there is no deployment {default}.")

    def _check_deployment(self, given: Mapping[str, Any], sku: Mapping[str, Any]) -> dict[str, Any]:
        model = (given.get("model") or {}).get("assetId") or ""
        kept_model = self._assets.referred("models", model, "model")
        is_mlflow = kept_model is not None and kept_model.given.get("modelType") == "mlflow_model"
        code = given.get("codeConfiguration") or {}
        if not code and not is_mlflow:
            raise ApiError(400, "codeConfiguration: only a model of the type mlflow_model goes without.")
        if code:
            if not code.get("scoringScript"):
                raise ApiError(400, "codeConfiguration.scoringScript is required.")
            if code["scoringScript"] not in self._assets.files(code.get("codeId") or ""):
                raise ApiError(400, f"codeConfiguration: the code has no {code['scoringScript']}.")
            if not given.get("environmentId"):
                raise ApiError(400, "environmentId: a scoring script needs one.")
        if given.get("environmentId"):
            self._assets.referred("environments", given["environmentId"], "environmentId")
        if not given.get("compute"):
            raise ApiError(400, "The compute is required.")
        self._workspace.check_compute(given["compute"], "compute")
        return {}

    def _invoke(self, request: Request, name: str) -> Any:
        if "authorization" not in request.headers:
            raise ApiError(401, "Authentication failed. The 'Authorization' header is missing.")
        endpoint, given = self._found(name), properties_of(request)
        default = (endpoint.given.get("defaults") or {}).get("deploymentName") or ""
        own = request.headers.get("azureml-model-deployment") or default
        if not own:
            raise ApiError(400, f"The endpoint {name} has no default deployment, and the request names none.")
        deployment = self._deployment(name, own)
        inputs = given.get("inputData") or {}
        if len(inputs) != 1:
            raise ApiError(400, "inputData: a deployment of a model takes one input.")
        [data] = inputs.values()
        if data.get("jobInputType") not in ("UriFile", "UriFolder", "MLTable") or not data.get("uri"):
            raise ApiError(400, "inputData: a file or a folder with its uri is required.")
        files = self._files(data["uri"])
        job = given.get("name") or f"batchjob-{uuid.uuid4()}"
        if job in self._invoked.get(name, []):
            raise ApiError(409, f"A job with the name {job} already exists.")
        made = self._jobs.begin(
            job,
            {
                "jobType": "Pipeline",
                "jobs": {},
                "tags": {"azureml.batchrun": "true", "azureml.deploymentname": own, "azureml.endpointname": name},
                "experimentName": (given.get("properties") or {}).get("experimentName") or name,
            },
            {STEP: {"display_name": STEP}},
            lambda run: {OUTPUT: self._scored(run, deployment.given, files)},
        )
        self._invoked.setdefault(name, []).append(job)
        return Answer({**made, "type": f"{TYPE}/batchEndpoints/jobs"}, 201)

    def _files(self, uri: str) -> dict[str, bytes]:
        """Return the files that a URI leads to: of a data asset, or of a datastore."""
        if not uri.startswith("azureml://"):
            kept = self._assets.referred("data", uri, "inputData")
            uri = str(kept.given["dataUri"]) if kept else ""
        found = _DATASTORE.fullmatch(uri)
        if found is None or found[1] != "workspaceblobstore":
            raise ApiError(400, f"inputData: {uri} is not in the storage of this workspace.")
        folder = found[2].strip("/")
        names = self._blobs.names(self._workspace.container, folder)
        if not names:
            raise ApiError(400, f"inputData: there is nothing at {uri}.")
        return {name.rpartition("/")[2]: self._blobs.read(self._workspace.container, name) for name in names}

    def _scored(self, run: str, deployment: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
        folder = f"azureml/{run}/{OUTPUT}/"
        for file, content in (self.score(deployment, files) if self.score else {}).items():
            self._blobs.put(self._workspace.container, folder + file, content)
        return f"azureml://datastores/workspaceblobstore/paths/{folder}"

    def _list_jobs(self, request: Request, name: str) -> Any:
        self._found(name)
        return listed([self._jobs.shown(job) for job in reversed(self._invoked.get(name, []))], request)
