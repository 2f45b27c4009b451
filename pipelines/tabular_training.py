"""Raw data to a registered model."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import evaluate, register, retrieve_features, train
from penstock.pipelines.ingested import ingested as ingested_files
from penstock.pipelines.validated import validated as validated_rows

# Is the tip above 20 % of the fare? Only card payments (payment_type 1) record their tips.
TIPS = """\
SELECT tip_amount > 0.2 * fare_amount AS big_tip,
       passenger_count, trip_distance, rate_code_id, fare_amount, extra, tolls_amount,
       CAST(pickup_location_id AS VARCHAR) AS pickup_zone, CAST(dropoff_location_id AS VARCHAR) AS dropoff_zone,
       hour(pickup_datetime) AS hour, isodow(pickup_datetime) AS weekday,
       date_diff('second', pickup_datetime, dropoff_datetime) / 60.0 AS minutes
FROM source
WHERE payment_type = 1 AND fare_amount > 0"""


@dsl.pipeline(name="tabular-training")
def tabular_training(
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
    ingest_engine: str = "local",
    validate_engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
    target: str = "big_tip",
    exclude: List[str] = [],
    framework: str = "xgboost",
    hyperparameters: Dict[str, Any] = {},
    seed: int = 0,
    external_memory: bool = False,
    slices: List[str] = ["weekday"],
    gate: List[str] = ["auc >= 0.55", "auc >= champion - 0.01"],
    model_name: str = "taxi-tips",
    registry: str = "",
    feature_repo: str = "",
    feature_service: str = "big_tip",
    feature_config: str = "feature_store.yaml",
    feature_time: str = "pickup_datetime",
    spec_sha256: str = "",
    git_commit: str = "",
) -> None:
    """Train a tabular model on files, and register it if it is good enough.

    The defaults predict big tips from made-up taxi trips; with your own source, give query and target too. With a
    feature repository, a second model learns from features of the store as well, as they were known at each row's time;
    both are measured on the same rows, and it is the second that is registered if it is good enough.

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
        ingest_engine: "local" to read the files on one machine, "beam" for Apache Beam.
        validate_engine: "local" to describe the training data on one machine, "beam" for Apache Beam.
        beam_options: Beam's own options, the runner among them; see validate.
        target: Column to predict.
        exclude: Columns not to learn from.
        framework: "xgboost", "lightgbm", "sklearn" or "keras"; see train.
        hyperparameters: The framework's own hyperparameters.
        seed: Of everything random.
        external_memory: Whether train reads rows part by part, where they do not fit into memory.
        slices: Columns to evaluate by value.
        gate: Conditions for registration; see evaluate.
        model_name: Name in the registry.
        registry: URI of the MLflow registry.
        feature_repo: Feature repository, synced by feature_sync before; see retrieve_features. Empty: no features.
        feature_service: Feature service whose features are joined to the rows.
        feature_config: File of the feature repository that configures the store.
        feature_time: Column of the query's result that says at which time features have to be known.
        spec_sha256: SHA-256 of this spec; filled in at submission.
        git_commit: Commit of the pipeline's source; filled in at submission.
    """
    ingested = ingested_files(
        source=source,
        query=query,
        columns=columns,
        split_keys=split_keys,
        eval_fraction=eval_fraction,
        time_column=time_column,
        eval_from=eval_from,
        max_bad_rows=max_bad_rows,
        engine=ingest_engine,
        beam_options=beam_options,
    )
    validation = {"on_anomaly": on_anomaly, "engine": validate_engine, "beam_options": beam_options}
    validated = validated_rows(dataset=ingested.outputs["train_set"], schema_uri=schema_uri, **validation)
    trained = train(
        train_set=ingested.outputs["train_set"],
        eval_set=ingested.outputs["eval_set"],
        target=target,
        exclude=exclude,
        framework=framework,
        hyperparameters=hyperparameters,
        seed=seed,
        external_memory=external_memory,
    ).after(validated)
    evaluated = evaluate(
        model=trained.outputs["model"],
        eval_set=ingested.outputs["eval_set"],
        slices=slices,
        gate=gate,
        model_name=model_name,
        registry=registry,
        seed=seed,
    )
    registered = {
        "model_name": model_name,
        "registry": registry,
        "run_id": dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        "spec_sha256": spec_sha256,
        "git_commit": git_commit,
    }
    with (
        dsl.If(feature_repo == "", name="without-features"),
        dsl.If(evaluated.outputs["blessed"] == True, name="blessed"),
    ):
        register(
            model=trained.outputs["model"],
            metrics=evaluated.outputs["metrics"],
            schema=validated.outputs["schema"],
            statistics=validated.outputs["statistics"],
            expected_version=evaluated.outputs["champion_version"],
            reason=evaluated.outputs["reason"],
            **registered,
        )
    with dsl.Else(name="with-features"):
        store = {
            "repo": feature_repo,
            "service": feature_service,
            "timestamp": feature_time,
            "config": feature_config,
        }
        train_rows = retrieve_features(entities=ingested.outputs["train_set"], **store)
        train_rows.set_display_name("features of train_set")
        eval_rows = retrieve_features(entities=ingested.outputs["eval_set"], **store)
        eval_rows.set_display_name("features of eval_set")
        validated_too = validated_rows(dataset=train_rows.outputs["dataset"], **validation)
        trained_too = train(
            train_set=train_rows.outputs["dataset"],
            eval_set=eval_rows.outputs["dataset"],
            target=target,
            exclude=exclude,
            framework=framework,
            hyperparameters=hyperparameters,
            seed=seed,
            external_memory=external_memory,
        ).after(validated_too)
        trained_too.set_display_name("train with features")
        evaluated_too = evaluate(
            model=trained_too.outputs["model"],
            eval_set=eval_rows.outputs["dataset"],
            slices=slices,
            gate=gate,
            model_name=model_name,
            registry=registry,
            seed=seed,
        )
        evaluated_too.set_display_name("evaluate with features")
        with dsl.If(evaluated_too.outputs["blessed"] == True, name="blessed-with-features"):
            register(
                model=trained_too.outputs["model"],
                metrics=evaluated_too.outputs["metrics"],
                schema=validated_too.outputs["schema"],
                statistics=validated_too.outputs["statistics"],
                expected_version=evaluated_too.outputs["champion_version"],
                reason=evaluated_too.outputs["reason"],
                **registered,
            ).after(evaluated)
