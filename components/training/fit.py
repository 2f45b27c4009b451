"""Fit a tabular model and write its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.components._shared.fitting.frameworks import Learned
from penstock.components._shared.fitting.learning import learn
from penstock.components._shared.fitting.prepare import Prepared, Settings, prepare, write


@dataclass(frozen=True)
class Fitted:
    """What was learned.

    Attributes:
        task: "binary", "multiclass" or "regression".
        rounds: Rounds of the model, 1 where the framework has none.
        metrics: Losses by train_<name> and eval_<name>, such as eval_log_loss or train_rmse.
    """

    task: str
    rounds: int
    metrics: dict[str, float]


def fit(
    train_set: str | os.PathLike[str],
    eval_set: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    target: str,
    framework: str = "xgboost",
    task: str = "auto",
    features: Sequence[str] = (),
    exclude: Sequence[str] = (),
    weight_column: str = "",
    class_weights: Mapping[str, float] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    max_rounds: int = 500,
    early_stopping_rounds: int = 20,
    seed: int = 0,
    tracking: str = "",
    checkpoint: str = "",
    external_memory: bool = False,
    transform_graph: str | os.PathLike[str] | None = None,
) -> Fitted:
    """Return what was learned, its model folder written to `model`.

    Args:
        train_set: Dataset folder of the rows to fit.
        eval_set: Dataset folder of the rows that early stopping watches; may be empty if it is off.
        model: Folder to write.
        target: Column to predict.
        framework: Row of the table in penstock.components._shared.fitting.frameworks.
        task: "binary", "multiclass", "regression" or "auto"; see learn_target.
        features: Columns to learn from; empty: all but the target, the weight and `exclude`.
        exclude: Columns not to learn from.
        weight_column: Column of row weights, 0 or more.
        class_weights: Weight by class label, or {"balanced": 1}; see class_factors.
        hyperparameters: The framework's own.
        max_rounds: Boosting rounds at most, 1 or more.
        early_stopping_rounds: Rounds without a better loss on eval_set after which to stop; 0: never.
        seed: Of everything random, 0 to 2^31 - 1.
        tracking: URI of an MLflow tracking server or SQLite file to log the training to; empty: none.
        checkpoint: Folder, a path or a URI, of a file that is written after every round, from which the same fit goes
            on if it is killed; empty: none.
        external_memory: Whether to read rows part by part, so that few of them are in memory.
        transform_graph: Folder that TensorFlow Transform wrote, whose graph becomes part of the model.

    Raises:
        UserError: Something that was given is wrong; nothing is left at `model`.
    """
    settings = Settings(
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
        checkpoint=checkpoint,
        external_memory=external_memory,
    )
    tracker = _tracker(tracking)
    prepared = prepare(train_set, eval_set, settings, hyperparameters or {}, transform_graph=transform_graph)
    learned = learn(prepared.row, framework, prepared.job)
    write(model, prepared, learned)
    if tracker is not None:
        tracker.log(_run(prepared, learned))
    return Fitted(prepared.target.task, learned.rounds, learned.metrics)


def _tracker(uri: str) -> Any:
    """Return MLflow tracking, asked before the fit whether it is there; None where there is to be none."""
    if not uri:
        return None
    from penstock.components._shared.mlflow_tracking import Tracker  # a second to import

    return Tracker(uri, "train")


def _run(prepared: Prepared, learned: Learned) -> Any:
    from penstock.components._shared.mlflow_tracking import Logged

    settings = prepared.settings
    about = {
        "framework": settings.framework,
        "task": prepared.target.task,
        "target": settings.target,
        "seed": settings.seed,
        "max_rounds": settings.max_rounds,
        "early_stopping_rounds": prepared.job.early_stopping_rounds,
    }
    tags = {f"{name}_fingerprint": str(prepared.lineage[f"{name}_fingerprint"]) for name in ("train", "eval")}
    metrics = {**learned.metrics, "rounds": float(learned.rounds)}
    return Logged("train", {**about, **prepared.settled}, metrics, tags)
