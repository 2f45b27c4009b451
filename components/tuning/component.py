"""The declarations of `tune`, and of `suggest` and `pick`, between which a pipeline spreads a search."""

from typing import Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("tuning"), install_kfp_package=False)
def tune(
    train_set: Input[Dataset],
    eval_set: Input[Dataset],
    trials: Output[Dataset],
    model: Output[Model],
    report: Output[HTML],
    metrics: Output[Metrics],
    target: str,
    space: Dict[str, object],
    framework: str = "xgboost",
    task: str = "auto",
    features: List[str] = [],
    exclude: List[str] = [],
    weight_column: str = "",
    class_weights: Dict[str, float] = {},
    hyperparameters: Dict[str, object] = {},
    max_rounds: int = 500,
    early_stopping_rounds: int = 20,
    seed: int = 0,
    objectives: Dict[str, str] = {},
    backend: str = "local",
    sampler: str = "auto",
    pruner: str = "auto",
    max_trials: int = 50,
    max_seconds: float = 3600.0,
    parallel_trials: int = 1,
    study: str = "",
    fit_best: bool = False,
    tracking: str = "",
    options: Dict[str, object] = {},
    run_id: str = "",
) -> NamedTuple("Tuned", [("hyperparameters", Dict[str, object]), ("value", float)]):
    """Search hyperparameters for a framework of train.

    Args:
        train_set: Rows to fit.
        eval_set: Rows that trials are judged by.
        trials: One row a trial: number, state, best, front, its metrics, param_<name>, error.
        model: With `fit_best` the best model, as train would write it; else a note that there is none.
        report: History, parallel coordinates and importance of the search.
        metrics: Numbers of completed, pruned and failed trials, and the best trial's metrics.
        target: Column to predict.
        space: Hyperparameters to search: by name, type, range or choices, and condition.
        framework: "xgboost", "lightgbm" or "sklearn".
        task: As of train.
        features: As of train.
        exclude: As of train.
        weight_column: As of train.
        class_weights: As of train.
        hyperparameters: The framework's own that are not searched.
        max_rounds: Boosting rounds of a trial at most.
        early_stopping_rounds: As of train.
        seed: Of everything random; trials one at a time repeat.
        objectives: "minimize" or "maximize" by a metric of a trial: eval_…, train_…, rounds or seconds. Of several, the
            first decides among the trials that no other one beats. Empty: the one loss on eval_set, minimized.
        backend: "local", "vertex" or "kubeflow".
        sampler: "tpe", "random", "grid" or "nsga2"; "auto" is the backend's own.
        pruner: "median", "hyperband" or "none"; "auto" is the backend's own.
        max_trials: Trials at most, those of an earlier attempt at the same study among them.
        max_seconds: Seconds after which trials that still run are given up.
        parallel_trials: Trials at a time.
        study: Path of the study's file, on a disk that outlives the step, to go on from after a kill. Empty: none.
        fit_best: Whether to write the best trial's model.
        tracking: URI of an MLflow tracking server or SQLite file to log the trials to. Empty: none.
        options: The backend's own options.
        run_id: Of the run, for a backend that starts a job: two attempts of a run share one job.

    Returns:
        hyperparameters: For train: the best trial's, and those that were not searched.
        value: The best trial's value of the first objective.
    """
    from penstock.components.tuning.tune import Settings, tune

    found = tune(
        train_set.path,
        eval_set.path,
        trials.path,
        model.path,
        report.path,
        settings=Settings(
            target=target,
            framework=framework,
            task=task,
            features=features,
            exclude=exclude,
            weight_column=weight_column,
            class_weights=class_weights,
            max_rounds=max_rounds,
            early_stopping_rounds=early_stopping_rounds,
            seed=seed,
        ),
        space=space,
        hyperparameters=hyperparameters,
        objectives=objectives,
        backend=backend,
        sampler=sampler,
        pruner=pruner,
        max_trials=max_trials,
        max_seconds=max_seconds,
        parallel_trials=parallel_trials,
        study=study,
        fit_best=fit_best,
        tracking=tracking,
        train_uri=train_set.uri,
        eval_uri=eval_set.uri,
        options=options,
        run_id=run_id,
    )
    for name, number in found.metrics.items():
        metrics.log_metric(name, number)
    return (found.hyperparameters, found.value)


@dsl.component(base_image=image("tuning"), install_kfp_package=False)
def suggest(
    space: Dict[str, object],
    count: int = 10,
    sampler: str = "random",
    hyperparameters: Dict[str, object] = {},
    seed: int = 0,
) -> List[Dict[str, object]]:
    """Propose hyperparameters for trainings that a pipeline runs side by side.

    Args:
        space: As of tune.
        count: How many, 100 at most; of a grid no more than it has.
        sampler: "random", or "grid" for every point.
        hyperparameters: The framework's own that are not searched, added to each.
        seed: The same seed proposes the same.

    Returns:
        Output: Items of a loop: hyperparameters for train.
    """
    from penstock.components.tuning.spread import suggest

    return suggest(space, count=count, sampler=sampler, hyperparameters=hyperparameters, seed=seed)


@dsl.component(base_image=image("tuning"), install_kfp_package=False)
def pick(
    models: Input[List[Model]],
    model: Output[Model],
    trials: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
    space: Dict[str, object],
    objective: str = "",
    direction: str = "minimize",
) -> NamedTuple("Picked", [("hyperparameters", Dict[str, object]), ("value", float)]):
    """Pick the best of the models that a loop over suggest's proposals trained.

    Args:
        models: Models collected from the loop.
        model: The best one, byte for byte.
        trials: One row a model; see tune.
        report: History, parallel coordinates and importance.
        metrics: Number of models, and the best one's metrics.
        space: As suggest was given it.
        objective: A metric of the models: eval_… or train_…, or rounds. Empty: the one loss on the evaluation set.
        direction: "minimize" or "maximize".

    Returns:
        hyperparameters: The best model's.
        value: Its value of the objective.
    """
    from penstock.components.tuning.spread import pick

    found = pick(
        [each.path for each in models],
        model.path,
        trials.path,
        report.path,
        space=space,
        objective=objective,
        direction=direction,
    )
    for name, number in found.metrics.items():
        metrics.log_metric(name, number)
    return (found.hyperparameters, found.value)
