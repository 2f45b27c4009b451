"""Predictions by jobs of Vertex AI and Azure ML, through their real clients, against what stands for them here."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.clouds import azureml as azureml_clouds
from penstock.components._shared.clouds import jobs as jobs_module
from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.deployment.serving import payloads, served
from penstock.components.deployment.serving.refusal import Refusal
from penstock.components.deployment.serving.settings import Settings
from penstock.components.prediction import azureml_score, remote
from penstock.components.prediction.backends import azureml as azureml_backend
from penstock.components.prediction.predict import predict
from penstock.testing import AzureMLStandIn, Fault, Script, VertexStandIn
from tests.compile.targets.azureml.rest_schema import problems as schema_problems
from tests.components.deployment.endpoints import ended, forked
from tests.components.killing import killed_after_each_change
from tests.components.prediction.conftest import trips

PLATFORMS = ("vertex", "azureml")
CREATE = {"vertex": "POST */batchPredictionJobs", "azureml": "POST */inference/batch/*/jobs"}
POLL = {"vertex": "GET */batchPredictionJobs/*", "azureml": "GET */jobs/penstock-batch-*"}
CANCEL = {"vertex": "POST *:cancel", "azureml": "POST */cancel"}
LIST = {"vertex": "GET */batchPredictionJobs", "azureml": "GET */mferp/*/jobs"}


class Service:
    """A stand-in with a registered model, and the options by which it is reached."""

    def __init__(self, platform: str, stand_in, folder: Path) -> None:
        self.platform, self.stand_in, self.folder = platform, stand_in, folder
        self.fails = lambda instance: False
        self.apart = False  # whether Azure ML's script runs in a process of its own
        self.options = getattr(self, f"_{platform}")()

    def _vertex(self):
        from google.cloud import aiplatform

        place = f"gs://models/{self.folder.name}"
        for file in self.folder.rglob("*"):
            if file.is_file():
                self.stand_in.storage.put(f"{place}/{file.relative_to(self.folder).as_posix()}", file.read_bytes())
        self.stand_in.storage.put("gs://staging/.keep", b"")
        model = aiplatform.Model.upload(
            display_name="tips", artifact_uri=place, serving_container_image_uri="r/serving@sha256:1", sync=True
        )
        server = served.load(Settings(model=str(self.folder)))

        def answer(instance):
            if self.fails(instance):
                return ValueError("Post request fails. Cannot get predictions.")
            body = json.dumps({"instances": [instance]}).encode()
            try:
                rows = payloads.read(payloads.PROTOCOLS["vertex"], payloads.JSON, body, server.signature)
                columns = server.predict(rows)
            except Refusal as refusal:
                return refusal
            return {name: values.tolist()[0] for name, values in columns.items()}

        self.stand_in.endpoints.predict = lambda model, instances, parameters: [answer(each) for each in instances]
        return {"model": f"{model.resource_name}@{model.version_id}", "staging_bucket": "gs://staging/batch"}

    def _azureml(self):
        from azure.ai.ml.entities import Model

        self.stand_in.client().models.create_or_update(
            Model(name="tips", version="3", path=str(self.folder), type="mlflow_model")
        )
        scope = self.stand_in.scope

        folder = self.folder

        def score(deployment, files):
            kept = {
                name: b"".join(line for line in content.splitlines(True) if not self.fails(json.loads(line)))
                for name, content in files.items()
            }
            run = run_script if self.apart else call_script
            return run(folder, deployment["environmentVariables"], kept, self.stand_in.folder)

        self.stand_in.batch_endpoints.score = score
        return {
            "subscription": scope.subscription, "resource_group": scope.group, "workspace": scope.workspace,
            "model": "azureml:tips:3", "endpoint": "trips-batch", "compute": "cpu-cluster",
        }  # fmt: skip

    @property
    def jobs(self):
        if self.platform == "vertex":
            return self.stand_in.jobs._kept["batchPredictionJobs"].all()
        return [name for names in self.stand_in.batch_endpoints._invoked.values() for name in names]

    def play(self, script: Script) -> None:
        if self.platform == "vertex":
            self.stand_in.job_script = script
        else:
            self.stand_in.play = script


def laid_out(model: Path, files: dict[str, bytes], root: Path) -> tuple[Path, dict[str, str], list[str]]:
    """Return a folder as Azure ML lays it out for a script, with the variables and the paths of its input."""
    folder = root / f"score-{time.monotonic_ns()}"
    for name in ("root", "code", "inputs", "outputs"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(model, folder / "root" / "model")
    shutil.copy(azureml_score.__file__, folder / "code")
    for name, content in files.items():
        (folder / "inputs" / name).write_bytes(content)
    places = {"AZUREML_MODEL_DIR": str(folder / "root"), "AZUREML_BI_OUTPUT_PATH": str(folder / "outputs")}
    return folder, places, [*map(str, sorted((folder / "inputs").iterdir()))]


def run_script(model: Path, variables: dict, files: dict[str, bytes], root: Path) -> dict[str, bytes]:
    """Run azureml_score.py as Azure ML does: by itself, in a process where there is no Penstock."""
    folder, places, inputs = laid_out(model, files, root)
    program = f"import sys; sys.path.insert(0, {str(folder / 'code')!r}); import azureml_score as s; s.init(); "
    program += "assert s.run(sys.argv[1:]) == sys.argv[1:]; assert 'penstock' not in sys.modules"
    command = [sys.executable, "-P", "-c", program, *inputs]
    done = subprocess.run(command, env={**os.environ, **variables, **places}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_bytes() for file in (folder / "outputs").iterdir()}


def call_script(model: Path, variables: dict, files: dict[str, bytes], root: Path) -> dict[str, bytes]:
    """Do the same in this process, where the model's framework has been imported."""
    folder, places, inputs = laid_out(model, files, root)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, **places}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "path", [*sys.path])
        azureml_score.init()
        azureml_score.run(inputs)
    return {file.name: file.read_bytes() for file in (folder / "outputs").iterdir()}


