"""Runs get to Kubeflow through kfp's client, byte for byte and once each, and are followed and ended there."""

import http.server
import json
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml
from kfp import dsl

from penstock.compile import submission
from penstock.compile.retrying import CallFailed, Patience
from penstock.compile.targets import kubeflow as target
from penstock.compile.to_kfp import compiled
from penstock.testing import ALWAYS, Engine, Fault, KubeflowStandIn, Script
from tests.compile.targets.conftest import Terminal, sha256, wait_until

CREATE = "POST */runs"


@pytest.fixture
def kubeflow(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where kfp keeps a namespace between programs
    with KubeflowStandIn(Script("PENDING RUNNING SUCCEEDED")) as stand_in:
        yield stand_in


@pytest.fixture
def submit(kubeflow, call):
    """Submit there, and return what came of it."""
    return lambda spec, *options: call("submit", spec, "--target", "kubeflow", "--host", kubeflow.url, *options)


@pytest.fixture
def submitted(submit):
    def answer(*arguments):
        result = submit(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return answer


def runs(stand_in):
    return stand_in.runs.current()


def test_the_very_bytes_arrive_and_the_run_has_its_parameters(kubeflow, submitted, spec):
    answer = submitted(
        spec, "-p", "number=7", "-p", 'table={"b": [1, 2]}', "--name", "Nightly", "--service-account", "runner",
        "--pipeline-root", "s3://bucket/runs", "--experiment", "doubling",
    )  # fmt: skip
    [(version, package)] = kubeflow.pipelines.packages.items()
    assert package.content == spec.read_bytes()
    assert answer["sha256"] == package.sha256 == sha256(spec)
    [run] = runs(kubeflow)
    assert run["display_name"] == "Nightly"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version
    assert run["service_account"] == "runner"
    assert run["runtime_config"]["pipeline_root"] == "s3://bucket/runs"
    assert run["runtime_config"]["parameters"] == {
        "number": 7, "table": {"b": [1, 2]}, "names": ["x"], "share": 0.5, "strict": True,
    }  # fmt: skip
    assert kubeflow.experiments.get(run["experiment_id"])["display_name"] == "doubling"
    assert answer["run"]["id"] == run["run_id"]
    assert answer["run"]["url"] == f"{kubeflow.url}/#/runs/details/{run['run_id']}"


def test_a_spec_that_is_there_is_not_uploaded_again(kubeflow, submitted, spec):
    submitted(spec, "--experiment", "e")
    submitted(spec, "--experiment", "e", "-p", "number=4")
    assert len(kubeflow.pipelines.packages) == 1
    assert len(runs(kubeflow)) == 2
    assert len({run["experiment_id"] for run in runs(kubeflow)}) == 1
    submitted(spec, "--no-cache")
    assert len(kubeflow.pipelines.packages) == 2


def test_two_documents_go_as_they_are(kubeflow, submitted, two_documents):
    answer = submitted(two_documents)
    [package] = kubeflow.pipelines.packages.values()
    assert package.content == two_documents.read_bytes()
    assert answer["sha256"] == sha256(two_documents)


def test_the_spec_is_the_same_file_here_and_at_both_platforms(kubeflow, submitted, call, spec):
    pytest.importorskip("google.cloud.aiplatform")
    from penstock.testing import VertexStandIn

    here = sha256(spec)
    assert submitted(spec)["sha256"] == here
    with VertexStandIn(Script()) as vertex, vertex.connected():
        result = call("submit", spec, "--target", "vertex", "--pipeline-root", "gs://b/r", "--json")
        assert json.loads(result.stdout)["sha256"] == here
        [job] = vertex.pipeline_jobs.kept.all()
    [package] = kubeflow.pipelines.packages.values()
    assert package.sha256 == here
    assert job["labels"]["penstock-spec-sha256"] == here[:63]
    assert job["pipelineSpec"] == yaml.safe_load(package.content)


def test_watching_shows_tasks_and_not_what_drives_them(kubeflow, submit, spec):
    kubeflow.play = Script("PENDING RUNNING RUNNING SUCCEEDED")
    result = submit(spec, "--watch")
    assert result.exit_code == 0, result.output
    told = [line.partition(" s  ")[2] for line in result.stderr.splitlines()]
    assert sorted(told) == sorted(set(told))
    assert {"double: running", "double: succeeded", "condition-1.check: succeeded"} <= set(told)
    assert not [line for line in told if "driver" in line or "executor" in line or "root" in line]
    assert result.stdout.splitlines()[0] == f"sha256  {sha256(spec)}"


def test_a_run_that_fails_fails_the_command(kubeflow, submit, spec):
    kubeflow.play = Script("RUNNING FAILED", error="no such column", tasks={"double": "FAILED"})
    result = submit(spec, "--wait")
    assert result.exit_code == 1
    assert "no such column" in result.stderr
    assert f"see {kubeflow.url}/#/runs/details/" in result.stderr


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.answer(CREATE, 503)],
        [Fault.answer(CREATE, 429, retry_after=1)],
        [Fault.reset(CREATE)],
        [Fault.lost(CREATE)],
        [Fault.lost("POST */upload_version*"), Fault.lost("POST */pipelines"), Fault.lost("POST */experiments")],
        [Fault.answer("GET *", 503, times=2)],
    ],
    ids=["503", "429", "reset", "lost answer", "lost uploads", "503 of lists"],
)
def test_passing_faults_leave_one_run_of_one_version(kubeflow, submitted, spec, faults):
    kubeflow.add_faults(*faults)
    submitted(spec, "--experiment", "e")
    assert len(runs(kubeflow)) == 1
    assert len(kubeflow.pipelines.packages) == 1
    assert not kubeflow.pending_faults


