"""Searches by Vertex AI and Katib, through their real clients, against what stands for them on this machine."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from penstock.components._shared.clouds import jobs as jobs_module
from penstock.components._shared.errors import UserError
from penstock.components.tuning import remote, trial
from penstock.testing import Fault, KatibStandIn, Script, VertexStandIn

FLAT = {
    "eta": {"type": "float", "low": 0.01, "high": 0.5, "log": True},
    "max_depth": {"type": "int", "low": 1, "high": 6},
    "subsample": {"type": "float", "low": 0.5, "high": 1.0, "step": 0.25},
    "grow_policy": {"type": "categorical", "choices": ["depthwise", "lossguide"]},
}
OPTIONS = {
    "vertex": {"image": "i/tuning@sha256:1", "staging_bucket": "gs://b/staging"},
    "kubeflow": {"image": "i/tuning@sha256:1", "cpu": "2", "memory": "4Gi"},
}
CREATE = {"vertex": "POST */hyperparameterTuningJobs", "kubeflow": "POST */experiments"}
POLL = {"vertex": "GET */hyperparameterTuningJobs/*", "kubeflow": "GET */experiments/*"}
CANCEL = {"vertex": "POST *:cancel", "kubeflow": "DELETE *"}


def point(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments[2:])


def told(arguments):
    """Return metrics that tell the point: the best is the greatest eta."""
    return {remote.METRIC: 1 - float(point(arguments)["eta"])}


@contextmanager
def standing(backend, **given):
    if backend == "vertex":
        with VertexStandIn(**given) as stand_in, stand_in.connected():
            stand_in.jobs.trial = told
            yield stand_in
    else:
        with KatibStandIn(trial=told, **given) as stand_in, stand_in.connected():
            yield stand_in


def jobs(backend, stand_in):
    return (
        stand_in.jobs._kept["hyperparameterTuningJobs"].all()
        if backend == "vertex"
        else [*stand_in.experiments.values()]
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(jobs_module, "POLL", 0.01)
    monkeypatch.delenv("PENSTOCK_IMAGE", raising=False)


@pytest.fixture
def ask(search):
    def ask(backend, **given):
        uris = {name: f"gs://b/{name}" for name in ("train_uri", "eval_uri")}
        options = {**OPTIONS[backend], **given.pop("options", {})}
        return search(**{"space": FLAT, "backend": backend, "run_id": "run-1", "max_trials": 5, "parallel_trials": 2,
                         **uris, "options": options, **given})  # fmt: skip

    return ask


@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
def test_a_job_is_made_of_the_space_and_its_trials_are_told(backend, ask, tmp_path):
    with standing(backend) as stand_in:
        found = ask(backend, fit_best=True)
        assert len(jobs(backend, stand_in)) == 1
    assert found.metrics["complete"] == 5
    assert 0.01 <= found.hyperparameters["eta"] <= 0.5
    assert found.value == pytest.approx(1 - found.hyperparameters["eta"])
    assert isinstance(found.hyperparameters["max_depth"], int)
    assert found.hyperparameters["grow_policy"] in ("depthwise", "lossguide")
    assert (tmp_path / "model" / "MLmodel").exists()
    assert backend in (tmp_path / "report.html").read_text()


def test_vertex_is_told_conditions_scales_and_steps(ask):
    space = {
        "grow_policy": {"type": "categorical", "choices": ["depthwise", "lossguide"]},
        "max_leaves": {"type": "int", "low": 2, "high": 32, "log": True, "when": {"grow_policy": ["lossguide"]}},
        "eta": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.2},
    }
    with standing("vertex") as stand_in:
        found = ask("vertex", space=space, sampler="grid", objectives={"eval_log_loss": "minimize"})
        (job,) = jobs("vertex", stand_in)
    study = job["studySpec"]
    assert study["algorithm"] == "GRID_SEARCH"
    policy, eta = study["parameters"]
    (child,) = policy["conditionalParameterSpecs"]
    assert child["parentCategoricalValues"]["values"] == ["lossguide"]
    assert child["parameterSpec"]["parameterId"] == "max_leaves"
    assert child["parameterSpec"]["scaleType"] == "UNIT_LOG_SCALE"
    assert eta["discreteValueSpec"]["values"] == [0.1, 0.3, 0.5]
    assert ("max_leaves" in found.hyperparameters) == (found.hyperparameters["grow_policy"] == "lossguide")
    assert found.metrics["eval_log_loss"] == found.value


def test_katib_is_told_what_its_definition_knows(ask):
    with standing("kubeflow") as stand_in:
        ask("kubeflow", options={"volume_claim": "data", "volume_path": "/data", "service_account": "trials"})
        (experiment,) = jobs("kubeflow", stand_in)
    spec = experiment["spec"]
    assert spec["algorithm"] == {"algorithmName": "tpe", "algorithmSettings": [{"name": "random_state", "value": "1"}]}
    assert spec["parameters"][0] == {
        "name": "eta",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.01", "max": "0.5", "distribution": "logUniform"},
    }
    assert spec["parameters"][2]["feasibleSpace"] == {"min": "0.5", "max": "1.0", "step": "0.25"}
    pod = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "data", "readOnly": True}


@pytest.mark.parametrize(
    ("backend", "given", "part"),
    [
        ("kubeflow", {"space": {**FLAT, "max_leaves": {"type": "int", "low": 2, "high": 9,
                                                      "when": {"grow_policy": ["lossguide"]}}}},
         "kubeflow cannot express max_leaves: a condition"),
        ("kubeflow", {"sampler": "grid"}, "eta: a grid over a float without a step"),
        ("vertex", {"sampler": "grid"}, "eta: a grid over a float without a step"),
        ("vertex", {"sampler": "tpe"}, "the backend vertex has no 'tpe'. Choose one of auto, random, grid"),
        ("vertex", {"pruner": "median"}, "the backend vertex has no 'median'. Choose one of auto, none"),
        ("vertex", {"run_id": ""}, "a search without a run_id"),
        ("vertex", {"train_uri": "/data/train"}, "train_set at /data/train: its machines read gs://"),
        ("vertex", {"options": {"image": ""}}, "trials without the option image"),
        ("kubeflow", {"options": {"volume_claim": "data"}}, "volume_claim and volume_path without the other"),
        ("kubeflow", {"options": {"zone": "a"}}, "'zone' is no option of the backend kubeflow. It has namespace"),
        *(
            (backend, {"objectives": {"eval_log_loss": "minimize", "rounds": "minimize"}}, "several objectives")
            for backend in OPTIONS
        ),
    ],
)  # fmt: skip
def test_what_a_backend_cannot_express_is_refused_by_name_before_anything_is_sent(backend, given, part, ask):
    with standing(backend) as stand_in:
        with pytest.raises(UserError) as refused:
            ask(backend, **given)
        assert stand_in.requests == ()
    assert part in str(refused.value)


@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
def test_a_second_attempt_of_a_run_adopts_the_job_and_another_run_does_not(backend, ask):
    with standing(backend) as stand_in:
        first = ask(backend)
        assert ask(backend).hyperparameters == first.hyperparameters
        assert len(stand_in.seen(CREATE[backend])) == 1
        ask(backend, run_id="run-2")
        assert len(jobs(backend, stand_in)) == 2


@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda on: Fault.lost(on),
        lambda on: Fault.answer(on, 503),
        lambda on: Fault.answer(on, 429, retry_after=0),
        lambda on: Fault.reset(on),
    ],
    ids=["lost", "503", "429", "reset"],
)
def test_a_passing_fault_makes_no_second_job(backend, fault, ask):
    with standing(backend) as stand_in:
        stand_in.add_faults(fault(CREATE[backend]), fault(POLL[backend]))
        ask(backend)
        assert len(jobs(backend, stand_in)) == 1
        assert stand_in.pending_faults == ()


@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
def test_what_a_service_refuses_is_told_at_once(backend, ask):
    with standing(backend) as stand_in:
        stand_in.add_faults(Fault.answer(CREATE[backend], 403))
        with pytest.raises(UserError, match="the job cannot be created"):
            ask(backend)
        assert len(stand_in.seen(CREATE[backend])) == 1


@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
def test_where_the_job_or_every_trial_fails_the_first_error_is_told(backend, ask):
    def fail(arguments):
        raise ValueError(f"no {arguments[-1]}")

    with standing(backend) as stand_in:
        if backend == "vertex":
            stand_in.jobs.trial = fail
        else:
            stand_in.trial = fail
        with pytest.raises(UserError, match=r"all 5 trials failed, the first with: .*no --grow_policy"):
            ask(backend)
        script = Script("RUNNING FAILED", error="quota")
        if backend == "vertex":
            stand_in.job_script = script
        else:
            stand_in.script = script
        with pytest.raises(UserError, match="failed: "):
            ask(backend, run_id="other")
        # A job that failed is none to adopt: the next attempt makes its own.
        with pytest.raises(UserError):
            ask(backend, run_id="other")
        assert len(stand_in.seen(CREATE[backend])) == 3


@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
def test_at_the_end_of_the_time_the_job_is_cancelled(backend, ask):
    with standing(backend) as stand_in:
        if backend == "vertex":
            stand_in.job_script = Script("RUNNING")
        else:
            stand_in.script = Script("RUNNING")
        with pytest.raises(UserError, match="no trial was completed in time"):
            ask(backend, max_seconds=0.5)
        assert stand_in.seen(CANCEL[backend])


PROGRAM = """
import json, sys
from unittest import mock
if sys.argv[2]:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform
    aiplatform.init(project="test-project", location="us-central1", api_endpoint=sys.argv[2], api_transport="rest",
                    credentials=AnonymousCredentials())
