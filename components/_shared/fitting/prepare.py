"""From datasets to a job for a framework, and from a job to a model."""

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
from penstock.components._shared.fitting.features import Feature, choose_columns, learn_features, matrix, native_names
from penstock.components._shared.fitting.folder import EXAMPLE_ROWS, write_model
from penstock.components._shared.fitting.frameworks import Framework, Job, Learned, Rows
from penstock.components._shared.fitting.hyperparameters import by_place, check
from penstock.components._shared.fitting.target import Target, learn_target
from penstock.components._shared.fitting.weights import class_factors, combined, row_weights


@dataclass(frozen=True)
class Settings:
    """What `train` is told beside datasets and hyperparameters; see its arguments."""

    target: str
    framework: str = "xgboost"
    task: str = "auto"
    features: Sequence[str] = ()
    exclude: Sequence[str] = ()
    weight_column: str = ""
    class_weights: Mapping[str, float] | None = None
    max_rounds: int = 500
    early_stopping_rounds: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """Rows read and encoded, and all that a model folder says of them.

    Attributes:
        row: The framework.
        columns: The columns to learn from, in order.
        settled: The hyperparameters as the user may name them; in `job` columns are places.
        example: Some training rows.
        lineage: Facts of the model folder that do not depend on the fit.
    """

    settings: Settings
    row: Framework
    target: Target
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    settled: dict[str, Any]
    job: Job
    example: pa.Table
    lineage: dict[str, Any]


def prepare(
    train_set: str | os.PathLike[str],
    eval_set: str | os.PathLike[str],
    settings: Settings,
    hyperparameters: Mapping[str, Any],
    *,
    all_categories: bool = False,
) -> Prepared:
    """Return a job for the framework, made of the datasets.

    Args:
        train_set: Dataset folder of the rows to fit.
        eval_set: Dataset folder of the rows that early stopping watches; may be empty if it is off.
        hyperparameters: The framework's own.
        all_categories: Whether to keep the categories beyond the number that the framework takes.

    Raises:
        UserError: Something that was given is wrong.
    """
    in_range("max_rounds", settings.max_rounds, 1)
    in_range("early_stopping_rounds", settings.early_stopping_rounds, 0)
    in_range("seed", settings.seed, 0)
    target, weight_column = settings.target, settings.weight_column
    row = frameworks.framework(settings.framework)
    train_rows = open_dataset(train_set, "train", "train_set")
    eval_rows = open_dataset(eval_set, "train", "eval_set")
    if not train_rows.rows:
        raise UserError("train", "train_set", "there are no rows", "Check the source, query and split of ingest")
    require_columns(train_rows, [target], "train", "target")
    require_columns(train_rows, [weight_column] if weight_column else [], "train", "weight_column")
    if weight_column == target:
        raise UserError("train", "weight_column", f"{target!r} is the target", "Choose another column")
    columns = choose_columns(
        list(train_rows.schema), target, weight_column, list(settings.features), list(settings.exclude)
    )
    needed = [*columns, target, *([weight_column] if weight_column else [])]
    require_columns(eval_rows, needed, "train", "eval_set")
    train = _read(train_rows, needed)
    evaluation = _read(eval_rows, needed) if eval_rows.files else train.schema.empty_table()

    learned_target = learn_target(train[target], target, settings.task)
    settled = settle(row, settings.framework, learned_target.task, hyperparameters)
    most = None if all_categories else row.max_categories(settled)
    learned_features = learn_features(train, evaluation, columns, most)
    here, there = evaluation.schema.field(target).type, train.schema.field(target).type
    if here != there:
        raise UserError(
            "train", "eval_set", f"{target!r} is {here}, but {there} in train_set", "Ingest both sets in one step"
        )
    stop = settings.early_stopping_rounds if row.rounds(settled) else 0
    if stop and not evaluation.num_rows:
        raise UserError(
            "train",
            "eval_set",
            "there are no rows for early stopping to watch",
            "Set early_stopping_rounds to 0, or split some off in ingest",
        )

    labels = learned_target.labels(train[target], "train_set")
    factors = class_factors(settings.class_weights or {}, learned_target, labels)
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
        hyperparameters=placed(row, settled, columns),
        max_rounds=settings.max_rounds,
        early_stopping_rounds=stop,
        seed=settings.seed,
    )
    return Prepared(
        settings=settings,
        row=row,
        target=learned_target,
        features=learned_features,
        columns=tuple(columns),
        settled=settled,
        job=job,
        example=train.slice(0, EXAMPLE_ROWS),
        lineage={
            "train_fingerprint": train_rows.fingerprint,
            "train_rows": train_rows.rows,
            "eval_fingerprint": eval_rows.fingerprint,
            "eval_rows": eval_rows.rows,
        },
    )


def settle(row: Framework, framework: str, task: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters checked and by the framework's first names, with the defaults that matter here."""
    given = dict(hyperparameters)
    return row.settled(task, check(given, row.known(task, given), framework))


def placed(row: Framework, settled: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return settled hyperparameters with the columns in constraints replaced by their places."""
    return {
        name: by_place(name, value, columns) if name in row.constraints else value for name, value in settled.items()
    }


def learn(row: Framework, framework: str, job: Job) -> Learned:
    """Return the fitted model, its losses finite and rounded to twelve digits.

    Raises:
        UserError: The framework refuses a hyperparameter, or the fit diverged.
    """
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
    return Learned(learned.rounds, metrics, learned.save)


def write(model: str | os.PathLike[str], prepared: Prepared, learned: Learned) -> None:
    """Write the model folder."""
    settings = prepared.settings
    facts = {
        "framework": settings.framework,
        "task": prepared.target.task,
        "target": settings.target,
        "classes": list(prepared.target.classes),
        "features": list(prepared.columns),
        "weight_column": settings.weight_column,
        "class_weights": dict(settings.class_weights or {}),
        "hyperparameters": prepared.settled,
        "max_rounds": settings.max_rounds,
        "early_stopping_rounds": prepared.job.early_stopping_rounds,
        "rounds": learned.rounds,
        "seed": settings.seed,
        **prepared.lineage,
        "metrics": learned.metrics,
    }
    write_model(model, prepared.row, learned, prepared.target, prepared.features, prepared.example, facts)


def in_range(argument: str, value: object, least: int) -> None:
    """Refuse what is no whole number from `least` to 2^31 - 1."""
    most = 2**31 - 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError("train", argument, f"{value!r} is not in range", f"Give a whole number from {least} to {most}")


def _read(dataset: Dataset, columns: Sequence[str]) -> pa.Table:
    tables = [pq.ParquetFile(file).read(columns=list(columns)) for file in dataset.files]
    return pa.concat_tables(tables).select(list(columns))


def _first_line(error: Exception) -> str:
    """Return what a framework says, without the time, file and stack trace that C++ libraries put around it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: |^Check failed: | at \S+, line \d+ *\.?$", "", lines[0])