def test_the_same_key_begins_one_run_and_another_key_another(kubeflow, submitted, submit, spec):
    first = submitted(spec, "--idempotency-key", "2026-11-26")
    again = submitted(spec, "--idempotency-key", "2026-11-26")
    assert (first["run"]["adopted"], again["run"]["adopted"]) == (False, True)
    assert first["run"]["id"] == again["run"]["id"]
    assert submitted(spec, "--idempotency-key", "2026-11-27")["run"]["id"] != first["run"]["id"]
    assert submitted(spec)["run"]["id"] != submitted(spec)["run"]["id"]
    assert len(runs(kubeflow)) == 4
    result = submit(spec, "--idempotency-key", "2026-11-27", "-p", "number=4")
    assert result.exit_code == 2
    assert "the idempotency key 2026-11-27 was used for another run of this spec" in result.stderr
    assert len(runs(kubeflow)) == 4


def test_of_two_runs_that_one_submission_has_begun_the_later_one_is_ended(kubeflow, spec):
    kubeflow.play = Script("RUNNING")
    prepared = submission.prepare(spec.read_bytes(), "weekly", {}, None, "k")
    platform = target.connect(submission.Place(host=kubeflow.url))
    first = platform.submit(prepared)
    # As if the list had been read before an attempt, whose answer was late, got through.
    read, too_early = platform._found, [True]
    platform._found = lambda *arguments: [] if too_early and too_early.pop() else read(*arguments)
    again = platform.submit(prepared)
    assert again.id == first.id
    assert again.adopted
    assert [run["state"] for run in runs(kubeflow)] == ["RUNNING", "CANCELED"]


def test_a_mistake_is_told_at_once_in_the_service_s_words(kubeflow, submit, spec):
    kubeflow.add_faults(Fault.answer(CREATE, 403, times=ALWAYS))
    result = submit(spec)
    assert result.exit_code == 2
    assert len(kubeflow.seen(CREATE)) == 1
    assert "error: the run could not be begun: Kubeflow answered 403: " in result.stderr
    assert "see --namespace" in result.stderr


