"""Raw data to a registered model whose hyperparameters were searched."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import evaluate, explain, ingest, model_card, register, train, tune, validate
from penstock.pipelines.tabular_training import TIPS

SPACE = {
    "eta": {"type": "float", "low": 0.02, "high": 0.4, "log": True},
    "max_depth": {"type": "int", "low": 3, "high": 9},
    "subsample": {"type": "float", "low": 0.6, "high": 1.0},
    "grow_policy": {"type": "categorical", "choices": ["depthwise", "lossguide"]},
    "max_leaves": {"type": "int", "low": 8, "high": 128, "log": True, "when": {"grow_policy": ["lossguide"]}},
}


@dsl.pipeline(name="tuned-training")
def tuned_training(
    source: str = "sample://taxi?rows=50000",
    query: str = TIPS,
    columns: Dict[str, str] = {},
    split_keys: List[str] = [],
    eval_fraction: float = 0.2,
    time_column: str = "",
    eval_from: str = "",
    max_bad_rows: int = 0,
    schema_uri: str = "",
    on_anomaly: str = "fail",
    target: str = "big_tip",
    exclude: List[str] = [],
    framework: str = "xgboost",
    space: Dict[str, Any] = SPACE,
    hyperparameters: Dict[str, Any] = {},
    backend: str = "local",
    sampler: str = "auto",
    pruner: str = "auto",
    max_trials: int = 20,
    max_seconds: float = 1800.0,
    parallel_trials: int = 1,
    study: str = "",
    tracking: str = "",
    options: Dict[str, Any] = {},
    seed: int = 0,
    slices: List[str] = ["weekday"],
    gate: List[str] = ["auc >= 0.55", "auc >= champion - 0.01"],
    model_name: str = "taxi-tips",
    intended_uses: List[str] = [],
    registry: str = "",
    spec_sha256: str = "",
    git_commit: str = "",
) -> None:
    """Search hyperparameters, train, explain and describe the best model, and register it if it is good enough.

    The defaults predict big tips from made-up taxi trips; with your own source, give query and target too.

    Args:
        source: Path, glob or URI of the files; see ingest.
        query: SQL SELECT over the table `source`. Empty: all columns of all rows.
        columns: SQL type by column name, where inference is not wanted.
        split_keys: Columns whose values decide which split a row is in. Empty: the whole row.
        eval_fraction: Share of the rows to evaluate on.
        time_column: Column to split by time instead.
        eval_from: First time of the evaluation set.
        max_bad_rows: Bad rows that are put up with.
        schema_uri: Path or URI of a schema.pbtxt to hold the training data to. Empty: inferred.
        on_anomaly: "fail" to stop at anomalies, "report" to go on.
        target: Column to predict.
        exclude: Columns not to learn from.
        framework: "xgboost", "lightgbm", "sklearn", or "keras", which needs the image "tensorflow".
        space: Hyperparameters to search; see tune.
        hyperparameters: The framework's own hyperparameters that are not searched.
        backend: Who runs the trials: "local", "vertex" or "kubeflow".
        sampler: Who proposes them; see tune.
        pruner: Who gives hopeless ones up; see tune.
        max_trials: Trials at most.
        max_seconds: Seconds of searching at most.
        parallel_trials: Trials at a time; one at a time repeats.
        study: Path of the study's file, to go on from after a kill.
        tracking: URI of an MLflow tracking server or SQLite file to log the trials and the training to.
        options: The backend's own options.
        seed: Of everything random.
        slices: Columns to evaluate by value.
        gate: Conditions for registration; see evaluate.
        model_name: Name in the registry and on the model card.
        intended_uses: What the model is meant for, for its card.
        registry: URI of the MLflow registry.
        spec_sha256: SHA-256 of this spec; filled in at submission.
        git_commit: Commit of the pipeline's source; filled in at submission.
    """
    ingested = ingest(
        source=source,
        query=query,
        columns=columns,
        split_keys=split_keys,
        eval_fraction=eval_fraction,
        time_column=time_column,
        eval_from=eval_from,
        max_bad_rows=max_bad_rows,
    )
    validated = validate(dataset=ingested.outputs["train_set"], schema_uri=schema_uri, on_anomaly=on_anomaly)
    tuned = tune(
        train_set=ingested.outputs["train_set"],
        eval_set=ingested.outputs["eval_set"],
        target=target,
        space=space,
        exclude=exclude,
        framework=framework,
        hyperparameters=hyperparameters,
        seed=seed,
        backend=backend,
        sampler=sampler,
        pruner=pruner,
        max_trials=max_trials,
        max_seconds=max_seconds,
        parallel_trials=parallel_trials,
        study=study,
        tracking=tracking,
        options=options,
        run_id=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
    ).after(validated)
    trained = train(
        train_set=ingested.outputs["train_set"],
        eval_set=ingested.outputs["eval_set"],
        target=target,
        exclude=exclude,
        framework=framework,
        hyperparameters=tuned.outputs["hyperparameters"],
        seed=seed,
        tracking=tracking,
    )
    evaluated = evaluate(
        model=trained.outputs["model"],
        eval_set=ingested.outputs["eval_set"],
        slices=slices,
        gate=gate,
        model_name=model_name,
        registry=registry,
        seed=seed,
    )
    explained = explain(
        model=trained.outputs["model"],
        dataset=ingested.outputs["eval_set"],
        background=ingested.outputs["train_set"],
        slices=slices,
        seed=seed,
    )
    model_card(
        model=trained.outputs["model"],
        evaluation=evaluated.outputs["evaluation"],
        statistics=validated.outputs["statistics"],
        explanation=explained.outputs["explanation"],
        name=model_name,
        intended_uses=intended_uses,
    )
    with dsl.If(evaluated.outputs["blessed"] == True, name="blessed"):
        register(
            model=trained.outputs["model"],
            metrics=evaluated.outputs["metrics"],
            schema=validated.outputs["schema"],
            statistics=validated.outputs["statistics"],
            model_name=model_name,
            registry=registry,
            expected_version=evaluated.outputs["champion_version"],
            reason=evaluated.outputs["reason"],
            run_id=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            spec_sha256=spec_sha256,
            git_commit=git_commit,
        )
