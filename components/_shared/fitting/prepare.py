"""From datasets to a job for a framework, and from what it learned to a model folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components._shared import memory
from penstock.components._shared.dataset import Dataset, open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting import frameworks
from penstock.components._shared.fitting.checkpoint import checkpoint_of
from penstock.components._shared.fitting.features import (
    Feature,
    choose_columns,
    is_text,
    learn_features,
    matrix,
    native_names,
)
from penstock.components._shared.fitting.folder import EXAMPLE_ROWS, versions, write_model
from penstock.components._shared.fitting.frameworks import Framework, Job, Learned, Parts, Rows
from penstock.components._shared.fitting.learning import placed, settle
from penstock.components._shared.fitting.survey import Column, Tables, survey
from penstock.components._shared.fitting.target import Target, learn_target, refuse_missing
from penstock.components._shared.fitting.transform_graph import Through, TransformGraph
from penstock.components._shared.fitting.weights import check_weights, class_factors, combined, row_weights

WIDTHS = {"double": 8, "int64": 8, "uint64": 8, "float": 4, "int32": 4, "uint32": 4, "string": 4}  # bytes, at least


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
    checkpoint: str = ""
    external_memory: bool = False


@dataclass(frozen=True)
class Prepared:
    """Rows read and encoded, and all that a model folder says of them.

    Attributes:
        row: The framework.
        features: Of the raw columns that the model reads.
        transformed: Of what its transform graph makes of them; without one None.
        columns: The columns to learn from, in order.
        settled: The hyperparameters as the user may name them; in `job` columns are places.
        example: Some training rows.
        lineage: Facts of the model folder that do not depend on the fit.
    """

    settings: Settings
    row: Framework
    target: Target
    features: tuple[Feature, ...]
    transformed: tuple[Feature, ...] | None
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
    transform_graph: str | os.PathLike[str] | None = None,
    all_categories: bool = False,
) -> Prepared:
    """Return a job for the framework, made of the datasets.

    Args:
        train_set: Dataset folder of the rows to fit.
        eval_set: Dataset folder of the rows that early stopping watches; may be empty if it is off.
        hyperparameters: The framework's own.
        transform_graph: Output of TensorFlow Transform whose graph makes what is learned from of the rows' columns.
        all_categories: Whether to keep the categories beyond the number that the framework takes.

    Raises:
        UserError: Something that was given is wrong.
    """
    in_range("max_rounds", settings.max_rounds, 1)
    in_range("early_stopping_rounds", settings.early_stopping_rounds, 0)
    in_range("seed", settings.seed, 0)
    target, weight_column = settings.target, settings.weight_column
    row = frameworks.framework(settings.framework)
    if settings.checkpoint and not row.resumes:
        raise UserError("train", "checkpoint", f"{settings.framework} writes no checkpoints", "Leave it empty")
    streamed = row.streams or settings.external_memory
    if settings.external_memory and (reason := row.whole(hyperparameters)):
        raise UserError(
            "train",
            "external_memory",
            f"{settings.framework} cannot read rows part by part: {reason}",
            f"Leave it false, or choose one of {', '.join(frameworks.EXTERNAL)} as they come",
        )
    if transform_graph and not row.embeds:
        raise UserError(
            "train",
            "transform_graph",
            f"a model of {settings.framework} cannot hold a graph of TensorFlow",
            f"Choose {' or '.join(frameworks.EMBEDDING)}, or give the transformed datasets alone",
        )
    graph = TransformGraph(transform_graph) if transform_graph else None
    train_rows = open_dataset(train_set, "train", "train_set")
    eval_rows = open_dataset(eval_set, "train", "eval_set")
    if not train_rows.rows:
        raise UserError("train", "train_set", "there are no rows", "Check the source, query and split of ingest")
    require_columns(train_rows, [target], "train", "target")
    require_columns(train_rows, [weight_column] if weight_column else [], "train", "weight_column")
    if weight_column == target:
        raise UserError("train", "weight_column", f"{target!r} is the target", "Choose another column")
    columns = choose_columns(
        list(graph.columns if graph else train_rows.schema),
        target,
        weight_column,
        list(settings.features),
        list(settings.exclude),
    )
    besides = [target, *([weight_column] if weight_column else [])]
    read = _sources(graph, columns, {"train_set": train_rows, "eval_set": eval_rows}, besides) if graph else columns
    require_columns(eval_rows, [*read, *besides], "train", "eval_set")
    _require_memory(row, streamed, [train_rows.rows, eval_rows.rows], train_rows.schema, columns, besides)
    embedded = graph.embed(columns, Tables(train_rows, read, streamed=True).schema) if graph else None

    def tables_of(dataset: Dataset, argument: str) -> Tables:
        if embedded:
            return Through(embedded, dataset, besides, argument)
        return Tables(dataset, [*columns, *besides], streamed)

    train, evaluation = tables_of(train_rows, "train_set"), tables_of(eval_rows, "eval_set")
    texts = [name for name in columns if is_text(train.schema.field(name).type)]
    seen = survey(train, train.schema, [*texts, target] if streamed else texts)
    eval_seen = survey(evaluation, evaluation.schema or train.schema, [target] if streamed else [])

    learned_target = learn_target(_told(train, seen[target], target, "target"), target, settings.task, train_rows.rows)
    settled = settle(row, settings.framework, learned_target.task, hyperparameters)
    most = None if all_categories else row.max_categories(settled)
    learned_features = learn_features(seen, eval_seen, columns, most, row.hash_bins(settled))
    here, there = eval_seen[target].type, seen[target].type
    if here != there:
        raise UserError(
            "train", "eval_set", f"{target!r} is {here}, but {there} in train_set", "Ingest both sets in one step"
        )
    stop = settings.early_stopping_rounds if row.rounds(settled) else 0
    if stop and not eval_rows.rows:
        raise UserError(
            "train",
            "eval_set",
            "there are no rows for early stopping to watch",
            "Set early_stopping_rounds to 0, or split some off in ingest",
        )

    if streamed and eval_rows.rows:  # else found when they are read, after the first round
        learned_target.labels(_told(evaluation, eval_seen[target], target, "eval_set"), "eval_set")
    check_weights(train, weight_column, "train_set")
    check_weights(evaluation, weight_column, "eval_set")
    factors = class_factors(settings.class_weights or {}, learned_target, lambda: _class_counts(train, learned_target))

    def rows_of(tables: Tables, argument: str) -> Rows | Parts:
        def read(place: int) -> Rows:
            table = tables[place]
            labels = learned_target.labels(table[target], argument)
            weights = combined(row_weights(table, weight_column), factors, labels)
            return Rows(matrix(table, learned_features), labels, weights)

        return Parts(tables.sizes, read) if streamed else read(0)

    lineage = {
        "train_fingerprint": train_rows.fingerprint,
        "train_rows": train_rows.rows,
        "eval_fingerprint": eval_rows.fingerprint,
        "eval_rows": eval_rows.rows,
        **({"transform_graph": graph.fingerprint} if graph else {}),
    }
    told = {**asdict(settings), "columns": columns, "settled": settled, **lineage, "versions": versions(row)}
    job: Job = Job(
        task=learned_target.task,
        classes=len(learned_target.classes),
        names=native_names(learned_features),
        categories=tuple(
            feature.bins or (len(feature.categories) if feature.kind == "category" else None)
            for feature in learned_features
        ),
        train=rows_of(train, "train_set"),
        eval=rows_of(evaluation, "eval_set") if eval_rows.rows else None,
        hyperparameters=placed(row, settled, columns),
        max_rounds=settings.max_rounds,
        early_stopping_rounds=stop,
        seed=settings.seed,
        texts=tuple(feature.categories for feature in learned_features),
        bins=tuple(feature.bins for feature in learned_features),
        checkpoint=settings.checkpoint and checkpoint_of(settings.checkpoint, told),
        graph=embedded,
    )
    first = train.raw(0)
    return Prepared(
        settings=settings,
        row=row,
        target=learned_target,
        features=embedded.features if embedded else learned_features,
        transformed=learned_features if embedded else None,
        columns=tuple(columns),
        settled=settled,
        job=job,
        example=first.take(list(range(min(EXAMPLE_ROWS, len(first))))),  # a slice would keep all rows in memory
        lineage=lineage,
    )


def _sources(
    graph: TransformGraph, columns: Sequence[str], sets: Mapping[str, Dataset], besides: Sequence[str]
) -> list[str]:
    """Return the raw columns that a graph makes columns of.

    Raises:
        UserError: The rows do not have them, are transformed already, or one of them is not there to be learned from.
    """
    for argument, rows in sets.items():
        if rows.transformed:
            raise UserError(
                "train",
                argument,
                "its rows are transformed already, and would be once more",
                "Give the rows that transform read, or leave transform_graph out",
            )
    read = graph.sources(columns)
    require_columns(sets["train_set"], read, "train", "transform_graph")
    for name in (name for name in besides if name in read):
        made = [column for column in columns if name in graph.columns[column].sources]
        raise UserError(
            "train",
            "transform_graph",
            f"it makes {', '.join(made)} of {name!r}, which is not known where the model is served",
            f"Add to exclude: {made}",
        )
    return read


def _require_memory(
    row: Framework,
    streamed: bool,
    sets: Sequence[int],
    schema: Mapping[str, str],
    columns: Sequence[str],
    besides: Sequence[str],
) -> None:
    """Refuse rows that do not fit into the memory that there is, before any is read.

    Rows in memory are there as they are read and as frameworks take them, and what is learned from, a set at a time,
    once more on the way from one to the other; what a framework makes of them comes on top.

    Args:
        sets: Rows of each set.
        besides: Columns that are read beside those that are learned from.
    """
    rows = sum(sets)
    if streamed:
        needed = rows * (row.bytes_of_row + row.bytes_of_cell * len(columns))
    else:
        learned, other = (sum(WIDTHS.get(schema.get(each, ""), 0) for each in names) for names in (columns, besides))
        needed = rows * (8 * (len(columns) + len(besides)) + learned + other) + max(sets) * learned
    argument, remedy = "external_memory", "set it to true, and rows are read part by part"
    if streamed:
        argument, remedy = "train_set", "ingest fewer rows or columns"
    elif row.whole({}):
        remedy = f"set it to true, with one of {', '.join(frameworks.EXTERNAL)}"
    what = f"{rows:,} rows of {len(columns):,} columns"
    memory.require(needed, "train", argument, what, f"Give the step more, or {remedy}")


def write(model: str | os.PathLike[str], prepared: Prepared, learned: Learned) -> None:
    """Write the model folder; of several processes that fitted the model together, only one does."""
    if not learned.writes:
        return
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
        "external_memory": settings.external_memory,
        **prepared.lineage,
        "metrics": learned.metrics,
    }
    write_model(
        model,
        prepared.row,
        learned,
        prepared.target,
        prepared.features,
        prepared.example,
        facts,
        transformed=prepared.transformed,
    )


def in_range(argument: str, value: object, least: int) -> None:
    """Refuse what is no whole number from `least` to 2^31 - 1."""
    most = 2**31 - 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError("train", argument, f"{value!r} is not in range", f"Give a whole number from {least} to {most}")


def _told(tables: Tables, column: Column, target: str, argument: str) -> pa.ChunkedArray:
    """Return the labels, or, where they are not all in memory, what is distinct in them."""
    if not tables.streamed:
        return tables[0][target]
    refuse_missing(target, argument, column.missing, column.rows)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.chunked_array([pa.array(list(column.counts), kind)])


def _class_counts(tables: Tables, target: Target) -> np.ndarray:
    labels = (target.labels(table[target.name], "train_set") for table in tables)
    return np.sum([np.bincount(places, minlength=len(target.classes)) for places in labels], axis=0)
