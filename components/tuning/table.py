"""The trials of a search as a dataset: one row a trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.components._shared.dataset import write_dataset
from penstock.components.tuning.search import Trial
from penstock.components.tuning.space import Parameter, Space


def write_trials(path: Path, space: Space, trials: Sequence[Trial], best: int, front: Collection[int]) -> None:
    """Write trials as a dataset: number, state, best, front, error; metrics by name; parameters as param_<name>.

    A parameter that is not there under a trial's conditions is null, as is a metric that a trial does not have.
    """
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    columns: dict[str, pa.Array] = {
        "number": pa.array([trial.number for trial in trials], pa.int64()),
        "state": pa.array([trial.state for trial in trials], pa.string()),
        "best": pa.array([trial.number == best for trial in trials], pa.bool_()),
        "front": pa.array([trial.number in front for trial in trials], pa.bool_()),
    }
    for name in metrics:
        columns[name] = pa.array([trial.metrics.get(name) for trial in trials], pa.float64())
    for parameter in space.parameters:
        values = [trial.parameters.get(parameter.name) for trial in trials]
        columns[f"param_{parameter.name}"] = _column(parameter, values)
    columns["error"] = pa.array([trial.error or None for trial in trials], pa.string())
    table = pa.table(columns)
    write_dataset(path, table.schema, table.to_batches())


def _column(parameter: Parameter, values: Sequence[Any]) -> pa.Array:
    if parameter.type != "categorical":
        return pa.array(values, pa.int64() if parameter.type == "int" else pa.float64())
    kinds = {type(choice) for choice in parameter.choices if choice is not None}
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if kinds <= {kind}:
            return pa.array(values, arrow)
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())
