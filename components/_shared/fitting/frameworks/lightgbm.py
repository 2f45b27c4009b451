"""LightGBM: gradient-boosted trees, categories and missing values handled natively."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightgbm
import numpy as np

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
    "binary": ("binary",),
    "multiclass": ("multiclass",),
    "regression": (
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
    ),
}
LOSSES = {"binary": "binary_logloss", "multiclass": "multi_logloss", "regression": "rmse"}

OWNED = {
    "num_iterations": "max_rounds",
    "early_stopping_round": "early_stopping_rounds",
    "seed": "seed",
    "data_random_seed": "seed",
    "feature_fraction_seed": "seed",
    "bagging_seed": "seed",
    "drop_seed": "seed",
    "extra_seed": "seed",
    "objective_seed": "seed",
    "scale_pos_weight": "class_weights",
    "is_unbalance": "class_weights",
    "num_class": "task",
    "label_column": "target",
    "weight_column": "weight_column",
    "ignore_column": "exclude",
    "categorical_feature": "features",
}
# Hyperparameters of LightGBM that are none of a model fitted here.
INTERNAL = {
    # read and written by LightGBM's own program
    "config",
    "convert_model",
    "convert_model_language",
    "data",
    "forcedbins_filename",
    "forcedsplits_filename",
    "group_column",
    "header",
    "input_model",
    "output_model",
    "output_result",
    "parser_config_file",
    "precise_float_parser",
    "save_binary",
    "saved_feature_importance_type",
    "snapshot_freq",
    "task",
    "two_round",
    "valid",
    # several machines
    "local_listen_port",
    "machine_list_filename",
    "machines",
    "num_machines",
    "pre_partition",
    "time_out",
    # ranking
    "eval_at",
    "label_gain",
    "lambdarank_norm",
    "lambdarank_position_bias_regularization",
    "lambdarank_truncation_level",
    # predicting
    "num_iteration_predict",
    "pred_early_stop",
    "pred_early_stop_freq",
    "pred_early_stop_margin",
    "predict_contrib",
    "predict_disable_shape_check",
    "predict_leaf_index",
    "predict_raw_score",
    "start_iteration_predict",
    # others
    "auc_mu_weights",
    "is_provide_training_metric",
    "metric_freq",
    "refit_decay_rate",
    # set here, so that a model repeats
    "deterministic",
    "first_metric_only",
    "force_col_wise",
    "force_row_wise",
}


def known(task: str, given: Mapping[str, Any]) -> Known:
    names: dict[str, str] = {}
    owned: dict[str, str] = {}
    # LightGBM's own table of hyperparameters, each with all the names it answers to.
    for name, aliases in sorted(lightgbm.basic._ConfigAliases._get_all_param_aliases().items()):
        if name in OWNED:
            owned |= dict.fromkeys(aliases, OWNED[name])
        elif name not in INTERNAL:
            names |= {name: name} | dict.fromkeys(aliases, name)
    return Known(names, owned)


def settled(task: str, given: dict[str, Any]) -> dict[str, Any]:
    objective = given.get("objective", OBJECTIVES[task][0])
    choose("objective", objective, OBJECTIVES[task], task)
    choose("boosting", given.get("boosting", "gbdt"), ("gbdt", "dart", "rf"), task)
    metric_names("metric", given.get("metric"))
    return {**given, "objective": objective}


def fit(job: Job) -> Learned:
    parameters = {
        "metric": LOSSES.get(job.hyperparameters["objective"], ""),
        "verbosity": -1,
        **job.hyperparameters,
        "seed": job.seed,
        "deterministic": True,
        "force_row_wise": True,
        "first_metric_only": True,
    }
    if job.task == "multiclass":
        parameters["num_class"] = job.classes
    train, *others = keep(job, "datasets", _binning(parameters), lambda: _datasets(job, parameters))
    asked = metric_names("metric", job.hyperparameters.get("metric"))
    # LightGBM passes over the names of metrics that it does not know.
    if asked and len(lightgbm.Booster(parameters, train).eval_train()) < len(asked):
        raise lightgbm.basic.LightGBMError(f"metric {asked} names an unknown one")
    history: dict[str, dict[str, list[float]]] = {}
    callbacks = [lightgbm.record_evaluation(history)]
    if job.early_stopping_rounds:
        callbacks.append(lightgbm.early_stopping(job.early_stopping_rounds, first_metric_only=True, verbose=False))
    if job.report and job.eval is not None:
        callbacks.append(_reporting(job.report))
    booster = lightgbm.train(
        parameters,
        train,
        job.max_rounds,
        valid_sets=[train, *others],
        valid_names=["train", "eval"][: 1 + len(others)],
        callbacks=callbacks,
    )
    rounds = booster.best_iteration if job.early_stopping_rounds else booster.current_iteration()
    return Learned(
        rounds=rounds,
        metrics={
            f"{rows}_{loss_name(metric)}": float(values[rounds - 1])
            for rows, losses in history.items()
            for metric, values in losses.items()
        },
        save=lambda path: booster.save_model(path, num_iteration=rounds),
    )


def whole(given: Mapping[str, Any]) -> str:
    # LightGBM 4.7 writes past the end of the values that linear trees need where rows come in chunks.
    linear = any(given.get(name) for name in lightgbm.basic._ConfigAliases.get("linear_tree"))
    return "its linear_tree needs all rows at once" if linear else ""


def _reporting(report: Callable[[int, Mapping[str, float]], None]) -> Callable[[Any], None]:
    def after(env: Any) -> None:
        losses = {
            loss_name(metric): float(value) for rows, metric, value, _ in env.evaluation_result_list if rows == "eval"
        }
        report(env.iteration + 1, losses)

    after.order = 5  # type: ignore[attr-defined]  # before early stopping, which ends the callbacks of a round
    return after


def _binning(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the hyperparameters that a dataset of LightGBM depends on; a feature is left out of it where no
    split of it could leave min_data_in_leaf rows on both sides."""
    named = lightgbm.Dataset(None, params=dict(parameters)).get_params()
    return named | {name: parameters.get(name) for name in ("min_data_in_leaf", "device_type")}