@contextlib.contextmanager
def standing(platform: str, folder: Path):
    if platform == "vertex":
        with VertexStandIn() as stand_in, stand_in.connected():
            yield Service(platform, stand_in, folder)
    else:
        with AzureMLStandIn() as stand_in, stand_in.connected():
            yield Service(platform, stand_in, folder)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(jobs_module, "POLL", 0.01)
    monkeypatch.setattr(azureml_clouds, "POLL", 0.01)


@pytest.fixture
def ask(make_dataset, tmp_path):
    """Return a function that predicts rows by a service and returns counts, predictions and rejects."""

    def ask(service: Service, rows: pa.Table, **given):
        options = {**service.options, **given.pop("options", {})}
        outputs = tmp_path / "predictions", tmp_path / "rejects"
        asked = {"platform": service.platform, "run_id": "run-1", "keep": ["id"], "options": options, **given}
        result = predict(service.folder, make_dataset(rows), *outputs, **asked)
        return result, *(read(output) for output in outputs)

    return ask


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in open_dataset(folder, "test", "rows").files])


@pytest.mark.parametrize(
    ("platform", "target"),
    [
        ("vertex", "tipped"), ("vertex", "kind"), ("vertex", "fare"),
        pytest.param("azureml", "kind", marks=pytest.mark.slow),  # its script runs in processes of their own
    ],
)  # fmt: skip
def test_predictions_are_those_of_the_local_platform_in_their_order(
    platform, target, models, ask, make_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "FILE_ROWS", 64)
    rows = trips(150)
    with standing(platform, models[target]) as service:
        service.apart = True
        result, found, rejects = ask(service, rows)
        assert len(service.jobs) == 1
    assert (result.rows, result.bad_rows, rejects.num_rows) == (150, 0, 0)
    predict(models[target], make_dataset(rows), tmp_path / "here", tmp_path / "bad", keep=["id"])
    assert found.equals(read(tmp_path / "here"))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_bad_rows_are_not_sent_and_rows_without_a_prediction_are_bad_rows(platform, models, ask):
    rows = trips(10)
    miles = rows["miles"].to_pylist()
    miles[2] = float("inf")
    rows = rows.set_column(1, "miles", pa.array(miles))
    with standing(platform, models["fare"]) as service:
        service.fails = lambda instance: instance["miles"] == miles[5]
        result, found, rejects = ask(service, rows, max_bad_rows=2)
    assert (result.rows, result.bad_rows) == (8, 2)
    assert found["id"].to_pylist() == [f"trip-{n}" for n in range(10) if n not in (2, 5)]
    told = rejects.to_pylist()
    assert [(each["row"], each["column"]) for each in told] == [(2, "miles"), (5, "prediction")]
    said = {"vertex": "the service says: Post request fails. Cannot get predictions.",
            "azureml": "the service gave no prediction"}  # fmt: skip
    assert told[1]["reason"] == said[platform]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_too_many_bad_rows_make_no_job_and_no_rows_need_none(platform, models, ask):
    rows = trips(3).set_column(1, "miles", pa.array([1.0, float("inf"), 2.0]))
    with standing(platform, models["fare"]) as service:
        with pytest.raises(UserError, match="row 1, column 'miles' is infinite"):
            ask(service, rows)
        assert ask(service, trips(0))[0].rows == 0
        assert service.jobs == []


