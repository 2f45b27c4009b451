"""Pipeline jobs of the Vertex AI stand-in, by google-cloud-aiplatform itself."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from penstock.testing import ALWAYS, Engine, Fault, Script, VertexStandIn

STATE = "PIPELINE_STATE_"


def job(specs, name="doubling", **settings):
    from google.cloud import aiplatform

    return aiplatform.PipelineJob(display_name=name, template_path=specs[name], **settings)


def states(found):
    return {task.task_name: task.state.name for task in found.task_details}


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)
    return found


def test_a_submitted_spec_runs_for_real_and_its_tasks_tell_what_came_of_them(vertex, specs):
    vertex.play = Engine()
    submitted = job(specs, job_id="doubling-1", parameter_values={"number": 4}, labels={"team": "taxi"})
    submitted.run()
    assert submitted.state.name == f"{STATE}SUCCEEDED"
    double, describe = submitted.task_details
    assert dict(double.execution.metadata) == {"input:number": 4, "output:Output": 8}
    assert describe.execution.metadata["output:Output"] == "it is 8"
    assert describe.parent_task_id == 0
    assert [each.state.name for each in describe.pipeline_task_status][-1] == "SUCCEEDED"
    [text] = describe.outputs["text"].artifacts
    assert (text.schema_title, Path(text.uri).read_text()) == ("system.Dataset", "the number is 8")
    [created] = vertex.seen("POST */pipelineJobs")
    assert created.body["pipelineSpec"] == yaml.safe_load(Path(specs["doubling"]).read_text())


def test_a_component_that_raises_fails_its_job_with_its_own_message(vertex, specs):
    vertex.play = Engine()
    failing = job(specs, "failing", parameter_values={"message": "no column tip"})
    with pytest.raises(RuntimeError, match=r"The failed tasks are: \[fail\].*no column tip"):
        failing.run()
    assert failing.has_failed
    assert "no column tip" in failing.task_details[0].error.message


def test_cancel_ends_what_runs(vertex, specs, exceptions):
    vertex.play = Engine()
    waiting = job(specs, "waiting")
    waiting.submit()
    until(lambda: states(waiting).get("wait") == "RUNNING")
    waiting.cancel()
    assert waiting.state.name in (f"{STATE}CANCELLING", f"{STATE}CANCELLED")
    waiting.wait()
    assert waiting.state.name == f"{STATE}CANCELLED"
    assert states(waiting) == {"wait": "CANCELLED"}
    with pytest.raises(exceptions.BadRequest, match="cannot be cancelled"):
        waiting.cancel()


def test_closing_the_stand_in_ends_what_runs(specs, tmp_path, aiplatform):
    with VertexStandIn(Engine(root=tmp_path)) as stand_in, stand_in.connected():
        waiting = job(specs, "waiting", job_id="waiting-1")
        waiting.submit()
        until(lambda: states(waiting).get("wait") == "RUNNING")
    record = json.loads((tmp_path / "runs" / "waiting-1" / "run.json").read_text())
    assert record["state"] == "CANCELLED"


def test_a_script_says_what_each_poll_is_told(vertex, specs):
    vertex.play = Script("PENDING RUNNING RUNNING FAILED", error="the node was lost", tasks={"double": "SUCCEEDED"})
    scripted = job(specs)
    scripted.submit()
    told = [scripted.state.name for _ in range(5)]
    assert told == [f"{STATE}{name}" for name in ("PENDING", "RUNNING", "RUNNING", "FAILED", "FAILED")]
    assert states(scripted) == {"double": "SUCCEEDED", "describe": "FAILED"}
    assert "the node was lost" in scripted.gca_resource.error.message


def test_a_scripted_cancel_takes_the_polls_it_is_given(vertex, specs):
    vertex.play = Script("RUNNING", cancelling=2)
    scripted = job(specs)
    scripted.submit()
    scripted.cancel()
    assert [scripted.state.name for _ in range(3)] == [f"{STATE}{n}" for n in ("CANCELLING", "CANCELLING", "CANCELLED")]


def test_a_script_for_a_task_that_is_not_there_is_refused(vertex, specs, exceptions):
    vertex.play = Script(tasks={"tripple": "FAILED"})
    with pytest.raises(exceptions.BadRequest, match="names a task tripple; doubling has double, describe"):
        job(specs).submit()


def test_an_id_is_taken_once(vertex, specs, aiplatform, exceptions):
    job(specs, job_id="once").submit()
    with pytest.raises(exceptions.Conflict):
        job(specs, job_id="once").submit()
    assert len(aiplatform.PipelineJob.list()) == 1


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("", ["third", "second", "first"]),
        ('display_name="doubling"', ["third", "second", "first"]),
        ("labels.team=taxi", ["second", "first"]),
        ("labels.team:*", ["second", "first"]),
        ("labels.team=taxi AND labels.step=two", ["second"]),
        ('labels.step="two" OR labels.step="three"', ["third", "second"]),
        ('NOT labels.team="taxi"', ["third"]),
        ('state="PIPELINE_STATE_PENDING" AND pipeline_job_user_id:"th*"', ["third"]),
        ('pipeline_name="doubling" AND pipelineJobUserId!="third"', ["second", "first"]),
        ('create_time>"2000-01-01T00:00:00Z"', ["third", "second", "first"]),
        ('create_time<"2000-01-01T00:00:00Z"', []),
    ],
)
def test_lists_are_filtered_as_vertex_filters(vertex, specs, filter, expected, aiplatform):
    job(specs, job_id="first", labels={"team": "taxi", "step": "one"}).submit()
    job(specs, job_id="second", labels={"team": "taxi", "step": "two"}).submit()
    job(specs, job_id="third", labels={"step": "three"}).submit()
    assert [found.name for found in aiplatform.PipelineJob.list(filter=filter)] == expected


def test_lists_come_in_pages_in_the_order_asked_for_and_as_small_as_asked_for(vertex, specs, aiplatform):
    for number in range(5):
        job(specs, job_id=f"job-{number}").submit()
    url = f"{vertex.url}/v1/projects/test-project/locations/us-central1/pipelineJobs?pageSize=2&orderBy=create_time"
    with urllib.request.urlopen(f"{url}&readMask=name,pipelineSpec.pipelineInfo", timeout=10) as answer:
        page = json.load(answer)
    assert [each["name"].rpartition("/")[2] for each in page["pipelineJobs"]] == ["job-0", "job-1"]
    assert page["pipelineJobs"][0]["pipelineSpec"] == {"pipelineInfo": {"name": "doubling"}}
    with urllib.request.urlopen(f"{url}&pageToken={page['nextPageToken']}", timeout=10) as answer:
        assert [each["name"][-1] for each in json.load(answer)["pipelineJobs"]] == ["2", "3"]
    found = aiplatform.PipelineJob.list(enable_simple_view=True, order_by="create_time desc")
    assert [each.name for each in found] == [f"job-{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "pipelineJobId=Upper"}, "pipeline_job_id: 'Upper' is not one"),
        ({"query": f"pipelineJobId={'a' * 128}"}, "shorter than 128"),
        ({"displayName": "x" * 129}, "display_name: at most 128 characters"),
        ({"labels": {"Team": "taxi"}}, "labels: 'Team' is not a key"),
        ({"labels": {"team": "t" * 64}}, "of team is not a value"),
        ({"labels": {f"k{number}": "" for number in range(65)}}, "labels: at most 64"),
        ({"colour": "red"}, 'Unknown name "colour" at'),
        ({"task": {"componentRef": {"name": "comp-nothing"}}}, "comp-nothing"),
        ({"runtimeConfig": {"gcsOutputDirectory": "/tmp/x"}}, "begins with gs://"),
        ({"runtimeConfig": {"gcsOutputDirectory": "gs://b", "retries": 3}}, 'Unknown name "retries"'),
        ({"pipelineSpec": None}, "pipeline_spec: is required"),
        ({"pipelineSpec": {"pipelineInfo": {"name": "x"}, "roof": {}}}, "roof"),
        ({"runtimeConfig": {"gcsOutputDirectory": "gs://b", "parameterValues": {"numer": 1}}}, "did you mean number"),
        ({"runtimeConfig": {"gcsOutputDirectory": "gs://b", "parameterValues": {"number": "x"}}}, "parameter number"),
        ({"network": "default"}, "network: 'default' is not one"),
        ({"encryptionSpec": {"kmsKeyName": "key"}}, "kms_key_name: 'key' is not one"),
        ({"serviceAccount": "me"}, "service_account: 'me' is not one"),
    ],
)
def test_what_vertex_refuses_is_refused(vertex, specs, change, message):
    body = {
        "displayName": "doubling",
        "pipelineSpec": yaml.safe_load(Path(specs["doubling"]).read_text()),
        "runtimeConfig": {"gcsOutputDirectory": "gs://bucket/root"},
        **{name: value for name, value in change.items() if name not in ("query", "task")},
    }
    if "task" in change:
        body["pipelineSpec"]["root"]["dag"]["tasks"]["double"] |= change["task"]
    url = f"{vertex.url}/v1/projects/p/locations/us-central1/pipelineJobs?{change.get('query', '')}"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    error = json.loads(caught.value.read())["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert message in error["message"]


def test_create_is_not_retried_by_the_sdk_and_a_lost_answer_leaves_the_job(vertex, specs, aiplatform, exceptions):
    vertex.add_faults(Fault.answer("POST */pipelineJobs", 503))
    with pytest.raises(exceptions.ServiceUnavailable):
        job(specs, job_id="first").submit()
    vertex.add_faults(Fault.lost("POST */pipelineJobs"))
    with pytest.raises(Exception, match=r"Connection|Remote"):
        job(specs, job_id="second").submit()
    assert [found.name for found in aiplatform.PipelineJob.list()] == ["second"]


def test_cancel_can_fail_as_often_as_a_test_wants(vertex, specs, exceptions):
    vertex.play = Script("RUNNING")
    running = job(specs)
    running.submit()
    vertex.add_faults(Fault.answer("POST *:cancel", 503, times=2))
    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable):
            running.cancel()
        assert running.state.name == f"{STATE}RUNNING"
    running.cancel()
    assert running.state.name == f"{STATE}CANCELLED"


def test_jobs_are_cancelled_and_deleted_many_at_once(vertex, specs, aiplatform, exceptions):
    vertex.play = Script("RUNNING")
    vertex.operations.polls = 1
    made = [job(specs, job_id=f"job-{number}") for number in range(3)]
    for each in made:
        each.submit()
    names = [each.name for each in made]
    with pytest.raises(exceptions.BadRequest, match="cancel it before"):
        made[0].batch_delete("test-project", "us-central1", names)
    made[0].batch_cancel("test-project", "us-central1", names).result()
    assert {each.state.name for each in made} == {f"{STATE}CANCELLED"}
    made[0].batch_delete("test-project", "us-central1", names[:2])
    made[2].delete()
    assert aiplatform.PipelineJob.list() == []
    assert vertex.seen("GET */operations/*")


def test_old_parameters_and_input_artifacts_are_understood(vertex, specs):
    spec = yaml.safe_load(Path(specs["doubling"]).read_text())
    config = {"gcsOutputDirectory": "gs://bucket/root", "parameters": {"number": {"intValue": "5"}}}
    body = {"pipelineSpec": spec, "runtimeConfig": config}
    url = f"{vertex.url}/v1/projects/p/locations/us-central1/pipelineJobs"
    vertex.play = Engine()
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        name = json.load(answer)["name"].rpartition("/")[2]
    assert name.startswith("doubling-")

    def ended():
        with urllib.request.urlopen(f"{url}/{name}", timeout=10) as answer:
            found = json.load(answer)
        return found if found["state"] == f"{STATE}SUCCEEDED" else None

    task = until(ended)["jobDetail"]["taskDetails"][0]
    assert task["execution"]["metadata"]["output:Output"] == 10


def test_a_job_joins_an_experiment_with_its_parameters_and_metrics(vertex, specs, aiplatform):
    vertex.play = Engine()
    experiment = aiplatform.Experiment.create("taxi")
    joining = job(specs, parameter_values={"number": 6}, job_id="doubling-6")
    joining.submit(experiment=experiment)
    joining.wait()
    assert joining.get_associated_experiment().name == "taxi"
    table = experiment.get_data_frame()
    [row] = table.to_dict("records")
    assert row["run_name"] == "doubling-6"
    assert row["param.number"] == 6
    assert row["metric.number"] == 12


def test_the_sdk_points_where_it_did_when_the_stand_in_goes(specs, aiplatform):
    from google.cloud.aiplatform import initializer

    before = dict(vars(initializer.global_config))
    with VertexStandIn(Script()) as stand_in, stand_in.connected("other", "europe-west4"):
        assert aiplatform.PipelineJob.list() == []
        assert stand_in.seen("GET */projects/other/locations/europe-west4/pipelineJobs")
    assert vars(initializer.global_config) == before


def test_a_service_that_never_answers_meets_the_clients_deadline(vertex, specs):
    vertex.add_faults(Fault.stall("POST */pipelineJobs", 200, times=ALWAYS))
    begin = time.monotonic()
    with pytest.raises(Exception, match=r"[Tt]imed out"):
        job(specs).submit(create_request_timeout=0.2)
    assert time.monotonic() - begin < 60
