"""What docs/submission.md shows is what there is."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from penstock.compile import cli, on_event, submission
from penstock.testing import AzureMLStandIn, KubeflowStandIn, Script, VertexStandIn

TEXT = (Path(__file__).parents[3] / "docs" / "submission.md").read_text()
COMMANDS = re.findall(r"^penstock .*", "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)), re.MULTILINE)
HOST = "https://kubeflow.example.com/pipeline"


def test_the_examples_run_one_after_another(call, tmp_path, monkeypatch):
    pytest.importorskip("google.cloud.aiplatform")
    pytest.importorskip("azure.ai.ml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    azureml = AzureMLStandIn(Script("SUCCEEDED"), workspace="my-workspace")
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", azureml.scope.subscription)
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", azureml.scope.group)
    digest = {"tag": "0", "digest": f"sha256:{'0' * 64}", "inputs": ""}
    images = {f"penstock/{environment}": digest for environment in ("beam", "clouds", "features", "tabular")}
    registry = "europe-docker.pkg.dev/my-project/penstock"
    digests = {"format": "penstock.digests/1", "registry": registry, "images": images}
    Path("digests.json").write_text(json.dumps(digests))
    assert len(COMMANDS) >= 6
    with (
        KubeflowStandIn(Script()) as kubeflow,
        VertexStandIn(Script()) as vertex,
        vertex.connected(),
        azureml,
        azureml.connected(),
    ):
        for command in COMMANDS:
            _, *arguments = shlex.split(command.replace(HOST, kubeflow.url))
            more = ["--digests", "digests.json"] if arguments[0] == "compile" else []
            result = call(*arguments, *more)
            assert result.exit_code == 0, f"{command}\n{result.output}"
        assert len(kubeflow.runs.current()) == 1
        assert len(vertex.pipeline_jobs.kept.all()) == 1
        assert len(azureml.seen("PUT */jobs/*")) == 1


def test_the_file_of_what_may_be_submitted_is_read_and_its_message_fits(tmp_path):
    [example] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    [message] = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "events.yaml"
    path.write_text(example)
    allowed = on_event.configuration({on_event.CONFIGURATION: str(path)})
    event = on_event.read(message.encode(), {"idempotency-key": "k"})
    row, given = on_event._chosen(event.content, allowed)
    assert (row.target, row.place.project) == ("vertex", "my-project")
    assert given == {"source": "gs://my-bucket/trips/*.csv"}


@pytest.mark.parametrize("name", submission.TARGETS)
def test_what_a_target_refuses_are_options_that_there_are_and_the_docs_say_so(name):
    commands = [cli.submit, cli.schedule, cli.resume]
    options = {parameter.name for command in commands for parameter in command.params}
    for option in submission.target(name).REFUSED:
        assert option in options
        assert f"--{option.replace('_', '-')}`" in TEXT


def test_targets_of_the_command_are_those_of_the_table():
    [choice] = [parameter.type for parameter in cli.submit.params if parameter.name == "target"]
    assert list(choice.choices) == list(submission.TARGETS)


def test_a_missing_sdk_is_named_with_the_line_that_installs_it(call, spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    monkeypatch.delattr("google.cloud.aiplatform_v1", raising=False)
    result = call("submit", spec, "--target", "vertex", "--pipeline-root", "gs://b/r")
    assert result.exit_code == 2
    assert result.output.endswith("is not installed: pip install 'penstock[vertex]'\n")
