"""Every payload that is sent fits Azure's REST schema, and what does not is seen."""

import copy
import json

import pytest

pytest.importorskip("azure.ai.ml")

from azure.ai.ml._restclient.arm_ml_service import models

from penstock.compile import submission
from penstock.compile.findings import errors
from penstock.compile.submission import Schedule, Settings
from penstock.compile.targets.azureml import jobs
from penstock.compile.to_kfp import compiled
from penstock.testing import AzureMLStandIn, Script
from tests.compile.rich import rich
from tests.compile.targets import golden_requests
from tests.compile.targets.azureml.rest_schema import problems
from tests.compile.targets.conftest import weekly

pytestmark = pytest.mark.xdist_group("azureml")
MODELS = {
    "jobs": models.JobBase, "components": models.ComponentVersion, "environments": models.EnvironmentVersion,
    "codes": models.CodeVersion, "schedules": models.Schedule,
}  # fmt: skip
OPTIONS = {
    "has_python": ["*"],
    "max_iterations": 3,
    "machines": [{"accelerator": "*", "count": 8, "compute": "gpu-cluster", "instance_type": "Standard_NC6s_v3"}],
    "uri_map": {"gs://": "azureml://datastores/gs/paths/"},
    "datastore": "workspaceblobstore",
}


def misfits(kind, body):
    return list(problems(body, MODELS[kind], kind))


def golden_bodies():
    found = []
    for path in sorted((golden_requests.GOLDEN / golden_requests.FOLDERS["azureml"]).glob("*.json")):
        requests = json.loads(path.read_text())
        for request in requests if isinstance(requests, list) else []:
            words = request["request"].split("/")
            if request["request"].startswith("PUT"):
                found.append((words[9], request["body"]))
    return found


def test_every_golden_request_fits_the_schema():
    bodies = golden_bodies()
    assert {kind for kind, _ in bodies} == {"jobs", "components", "environments", "codes"}
    for kind, body in bodies:
        assert misfits(kind, body) == []


def sent(spec: bytes, schedule=None, **settings):
    """Return what is sent for a spec: kinds and bodies."""
    prepared = submission.prepare(spec, "spec", {}, None, "k", settings=Settings(**settings))
    assert not errors(submission.findings(prepared, "azureml"))
    with AzureMLStandIn(Script("SUCCEEDED")) as stand_in, stand_in.connected():
        platform = submission.target("azureml").connect(golden_requests.place(stand_in))
        if schedule:
            platform.create_schedule(prepared, schedule)
        else:
            platform.submit(prepared)
        found = [each for each in stand_in.requests if each.method == "PUT" and not each.path.startswith("/account.")]
        return [(each.path.split("/")[9], each.body) for each in found]


def test_a_bit_of_everything_registered_under_an_identity_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    identity = "managed:00000000-0000-0000-0000-0000000000dd"
    bodies = sent(
        compiled(rich).text.encode(), options=OPTIONS, identity=identity, register=("environments", "components")
    )
    assert len(bodies) > 15
    for kind, body in bodies:
        assert misfits(kind, body) == []
    [job] = [body for kind, body in bodies if kind == "jobs"]
    assert job["properties"]["identity"]["identityType"] == "Managed"


@pytest.mark.parametrize("when", [{"cron": "TZ=Asia/Tokyo 0 4 * * *"}, {"cron": "", "every": "2 weeks"}])
def test_schedules_fit(tmp_path, monkeypatch, when):
    monkeypatch.chdir(tmp_path)
    wanted = Schedule("nightly", start="2030-01-01T04:00:00Z", **when)
    bodies = sent(compiled(weekly).text.encode(), wanted, identity="user_identity")
    [body] = [body for kind, body in bodies if kind == "schedules"]
    assert misfits("schedules", body) == []


JOB = {
    "properties": {
        "jobType": "Pipeline",
        "componentId": "/subscriptions/s/components/c/versions/1",
        "inputs": {"number": {"jobInputType": "literal", "value": "3"}},
        "identity": {"identityType": "AMLToken"},
        "settings": {"default_compute": "cpu"},
        "isArchived": False,
        "tags": {"a": "b"},
    }
}


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("jobType",), "Pipelines", "jobType: 'Pipelines' is none of"),
        (("componentid",), "c", "componentid: PipelineJob has no such field"),
        (("status",), "Running", "status: only the service sets it"),
        (("isArchived",), "no", "isArchived: 'no' is no bool"),
        (("tags",), {"a": 1}, "tags.a: 1 is no str"),
        (("inputs", "number", "value"), 3, "inputs.number.value: 3 is no str"),
        (("inputs", "number", "value"), "", "inputs.number.value: '' does not match"),
        (("inputs", "number", "value"), None, "inputs.number.value: is required"),
        (("inputs", "number", "jobInputType"), "text", "jobInputType: 'text' is none of"),
        (("inputs", "number", "mode"), "Download", "LiteralJobInput has no such field"),
        (("inputs", "number"), {"jobInputType": "uri_file", "uri": "x", "mode": "Copy"}, "mode: 'Copy' is none of"),
        (("identity", "identityType"), "Root", "identityType: 'Root' is none of AMLToken"),
    ],
)
def test_what_does_not_fit_is_seen(path, value, problem):
    assert misfits("jobs", JOB) == []
    body = copy.deepcopy(JOB)
    place = body["properties"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = misfits("jobs", body)
    assert any(problem in each for each in found), found


def test_a_body_without_properties_is_seen():
    assert misfits("jobs", {}) == ["jobs.properties: is required"]


def test_what_is_registered_has_names_and_versions_that_azure_takes():
    asset = jobs._environment("europe-docker.pkg.dev/p/penstock/tabular:0.1@sha256:" + "0" * 64)
    assert (asset.name, len(asset.version)) == ("tabular", 16)
    assert jobs._environment("host:5000/a/b.c:1").name == "b-c"
