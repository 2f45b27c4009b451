"""From hyperparameters and a job to a fitted model; of the rows it knows only what the job says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.frameworks import Framework, Job, Learned
from penstock.components._shared.fitting.hyperparameters import by_place, check


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
    return replace(learned, metrics=metrics)


def _first_line(error: Exception) -> str:
    """Return what a framework says, without the time, file and stack trace that C++ libraries put around it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: |^Check failed: | at \S+, line \d+ *\.?$", "", lines[0])
