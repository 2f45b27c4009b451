"""The Kubeflow Pipelines stand-in, by kfp.Client itself."""

import datetime
import hashlib
import json
import os
import tarfile
import time
from pathlib import Path

import kfp
import kfp_server_api
import pytest
import yaml

from penstock.compile.errors import PenstockError
from penstock.testing import Engine, Fault, KubeflowStandIn, Script

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ApiException = kfp_server_api.ApiException


@pytest.fixture
def kubeflow():
    with KubeflowStandIn(Script()) as stand_in, stand_in.connected():
        yield stand_in


@pytest.fixture
def client(kubeflow):
    return kfp.Client()


def submit(client, specs, name="doubling", **settings):
    return client.create_run_from_pipeline_package(specs[name], **settings).run_id


def finished(client, run, seconds=60):
    end = time.monotonic() + seconds
    while (found := client.get_run(run)).state not in ("SUCCEEDED", "FAILED", "CANCELED"):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)
    return found


def states(run):
    """Return the states of tasks, without the drivers and executors that Kubeflow lists beside them."""
    names = [(task.display_name, task.state) for task in (run.run_details and run.run_details.task_details) or []]
    return {name: state for name, state in names if name not in ("root", "executor") and not name.endswith("-driver")}


def ran(run):
    return [each.state for each in run.state_history]


def test_a_submitted_spec_runs_for_real_and_its_tasks_tell_what_came_of_them(kubeflow, client, specs):
    kubeflow.play = Engine()
    run = finished(client, submit(client, specs, arguments={"number": 4}, experiment_name="taxi"))
    assert run.state == "SUCCEEDED"
    assert (ran(run)[0], ran(run)[-1]) == ("PENDING", "SUCCEEDED")
    assert states(run) == {"double": "SUCCEEDED", "describe": "SUCCEEDED"}
    assert run.finished_at > run.created_at
    [created] = kubeflow.seen("POST */runs")
    assert created.body["pipeline_spec"] == yaml.safe_load(Path(specs["doubling"]).read_text())
    assert client.get_experiment(experiment_name="taxi").last_run_created_at == run.created_at


def test_tasks_have_drivers_and_executors_beside_them_as_argo_has(client, specs):
    client.get_run(run := submit(client, specs))
    client.get_run(run)
    details = client.get_run(run).run_details.task_details
    by_id = {task.task_id: task for task in details}
    [double] = [task for task in details if task.display_name == "double"]
    under = [task.display_name for task in details if task.parent_task_id == double.task_id]
    assert under == ["double-driver", "executor"]
    assert by_id[double.parent_task_id].display_name == "root"
    pods = {task.pod_name: task.display_name for task in details}
    assert [pods[child.pod_name] for child in double.child_tasks] == under


def test_a_component_that_raises_fails_its_run_with_its_own_message(kubeflow, client, specs):
    kubeflow.play = Engine()
    run = finished(client, submit(client, specs, "failing", arguments={"message": "no column tip"}))
    assert (run.state, states(run)) == ("FAILED", {"fail": "FAILED"})
    assert "no column tip" in run.error.message


def test_terminating_ends_what_runs_and_a_retry_takes_it_up_again(kubeflow, client, specs):
    kubeflow.play = Engine()
    run = submit(client, specs, "waiting")
    end = time.monotonic() + 60
    while states(client.get_run(run)).get("wait") != "RUNNING":
        assert time.monotonic() < end
        time.sleep(0.02)
    client.terminate_run(run)
    assert finished(client, run).state == "CANCELED"
    with pytest.raises(ApiException, match="Failed to terminate run"):
        client.terminate_run(run)
    client.runs.run_service_retry_run(run_id=run)
    assert client.get_run(run).state == "RUNNING"
    client.terminate_run(run)
    assert "RUNNING" in ran(finished(client, run))


def test_a_retry_runs_only_what_had_not_succeeded(kubeflow, client, tmp_path):
    kubeflow.play = Engine(root=tmp_path)
    marker = tmp_path / "marker"
    run = submit(client, {"once": _once(tmp_path)}, "once", arguments={"marker": str(marker)})
    assert finished(client, run).state == "FAILED"
    marker.touch()
    client.runs.run_service_retry_run(run_id=run)
    assert finished(client, run).state == "SUCCEEDED"
    assert (tmp_path / "count").read_text() == "x"


