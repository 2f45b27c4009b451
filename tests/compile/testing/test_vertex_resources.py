"""Models, endpoints, jobs, buckets and metadata of the Vertex AI stand-in, by Google's own clients."""

import json
import threading

import pytest

from penstock.testing import Fault, Script, VertexStandIn

IMAGE = "us-docker.pkg.dev/project/repository/serve@sha256:" + "0" * 64


def upload(name="fares", **settings):
    from google.cloud import aiplatform

    return aiplatform.Model.upload(
        display_name=name, artifact_uri="gs://models/fares", serving_container_image_uri=IMAGE, **settings
    )


def test_models_have_versions_whose_aliases_move(vertex, aiplatform, exceptions):
    vertex.operations.polls = 1
    first = upload(model_id="fares", labels={"team": "taxi"})
    assert (first.resource_name.rpartition("/")[2], first.version_id) == ("fares", "1")
    second = upload(parent_model=first.resource_name, is_default_version=False, version_aliases=["candidate"])
    assert second.version_id == "2"
    assert aiplatform.Model("fares").version_id == "1"
    assert aiplatform.Model("fares@candidate").version_id == "2"
    registry = second.versioning_registry
    registry.add_version_aliases(["default"], "2")
    assert aiplatform.Model("fares").version_id == "2"
    assert {each.version_id: each.version_aliases for each in registry.list_versions()} == {
        "1": [],
        "2": ["candidate", "default"],
    }
    registry.delete_version("1")
    with pytest.raises(exceptions.BadRequest, match="is the default version"):
        registry.delete_version("2")
    assert [each.name for each in aiplatform.Model.list(filter="labels.team=taxi")] == []
    with pytest.raises(exceptions.Conflict):
        upload(model_id="fares")
    second.delete()
    assert aiplatform.Model.list() == []
    assert vertex.seen("GET /ui/projects/*/operations/*"), "where the SDK asks for operations over REST"


def test_traffic_is_split_over_deployed_models_by_their_shares(vertex, aiplatform, exceptions):
    vertex.endpoints.predict = lambda model, instances, parameters: [
        {"by": model["displayName"], "sum": sum(each)} for each in instances
    ]
    endpoint = aiplatform.Endpoint.create("fares", labels={"team": "taxi"})
    with pytest.raises(exceptions.BadRequest, match="has no deployed model that traffic goes to"):
        endpoint.predict([[1, 2]])
    old, new = upload("old"), upload("new")
    old.deploy(endpoint, machine_type="n1-standard-2")
    new.deploy(endpoint, machine_type="n1-standard-2", traffic_percentage=10)
    answer = endpoint.predict([[1, 2], [3, 4]])
    assert [prediction["sum"] for prediction in answer.predictions] == [3, 7]
    assert answer.deployed_model_id in {each.id for each in endpoint.list_models()}
    served = ["".join(each["by"] for each in endpoint.predict([[1]]).predictions) for _ in range(99)]
    served += [answer.predictions[0]["by"]]
    assert (served.count("old"), served.count("new")) == (90, 10)
    assert served[:20].count("new") >= 1, "the new model's turns are spread"
    own = {each.display_name: each.id for each in endpoint.list_models()}
    with pytest.raises(exceptions.BadRequest, match="have to add up to 100"):
        endpoint.update(traffic_split={own["old"]: 50, own["new"]: 40})
    endpoint.update(traffic_split={own["old"]: 0, own["new"]: 100})
    assert dict(endpoint.traffic_split) == {own["new"]: 100}
    with pytest.raises(exceptions.BadRequest, match="undeploy"):
        endpoint.delete()
    with pytest.raises(exceptions.BadRequest, match="is deployed to"):
        old.delete()
    endpoint.undeploy(own["old"])
    endpoint.undeploy_all()
    old.delete()
    endpoint.delete()
    assert aiplatform.Endpoint.list() == []


