"""What Vertex AI and Azure ML are asked again, are not, and how long."""

import time

import pytest
import requests

from penstock.components._shared.clouds import azureml
from penstock.components._shared.errors import UserError
from penstock.components.deployment import backends
from penstock.components.deployment.backends.azureml import _Answered
from penstock.components.deployment.deploy import deploy
from penstock.testing import Fault
from tests.components.deployment import clouds
from tests.components.deployment.clouds import NAME, standing


@pytest.fixture
def vertex(two, monkeypatch):
    clouds.quicken(monkeypatch)
    with standing("vertex", {version: served for version, (_, served) in two.items()}) as cloud:
        cloud.folder = next(iter(two.values()))[0]
        yield cloud


def put(cloud):
    return deploy(cloud.folder, endpoint=NAME, platform="vertex", options=cloud.options)


def test_a_model_that_is_registered_is_not_uploaded_again(vertex):
    uploads = "POST /upload/storage/*"
    put(vertex)
    files = sum(each.is_file() for each in vertex.folder.rglob("*"))
    assert len(vertex.stand_in.seen(uploads)) == files
    put(vertex)
    assert len(vertex.stand_in.seen(uploads)) == files


def test_a_prediction_that_fails_in_passing_is_asked_for_again(vertex):
    vertex.stand_in.add_faults(Fault.answer("POST *:predict"), Fault.reset("POST *:predict"))
    assert put(vertex).traffic == 100
    assert vertex.stand_in.pending_faults == ()


def test_what_is_no_prediction_fails_the_smoke_test_and_not_the_step(vertex):
    vertex.stand_in.endpoints.predict = lambda model, instances, parameters: [0.5] * len(instances)
    with pytest.raises(UserError, match=r"failed its smoke test .*it answers \[0\.5.*names no outputs"):
        put(vertex)


def test_what_is_never_gone_is_waited_for_as_long_as_anything(vertex):
    class Never:
        def result(self, timeout):
            time.sleep(0.05)
            raise TimeoutError

    backend = backends.connect("vertex", {**vertex.options, "ready_seconds": 0.2}, "test")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"cannot remove it within 0\.2 s"):
        backend._gone("remove it", lambda seconds: Never())
    assert time.monotonic() - began < 5


def test_azure_says_when_to_ask_again():
    answer = requests.Response()
    answer.status_code, answer._content = 429, b"too many"
    answer.headers["Retry-After"] = "7"
    found = azureml.failure(_Answered(answer))
    assert found is not None
    assert (found.status, found.retry_after, found.passing) == (429, 7.0, True)
