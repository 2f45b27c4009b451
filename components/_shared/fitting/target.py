"""The target: which task it asks for, its classes, and the labels as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.features import is_identifier, is_text
from penstock.components._shared.tabular import label_text

TASKS = ("binary", "multiclass", "regression")
MAX_INTEGER_CLASSES = 20


@dataclass(frozen=True)
class Target:
    """What is learned.

    Attributes:
        task: "binary", "multiclass" or "regression".
        classes: Labels in sorted order, of type str, bool or int; empty for a regression.
    """

    name: str
    task: str
    classes: tuple[Any, ...]

    def labels(self, column: pa.ChunkedArray, argument: str) -> np.ndarray:
        """Return places in `classes` (int64), or the values of a regression (float64).

        Raises:
            UserError: A label is missing, infinite or not among the classes.
        """
        values = _values(column, self.name, argument)
        if self.task == "regression":
            return values.cast(pa.float64()).to_numpy()
        places = pc.index_in(values, value_set=pa.array(self.classes, type=values.type))
        if places.null_count:
            strange = pc.unique(values.filter(pc.is_null(places))).to_pylist()
            raise UserError(
                "train",
                argument,
                f"{self.name!r} holds labels that train_set does not: {_listed(strange)}",
                f"Those of train_set are {_listed(self.classes)}; split so that both hold all of them, or filter rows",
            )
        return places.cast(pa.int64()).to_numpy()


def learn_target(column: pa.ChunkedArray, name: str, task: str, rows: int | None = None) -> Target:
    """Return the task and classes that the training labels ask for, or check those that were told.

    A boolean, and any two distinct values other than fractions, is binary. Text with more values is multiclass; so are
    integers with at most 20 distinct values that occur twice on average. All other numbers are a regression.

    Args:
        rows: How many rows `column` stands for, where it holds only what is distinct in them.

    Raises:
        UserError: A label is missing, all are the same, texts are all distinct, or the told task does not fit.
    """
    if task not in ("auto", *TASKS):
        raise UserError("train", "task", f"{task!r} is unknown", f"Choose one of auto, {', '.join(TASKS)}")
    values = _values(column, name, "target")
    distinct = sorted(pc.unique(values).to_pylist())
    if len(distinct) == 1:
        raise _refuse(f"{name!r} is {distinct[0]!r} in every row", "There is nothing to learn; choose another column")
    integral = all(value == int(value) for value in distinct) if pa.types.is_floating(values.type) else True
    if task == "auto":
        task = _inferred(values.type, len(distinct), rows or len(values), integral)
    if task == "regression":
        if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            raise _misfit(f"{name!r} is {values.type}, which is no number", "Choose binary or multiclass")
        return Target(name, task, ())
    if not integral:
        raise _misfit(f"{name!r} holds fractions, not labels", "Choose regression")
    if task == "binary" and len(distinct) > 2:
        raise _misfit(f"{name!r} has {len(distinct):,} distinct values, not 2", "Choose multiclass or regression")
    rows = rows or len(values)
    if (is_text(values.type) and len(distinct) == rows > 2) or is_identifier(len(distinct), rows):
        raise _refuse(
            f"{name!r} has {len(distinct):,} distinct values in {rows:,} rows, an identifier and no label",
            "Choose another column",
        )
    if pa.types.is_floating(values.type):
        distinct = [int(value) for value in distinct]
    return Target(name, task, tuple(distinct))


def _inferred(kind: pa.DataType, distinct: int, rows: int, integral: bool) -> str:
    if distinct == 2 and integral:
        return "binary"
    if is_text(kind):
        return "multiclass"
    if pa.types.is_integer(kind) and distinct <= min(MAX_INTEGER_CLASSES, rows / 2):
        return "multiclass"
    return "regression"


def _values(column: pa.ChunkedArray, name: str, argument: str) -> pa.ChunkedArray:
    """Return the labels as booleans, integers, float64 or text; none missing, none infinite."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or is_text(kind)):
        raise UserError(
            "train", argument, f"{name!r} is {kind}, which cannot be predicted", "Derive a number or a label from it"
        )
    missing = column.null_count
    if pa.types.is_floating(column.type):
        missing = pc.sum(pc.fill_null(pc.is_nan(column), True)).as_py() or 0
        if pc.any(pc.is_inf(column)).as_py():
            raise UserError("train", argument, f"{name!r} holds infinite values", "Filter the rows in ingest's query")
    refuse_missing(name, argument, missing, len(column))
    return column


def refuse_missing(name: str, argument: str, missing: int, rows: int) -> None:
    """Refuse a target of which labels are missing."""
    if missing:
        told = "every row" if missing == rows else f"{missing:,} of {rows:,} rows"
        raise UserError(
            "train", argument, f"{name!r} is null in {told}", f"Filter in ingest's query: WHERE {name} IS NOT NULL"
        )


def _listed(labels: Any) -> str:
    texts = [label_text(label) for label in labels]
    return ", ".join(texts[:10]) + (f" and {len(texts) - 10:,} more" if len(texts) > 10 else "")


def _refuse(problem: str, remedy: str) -> UserError:
    return UserError("train", "target", problem, remedy)


def _misfit(problem: str, remedy: str) -> UserError:
    return UserError("train", "task", problem, remedy)