def test_without_a_predictor_nothing_is_predicted(vertex, aiplatform, exceptions):
    endpoint = upload().deploy(machine_type="n1-standard-2")
    with pytest.raises(exceptions.BadRequest, match=r"set vertex\.endpoints\.predict"):
        endpoint.predict([[1]])


def test_a_custom_job_passes_through_the_states_of_its_script(vertex, aiplatform, exceptions):
    vertex.job_script = Script("PENDING RUNNING FAILED", error="the node was lost")
    pools = [
        {"machine_spec": {"machine_type": "n1-standard-2"}, "replica_count": 1, "container_spec": {"image_uri": IMAGE}}
    ]
    job = aiplatform.CustomJob("train", pools, labels={"team": "taxi"})
    with pytest.raises(RuntimeError, match="the node was lost"):
        job.run()
    assert job.state.name == "JOB_STATE_FAILED"
    vertex.job_script = Script("RUNNING")
    vertex.add_faults(Fault.answer("POST *:cancel", 503, times=2))
    job = aiplatform.CustomJob("train", pools)
    job.submit()
    with pytest.raises(exceptions.BadRequest, match="cancel it before"):
        job.delete()
    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable):
            job.cancel()
    job.cancel()
    assert job.state.name == "JOB_STATE_CANCELLED"
    assert [each.display_name for each in aiplatform.CustomJob.list(filter="labels.team=taxi")] == ["train"]
    job.delete()
    assert len(aiplatform.CustomJob.list()) == 1


def test_a_batch_prediction_writes_what_the_predictor_gives(vertex, aiplatform):
    vertex.storage.put("gs://data/rows.jsonl", b"[1, 2]\n[3, 4]\n")
    vertex.endpoints.predict = lambda model, instances, parameters: [sum(each) for each in instances]
    job = aiplatform.BatchPredictionJob.create(
        "scores", upload(), gcs_source="gs://data/rows.jsonl", gcs_destination_prefix="gs://data/scores",
        machine_type="n1-standard-2",
    )  # fmt: skip
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    errors, blob = sorted(job.iter_outputs(), key=lambda each: each.name)
    assert errors.download_as_bytes() == b""
    rows = [json.loads(line) for line in blob.download_as_bytes().splitlines()]
    assert rows == [{"instance": [1, 2], "prediction": 3}, {"instance": [3, 4], "prediction": 7}]
    assert job.completion_stats.successful_count == 2


def test_of_many_that_create_an_object_one_does(vertex):
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud import storage

    bucket = storage.Client().create_bucket("races")
    won = []

    def create(number):
        try:
            bucket.blob("current").upload_from_string(str(number), if_generation_match=0)
        except PreconditionFailed:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert bucket.blob("current").download_as_bytes() == str(won[0]).encode()


def test_objects_keep_generations_metadata_ranges_and_large_uploads(vertex, exceptions, tmp_path):
    from google.cloud import storage

    client = storage.Client()
    with pytest.raises(exceptions.NotFound):
        client.bucket("nowhere").blob("x").upload_from_string("x")
    bucket = client.create_bucket("data")
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("data")
    blob = bucket.blob("folder/a b.txt")
    blob.metadata = {"run": "7"}
    blob.upload_from_string("0123456789", content_type="text/plain")
    before = blob.generation
    found = bucket.get_blob("folder/a b.txt")
    assert (found.metadata, found.content_type, found.size) == ({"run": "7"}, "text/plain", 10)
    assert found.download_as_bytes(start=2, end=4) == b"234"
    found.metadata = {"run": "8"}
    found.patch(if_metageneration_match=found.metageneration)
    blob.upload_from_string("new", if_generation_match=before)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.delete(if_generation_match=before)
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 4096)
    parts = bucket.blob("large", chunk_size=256 * 1024)
    parts.upload_from_filename(large)
    assert parts.download_as_bytes() == large.read_bytes()
    bucket.copy_blob(parts, bucket, "folder/copy")
    assert [each.name for each in client.list_blobs("data", prefix="folder/")] == ["folder/a b.txt", "folder/copy"]
    top = client.list_blobs("data", delimiter="/", page_size=1)
    assert ([each.name for each in top], top.prefixes) == (["large"], {"folder/"})
    assert vertex.storage.names("gs://data/folder") == ["gs://data/folder/a b.txt", "gs://data/folder/copy"]
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    bucket.delete(force=True)


