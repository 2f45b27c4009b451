"""The Azure ML stand-in, by azure-ai-ml itself."""

import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.compile.errors import PenstockError
from penstock.testing import ALWAYS, AzureMLStandIn, Fault, JobState, Script

pytestmark = pytest.mark.xdist_group("azureml")
ml = pytest.importorskip("azure.ai.ml")
entities = pytest.importorskip("azure.ai.ml.entities")
errors = pytest.importorskip("azure.core.exceptions")
ml_errors = pytest.importorskip("azure.ai.ml.exceptions")


@pytest.fixture
def azureml():
    with AzureMLStandIn() as stand_in, stand_in.connected():
        yield stand_in


@pytest.fixture
def client(azureml):
    return azureml.client()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """In a folder that git does not know: the client would ask it five things about each job."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def code(tmp_path):
    return code_in(tmp_path)


def code_in(tmp_path):
    folder = tmp_path / "code"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_bytes(b"import lib.own\r\n")
    (folder / "lib" / "own.py").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture
def components(code):
    return components_of(code)


def components_of(code):
    """Return two components of commands, prepare and train, the second of which needs a table."""

    def component(name, inputs, outputs):
        ports = [f"${{{{inputs.{each}}}}}" for each in inputs] + [f"${{{{outputs.{each}}}}}" for each in outputs]
        return entities.CommandComponent(
            name=name,
            version="1",
            command=" ".join(["python main.py", *ports]),
            environment=entities.Environment(image="python:3.11"),
            code=str(code),
            inputs=inputs,
            outputs=outputs,
        )

    table = {"type": "uri_folder"}
    return (
        component("prepare", {"day": {"type": "string"}}, {"table": table}),
        component("train", {"table": table, "rate": {"type": "number", "default": 0.1}}, {"model": table}),
    )


SHOP = """
    name: NAME
    type: pipeline
    settings: {default_compute: azureml:cpu-cluster}
    inputs: {day: "DAY"}
    jobs:
      prepared: {type: command, component: azureml:prepare:1, inputs: {day: "${{parent.inputs.day}}"}}
      trained: {type: command, component: azureml:train:1, inputs: {table: "${{parent.jobs.prepared.outputs.table}}"}}
    """


@pytest.fixture
def job(azureml, tmp_path):
    """A job of two components that are there already, which a client sends in a sixth of the time."""
    put(azureml, "/environments/own/versions/1", image="python:3.11")
    table = {"type": "uri_folder"}
    for name, inputs, output in (
        ("prepare", {"day": {"type": "string"}}, "table"),
        ("train", {"table": table}, "model"),
    ):
        put(
            azureml,
            f"/components/{name}/versions/1",
            componentSpec={
                "name": name,
                "type": "command",
                "command": f"{name} ${{{{outputs.{output}}}}}",
                "environment": "azureml:own:1",
                "inputs": inputs,
                "outputs": {output: table},
            },
        )
    return written(tmp_path)


def written(folder, name="shop-1", day="2026-01-31"):
    (folder / "shop.yml").write_text(SHOP.replace("NAME", name).replace("DAY", day))
    return ml.load_job(folder / "shop.yml")


def put(azureml, path, **properties):
    status, body = send(azureml, "PUT", path, {"properties": properties})
    assert status == 201, body


def shop(prepare, train, name="shop-1"):
    @ml.dsl.pipeline(name="shop", default_compute="cpu-cluster")
    def pipeline(day: str = "2026-01-31"):
        prepared = prepare(day=day)
        trained = train(table=prepared.outputs.table)
        return {"model": trained.outputs.model}

    made = pipeline()
    made.name = name
    return made


def named(client, job="shop-1"):
    return {child.display_name: child.status for child in client.jobs.list(parent_job_name=job)}


def paths(azureml, on="* *"):
    return [f"{each.method} {each.path.removeprefix(azureml.scope.id)}" for each in azureml.seen(on)]


def send(azureml, method, path, body=None, headers=None):
    """Send a request as any other client would; return the status and what the answer says."""
    context = ssl.create_default_context(cafile=azureml.ca_file)
    connection = http.client.HTTPSConnection(*azureml.address.split(":"), timeout=10, context=context)
    headers = {"Authorization": "Bearer x"} if headers is None else headers
    data = None if body is None else json.dumps(body)
    connection.request(method, azureml.scope.id + path, data, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    found = json.loads(answer.read() or b"null")
    connection.close()
    return answer.status, found


def message(answer):
    return answer[1]["error"]["message"]


# Submitting.


def test_a_pipeline_is_submitted_with_its_code_byte_for_byte(azureml, client, components):
    found = client.jobs.create_or_update(shop(*components), experiment_name="taxi")
    assert (found.name, found.status, found.experiment_name) == ("shop-1", "NotStarted", "taxi")
    assert found.studio_url.startswith("https://ml.azure.testing/runs/shop-1?wsid=/subscriptions/")
    assert "&tid=" in found.studio_url  # out of the token
    [put] = azureml.seen("PUT */jobs/shop-1")
    assert put.headers["x-azureml-token"] == "(not kept)"
    nodes = put.body["properties"]["jobs"]
    assert nodes["trained"]["inputs"]["table"]["value"] == "${{parent.jobs.prepared.outputs.table}}"
    component = client.components.get("azureml_anonymous", nodes["trained"]["componentId"].rpartition("/")[2])
    files = azureml.assets.files(component.code)
    assert files == {"main.py": b"import lib.own\r\n", "lib/own.py": bytes(range(256))}


def test_the_same_code_is_uploaded_once(azureml, client, components):
    client.jobs.create_or_update(shop(*components))
    assert len(azureml.seen("POST */startPendingUpload")) == 1
    client.jobs.create_or_update(shop(*components, name="shop-2"))
    assert len(azureml.seen("POST */startPendingUpload")) == 1
    assert len(list(client.jobs.list())) == 2


def test_requests_come_in_the_order_that_a_submit_is_known_for(azureml, client, components):
    client.jobs.create_or_update(shop(*components))
    asked = [path.partition("/versions")[0] for path in paths(azureml, "[!H]* */providers/*")]
    wanted = ("GET /computes", "PUT /environments", "POST /codes", "PUT /codes", "PUT /components", "PUT /jobs")
    first = [next((at for at, path in enumerate(asked) if path.startswith(each)), None) for each in wanted[1:]]
    assert None not in first
    assert first == sorted(first)


def test_a_lost_answer_is_asked_for_again_and_there_is_one_job(azureml, client, job):
    azureml.add_faults(Fault.lost("PUT */jobs/*"), Fault.answer("PUT */jobs/*", 503, retry_after=0.01))
    client.jobs.create_or_update(job)
    assert [request.status for request in azureml.seen("PUT */jobs/*")] == [None, 503, 200]
    assert [each.name for each in client.jobs.list()] == ["shop-1"]


def test_a_reset_connection_made_no_job(azureml, job):
    once = azureml.client(retry_total=0)
    azureml.add_faults(Fault.reset("PUT */jobs/*"))
    with pytest.raises((errors.ServiceRequestError, errors.ServiceResponseError)):
        once.jobs.create_or_update(job)
    assert list(once.jobs.list()) == []


def test_what_a_client_no_longer_waits_for_is_done_in_the_end(azureml, client, job):
    azureml.play = Script("RUNNING")
    client.jobs.create_or_update(job)
    azureml.add_faults(Fault.stall("POST */cancel", 1.5))
    with pytest.raises(errors.ServiceResponseError):
        azureml.client(read_timeout=0.5, retry_total=0).jobs.begin_cancel("shop-1")
    end = time.monotonic() + 30
    while client.jobs.get("shop-1").status != "Canceled":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_name_is_taken_once_and_only_words_about_a_job_change(azureml, client, job, tmp_path):
    client.jobs.create_or_update(job, tags={"team": "taxi"})
    with pytest.raises(errors.HttpResponseError, match="shop-1 already exists, and its inputs cannot be changed"):
        client.jobs.create_or_update(written(tmp_path, day="2026-02-01"))
    client.jobs.update("shop-1", tags={"stage": "test"}, display_name="Shop")
    found = client.jobs.get("shop-1")
    assert (found.tags, found.display_name) == ({"team": "taxi", "stage": "test"}, "Shop")
    assert azureml.seen("PUT */jobs/*")[0].body["properties"]["tags"] == {"team": "taxi"}
    client.jobs.archive("shop-1")
    assert list(client.jobs.list()) == []
    client.jobs.restore("shop-1")
    assert [each.name for each in client.jobs.list()] == ["shop-1"]


def test_a_lone_command_is_a_job_too(azureml, client, code):
    step = ml.command(
        command="python main.py ${{inputs.rate}}",
        inputs={"rate": 0.5},
        environment=entities.Environment(image="python:3.11"),
        code=str(code),
        compute="cpu-cluster",
    )
    name = client.jobs.create_or_update(step).name
    assert [client.jobs.get(name).status for _ in range(3)] == ["NotStarted", "Running", "Completed"]
    step.command, step.name = "python main.py ${{inputs.pace}}", None
    assert message(send(azureml, "PUT", "/jobs/x", {"properties": {"jobType": "Command", "command": " "}})) == (
        "The command is required."
    )


# How jobs go.


def test_a_script_says_what_each_poll_is_told(azureml, client, job):
    azureml.play = Script("PENDING RUNNING FAILED", error="the node was lost", tasks={"prepared": "SUCCEEDED"})
    client.jobs.create_or_update(job)
    assert client.jobs.get("shop-1").status == "NotStarted"
    assert named(client) == {"prepared": "Running", "trained": "Running"}
    assert client.jobs.get("shop-1").status == "Failed"
    assert named(client) == {"prepared": "Completed", "trained": "Failed"}
    [child, _] = client.jobs.list(parent_job_name="shop-1")
    assert client.jobs.get(child.name).status == "Completed"
    with pytest.raises(ml_errors.JobException, match="the node was lost"):
        client.jobs.stream("shop-1")


def test_a_job_is_streamed_to_its_end(azureml, client, job, capsys, tmp_path):
    client.jobs.create_or_update(job)
    client.jobs.stream("shop-1")
    said = capsys.readouterr().out
    assert "Streaming logs/azureml/executionlogs.txt" in said
    assert "] trained: Running" in said
    assert "Execution Summary" in said
    client.jobs.download("shop-1", download_path=tmp_path)
    log = tmp_path / "artifacts" / "logs" / "azureml" / "executionlogs.txt"
    assert log.read_text().splitlines()[-1].endswith("] shop-1: Completed")


def test_a_function_plays_a_job_and_ends_what_it_runs_when_that_is_cancelled(azureml, client, job):
    seen, ended = {}, []

    def play(payload):
        seen.update(payload)
        try:
            yield "Preparing"
            yield JobState("Running", {"prepared": "Completed"})
            yield JobState("Running", {"prepared": "Completed", "trained": "Queued"})
        finally:
            ended.append(payload["name"])

    azureml.play = play
    client.jobs.create_or_update(job)
    assert client.jobs.get("shop-1").status == "Preparing"
    assert named(client) == {"prepared": "Completed", "trained": "Running"}
    assert (seen["name"], seen["jobType"], list(seen["jobs"])) == ("shop-1", "Pipeline", ["prepared", "trained"])
    assert ended == []
    client.jobs.begin_cancel("shop-1").result()
    assert ended == ["shop-1"]
    assert client.jobs.get("shop-1").status == "Canceled"
    assert named(client) == {"prepared": "Completed", "trained": "Canceled"}


def test_what_a_function_plays_is_ended_with_the_stand_in(azureml, client, job):
    ended = []

    def play(payload):
        try:
            yield "Running"
        finally:
            ended.append(True)

    azureml.play = play
    client.jobs.create_or_update(job)
    assert client.jobs.get("shop-1").status == "Running"
    azureml.close()
    assert ended == [True]


@pytest.mark.parametrize(
    ("yields", "said"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: "Runing", "'Runing' is no status of a job; there are NotStarted"),
        (lambda: JobState("Running", {"evaluated": "Queued"}), "no node is called evaluated; there are prepared"),
    ],
)
def test_a_mistake_in_how_a_job_is_played_is_told_of(azureml, client, job, yields, said):
    def play(payload):
        yield yields()

    azureml.play = play
    client.jobs.create_or_update(job)
    with pytest.raises(ml_errors.JobException, match=said):
        client.jobs.stream("shop-1")


def test_a_script_that_names_no_node_is_refused(azureml, client, job):
    azureml.play = Script("RUNNING", tasks={"evaluated": "FAILED"})
    with pytest.raises(errors.HttpResponseError, match="names a node evaluated; the job has prepared, trained"):
        client.jobs.create_or_update(job)


# Cancelling.


def test_a_cancel_can_fail_as_often_as_a_test_wants(azureml, client, job):
    azureml.play = Script("RUNNING", cancelling=1)
    once = azureml.client(retry_total=0)
    once.jobs.create_or_update(job)
    azureml.add_faults(Fault.answer("POST */cancel", 503, times=2))
    for _ in range(2):
        with pytest.raises(errors.HttpResponseError):
            once.jobs.begin_cancel("shop-1")
        assert once.jobs.get("shop-1").status == "Running"
    once.jobs.begin_cancel("shop-1").result()
    assert [once.jobs.get("shop-1").status for _ in range(2)] == ["CancelRequested", "Canceled"]


def test_what_has_ended_cannot_be_cancelled(azureml, client, job):
    azureml.play = Script("SUCCEEDED")
    client.jobs.create_or_update(job)
    client.jobs.get("shop-1")
    with pytest.raises(errors.HttpResponseError, match="shop-1 is Completed and cannot be cancelled"):
        client.jobs.begin_cancel("shop-1")
    with pytest.raises(errors.ResourceNotFoundError, match="Job shop-2 not found"):
        client.jobs.begin_cancel("shop-2")


def test_a_job_is_deleted_once_it_has_ended(azureml, client, job, tmp_path):
    client.jobs.create_or_update(job, tags={"team": "taxi"})
    client.jobs.create_or_update(written(tmp_path, "shop-2"))
    tagged = send(azureml, "GET", "/jobs?tag=team%3Dtaxi")[1]["value"]
    assert [each["name"] for each in tagged] == ["shop-1"]
    with pytest.raises(errors.HttpResponseError, match="shop-1 is NotStarted; cancel it before"):
        client.jobs.begin_delete("shop-1")
    client.jobs.begin_cancel("shop-1").result()
    client.jobs.begin_delete("shop-1").result()
    assert [each.name for each in client.jobs.list()] == ["shop-2"]


# What is refused.


def test_an_unknown_compute_is_not_found(azureml, client, job):
    with pytest.raises(errors.ResourceNotFoundError, match="Compute with name tpu-cluster not found"):
        client.compute.get("tpu-cluster")
    with pytest.raises(ml_errors.MlException, match="tpu-cluster not found"):
        client.jobs.create_or_update(job, compute="tpu-cluster")
    assert [each.name for each in client.compute.list()] == ["cpu-cluster", "gpu-cluster"]


WRITTEN = {
    "job.yml": """
        type: pipeline
        settings: {default_compute: azureml:cpu-cluster}
        inputs: {day: "DAY"}
        jobs:
          prepared: {type: command, component: ./prepare.yml, inputs: {day: "${{parent.inputs.day}}"}}
          trained:
            type: command
            component: ./train.yml
            inputs: {table: "${{parent.jobs.prepared.outputs.TABLE}}"}
        """,
    "prepare.yml": """
        name: prepare
        type: command
        inputs: {day: {type: string}}
        outputs: {table: {type: uri_folder}}
        environment: {image: "python:3.11"}
        command: prepare ${{inputs.day}} ${{outputs.table}}
        """,
    "train.yml": """
        name: train
        type: command
        inputs: {table: {type: uri_folder}}
        environment: {image: "python:3.11"}
        command: train ${{inputs.table}}
        """,
}


@pytest.mark.parametrize(
    ("day", "table", "said"),
    [
        (
            "today",
            "tabel",
            "jobs.trained.inputs.table: ${{parent.jobs.prepared.outputs.tabel}}: node prepared has no output tabel; "
            "it has table",
        ),
        # What is empty the client leaves out, and leaves what is bound to it.
        ("", "table", "jobs.prepared.inputs.day: ${{parent.inputs.day}}: the pipeline has no input day; it has none"),
    ],
)
def test_a_binding_that_names_nothing_is_refused_where_the_client_sends_it(client, tmp_path, day, table, said):
    for name, text in WRITTEN.items():
        (tmp_path / name).write_text(text.replace("DAY", day).replace("TABLE", table))
    with pytest.raises(errors.HttpResponseError) as caught:
        client.jobs.create_or_update(ml.load_job(tmp_path / "job.yml"))
    assert (caught.value.status_code, said in caught.value.message) == (400, True), caught.value.message
    assert list(client.jobs.list()) == []


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A stand-in that has taken a job, and the job's properties: what is refused changes neither."""
    with AzureMLStandIn() as stand_in:
        with stand_in.connected():
            stand_in.client().jobs.create_or_update(shop(*components_of(code_in(tmp_path_factory.mktemp("taken")))))
        [put] = stand_in.seen("PUT */jobs/shop-1")
        yield stand_in, json.dumps(put.body["properties"])


