"""The declaration of `predict_batch`."""

from typing import Any, Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from penstock.components.images import image


@dsl.component(base_image=image("clouds"), install_kfp_package=False)
def predict_batch(
    model: Input[Model],
    dataset: Input[Dataset],
    predictions: Output[Dataset],
    rejects: Output[Dataset],
    metrics: Output[Metrics],
    keep: List[str] = [],
    max_bad_rows: int = 0,
    platform: str = "local",
    options: Dict[str, object] = {},
    max_seconds: float = 86400.0,
    run_id: str = "",
    engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> NamedTuple("Predicted", [("rows", int), ("bad_rows", int)]):
    """Predict every row of a dataset, with bad rows counted and kept aside.

    Args:
        model: Model written by train.
        dataset: Rows with the columns that the model reads.
        predictions: `prediction`, of a classifier `probability_CLASS` for every class, and the columns of keep, in the
            order of the rows.
        rejects: Rows that the model cannot read: their place (`row`, from 0), `column` and `reason`.
        metrics: Numbers of predicted and of bad rows.
        keep: Columns to keep beside the predictions, such as keys; ["*"] for all. Empty: the rows' place, as `row`.
        max_bad_rows: Bad rows that are put up with; with more, the step fails.
        platform: Where rows are predicted: "local", in this step; "vertex", by a BatchPredictionJob of Vertex AI;
            "azureml", by a batch endpoint of Azure ML.
        options: The platform's own options.
        max_seconds: Seconds after which a job of another platform is ended.
        run_id: Of the run, for a platform that starts a job: two attempts of a run share one job.
        engine: With the platform "local": "local" predicts on this machine, "beam" on Apache Beam, in the image
            penstock/beam.
        beam_options: Beam's own options; `runner` is DirectRunner, DataflowRunner, FlinkRunner or SparkRunner.

    Returns:
        rows: Rows that were predicted.
        bad_rows: Rows that were not.
    """
    from penstock.components.prediction.predict import predict

    result = predict(
        model.path,
        dataset.path,
        predictions.path,
        rejects.path,
        keep=keep,
        max_bad_rows=max_bad_rows,
        platform=platform,
        options=options,
        max_seconds=max_seconds,
        run_id=run_id,
        engine=engine,
        beam_options=beam_options,
        uris=(model.uri, dataset.uri, predictions.uri, rejects.uri),
    )
    metrics.log_metric("rows", result.rows)
    metrics.log_metric("bad_rows", result.bad_rows)
    return (result.rows, result.bad_rows)