def test_gcsfs_finds_the_buckets_too(vertex):
    gcsfs = pytest.importorskip("gcsfs.core")
    vertex.storage.put("gs://data/rows.csv", b"a\n1\n")
    files = gcsfs.GCSFileSystem(token="anon", endpoint_url=vertex.url, skip_instance_cache=True)
    assert files.cat("data/rows.csv") == b"a\n1\n"
    with files.open("data/more.csv", "wb") as file:
        file.write(b"b\n2\n")
    assert vertex.storage.read("gs://data/more.csv") == b"b\n2\n"


def test_a_gcsfs_that_was_imported_before_finds_them_too():
    """Its variable is read once, when it is imported; with it on, each look at a bucket takes a minute of gRPC."""
    pytest.importorskip("gcsfs")
    fsspec = pytest.importorskip("fsspec")
    before = fsspec.get_filesystem_class("gs")
    with VertexStandIn() as vertex, vertex.connected():
        vertex.storage.put("gs://data/rows.csv", b"a\n1\n")
        files, path = fsspec.core.url_to_fs("gs://data/rows.csv", skip_instance_cache=True, timeout=5)
        assert files.info(path)["size"] == 4
        assert [entry["name"] for entry in files.ls("gs://data", detail=True)] == ["data/rows.csv"]
    assert fsspec.get_filesystem_class("gs") is before


def test_an_artifact_of_the_metadata_store_is_a_jobs_input(vertex, aiplatform, tmp_path):
    from kfp import dsl

    from penstock.compile.to_kfp import compiled
    from penstock.testing import Engine

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def read(rows: dsl.Input[dsl.Dataset]) -> str:
        with open(rows.path) as file:
            return file.read()

    rows, spec = tmp_path / "rows.txt", tmp_path / "read.yaml"
    rows.write_text("seven")
    compiled(read).write(spec)
    artifact = aiplatform.Artifact.create("system.Dataset", uri=str(rows), display_name="rows")
    vertex.play = Engine()
    job = aiplatform.PipelineJob("read", str(spec), input_artifacts={"rows": artifact.name})
    job.run()
    assert job.task_details[0].execution.metadata["output:Output"] == "seven"


def test_an_importer_reads_from_the_buckets(vertex, aiplatform, tmp_path):
    pytest.importorskip("gcsfs")
    from kfp import dsl

    from penstock.compile.to_kfp import compiled
    from penstock.testing import Engine

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def read(rows: dsl.Input[dsl.Dataset]) -> str:
        with open(rows.path) as file:
            return file.read()

    @dsl.pipeline(name="importing")
    def importing():
        read(rows=dsl.importer(artifact_uri="gs://data/rows.txt", artifact_class=dsl.Dataset, reimport=False).output)

    spec = tmp_path / "importing.yaml"
    compiled(importing).write(spec)
    vertex.storage.put("gs://data/rows.txt", b"seven")
    vertex.play = Engine()
    job = aiplatform.PipelineJob("importing", str(spec))
    job.run()
    assert {task.execution.metadata.get("output:Output") for task in job.task_details} == {None, "seven"}


def test_an_experiment_run_logs_parameters_and_metrics(vertex, aiplatform):
    aiplatform.init(experiment="fares", experiment_tensorboard=False)
    with aiplatform.start_run("run-1") as run:
        run.log_params({"depth": 6})
        run.log_metrics({"r2": 0.5})
    [row] = aiplatform.get_experiment_df("fares").to_dict("records")
    assert (row["param.depth"], row["metric.r2"]) == (6, 0.5)