from penstock.components._shared.clouds import jobs
from penstock.components.tuning.tune import Settings, tune
jobs.POLL = 0.05
given = json.loads(sys.argv[1])
tune(*given.pop("paths"), settings=Settings(**given.pop("settings")), **given)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["vertex", "kubeflow"])
def test_a_step_that_is_told_to_end_cancels_its_job_and_one_that_is_killed_leaves_it_to_the_next(
    backend, ask, train_set, eval_set, tmp_path
):
    given = {
        "paths": [str(train_set), str(eval_set), *(str(tmp_path / name) for name in ("t", "m", "r.html"))],
        "settings": {"target": "late", "max_rounds": 20, "seed": 1, "early_stopping_rounds": 5},
        "space": FLAT, "backend": backend, "run_id": "run-1", "max_trials": 5, "parallel_trials": 2,
        "train_uri": "gs://b/train_uri", "eval_uri": "gs://b/eval_uri", "options": OPTIONS[backend],
    }  # fmt: skip
    with standing(backend) as stand_in:
        script = Script("RUNNING")
        if backend == "vertex":
            stand_in.job_script = script
        else:
            stand_in.script = script
        for end in (signal.SIGKILL, signal.SIGTERM):
            url = stand_in.url if backend == "vertex" else ""
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(given), url])
            seen = len(stand_in.seen(POLL[backend]))
            while process.poll() is None and len(stand_in.seen(POLL[backend])) < seen + 2:
                time.sleep(0.05)
            if end is signal.SIGTERM:
                stand_in.add_faults(*(Fault.answer(CANCEL[backend], 503) for _ in range(2)))
            since = time.monotonic()
            process.send_signal(end)
            assert process.wait() != 0
            assert time.monotonic() - since < 10
        assert process.returncode == jobs_module.EXIT_TERMINATED
        assert len(stand_in.seen(CREATE[backend])) == 1
        assert len(stand_in.seen(CANCEL[backend])) == 3


