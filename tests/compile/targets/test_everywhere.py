"""One spec everywhere: here, on Kubeflow, on Vertex AI, converted on Azure ML, and requests that are meant."""

from __future__ import annotations

import difflib
import hashlib

import pytest
import yaml

pytest.importorskip("google.cloud.aiplatform")
pytest.importorskip("azure.ai.ml")

from penstock.compile import submission
from penstock.compile.submission import Settings
from penstock.compile.targets import local
from penstock.compile.targets.local.record import State
from penstock.compile.yaml_writer import to_yaml
from penstock.testing import AzureMLStandIn, Engine, KubeflowStandIn, Rehearsal, StandIn, VertexStandIn
from tests.compile.targets import golden_requests
from tests.compile.targets.conftest import sha256, wait_until

pytestmark = pytest.mark.xdist_group("azureml")
CASES = [(target, path) for target in golden_requests.STAND_INS for path in golden_requests.pipelines()]


@pytest.mark.parametrize(("target", "path"), CASES, ids=lambda case: getattr(case, "stem", case))
def test_what_platforms_are_sent_is_golden(target, path):
    golden = golden_requests.GOLDEN / golden_requests.FOLDERS[target] / f"{path.stem}.json"
    before = golden.read_text(encoding="utf-8") if golden.is_file() else ""
    now = golden_requests.sent(target, path)
    if now != before:
        lines = list(difflib.unified_diff(before.splitlines(), now.splitlines(), str(golden), "sent", lineterm="", n=2))
        pytest.fail("\n".join([*lines[:60], "If this is meant: `make golden`, then read the difference."]), False)


def test_every_golden_request_is_of_a_pipeline():
    names = {path.stem for path in golden_requests.pipelines()}
    for target in golden_requests.STAND_INS:
        assert {
            path.stem for path in (golden_requests.GOLDEN / golden_requests.FOLDERS[target]).glob("*.json")
        } == names


def test_the_same_bytes_run_on_this_machine_on_kubeflow_on_vertex_and_on_azure(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = sha256(spec)
    here = local.run(spec, {"number": 4}, root=tmp_path / "here", jobs=2)
    assert (here.state, here.spec_sha256) == (State.SUCCEEDED, expected)

    def submitted(target: str, stand_in: StandIn, **settings: str) -> submission.RemoteRun:
        prepared = submission.prepare(
            spec.read_bytes(),
            str(spec),
            {"number": "4"},
            None,
            "everywhere",
            settings=Settings(**settings),
        )
        assert prepared.sha256 == expected
        platform = submission.target(target).connect(golden_requests.place(stand_in))
        run = platform.submit(prepared)
        wait_until(lambda: platform.get(run.id).state.over, 60)
        return platform.get(run.id)

    with KubeflowStandIn(Engine()) as kubeflow, kubeflow.connected():
        run = submitted("kubeflow", kubeflow)
        [upload] = kubeflow.seen("POST */upload_version")
        assert upload.query["name"] == expected
        [package] = kubeflow.pipelines.packages.values()
        assert package.sha256 == expected
        assert run.state is submission.RunState.SUCCEEDED
    with VertexStandIn(Engine()) as vertex, vertex.connected():
        run = submitted("vertex", vertex, pipeline_root="gs://bucket/r")
        [job] = vertex.pipeline_jobs.kept.all()
        # Its API takes JSON: the file is what our writer makes of that again, under its heading.
        heading = spec.read_text().partition("components:")[0]
        again = heading + to_yaml(job["pipelineSpec"])
        assert hashlib.sha256(again.encode()).hexdigest() == expected
        assert job["labels"]["penstock-spec-sha256"] == expected[:63]
        assert yaml.safe_load(spec.read_text()) == job["pipelineSpec"]
        assert run.state is submission.RunState.SUCCEEDED
    with AzureMLStandIn(Rehearsal()) as azureml, azureml.connected():
        run = submitted("azureml", azureml)
        assert run.state is submission.RunState.SUCCEEDED, run.error
        [job] = [each.kept.given for each in azureml.jobs._kept.values()]
        # It takes no spec: what runs there was made of the file with this SHA-256.
        assert job["tags"]["penstock.spec_sha256"] == expected
        ran = azureml.rehearsals.records[run.id]
    steps = {task.path: task for task in here.tasks if task.kind == "container"}
    assert {path: task.state for path, task in ran.tasks.items()} == {path: task.state for path, task in steps.items()}
    given = {path: task.outputs.parameters for path, task in steps.items()}
    assert {path: task.parameters for path, task in ran.tasks.items()} == given
    assert given["double"] == {"Output": 8}
    assert {task.path for task in run.tasks} == set(steps)
