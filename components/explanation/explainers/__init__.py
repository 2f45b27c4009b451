"""The explainers: a framework of `train` is a module here, which says by which methods its models can be explained.

Every model that predicts can be explained by "permutation" besides.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel

COMPONENT = "explain"
AUTO = "auto"
FRAMEWORKS = ("keras", "lightgbm", "sklearn", "xgboost")

MARGIN, PREDICTION = "margin", "prediction"


@dataclass(frozen=True)
class Attributed:
    """What columns add to the predictions of some rows.

    A regression and a binary model have one output, a multiclass model one for each class.

    Attributes:
        values: float64 (rows, outputs, features).
        base: float64 (outputs,), where no column is known.
        outputs: float64 (rows, outputs), what the model says; values and base should add up to it.
    """

    values: np.ndarray
    base: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Subject:
    """What is to be explained.

    Attributes:
        folder: Verified model folder.
        background: Returns rows that stand for not knowing a column, float64 (rows, features), and their weights.
        max_evaluations: Predictions that a method may ask for.
        rows: Rows to explain.
        seed: Of everything random.
    """

    folder: Path
    model: TabularModel
    background: Callable[[], tuple[np.ndarray, np.ndarray]]
    max_evaluations: int
    rows: int
    seed: int


@dataclass(frozen=True)
class Explainer:
    """A method, made ready for a model.

    Attributes:
        attribute: Takes a matrix, float64 (rows, features), as the model reads it.
        about: The method in a few words.
        explains: MARGIN, what the model adds up before its link function, or PREDICTION.
        tolerance: Relative gap between sum and output that its arithmetic explains.
        most_rows: Rows that it can explain at a bearable cost; None: any number.
        background_rows: Rows of background that it uses; 0: none.
        cost: Why not all rows are explained, where most_rows says so.
    """

    attribute: Callable[[np.ndarray], Attributed]
    about: str
    explains: str
    tolerance: float
    most_rows: int | None = None
    background_rows: int = 0
    cost: str = ""


Makers = Mapping[str, Callable[[], Explainer]]


def choose(subject: Subject, method: str) -> tuple[str, Explainer]:
    """Return a method that fits the model, by its name, made ready.

    Args:
        method: Name of a method, or "auto" for the first that the framework has for this model.

    Raises:
        UserError: There is no such method, not for this model, or a package is missing.
    """
    from penstock.components.explanation.explainers import permutation

    framework = str(subject.model.facts.get("framework"))
    try:
        makers: dict[str, Callable[[], Explainer]] = {}
        if framework in FRAMEWORKS:
            makers |= importlib.import_module(f"{__name__}.{framework}").makers(subject)
        makers["permutation"] = lambda: permutation.explainer(subject)
        if method == AUTO:
            method = next(iter(makers))
        if method not in METHODS:
            raise UserError(COMPONENT, "method", f"{method!r} is unknown", f"Choose one of auto, {', '.join(METHODS)}")
        if method not in makers:
            raise UserError(
                COMPONENT,
                "method",
                f"there is no {method!r} explainer for this model of {framework}",
                f"Choose one of auto, {', '.join(makers)}",
            )
        return method, makers[method]()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("penstock"):
            raise
        raise UserError(
            COMPONENT,
            "method",
            f"{framework} models need {error.name}, which is not installed",
            "pip install 'penstock[tabular,explanation]'",
        ) from None


METHODS = ("tree", "linear", "gradient", "permutation")


def of_classes(predicted: np.ndarray, task: str) -> np.ndarray:
    """Return predictions as (rows, outputs): of a binary model the probability of the positive class."""
    if predicted.ndim == 1:
        return predicted[:, None]
    return predicted[:, 1:] if task == "binary" else predicted