@pytest.fixture
def payload(taken):
    return json.loads(taken[1])


def literal(value):
    return {"job_input_type": "literal", "value": value}


@pytest.mark.parametrize(
    ("path", "value", "status", "said"),
    [
        ("jobs", {}, 400, "jobs: a pipeline needs at least one node"),
        ("jobs.Train", {}, 400, "jobs.Train: lower-case letters"),
        ("jobs.more", {"type": "command"}, 400, "jobs.more: the componentId is required"),
        ("jobs.trained.componentId", "azureml:train:7", 404, "train:7 not found; there is no component train"),
        ("jobs.trained.computeId", "x/computes/tpu", 404, "jobs.trained.computeId: Compute with name tpu not found"),
        ("settings", {}, 400, "jobs.prepared: no compute is given"),
        ("jobs.trained.inputs.table.value", "${{parent.jobs.before.outputs.table}}", 400, "there is no node before"),
        ("jobs.trained.inputs.table.value", "${{parent.job.prepared.outputs.table}}", 400, "is no binding"),
        ("jobs.prepared.inputs.day.value", "${{parent.inputs.month}}", 400, "the pipeline has no input month"),
        ("jobs.trained.outputs.model.value", "${{parent.outputs.net}}", 400, "the pipeline has no output net"),
        ("jobs.trained.limits", {"timeout": "${{parent.inputs.t}}"}, 400, "jobs.trained.limits.timeout: "),
        ("jobs.prepared.inputs.day.value", "${{parent.jobs.trained.outputs.model}}", 400, "wait for each other"),
        ("jobs.trained.inputs", {}, 400, "jobs.trained.inputs.table: it is required, and not given"),
        ("jobs.trained.inputs.depth", literal("3"), 400, "jobs.trained.inputs.depth: its component has none"),
        ("jobs.trained.inputs.rate", literal("fast"), 400, "jobs.trained.inputs.rate: 'fast' is no number"),
        ("jobs.trained.outputs", {f"o{n}": {} for n in range(21)}, 400, "at most 20 outputs, these are 21"),
        ("jobs.trained.inputs", {f"i{n}": literal("1") for n in range(201)}, 400, "at most 200 inputs, these are 201"),
        ("jobs.trained.outputs", {"model": {}, "Model": {}}, 400, "model and Model differ only in their case"),
        ("tags", {str(n): "x" for n in range(51)}, 400, "tags: at most 50, these are 51"),
        ("displayName", "x" * 257, 400, "displayName: at most 256 characters, this has 257"),
        ("jobType", "AutoML", 400, "the stand-in has Pipeline and Command, not AutoML"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.islower() and "$" not in value else "",
)
def test_what_azure_ml_refuses_is_refused(taken, payload, path, value, status, said):
    *above, last = path.split(".")
    target = payload
    for key in above:
        target = target[key]
    target[last] = value
    answer = send(taken[0], "PUT", "/jobs/shop-2", {"properties": payload})
    assert answer[0] == status
    assert said in message(answer)


@pytest.mark.parametrize("name", ["-shop", "shop%20one", "x" * 256])
def test_a_name_that_is_none_is_refused(taken, payload, name):
    answer = send(taken[0], "PUT", f"/jobs/{name}", {"properties": payload})
    assert answer[0] == 400
    assert "letters, digits, '_' and '-' make one" in message(answer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": ""}, "the command is required"),
        ({"command": "run ${{inputs.pace}}"}, "command: there is no input pace; there are table, rate"),
        ({"environment": "azureml:nowhere:1"}, "environment: Environment nowhere:1 not found"),
        ({"code": "azureml:nowhere:1"}, "code: Code nowhere:1 not found"),
        ({"outputs": {f"o{n}": {} for n in range(21)}}, "at most 20 outputs"),
        ({"type": None}, "the componentSpec has no type"),
    ],
)
def test_a_component_that_cannot_run_is_refused(azureml, client, components, change, said):
    client.components.create_or_update(components[1])
    [put] = azureml.seen("PUT */components/*")
    put.body["properties"]["componentSpec"].update(change)
    answer = send(azureml, "PUT", "/components/train/versions/2", put.body)
    assert answer[0] in (400, 404)
    assert said in message(answer)


def test_another_workspace_and_a_request_without_a_token_are_refused(azureml):
    other = ml.MLClient(azureml.client()._credential, azureml.scope.subscription, azureml.scope.group, "other")
    with pytest.raises(errors.ResourceNotFoundError, match="workspaces/other' under resource group 'test-group'"):
        other.workspaces.get("other")
    assert send(azureml, "GET", "/jobs", headers={})[0] == 401


# What the workspace keeps.


def test_lists_come_in_pages():
    clusters = {f"cluster-{number}": "STANDARD_DS3_V2" for number in range(120)}
    with AzureMLStandIn(computes=clusters) as stand_in, stand_in.connected():
        assert [each.name for each in stand_in.client().compute.list()] == list(clusters)
        assert [request.query.get("$skip") for request in stand_in.seen("GET */computes")] == [None, "100"]


def test_versions_of_components_and_environments(azureml, client, components):
    prepare = components[0]
    assert client.components.create_or_update(prepare).id.endswith("/components/prepare/versions/1")
    client.components.create_or_update(prepare)
    prepare.command += " --fast"
    with pytest.raises(errors.ResourceExistsError, match="prepare:1 already exists, and its componentSpec"):
        client.components.create_or_update(prepare)
    client.components.create_or_update(prepare, version="2")
    assert client.components.get("prepare", label="latest").version == "2"
    assert [each.name for each in client.components.list()] == ["prepare"]
    assert [each.version for each in client.components.list("prepare")] == ["1", "2"]
    for image in ("python:3.11", "python:3.12"):
        client.environments.create_or_update(entities.Environment(name="own", image=image))
    assert client.environments.get("own", label="latest").image == "python:3.12"


def test_a_registered_pipeline_component_is_a_job_and_its_nodes_are_known(azureml, client, components):
    prepare, train = components

    @ml.dsl.pipeline(name="whole")
    def whole(day: str):
        prepared = prepare(day=day)
        train(table=prepared.outputs.table)

    registered = client.components.create_or_update(whole(day="x").component)

    @ml.dsl.pipeline(name="outer", default_compute="cpu-cluster")
    def outer():
        registered(day="2026-01-31")

    name = client.jobs.create_or_update(outer()).name
    client.jobs.get(name)
    assert named(client, name) == {"whole": "Running"}


def test_datastores_of_ones_own_come_and_go_and_their_keys_are_not_shown(azureml, client):
    own = entities.AzureBlobDatastore(
        name="own",
        account_name="account",
        container_name="data",
        credentials=entities.AccountKeyConfiguration(account_key="canary"),
    )
    client.datastores.create_or_update(own)
    assert client.datastores.get("own").container_name == "data"
    assert [each.name for each in client.datastores.list()] == ["workspaceblobstore", "workspaceartifactstore", "own"]
    assert "canary" not in json.dumps(send(azureml, "GET", "/datastores"))
    client.datastores.delete("own")
    with pytest.raises(errors.ResourceNotFoundError, match="Datastore own not found"):
        client.datastores.get("own")
    with pytest.raises(errors.HttpResponseError, match="belongs to the workspace and cannot be deleted"):
        client.datastores.delete("workspaceblobstore")


def test_data_goes_to_the_default_datastore(azureml, client, code):
    assert client.datastores.get_default().name == "workspaceblobstore"
    data = entities.Data(name="raw", version="1", path=str(code), type="uri_folder")
    path = client.data.create_or_update(data).path
    folder = path.partition("/paths/")[2]
    assert azureml.blobs.read(azureml.workspace.container, f"{folder}/main.py") == b"import lib.own\r\n"


def test_blobs_in_blocks_in_ranges_and_under_conditions(azureml):
    blob = pytest.importorskip("azure.storage.blob")
    azureml.blobs.make("data")
    container = blob.ContainerClient.from_container_url(
        f"{azureml.url}/account.blob.penstock.testing/data?{azureml.blobs.sas()}",
        max_single_put_size=1000,
        max_block_size=1000,
    )
    content = bytes(range(256)) * 20
    container.upload_blob("folder/a&b", content, metadata={"kind": "test"})
    assert len(azureml.seen("PUT */folder/a&b")) == 7  # six blocks, and their list
    assert container.download_blob("folder/a&b").readall() == content
    assert container.download_blob("folder/a&b", offset=10, length=5).readall() == content[10:15]
    assert container.get_blob_client("folder/a&b").get_blob_properties().metadata == {"kind": "test"}
    with pytest.raises(errors.ResourceExistsError):
        container.upload_blob("folder/a&b", b"other")
    container.upload_blob("c", b"1")
    assert [each.name for each in container.list_blobs(results_per_page=1)] == ["c", "folder/a&b"]
    assert {each.name for each in container.walk_blobs()} == {"c", "folder/"}
    container.delete_blob("c")
    assert not container.get_blob_client("c").exists()
    stranger = blob.ContainerClient.from_container_url(f"{azureml.url}/account.blob.penstock.testing/data")
    with pytest.raises(errors.ClientAuthenticationError):
        stranger.download_blob("folder/a&b")


# Schedules.


def daily(job, trigger=None, name="daily"):
    trigger = trigger or entities.CronTrigger(expression="0 6 * * 1-5", time_zone="UTC")
    return entities.JobSchedule(name=name, trigger=trigger, create_job=job)


def test_a_schedule_starts_jobs_while_it_is_enabled(azureml, client, job):
    job.name = None
    made = client.schedules.begin_create_or_update(daily(job)).result()
    assert (made.is_enabled, made.provisioning_state) == (True, "Succeeded")
    first, second = azureml.fire("daily"), client.schedules.trigger("daily").job_name
    assert {each.name for each in client.jobs.list(scheduled_job_name="daily")} == {first, second}
    assert azureml.jobs.given(first)["inputs"]["day"]["value"] == "2026-01-31"
    assert not client.schedules.begin_disable("daily").result().is_enabled
    assert list(client.schedules.list()) == []
    with pytest.raises(PenstockError, match="daily is disabled"):
        azureml.fire("daily")
    assert client.schedules.begin_enable("daily").result().is_enabled
    with pytest.raises(errors.HttpResponseError, match="disable it before you delete it"):
        client.schedules.begin_delete("daily")
    client.schedules.begin_disable("daily").result()
    client.schedules.begin_delete("daily").result()
    with pytest.raises(errors.ResourceNotFoundError):
        client.schedules.get("daily")


def test_a_schedule_of_a_job_that_is_there_starts_others_like_it(azureml, client, job):
    client.jobs.create_or_update(job)
    trigger = entities.RecurrenceTrigger(frequency="week", interval=1)
    client.schedules.begin_create_or_update(daily(client.jobs.get("shop-1"), trigger)).result()
    name = azureml.fire("daily")
    assert list(client.jobs.get(name).jobs) == ["prepared", "trained"]


def test_a_schedule_that_means_nothing_is_refused(client, job):
    with pytest.raises(errors.HttpResponseError, match=r"trigger\.expression: .* has 4 fields"):
        client.schedules.begin_create_or_update(daily(job, entities.CronTrigger(expression="0 6 * *")))


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ({}, "trigger.triggerType: None is none of Cron, Recurrence"),
        ({"triggerType": "Cron", "expression": "0 25 * * *"}, "hour: '25' is not between 0 and 23"),
        ({"triggerType": "Cron", "expression": "0 2 * * *", "startTime": "now"}, "trigger.startTime: 'now' is no time"),
        ({"triggerType": "Recurrence", "frequency": "Year"}, "trigger.frequency: 'Year' is none of Minute, Hour"),
        ({"triggerType": "Recurrence", "frequency": "Day"}, "trigger.interval: at least 1, not None"),
    ],
)
def test_a_trigger_that_means_nothing_is_refused(taken, trigger, said):
    answer = send(taken[0], "PUT", "/schedules/daily", {"properties": {"trigger": trigger}})
    assert (answer[0], said in message(answer)) == (400, True), answer