def _once(folder):
    from penstock.compile.to_kfp import compiled
    from tests.compile.testing.once import once

    compiled(once).write(folder / "once.yaml")
    return str(folder / "once.yaml")


def test_a_script_says_what_each_poll_is_told(kubeflow, client, specs):
    kubeflow.play = Script("PENDING RUNNING FAILED", error="the node was lost", tasks={"double": "SUCCEEDED"})
    run = submit(client, specs)
    assert [client.get_run(run).state for _ in range(4)] == ["PENDING", "RUNNING", "FAILED", "FAILED"]
    last = client.get_run(run)
    assert ran(last) == ["PENDING", "RUNNING", "FAILED"]
    assert (last.error.message, states(last)["double"]) == ("the node was lost", "SUCCEEDED")


def test_the_same_run_created_twice_is_two_runs(client, specs):
    assert submit(client, specs, run_name="same") != submit(client, specs, run_name="same")
    assert client.list_runs().total_size == 2


def test_a_lost_answer_leaves_the_run(kubeflow, client, specs):
    kubeflow.add_faults(Fault.lost("POST */runs"), Fault.answer("POST */runs", 503))
    for _ in range(2):
        with pytest.raises(Exception, match=r"Connection|Remote|503"):
            submit(client, specs)
    # urllib3 sends nothing twice that is not idempotent.
    assert len(kubeflow.seen("POST */runs")) == 2
    assert client.list_runs().total_size == 1


def test_terminate_can_fail_as_often_as_a_test_wants(kubeflow, client, specs):
    kubeflow.play = Script("RUNNING")
    run = submit(client, specs)
    kubeflow.add_faults(Fault.answer("POST *:terminate", 503, times=2))
    for _ in range(2):
        with pytest.raises(ApiException, match="503"):
            client.terminate_run(run)
        assert client.get_run(run).state == "RUNNING"
    client.terminate_run(run)
    assert client.get_run(run).state == "CANCELED"


def test_an_upload_keeps_the_very_bytes_and_runs_from_them(kubeflow, client, specs):
    content = Path(specs["doubling"]).read_bytes()
    pipeline = client.upload_pipeline(specs["doubling"], "taxi", description="doubles")
    [version] = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    package = kubeflow.pipelines.packages[version.pipeline_version_id]
    assert (package.content, package.sha256) == (content, hashlib.sha256(content).hexdigest())
    assert version.pipeline_spec == yaml.safe_load(content)
    kubeflow.play = Engine()
    experiment = client.create_experiment("taxi").experiment_id
    reference = {"pipeline_id": pipeline.pipeline_id, "version_id": version.pipeline_version_id}
    run = client.run_pipeline(experiment, "from a version", params={"number": 1}, **reference)
    assert finished(client, run.run_id).state == "SUCCEEDED"
    record = json.loads((kubeflow.folder / "runs" / run.run_id / "run.json").read_text())
    assert record["spec_sha256"] == package.sha256


def test_versions_come_and_go_and_names_are_taken_once(client, specs):
    pipeline = client.upload_pipeline(specs["doubling"], "taxi")
    version = client.upload_pipeline_version(specs["failing"], "two", pipeline_name="taxi", description="fails")
    assert client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id).description == "fails"
    for again in (
        lambda: client.upload_pipeline(specs["doubling"], "taxi"),
        lambda: client.upload_pipeline_version(specs["doubling"], "two", pipeline.pipeline_id),
    ):
        with pytest.raises(ApiException) as caught:
            again()
        assert (caught.value.status, json.loads(caught.value.body)["code"]) == (409, 6)
    with pytest.raises(ApiException, match="delete them first"):
        client.delete_pipeline(pipeline.pipeline_id)
    client.delete_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert client.list_pipeline_versions(pipeline.pipeline_id).total_size == 1
    client.delete_pipeline(pipeline.pipeline_id)
    assert client.get_pipeline_id("taxi") is None


def test_an_archive_is_unpacked(kubeflow, client, specs, tmp_path):
    path = tmp_path / "package.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(specs["doubling"], "pipeline.yaml")
    client.upload_pipeline(str(path), "packed")
    [package] = kubeflow.pipelines.packages.values()
    assert package.content == path.read_bytes()
    assert package.spec == Path(specs["doubling"]).read_bytes()


