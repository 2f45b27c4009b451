"""How far what columns add to predictions has moved: the ranking of the columns by NDCG, and each column by itself.

The ranking is compared as Amazon SageMaker Clarify does ("Feature attribution drift for models in production", in the
developer guide of Amazon SageMaker): columns are ranked by their mean absolute attribution in the current rows, each
counts as much as its mean absolute attribution in the reference, less the further down it stands (normalized discounted
cumulative gain, Järvelin and Kekäläinen 2002), and below 0.9 the attributions have drifted:

    DCG = sum over i = 1 … m of a(f'_i) / log2(i + 1)        f'_i: the column of rank i in the current rows
    NDCG = DCG / (the same in the order of the reference)    a: mean absolute attribution in the reference

So a swap of two columns weighs more the higher they stand and the further apart they are, and 1 is the same order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.components._shared.dataset import Dataset, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.rows import connect, select_one

COMPONENT = "detect_drift"
PREFIX = "attribution_"  # of the columns that explain writes
_REMEDY = "Give the attributions that explain wrote of the same model"


def compare(reference: str | os.PathLike[str], current: str | os.PathLike[str], threshold: float) -> dict[str, Any]:
    """Return how far attributions have moved, as the drift document has it.

    Args:
        reference: Dataset of attributions of the rows that are compared with.
        current: Dataset of attributions of the rows that are looked at.
        threshold: NDCG below which the attributions have drifted, 0 to 1.

    Raises:
        UserError: A dataset holds no attributions, or the two are of different columns.
    """
    before_set, before = _means(reference, "reference_attributions")
    now_set, now = _means(current, "attributions")
    if set(before) != set(now):
        lacking = [name for name in before if name not in now]
        text = f"lacks those of {', '.join(lacking)}" if lacking else "has those of other columns, too"
        columns = ", ".join(before)
        raise UserError(COMPONENT, "attributions", f"it {text}; the reference is of {columns}", _REMEDY)
    if not any(before.values()):
        raise UserError(
            COMPONENT, "reference_attributions", "no column adds anything to a prediction", "Look at the model"
        )
    names = list(before)
    score = ndcg(np.array([before[name] for name in names]), np.array([now[name] for name in names]))
    places = {name: place for place, name in enumerate(_ranked(now), 1)}
    return {
        "ndcg": score,
        "threshold": threshold,
        "drifted": score < threshold,
        "reference": {"fingerprint": before_set.fingerprint, "rows": before_set.rows},
        "current": {"fingerprint": now_set.fingerprint, "rows": now_set.rows},
        "columns": [
            {
                "name": name,
                "rank": {"reference": place, "current": places[name]},
                "mean_absolute": {"reference": before[name], "current": now[name]},
                "change": now[name] - before[name],
                "relative_change": now[name] / before[name] - 1 if before[name] else None,
            }
            for place, name in enumerate(_ranked(before), 1)
        ],
    }


def ndcg(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the normalized discounted cumulative gain of a ranking.

    Args:
        reference: What each column counts, 0 or more and not all 0, (columns,).
        current: What the columns are ranked by, (columns,); of equal ones each has the average of their places.
    """
    if len(reference) == 1:
        return 1.0
    from sklearn.metrics import ndcg_score  # a second to import, where there is something to compare

    return min(float(ndcg_score([reference], [current])), 1.0)


def _means(path: str | os.PathLike[str], argument: str) -> tuple[Dataset, Mapping[str, float]]:
    """Return a dataset of attributions, and the mean absolute attribution of each column over all its rows.

    Of a multiclass model there is a row for each class, so that this is the mean over classes, too.
    """
    data = open_dataset(path, COMPONENT, argument)
    places = {name.removeprefix(PREFIX): i for i, name in enumerate(data.schema) if name.startswith(PREFIX)}
    if not places:
        raise UserError(COMPONENT, argument, f"it has no column {PREFIX}…", _REMEDY)
    if not data.rows:
        raise UserError(COMPONENT, argument, "it has no rows", _REMEDY)
    with connect(data.files) as connection:
        values = select_one(connection, [f"avg(abs(c{i}))" for i in places.values()], "rows")
        means = dict(zip(places, values, strict=True))
    if wrong := [name for name, mean in means.items() if mean is None or not np.isfinite(mean)]:
        raise UserError(COMPONENT, argument, f"those of {', '.join(wrong)} are not all numbers", _REMEDY)
    return data, means


def _ranked(means: Mapping[str, float]) -> list[str]:
    return sorted(means, key=lambda name: (-means[name], name))