# Coming and going.


def test_all_is_as_it_was_afterwards():
    clouds = ml._azure_environments
    before, environment = dict(clouds._environments), dict(os.environ)
    with AzureMLStandIn() as stand_in, stand_in.connected():
        stand_in.client()
        assert os.environ["AZUREML_CURRENT_CLOUD"] == "PenstockTesting"
        assert clouds._environments != before
    assert (clouds._environments, dict(os.environ)) == (before, environment)


def test_a_proxy_and_trusted_certificates_of_ones_own_are_kept(monkeypatch, tmp_path):
    trusted = tmp_path / "trusted.pem"
    with AzureMLStandIn() as other:
        trusted.write_bytes(other.ca_file.read_bytes())
    for name, value in {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": "own",
        "REQUESTS_CA_BUNDLE": str(trusted),
    }.items():
        monkeypatch.setenv(name, value)
    with AzureMLStandIn() as stand_in, stand_in.connected():
        assert stand_in.client().workspaces.get().location == "westeurope"
        assert os.environ["NO_PROXY"] == "own,127.0.0.1"
        assert Path(os.environ["REQUESTS_CA_BUNDLE"]).read_bytes().endswith(trusted.read_bytes())


def test_faults_without_end_reach_the_caller(azureml):
    azureml.add_faults(Fault.answer("GET */workspaces/*", 500, times=ALWAYS))
    with pytest.raises(errors.HttpResponseError, match="answers 500 now"):
        azureml.client(retry_total=0).workspaces.get()


@pytest.mark.slow
def test_a_program_of_its_own_finds_it_by_its_environment(azureml, code):
    program = (
        "import sys; from azure.ai.ml import MLClient; from azure.identity import DefaultAzureCredential\n"
        "from azure.ai.ml.entities import Data\n"
        "client = MLClient(DefaultAzureCredential(), *sys.argv[1:4])\n"
        "client.data.create_or_update(Data(name='raw', version='1', path=sys.argv[4], type='uri_folder'))\n"
    )
    scope = azureml.scope
    subprocess.run(
        [sys.executable, "-c", program, scope.subscription, scope.group, scope.workspace, str(code)],
        env={**os.environ, **azureml.environment},
        check=True,
        capture_output=True,
        timeout=200,
    )
    assert azureml.seen("GET /identity/token")
    assert azureml.client().data.get("raw", "1").type == "uri_folder"
