"""What a row weighs: its own weight times that of its class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.target import Target
from penstock.components._shared.tabular import label_text

BALANCED = "balanced"


def check_weights(parts: Iterable[pa.Table], column: str, argument: str) -> None:
    """Refuse weights of rows that are none.

    Raises:
        UserError: The column is no number, or a weight is missing, infinite or negative, or all are 0.
    """
    rows, bad, any_weight = 0, 0, False
    for part in parts if column else ():
        kind = part.schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise UserError(
                "train", "weight_column", f"{column!r} is {kind}, which is no number", "Choose another column"
            )
        values = row_weights(part, column)
        assert values is not None
        rows += len(values)
        bad += int((~np.isfinite(values) | (values < 0)).sum())
        any_weight = any_weight or bool(values.any())
    if bad:
        raise UserError(
            "train",
            "weight_column",
            f"{column!r} is null, infinite or negative in {bad:,} of {rows:,} rows of {argument}",
            "Weights are numbers, 0 or more; filter or mend the rows in ingest's query",
        )
    if rows and not any_weight:
        raise UserError(
            "train", "weight_column", f"{column!r} is 0 in every row of {argument}", "Choose another column"
        )


def row_weights(table: pa.Table, column: str) -> np.ndarray | None:
    """Return the weights of the rows, float64, or None without a weight column."""
    return pc.fill_null(table[column].cast(pa.float64()), np.nan).to_numpy() if column else None


def class_factors(
    class_weights: Mapping[str, float], target: Target, counted: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """Return a factor by class, float64, or None where all classes weigh the same.

    "balanced" gives a class of n of N rows the factor N / (number of classes * n), as scikit-learn does.

    Args:
        counted: Returns the number of training rows by class.

    Raises:
        UserError: A label is unknown, a weight is not above 0, or the task is a regression.
    """
    if not class_weights:
        return None
    if target.task == "regression":
        raise _refuse("a regression has no classes", "Leave it empty, or use weight_column")
    for label, weight in class_weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight <= 0:
            raise _refuse(f"{label!r} weighs {weight!r}", "Give finite numbers above 0")
    places = {label_text(label): place for place, label in enumerate(target.classes)}
    given = {label.lower() if isinstance(target.classes[0], bool) else label: w for label, w in class_weights.items()}
    if BALANCED in given and BALANCED not in places:
        if given != {BALANCED: 1}:
            raise _refuse(f"{BALANCED!r} stands for all weights", f'Give {{"{BALANCED}": 1}} and nothing else')
        counts = counted()
        return counts.sum() / (len(places) * counts)
    unknown = [label for label in given if label not in places]
    if unknown:
        raise _refuse(f"no row has the label {', '.join(map(repr, unknown))}", f"The labels are {', '.join(places)}")
    factors = np.ones(len(places))
    for label, weight in given.items():
        factors[places[label]] = weight
    return factors


def combined(rows: np.ndarray | None, factors: np.ndarray | None, labels: np.ndarray) -> np.ndarray | None:
    """Return what each row weighs, or None where all weigh the same."""
    if factors is None:
        return rows
    return factors[labels] if rows is None else rows * factors[labels]


def _refuse(problem: str, remedy: str) -> UserError:
    return UserError("train", "class_weights", problem, remedy)
