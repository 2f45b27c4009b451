"""The frameworks that `train` knows: a name here is a module here, whose FRAMEWORK says all that differs.

How a saved model of it predicts is a row of MODELS in penstock.components._shared.tabular.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from penstock.components._shared.cores import limit_threads
from penstock.components._shared.errors import UserError

NAMES = ("keras", "lightgbm", "sklearn", "xgboost")
EXTERNAL = ("keras", "lightgbm", "xgboost")  # those that can read rows part by part
EMBEDDING = ("keras",)  # those whose models can hold a transform graph
# Extras that frameworks need, of the names of the environments in containers/ that have them.
EXTRAS = {"keras": "tensorflow"}


@dataclass(frozen=True)
class Rows:
    """What a framework fits or measures.

    Attributes:
        matrix: float64 (rows, features); see penstock.components._shared.tabular.
        labels: Places in the list of classes, int64 (rows,); of a regression the values, float64.
        weights: float64 (rows,), or None where all rows weigh the same.
    """

    matrix: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True)
class Parts:
    """Rows that are read part by part, anew each time, so that few of them are in memory.

    Attributes:
        sizes: Number of rows by part.
        read: Returns the rows of a part.
    """

    sizes: tuple[int, ...]
    read: Callable[[int], Rows]

    @property
    def rows(self) -> int:
        return sum(self.sizes)

    @property
    def count(self) -> int:
        return len(self.sizes)

    @classmethod
    def of(cls, rows: Rows) -> Parts:
        """Return rows in memory as the only part."""
        return cls((len(rows.labels),), lambda place: rows)


R = TypeVar("R", Rows, Parts)


@dataclass(frozen=True)
class Job(Generic[R]):
    """One model to fit.

    Attributes:
        task: "binary", "multiclass" or "regression".
        classes: Number of classes; 0 for a regression.
        names: Names of the features in letters that every framework takes.
        categories: Number of categories by feature; None where it is a number.
        train: Rows to fit; parts of them where the framework streams, or was told to.
        eval: Rows to watch; None where there are none.
        hyperparameters: Checked; by the framework's own names.
        early_stopping_rounds: 0: never.
        report: Called after each round with its number, from 1, and the losses on `eval` by name; what it raises ends
            the fit. By frameworks whose row says `reports`.
        kept: Where a framework keeps its own form of the rows for the next job on the same ones; see keep().
        texts: The categories themselves, by feature.
        bins: Bins by feature into which texts are hashed, 0 for all others.
        checkpoint: Path or URI of the file that a fit is taken up from; empty: none.
        graph: What makes the features of raw columns, for the model to hold; of a framework whose row says `embeds`.
    """

    task: str
    classes: int
    names: tuple[str, ...]
    categories: tuple[int | None, ...]
    train: R
    eval: R | None
    hyperparameters: dict[str, Any]
    max_rounds: int
    early_stopping_rounds: int
    seed: int
    report: Callable[[int, Mapping[str, float]], None] | None = None
    kept: dict[str, tuple[Any, Any]] | None = None
    texts: tuple[tuple[str, ...], ...] = ()
    bins: tuple[int, ...] = ()
    checkpoint: str = ""
    graph: Any = None


@dataclass(frozen=True)
class Learned:
    """A fitted model.

    Attributes:
        rounds: Rounds of the model, 1 where the framework has none.
        metrics: Losses by train_<name> and eval_<name>, at the chosen round.
        save: Writes the weights to a file, and beside it what else the framework has of a model.
        writes: Whether this process is the one to write it, of several that fitted it together.
    """

    rounds: int
    metrics: dict[str, float]
    save: Callable[[Path], None]
    writes: bool = True


@dataclass(frozen=True)
class Known:
    """The hyperparameters of a framework.

    Attributes:
        names: By every name that is taken, the framework's first name for it.
        owned: By a name that is not taken because an argument of `train` stands for it, that argument.
        whole: Whether 6.0 means 6 for a hyperparameter; some engines hand over integers as floats.
        none: Whether None is a value; else it means that the hyperparameter is not given.
    """

    names: Mapping[str, str]
    owned: Mapping[str, str]
    whole: Callable[[str, float], bool] = lambda name, value: True
    none: bool = False


@dataclass(frozen=True)
class Framework:
    """A row of the table.

    Attributes:
        distributions: What to install for predicting, each by the names it goes under on PyPI.
        weights: File of the weights in the model folder.
        flavor: The framework's own MLflow flavor: its name and what MLflow wants to know.
        known: Hyperparameters, given the task and what the user gave.
        settled: Defaults filled in and values checked, once names are known to be right.
        rounds: Whether early stopping means something, given the settled hyperparameters.
        constraints: Hyperparameters in which columns may be named: {column: value} or lists of lists of columns.
        max_categories: Categories that a feature may have, given the settled hyperparameters; None: any number.
        fit: Fits a model.
        refusals: Exceptions by which the framework refuses a value.
        reports: Whether a fit calls Job.report, given the settled hyperparameters.
        hash_bins: Bins to hash texts into that are refused otherwise, given the settled hyperparameters; 0: none.
        streams: Whether it always reads rows part by part: those of its jobs are Parts.
        whole: Why it can not do so if it is told to, given the hyperparameters; empty: it can.
        bytes_of_row: What it keeps of every row in memory while it reads parts.
        bytes_of_cell: The same of every value.
        resumes: Whether it writes checkpoints.
        embeds: Whether its models can hold a graph of TensorFlow Transform.
    """

    distributions: tuple[tuple[str, ...], ...]
    weights: str
    flavor: Callable[[], tuple[str, dict[str, Any]]]
    known: Callable[[str, Mapping[str, Any]], Known]
    settled: Callable[[str, dict[str, Any]], dict[str, Any]]
    rounds: Callable[[dict[str, Any]], bool]
    constraints: tuple[str, ...]
    max_categories: Callable[[dict[str, Any]], int | None]
    fit: Callable[[Job], Learned]
    refusals: tuple[type[Exception], ...]
    reports: Callable[[dict[str, Any]], bool] = lambda given: False
    hash_bins: Callable[[dict[str, Any]], int] = lambda given: 0
    streams: bool = False
    whole: Callable[[Mapping[str, Any]], str] = lambda given: "it fits all rows at once"
    bytes_of_row: int = 0
    bytes_of_cell: int = 0
    resumes: bool = False
    embeds: bool = False


def framework(name: str) -> Framework:
    """Return a row of the table; only that framework is imported.

    Raises:
        UserError: There is no such row, or the framework is not installed.
    """
    if name not in NAMES:
        raise UserError("train", "framework", f"{name!r} is unknown", f"Choose one of {', '.join(NAMES)}")
    limit_threads()
    try:
        row: Framework = importlib.import_module(f"{__name__}.{name}").FRAMEWORK
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("penstock"):
            raise
        extra = EXTRAS.get(name, "tabular")
        raise UserError(
            "train",
            "framework",
            f"{name} needs {error.name}, which is not installed",
            f"Run it in the image penstock/{extra}, or pip install 'penstock[{extra}]'",
        ) from None
    return row


def keep(job: Job, name: str, key: Any, make: Callable[[], Any]) -> Any:
    """Return what `make` returns, or what it returned for the job before this one if `key` was the same.

    Args:
        key: All that it depends on beside the job's rows.
    """
    if job.kept is None:
        return make()
    if name not in job.kept or job.kept[name][0] != key:
        job.kept.pop(name, None)  # two at once would hold twice the memory
        job.kept[name] = (key, make())
    return job.kept[name][1]


def choose(hyperparameter: str, value: object, options: tuple[str, ...], task: str) -> None:
    """Refuse a value of a hyperparameter that does not fit the task, listing those that do."""
    if value not in options:
        raise UserError(
            "train",
            "hyperparameters",
            f"{hyperparameter} {value!r} does not fit a {task} task",
            f"Choose one of {', '.join(options)}",
        )


def metric_names(hyperparameter: str, value: object) -> list[str]:
    """Return the metrics that a hyperparameter names, one or a list; the first is the one that is watched."""
    names: list[Any] = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            "train",
            "hyperparameters",
            f"{hyperparameter} is {value!r}",
            "Give the name of a metric, or a list of names",
        )
    return names


def loss_name(metric: str) -> str:
    """Return the name under which a framework's metric is reported, one for the same loss in all of them."""
    if metric in ("logloss", "mlogloss", "binary_logloss", "multi_logloss"):
        return "log_loss"
    return "".join(letter if letter.isalnum() else "_" for letter in metric)
