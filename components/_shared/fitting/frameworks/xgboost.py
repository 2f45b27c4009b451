"""XGBoost: gradient-boosted trees, categories and missing values handled natively."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xgboost

from penstock.components._shared.fitting.frameworks import (
    Framework,
    Job,
    Known,
    Learned,
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
    settings = {name: job.hyperparameters.get(name) for name in ("tree_method", "max_bin", "nthread")}
    matrices = keep(job, "matrices", settings, lambda: _matrices(job))
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
    content: dict[str, Any] = {
        "data": rows.matrix,
        "label": rows.labels,
        "weight": rows.weights,
        "missing": np.nan,
        "feature_names": list(job.names),
        "feature_types": ["q" if count is None else "c" for count in job.categories],
        "nthread": job.hyperparameters.get("nthread", 0),
    }
    if job.hyperparameters.get("tree_method", "auto") not in ("auto", "hist"):
        return xgboost.DMatrix(**content)
    return xgboost.QuantileDMatrix(**content, max_bin=job.hyperparameters.get("max_bin", 256), ref=reference)


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
)
