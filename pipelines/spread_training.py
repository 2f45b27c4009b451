"""A search of hyperparameters spread over the tasks of the pipeline itself, to a registered model."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import evaluate, ingest, pick, register, suggest, train, validate
from penstock.pipelines.tabular_training import TIPS
from penstock.pipelines.tuned_training import SPACE


@dsl.pipeline(name="spread-training")
def spread_training(
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
    sampler: str = "random",
    trials: int = 8,
    seed: int = 0,
    slices: List[str] = ["weekday"],
    gate: List[str] = ["auc >= 0.55", "auc >= champion - 0.01"],
    model_name: str = "taxi-tips",
    registry: str = "",
    spec_sha256: str = "",
    git_commit: str = "",
) -> None:
    """Train a model for each of some proposals, side by side, and register the best if it is good enough.

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
        sampler: "random" or "grid".
        trials: Models to train, 100 at most.
        seed: Of everything random.
        slices: Columns to evaluate by value.
        gate: Conditions for registration; see evaluate.
        model_name: Name in the registry.
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
    proposed = suggest(space=space, count=trials, sampler=sampler, hyperparameters=hyperparameters, seed=seed)
    with dsl.ParallelFor(proposed.output, name="trials") as proposal:
        trained = train(
            train_set=ingested.outputs["train_set"],
            eval_set=ingested.outputs["eval_set"],
            target=target,
            exclude=exclude,
            framework=framework,
            hyperparameters=proposal,
            seed=seed,
        ).after(validated)
    picked = pick(models=dsl.Collected(trained.outputs["model"]), space=space)
    evaluated = evaluate(
        model=picked.outputs["model"],
        eval_set=ingested.outputs["eval_set"],
        slices=slices,
        gate=gate,
        model_name=model_name,
        registry=registry,
        seed=seed,
    )
    with dsl.If(evaluated.outputs["blessed"] == True, name="blessed"):
        register(
            model=picked.outputs["model"],
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
