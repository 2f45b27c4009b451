"""Runs get to Vertex AI through Google's client library, once each, and are followed and ended there."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("google.cloud.aiplatform")

from penstock.compile import submission
from penstock.compile.retrying import CallFailed, Patience
from penstock.compile.targets import vertex as target
from penstock.testing import ALWAYS, Fault, Script, VertexStandIn
from tests.compile.targets.conftest import sha256, wait_until

ROOT = ("--pipeline-root", "gs://test-bucket/runs")
CREATE = "POST */pipelineJobs"


@pytest.fixture
def vertex():
    with VertexStandIn(Script("PENDING RUNNING SUCCEEDED")) as stand_in, stand_in.connected():
        yield stand_in


def jobs(stand_in: VertexStandIn) -> list[dict]:
    return stand_in.pipeline_jobs.kept.all()


def submitted(call, spec, *options):
    result = call("submit", spec, "--target", "vertex", *ROOT, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_spec_arrives_with_all_that_its_run_needs(vertex, call, spec):
    key = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    answer = submitted(
        call, spec, "-p", "number=7", "-p", 'table={"b": [1, 2]}', "--name", "Nightly", "--label", "team=search",
        "--service-account", "runner@p.iam.gserviceaccount.com", "--network", "projects/123/global/networks/vpc",
        "--encryption-key", key,
    )  # fmt: skip
    [job] = jobs(vertex)
    expected = sha256(spec)
    assert answer["sha256"] == expected
    assert job["displayName"] == "Nightly"
    assert job["labels"]["penstock-spec-sha256"] == expected[:63]
    assert job["labels"]["team"] == "search"
    assert job["serviceAccount"] == "runner@p.iam.gserviceaccount.com"
    assert job["network"] == "projects/123/global/networks/vpc"
    assert job["encryptionSpec"] == {"kmsKeyName": key}
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://test-bucket/runs"
    assert job["runtimeConfig"]["parameterValues"] == {
        "number": 7, "table": {"b": [1, 2]}, "names": ["x"], "share": 0.5, "strict": True,
    }  # fmt: skip
    assert answer["run"]["id"] == job["name"].rpartition("/")[2]
    assert answer["run"]["id"].startswith(f"weekly-doubling-{expected[:12]}-")
    assert answer["run"]["url"] == (
        "https://console.cloud.google.com/vertex-ai/locations/us-central1/pipelines/runs/"
        f"{answer['run']['id']}?project=test-project"
    )


def test_watching_shows_each_change_once_and_ends_with_the_run(vertex, call, spec):
    vertex.play = Script("PENDING RUNNING RUNNING RUNNING SUCCEEDED")
    result = call("submit", spec, "--target", "vertex", *ROOT, "--watch")
    assert result.exit_code == 0, result.output
    told = [line.partition(" s  ")[2] for line in result.stderr.splitlines()]
    assert sorted(told) == sorted(set(told))
    assert {"double: running", "double: succeeded", "condition-1.check: succeeded"} <= set(told)


@pytest.mark.parametrize("option", ["--wait", "--watch"])
def test_a_run_that_fails_fails_the_command(vertex, call, spec, option):
    vertex.play = Script("RUNNING FAILED", error="no such column", tasks={"double": "FAILED"})
    result = call("submit", spec, "--target", "vertex", *ROOT, option)
    assert result.exit_code == 1
    assert "no such column" in result.stderr
    assert "see https://console.cloud.google.com/" in result.stderr


def test_a_run_that_takes_too_long_is_left_and_said_how_to_end(vertex, call, spec):
    vertex.play = Script("RUNNING")
    result = call(
        "submit", spec, "--target", "vertex", *ROOT, "--wait", "--timeout", "0.5", "--project", "test-project"
    )
    assert result.exit_code == 1
    [job] = jobs(vertex)
    run_id = job["name"].rpartition("/")[2]
    command = f"penstock cancel --target vertex --project test-project {run_id}"
    assert result.stderr == f"error: run {run_id} is running after 0.5 s; it goes on; to end it: {command}\n"
    ended = call(*command.split()[1:])
    assert (ended.exit_code, ended.stdout) == (0, f"run {run_id} is cancelled\n")
    assert jobs(vertex)[0]["state"] == "PIPELINE_STATE_CANCELLED"
    again = call(*command.split()[1:])
    assert (again.exit_code, again.stdout) == (0, f"run {run_id} was over already: cancelled\n")


@pytest.mark.parametrize(
    "fault",
    [
        Fault.answer(CREATE, 503),
        Fault.answer(CREATE, 429, retry_after=1),
        Fault.reset(CREATE),
        Fault.lost(CREATE),
        Fault.lost(CREATE, times=2),
    ],
    ids=["503", "429", "reset", "lost answer", "two lost answers"],
)
def test_a_passing_fault_of_creation_leaves_one_run(vertex, call, spec, fault):
    vertex.add_faults(fault)
    began = time.monotonic()
    submitted(call, spec)
    assert len(jobs(vertex)) == 1
    assert time.monotonic() - began >= (fault.retry_after or 0)


def test_the_same_key_begins_one_run_and_another_key_another(vertex, call, spec):
    first = submitted(call, spec, "--idempotency-key", "2026-11-26")
    again = submitted(call, spec, "--idempotency-key", "2026-11-26")
    assert (first["run"]["adopted"], again["run"]["adopted"]) == (False, True)
    assert first["run"]["id"] == again["run"]["id"]
    assert submitted(call, spec, "--idempotency-key", "2026-11-27")["run"]["id"] != first["run"]["id"]
    assert submitted(call, spec)["run"]["id"] != submitted(call, spec)["run"]["id"]
    assert len(jobs(vertex)) == 4


def test_a_key_that_was_used_for_another_run_is_refused(vertex, call, spec):
    submitted(call, spec, "--idempotency-key", "k")
    result = call("submit", spec, "--target", "vertex", *ROOT, "--idempotency-key", "k", "-p", "number=4")
    assert result.exit_code == 2
    assert "the idempotency key k was used for another run of this spec, with other parameters" in result.stderr
    assert len(jobs(vertex)) == 1


def test_a_mistake_is_told_at_once_in_the_service_s_words(vertex, call, spec):
    vertex.add_faults(Fault.answer(CREATE, 403, times=ALWAYS))
    result = call("submit", spec, "--target", "vertex", *ROOT)
    assert result.exit_code == 2
    assert len(vertex.seen(CREATE)) == 1
    assert "error: the run could not be begun: Vertex AI answered 403: " in result.stderr
    assert "roles/aiplatform.user" in result.stderr


def test_a_fault_while_waiting_is_outlasted(vertex, call, spec):
    vertex.add_faults(Fault.answer("GET */pipelineJobs/*", 503, times=2))
    vertex.add_faults(Fault.reset("GET */pipelineJobs/*"))
    assert submitted(call, spec, "--wait")["run"]["state"] == "SUCCEEDED"


def test_caching_is_changed_in_the_spec_and_named_by_another_hash(vertex, call, spec):
    answer = submitted(call, spec, "--no-cache")
    [job] = jobs(vertex)
    expected = sha256(spec)
    assert answer["sha256"] != expected
    assert job["labels"]["penstock-spec-sha256"] == answer["sha256"][:63]
    tasks = [
        task
        for component in [job["pipelineSpec"]["root"], *job["pipelineSpec"]["components"].values()]
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    assert len(tasks) == 3
    assert all(not task["cachingOptions"].get("enableCache") for task in tasks)
    assert f"before, it is {expected}" in call("submit", spec, "--target", "vertex", *ROOT, "--no-cache").output


def test_a_dry_run_asks_nobody(call, spec):
    result = call(
        "submit", spec, "--target", "vertex", *ROOT, "--dry-run", "--json", "-p", "number=9", "--project", "p"
    )
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["sha256"] == sha256(spec)
    assert plan["parameters"]["number"] == 9
    assert plan["run"].startswith("weekly-doubling-")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "it has no pipeline root; give --pipeline-root gs://BUCKET/FOLDER"),
        (["--pipeline-root", "/tmp"], "its pipeline root /tmp is no place in a bucket"),
        ([*ROOT, "--label", "Team=x"], "--label Team: a label's name begins with a letter"),
        ([*ROOT, "--label", "team=X Y"], "--label team=X Y: a value has at most 63 lower-case letters"),
        ([*ROOT, "--label", f"team={'x' * 64}"], "a value has at most 63"),
        ([*ROOT, "--label", "penstock-request=x"], "names that begin with penstock- are taken"),
        ([*ROOT, "--label", "team"], "--label team: give it as name=value"),
        ([*ROOT, *[f"--label=l{n}=x" for n in range(63)]], "it has 63 labels, and Vertex AI takes 64"),
        ([*ROOT, "--encryption-key", "k"], "--encryption-key k is not projects/PROJECT/locations/"),
        ([*ROOT, "--network", "default"], "--network default is not projects/NUMBER/global/networks/NAME"),
        ([*ROOT, "--name", "x" * 129], "its name has 129 characters, and Vertex AI takes 128"),
        ([*ROOT, "--host", "http://x"], "vertex does not take --host: its address follows from --location"),
        ([*ROOT, "--namespace", "n", "--token", "env:X"], "vertex does not take --namespace: it has projects in place"),
        ([*ROOT, "-p", "nmber=1"], "has no parameter nmber; did you mean number?"),
        ([*ROOT, "--timeout", "3"], "--timeout goes with --wait or --watch"),
    ],
)  # fmt: skip
def test_what_vertex_would_refuse_is_refused_here(call, spec, options, problem):
    result = call("submit", spec, "--target", "vertex", "--project", "p", *options)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.split())


def test_a_second_document_is_refused_by_name(call, two_documents):
    result = call("submit", two_documents, "--target", "vertex", *ROOT)
    assert result.exit_code == 2
    assert "the file has a second document, with settings for kubernetes" in result.output


def test_an_experiment_gets_the_run(vertex, call, spec):
    from google.cloud import aiplatform

    vertex.play = Script("RUNNING RUNNING SUCCEEDED")
    answer = submitted(call, spec, "--experiment", "doubling", "--wait")
    rows = aiplatform.get_experiment_df("doubling")
    assert list(rows["run_name"]) == [answer["run"]["id"]]


def test_sigterm_cancels_the_run_through_faults_in_time(spec, started, service_account):
    with VertexStandIn(Script("RUNNING")) as stand_in:
        process = started(
            "submit", spec, "--target", "vertex", *ROOT, "--wait", "--cancel-on-exit",
            CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM=f"{stand_in.url}/",
            GOOGLE_APPLICATION_CREDENTIALS=str(service_account),
        )  # fmt: skip
        wait_until(lambda: jobs(stand_in))
        stand_in.add_faults(Fault.answer("POST *:cancel", 503, times=2))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 10
        assert process.returncode == 143
        assert errors.endswith(" is cancelled\n")
        assert stand_in.pipeline_jobs.current()[0]["state"] == "PIPELINE_STATE_CANCELLED"


def test_a_service_that_never_answers_is_given_up_in_time(spec):
    patience = Patience(seconds=3, call=1, first=0.1)
    with VertexStandIn(Script(), faults=[Fault.stall("* *", 30, times=ALWAYS)]) as stand_in, stand_in.connected():
        prepared = submission.prepare(spec.read_bytes(), "weekly", {}, None, "k")
        began = time.monotonic()
        with pytest.raises(CallFailed, match="Vertex AI did not answer in time"):
            target.connect(submission.Place(), patience).submit(prepared)
        assert time.monotonic() - began < 20  # each silence is of 30


def test_a_job_in_the_form_of_tfx_goes_with_its_own_settings(vertex, call, tmp_path):
    double = {"type": "DOUBLE"}
    parameters = {"rows": {"type": "INT"}, "name": {"type": "STRING"}, "share": double}
    container = {"image": "python:3.11", "command": ["true"]}
    job = {
        "displayName": "old",
        "pipelineSpec": {
            "schemaVersion": "2.0.0",
            "sdkVersion": "tfx-1.16.0",
            "pipelineInfo": {"name": "old"},
            "deploymentSpec": {"executors": {"run": {"container": container}}},
            "components": {"run": {"executorLabel": "run"}},
            "root": {
                "inputDefinitions": {"parameters": parameters},
                "dag": {"tasks": {"run": {"taskInfo": {"name": "run"}, "componentRef": {"name": "run"}}}},
            },
        },
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://old/root",
            "parameters": {"rows": {"intValue": "5"}, "name": {"stringValue": "x"}, "share": {"doubleValue": 0.5}},
            "failurePolicy": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
        },
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(job))
    result = call("submit", path, "--target", "vertex", "-p", "name=y", "--json")
    assert result.exit_code == 0, result.output
    [made] = jobs(vertex)
    assert made["runtimeConfig"] == {
        "gcsOutputDirectory": "gs://old/root",
        "parameters": {"rows": {"intValue": "5"}, "name": {"stringValue": "y"}, "share": {"doubleValue": 0.5}},
        "failurePolicy": 2,  # FAIL_FAST; over REST the library sends enums as numbers
    }
    changed = call("submit", path, "--target", "vertex", "--no-cache")
    assert changed.exit_code == 2
    assert "caching is changed in a spec alone, and this one is in a PipelineJob" in changed.output


def test_sigterm_while_the_run_is_about_to_begin_cancels_it(spec, started, service_account):
    with VertexStandIn(Script("RUNNING"), faults=[Fault.stall(CREATE, 2)]) as stand_in:
        process = started(
            "submit", spec, "--target", "vertex", *ROOT, "--cancel-on-exit", "--endpoint", stand_in.url,
            GOOGLE_APPLICATION_CREDENTIALS=str(service_account),
        )  # fmt: skip
        wait_until(lambda: stand_in.seen(CREATE))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 10
        assert process.returncode == 143
        assert errors.endswith(" is cancelled\n")
        assert [job["state"] for job in stand_in.pipeline_jobs.current()] == ["PIPELINE_STATE_CANCELLED"]


def test_of_many_that_submit_at_the_same_time_with_one_key_all_get_one_run(vertex, spec):
    prepared = submission.prepare(
        spec.read_bytes(), "weekly", {}, None, "k", settings=submission.Settings(pipeline_root="gs://b/r")
    )
    platform = target.connect(submission.Place())
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: platform.submit(prepared), range(8)))
    assert len({run.id for run in made}) == 1
    assert [run.adopted for run in made].count(False) == 1
    assert len(jobs(vertex)) == 1
