"""Runs get to Azure ML through Azure's client library, once each, and are followed and ended there."""

import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

pytest.importorskip("azure.ai.ml")

from penstock.compile import submission
from penstock.compile.errors import PenstockError
from penstock.compile.retrying import CallFailed, Patience
from penstock.compile.submission import Place, RunState, Settings
from penstock.compile.targets import azureml as target
from penstock.testing import ALWAYS, AzureMLStandIn, Fault, JobState, Rehearsal, Script
from tests.compile.targets.conftest import call, sha256, spec, started, wait_until  # noqa: F401  fixtures

pytestmark = pytest.mark.xdist_group("azureml")
CREATE = "PUT */jobs/*"
VARIABLES = {
    "subscription": "AZURE_SUBSCRIPTION_ID", "group": "AZURE_RESOURCE_GROUP", "workspace": "AZUREML_WORKSPACE_NAME",
}  # fmt: skip


@pytest.fixture
def azureml(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a folder that git does not know: the client would ask it five things about each job
    with AzureMLStandIn(Script("PENDING RUNNING SUCCEEDED")) as stand_in, stand_in.connected():
        for name, variable in VARIABLES.items():
            monkeypatch.setenv(variable, getattr(stand_in.scope, name))
        yield stand_in


@pytest.fixture
def submitted(azureml, call):  # noqa: F811
    def answer(what, *options):
        result = call("submit", what, "--target", "azureml", "--json", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return answer


def jobs(stand_in):
    """Return the properties of all jobs by name, as they were sent."""
    return {name: job.kept.given for name, job in stand_in.jobs._kept.items()}


def components(stand_in):
    """Return the specifications of all components by name and version."""
    kept = stand_in.assets._kept["components"]
    return {
        (name, version): each.given["componentSpec"]
        for name, versions in kept.items()
        for version, each in versions.items()
    }


def prepared(path, key="k", **settings):
    return submission.prepare(path.read_bytes(), path.name, {}, None, key, settings=Settings(**settings))


def connected(stand_in, patience=None):
    scope = stand_in.scope
    return target.connect(
        Place(subscription=scope.subscription, resource_group=scope.group, workspace=scope.workspace),
        patience or Patience(),
    )


def test_a_spec_arrives_as_a_job_with_all_that_its_run_needs(azureml, submitted, spec, tmp_path):  # noqa: F811
    options = tmp_path / "azure.yaml"
    options.write_text("compute: cpu-cluster\nexperiment: of-the-file\n")
    answer = submitted(
        spec, "-p", "number=7", "-p", 'table={"b": [1, 2]}', "--name", "Nightly", "--label", "team=search",
        "--experiment", "doubling", "--identity", "managed:00000000-0000-0000-0000-0000000000dd", "--options", options,
    )  # fmt: skip
    [(name, job)] = jobs(azureml).items()
    assert answer["run"]["id"] == name
    assert name.startswith(f"weekly-doubling-{sha256(spec)[:12]}-")
    assert answer["sha256"] == job["tags"]["penstock.spec_sha256"] == sha256(spec)
    assert job["tags"]["team"] == "search"
    assert (job["displayName"], job["experimentName"]) == ("Nightly", "doubling")
    assert job["identity"]["identityType"] == "Managed"
    assert job["identity"]["clientId"] == "00000000-0000-0000-0000-0000000000dd"
    assert {key: each["value"] for key, each in job["inputs"].items()} == {
        "number": "7", "table": '{"b": [1, 2]}', "names": '["x"]', "share": "0.5", "strict": "True",
    }  # fmt: skip
    assert job["settings"]["default_compute"].endswith("/computes/cpu-cluster")
    assert answer["run"]["url"].startswith(f"https://ml.azure.testing/runs/{name}?wsid=/subscriptions/")


def test_watching_shows_tasks_by_their_paths_and_ends_with_the_run(azureml, call, spec):  # noqa: F811
    azureml.play = Script("PENDING RUNNING RUNNING RUNNING RUNNING RUNNING SUCCEEDED")
    result = call("submit", spec, "--target", "azureml", "--watch")
    assert result.exit_code == 0, result.output
    told = [line.partition(" s  ")[2] for line in result.stderr.splitlines()]
    assert sorted(told) == sorted(set(told))
    assert {"double: running", "double: succeeded", "condition-1.check: succeeded"} <= set(told)
    assert result.stdout.splitlines()[0] == f"sha256  {sha256(spec)}"


def test_a_run_that_fails_fails_the_command_and_says_why(azureml, call, spec):  # noqa: F811
    azureml.play = lambda payload: ["Running", JobState("Failed", {"double": "Failed"}, error="no such column")]
    result = call("submit", spec, "--target", "azureml", "--wait")
    assert result.exit_code == 1
    assert "error: double: no such column" in result.stderr
    assert "see https://ml.azure.testing/runs/weekly-doubling-" in result.stderr


def test_a_converted_job_is_submitted_with_other_parameters(azureml, submitted, call, spec, tmp_path):  # noqa: F811
    folder = tmp_path / "job"
    assert call("convert", spec, "--to", "azureml", "--output", folder, "-p", "number=5").exit_code == 0
    first, again = submitted(folder, "--idempotency-key", "k"), submitted(folder / "job.yml", "--idempotency-key", "k")
    assert first["run"]["id"] == again["run"]["id"]
    other = submitted(folder, "-p", "share=0.25", "-p", "names=[]")
    sent = {name: {key: each["value"] for key, each in job["inputs"].items()} for name, job in jobs(azureml).items()}
    assert sent[first["run"]["id"]]["number"] == "5"
    assert sent[other["run"]["id"]] == {**sent[first["run"]["id"]], "share": "0.25", "names": "json:[]"}
    wrong = call("submit", folder, "--target", "azureml", "-p", "shar=1")
    assert wrong.exit_code == 2
    assert "has no parameter shar; did you mean share?" in wrong.output
    (folder / "pipeline.yml").write_text((folder / "pipeline.yml").read_text().replace("jobs.double.", "jobs.dubble."))
    broken = call("submit", folder, "--target", "azureml")
    assert broken.exit_code == 2
    assert "is no converted job" in broken.output


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.answer(CREATE, 429, retry_after=1), Fault.answer("GET */jobs/*", 408)],
        [
            Fault.lost(CREATE, times=2), Fault.lost("PUT */components/*", times=2), Fault.lost("PUT */codes/*"),
            Fault.lost("POST */startPendingUpload"), Fault.lost("PUT */environments/*"),
        ],
        [
            Fault.answer("GET */jobs/*", 502), Fault.answer("PUT */environments/*", 500), Fault.reset(CREATE),
            Fault.answer("PUT */components/*", 503), Fault.answer("PUT /account*", 503), Fault.reset("GET */codes/*"),
        ],
        [Fault.reset("PUT /account*", after=1), Fault.answer("HEAD /account*", 503), Fault.reset("POST */startP*")],
    ],
    ids=["Retry-After", "lost answers", "5xx and resets", "uploads"],
)  # fmt: skip
def test_passing_faults_of_every_call_leave_one_run(azureml, spec, faults):  # noqa: F811
    azureml.add_faults(*faults)
    began = time.monotonic()
    run = connected(azureml).submit(prepared(spec))
    assert [*jobs(azureml)] == [run.id]
    assert len(components(azureml)) == 3
    assert not azureml.pending_faults
    assert time.monotonic() - began >= max(fault.retry_after or 0 for fault in faults)