def _datasets(job: Job, parameters: dict[str, Any]) -> list[lightgbm.Dataset]:
    train = _dataset(job, job.train, parameters, None)
    return [train] if job.eval is None else [train, _dataset(job, job.eval, parameters, train)]


def _dataset(
    job: Job, rows: Rows | Parts, parameters: dict[str, Any], reference: lightgbm.Dataset | None
) -> lightgbm.Dataset:
    about: dict[str, Any] = {
        "reference": reference,
        "feature_name": list(job.names),
        "categorical_feature": [place for place, count in enumerate(job.categories) if count is not None],
        "params": parameters,
    }
    if isinstance(rows, Rows):
        return lightgbm.Dataset(rows.matrix, label=rows.labels, weight=rows.weights, **about)
    chunks = _Chunks(rows)
    dataset = lightgbm.Dataset([_Chunk(chunks, place) for place in range(rows.count)], **about).construct()
    return dataset.set_label(chunks.labels).set_weight(chunks.weights)


class _Chunks:
    """Parts of rows of which one is in memory at a time, and what is kept of all: labels and weights, float32."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.labels = np.empty(parts.rows, np.float32)
        self.weights: np.ndarray | None = None
        self._starts = np.cumsum((0, *parts.sizes))
        self._place = -1
        self._matrix = np.empty((0, 0))

    def matrix(self, place: int) -> np.ndarray:
        if place != self._place:
            self._matrix = np.empty((0, 0))  # two at once would hold twice the memory
            rows = self.parts.read(place)
            here = slice(*self._starts[place : place + 2])
            self.labels[here] = rows.labels
            if rows.weights is not None:
                if self.weights is None:
                    self.weights = np.empty(self.parts.rows, np.float32)
                self.weights[here] = rows.weights
            self._place, self._matrix = place, rows.matrix
        return self._matrix


class _Chunk(lightgbm.Sequence):
    """One part. LightGBM asks for rows to make bins of, in order, then for all rows at once."""

    def __init__(self, chunks: _Chunks, place: int) -> None:
        self._chunks, self._place = chunks, place
        self.batch_size = len(self)

    def __len__(self) -> int:
        return self._chunks.parts.sizes[self._place]

    def __getitem__(self, rows: Any) -> np.ndarray:
        found: np.ndarray = self._chunks.matrix(self._place)[rows]
        return found


def flavor() -> tuple[str, dict[str, Any]]:
    return "lightgbm", {
        "lgb_version": lightgbm.__version__,
        "data": FRAMEWORK.weights,
        "model_class": "lightgbm.basic.Booster",
    }


FRAMEWORK = Framework(
    distributions=(("lightgbm",),),
    weights="model.txt",
    flavor=flavor,
    known=known,
    settled=settled,
    # DART changes earlier trees in every round, so that there is no best round to go back to.
    rounds=lambda given: given.get("boosting") != "dart",
    constraints=("monotone_constraints", "interaction_constraints"),
    max_categories=lambda given: None,
    fit=fit,
    refusals=(lightgbm.basic.LightGBMError, TypeError),
    reports=lambda given: True,
    whole=whole,
    bytes_of_row=24,
    bytes_of_cell=1,
)
