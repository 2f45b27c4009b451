"""Predictions by a job of a batch endpoint of Azure ML, on a model that is registered in the workspace.

The endpoint and its deployment are made where they are not there yet, and stay: without a job they cost nothing. The
deployment runs azureml_score.py in an environment of the model's own requirements.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from azure.ai.ml import Input
from azure.ai.ml.constants import BatchDeploymentOutputAction
from azure.ai.ml.entities import (
    BatchEndpoint,
    BatchRetrySettings,
    CodeConfiguration,
    Data,
    Environment,
    ModelBatchDeployment,
    ModelBatchDeploymentSettings,
    ResourceConfiguration,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from penstock.components._shared.clouds import azureml
from penstock.components._shared.clouds.calls import Calls, Failure
from penstock.components._shared.clouds.jobs import DONE, FAILED, GONE, WAITING, Job
from penstock.components.prediction import remote
from penstock.components.prediction.remote import KEY, Instances
from penstock.components.prediction.scoring import COMPONENT, Backend, Scored, Scoring

MODEL = re.compile(r"azureml:[^:@/]+:[^:@/]+")
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
SCRIPT = Path(remote.__file__).with_name("azureml_score.py")
OUTPUT = "score"  # Azure ML's name of what a batch job leaves
PATIENT = 1800.0  # seconds that the making of an endpoint or a deployment, or the transfer of files, may take
OPTIONS = {
    **azureml.OPTIONS,
    "model": "Registered version: azureml:NAME:VERSION, of the type mlflow_model.",
    "endpoint": "Batch endpoint; made where it is not there.",
    "compute": "Cluster that predicts.",
    "machines": "Machines of the cluster; 1 without it.",
    "processes": "Processes a machine; 1 without it.",
    "environment": "Registered environment: azureml:NAME:VERSION. Without it: one is made of what the model requires.",
}
STATES = {"Completed": DONE, "Failed": FAILED, "Canceled": GONE, "CancelRequested": GONE}


def cannot(scoring: Scoring) -> list[str]:
    """Return what Azure ML cannot be told."""
    options, found = scoring.options, azureml.unknown(scoring.options)
    if not MODEL.fullmatch(str(options.get("model", ""))):
        found.append("a scoring without the option model, azureml:NAME:VERSION")
    if not azureml.NAME.fullmatch(str(options.get("endpoint", ""))):
        found.append("a scoring without the option endpoint, 3 to 32 letters, digits and hyphens")
    if not options.get("compute"):
        found.append("a scoring without the option compute")
    if "environment" in options and not MODEL.fullmatch(str(options["environment"])):
        found.append(f"environment {options['environment']!r}, which is not azureml:NAME:VERSION")
    for name in ("machines", "processes"):
        if name in options and not (str(options[name]).isdecimal() and int(options[name]) > 0):
            found.append(f"{name} {options[name]!r}, which is no number above 0")
    if KEY in scoring.model.features:
        found.append(f"a model that reads a column {KEY}")
    if not scoring.run_id:
        found.append("a scoring without a run_id, by which a restarted step knows its job")
    return found


class AzureML:
    """A workspace of Azure ML, for one scoring."""

    name = "Azure ML"

    def __init__(self, scoring: Scoring, instances: Instances) -> None:
        self._scoring, self._instances = scoring, instances
        self._calls = Calls(self, COMPONENT, "platform")
        self._works = azureml.Works(self._calls, PATIENT)
        self._client = azureml.connect(scoring.options, self._calls.refusal)
        self._endpoint = str(scoring.options["endpoint"])
        self._deployment = f"penstock-{self._definition()[:16]}"
        self._data = f"penstock-batch-{instances.label}"

    def prepare(self) -> None:
        """Upload the rows, and make endpoint and deployment where they are not there."""
        name, _, version = str(self._scoring.options["model"]).removeprefix("azureml:").partition(":")
        self._works(f"ask for the model {name}:{version}", lambda: self._client.models.get(name, version))
        self._works.ensure(
            f"upload the rows as {self._data}",
            lambda: self._client.data.get(self._data, "1"),
            lambda: self._client.data.create_or_update(
                Data(name=self._data, version="1", path=str(self._instances.folder), type="uri_folder")
            ),
        )
        self._works.ensure(
            f"make the endpoint {self._endpoint}",
            lambda: self._client.batch_endpoints.get(self._endpoint),
            lambda: self._client.batch_endpoints.begin_create_or_update(BatchEndpoint(name=self._endpoint)).result(),
        )
        self._works.ensure(
            f"make the deployment {self._deployment}",
            self._whole_deployment,
            lambda: self._client.batch_deployments.begin_create_or_update(self.deployment()).result(),
        )

    def _whole_deployment(self) -> Any:
        found = self._client.batch_deployments.get(self._deployment, self._endpoint)
        if str(found.provisioning_state) != "Succeeded":
            raise ResourceNotFoundError("it was never finished")  # the same again waits for it, or mends it
        return found

    def jobs(self, label: str, seconds: float) -> Sequence[Job]:
        found = azureml.within(seconds, lambda: list(self._client.batch_endpoints.list_jobs(self._endpoint)))
        own = [each for each in found if str(each.name).startswith(f"{self._prefix(label)}-")]
        own.sort(key=lambda each: int(str(each.name).rpartition("-")[2]))
        return [Job(str(each.name), _state(each.status)) for each in own]

    def create(self, label: str, attempt: int, seconds: float) -> str:
        name = f"{self._prefix(label)}-{attempt}"
        rows = Input(type="uri_folder", path=f"azureml:{self._data}:1")
        azureml.within(
            2 * seconds,
            lambda: self._client.batch_endpoints.invoke(
                self._endpoint, deployment_name=self._deployment, inputs={"rows": rows}, job_name=name
            ),
        )
        return name

    def job(self, name: str, seconds: float) -> Job:
        state = _state(azureml.within(seconds, lambda: self._client.jobs.get(name)).status)
        return Job(name, state, self._error(name, seconds) if state == FAILED else "")

    def _error(self, name: str, seconds: float) -> str:
        """Return why a job failed, which the client's jobs do not have."""
        run = azureml.within(seconds, lambda: self._client.jobs._runs_operations.get_run(name))
        root = getattr(run.error, "error", None)
        return " ".join(str(getattr(root, "message", "") or "").split())

    def cancel(self, name: str, seconds: float) -> None:
        try:
            azureml.within(seconds, lambda: self._client.jobs.begin_cancel(name, polling=False))
        except HttpResponseError as error:
            if error.status_code != 400:  # it is over
                raise

    def results(self, name: str, folder: Path) -> Sequence[Path]:
        children = self._works("ask for the job's step", lambda: list(self._client.jobs.list(parent_job_name=name)))
        if not children:
            raise self._calls.refusal(f"the job {name} has no step that predicts", "Look at it there")
        self._works(
            "fetch the predictions",
            lambda: self._client.jobs.download(children[0].name, download_path=folder, output_name=OUTPUT),
        )
        return [file for file in sorted(folder.rglob("*.jsonl")) if file.is_file()]

    def failure(self, error: Exception) -> Failure | None:
        return azureml.failure(error)

    def deployment(self) -> ModelBatchDeployment:
        """Return the deployment; its name says what it is made of."""
        options = self._scoring.options
        environment = options.get("environment") or Environment(
            name=f"penstock-{self._definition()[:16]}", version="1", image=IMAGE, conda_file=self._conda()
        )
        return ModelBatchDeployment(
            name=self._deployment,
            endpoint_name=self._endpoint,
            model=str(options["model"]),
            code_configuration=CodeConfiguration(code=str(self._code()), scoring_script=SCRIPT.name),
            environment=environment,
            compute=str(options["compute"]),
            resources=ResourceConfiguration(instance_count=int(options.get("machines", 1))),
            settings=ModelBatchDeploymentSettings(
                mini_batch_size=1,
                max_concurrency_per_instance=int(options.get("processes", 1)),
                output_action=BatchDeploymentOutputAction.SUMMARY_ONLY,
                error_threshold=0,
                retry_settings=BatchRetrySettings(max_retries=3, timeout=3600),
                environment_variables={"PENSTOCK_MODEL_ID": self._model_id()},
            ),
        )

    def _code(self) -> Path:
        """Return a folder that holds the script alone, for the client uploads whole folders."""
        folder = self._instances.folder.with_name("code")
        folder.mkdir(exist_ok=True)
        (folder / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        return folder

    def _conda(self) -> dict[str, Any]:
        """Return the model's own environment, with what Azure ML wants in those of batch deployments."""
        found: dict[str, Any] = yaml.safe_load((self._scoring.folder / "conda.yaml").read_text(encoding="utf-8"))
        for each in found["dependencies"]:
            if isinstance(each, dict):
                each["pip"] = [*each["pip"], "azureml-core"]
        return found

    def _model_id(self) -> str:
        return str(yaml.safe_load((self._scoring.folder / "MLmodel").read_text(encoding="utf-8"))["model_uuid"])

    def _definition(self) -> str:
        """Return a hash of all that makes a deployment what it is."""
        options = self._scoring.options
        made_of = ["model", "compute", "machines", "processes", "environment"]
        told = [*(str(options.get(name, "")) for name in made_of), self._model_id(), SCRIPT.read_text(encoding="utf-8")]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _prefix(self, label: str) -> str:
        return f"penstock-batch-{label}"


def _state(status: Any) -> str:
    return STATES.get(str(getattr(status, "value", status)), WAITING)


def scored(scoring: Scoring) -> Iterator[Scored]:
    """Yield the batches with the predictions of the job."""
    return remote.scored(scoring, AzureML)


BACKEND = Backend(options=OPTIONS, cannot=cannot, scored=scored)
