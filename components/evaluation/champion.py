"""The present champion: which version it is, and how it does on the same rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import CHAMPION, open_registry
from penstock.components._shared.model import TabularModel, load_model
from penstock.components.evaluation.measuring import Results

COMPONENT = "evaluate"


@dataclass(frozen=True)
class Champion:
    """The model to compare with.

    Attributes:
        name: How to call it, for example "taxi-tips version 3".
        version: Its version; empty if there is none yet.
        problem: Why it cannot be measured on these rows; empty if it can.
        results: Its metrics by slice, if it can.
    """

    name: str = ""
    version: str = ""
    problem: str = ""
    results: Results | None = None


def find_champion(
    registry: str, model_name: str, like: TabularModel, measure: Callable[[TabularModel, Path], Results]
) -> Champion:
    """Return the champion of a registered model with its metrics.

    Args:
        registry: URI of the MLflow registry.
        model_name: Name of the registered model.
        like: Model that it is compared with; it has to predict the same.
        measure: Returns the metrics of a model, loaded from a folder, on the rows.

    Raises:
        UserError: The registry does not answer, or does not hand the champion out.
    """
    opened = open_registry(registry, COMPONENT)
    version = opened.aliases(model_name).get(CHAMPION, "")
    if not version:
        return Champion()
    name = f"{model_name} version {version}"
    with tempfile.TemporaryDirectory(prefix="penstock-champion-") as folder:
        fetched = opened.folder(model_name, version, Path(folder))
        try:
            model = load_model(fetched, COMPONENT, "champion")
        except UserError as error:
            return Champion(name, version, error.problem.replace(f"{fetched}: ", "").replace(str(fetched), "it"))
        if problem := _unlike(model, like):
            return Champion(name, version, problem)
        try:
            return Champion(name, version, results=measure(model, fetched))
        except UserError as error:
            return Champion(name, version, error.problem)


def _unlike(model: TabularModel, like: TabularModel) -> str:
    if model.task != like.task:
        return f"its task is {model.task}, not {like.task}"
    if model.target != like.target:
        return f"it predicts {model.target!r}, not {like.target!r}"
    if set(model.classes) != set(like.classes):
        return "it knows other classes"
    return ""