def test_the_same_key_begins_one_run_and_another_request_is_refused(azureml, submitted, call, spec):  # noqa: F811
    first = submitted(spec, "--idempotency-key", "2026-11-26")
    again = submitted(spec, "--idempotency-key", "2026-11-26")
    assert (first["run"]["adopted"], again["run"]["adopted"]) == (False, True)
    assert first["run"]["id"] == again["run"]["id"]
    assert len(jobs(azureml)) == 1
    result = call("submit", spec, "--target", "azureml", "--idempotency-key", "2026-11-26", "-p", "number=4")
    assert result.exit_code == 2
    assert "the idempotency key 2026-11-26 was used for another run of this spec" in result.stderr


def test_of_many_that_submit_at_the_same_time_with_one_key_all_get_one_run(azureml, spec):  # noqa: F811
    platform, wanted = connected(azureml), prepared(spec)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: platform.submit(wanted), range(4)))
    assert {run.id for run in made} == {*jobs(azureml)}
    assert len(jobs(azureml)) == 1


@pytest.mark.parametrize(
    ("options", "fault", "said"),
    [
        ([], Fault.answer(CREATE, 403, times=ALWAYS), "answered 403: .* needs the role AzureML Data Scientist"),
        ([], Fault.answer(CREATE, 401, times=ALWAYS), "answered 401: .*; log in with `az login`"),
        ([], Fault.answer(CREATE, 400, times=ALWAYS), "Azure ML answered 400: "),
        (["--workspace", "nowhere"], None, "answered 404: .*nowhere.* see --subscription, --resource-group and"),
        (["--options", "azure.yaml"], None, "Compute with name gone not found"),
    ],
)
def test_a_mistake_is_told_at_once_in_one_line(azureml, call, spec, tmp_path, options, fault, said):  # noqa: F811
    (tmp_path / "azure.yaml").write_text("compute: gone\n")
    if fault:
        azureml.add_faults(fault)
    result = call("submit", spec, "--target", "azureml", *options)
    assert result.exit_code == 2
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(said, error), error
    assert not jobs(azureml)
    assert len(azureml.seen(CREATE)) <= 1


