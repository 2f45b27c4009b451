"""Raw data to a model that Vertex AI serves: our components beside the operators of Google Cloud."""

import copy
from typing import Any, Dict, List

from kfp import dsl
from kfp.dsl import Input, Model

from penstock.components import evaluate, ingest, train, validate
from penstock.components.images import image
from penstock.pipelines.tabular_training import TIPS

try:
    from google_cloud_pipeline_components.types.artifact_types import (
        UnmanagedContainerModel,
        VertexEndpoint,
        VertexModel,
    )
    from google_cloud_pipeline_components.v1.batch_predict_job import ModelBatchPredictOp
    from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component
    from google_cloud_pipeline_components.v1.endpoint import EndpointCreateOp, ModelDeployOp
    from google_cloud_pipeline_components.v1.model import ModelUploadOp
except ModuleNotFoundError as error:
    raise ImportError(
        f"vertex_training is made of google-cloud-pipeline-components ({error}); pip install 'penstock[vertex]'"
    ) from error

__all__ = ["vertex_training"]

# The last three are given because the operator drops the defaults of inputs that are None, and nothing says what
# Vertex AI puts in the place of an input that has no value.
train_on_vertex = create_custom_training_job_from_component(
    train, display_name="train", reserved_ip_ranges=[], labels={}, psc_interface_config={}
)


def on_machine(machine_type: Any) -> List[Dict[str, Any]]:
    """Return the worker pool of `train_on_vertex`, on a machine whose type may be a parameter of a pipeline."""
    pools = copy.deepcopy(train_on_vertex.component_spec.inputs["worker_pool_specs"].default)
    for pool in pools:
        pool["machine_spec"]["machine_type"] = machine_type
    return pools


@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def uri_of_model(model: Input[Model]) -> str:
    """Give the URI of a model, which an importer takes as text."""
    return model.uri


@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def uri_of_resource(region: str, name: str) -> str:
    """Give the URI of a model or endpoint that Vertex AI has already; KFP puts no parameters into an importer's."""
    return f"https://{region}-aiplatform.googleapis.com/v1/{name}"


