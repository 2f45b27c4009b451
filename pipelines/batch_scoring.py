"""Predictions of whole files by a model that is there already."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import detect_drift, fetch_model, predict_batch
from penstock.components.images import image
from penstock.pipelines.ingested import ingested as ingested_files
from penstock.pipelines.tabular_training import TIPS


@dsl.pipeline(name="batch-scoring")
def batch_scoring(
    model: str,
    source: str = "sample://taxi?rows=50000",
    query: str = TIPS,
    columns: Dict[str, str] = {},
    keep: List[str] = [],
    max_bad_rows: int = 0,
    platform: str = "local",
    options: Dict[str, object] = {},
    max_seconds: float = 86400.0,
    ingest_engine: str = "local",
    predict_engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
    registry: str = "",
    statistics: str = "",
    drift_distance: str = "psi",
    drift_threshold: float = 0.2,
) -> None:
    """Predict every row of files with a model of the registry, and say whether they have drifted from its training.

    Args:
        model: "models:/NAME@ALIAS" or "models:/NAME/VERSION" in the registry; or the path or URI of a model folder.
        source: Path, glob or URI of the files; see ingest.
        query: SQL SELECT over the table `source` that makes the columns the model reads. Empty: all of all rows.
        columns: SQL type by column name, where inference is not wanted.
        keep: Columns to keep beside the predictions, such as keys; ["*"] for all.
        max_bad_rows: Bad rows that are put up with, by ingest and by the model each.
        platform: Where rows are predicted: "local", in a step; "vertex" or "azureml", by a job there.
        options: The platform's own options; see predict_batch.
        max_seconds: Seconds after which a job of another platform is ended.
        ingest_engine: "local" to read the files on one machine, "beam" for Apache Beam.
        predict_engine: With the platform "local": "local" to predict on one machine, "beam" on Apache Beam.
        beam_options: Beam's own options, the runner among them.
        registry: URI of the MLflow registry. Empty: the environment's, or the local run folder's.
        statistics: URI of the statistics that validate wrote of the training rows. Empty: drift is not looked for.
        drift_distance: What decides about drift; see detect_drift.
        drift_threshold: Distance above which a column has drifted.
    """
    fetched = fetch_model(source=model, registry=registry)
    ingested = ingested_files(
        source=source,
        query=query,
        columns=columns,
        eval_fraction=0.0,
        max_bad_rows=max_bad_rows,
        engine=ingest_engine,
        beam_options=beam_options,
    )
    scoring = {
        "model": fetched.outputs["model"],
        "dataset": ingested.outputs["train_set"],
        "keep": keep,
        "max_bad_rows": max_bad_rows,
        "platform": platform,
        "options": options,
        "max_seconds": max_seconds,
        "run_id": dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        "engine": predict_engine,
        "beam_options": beam_options,
    }
    with dsl.If(predict_engine != "beam", name="on-one-machine"):
        predict_batch(**scoring)
    with dsl.Else(name="on-beam"):
        predict_batch(**scoring).set_container_image(image("beam")).set_display_name("predict_batch on Beam")
    with dsl.If(statistics != "", name="statistics"):
        reference = dsl.importer(artifact_uri=statistics, artifact_class=dsl.Artifact, reimport=True)
        detect_drift(
            current=ingested.outputs["train_set"],
            reference_statistics=reference.output,
            distance=drift_distance,
            threshold=drift_threshold,
        )
