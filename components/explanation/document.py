"""The explanation as JSON, format penstock.explanation/1.

task, target, classes
explained_class  the positive class of a binary model; null else
model            lineage of the model, as train wrote it
dataset          fingerprint and rows
sample           rows that were explained, why not all (empty: all), seed, and rows that importance and dependence used
method           name, about, explains ("margin": what the model adds up before its link function; "prediction")
background       rows that stand for not knowing a column, or null where the method needs none
weight_column
additivity       holds, tolerance, largest_gap, failed_rows
outputs          by output: class (null but for a multiclass model), base_value, mean_output
features         the most important first: name, kind, mean_absolute and mean (over outputs), share of all
                 mean_absolute, by_class (of a multiclass model: mean_absolute by class as text)
importance       permutation importance: metric, better, baseline, rows, repeats, and features with name, mean and
                 standard deviation of how much worse the metric got; or null and importance_note says why
importance_note
dependence       by feature: kind, note, values (null is missing), shares of the rows by value (of categories), and
                 predicted: mean prediction by value, one a class of a multiclass model
slices           by column: note, and slices with value, rows, mean_output and mean_absolute by feature; null where the
                 rows of a slice weigh nothing
local            rows one by one: choice, row (number), keys, class (of a multiclass model the predicted one),
                 prediction, output, base_value, and values: feature, value, attribution, the largest first

The same input and seed give the same bytes.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = "penstock.explanation/1"


def plain(value: Any) -> Any:
    """Return a value of a dataset as JSON has it; what JSON lacks is text, NaN is null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def write(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a document as JSON, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.write_text(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(target)
