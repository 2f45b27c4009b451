"""Model: a sealed MLflow model folder.

The manifest's facts are the model's lineage: framework, hyperparameters, task, target, classes, train_fingerprint,
eval_fingerprint, seed, rounds, metrics and the versions of what made it.

A model is read with the code of this package, never with the copy of it that travels in the folder, and nothing is
unpickled: a folder that holds a file which `train` does not write is refused before anything of it is read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from penstock.components._shared.cores import limit_threads
from penstock.components._shared.errors import UserError
from penstock.components._shared.sealed import unseal
from penstock.components._shared.tabular import DESCRIPTION, Predictor

KIND = "penstock.model/1"

# What MLflow and Python put beside a model when they load it from its folder; never read here.
LEFT_BY_OTHERS = ("__pycache__", "registered_model_meta")

# Frameworks that not every image has, and the one that has them.
IMAGES = {"keras": "tensorflow"}

_KNOWN = re.compile(
    rf"MLmodel|{re.escape(DESCRIPTION)}|conda\.yaml|python_env\.yaml|requirements\.txt"
    r"|input_example\.json|serving_input_example\.json|code/penstock_tabular_[0-9a-f]{8}\.py"
    r"|model\.(ubj|txt|skops|keras)"
    r"|saved_model/(saved_model\.pb|fingerprint\.pb|variables/variables\.(index|data-00000-of-00001)|assets/[^/]+)"
)


@dataclass(frozen=True)
class TabularModel:
    """A verified, loaded model.

    Attributes:
        task: "binary", "multiclass" or "regression".
        target: Column it predicts.
        classes: Labels as they stand in the data (str, bool or int); empty for a regression.
        features: Columns it reads.
        columns: What features.json says of each; see tabular.py.
        encoded: The same of what the matrix holds: the columns, or what a transform graph makes of them.
        facts: Its lineage; see above.
    """

    task: str
    target: str
    classes: tuple[Any, ...]
    features: tuple[str, ...]
    columns: tuple[dict[str, Any], ...]
    encoded: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    _predictor: Predictor
    _component: str
    _argument: str

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """Names of what the matrix holds."""
        return tuple(column["name"] for column in self.encoded)

    @property
    def transforms(self) -> bool:
        """Whether a transform graph makes the matrix of the columns."""
        return self.encoded is not self.columns

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return float64: values (n,) of a regression, else probabilities (n, classes) in the order of `classes`.

        Args:
            frame: Raw columns; those that the model does not read are ignored.

        Raises:
            UserError: A column is missing or holds values of another kind.
        """
        return self.predict_matrix(self.matrix(frame))

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the matrix that predict_matrix takes; raises as predict does."""
        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise UserError(
                self._component,
                self._argument,
                f"it reads columns that the rows do not have: {', '.join(missing)}",
                f"The rows have {', '.join(map(str, frame.columns))}",
            )
        try:
            return self._predictor.matrix(frame)
        except ValueError as error:
            raise UserError(
                self._component, self._argument, f"it cannot read the rows: {error}", "Give it rows like its own"
            ) from error

    def predict_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Return the same of a matrix, float64 (n, encoded), as tabular.py describes it; faster where rows are few."""
        return self._predictor.predict_matrix(matrix)


def load_model(path: str | os.PathLike[str], component: str, argument: str) -> TabularModel:
    """Verify a model folder, every byte of it, and load the model.

    Raises:
        UserError: It is missing, unfinished, truncated or altered, holds files that are no part of a model, or its
            weights cannot be read.
    """
    manifest = unseal(path, KIND, component, argument, besides=LEFT_BY_OTHERS)
    strange = [entry["path"] for entry in manifest["files"] if not _KNOWN.fullmatch(entry["path"])]
    if strange:
        raise UserError(
            component,
            argument,
            f"{path} holds {', '.join(strange)}, no part of a model that train writes",
            "Pickles and the like are never loaded; train the model again",
        )
    limit_threads()
    try:
        predictor = Predictor(Path(path))
    except ModuleNotFoundError as error:
        framework, extra = manifest["framework"], IMAGES.get(manifest["framework"], "")
        if not extra or (error.name or "").startswith("penstock"):
            raise
        raise UserError(
            component,
            argument,
            f"{path} is a model of {framework}, which needs {error.name}, and that is not installed here",
            f"Run it in the image penstock/{extra}, or serving-{extra} to serve, or pip install 'penstock[{extra}]'",
        ) from None
    except Exception as error:  # a decoder that meets foreign bytes may raise anything
        raise UserError(
            component, argument, f"{path} cannot be read ({error})", "Train the model again with this version"
        ) from error
    columns = tuple(predictor.columns)
    return TabularModel(
        task=predictor.task,
        target=predictor.target,
        classes=predictor.classes,
        features=predictor.features,
        columns=columns,
        encoded=columns if predictor.encoded is predictor.columns else tuple(predictor.encoded),
        facts={name: value for name, value in manifest.items() if name not in ("kind", "files")},
        _predictor=predictor,
        _component=component,
        _argument=argument,
    )
