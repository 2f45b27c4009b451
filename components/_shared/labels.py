"""The target of some rows, as metrics take it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components._shared.errors import UserError
from penstock.components._shared.tabular import label_text

SHOWN = 10


def labels_of(
    column: pa.ChunkedArray, name: str, classes: tuple[Any, ...], component: str, argument: str
) -> np.ndarray:
    """Return places in `classes` (int64), or float64 values where there are no classes.

    Args:
        column: The target.
        name: Its name.
        classes: Labels that the model knows; empty for a regression.
        component: Who asks, for errors.
        argument: Argument that brought the rows.

    Raises:
        UserError: A value is missing, infinite, of another type, or a label that the model does not know.
    """

    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(component, argument, problem, remedy)

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if column.null_count:
        raise refuse(
            f"{name!r} is null in {column.null_count:,} of {len(column):,} rows",
            f"Filter in ingest's query: WHERE {name} IS NOT NULL",
        )
    if classes:
        return _places(column, name, classes, refuse)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise refuse(f"{name!r} is {column.type}, but the model predicts numbers", "Give it rows like its own")
    values: np.ndarray = column.cast(pa.float64()).to_numpy()
    if not np.isfinite(values).all():
        raise refuse(f"{name!r} holds infinite values", "Filter the rows in ingest's query")
    return values


def _places(
    column: pa.ChunkedArray, name: str, classes: tuple[Any, ...], refuse: Callable[[str, str], UserError]
) -> np.ndarray:
    known = f"The model knows {_listed(classes)}"
    try:
        places = pc.index_in(column, value_set=pa.array(classes, type=column.type))
    except (pa.ArrowException, TypeError):
        raise refuse(f"{name!r} is {column.type}, not like the labels of the model", known) from None
    if places.null_count:
        strange = pc.unique(column.filter(pc.is_null(places))).to_pylist()
        raise refuse(f"{name!r} holds labels that the model does not know: {_listed(strange)}", known)
    found: np.ndarray = places.cast(pa.int64()).to_numpy()
    return found


def _listed(labels: Iterable[Any]) -> str:
    texts = [label_text(label) for label in labels]
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else "")
