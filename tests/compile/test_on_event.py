"""Messages begin the runs that the configuration lets them, once each, and come again only where that may help."""

import base64
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import yaml
from kfp import dsl

from penstock.compile import on_event
from penstock.compile.to_kfp import compiled
from penstock.testing import Fault, KubeflowStandIn, Script

CREATE = "POST */runs"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(a: int, b: int) -> int:
    return a + b


@dsl.pipeline(name="adding")
def adding(a: int = 1, b: int = 2):
    add(a=a, b=b)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class Service:
    """The entry point behind a real server, and what it may submit."""

    def __init__(self, url: str, file: Path, kubeflow: KubeflowStandIn, spec: Path) -> None:
        self.url, self.file, self.kubeflow, self.spec = url, file, kubeflow, str(spec)
        self.allow({})

    def allow(self, *rows: dict) -> None:
        """Let messages begin runs of the spec on Kubeflow, as each row says otherwise."""
        usual = {"spec": self.spec, "target": "kubeflow", "host": self.kubeflow.url, "parameters": ["a"]}
        self.file.write_text(yaml.safe_dump({"allow": [{**usual, **row} for row in rows]}))

    def post(self, body: bytes, **headers: str) -> tuple[int, dict]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json", **named})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def push(self, content: object, key: str = "1") -> tuple[int, dict]:
        """Deliver a message as a push subscription of Pub/Sub does."""
        data = base64.b64encode(json.dumps(content).encode()).decode()
        message = {"data": data, "messageId": key, "publishTime": "2026-11-26T06:00:00Z"}
        return self.post(json.dumps({"message": message, "subscription": "projects/p/subscriptions/s"}).encode())

    def runs(self) -> list[dict]:
        return self.kubeflow.runs.current()


def served(application):
    server = make_server("127.0.0.1", 0, application, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    return server


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = tmp_path / "adding.yaml"
    compiled(adding).write(spec)
    monkeypatch.setenv(on_event.CONFIGURATION, str(tmp_path / "events.yaml"))
    server = served(on_event.application)
    with KubeflowStandIn(Script()) as kubeflow:
        yield Service(f"http://127.0.0.1:{server.server_port}/", tmp_path / "events.yaml", kubeflow, spec)
    server.shutdown()
    server.server_close()


def test_a_message_begins_one_run_however_often_it_comes(service):
    status, answer = service.push({"spec": service.spec, "parameters": {"a": 7}})
    assert status == 200
    [run] = service.runs()
    assert run["run_id"] == answer["run"]
    assert run["runtime_config"]["parameters"] == {"a": 7, "b": 2}
    again = service.push({"spec": service.spec, "parameters": {"a": 7}})
    assert again == (200, {**answer, "adopted": True})
    assert len(service.runs()) == 1
    service.push({"spec": service.spec, "parameters": {"a": 7}}, key="2")
    assert len(service.runs()) == 2


def test_what_is_fixed_is_sent_and_where_it_goes_is_not_the_message_s(service):
    service.allow({"values": {"b": 40}, "name": "Nightly", "service_account": "runner", "experiment": "nightly"})
    assert service.push({"spec": service.spec, "target": "kubeflow"})[0] == 200
    [run] = service.runs()
    assert (run["display_name"], run["service_account"]) == ("Nightly", "runner")
    assert run["runtime_config"]["parameters"] == {"a": 1, "b": 40}


def test_cloud_scheduler_s_time_is_the_key(service):
    body = json.dumps({"spec": service.spec}).encode()
    headers = {"X_CloudScheduler_JobName": "nightly", "X_CloudScheduler_ScheduleTime": "2026-11-26T06:00:00Z"}
    first = service.post(body, **headers)
    assert service.post(body, **headers)[1]["run"] == first[1]["run"]
    later = {**headers, "X_CloudScheduler_ScheduleTime": "2026-11-27T06:00:00Z"}
    assert service.post(body, **later)[1]["run"] != first[1]["run"]
    assert service.post(body, Idempotency_Key="mine")[0] == 200
    assert len(service.runs()) == 3


def test_a_message_without_its_envelope_is_known_by_pubsub_s_header(service):
    body = json.dumps({"spec": service.spec}).encode()
    service.post(body, X_Goog_PubSub_Message_Id="9")
    service.post(body, X_Goog_PubSub_Message_Id="9")
    assert len(service.runs()) == 1
    assert service.post(b"no JSON", X_Goog_PubSub_Message_Id="9") == (200, {"refused": "the request: is not JSON"})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"spec": "/etc/passwd"}, "/etc/passwd may not be submitted"),
        ({"spec": "SPEC", "target": "vertex"}, "may not be submitted to vertex"),
        ({"spec": "SPEC", "parameters": {"b": 1}}, "b: messages may give a"),
        ({"spec": "SPEC", "parameters": {"a": "x"}}, "parameter a: "),
        ({"spec": "SPEC", "service_account": "admin"}, "a message has spec, parameters, target, not service_account"),
        ({"spec": "SPEC", "host": "http://evil"}, "a message has spec, parameters, target, not host"),
        ({"spec": ["SPEC"]}, "a message has a spec, which is text"),
        ({"parameters": {}}, "a message has a spec, which is text"),
        (["SPEC"], "the message's data: expected an object"),
    ],
)
def test_what_a_message_may_not_is_refused_for_good(service, content, problem):
    named = json.loads(json.dumps(content).replace('"SPEC"', json.dumps(service.spec)))
    status, answer = service.push(named)
    assert status == 200  # or Pub/Sub would send it again
    assert problem in answer["refused"]
    direct, answer = service.post(json.dumps(named).encode(), Idempotency_Key="k")
    assert direct == 400
    assert service.runs() == []


