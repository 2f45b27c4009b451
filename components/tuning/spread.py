"""A search that a pipeline spreads over its own tasks: points proposed at once, models compared at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from penstock.components._shared.errors import UserError, on_behalf_of
from penstock.components._shared.fitting.prepare import Settings
from penstock.components._shared.model import KIND, LEFT_BY_OTHERS
from penstock.components._shared.sealed import new_folder, unseal
from penstock.components.tuning.render import write_report
from penstock.components.tuning.search import COMPLETE, DIRECTIONS, Objective, Search, Trial, best_of
from penstock.components.tuning.space import parse
from penstock.components.tuning.study import suggested
from penstock.components.tuning.table import write_trials
from penstock.components.tuning.tune import Tuned

MOST = 100  # Vertex AI collects no more artifacts into one task


def suggest(
    space: Mapping[str, Any],
    *,
    count: int = 10,
    sampler: str = "random",
    hyperparameters: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return points of a space, each with the hyperparameters that are not searched, for as many trainings.

    Args:
        count: Points; of a grid at most so many.
        sampler: "random" or "grid".

    Raises:
        UserError: The space is none, or there are too many points.
    """
    if isinstance(count, bool) or not 1 <= count <= MOST:
        raise UserError("suggest", "count", f"{count!r} is not in range", f"Give a whole number from 1 to {MOST}")
    fixed = dict(hyperparameters or {})
    with on_behalf_of("suggest"):
        parsed = parse(space)
        for name in fixed:
            if name in space:
                raise UserError("suggest", "space", f"{name}: hyperparameters gives it a value, too", "Leave one out")
        if sampler == "grid":
            points = parsed.grid()
            if len(points) > count:
                raise UserError(
                    "suggest",
                    "count",
                    f"the grid has {len(points):,} points, not {count}",
                    "Give larger steps",
                )
        elif sampler == "random":
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            points = []
            for trial in (study.ask() for _ in range(count)):
                points.append(parsed.active(lambda parameter, trial=trial: suggested(trial, parameter)))  # type: ignore[misc]
        else:
            raise UserError("suggest", "sampler", f"{sampler!r} is unknown", "Choose one of random, grid")
    return [{**fixed, **point} for point in points]


def pick(
    models: Sequence[str | os.PathLike[str]],
    model: str | os.PathLike[str],
    trials: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    space: Mapping[str, Any],
    objective: str = "",
    direction: str = "minimize",
) -> Tuned:
    """Return the best of some models; its folder, all as trials and a report are written.

    Args:
        models: Model folders that train wrote on the same rows.
        model: Folder to write.
        objective: One of the models' metrics; empty: the one loss on the evaluation set.

    Raises:
        UserError: There is no model, one was altered, or they are of different rows.
    """
    if direction not in DIRECTIONS:
        raise UserError("pick", "direction", f"{direction!r} is unknown", f"Choose one of {', '.join(DIRECTIONS)}")
    facts = [unseal(folder, KIND, "pick", "models", besides=LEFT_BY_OTHERS) for folder in models]
    if not facts:
        raise UserError("pick", "models", "there are none", "Collect the models of a loop over what suggest gives")
    for name in ("framework", "target", "train_fingerprint", "eval_fingerprint"):
        if len({each[name] for each in facts}) > 1:
            raise UserError("pick", "models", f"they differ in {name}", "Compare models of the same rows")
    with on_behalf_of("pick"):
        parsed = parse(space)
        names = [parameter.name for parameter in parsed.parameters]
        found = [
            Trial(
                number=number,
                state=COMPLETE,
                parameters={name: each["hyperparameters"][name] for name in names if name in each["hyperparameters"]},
                metrics={**each["metrics"], "rounds": float(each["rounds"])},
            )
            for number, each in enumerate(facts)
        ]
        search = Search(
            space=parsed,
            settings=Settings(target=facts[0]["target"], framework=facts[0]["framework"], seed=facts[0]["seed"]),
            hyperparameters={name: value for name, value in facts[0]["hyperparameters"].items() if name not in names},
            objectives=(Objective(objective, direction),),
            sampler="of suggest",
            pruner="none",
            max_trials=len(found),
            max_seconds=0,
            parallel_trials=len(found),
        )
        best, front = best_of(found, search.objectives)
        name = search.objectives[0].of(best.metrics)
        write_trials(Path(trials), parsed, found, best.number, front)
        write_report(Path(report), "the pipeline", search, found, best, front, [name])
    with new_folder(model) as folder:
        folder.rmdir()
        shutil.copytree(models[best.number], folder, ignore=shutil.ignore_patterns(*LEFT_BY_OTHERS))
    chosen = facts[best.number]
    return Tuned(chosen["hyperparameters"], best.metrics[name], {COMPLETE: float(len(found)), **best.metrics})