def test_vertex_reads_rows_as_the_models_server_does(models, ask):
    rows = trips(4).set_column(1, "miles", pa.array([1.0, None, 2.0, 3.0]))
    with standing("vertex", models["fare"]) as service:
        result, _, rejects = ask(service, rows, max_bad_rows=1)
    assert result.rows == 3
    assert rejects.to_pylist() == [
        {"row": 1, "column": "miles", "reason": "is missing, and the model's server wants one"}
    ]


REFUSED = {
    "vertex": [
        ({"platform": "elsewhere"}, "'elsewhere' is unknown. Choose one of local, vertex, azureml"),
        ({"platform": "local"}, "'model' is no option of the platform local. It has none"),
        ({"options": {"model": "projects/p/locations/l/models/m"}}, "without the option model, projects/"),
        ({"options": {"staging_bucket": "/data"}}, "without the option staging_bucket, a gs:// folder"),
        ({"options": {"machines": 0}}, "machines 0, which is no number above 0"),
        ({"options": {"endpoint": "e"}}, "'endpoint' is no option of the platform vertex. It has project"),
        ({"run_id": ""}, "vertex cannot do a scoring without a run_id"),
    ],
    "azureml": [
        ({"options": {"model": "tips"}}, "without the option model, azureml:NAME:VERSION"),
        ({"options": {"endpoint": "a_b"}}, "without the option endpoint, 3 to 32"),
        ({"options": {"compute": ""}}, "without the option compute"),
        ({"options": {"workspace": ""}}, "a workspace without the option workspace"),
        ({"options": {"environment": "mine"}}, "environment 'mine', which is not azureml:NAME:VERSION"),
        ({"run_id": ""}, "azureml cannot do a scoring without a run_id"),
    ],
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_a_platform_cannot_do_is_refused_by_name_before_anything_is_sent(platform, models, ask):
    with standing(platform, models["fare"]) as service:
        service.stand_in.forget()
        for given, part in REFUSED[platform]:
            with pytest.raises(UserError) as refused:
                ask(service, trips(3), **given)
            assert part in str(refused.value)
        assert service.stand_in.requests == ()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_another_model_than_the_one_that_was_given_is_refused(platform, models, ask):
    with standing(platform, models["tipped"]) as service:
        service.folder = models["fare"]
        with pytest.raises(UserError, match="another"):
            ask(service, trips(3))
        assert len(service.jobs) == (0 if platform == "vertex" else 1)  # Azure ML's own script looks


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_second_attempt_of_a_run_adopts_the_job_and_another_run_does_not(platform, models, ask):
    with standing(platform, models["fare"]) as service:
        _, first, _ = ask(service, trips(20))
        _, second, _ = ask(service, trips(20))
        assert first.equals(second)
        assert len(service.stand_in.seen(CREATE[platform])) == 1
        ask(service, trips(20), run_id="run-2")
        assert len(service.jobs) == 2


FAULTS = [
    lambda on: Fault.lost(on),
    lambda on: Fault.answer(on, 503),
    lambda on: Fault.answer(on, 429, retry_after=0),
    lambda on: Fault.reset(on),
]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_passing_fault_makes_no_second_job(platform, models, ask):
    with standing(platform, models["fare"]) as service:
        for number, fault in enumerate(FAULTS):
            service.stand_in.add_faults(*(fault(on[platform]) for on in (CREATE, POLL, LIST)))
            ask(service, trips(5), run_id=f"run-{number}")
            assert len(service.jobs) == number + 1
            assert service.stand_in.pending_faults == ()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_a_service_refuses_and_a_job_that_fails_are_told(platform, models, ask, tmp_path):
    with standing(platform, models["fare"]) as service:
        service.stand_in.add_faults(Fault.answer(CREATE[platform], 403))
        with pytest.raises(UserError, match="the job cannot be created"):
            ask(service, trips(5))
        assert len(service.stand_in.seen(CREATE[platform])) == 1
        service.play(Script("RUNNING FAILED", error="out of quota"))
        with pytest.raises(UserError, match="failed: out of quota"):
            ask(service, trips(5))
        # A job that failed is none to adopt: the next attempt makes its own.
        service.play(Script())
        assert ask(service, trips(5))[0].rows == 5
        assert len(service.jobs) == 2
    assert not list(tmp_path.glob("*/part-*.unfinished"))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_at_the_end_of_the_time_the_job_is_cancelled(platform, models, ask):
    with standing(platform, models["fare"]) as service:
        service.play(Script("RUNNING"))
        with pytest.raises(UserError, match=r"still at work after 0\.5 s, and was ended"):
            ask(service, trips(5), max_seconds=0.5)
        assert service.stand_in.seen(CANCEL[platform])


PROGRAM = """
import json, sys
from penstock.components._shared.clouds import jobs
from penstock.components.prediction.predict import predict
given, vertex = map(json.loads, sys.argv[1:])
jobs.POLL = 0.05
if vertex:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform
    aiplatform.init(project="test-project", location="us-central1", api_endpoint=vertex, api_transport="rest",
                    credentials=AnonymousCredentials())
predict(*given.pop("paths"), **given)
"""


@pytest.mark.slow  # four processes that import the platforms' clients
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_step_that_is_told_to_end_cancels_its_job_and_one_that_is_killed_leaves_it_to_the_next(
    platform, models, make_dataset, tmp_path
):
    with standing(platform, models["fare"]) as service:
        service.play(Script("RUNNING"))
        given = {
            "paths": [str(models["fare"]), str(make_dataset(trips(5))), str(tmp_path / "p"), str(tmp_path / "r")],
            "platform": platform, "run_id": "run-1", "options": service.options,
        }  # fmt: skip
        url = service.stand_in.url if platform == "vertex" else ""
        environment = service.stand_in.environment if platform == "azureml" else {}
        # Without byte-code, the SDKs take many seconds to import.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        for end in (signal.SIGKILL, signal.SIGTERM):
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *map(json.dumps, (given, url))],
                env={**inherited, **environment, "_KFP_RUNTIME": "true"},
            )
            seen = len(service.stand_in.seen(POLL[platform]))
            limit = time.monotonic() + 120
            while process.poll() is None and len(service.stand_in.seen(POLL[platform])) < seen + 2:
                assert time.monotonic() < limit
                time.sleep(0.05)
            if end is signal.SIGTERM:
                service.stand_in.add_faults(*(Fault.answer(CANCEL[platform], 503) for _ in range(2)))
            since = time.monotonic()
            process.send_signal(end)
            assert process.wait() != 0
            assert time.monotonic() - since < 10
        assert process.returncode == jobs_module.EXIT_TERMINATED
        assert len(service.jobs) == 1
        assert len(service.stand_in.seen(CANCEL[platform])) == 3
        assert not (tmp_path / "p").exists()


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_killed_after_any_change_it_is_finished_by_the_next_attempt_with_one_job(
    platform, models, make_dataset, tmp_path
):
    rows, number = str(make_dataset(trips(5))), 1
    with standing(platform, models["fare"]) as service:

        def work():
            folder = tmp_path / f"{number}-{os.getpid()}"
            # Another run, at another endpoint: nothing of the one before is there.
            options = {**service.options, **({"endpoint": f"trips-{number}"} if platform == "azureml" else {})}
            given = {"platform": platform, "run_id": f"run-{number}", "keep": ["id"], "options": options}
            return predict(service.folder, rows, folder / "predictions", folder / "rejects", **given)

        for number in killed_after_each_change(work):
            assert work().rows == 5
            assert len(service.jobs) == number
            number += 1
        assert len(service.jobs) == number
    assert number > 2


