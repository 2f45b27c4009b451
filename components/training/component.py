"""The declaration of `train`."""

from typing import Dict, List, NamedTuple, Optional

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from penstock.components.images import image


@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def train(
    train_set: Input[Dataset],
    eval_set: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    target: str,
    transform_graph: Optional[Input[Artifact]] = None,
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
    tracking: str = "",
    checkpoint: str = "",
    external_memory: bool = False,
) -> NamedTuple("Trained", [("task", str), ("rounds", int)]):
    """Fit a tabular model, stopped early on the evaluation set.

    Args:
        train_set: Rows to fit.
        eval_set: Rows that early stopping watches; never fitted.
        model: MLflow model folder: signature, input example, native weights. Nothing in it is pickled.
        metrics: The framework's loss on both sets at the chosen round.
        target: Column to predict.
        transform_graph: Graph written by transform, through which the rows go to the model in training and, as a part
            of it, in serving; train_set and eval_set are the raw rows, features and exclude name what the graph makes.
            Only with "keras".
        framework: "xgboost", "lightgbm", "sklearn" or "keras", which runs in the image "tensorflow".
        task: "binary", "multiclass", "regression", or "auto" to go by the target's type and values.
        features: Columns to learn from. Empty: all but the target, the weight and `exclude`.
        exclude: Columns not to learn from.
        weight_column: Column of row weights, 0 or more. Empty: all rows weigh the same.
        class_weights: Weight by class label for classification; {"balanced": 1} weighs each class by the inverse of
            its share. Labels not named weigh 1.
        hyperparameters: The framework's own hyperparameters by name; unknown names are refused.
        max_rounds: Boosting rounds, or epochs, at most.
        early_stopping_rounds: Stop when the loss on eval_set has not improved for so many rounds; 0: never.
        seed: Of everything random; the same seed and data give the same model.
        tracking: URI of an MLflow tracking server or SQLite file to log the training to. Empty: none.
        checkpoint: Folder, a path or URI, where a fit of "keras" writes down how far it is after every round, to go on
            from there if it is killed. Empty: nowhere.
        external_memory: Whether to read rows part by part, where they do not fit into memory. Not with "sklearn".

    Returns:
        task: The task that was learned.
        rounds: Rounds of the model, 1 where the framework has none.
    """
    from penstock.components.training.fit import fit

    result = fit(
        train_set.path,
        eval_set.path,
        model.path,
        target=target,
        framework=framework,
        task=task,
        features=features,
        exclude=exclude,
        weight_column=weight_column,
        class_weights=class_weights,
        hyperparameters=hyperparameters,
        max_rounds=max_rounds,
        early_stopping_rounds=early_stopping_rounds,
        seed=seed,
        tracking=tracking,
        checkpoint=checkpoint,
        external_memory=external_memory,
        transform_graph=transform_graph.path if transform_graph else None,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    return (result.task, result.rounds)