def test_a_fault_while_waiting_is_outlasted(azureml, submitted, spec):  # noqa: F811
    azureml.add_faults(
        Fault.answer("GET */jobs/*", 503, times=2, after=2), Fault.reset("GET */children", times=1, after=0)
    )
    assert submitted(spec, "--wait")["run"]["state"] == "SUCCEEDED"
    assert not azureml.pending_faults


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--name", "x" * 257], "its name has 257 characters, and Azure ML takes 256"),
        (["--label", "penstock.x=1"], "names that begin with penstock. are taken"),
        ([f"--label=l{n}=x" for n in range(50)], "it has 50 labels, and Azure ML takes 50 tags, one of which is taken"),
        (["--label", f"a={'x' * 1001}"], "a tag's name has 100 characters at most, its value 1000"),
        (["--identity", "root"], "--identity root: there are managed, managed:CLIENT_ID, user_identity and aml_token"),
        (["--project", "p"], "azureml does not take --project: it has workspaces in place of projects"),
        (["--pipeline-root", "gs://b"], "does not take --pipeline-root: artifacts go to a datastore"),
        (["--token", "env:X"], "does not take --token: it takes Azure's own"),
        (["--options", "wrong.yaml"], "unknown option compte, did you mean compute?"),
        (["-p", "nmber=1"], "has no parameter nmber; did you mean number?"),
    ],
)
def test_what_azure_would_refuse_is_refused_here(call, spec, tmp_path, monkeypatch, options, problem):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("compte: cpu\n")
    where = ["--subscription", "s", "--resource-group", "g", "--workspace", "w"]
    result = call("submit", spec, "--target", "azureml", *where, *options)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.split())


def test_what_cannot_be_converted_is_refused_before_anything_is_sent(azureml, call, tmp_path):  # noqa: F811
    from kfp import dsl

    from penstock.compile.to_kfp import compiled

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def numbers() -> list:
        return [1]

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def show(number: int):
        print(number)

    @dsl.pipeline(name="looping")
    def looping():
        with dsl.ParallelFor(numbers().output) as number:
            show(number=number)

    path = tmp_path / "looping.yaml"
    compiled(looping).write(path)
    refused = call("submit", path, "--target", "azureml")
    assert refused.exit_code == 2
    assert "looping cannot run on azureml: " in refused.output
    assert "max_iterations" in refused.output
    assert azureml.requests == ()
    options = tmp_path / "azure.yaml"
    options.write_text("max_iterations: 2\n")
    assert call("submit", path, "--target", "azureml", "--options", options).exit_code == 0


def test_where_the_workspace_is_comes_from_options_variables_or_its_config(call, spec, tmp_path, monkeypatch):  # noqa: F811
    for variable in (*VARIABLES.values(), "AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP",
                     "AZUREML_ARM_WORKSPACE_NAME"):  # fmt: skip
        monkeypatch.delenv(variable, raising=False)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    result = call("submit", spec, "--target", "azureml", "--workspace", "w")
    assert result.exit_code == 2
    assert "give --subscription (or AZURE_SUBSCRIPTION_ID), --resource-group (or AZURE_RESOURCE_GROUP)" in result.output
    (tmp_path / ".azureml").mkdir()
    config = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    (tmp_path / ".azureml" / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "of-the-variable")
    from penstock.compile.targets.azureml.platform import _where

    assert _where(Place(subscription="mine")) == {
        "subscription": "mine", "resource_group": "of-the-variable", "workspace": "w",
    }  # fmt: skip


