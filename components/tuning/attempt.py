"""One trial: hyperparameters in, metrics out. What every backend runs, wherever it runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock.components._shared.fitting.frameworks import Framework, Job
from penstock.components._shared.fitting.learning import learn, placed, settle
from penstock.components.tuning.shared_rows import capped


def attempt(
    row: Framework,
    framework: str,
    job: Job,
    columns: Sequence[str],
    hyperparameters: Mapping[str, Any],
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, float]:
    """Return the metrics of a fit with these hyperparameters: the framework's own, `rounds`, and `seconds` of fitting.

    Args:
        job: With all categories, whatever the hyperparameters; early_stopping_rounds as `train` is given it.
        report: As of a job; what it raises ends the trial.

    Raises:
        UserError: The framework refuses them, or the fit diverged.
    """
    settled = settle(row, framework, job.task, hyperparameters)
    job = replace(
        capped(job, row.max_categories(settled)),
        hyperparameters=placed(row, settled, columns),
        early_stopping_rounds=job.early_stopping_rounds if row.rounds(settled) else 0,
        report=report if row.reports(settled) else None,
    )
    started = time.monotonic()
    learned = learn(row, framework, job)
    return {**learned.metrics, "rounds": float(learned.rounds), "seconds": round(time.monotonic() - started, 3)}