def test_a_request_that_is_no_message_is_refused(service):
    assert service.post(json.dumps({"spec": service.spec}).encode())[0] == 400  # nothing to know a second one by
    assert service.post(b"\xff")[0] == 400
    envelope = {"message": {"data": "%%%", "messageId": "1"}, "subscription": "s"}
    assert service.post(json.dumps(envelope).encode()) == (200, {"refused": "the message's data are not base64"})
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(service.url, timeout=30)
    assert service.runs() == []


def test_two_targets_of_one_spec_have_to_be_told_apart(service):
    service.allow({}, {"target": "vertex", "host": None, "pipeline_root": "gs://b/r", "project": "p"})
    _, answer = service.push({"spec": service.spec})
    assert "may be submitted to kubeflow and vertex; say which" in answer["refused"]
    assert service.push({"spec": service.spec, "target": "kubeflow"})[1]["run"]


def test_a_platform_that_is_away_for_a_while_brings_the_message_again(service):
    service.kubeflow.add_faults(Fault.answer(CREATE, 503, retry_after=3600))
    status, answer = service.push({"spec": service.spec})
    assert status == 503
    assert "Kubeflow answered 503" in answer["error"]
    assert service.push({"spec": service.spec})[0] == 200
    assert len(service.runs()) == 1


def test_rights_and_settings_of_the_service_are_its_own_fault(service):
    service.kubeflow.add_faults(Fault.answer(CREATE, 403))
    assert service.push({"spec": service.spec})[0] == 500
    service.allow({"sha256": "0" * 64})
    status, answer = service.push({"spec": service.spec})
    assert status == 500
    assert "its SHA-256 is not 000" in answer["error"]
    service.allow({"spec": service.spec + ".yaml"})
    assert service.push({"spec": service.spec + ".yaml"})[0] == 500
    assert service.runs() == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"servce_account": "x"}, "there is no servce_account; there are "),
        ({"values": {"a": 1}}, "a: is in parameters, for messages to give, and in values"),
        ({"target": "nowhere"}, "there is no target nowhere; there are kubeflow, vertex"),
        ({"labels": {"a": "b"}}, "kubeflow does not take --label"),
        ({"target": None}, "expected a spec and a target, which are text"),
    ],
)
def test_a_configuration_that_says_what_there_is_not_is_refused(service, row, problem):
    service.allow(row)
    status, answer = service.push({"spec": service.spec})
    assert status == 500
    assert problem in answer["error"]


def test_no_value_of_a_parameter_is_logged(service, capfd):
    service.allow({"parameters": ["a"], "values": {"b": 987654}})
    service.push({"spec": service.spec, "parameters": {"a": 123456}})
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    said = json.loads(line)
    assert said["severity"] == "INFO"
    assert "123456" not in line
    assert "987654" not in line


def test_the_function_of_cloud_run_answers_the_same(service):
    werkzeug = pytest.importorskip("werkzeug.wrappers")

    def application(environ, start_response):
        text, status, headers = on_event.on_event(werkzeug.Request(environ))
        return werkzeug.Response(text, status, headers)(environ, start_response)

    server = served(application)
    service.url = f"http://127.0.0.1:{server.server_port}/"
    status, answer = service.push({"spec": service.spec, "parameters": {"a": 3}})
    server.shutdown()
    server.server_close()
    assert (status, answer["adopted"]) == (200, False)
    assert len(service.runs()) == 1


def test_a_spec_in_a_bucket_goes_to_vertex(service):
    pytest.importorskip("google.cloud.aiplatform")
    from google.cloud import storage

    from penstock.testing import VertexStandIn

    with VertexStandIn(Script()) as vertex, vertex.connected():
        bucket = storage.Client(project="test-project").create_bucket("specs")
        bucket.blob("adding.yaml").upload_from_filename(service.spec)
        service.allow(
            {"spec": "gs://specs/adding.yaml", "target": "vertex", "host": None, "pipeline_root": "gs://b/r"},
        )
        status, answer = service.push({"spec": "gs://specs/adding.yaml", "parameters": {"a": 5}})
        assert (status, answer.get("error")) == (200, None)
        [job] = vertex.pipeline_jobs.kept.all()
        service.allow({"spec": "gs://specs/gone.yaml", "target": "vertex", "host": None, "pipeline_root": "gs://b/r"})
        assert service.push({"spec": "gs://specs/gone.yaml"})[0] == 500
    assert job["name"].endswith(answer["run"])
    assert job["runtimeConfig"]["parameterValues"] == {"a": 5, "b": 2}