def test_environments_and_components_are_registered_by_their_content(azureml, submitted, spec):  # noqa: F811
    register = ("--register", "components", "--register", "environments")
    submitted(spec, *register)
    found = components(azureml)
    assert [name for name, _ in found] == [
        "weekly_doubling__condition_1__check", "weekly_doubling__double", "weekly_doubling",
    ]  # fmt: skip
    [(environment, versions)] = azureml.assets._kept["environments"].items()
    assert environment == "python"
    [[version, kept]] = versions.items()
    assert kept.given["image"] == "python:3.11"
    for (name, _), each in found.items():
        if name != "weekly_doubling":
            assert each["environment"].endswith(f"/environments/python/versions/{version}")
    azureml.forget()
    submitted(spec, "-p", "number=9", *register)
    assert components(azureml).keys() == found.keys()
    assert not azureml.seen("PUT */components/*")
    assert not azureml.seen("PUT */codes/*")
    assert [job["componentId"].rpartition("/components/")[2] for job in jobs(azureml).values()] == [
        f"weekly_doubling/versions/{next(version for name, version in found if name == 'weekly_doubling')}"
    ] * 2  # fmt: skip


def test_another_body_is_another_version_of_its_component_alone(azureml, submitted, spec, tmp_path):  # noqa: F811
    submitted(spec, "--register", "components")
    before = set(components(azureml))
    changed = tmp_path / "changed.yaml"
    changed.write_text(spec.read_text().replace("return 2 * number", "return 3 * number"))
    submitted(changed, "--register", "components")
    new = {name for name, _ in set(components(azureml)) - before}
    assert new == {"weekly_doubling__double", "weekly_doubling"}


def test_no_secret_of_the_environment_is_in_any_request(azureml, submitted, spec, monkeypatch):  # noqa: F811
    for name in ("AZURE_CLIENT_SECRET", "MY_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD"):
        monkeypatch.setenv(name, "canary-4f1d")
    answer = submitted(spec, "--register", "components", "--wait")
    assert "canary" not in json.dumps(answer)
    for request in azureml.requests:
        everything = [request.path, *request.query.values(), *request.headers.values(), json.dumps(request.body)]
        assert "canary" not in "".join(everything)
        assert b"canary" not in request.content
    blobs = azureml.blobs
    for container, kept in blobs._containers.items():
        assert all(b"canary" not in blobs.read(container, name) for name in kept)


def test_a_service_that_never_answers_is_given_up_in_time(azureml, spec):  # noqa: F811
    platform = connected(azureml, Patience(seconds=3, call=1, first=0.1))
    azureml.add_faults(Fault.stall("* */jobs/*", 30, times=ALWAYS))
    began = time.monotonic()
    with pytest.raises(CallFailed, match="Azure ML did not answer in time; asked"):
        platform.submit(prepared(spec))
    assert time.monotonic() - began < 20  # each silence is of 30


def test_a_run_is_cancelled_through_faults_and_one_that_is_over_stays(azureml, submitted, call, spec):  # noqa: F811
    azureml.play = Script("RUNNING", cancelling=1)
    run = submitted(spec)["run"]["id"]
    azureml.add_faults(Fault.answer("POST */cancel", 503, times=2))
    began = time.monotonic()
    ended = call("cancel", run, "--target", "azureml")
    assert time.monotonic() - began < 10
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.startswith(f"run {run} is cancel")
    platform = connected(azureml)
    wait_until(lambda: platform.get(run).state is RunState.CANCELLED, 10)
    again = call("cancel", run, "--target", "azureml")
    assert again.stdout == f"run {run} was over already: cancelled\n"


