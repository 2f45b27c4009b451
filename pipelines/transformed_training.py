"""A network that is served with the very transformations that it was trained with."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import evaluate, ingest, register, train, transform
from penstock.components.images import image
from penstock.pipelines.tabular_training import TIPS


@dsl.pipeline(name="transformed-training")
def transformed_training(
    source: str = "sample://taxi?rows=50000",
    query: str = TIPS,
    eval_fraction: float = 0.2,
    preprocessing_uri: str = "",
    features: Dict[str, Any] = {},
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
    target: str = "big_tip",
    exclude: List[str] = [],
    hyperparameters: Dict[str, Any] = {},
    max_rounds: int = 20,
    seed: int = 0,
    slices: List[str] = ["weekday"],
    gate: List[str] = ["auc >= 0.55", "auc >= champion - 0.01"],
    evaluate_engine: str = "local",
    model_name: str = "taxi-tips",
    registry: str = "",
    spec_sha256: str = "",
    git_commit: str = "",
) -> None:
    """Learn transformations and a network behind them, and register both as one model if it is good enough.

    TensorFlow Transform learns means, quantiles and vocabularies on Beam; the graph that it writes becomes a part of
    the Keras model, which reads raw columns in training, evaluation and serving alike.

    Args:
        source: Path, glob or URI of the files; see ingest.
        query: SQL SELECT over the table `source`. Empty: all columns of all rows.
        eval_fraction: Share of the rows to evaluate on.
        preprocessing_uri: Path or URI of a Python file with preprocessing_fn; see transform.
        features: What becomes of columns, without such a file; see transform. Empty: numbers are scaled, and texts
            looked up in vocabularies.
        beam_options: Beam's own options, the runner among them; see transform and evaluate.
        target: Column to predict, as it is in the raw rows.
        exclude: What the transformations make and the network is not to learn from.
        hyperparameters: Of the network; see train.
        max_rounds: Epochs at most.
        seed: Of everything random.
        slices: Columns to evaluate by value.
        gate: Conditions for registration; see evaluate.
        evaluate_engine: "local" to measure the model on one machine, "beam" for Apache Beam; see evaluate.
        model_name: Name in the registry.
        registry: URI of the MLflow registry.
        spec_sha256: SHA-256 of this spec; filled in at submission.
        git_commit: Commit of the pipeline's source; filled in at submission.
    """
    ingested = ingest(source=source, query=query, eval_fraction=eval_fraction)
    rows = {name: ingested.outputs[name] for name in ("train_set", "eval_set")}
    transformed = transform(**rows, preprocessing_uri=preprocessing_uri, features=features, beam_options=beam_options)
    trained = train(
        **rows,
        transform_graph=transformed.outputs["transform_graph"],
        target=target,
        framework="keras",
        exclude=exclude,
        hyperparameters=hyperparameters,
        max_rounds=max_rounds,
        early_stopping_rounds=3,
        seed=seed,
    ).set_container_image(image("tensorflow"))
    evaluated = evaluate(
        model=trained.outputs["model"],
        eval_set=ingested.outputs["eval_set"],
        slices=slices,
        gate=gate,
        model_name=model_name,
        registry=registry,
        seed=seed,
        engine=evaluate_engine,
        beam_options=beam_options,
    ).set_container_image(image("beam"))  # where both of its engines run
    with dsl.If(evaluated.outputs["blessed"] == True, name="blessed"):
        register(
            model=trained.outputs["model"],
            metrics=evaluated.outputs["metrics"],
            expected_version=evaluated.outputs["champion_version"],
            reason=evaluated.outputs["reason"],
            model_name=model_name,
            registry=registry,
            run_id=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            spec_sha256=spec_sha256,
            git_commit=git_commit,
        )
