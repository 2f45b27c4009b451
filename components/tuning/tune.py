"""The work of `tune`: search hyperparameters, and write what was found."""

from __future__ import annotations

import importlib
import math
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.components._shared import memory
from penstock.components._shared.errors import UserError, on_behalf_of
from penstock.components._shared.fitting.learning import learn, settle
from penstock.components._shared.fitting.prepare import Prepared, Settings, prepare, write
from penstock.components._shared.sealed import new_folder, seal
from penstock.components.tuning import backends
from penstock.components.tuning.search import (
    COMPLETE,
    COMPONENT,
    DIRECTIONS,
    FAILED,
    PRUNED,
    Backend,
    Objective,
    Search,
    Trial,
    best_of,
)
from penstock.components.tuning.shared_rows import link_sets, write_rows
from penstock.components.tuning.space import Space, parse, refused
from penstock.components.tuning.table import write_trials

__all__ = ["Settings", "Tuned", "tune"]

NO_MODEL = "penstock.no-model/1"
REPORTING = "penstock.components.tuning.render"


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        hyperparameters: For `train`: the best trial's, with those that were not searched.
        value: The best trial's value of the first objective.
        metrics: Numbers of trials by how they ended, and the best trial's metrics.
    """

    hyperparameters: dict[str, Any]
    value: float
    metrics: dict[str, float]


def tune(
    train_set: str | os.PathLike[str],
    eval_set: str | os.PathLike[str],
    trials: str | os.PathLike[str],
    model: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    settings: Settings,
    space: Mapping[str, Any],
    hyperparameters: Mapping[str, Any] | None = None,
    objectives: Mapping[str, str] | None = None,
    backend: str = "local",
    sampler: str = "auto",
    pruner: str = "auto",
    max_trials: int = 50,
    max_seconds: float = 3600,
    parallel_trials: int = 1,
    study: str = "",
    fit_best: bool = False,
    tracking: str = "",
    train_uri: str = "",
    eval_uri: str = "",
    run_id: str = "",
    options: Mapping[str, Any] | None = None,
) -> Tuned:
    """Return the best hyperparameters of a search; all its trials, a report and the best model are written.

    Args:
        train_set: Dataset folder of the rows to fit.
        eval_set: Dataset folder of the rows that trials are judged by.
        trials: Folder to write, a dataset of one row a trial.
        model: Folder to write: with `fit_best` the model, as `train` would write it, else a note that there is none.
        report: HTML file to write.
        settings: What all trials share.
        space: See penstock.components.tuning.space.
        hyperparameters: The framework's own that are not searched.
        objectives: Direction by name of a trial's metric; empty: the one loss on eval_set is minimized.
        backend: Row of the table in penstock.components.tuning.backends.
        tracking: MLflow to log trials to; empty: none.

    Raises:
        UserError: Something that was given is wrong, or no trial was completed.
    """
    with on_behalf_of(COMPONENT):
        return _tuned(
            (train_set, eval_set),
            (Path(trials), Path(model), Path(report)),
            backends.backend(backend),
            backend,
            Search(
                space=parse(space),
                settings=settings,
                hyperparameters=dict(hyperparameters or {}),
                objectives=_objectives(objectives or {}),
                sampler=sampler,
                pruner=pruner,
                max_trials=_budget("max_trials", max_trials),
                max_seconds=_seconds(max_seconds),
                parallel_trials=_budget("parallel_trials", parallel_trials),
                study=study,
                train_uri=train_uri,
                eval_uri=eval_uri,
                run_id=run_id,
                options=dict(options or {}),
            ),
            fit_best,
            tracking,
        )


def _tuned(
    sets: tuple[str | os.PathLike[str], str | os.PathLike[str]],
    outputs: tuple[Path, Path, Path],
    row: Backend,
    backend: str,
    search: Search,
    fit_best: bool,
    tracking: str,
) -> Tuned:
    _check(row, backend, search)
    tracker = _tracker(tracking)
    _no_clash(search)
    with row.begin(search) as run, tempfile.TemporaryDirectory(prefix="penstock-tune-") as folder:
        prepared = _prepared(sets, search)
        if not row.remote and prepared.row.streams:
            # Its rows are in no process' memory: each trial reads the part files.
            link_sets(Path(folder), sets)
        elif not row.remote:
            # The rows in this process' own memory go; those in the file are mapped by all.
            prepared = replace(prepared, job=write_rows(Path(folder), prepared.job))
            _require_memory(prepared, search)
        # What the report is drawn with takes seconds to import; trials run meanwhile.
        threading.Thread(target=importlib.import_module, args=[REPORTING], daemon=True).start()
        found = run(prepared, Path(folder))
        best, front = best_of(found, search.objectives)
        hyperparameters = {**search.hyperparameters, **best.parameters}
        names = [each.of(best.metrics) for each in search.objectives]
        write_trials(outputs[0], search.space, found, best.number, front)
        from penstock.components.tuning.render import write_report

        write_report(outputs[2], backend, search, found, best, front, names)
        metrics = {
            **{state: float(sum(trial.state == state for trial in found)) for state in (COMPLETE, PRUNED, FAILED)},
            **best.metrics,
        }
        if tracker is not None:
            tracker.log(*_runs(search, prepared, found, best.number))
        del prepared
    _write_model(outputs[1], sets, search, hyperparameters if fit_best else None)
    return Tuned(hyperparameters, best.metrics[names[0]], metrics)


def _prepared(sets: tuple[str | os.PathLike[str], str | os.PathLike[str]], search: Search) -> Prepared:
    """Return the rows of every trial, once the space is known to be right."""
    name, first = next(search.space.corners())
    try:
        prepared = prepare(*sets, search.settings, {**search.hyperparameters, **first}, all_categories=True)
    except UserError as error:
        if error.argument == "external_memory":  # an argument of train alone
            raise UserError(
                COMPONENT, "train_set", error.problem, "Give the step more, or ingest fewer rows or columns"
            ) from None
        if error.argument != "hyperparameters":
            raise
        raise _blamed(error, name, first, search.hyperparameters) from None
    if prepared.job.eval is None:
        raise UserError(
            COMPONENT, "eval_set", "there are no rows to judge trials by", "Split some off in ingest: eval_fraction"
        )
    check_space(search.space, prepared, search.hyperparameters)
    return prepared


def _require_memory(prepared: Prepared, search: Search) -> None:
    """Refuse more trials at a time than there is memory for what a framework makes of the rows in each."""
    rows, columns = prepared.job.train.matrix.shape
    trials = min(search.parallel_trials, search.max_trials)
    of_row = prepared.row.bytes_of_row + max(1, prepared.row.bytes_of_cell) * columns  # a value is kept as its bin
    memory.require(
        trials * rows * of_row,
        COMPONENT,
        "parallel_trials",
        f"{trials:,} trials at a time on {rows:,} rows of {columns:,} columns",
        "Give the step more, or fewer trials at a time",
    )


def check_space(space: Space, prepared: Prepared, hyperparameters: Mapping[str, Any]) -> None:
    """Hold a space to the hyperparameters that the framework knows, at every choice and under every condition.

    Raises:
        UserError: The framework does not know a parameter, or refuses a choice; the parameter is named.
    """
    bins = set()
    for name, point in space.corners():
        given = {**hyperparameters, **point}
        try:
            settled = settle(prepared.row, prepared.settings.framework, prepared.target.task, given)
        except UserError as error:
            raise _blamed(error, name, point, hyperparameters) from None
        bins.add(prepared.row.hash_bins(settled))
        if len(bins) > 1:
            raise refused(
                name, "it changes what the columns are, not only what is learned", "Give it in hyperparameters"
            )


def _blamed(error: UserError, name: str, point: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> UserError:
    """Return what a framework said of hyperparameters as an error about the parameter of the space that it names."""
    words = error.problem.replace("'", " ").split()
    if any(given in words for given in hyperparameters) and not any(each in words for each in point):
        return error
    return refused(next((each for each in point if each in words), name), error.problem, error.remedy)


def _no_clash(search: Search) -> None:
    for parameter in search.space.parameters:
        if parameter.name in search.hyperparameters:
            raise refused(parameter.name, "hyperparameters gives it a value, too", "Leave it out of one of the two")


def _check(row: Backend, name: str, search: Search) -> None:
    for argument, value, known in (
        ("sampler", search.sampler, row.samplers),
        ("pruner", search.pruner, row.pruners),
    ):
        if value not in known:
            raise UserError(
                COMPONENT,
                argument,
                f"the backend {name} has no {value!r}",
                f"Choose one of {', '.join(known)}",
            )
    strange = [option for option in search.options if option not in row.options]
    if strange:
        listed = ", ".join(row.options) or "none"
        raise UserError(COMPONENT, "options", f"{strange[0]!r} is no option of the backend {name}", f"It has {listed}")
    problems = row.cannot(search)
    if problems:
        raise UserError(
            COMPONENT, "backend", f"{name} cannot express {'; '.join(problems)}",
            "Change the search, or take the backend local",
        )  # fmt: skip


def _objectives(given: Mapping[str, str]) -> tuple[Objective, ...]:
    for name, direction in given.items():
        if direction not in DIRECTIONS:
            raise UserError(
                COMPONENT, "objectives", f"{name!r} is to be {direction!r}", f"Choose one of {', '.join(DIRECTIONS)}"
            )
    return tuple(Objective(*each) for each in given.items()) or (Objective("", DIRECTIONS[0]),)


def _budget(argument: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(COMPONENT, argument, f"{value!r} leaves nothing to do", "Give a whole number of 1 or more")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(COMPONENT, "max_seconds", f"{value!r} leaves no time", "Give a number of seconds above 0")
    return float(value)


def _tracker(uri: str) -> Any:
    if not uri:
        return None
    from penstock.components._shared.mlflow_tracking import Tracker  # a second to import

    return Tracker(uri, COMPONENT)


def _runs(search: Search, prepared: Prepared, trials: Sequence[Trial], best: int) -> tuple[Any, list[Any]]:
    """Return the search and its trials as runs of MLflow."""
    from penstock.components._shared.mlflow_tracking import Logged

    settings = search.settings
    shared = {"framework": settings.framework, "task": prepared.target.task, "target": settings.target}
    children = [
        Logged(
            name=f"trial {trial.number}",
            parameters={**shared, **search.hyperparameters, **trial.parameters},
            metrics=trial.metrics,
            tags={"state": trial.state, "best": str(trial.number == best).lower()}
            | ({"error": trial.error} if trial.error else {}),
            failed=trial.state == FAILED,
        )
        for trial in trials
    ]
    found = next(trial for trial in trials if trial.number == best)
    about = {**shared, "seed": settings.seed, "trials": len(trials), **search.hyperparameters, **found.parameters}
    tags = {f"{name}_fingerprint": str(prepared.lineage[f"{name}_fingerprint"]) for name in ("train", "eval")}
    return Logged("tune", about, found.metrics, tags), children


def _write_model(
    folder: Path,
    sets: tuple[str | os.PathLike[str], str | os.PathLike[str]],
    search: Search,
    hyperparameters: Mapping[str, Any] | None,
) -> None:
    if hyperparameters is None:
        with new_folder(folder) as empty:
            note = "no model: set fit_best to have the best trial's, or train one with the hyperparameters found\n"
            (empty / "README.txt").write_text(note, encoding="utf-8")
            seal(empty, NO_MODEL, {})
        return
    prepared = prepare(*sets, search.settings, hyperparameters)
    write(folder, prepared, learn(prepared.row, search.settings.framework, prepared.job))