@dsl.pipeline(name="vertex-training")
def vertex_training(
    region: str,
    serving_image: str,
    source: str = "sample://taxi?rows=50000",
    query: str = TIPS,
    eval_fraction: float = 0.2,
    schema_uri: str = "",
    target: str = "big_tip",
    exclude: List[str] = [],
    framework: str = "xgboost",
    hyperparameters: Dict[str, Any] = {},
    seed: int = 0,
    slices: List[str] = ["weekday"],
    gate: List[str] = ["auc >= 0.55"],
    model_name: str = "taxi-tips",
    parent_model: str = "",
    version_aliases: List[str] = ["default"],
    predict_route: str = "/predict",
    health_route: str = "/health",
    port: int = 8080,
    endpoint: str = "",
    traffic_split: Dict[str, str] = {},
    min_replicas: int = 1,
    max_replicas: int = 1,
    batch_source: List[str] = [],
    batch_output: str = "",
    train_machine_type: str = "n1-standard-4",
    serving_machine_type: str = "n1-standard-2",
    service_account: str = "",
    encryption_key: str = "",
    labels: Dict[str, str] = {},
) -> None:
    """Train a tabular model in a job of Vertex AI, and have Vertex AI serve it if it is good enough.

    Runs on Vertex AI only; needs penstock[vertex] to be compiled. Images come from `penstock compile --registry`.

    Args:
        region: Region of every job, model and endpoint, such as "europe-west4"; the run's own.
        serving_image: Image that serves the model; it finds the MLflow folder by AIP_STORAGE_URI.
        source: Path, glob or URI of the files; see ingest.
        query: SQL SELECT over the table `source`. Empty: all columns of all rows.
        eval_fraction: Share of the rows to evaluate on.
        schema_uri: URI of a schema.pbtxt to hold the training data to. Empty: inferred.
        target: Column to predict.
        exclude: Columns not to learn from.
        framework: "xgboost", "lightgbm", "sklearn" or "keras"; see train.
        hyperparameters: The framework's own hyperparameters.
        seed: Of everything random.
        slices: Columns to evaluate by value.
        gate: Conditions for what comes after evaluation; see evaluate.
        model_name: Display name of the model and of a new endpoint.
        parent_model: Model to add a version to, "projects/P/locations/L/models/M". Empty: a new model.
        version_aliases: Aliases of the version; another version that has one loses it.
        predict_route: Path of serving_image that predicts.
        health_route: Path of serving_image that tells whether it is well.
        port: Port of serving_image.
        endpoint: Endpoint to deploy to, "projects/P/locations/L/endpoints/E". Empty: a new one, all traffic to the
            model.
        traffic_split: Percent of the traffic by id of the deployed models of `endpoint`; "0" is the new one. Empty: the
            traffic stays where it is, and the new model gets none until you move it there.
        min_replicas: Machines that serve at least.
        max_replicas: Machines that serve at most.
        batch_source: URIs of JSON Lines files to predict in a batch.
        batch_output: Folder in Cloud Storage for these predictions. Empty: none are made.
        train_machine_type: Machine of the training job.
        serving_machine_type: Machine of the endpoint and of batch predictions.
        service_account: Account that the jobs and the served model run as. Empty: Vertex AI's own.
        encryption_key: Key in Cloud KMS, "projects/P/locations/L/keyRings/R/cryptoKeys/K", of all that is made.
            Empty: Google's.
        labels: Labels of all that is made.
    """
    ingested = ingest(source=source, query=query, eval_fraction=eval_fraction)
    validated = validate(dataset=ingested.outputs["train_set"], schema_uri=schema_uri)
    trained = train_on_vertex(
        train_set=ingested.outputs["train_set"],
        eval_set=ingested.outputs["eval_set"],
        target=target,
        exclude=exclude,
        framework=framework,
        hyperparameters=hyperparameters,
        seed=seed,
        location=region,
        worker_pool_specs=on_machine(train_machine_type),
        service_account=service_account,
        encryption_spec_key_name=encryption_key,
        labels=labels,
    ).after(validated)
    evaluated = evaluate(
        model=trained.outputs["model"], eval_set=ingested.outputs["eval_set"], slices=slices, gate=gate, seed=seed
    )
    with dsl.If(evaluated.outputs["blessed"] == True, name="blessed"):
        served = dsl.importer(
            artifact_uri=uri_of_model(model=trained.outputs["model"]).output,
            artifact_class=UnmanagedContainerModel,
            metadata={
                "containerSpec": {
                    "imageUri": serving_image,
                    "predictRoute": predict_route,
                    "healthRoute": health_route,
                    "ports": [{"containerPort": port}],
                }
            },
        )
        upload = {
            "display_name": model_name,
            "unmanaged_container_model": served.output,
            "version_aliases": version_aliases,
            "labels": labels,
            "encryption_spec_key_name": encryption_key,
            "location": region,
        }
        with dsl.If(parent_model == "", name="new-model"):
            first = ModelUploadOp(**upload).set_caching_options(False)
        with dsl.Else(name="new-version"):
            parent = dsl.importer(
                artifact_uri=uri_of_resource(region=region, name=parent_model).output,
                artifact_class=VertexModel,
                metadata={"resourceName": parent_model},
            )
            version = ModelUploadOp(parent_model=parent.output, **upload).set_caching_options(False)
        uploaded = dsl.OneOf(first.outputs["model"], version.outputs["model"])
        deploy = {
            "model": uploaded,
            "deployed_model_display_name": model_name,
            "dedicated_resources_machine_type": serving_machine_type,
            "dedicated_resources_min_replica_count": min_replicas,
            "dedicated_resources_max_replica_count": max_replicas,
            "service_account": service_account,
        }
        with dsl.If(endpoint == "", name="new-endpoint"):
            created = EndpointCreateOp(
                display_name=model_name, labels=labels, encryption_spec_key_name=encryption_key, location=region
            ).set_caching_options(False)
            deployed = ModelDeployOp(endpoint=created.outputs["endpoint"], traffic_split={"0": "100"}, **deploy)
            deployed.set_caching_options(False)
        with dsl.Else(name="existing-endpoint"):
            found = dsl.importer(
                artifact_uri=uri_of_resource(region=region, name=endpoint).output,
                artifact_class=VertexEndpoint,
                metadata={"resourceName": endpoint},
            )
            deployed = ModelDeployOp(endpoint=found.output, traffic_split=traffic_split, **deploy)
            deployed.set_caching_options(False)
        with dsl.If(batch_output != "", name="batch"):
            ModelBatchPredictOp(
                job_display_name=model_name,
                model=uploaded,
                gcs_source_uris=batch_source,
                gcs_destination_output_uri_prefix=batch_output,
                machine_type=serving_machine_type,
                starting_replica_count=min_replicas,
                max_replica_count=max_replicas,
                service_account=service_account,
                encryption_spec_key_name=encryption_key,
                labels=labels,
                location=region,
            ).set_caching_options(False)