def test_files_that_another_uploads_at_the_same_time_are_not_waited_for_for_ever(models, ask):
    with standing("azureml", models["fare"]) as service:
        service.stand_in.add_faults(Fault.answer("PUT */LocalUpload/*", 409, times=2))
        assert ask(service, trips(5))[0].rows == 5
        assert service.stand_in.pending_faults == ()


def test_of_those_who_upload_the_same_rows_at_once_all_get_the_one_job(models, make_dataset, tmp_path):
    rows = str(make_dataset(trips(5)))
    with standing("azureml", models["fare"]) as service:

        def work(number):
            folder = tmp_path / str(number)
            given = {"platform": "azureml", "run_id": "run-1", "keep": ["id"], "options": service.options}
            assert predict(service.folder, rows, folder / "predictions", folder / "rejects", **given).rows == 5

        children = [forked(lambda number=number: work(number)) for number in range(4)]
        assert [ended(child, 120) for child in children] == [0] * 4
        assert len(service.jobs) == 1


def test_azure_is_sent_what_its_published_schema_allows(models, ask):
    from azure.ai.ml._restclient.arm_ml_service import models as rest

    with standing("azureml", models["fare"]) as service:
        ask(service, trips(5), options={"machines": 2, "processes": 4})
        [endpoint] = service.stand_in.seen("PUT */batchEndpoints/trips-batch")
        [deployment] = service.stand_in.seen("PUT */batchEndpoints/*/deployments/*")
        [environment] = service.stand_in.seen("PUT */environments/*")
        # The client writes the one mode that there is in its own way, which the service takes.
        assert endpoint.body["properties"].pop("authMode") == "aadToken"
        assert (
            list(schema_problems({**endpoint.body["properties"], "authMode": "AADToken"}, rest.BatchEndpointProperties))
            == []
        )
        assert list(schema_problems(deployment.body["properties"], rest.BatchDeploymentProperties)) == []
        properties = deployment.body["properties"]
        assert properties["resources"]["instanceCount"] == 2
        assert properties["maxConcurrencyPerInstance"] == 4
        assert properties["outputAction"] == "SummaryOnly"
        conda = environment.body["properties"]["condaFile"]
        assert "azureml-core" in conda
        assert "xgboost-cpu==" in conda
        [code] = service.stand_in.seen("PUT */codes/*")
        name = code.path.split("/")[-3]
        assert service.stand_in.assets.files(f"{name}:1") == {
            "azureml_score.py": Path(azureml_backend.SCRIPT).read_bytes()
        }


def test_vertex_is_told_machines_accounts_and_keys(models, ask):
    with standing("vertex", models["fare"]) as service:
        more = {"machines": 2, "max_machines": 5, "batch_size": 16, "service_account": "s@p", "encryption_key": "k"}
        ask(service, trips(5), options=more)
        [job] = service.jobs
    assert job["dedicatedResources"] == {
        "machineSpec": {"machineType": "n1-standard-4"}, "startingReplicaCount": 2, "maxReplicaCount": 5,
    }  # fmt: skip
    assert job["manualBatchTuningParameters"] == {"batchSize": 16}
    assert (job["serviceAccount"], job["encryptionSpec"]) == ("s@p", {"kmsKeyName": "k"})
    assert job["instanceConfig"] == {"instanceType": "object", "keyField": "penstock_row"}
