"""From recent data to a champion that replaced the one before, where the data have moved."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import (
    deploy,
    detect_drift,
    evaluate,
    fetch_reference,
    ingest,
    notify,
    promote,
    register,
    roll_out,
    train,
    validate,
)
from penstock.pipelines.tabular_training import TIPS


@dsl.pipeline(name="continuous-training")
def continuous_training(
    recent: str = "sample://taxi?rows=50000",
    recent_query: str = TIPS,
    source: str = "sample://taxi?rows=50000",
    query: str = TIPS,
    columns: Dict[str, str] = {},
    max_bad_rows: int = 0,
    watched: List[str] = [],
    unwatched: List[str] = [],
    distance: str = "psi",
    drift_threshold: float = 0.2,
    drift_thresholds: Dict[str, float] = {},
    false_alarms: float = 0.01,
    split_keys: List[str] = [],
    eval_fraction: float = 0.2,
    time_column: str = "",
    eval_from: str = "",
    schema_uri: str = "",
    on_anomaly: str = "fail",
    target: str = "big_tip",
    exclude: List[str] = [],
    framework: str = "xgboost",
    hyperparameters: Dict[str, Any] = {},
    seed: int = 0,
    slices: List[str] = ["weekday"],
    gate: List[str] = ["auc >= 0.55", "auc >= champion - 0.01"],
    model_name: str = "taxi-tips",
    registry: str = "",
    endpoint: str = "taxi-tips",
    platform: str = "local",
    options: Dict[str, Any] = {},
    strategy: str = "canary",
    steps: List[int] = [],
    hold: Dict[str, float] = {},
    rollout_gate: List[str] = [
        "error_rate <= current + 0.01",
        "refusal_rate <= current + 0.01",
        "latency_p99 <= 2 * current + 0.05",
    ],
    unfinished: str = "resume",
    on_rollback: str = "fail",
    remove_idle: bool = False,
    channels: List[Dict[str, Any]] = [],
    notify_when: str = "failure",
    run_url: str = "",
    spec_sha256: str = "",
    git_commit: str = "",
) -> None:
    """Watch recent data, and train, try, roll out and promote a new champion where they have drifted.

    The champion was registered with the statistics of its training rows, as tabular_training does it; recent rows are
    compared with them. If any column has drifted, a model is trained on the source; if it passes the gate beside the
    champion, it is registered, deployed and rolled out; if the rollout went well, it is the champion. How it ended is
    told in the end.

    Args:
        recent: Path, glob or URI of what to watch: new data, or the request log of the server; see ingest.
        recent_query: SQL SELECT over the table `source` that makes the columns which the model was trained on. Empty:
            all columns of all rows, as for a request log.
        source: Path, glob or URI of the files with the target to train on; see ingest.
        query: SQL SELECT over the table `source`. Empty: all columns of all rows.
        columns: SQL type by column name, where inference is not wanted, of both.
        max_bad_rows: Bad rows that are put up with in each.
        watched: Columns to compare. Empty: all that the training rows have.
        unwatched: Columns not to compare.
        distance: What decides: "psi", "jensen_shannon", "ks" or "l_infinity"; see detect_drift.
        drift_threshold: Distance above which a column has drifted.
        drift_thresholds: The same for single columns, by name.
        false_alarms: Probability of calling any column drifted when none is.
        split_keys: Columns whose values decide which split a row of the source is in. Empty: the whole row.
        eval_fraction: Share of the rows to evaluate on.
        time_column: Column to split by time instead.
        eval_from: First time of the evaluation set.
        schema_uri: Path or URI of a schema.pbtxt to hold the training data to. Empty: inferred.
        on_anomaly: "fail" to stop at anomalies, "report" to go on.
        target: Column to predict.
        exclude: Columns not to learn from.
        framework: "xgboost", "lightgbm", "sklearn" or "keras"; see train.
        hyperparameters: The framework's own hyperparameters.
        seed: Of everything random.
        slices: Columns to evaluate by value.
        gate: Conditions for registration; see evaluate.
        model_name: Name in the registry.
        registry: URI of the MLflow registry.
        endpoint: Name of the endpoint; made if it is not there.
        platform: Where the endpoint is; see deploy.
        options: What that platform needs besides, by name; see deploy.
        strategy: "canary", "blue_green" or "shadow"; see roll_out.
        steps: Per cent of the traffic that the new version gets, ascending, 100 last. Empty: the strategy's own.
        hold: How long a step of the rollout is; see roll_out.
        rollout_gate: Conditions that hold at every step of the rollout; see roll_out.
        unfinished: What becomes of a rollout that was killed: "resume" or "roll_back".
        on_rollback: "fail" to fail the run where the new version was rolled back, "report" to pass.
        remove_idle: Undeploy the version that has no traffic in the end, the one before or, rolled back, the new one,
            with its request log.
        channels: Where to say how it ended; see notify. Empty: it is only printed.
        notify_when: "failure", "success" or "always".
        run_url: Address of the run's page; {run_id} stands for the id.
        spec_sha256: SHA-256 of this spec; filled in at submission.
        git_commit: Commit of the pipeline's source; filled in at submission.
    """
    told = notify(
        channels=channels,
        when=notify_when,
        title="continuous-training",
        run_id=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        run_url=run_url,
        facts={"model": model_name, "endpoint": endpoint},
    )
    with dsl.ExitHandler(told, name="watch"):
        reference = fetch_reference(model_name=model_name, registry=registry)
        seen = ingest(source=recent, query=recent_query, columns=columns, eval_fraction=0.0, max_bad_rows=max_bad_rows)
        seen.set_display_name("ingest recent")
        moved = detect_drift(
            current=seen.outputs["train_set"],
            reference_statistics=reference.outputs["statistics"],
            columns=watched,
            exclude=unwatched,
            distance=distance,
            threshold=drift_threshold,
            thresholds=drift_thresholds,
            false_alarms=false_alarms,
        )
        with dsl.If(moved.outputs["drifted"] == True, name="drifted"):
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
            ingested.set_display_name("ingest")
            validated = validate(dataset=ingested.outputs["train_set"], schema_uri=schema_uri, on_anomaly=on_anomaly)
            trained = train(
                train_set=ingested.outputs["train_set"],
                eval_set=ingested.outputs["eval_set"],
                target=target,
                exclude=exclude,
                framework=framework,
                hyperparameters=hyperparameters,
                seed=seed,
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
            with dsl.If(evaluated.outputs["blessed"] == True, name="blessed"):
                registered = register(
                    model=trained.outputs["model"],
                    metrics=evaluated.outputs["metrics"],
                    schema=validated.outputs["schema"],
                    statistics=validated.outputs["statistics"],
                    model_name=model_name,
                    registry=registry,
                    alias="challenger",
                    reason=evaluated.outputs["reason"],
                    run_id=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
                    spec_sha256=spec_sha256,
                    git_commit=git_commit,
                )
                deployed = deploy(
                    model=trained.outputs["model"], endpoint=endpoint, platform=platform, options=options
                ).after(registered)
                rolled = roll_out(
                    endpoint=endpoint,
                    version=deployed.outputs["version"],
                    strategy=strategy,
                    steps=steps,
                    hold=hold,
                    gate=rollout_gate,
                    unfinished=unfinished,
                    on_rollback=on_rollback,
                    remove_idle=remove_idle,
                    platform=platform,
                    options=options,
                )
                with dsl.If(rolled.outputs["promoted"] == True, name="rolled-out"):
                    promote(
                        model_name=model_name,
                        version=registered.outputs["version"],
                        expected_version=evaluated.outputs["champion_version"],
                        registry=registry,
                        run_id=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
                    )