def test_a_spec_with_a_platform_document_keeps_it(kubeflow, client, specs, tmp_path):
    spec = Path(specs["doubling"]).read_text()
    platform = {
        "platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-double": {"imagePullPolicy": "Always"}}}}}
    }
    both = tmp_path / "both.yaml"
    both.write_text(f"{spec}---\n{yaml.safe_dump(platform)}")
    run = submit(client, {"both": str(both)}, "both")
    assert client.get_run(run).pipeline_spec["platform_spec"] == platform
    client.upload_pipeline(str(both), "both")
    [package] = kubeflow.pipelines.packages.values()
    [double] = [task for path, task in package.pipeline.walk() if path == "double"]
    assert double.component.platforms == {"kubernetes": {"imagePullPolicy": "Always"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"display_name": ""}, "Run name cannot be empty"),
        ({"pipeline_spec": None}, "either pipeline_spec or pipeline_version_reference"),
        ({"pipeline_spec": {"pipelineInfo": {"name": "x"}, "roof": {}}}, "roof"),
        ({"runtime_config": {"parameters": {"numer": 1}}}, "did you mean number"),
        ({"runtime_config": {"parameters": {"number": "x"}}}, "parameter number"),
        ({"runtime_config": {"parameters": {"number": 1, "text": "x" * 10_000}}}, "10,022 bytes together"),
        ({"experiment_id": "nowhere"}, "Experiment nowhere not found"),
    ],
)
def test_what_kubeflow_refuses_is_refused(client, specs, body, message):
    spec = yaml.safe_load(Path(specs["doubling"]).read_text())
    with pytest.raises(ApiException) as caught:
        client.runs.run_service_create_run(run={"display_name": "x", "pipeline_spec": spec, **body})
    assert caught.value.status in (400, 404)
    assert message in json.loads(caught.value.body)["message"]


def test_a_spec_that_kubeflow_would_run_wrongly_is_refused_when_it_comes(client, specs, tmp_path):
    spec = yaml.safe_load(Path(specs["doubling"]).read_text())
    spec["root"]["dag"]["tasks"]["double"]["dependentTasks"] = ["describe"]
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(spec))
    for send in (
        lambda: client.upload_pipeline(str(broken), "broken"),
        lambda: submit(client, {"x": str(broken)}, "x"),
    ):
        with pytest.raises(ApiException) as caught:
            send()
        assert "double" in json.loads(caught.value.body)["message"]


def test_lists_are_filtered_sorted_and_come_in_pages(kubeflow, client, specs):
    kubeflow.play = Script("SUCCEEDED")
    other = client.create_experiment("other").experiment_id
    for name in "abcde":
        submit(client, specs, run_name=f"run-{name}", experiment_id=other if name in "ab" else None)
    assert client.list_runs(experiment_id=other).total_size == 2

    def names(**query):
        return [run.display_name[-1] for run in client.list_runs(**query).runs or []]

    first = client.list_runs(page_size=2, sort_by="created_at desc")
    assert [run.display_name[-1] for run in first.runs] == ["e", "d"]
    assert names(page_size=2, sort_by="created_at desc", page_token=first.next_page_token) == ["c", "b"]
    assert names(sort_by="display_name") == list("abcde")

    def filtered(operation, key, **value):
        return names(filter=json.dumps({"predicates": [{"operation": operation, "key": key, **value}]}))

    assert filtered("EQUALS", "display_name", stringValue="run-b") == ["b"]
    assert filtered(1, "name", string_value="run-b") == ["b"]
    assert filtered("NOT_EQUALS", "display_name", stringValue="run-b") == list("acde")
    assert filtered("IN", "display_name", stringValues={"values": ["run-a", "run-e"]}) == ["a", "e"]
    assert filtered("IS_SUBSTRING", "display_name", stringValue="un-c") == ["c"]
    assert filtered("GREATER_THAN", "created_at", timestampValue="2100-01-01T00:00:00Z") == []
    with pytest.raises(ApiException, match="Invalid field"):
        filtered("EQUALS", "colour", stringValue="red")
    with pytest.raises(ApiException, match="Invalid sort_by"):
        names(sort_by="created_at backwards")


