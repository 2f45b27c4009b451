"""Our components beside Google's operators: what the spec says, where it may go, and what its operators do there."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

pytest.importorskip("google_cloud_pipeline_components")

from click.testing import CliRunner
from google_cloud_pipeline_components import _image
from google_cloud_pipeline_components.v1.batch_predict_job import ModelBatchPredictOp
from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component
from google_cloud_pipeline_components.v1.endpoint import ModelDeployOp
from google_cloud_pipeline_components.v1.model import ModelUploadOp
from kfp import dsl

from penstock.compile import check, from_kfp, graph, launcher, rewrites
from penstock.compile.cli import penstock
from penstock.compile.findings import errors
from penstock.compile.to_kfp import CompiledSpec, compiled
from penstock.components import ingest
from penstock.pipelines.tabular_training import TIPS
from penstock.pipelines.vertex_training import train_on_vertex, vertex_training
from penstock.testing import Fault, Script, VertexStandIn, run_component
from tests.pipelines.operators import API, REGION, Operators, artifact, connect

PENSTOCK = Path(sys.executable).with_name("penstock")
DIGEST = "sha256:" + "ab" * 32
REGISTRY = "europe-docker.pkg.dev/acme/penstock"
SERVING = f"{REGISTRY}/serving@{DIGEST}"
GCPC = _image.GCPC_IMAGE_TAG
LOCATION = f"projects/test-project/locations/{REGION}"
ACCOUNT = "trainer@test-project.iam.gserviceaccount.com"
KEY = f"{LOCATION}/keyRings/ring/cryptoKeys/key"
GIVEN = {
    "region": REGION,
    "serving_image": SERVING,
    "train_machine_type": "n1-highmem-8",
    "serving_machine_type": "n1-standard-8",
    "service_account": ACCOUNT,
    "encryption_key": KEY,
    "labels": {"team": "search"},
    "version_aliases": ["default", "weekly"],
    "max_replicas": 3,
}


@pytest.fixture(scope="module")
def spec() -> CompiledSpec:
    """The pipeline with its images pinned, as `penstock compile --registry` writes it."""
    return compiled(vertex_training, lambda spec: rewrites.pin_images(spec, {"penstock/tabular": DIGEST}, REGISTRY))


@pytest.fixture(scope="module")
def pipeline(spec):
    return from_kfp.parse(spec.text, spec.name)


@pytest.fixture
def vertex():
    with VertexStandIn(Script("PENDING RUNNING SUCCEEDED")) as stand_in, stand_in.connected():
        yield stand_in


@pytest.fixture
def operators(pipeline, tmp_path):
    def given(**parameters: object) -> Operators:
        return Operators(pipeline, {**GIVEN, **parameters}, tmp_path / "outputs")

    return given


def one(vertex: VertexStandIn, noun: str) -> dict:
    """Return the one resource of a kind that the stand-in has, as it was sent."""
    [request] = vertex.seen(f"POST */{noun}")
    return request.body


# Where it may go


def test_nothing_keeps_it_from_vertex_once_its_images_are_pinned(spec):
    assert errors(check.check(spec.text, "vertex")) == []
    assert set(rewrites.images(yaml.safe_load(spec.text))) == {f"{REGISTRY}/tabular@{DIGEST}", GCPC}


def test_every_operator_and_every_placeholder_that_ties_it_to_vertex_is_named(spec, pipeline):
    tied = [(path, task) for path, task in pipeline.walk() if getattr(task.component.body, "image", "") == GCPC]
    assert len(tied) == 7
    found = errors(check.check(spec.text, "kubeflow"))
    assert {each.path for each in found if each.code == "vertex-operator"} == {path for path, _ in tied}
    of_project = {path for path, task in tied if "project" in task.component.inputs.parameters}
    assert {each.path for each in found if each.code == "google-placeholder"} == of_project
    assert {each.code for each in found} == {"vertex-operator", "google-placeholder"}


def test_only_what_does_not_act_on_vertex_may_be_reused(pipeline):
    containers = [(path, task) for path, task in pipeline.walk() if isinstance(task.component.body, graph.Container)]
    cached = {path.rpartition(".")[2] for path, task in containers if task.caching.enabled}
    assert cached.isdisjoint({"model-upload", "model-upload-2", "endpoint-create", "model-deploy", "model-deploy-2"})
    assert "model-batch-predict" not in cached
    assert "train" in cached


# Without the extra


@pytest.fixture
def without_extra(tmp_path):
    """Run the command where google-cloud-pipeline-components is not installed."""
    missing = "raise ModuleNotFoundError(\"No module named 'google_cloud_pipeline_components'\")\n"
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "google_cloud_pipeline_components.py").write_text(missing)

    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [PENSTOCK, *arguments]
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)

    return call


def test_the_rest_works_without_the_extra_and_who_asks_for_it_is_told_how_to_get_it(without_extra, tmp_path):
    hint = "pip install 'penstock[vertex]'"
    listed = without_extra("list", "--json")
    assert "vertex_training" not in {each["name"] for each in json.loads(listed.stdout)}
    assert hint in listed.stderr
    done = without_extra("compile", "--all", "--output", "specs")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "specs" / "tabular_training.yaml").exists()
    described = without_extra("describe", "tabular_training")
    assert (described.returncode, described.stderr) == (0, "")
    asked = without_extra("describe", "vertex_training")
    assert asked.returncode == 2
    assert hint in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


# On Vertex AI


def test_it_is_submitted_as_it_is_with_its_parameters(vertex, spec, tmp_path):
    spec.write(tmp_path / "vertex_training.yaml")
    given = {"region": REGION, "serving_image": SERVING, "train_machine_type": "n1-highmem-8", "encryption_key": KEY}
    arguments = ["submit", tmp_path / "vertex_training.yaml", "--target", "vertex", "--wait", "--json"]
    arguments += [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    arguments += ["--pipeline-root", "gs://test-bucket/runs", "--service-account", ACCOUNT, "--encryption-key", KEY]
    done = CliRunner().invoke(penstock, [*map(str, arguments)], prog_name="penstock")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sha256"] == spec.sha256
    [job] = vertex.pipeline_jobs.kept.all()
    assert job["pipelineSpec"] == yaml.safe_load(spec.text)
    assert job["runtimeConfig"]["parameterValues"].items() >= given.items()


@pytest.fixture(scope="module")
def data():
    return run_component(ingest, parameters={"source": "sample://taxi?rows=1500", "query": TIPS})


@pytest.mark.slow
def test_the_training_job_trains_on_the_machine_and_in_the_image_that_the_run_names(
    vertex, operators, monkeypatch, data
):
    connect(vertex, monkeypatch)
    vertex.job_script = Script("PENDING RUNNING SUCCEEDED")
    ours = operators(framework="sklearn")
    sets = {
        name: launcher.Artifact(name, {"schemaTitle": "system.Dataset"}, str(data[name].path))
        for name in ("train_set", "eval_set")
    }
    ours.run("train", **sets)
    job = one(vertex, "customJobs")
    assert job["encryptionSpec"] == {"kmsKeyName": KEY}
    assert job["labels"] == {"team": "search"}
    assert job["jobSpec"]["serviceAccount"] == ACCOUNT
    [pool] = job["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == {"machineType": "n1-highmem-8"}
    assert pool["containerSpec"]["imageUri"] == f"{REGISTRY}/tabular@{DIGEST}"

    # What the job would run in that image, run here.
    command = [*pool["containerSpec"]["command"], *pool["containerSpec"]["args"]]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = ours.inputs["train"]["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
    assert "sklearn" in (Path(model) / "MLmodel").read_text()  # as the parameter says


def served(ours: Operators) -> launcher.Artifact:
    return ours.imported("importer", uri="gs://bucket/runs/1/model")


def test_a_new_model_goes_to_a_new_endpoint_and_takes_all_its_traffic(vertex, operators, monkeypatch):
    sent = connect(vertex, monkeypatch)
    vertex.operations.polls = 2
    ours = operators()
    model = ours.run("model-upload", unmanaged_container_model=served(ours))["model"]
    endpoint = ours.run("endpoint-create")["endpoint"]
    ours.run("model-deploy", model=artifact(model), endpoint=artifact(endpoint))

    (upload, uploaded), (create, created), (deploy, deployed) = sent
    assert upload == f"{LOCATION}/models:upload"
    assert uploaded["model"]["containerSpec"] == {
        "imageUri": SERVING, "predictRoute": "/predict", "healthRoute": "/health", "ports": [{"containerPort": 8080}],
    }  # fmt: skip
    assert uploaded["model"]["artifactUri"] == "gs://bucket/runs/1/model"
    assert uploaded["model"]["versionAliases"] == ["default", "weekly"]
    assert create == f"{LOCATION}/endpoints"
    for made in (uploaded["model"], created):
        assert (made["encryptionSpec"], made["labels"]) == ({"kmsKeyName": KEY}, {"team": "search"})
    assert model["metadata"]["resourceName"].endswith("@1")
    assert deploy == f"{endpoint['metadata']['resourceName']}:deployModel"
    assert deployed["trafficSplit"] == {"0": 100}
    assert deployed["deployedModel"]["model"] == model["metadata"]["resourceName"]
    assert deployed["deployedModel"]["serviceAccount"] == ACCOUNT
    assert deployed["deployedModel"]["dedicatedResources"] == {
        "machineSpec": {"machineType": "n1-standard-8"}, "minReplicaCount": 1, "maxReplicaCount": 3,
    }  # fmt: skip


def first_deployed(operators) -> tuple[str, str]:
    """Deploy a first version; return the names of its model, without the version, and of its endpoint."""
    ours = operators()
    model = ours.run("model-upload", unmanaged_container_model=served(ours))["model"]
    endpoint = ours.run("endpoint-create")["endpoint"]
    ours.run("model-deploy", model=artifact(model), endpoint=artifact(endpoint))
    return model["metadata"]["resourceName"].partition("@")[0], endpoint["metadata"]["resourceName"]


def deploy_second(ours: Operators, model: str, endpoint: str) -> dict:
    """Deploy a second version to the endpoint of the first; return the endpoint."""
    parent = ours.imported("importer-2", uri=API + model)
    version = ours.run("model-upload-2", unmanaged_container_model=served(ours), parent_model=parent)["model"]
    assert version["metadata"]["resourceName"] == f"{model}@2"
    existing = ours.imported("importer-3", uri=API + endpoint)
    ours.run("model-deploy-2", model=artifact(version), endpoint=existing)
    return existing


def test_a_new_version_on_an_existing_endpoint_gets_no_traffic_before_it_is_told_to(vertex, operators, monkeypatch):
    from google.cloud import aiplatform

    connect(vertex, monkeypatch)
    model, endpoint = first_deployed(operators)
    before = aiplatform.Endpoint(endpoint).traffic_split
    deploy_second(operators(parent_model=model, endpoint=endpoint), model, endpoint)
    there = aiplatform.Endpoint(endpoint)
    assert [each.model_version_id for each in there.list_models()] == ["1", "2"]
    assert there.traffic_split == before  # all of it still the first one's
    assert aiplatform.Model(model).version_id == "2"  # the alias default has moved


def test_traffic_is_shared_with_what_is_deployed_already_by_its_ids(vertex, operators, monkeypatch):
    from google.cloud import aiplatform

    connect(vertex, monkeypatch)
    model, endpoint = first_deployed(operators)
    [old] = [each.id for each in aiplatform.Endpoint(endpoint).list_models()]
    split = {"0": "10", old: "90"}
    deploy_second(operators(parent_model=model, endpoint=endpoint, traffic_split=split), model, endpoint)
    there = aiplatform.Endpoint(endpoint)
    [new] = [each.id for each in there.list_models() if each.id != old]
    assert there.traffic_split == {new: 10, old: 90}


def test_batch_predictions_go_to_the_folder_and_the_machines_that_the_run_names(vertex, operators, monkeypatch):
    connect(vertex, monkeypatch)
    ours = operators(batch_source=["gs://bucket/rows.jsonl"], batch_output="gs://bucket/predictions")
    model = ours.run("model-upload", unmanaged_container_model=served(ours))["model"]
    ours.run("model-batch-predict", model=artifact(model))
    job = one(vertex, "batchPredictionJobs")
    assert job["model"] == model["metadata"]["resourceName"]
    assert job["inputConfig"] == {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://bucket/rows.jsonl"]}}
    assert job["outputConfig"] == {
        "predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://bucket/predictions"},
    }  # fmt: skip
    assert job["dedicatedResources"]["machineSpec"] == {"machineType": "n1-standard-8"}
    assert (job["serviceAccount"], job["encryptionSpec"]) == (ACCOUNT, {"kmsKeyName": KEY})


def test_an_operator_that_is_refused_fails_with_what_the_api_said(vertex, operators, monkeypatch):
    connect(vertex, monkeypatch)
    ours = operators()
    vertex.add_faults(Fault.answer("POST */endpoints", 403))
    with pytest.raises((ValueError, SystemExit), match="403"):
        ours.run("endpoint-create")


README = (Path(__file__).parents[2] / "pipelines" / "README.md").read_text()


def test_the_operators_are_as_the_page_says():
    """Fails when a release of theirs brings what the page says is missing; then page and pipeline can be simpler."""
    assert f"GCPC {'.'.join(version('google-cloud-pipeline-components').split('.')[:2])}" in README
    deploy, upload, predict = (
        each.component_spec.inputs for each in (ModelDeployOp, ModelUploadOp, ModelBatchPredictOp)
    )
    assert [name for name in deploy if "traffic" in name] == ["traffic_split"]
    assert deploy["endpoint"].type.startswith("google.VertexEndpoint")
    assert upload["parent_model"].type.startswith("google.VertexModel")
    assert "version_aliases" in upload
    assert {deploy["service_account"].default, predict["service_account"].default} == {""}
    training = train_on_vertex.component_spec.inputs
    assert "machine_type" not in training
    assert training["worker_pool_specs"].default[0]["machine_spec"] == {"machine_type": "n1-standard-4"}


def test_a_job_made_of_a_component_with_a_choice_is_warned_of():
    @dsl.container_component
    def greet(name: str = None):  # noqa: RUF013  as KFP reads it
        choice = dsl.IfPresentPlaceholder(input_name="name", then=["--name", name], else_=["--name", "friend"])
        return dsl.ContainerSpec(image="alpine:3.20", command=["echo"], args=[choice])

    job = create_custom_training_job_from_component(greet)

    @dsl.pipeline(name="greeting")
    def greeting():
        job()

    def found(pipeline) -> set[str]:
        return {finding.code for finding in check.check(compiled(pipeline).text, "vertex")}

    assert "choice-in-value" in found(greeting)
    assert "choice-in-value" not in found(vertex_training)


def test_the_examples_of_the_page_run(tmp_path):
    commands = re.findall(r"^penstock (?!submit|run|images)(.*?)(?: +#.*)?$", README.replace("\\\n", ""), re.MULTILINE)
    assert len(commands) == 6
    digests = {"registry": REGISTRY, "images": {"penstock/tabular": {"tag": "t", "digest": DIGEST, "inputs": "0"}}}
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "digests.json").write_text(json.dumps({"format": "penstock.digests/1", **digests}))
    for command in commands:
        words = shlex.split(command)
        if "--registry" in words:
            words += ["--digests", "containers/digests.json"]
        done = subprocess.run([PENSTOCK, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_submission_of_the_page_is_taken(vertex, spec, tmp_path):
    [command] = re.findall(r"^penstock (submit .*)$", README.replace("\\\n", ""), re.MULTILINE)
    spec.write(tmp_path / "compiled" / "vertex_training.yaml")
    words = shlex.split(command.replace("sha256:…", DIGEST).replace("compiled/", f"{tmp_path}/compiled/"))
    done = CliRunner().invoke(penstock, [*words, "--pipeline-root", "gs://test-bucket/runs"], prog_name="penstock")
    assert done.exit_code == 0, done.output
    [job] = vertex.pipeline_jobs.kept.all()
    assert job["runtimeConfig"]["parameterValues"]["region"] == "europe-west4"