def test_a_trial_in_its_container_reports_as_each_service_reads_it(
    ask, train_set, eval_set, tmp_path, monkeypatch, capsys
):
    metrics = tmp_path / "hypertune" / "output.metrics"
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(metrics))
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")

    def run(arguments):
        job = json.loads(arguments[1])
        job |= {"train_set": str(train_set), "eval_set": str(eval_set)}
        capsys.readouterr()
        trial.main(["--job", json.dumps(job), *arguments[2:]])
        printed = dict(line.split("=") for line in capsys.readouterr().out.splitlines())
        if not printed:
            for line in metrics.read_text().splitlines():
                entry = json.loads(line)
                assert entry["trial"] == "7"
                printed |= {k: v for k, v in entry.items() if k not in ("trial", "timestamp", "global_step")}
            metrics.unlink()
        return {name: float(value) for name, value in printed.items() if value}

    values = {}
    for backend in OPTIONS:
        with standing(backend) as stand_in:
            if backend == "vertex":
                stand_in.jobs.trial = run
            else:
                stand_in.trial = run
            found = ask(backend, max_trials=2, fit_best=True)
        facts = json.loads((tmp_path / "model" / "manifest.json").read_text())
        values[backend] = found.value
        assert facts["metrics"]["eval_log_loss"] == pytest.approx(found.value, rel=1e-9)
    assert set(values) == set(OPTIONS)


def test_a_trial_fetches_a_dataset_from_a_bucket(train_set, tmp_path, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    fsspec.get_filesystem_class("gs").clear_instance_cache()  # of clients that know another stand-in
    with VertexStandIn() as stand_in, stand_in.connected():
        for file in Path(train_set).iterdir():
            stand_in.storage.put(f"gs://b/deep/train/{file.name}", file.read_bytes())
        fetched = trial._local("gs://b/deep/train", tmp_path / "train")
    assert {file.name for file in fetched.iterdir()} == {file.name for file in Path(train_set).iterdir()}


def test_without_a_cluster_the_error_says_what_to_set(ask, monkeypatch, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match=r"no cluster is known .* Run in one, or set KUBECONFIG"):
        ask("kubeflow")
