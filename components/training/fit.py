"""Fit a tabular model and write its folder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared.dataset import Dataset, open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting import frameworks
from penstock.components._shared.fitting.features import choose_columns, learn_features, matrix, native_names
from penstock.components._shared.fitting.folder import EXAMPLE_ROWS, write_model
from penstock.components._shared.fitting.frameworks import Job, Rows
from penstock.components._shared.fitting.hyperparameters import by_place, check
from penstock.components._shared.fitting.target import learn_target
from penstock.components._shared.fitting.weights import class_factors, combined, row_weights


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

    Raises:
        UserError: Something that was given is wrong; nothing is left at `model`.
    """
    _in_range("max_rounds", max_rounds, 1)
    _in_range("early_stopping_rounds", early_stopping_rounds, 0)
    _in_range("seed", seed, 0)
    row = frameworks.framework(framework)
    train_rows = open_dataset(train_set, "train", "train_set")
    eval_rows = open_dataset(eval_set, "train", "eval_set")
    if not train_rows.rows:
        raise UserError("train", "train_set", "there are no rows", "Check the source, query and split of ingest")
    require_columns(train_rows, [target], "train", "target")
    require_columns(train_rows, [weight_column] if weight_column else [], "train", "weight_column")
    if weight_column == target:
        raise UserError("train", "weight_column", f"{target!r} is the target", "Choose another column")
    columns = choose_columns(list(train_rows.schema), target, weight_column, features, exclude)
    needed = [*columns, target, *([weight_column] if weight_column else [])]
    require_columns(eval_rows, needed, "train", "eval_set")
    train = _read(train_rows, needed)
    evaluation = _read(eval_rows, needed) if eval_rows.files else train.schema.empty_table()

    learned_target = learn_target(train[target], target, task)
    given = dict(hyperparameters or {})
    checked = check(given, row.known(learned_target.task, given), framework)
    settled = row.settled(learned_target.task, checked)
    learned_features = learn_features(train, evaluation, columns, row.max_categories(settled))
    here, there = evaluation.schema.field(target).type, train.schema.field(target).type
    if here != there:
        raise UserError(
            "train", "eval_set", f"{target!r} is {here}, but {there} in train_set", "Ingest both sets in one step"
        )
    stop = early_stopping_rounds if row.rounds(settled) else 0
    if stop and not evaluation.num_rows:
        raise UserError(
            "train",
            "eval_set",
            "there are no rows for early stopping to watch",
            "Set early_stopping_rounds to 0, or split some off in ingest",
        )

    labels = learned_target.labels(train[target], "train_set")
    factors = class_factors(class_weights or {}, learned_target, labels)
    weights = combined(row_weights(train, weight_column, "train_set"), factors, labels)
    watched = None
    if evaluation.num_rows:
        eval_labels = learned_target.labels(evaluation[target], "eval_set")
        eval_weights = combined(row_weights(evaluation, weight_column, "eval_set"), factors, eval_labels)
        watched = Rows(matrix(evaluation, learned_features), eval_labels, eval_weights)
    job = Job(
        task=learned_target.task,
        classes=len(learned_target.classes),
        names=native_names(learned_features),
        categories=tuple(
            len(feature.categories) if feature.kind == "category" else None for feature in learned_features
        ),
        train=Rows(matrix(train, learned_features), labels, weights),
        eval=watched,
        hyperparameters={
            name: by_place(name, value, columns) if name in row.constraints else value
            for name, value in settled.items()
        },
        max_rounds=max_rounds,
        early_stopping_rounds=stop,
        seed=seed,
    )
    try:
        learned = row.fit(job)
    except row.refusals as error:
        raise UserError(
            "train", "hyperparameters", f"{framework} refuses them: {_first_line(error)}", "Correct the value"
        ) from error
    # Twelve digits: what frameworks add up in another order on another number of processors agrees that far.
    metrics = {name: float(f"{value:.12g}") for name, value in learned.metrics.items()}
    diverged = [name for name, value in metrics.items() if not math.isfinite(value)]
    if diverged:
        raise UserError(
            "train",
            "hyperparameters",
            f"the fit diverged: {', '.join(diverged)} is not finite",
            "Lower the learning rate, or rescale the target",
        )
    fitted = Fitted(learned_target.task, learned.rounds, metrics)
    facts = {
        "framework": framework,
        "task": fitted.task,
        "target": target,
        "classes": list(learned_target.classes),
        "features": columns,
        "weight_column": weight_column,
        "class_weights": dict(class_weights or {}),
        "hyperparameters": settled,
        "max_rounds": max_rounds,
        "early_stopping_rounds": stop,
        "rounds": fitted.rounds,
        "seed": seed,
        "train_fingerprint": train_rows.fingerprint,
        "train_rows": train_rows.rows,
        "eval_fingerprint": eval_rows.fingerprint,
        "eval_rows": eval_rows.rows,
        "metrics": fitted.metrics,
    }
    write_model(model, row, learned, learned_target, learned_features, train.slice(0, EXAMPLE_ROWS), facts)
    return fitted


def _read(dataset: Dataset, columns: Sequence[str]) -> pa.Table:
    tables = [pq.ParquetFile(file).read(columns=list(columns)) for file in dataset.files]
    return pa.concat_tables(tables).select(list(columns))


def _in_range(argument: str, value: object, least: int) -> None:
    most = 2**31 - 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError("train", argument, f"{value!r} is not in range", f"Give a whole number from {least} to {most}")


def _first_line(error: Exception) -> str:
    """Return what a framework says, without the time, file and stack trace that C++ libraries put around it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: |^Check failed: | at \S+, line \d+ *\.?$", "", lines[0])
