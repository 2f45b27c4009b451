"""Predict from raw columns with a model folder that Penstock's `train` wrote.

A copy of this file travels in the code/ of every model folder, as its MLflow `python_function`. So it needs nothing
but numpy, pandas and the model's own framework, and nothing in it unpickles.

features.json of the folder says what a model is:

    {"format": 1, "framework": "xgboost", "task": "binary", "target": "big_tip", "classes": [false, true],
     "features": [{"name": "minutes", "kind": "number", "optional": false},
                  {"name": "zone", "kind": "category", "categories": ["132", "48"], "optional": true}, …]}

A model reads one matrix of float64 with a column per feature: numbers as they are, booleans as 0 and 1, categories as
their place in the list. Missing values, and categories that are not in the list, are NaN. A feature of the kind "text",
which only Keras has, is the number of the bin, of as many as its "bins" says, that TensorFlow hashes the text into.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DESCRIPTION = "features.json"

# Beside the estimators and numpy's types that skops knows, the parts of scikit-learn that a fitted estimator of
# `train` holds. functools.partial wraps check_array there; skops checks the function it wraps by the same list.
SKLEARN_TYPES = (
    "functools.partial",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)

# Of Keras: the layer that reads the matrix, the key of texts' hashes, and the only classes that a model holds.
ENCODED = "encoded"
HASH_KEY = (0x70656E73, 0x746F636B)
KERAS_CLASSES = {
    "keras": {"DTypePolicy"},
    "keras.initializers": {"GlorotUniform", "RandomUniform", "Zeros"},
    "keras.layers": {
        "Activation", "CategoryEncoding", "Concatenate", "Dense", "Dropout", "Embedding", "Flatten", "Hashing",
        "InputLayer", "Normalization", "Rescaling", "StringLookup",
    },
    "keras.regularizers": {"L2"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.ops.core": {"Cast"},
    "keras.src.ops.numpy": {"Add", "Isnan", "Subtract", "Take", "Where"},
}  # fmt: skip

Model = Callable[[np.ndarray], np.ndarray]


class Predictor:
    """A loaded model.

    Attributes:
        task: "binary", "multiclass" or "regression".
        target: Name of the column it predicts.
        classes: Labels as they stand in the data; empty for a regression.
        features: Names of the columns it reads.
        columns: What features.json says of each.
    """

    def __init__(self, folder: str | Path) -> None:
        description = json.loads((Path(folder) / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != 1:
            raise ValueError(f"{DESCRIPTION} is of format {description['format']!r}, not 1")
        self.task: str = description["task"]
        self.target: str = description["target"]
        self.classes: tuple[Any, ...] = tuple(description["classes"])
        self.features = tuple(feature["name"] for feature in description["features"])
        self.columns: list[dict[str, Any]] = description["features"]
        self._model = MODELS[description["framework"]](Path(folder))

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return float64: values (n,) of a regression, else probabilities (n, classes) in the order of `classes`.

        Raises:
            ValueError: A column is missing or holds values of another kind.
        """
        rows = encode(self.columns, frame) if len(frame) else np.empty((0, len(self.columns)))
        return self.predict_matrix(rows)

    def predict_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Return the same of a matrix that `encode` made."""
        if len(matrix) == 0:
            return np.empty((0, len(self.classes)) if self.classes else 0)
        predicted = np.asarray(self._model(matrix), dtype=np.float64)
        if self.task == "binary" and predicted.ndim == 1:
            return np.column_stack((1 - predicted, predicted))
        return predicted


def encode(features: Sequence[Mapping[str, Any]], frame: pd.DataFrame) -> np.ndarray:
    """Return the matrix that a model reads, float64 (rows, features); columns that are no features are ignored.

    Raises:
        ValueError: A column is missing or holds values of another kind.
    """
    matrix = np.full((len(frame), len(features)), np.nan)
    for place, feature in enumerate(features):
        name = feature["name"]
        if name in frame.columns:
            try:
                matrix[:, place] = ENCODINGS[feature["kind"]](frame[name], feature)
            except (TypeError, ValueError) as error:
                raise ValueError(f"column {name!r}: {error}") from None
        elif not feature["optional"]:
            raise ValueError(f"there is no column {name!r}")
    return matrix


def _number(column: pd.Series, feature: Mapping[str, Any]) -> np.ndarray:
    if column.dtype.kind not in "iufb" and pd.api.types.infer_dtype(column) == "string":
        raise ValueError("holds text where the model learned numbers")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError("holds an infinite value")
    return values


def _boolean(column: pd.Series, feature: Mapping[str, Any]) -> np.ndarray:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not (np.isnan(values) | (values == 0) | (values == 1)).all():
        raise ValueError("holds values other than true and false")
    return values


def _category(column: pd.Series, feature: Mapping[str, Any]) -> np.ndarray:
    if column.isna().all():
        return np.full(len(column), np.nan)
    kind = pd.api.types.infer_dtype(column.cat.categories if column.dtype == "category" else column)
    if kind != "string":
        raise ValueError(f"holds {kind} values where the model learned text")
    codes = pd.Categorical(column, categories=feature["categories"]).codes.astype(np.float64)
    codes[codes < 0] = np.nan
    return codes


def _text(column: pd.Series, feature: Mapping[str, Any]) -> np.ndarray:
    if column.isna().all():
        return np.full(len(column), np.nan)
    kind = pd.api.types.infer_dtype(column.cat.categories if column.dtype == "category" else column)
    if kind != "string":
        raise ValueError(f"holds {kind} values where the model learned text")
    codes, texts = pd.factorize(column)
    bins = np.append(hashed(list(texts), feature["bins"]), np.nan)  # of a missing one, the code is -1
    return bins[codes]


def hashed(texts: Sequence[str], bins: int) -> np.ndarray:
    """Return the bin of each text, float64; of an empty one NaN, for it is missing."""
    import tensorflow

    found = tensorflow.strings.to_hash_bucket_strong(list(texts), bins, key=list(HASH_KEY)).numpy().astype(np.float64)
    found[[not text for text in texts]] = np.nan
    return found


ENCODINGS = {"number": _number, "boolean": _boolean, "category": _category, "text": _text}


def _xgboost(folder: Path) -> Model:
    import xgboost

    booster = xgboost.Booster(model_file=str(folder / "model.ubj"))
    # The same as of a DMatrix, which takes longer to make than a row to predict.
    return lambda matrix: booster.inplace_predict(matrix, validate_features=False)


def _lightgbm(folder: Path) -> Model:
    import lightgbm

    booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
    return lambda matrix: booster.predict(matrix)


def _sklearn(folder: Path) -> Model:
    import skops.io

    estimator = skops.io.load(folder / "model.skops", trusted=list(SKLEARN_TYPES))
    return estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict


def _keras(folder: Path) -> Model:
    # Read when TensorFlow is imported: it logs what is no user's business, and sums as it does in training.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import keras
    import tensorflow

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        strange = [name for name in _classes(json.loads(archive.read("config.json"))) if name not in _KNOWN_CLASSES]
    if strange:
        raise ValueError(f"model.keras holds {strange[0]}, no part of a model that train writes")
    encoded = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True).get_layer(ENCODED)

    @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, encoded.input.shape[1]), tensorflow.float64)])
    def predicted(matrix: Any) -> Any:
        found = encoded(matrix, training=False)
        return found[:, 0] if found.shape[1] == 1 else found

    def predict(matrix: np.ndarray) -> np.ndarray:
        # What lies between the layers is many times as large as the rows.
        parts = [predicted(matrix[first : first + _AT_ONCE]).numpy() for first in range(0, len(matrix), _AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return predict


def _classes(config: Any) -> Iterator[str]:
    """Yield the classes that a Keras configuration makes objects of."""
    if isinstance(config, Mapping):
        if "class_name" in config and config["class_name"] != "__keras_tensor__":
            yield f"{config.get('module')}.{config['class_name']}"
        config = list(config.values())
    for item in config if isinstance(config, list) else ():
        yield from _classes(item)


_KNOWN_CLASSES = {f"{module}.{name}" for module, names in KERAS_CLASSES.items() for name in names}
_AT_ONCE = 65_536

MODELS = {"keras": _keras, "xgboost": _xgboost, "lightgbm": _lightgbm, "sklearn": _sklearn}


def label_text(label: Any) -> str:
    """Return a label as it is written in names and in JSON: true and false in lower case."""
    return str(label).lower() if isinstance(label, bool) else str(label)


class _Served:
    """What MLflow calls: raw columns in, `prediction` and, of a classifier, `probability_<label>` out."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, data: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        predicted = self.predictor.predict(data)
        classes = self.predictor.classes
        if not classes:
            return pd.DataFrame({"prediction": predicted}, index=data.index)
        columns = {"prediction": np.array(classes)[predicted.argmax(axis=1)]}
        for place, label in enumerate(classes):
            columns[f"probability_{label_text(label)}"] = predicted[:, place]
        return pd.DataFrame(columns, index=data.index)


def _load_pyfunc(path: str) -> _Served:
    return _Served(Predictor(path))
