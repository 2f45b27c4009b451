"""What is searched, by whom, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.prepare import Prepared, Settings
from penstock.components.tuning.space import Space

COMPONENT = "tune"
DIRECTIONS = ("minimize", "maximize")
# Metrics of which more is better; of all others that frameworks report, less is.
MAXIMIZED = ("accuracy", "auc", "auc_mu", "aucpr", "average_precision", "map", "ndcg", "pre")
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Objective:
    """A number of a trial: eval_<metric>, train_<metric>, rounds or seconds.

    Attributes:
        name: Empty: the one loss on the evaluation set.
        direction: "minimize" or "maximize".
    """

    name: str
    direction: str

    def of(self, metrics: Mapping[str, float]) -> str:
        """Return its name in the metrics of a trial.

        Raises:
            UserError: There is none of that name, or none was given and there are several losses.
        """
        losses = [name for name in metrics if name.startswith("eval_")]
        if self.name:
            if self.name not in metrics:
                raise _objective(f"a trial has no {self.name!r}", f"It has {', '.join(sorted(metrics))}")
            return self.name
        if len(losses) != 1:
            raise _objective(f"trials have the losses {', '.join(losses)}", 'Name one: {"eval_log_loss": "minimize"}')
        if losses[0].removeprefix("eval_") in MAXIMIZED:
            raise _objective(f"of {losses[0]!r} more is better", f'Say so: {{"{losses[0]}": "maximize"}}')
        return losses[0]

    def value(self, metrics: Mapping[str, float]) -> float:
        """Return its value in the metrics of a trial."""
        return metrics[self.of(metrics)]


@dataclass(frozen=True)
class Search:
    """A search as it was asked for, checked but for what a backend cannot do.

    Attributes:
        settings: What every trial shares beside `hyperparameters`.
        hyperparameters: Those that are not searched.
        objectives: One, or several that are weighed against each other.
        max_trials: Trials at most, those of an earlier attempt among them.
        max_seconds: After which trials that still run are given up.
        train_uri, eval_uri: Where the datasets are for a trial on another machine.
        run_id: Of the run, for a backend that starts a job.
        options: The backend's own.
    """

    space: Space
    settings: Settings
    hyperparameters: dict[str, Any]
    objectives: tuple[Objective, ...]
    sampler: str
    pruner: str
    max_trials: int
    max_seconds: float
    parallel_trials: int
    study: str = ""
    train_uri: str = ""
    eval_uri: str = ""
    run_id: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def definition(self, prepared: Prepared) -> dict[str, Any]:
        """Return all that trials have to share to be compared, JSON values only."""
        settings = self.settings
        return {
            "space": self.space.description(),
            "objectives": [[each.name, each.direction] for each in self.objectives],
            "hyperparameters": self.hyperparameters,
            "framework": settings.framework,
            "target": settings.target,
            "task": prepared.target.task,
            "features": list(prepared.columns),
            "weight_column": settings.weight_column,
            "class_weights": dict(settings.class_weights or {}),
            "max_rounds": settings.max_rounds,
            "early_stopping_rounds": settings.early_stopping_rounds,
            "seed": settings.seed,
            "train_set": prepared.lineage["train_fingerprint"],
            "eval_set": prepared.lineage["eval_fingerprint"],
        }


@dataclass(frozen=True)
class Trial:
    """One point of the space, tried.

    Attributes:
        number: From 0, in the order in which trials ended.
        state: "complete", "pruned" or "failed".
        metrics: What the framework reports, `rounds` and `seconds`; of a pruned trial those at its last round.
        error: Why it failed.
    """

    number: int
    state: str
    parameters: dict[str, Any]
    metrics: dict[str, float]
    error: str = ""


# Returns the trials of a search; where trials run here, the rows are in the folder (shared_rows).
Run = Callable[[Prepared, Path], list[Trial]]


@dataclass(frozen=True)
class Backend:
    """A row of the table of backends.

    Attributes:
        samplers: Those it has, by our names; the first is its own choice.
        pruners: Likewise.
        options: Names of its own options, with what each is.
        cannot: Returns what of a search it cannot express, each by name; empty: all is well.
        begin: Starts what can be started before the rows are there, and returns as a context what runs the search.
        remote: Whether trials run elsewhere, on datasets that have a URI.
    """

    samplers: tuple[str, ...]
    pruners: tuple[str, ...]
    options: Mapping[str, str]
    cannot: Callable[[Search], Sequence[str]]
    begin: Callable[[Search], AbstractContextManager[Run]]
    remote: bool


def _objective(problem: str, remedy: str) -> UserError:
    return UserError(COMPONENT, "objectives", problem, remedy)


def digest(value: Any) -> str:
    """Return a SHA-256 of a JSON value, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def best_of(trials: Sequence[Trial], objectives: Sequence[Objective]) -> tuple[Trial, set[int]]:
    """Return the best trial, and the numbers of those that no other one beats in every objective.

    Of several objectives the first decides among those that none beats; of equals the earlier trial is taken.

    Raises:
        UserError: No trial was completed; the first error is told.
    """
    complete = [trial for trial in trials if trial.state == COMPLETE]
    if not complete:
        failed = [trial for trial in trials if trial.state == FAILED]
        if failed:
            raise UserError(
                COMPONENT, "space", f"all {len(failed)} trials failed, the first with: {failed[0].error}",
                "Correct the space or the hyperparameters",
            )  # fmt: skip
        raise UserError(COMPONENT, "max_seconds", "no trial was completed in time", "Give more seconds")
    costs = {
        trial.number: tuple(
            each.value(trial.metrics) * (1 if each.direction == "minimize" else -1) for each in objectives
        )
        for trial in complete
    }

    def beaten(cost: tuple[float, ...]) -> bool:
        return any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs.values())

    front = {number for number, cost in costs.items() if not beaten(cost)}
    leading = [trial for trial in complete if trial.number in front]
    return min(leading, key=lambda trial: (costs[trial.number], trial.number)), front