def test_runs_are_archived_and_deleted(kubeflow, client, specs):
    kubeflow.play = Script("RUNNING SUCCEEDED")
    run = submit(client, specs)
    with pytest.raises(ApiException, match="Failed to archive"):
        client.archive_run(run)
    finished(client, run)
    client.archive_run(run)
    assert client.get_run(run).storage_state == "ARCHIVED"
    client.unarchive_run(run)
    client.delete_run(run)
    with pytest.raises(ApiException, match="not found"):
        client.get_run(run)


def test_experiments_are_archived_and_deleted(client):
    experiment = client.create_experiment("taxi", "tips").experiment_id
    assert client.create_experiment("taxi").experiment_id == experiment
    client.archive_experiment(experiment)
    assert client.get_experiment(experiment).storage_state == "ARCHIVED"
    client.unarchive_experiment(experiment)
    client.delete_experiment(experiment)
    assert [each.display_name for each in client.list_experiments().experiments] == ["Default"]


def recurring(client, specs, **settings):
    schedule = settings or {"cron_expression": "0 0 9 ? * MON-FRI"}
    experiment = client.create_experiment("weekly").experiment_id
    return client.create_recurring_run(
        experiment, "weekly", pipeline_package_path=specs["doubling"], params={"number": 2}, **schedule
    ).recurring_run_id


def test_a_recurring_run_fires_by_hand_while_it_is_enabled(kubeflow, client, specs):
    kubeflow.play = Script("RUNNING SUCCEEDED")
    key = recurring(client, specs)
    run = kubeflow.fire(key)
    assert client.get_run(run).recurring_run_id == key
    assert kubeflow.fire(key) is None, "one is at work, and no more may be"
    finished(client, run)
    assert kubeflow.fire(key)
    client.disable_recurring_run(key)
    assert client.get_recurring_run(key).status == "DISABLED"
    with pytest.raises(PenstockError, match="weekly is disabled"):
        kubeflow.fire(key)
    client.enable_recurring_run(key)
    assert client.list_recurring_runs().total_size == 1
    client.delete_recurring_run(key)
    with pytest.raises(PenstockError, match="there is no recurring run"):
        kubeflow.fire(key)


def test_time_that_passes_starts_what_is_due(kubeflow, client, specs):
    kubeflow.play = Script("SUCCEEDED")
    recurring(client, specs)
    made = kubeflow.advance(days=7)
    due = [client.get_run(run).scheduled_at for run in made]
    assert len(due) == 5
    assert {(time.astimezone(datetime.UTC).weekday() < 5, time.astimezone(datetime.UTC).hour) for time in due} == {
        (True, 9)
    }
    assert kubeflow.advance(seconds=0) == []


def test_an_interval_and_what_kubeflow_fills_into_parameters(kubeflow, client, specs):
    kubeflow.play = Script("SUCCEEDED")
    experiment = client.create_experiment("hourly").experiment_id
    client.create_recurring_run(
        experiment, "hourly", interval_second=3600, pipeline_package_path=specs["failing"],
        params={"message": "[[Index]] at [[ScheduledTime.2006-01-02]]"},
    )  # fmt: skip
    today = kubeflow.clock().date()
    first, *_ = made = kubeflow.advance(hours=3)
    assert len(made) == 3
    message = client.get_run(first).runtime_config.parameters["message"]
    assert message in (f"1 at {today}", f"1 at {today + datetime.timedelta(days=1)}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cron_expression": "0 9 * * *"}, "has 5 fields"),
        ({"cron_expression": "0 0 25 * * *"}, "hour: '25' is not between 0 and 23"),
        ({"cron_expression": "0 0 9 * * *", "max_concurrency": 11}, "max_concurrency"),
        ({"interval_second": -1}, "interval"),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(client, specs, settings, message):
    with pytest.raises(ApiException) as caught:
        recurring(client, specs, **settings)
    assert message in json.loads(caught.value.body)["message"]


def test_the_client_points_where_it_did_when_the_stand_in_goes():
    before = os.environ.get("KF_PIPELINES_ENDPOINT")
    with KubeflowStandIn(Script()) as stand_in, stand_in.connected():
        assert os.environ["KF_PIPELINES_ENDPOINT"] == stand_in.url
    assert os.environ.get("KF_PIPELINES_ENDPOINT") == before


def test_over_tls_the_client_trusts_its_certificate(specs):
    with KubeflowStandIn(Script(), tls=True) as stand_in:
        client = kfp.Client(stand_in.url, ssl_ca_cert=str(stand_in.ca_file))
        assert client.list_runs().total_size == 0