def test_a_run_that_ends_while_it_is_cancelled_is_no_error(azureml, spec):  # noqa: F811
    azureml.play = Script("SUCCEEDED")
    platform = connected(azureml)
    run = platform.submit(prepared(spec))
    assert platform.get(run.id).state is RunState.SUCCEEDED
    platform.cancel(run.id, 5)


@pytest.mark.parametrize(
    "stall",
    [
        pytest.param(False, id="while it waits"),
        pytest.param(True, id="while the run is about to begin", marks=pytest.mark.slow),
    ],
)
def test_sigterm_cancels_the_run_in_time(spec, started, tmp_path, stall):  # noqa: F811
    with AzureMLStandIn(Script("RUNNING")) as stand_in:
        if stall:
            stand_in.add_faults(Fault.stall(CREATE, 2))
        scope = stand_in.scope
        environment = {variable: getattr(scope, name) for name, variable in VARIABLES.items()}
        process = started(
            "submit", spec, "--target", "azureml", "--wait", "--cancel-on-exit", **stand_in.environment, **environment
        )
        wait_until(lambda: stand_in.seen(CREATE) if stall else jobs(stand_in), 120)
        stand_in.add_faults(Fault.answer("POST */cancel", 503, times=2))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert process.returncode == 143
        assert errors.endswith((" is cancelled\n", " is cancelling\n")), errors
        assert [job.play.now.status for job in stand_in.jobs._kept.values()] == ["Canceled"]


def test_a_dry_run_asks_nobody_and_names_the_run(call, spec):  # noqa: F811
    result = call("submit", spec, "--target", "azureml", "--dry-run", "--json", "--workspace", "w")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["sha256"] == sha256(spec)
    assert plan["run"].startswith("weekly-doubling-")


def test_the_code_that_arrives_is_that_of_the_conversion_byte_for_byte(azureml, submitted, call, spec, tmp_path):  # noqa: F811
    submitted(spec)
    assert call("convert", spec, "--to", "azureml", "--output", tmp_path / "job").exit_code == 0
    sent = {}
    for component in components(azureml).values():
        if component["type"] == "command":
            sent[component["display_name"]] = azureml.assets.files(component["code"])
    for path in (tmp_path / "job" / "components").iterdir():
        document = yaml.safe_load(path.read_text())
        folder = tmp_path / "job" / "code" / Path(document["code"]).name
        assert sent[document["display_name"]] == {each.name: each.read_bytes() for each in folder.iterdir()}


def waiting(seconds=60):
    """Compile a pipeline of one task that waits."""
    from kfp import dsl

    from penstock.compile.to_kfp import compiled

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def wait(seconds: int, mark: str):
        import pathlib
        import time

        pathlib.Path(mark).write_text("begun")
        time.sleep(seconds)
        raise ValueError("it was not ended")

    @dsl.pipeline(name="waiting")
    def pipeline(mark: str, seconds: int = seconds):
        wait(seconds=seconds, mark=mark)

    return compiled(pipeline)


def test_what_runs_for_real_is_ended_by_a_cancel_and_fails_with_its_task(azureml, tmp_path):
    azureml.play = Rehearsal(root=tmp_path / "runs")
    path = tmp_path / "waiting.yaml"
    waiting().write(path)
    platform, mark = connected(azureml), tmp_path / "mark"

    def begun(seconds, key):
        texts = {"mark": str(mark), "seconds": str(seconds)}
        return platform.submit(submission.prepare(path.read_bytes(), "waiting", texts, None, key)).id

    run = begun(60, "long")
    platform.get(run)
    wait_until(mark.exists, 60)
    platform.cancel(run, 10)
    wait_until(lambda: run in azureml.rehearsals.records, 20)
    assert platform.get(run).state is RunState.CANCELLED
    assert azureml.rehearsals.records[run].seconds < 50
    other = begun(0, "short")
    wait_until(lambda: platform.get(other).state.over, 60)
    ended = platform.get(other)
    assert ended.state is RunState.FAILED
    assert "wait: " in ended.error
    assert [task.state for task in ended.tasks] == [RunState.FAILED]


def test_a_job_of_somebody_else_is_not_run_and_says_so(azureml):
    rehearsed = azureml.rehearsals.play(Rehearsal(), {"name": "other", "jobType": "Command"})
    with pytest.raises(PenstockError, match="without a component of this workspace cannot be run here"):
        next(rehearsed)
