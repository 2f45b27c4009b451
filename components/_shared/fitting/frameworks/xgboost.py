"""XGBoost: gradient-boosted trees, categories and missing values handled natively."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from penstock.components._shared.fitting.frameworks import (
    Framework,
    Job,
    Known,
    Learned,
    Parts,
    Rows,
    choose,
    keep,
    loss_name,
    metric_names,
)

OBJECTIVES = {
    "binary": ("binary:logistic",),
    "multiclass": ("multi:softprob",),
    "regression": (
        "reg:squarederror",
        "reg:squaredlogerror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:gamma",
        "reg:tweedie",
        "count:poisson",
    ),
}
NEEDED: dict[str, dict[str, Any]] = {"multi:softprob": {"num_class": 3}, "reg:quantileerror": {"quantile_alpha": 0.5}}
LOSSES = {"binary:logistic": "logloss", "multi:softprob": "mlogloss", "reg:squarederror": "rmse"}

# The native names, and scikit-learn's for the same.
ALIASES = {
    "learning_rate": "eta",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
    "min_split_loss": "gamma",
    "n_jobs": "nthread",
}
OWNED = {
    "n_estimators": "max_rounds",
    "num_boost_round": "max_rounds",
    "early_stopping_rounds": "early_stopping_rounds",
    "seed": "seed",
    "random_state": "seed",
    "seed_per_iteration": "seed",
    "scale_pos_weight": "class_weights",
    "num_class": "task",
}
# Sections of XGBoost's own configuration that hold hyperparameters, and what in them is none.
SECTIONS = ("generic_param", "tree_train_param", "gbtree_train_param", "dart_train_param", "hist_train_param")
INTERNAL = {"fail_on_invalid_gpu_id", "validate_parameters", "updater_seq", "debug_synchronize"}


def known(task: str, given: Mapping[str, Any]) -> Known:
    objectives = OBJECTIVES[task]
    names = {"booster", "base_score", "eval_metric", "multi_strategy", "num_parallel_tree", "objective", "verbosity"}
    # An empty booster tells the hyperparameters that this version knows.
    probe = {"num_feature": 1, "booster": "dart", "tree_method": "hist"}
    for objective in [given["objective"]] if given.get("objective") in objectives else objectives:
        booster = xgboost.Booster({**probe, "objective": objective, **NEEDED.get(objective, {})})
        names |= _hyperparameters(json.loads(booster.save_config()))
    names -= INTERNAL | OWNED.keys()
    return Known({name: ALIASES.get(name, name) for name in sorted(names)}, OWNED)


def _hyperparameters(configuration: Any, section: str = "") -> set[str]:
    if isinstance(configuration, list):
        return set().union(*(_hyperparameters(item, section) for item in configuration))
    if not isinstance(configuration, dict):
        return set()
    found = set(configuration) if section in SECTIONS else set()
    for name, value in configuration.items():
        if section == "objective" and name != "reg_loss_param" and isinstance(value, dict):
            found |= value.keys()
        found |= _hyperparameters(value, name)
    return found


def settled(task: str, given: dict[str, Any]) -> dict[str, Any]:
    objective = given.get("objective", OBJECTIVES[task][0])
    choose("objective", objective, OBJECTIVES[task], task)
    choose("booster", given.get("booster", "gbtree"), ("gbtree", "dart"), task)
    metric_names("eval_metric", given.get("eval_metric"))
    return {**given, "objective": objective}


def fit(job: Job) -> Learned:
    parameters = {**job.hyperparameters, "seed": job.seed}
    metrics = metric_names("eval_metric", parameters.pop("eval_metric", LOSSES.get(parameters["objective"])))
    if metrics:
        # XGBoost watches the last one; ours is the first.
        parameters["eval_metric"] = [*metrics[1:], metrics[0]]
    # Places, in the only form in which XGBoost takes them.
    for name in FRAMEWORK.constraints:
        if isinstance(parameters.get(name), list):
            parameters[name] = str(tuple(parameters[name]) if name == "monotone_constraints" else parameters[name])
    if job.task == "multiclass":
        parameters["num_class"] = job.classes
    if isinstance(job.train, Parts):
        with tempfile.TemporaryDirectory(prefix="penstock-train-") as scratch:
            return _boosted(job, parameters, _paged(job, Path(scratch)))
    settings = {name: job.hyperparameters.get(name) for name in ("tree_method", "max_bin", "nthread")}
    return _boosted(job, parameters, keep(job, "matrices", settings, lambda: _matrices(job)))


def _boosted(job: Job, parameters: dict[str, Any], matrices: list[xgboost.DMatrix]) -> Learned:
    watched = list(zip(matrices, ("train", "eval"), strict=False))
    callbacks: list[xgboost.callback.TrainingCallback] = []
    if job.report and job.eval is not None:
        callbacks.append(_Reporting(job.report))
    if job.early_stopping_rounds:
        callbacks.append(
            xgboost.callback.EarlyStopping(rounds=job.early_stopping_rounds, data_name="eval", save_best=True)
        )
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        parameters,
        matrices[0],
        job.max_rounds,
        evals=watched,
        evals_result=history,
        callbacks=callbacks,
        verbose_eval=False,
    )
    rounds = booster.num_boosted_rounds()
    return Learned(
        rounds=rounds,
        metrics={
            f"{rows}_{loss_name(metric)}": float(values[rounds - 1])
            for rows, losses in history.items()
            for metric, values in losses.items()
        },
        save=lambda path: booster.save_model(path),
    )


class _Reporting(xgboost.callback.TrainingCallback):
    def __init__(self, report: Callable[[int, Mapping[str, float]], None]) -> None:
        super().__init__()
        self._report = report

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, list[float]]]) -> bool:
        self._report(epoch + 1, {loss_name(name): float(values[-1]) for name, values in evals_log["eval"].items()})
        return False


def _matrices(job: Job) -> list[xgboost.DMatrix]:
    train = _matrix(job, job.train, None)
    return [train] if job.eval is None else [train, _matrix(job, job.eval, train)]


def _matrix(job: Job, rows: Rows, reference: xgboost.DMatrix | None) -> xgboost.DMatrix:
    content = {**_content(job, rows), **_reading(job)}
    if not _quantiles(job):
        return xgboost.DMatrix(**content)
    return xgboost.QuantileDMatrix(**content, **_bins(job, reference))


def _content(job: Job, rows: Rows) -> dict[str, Any]:
    return {
        "data": rows.matrix,
        "label": rows.labels,
        "weight": rows.weights,
        "feature_names": list(job.names),
        "feature_types": ["q" if count is None else "c" for count in job.categories],
    }


def _reading(job: Job) -> dict[str, Any]:
    return {"missing": np.nan, "nthread": job.hyperparameters.get("nthread", 0)}


def _quantiles(job: Job) -> bool:
    """Whether trees are grown on bins that are the same in every round."""
    return job.hyperparameters.get("tree_method", "auto") in ("auto", "hist")


def _bins(job: Job, reference: xgboost.DMatrix | None) -> dict[str, Any]:
    return {"max_bin": job.hyperparameters.get("max_bin", 256), "ref": reference}


def _paged(job: Job, scratch: Path) -> list[xgboost.DMatrix]:
    """Return matrices whose pages, one a part, lie in files in `scratch` and are read in every round."""
    train = _pages(job, job.train, scratch / "train", None)
    return [train] if job.eval is None else [train, _pages(job, job.eval, scratch / "eval", train)]


def _pages(job: Job, parts: Parts, cache: Path, reference: xgboost.DMatrix | None) -> xgboost.DMatrix:
    read = _Reading(job, parts, cache)
    if not _quantiles(job):
        return xgboost.DMatrix(read, **_reading(job))
    return xgboost.ExtMemQuantileDMatrix(read, **_reading(job), **_bins(job, reference))


class _Reading(xgboost.DataIter):
    """Reads parts, in order, as often as XGBoost asks for them."""

    def __init__(self, job: Job, parts: Parts, cache: Path) -> None:
        super().__init__(str(cache))
        self._job, self._parts, self._place = job, parts, 0

    def reset(self) -> None:
        self._place = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        if self._place == self._parts.count:
            return False
        input_data(**_content(self._job, self._parts.read(self._place)))
        self._place += 1
        return True


def flavor() -> tuple[str, dict[str, Any]]:
    return "xgboost", {
        "xgb_version": xgboost.__version__,
        "data": FRAMEWORK.weights,
        "model_class": "xgboost.core.Booster",
        "model_format": "ubj",
    }


FRAMEWORK = Framework(
    distributions=(("xgboost-cpu", "xgboost"),),
    weights="model.ubj",
    flavor=flavor,
    known=known,
    settled=settled,
    # DART changes earlier trees in every round, so that there is no best round to go back to.
    rounds=lambda given: given.get("booster") != "dart",
    constraints=("monotone_constraints", "interaction_constraints"),
    max_categories=lambda given: None,
    fit=fit,
    refusals=(xgboost.core.XGBoostError,),
    reports=lambda given: True,
    whole=lambda given: "its tree_method 'exact' fits all rows at once" if given.get("tree_method") == "exact" else "",
    bytes_of_row=20,
)