@pytest.fixture
def login(tmp_path, monkeypatch):
    """Address of a server whose answer to everything is a page to log in at, and the headers that it was sent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []

    class Login(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Log in to Your Account</html>")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Login) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_a_server_that_is_something_else_is_named(login, call, spec):
    url, _ = login
    result = call("submit", spec, "--target", "kubeflow", "--host", url)
    assert result.exit_code == 2
    assert f"error: what answers at {url} is not Kubeflow's API; see --host, --token and --cookies" in result.output


def test_secrets_come_by_reference_and_are_sent(login, call, spec, tmp_path, monkeypatch):
    url, seen = login
    monkeypatch.setenv("KFP_TOKEN", "canary-token")
    cookies = tmp_path / "cookies"
    cookies.write_text("authservice_session=canary-cookie\n")
    where = ("--target", "kubeflow", "--host", url, "--token", "env:KFP_TOKEN", "--cookies", f"file:{cookies}")
    result = call("submit", spec, *where)
    assert seen[-1]["Authorization"] == "Bearer canary-token"
    assert seen[-1]["Cookie"] == "authservice_session=canary-cookie"
    assert "canary" not in result.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--label", "a=b"], "kubeflow does not take --label: runs of its API have no labels"),
        (["--network", "n", "--project", "p"], "does not take --project: it has namespaces in place of projects, see"),
        (
            ["--encryption-key", "k"],
            "does not take --encryption-key: what encrypts artifacts is the cluster's own store",
        ),
        (["--endpoint", "k"], "does not take --endpoint: its address is --host"),
        (["--location", "k"], "does not take --location"),
        ([], "it is not known where Kubeflow is; give --host"),
        (["--host", "http://x", "--token", "canary"], "--token: say where the secret is, env:NAME or file:PATH"),
        (["--host", "http://x", "--token", "env:NOT_THERE"], "--token env:NOT_THERE: is empty"),
        (["--host", "http://x", "--cookies", "file:/nowhere"], "--cookies file:/nowhere: cannot be read"),
        (["--host", "http://x", "--name", "x" * 256], "its name has 256 characters, and Kubeflow takes 255"),
    ],
)
def test_what_kubeflow_does_not_have_is_refused_by_name(call, spec, monkeypatch, options, problem):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    result = call("submit", spec, "--target", "kubeflow", *options)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.split())
    assert "canary" not in result.output


def test_an_artifact_cannot_be_given(call, tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def use(data: dsl.Input[dsl.Dataset] = None):
        print(data)

    @dsl.pipeline(name="using")
    def using(data: dsl.Input[dsl.Dataset] = None):
        use(data=data)

    path = tmp_path / "using.yaml"
    compiled(using).write(path)
    result = call("submit", path, "--target", "kubeflow", "--host", "http://x", "-p", "data=s3://b/d")
    assert result.exit_code == 2
    assert "data: runs take no artifacts there" in result.output


def test_sigterm_cancels_the_run_through_faults_in_time(kubeflow, spec, started):
    kubeflow.play = Script("RUNNING")
    process = started(
        "submit", spec, "--target", "kubeflow", "--wait", "--cancel-on-exit", KF_PIPELINES_ENDPOINT=kubeflow.url
    )
    wait_until(lambda: runs(kubeflow))
    kubeflow.add_faults(Fault.answer("POST *:terminate", 503, times=2))
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 143
    assert errors.endswith(" is cancelled\n")
    assert runs(kubeflow)[0]["state"] == "CANCELED"


def test_cancel_ends_a_run(kubeflow, submitted, call, spec):
    kubeflow.play = Script("RUNNING")
    run_id = submitted(spec)["run"]["id"]
    where = ("--target", "kubeflow", "--host", kubeflow.url)
    assert call("cancel", run_id, *where).stdout == f"run {run_id} is cancelled\n"
    assert call("cancel", run_id, *where).stdout == f"run {run_id} was over already: cancelled\n"
    unknown = call("cancel", "nothing", *where)
    assert unknown.exit_code == 2
    assert "error: run nothing cannot be seen: Kubeflow answered 404: " in unknown.output


def test_an_interrupt_without_a_terminal_leaves_the_run_and_says_how_to_end_it(kubeflow, spec, started):
    kubeflow.play = Script("RUNNING")
    process = started("submit", spec, "--target", "kubeflow", "--wait", "--host", kubeflow.url)
    wait_until(lambda: runs(kubeflow))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    [run] = runs(kubeflow)
    assert f"goes on: {kubeflow.url}/#/runs/details/{run['run_id']}" in errors
    assert f"to end it: penstock cancel --target kubeflow --host {kubeflow.url} {run['run_id']}" in errors
    assert run["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("typed", "state", "said"),
    [("y\n", "CANCELED", "is cancelled"), ("\n", "RUNNING", "goes on"), ("\x03", "RUNNING", "goes on")],
    ids=["yes", "nothing", "Ctrl-C again"],
)
def test_ctrl_c_on_a_terminal_asks_whether_to_cancel(kubeflow, spec, typed, state, said):
    kubeflow.play = Script("RUNNING")
    with Terminal("submit", spec, "--target", "kubeflow", "--wait", "--host", kubeflow.url) as terminal:
        terminal.expect("url ")
        terminal.type("\x03")
        terminal.expect("[y/N]: ")
        time.sleep(0.5)  # Python does not notice a signal that comes just before it reads
        terminal.type(typed)
        assert terminal.ended() == 130
        assert said in terminal.text
    assert [run["state"] for run in runs(kubeflow)] == [state]


def test_a_server_that_is_not_there_is_told_from_one_that_is_slow():
    with pytest.raises(CallFailed, match="Kubeflow cannot be reached: no connection to Kubeflow; asked "):
        target.connect(submission.Place(host="http://127.0.0.1:9"), Patience(seconds=0.2, call=1, first=0.2))


@pytest.mark.filterwarnings("ignore:Kubeflow cannot be reached yet")
def test_a_server_that_never_answers_is_given_up_in_time(kubeflow, spec):
    kubeflow.add_faults(Fault.stall("* *", 30, times=ALWAYS))
    began = time.monotonic()
    with pytest.raises(CallFailed, match="Kubeflow cannot be reached: Kubeflow did not answer in time"):
        target.connect(submission.Place(host=kubeflow.url), Patience(seconds=3, call=1, first=0.1))
    assert time.monotonic() - began < 20  # each silence is of 30


def test_a_function_is_sent_as_penstock_compile_writes_it(submitted, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from kfp import dsl\n\n\n@dsl.component(base_image='python:3.11', install_kfp_package=False)\n"
        "def say(text: str = 'hello'):\n    print(text)\n"
    )
    compiled_sha256 = call("compile", "mine.py:say").stdout.split()[0]
    assert submitted("mine.py:say")["sha256"] == compiled_sha256 == sha256(Path("say.yaml"))


def test_a_job_of_vertex_is_refused(submit, spec, tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"pipelineSpec": yaml.safe_load(spec.read_text()), "runtimeConfig": {}}))
    result = submit(path)
    assert result.exit_code == 2
    assert "its file is a PipelineJob of Vertex AI" in result.output


@pytest.mark.parametrize(("number", "code"), [(3, 0), (-3, 1)])
def test_the_exit_code_follows_what_the_spec_really_does(kubeflow, submit, tmp_path, number, code):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def check(number: int):
        if number < 0:
            raise ValueError(f"{number} is negative")

    path = tmp_path / "check.yaml"
    compiled(check).write(path)
    kubeflow.play = Engine(runner="subprocess")
    result = submit(path, "--watch", "-p", f"number={number}")
    assert result.exit_code == code, result.output
    assert ("check: succeeded" in result.stderr) is (code == 0)
    assert ("-3 is negative" in result.stderr) is (code == 1)
