"""Runs the launchers of Google's operators on this machine, against a stand-in in place of Vertex AI.

Their image holds the package that is installed here, so what runs is what would run in it. The launchers take no
address: they put it together as https://REGION-aiplatform.googleapis.com, and half of them talk gRPC to it. So what
opens the connections is replaced, and what goes over them is held to the messages of the API on the way.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.oauth2.credentials import Credentials
from google.protobuf import json_format
from google_cloud_pipeline_components.container.v1.gcp_launcher import job_remote_runner, lro_remote_runner

from penstock.compile import graph, launcher, to_launcher
from penstock.compile.targets.local import convert
from penstock.testing import VertexStandIn

REGION = "us-central1"
API = f"https://{REGION}-aiplatform.googleapis.com/v1/"
NAMES = {
    "pipeline_google_cloud_project_id": "test-project",
    "pipeline_google_cloud_location": REGION,
    "pipeline_persistent_resource_id": "",
    "pipeline_job_uuid": "1",
    "pipeline_job_name": "vertex-training-1",
}
_MESSAGES = {
    "models:upload": aiplatform_v1.UploadModelRequest,
    "endpoints": aiplatform_v1.Endpoint,
    ":deployModel": aiplatform_v1.DeployModelRequest,
}


class Operators:
    """The operators of a pipeline.

    Args:
        pipeline: The compiled pipeline.
        given: Parameters of the run.
        folder: Where outputs go.
    """

    def __init__(self, pipeline: graph.Pipeline, given: Mapping[str, Any], folder: Path) -> None:
        self.tasks = {path.rpartition(".")[2]: task for path, task in pipeline.walk()}
        defaults = {name: port.default for name, port in pipeline.inputs.parameters.items()}
        self.parameters = {**defaults, **given}
        self.folder = folder
        self.inputs: dict[str, dict[str, Any]] = {}  # the executor input of each task that has run

    def imported(self, path: str, **given: Any) -> launcher.Artifact:
        """Return what an importer gives."""
        task = self.tasks[path]
        assert isinstance(task.component.body, graph.Importer)
        uri, metadata = convert.import_source(task, task.component.body, self._values(task, given), NAMES)
        return launcher.Artifact("artifact", to_launcher.artifact_type(task.component.body.type), uri, metadata)

    def run(self, path: str, **artifacts: launcher.Artifact) -> dict[str, dict[str, Any]]:
        """Run the launcher of an operator; return the artifacts that it gives, as KFP's runtime artifacts, by name."""
        task = convert.task(self.tasks[path])
        values = launcher.bind(task, self._values(self.tasks[path], {}))
        given = launcher.executor_input(
            task, values, {name: [one] for name, one in artifacts.items()}, self.folder / path
        )
        self.inputs[path] = given
        command, args, _ = launcher.command_line(task, given, NAMES)
        assert command[:3] == ["python3", "-u", "-m"]
        importlib.import_module(command[3]).main([_again(arg, given) for arg in args])
        said = self.folder / path / "executor_output.json"
        found = json.loads(said.read_text())["artifacts"] if said.exists() else {}
        return {name: each["artifacts"][0] for name, each in found.items()}

    def _values(self, task: graph.Task, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a task: what it is told, or the pipeline's, which go by the same names inside."""
        found, constants = dict(given), {}
        for name, each in task.inputs.items():
            if isinstance(each.source, graph.Constant):
                constants[name] = each.source.value
            elif isinstance(each.source, graph.ScopeInput) and name not in given:
                inner = each.source.name.removeprefix("pipelinechannel--")
                if inner in self.parameters:
                    found[name] = self.parameters[inner]
        filled = {"inputs": {"parameterValues": found}}
        return {**found, **{name: launcher.fill(value, filled, NAMES) for name, value in constants.items()}}


def _again(text: str, given: Mapping[str, Any]) -> str:
    """Return an argument with the placeholders replaced that values have brought in, as Vertex AI does."""
    text = text.replace("{{$.json_escape[1]}}", json.dumps(json.dumps(given))[1:-1])
    return launcher.fill_text(text, given, NAMES)


def artifact(found: Mapping[str, Any]) -> launcher.Artifact:
    """Return a runtime artifact as one that a task can be given."""
    return launcher.Artifact(found["name"], found["type"], found["uri"], found["metadata"])


def connect(vertex: VertexStandIn, monkeypatch: Any) -> list[tuple[str, dict[str, Any]]]:
    """Lead the launchers to a stand-in; return what they send by HTTP, by path, each time it is sent."""
    sent: list[tuple[str, dict[str, Any]]] = []
    client = aiplatform_v1.JobServiceClient

    def jobs(client_options: Any = None, client_info: Any = None) -> Any:
        assert client_options.api_endpoint == API.removeprefix("https://").removesuffix("/v1/")
        here = {"api_endpoint": vertex.url}
        return client(credentials=AnonymousCredentials(), transport="rest", client_options=here)

    def post(url: str, data: str, headers: Mapping[str, str]) -> requests.Response:
        path = url.removeprefix(API)
        [message] = [kind for end, kind in _MESSAGES.items() if path.endswith(end)]
        request = message.from_json(data)  # which refuses unknown fields
        body = json_format.MessageToDict(message.pb(request))
        sent.append((path, body))
        return requests.post(f"{vertex.url}/v1/{path}", json=body, headers=dict(headers), timeout=10)

    def get(url: str, data: str, headers: Mapping[str, str]) -> requests.Response:
        return requests.get(f"{vertex.url}/v1/{url.removeprefix(API)}", headers=dict(headers), timeout=10)

    monkeypatch.setattr(job_remote_runner.aiplatform.gapic, "JobServiceClient", jobs)
    monkeypatch.setattr(lro_remote_runner, "requests", SimpleNamespace(post=post, get=get))
    monkeypatch.setattr("google.auth.default", lambda *_, **__: (Credentials(token="test"), "test-project"))
    for module in (job_remote_runner, lro_remote_runner):
        monkeypatch.setattr(module, "_POLLING_INTERVAL_IN_SECONDS", 0.05)
    return sent
