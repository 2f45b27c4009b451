"""scikit-learn: the hyperparameter "estimator" chooses a row of a table of its own."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from penstock.components._shared.fitting.frameworks import Framework, Job, Known, Learned, Rows, choose
from penstock.components._shared.tabular import SKLEARN_TYPES

ESTIMATOR = "estimator"


@dataclass(frozen=True)
class Row:
    """An estimator.

    Attributes:
        classes: Its class by task.
        linear: Whether it needs numbers scaled, categories as columns of 0 and 1, and no missing values.
        defaults: Other than scikit-learn's.
        owned: Hyperparameters that arguments of `train` stand for.
    """

    classes: Mapping[str, Any]
    linear: bool
    defaults: Mapping[str, Any]
    owned: Mapping[str, str]


OWNED = {"random_state": "seed", "class_weight": "class_weights"}
BOOSTED = {
    "max_iter": "max_rounds",
    "early_stopping": "early_stopping_rounds",
    "n_iter_no_change": "early_stopping_rounds",
    "validation_fraction": "early_stopping_rounds",
    "scoring": "early_stopping_rounds",
    "tol": "early_stopping_rounds",
    "categorical_features": "features",
}
INTERNAL = {"verbose", "warm_start", "oob_score"}

ESTIMATORS = {
    "hist_gradient_boosting": Row(
        classes={
            "binary": HistGradientBoostingClassifier,
            "multiclass": HistGradientBoostingClassifier,
            "regression": HistGradientBoostingRegressor,
        },
        linear=False,
        defaults={},
        owned=OWNED | BOOSTED,
    ),
    "random_forest": Row(
        classes={
            "binary": RandomForestClassifier,
            "multiclass": RandomForestClassifier,
            "regression": RandomForestRegressor,
        },
        linear=False,
        defaults={"n_jobs": -1},
        owned=OWNED,
    ),
    "logistic_regression": Row(
        classes={"binary": LogisticRegression, "multiclass": LogisticRegression},
        linear=True,
        defaults={"max_iter": 1000},
        owned=OWNED,
    ),
    "ridge": Row(classes={"regression": Ridge}, linear=True, defaults={}, owned=OWNED),
}


def _row(task: str, given: Mapping[str, Any]) -> tuple[Row, Any]:
    options = tuple(name for name, row in ESTIMATORS.items() if task in row.classes)
    name = given.get(ESTIMATOR, options[0])
    choose(ESTIMATOR, name, options, task)
    return ESTIMATORS[name], ESTIMATORS[name].classes[task]


def known(task: str, given: Mapping[str, Any]) -> Known:
    row, estimator = _row(task, given)
    names = {ESTIMATOR, *estimator().get_params()} - INTERNAL - row.owned.keys()
    constraints = estimator._parameter_constraints

    def whole(name: str, value: float) -> bool:
        # max_features may be the share 1.0 or the count 2: where scikit-learn takes the float, it stays one.
        try:
            validate_parameter_constraints({name: constraints.get(name, [])}, {name: value}, estimator.__name__)
        except InvalidParameterError:
            return True
        return False

    return Known({name: name for name in sorted(names)}, row.owned, whole=whole, none=True)


def settled(task: str, given: dict[str, Any]) -> dict[str, Any]:
    _row(task, given)
    return {ESTIMATOR: next(name for name, row in ESTIMATORS.items() if task in row.classes), **given}


def fit(job: Job) -> Learned:
    row, estimator_class = _row(job.task, job.hyperparameters)
    given = {name: value for name, value in job.hyperparameters.items() if name != ESTIMATOR}
    estimator = estimator_class(**{**row.defaults, **given, "random_state": job.seed})
    if boosts(job.hyperparameters):
        rounds = _boost(job, estimator)
    else:
        rounds = 1
        if row.linear:
            estimator = Pipeline([("columns", _columns(job)), ("estimator", estimator)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            name = "estimator__sample_weight" if row.linear else "sample_weight"
            estimator.fit(job.train.matrix, job.train.labels, **{name: job.train.weights})
    metrics = {f"train_{name}": value for name, value in _losses(job, estimator, job.train).items()}
    if job.eval is not None:
        metrics |= {f"eval_{name}": value for name, value in _losses(job, estimator, job.eval).items()}

    def save(path: Path) -> None:
        path.write_bytes(_bytes(estimator))

    return Learned(rounds=rounds, metrics=metrics, save=save)


def boosts(hyperparameters: Mapping[str, Any]) -> bool:
    return hyperparameters[ESTIMATOR] == "hist_gradient_boosting"


def _boost(job: Job, estimator: Any) -> int:
    stop = job.early_stopping_rounds
    estimator.set_params(
        max_iter=job.max_rounds,
        categorical_features=[count is not None for count in job.categories],
        early_stopping=bool(stop),
        scoring="loss",
        **({"n_iter_no_change": stop, "tol": 0.0} if stop else {}),
    )
    watched: dict[str, Any] = {}
    if stop and job.eval is not None:
        watched = {"X_val": job.eval.matrix, "y_val": job.eval.labels, "sample_weight_val": job.eval.weights}
    # A column without any value cannot be binned; as a constant it is never split.
    matrix = np.where(np.isnan(job.train.matrix).all(axis=0), 0.0, job.train.matrix)
    estimator.fit(matrix, job.train.labels, sample_weight=job.train.weights, **watched)
    estimator._bin_mapper.n_threads = 1  # bins training rows only; else the file would tell this machine's processors
    if not stop:
        return int(estimator.n_iter_)
    # scikit-learn keeps the rounds after the best one; its first score is that of no round at all.
    rounds = max(1, int(np.argmax(estimator.validation_score_)))
    del estimator._predictors[rounds:]
    return rounds


def _columns(job: Job) -> ColumnTransformer:
    numbers = [place for place, count in enumerate(job.categories) if count is None]
    texts = {place: count for place, count in enumerate(job.categories) if count}
    transformers: list[tuple[str, Any, list[int]]] = []
    if numbers:
        imputed = SimpleImputer(strategy="median", keep_empty_features=True)
        transformers.append(("numbers", make_pipeline(imputed, StandardScaler()), numbers))
    if texts:
        # A missing category is none of the known ones: a row of zeros.
        imputed = SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)
        known_codes = [np.arange(count, dtype=float) for count in texts.values()]
        encoder = OneHotEncoder(categories=known_codes, handle_unknown="ignore")
        transformers.append(("categories", make_pipeline(imputed, encoder), list(texts)))
    return ColumnTransformer(transformers)


def _losses(job: Job, estimator: Any, rows: Rows) -> dict[str, float]:
    if job.task == "regression":
        predicted = estimator.predict(rows.matrix)
        return {"rmse": float(np.sqrt(mean_squared_error(rows.labels, predicted, sample_weight=rows.weights)))}
    predicted = estimator.predict_proba(rows.matrix)
    return {
        "log_loss": float(log_loss(rows.labels, predicted, sample_weight=rows.weights, labels=np.arange(job.classes)))
    }


def _bytes(estimator: Any) -> bytes:
    """Return the estimator in skops' format, the same bytes for the same estimator.

    skops names objects by their address in memory and dates its files; here they are counted and undated.
    """
    saved = zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator)))
    schema = saved.read("schema.json").decode()
    files = [name for name in saved.namelist() if name != "schema.json"]
    numbers: dict[str, str] = {}
    pattern = re.compile(r'(?<="__id__": )\d+|(?<=": ")[0-9a-f-]+(?=\.(?:npy|npz|bin)")')
    schema = pattern.sub(lambda found: numbers.setdefault(found[0], str(len(numbers))), schema)
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(
            (f"{numbers[Path(name).stem]}{Path(name).suffix}", saved.read(name)) for name in files
        ):
            archive.writestr(zipfile.ZipInfo(name), _without_padding(content) if name.endswith(".npy") else content)
        archive.writestr(zipfile.ZipInfo("schema.json"), schema)
    return stored.getvalue()


def _without_padding(content: bytes) -> bytes:
    """Return a saved array with the bytes between its fields, which hold anything, set to zero."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not array.dtype.names or not array.size:
        return content
    clean = np.zeros(array.shape, array.dtype)  # zeros_like sets the fields only
    for field in array.dtype.names:
        clean[field] = array[field]
    # As plain bytes: numpy's own writer copies field by field and leaves anything between them again.
    return content[: -clean.nbytes] + clean.view(f"V{clean.itemsize}").tobytes()


def flavor() -> tuple[str, dict[str, Any]]:
    return "sklearn", {
        "sklearn_version": sklearn.__version__,
        "pickled_model": FRAMEWORK.weights,  # MLflow's word for the file, whatever the format
        "serialization_format": "skops",
        "skops_trusted_types": list(SKLEARN_TYPES),
    }


FRAMEWORK = Framework(
    distributions=(("scikit-learn",), ("skops",)),
    weights="model.skops",
    flavor=flavor,
    known=known,
    settled=settled,
    rounds=boosts,
    constraints=("monotonic_cst", "interaction_cst"),
    max_categories=lambda given: int(given.get("max_bins", 255)) if boosts(given) else None,
    fit=fit,
    refusals=(ValueError, TypeError),
)
