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

A Keras model may hold a transform graph. Then "features" are the columns that the graph reads, texts among them as they
are and integers of the kind "whole", and "transformed" says in the same way what it makes of them, which is what the
matrix holds.
"""

from __future__ import annotations

import json
import logging
import os
import re
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

# Of a Keras model with a transform graph: where that is, what applies it there, and operations that it may not have.
SAVED_MODEL = "saved_model"
TRANSFORM = "transform_features"
REFUSED = frozenset({"EagerPyFunc", "MatchingFiles", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile"})

Model = Callable[[np.ndarray], np.ndarray]


class Predictor:
    """A loaded model.

    Attributes:
        task: "binary", "multiclass" or "regression".
        target: Name of the column it predicts.
        classes: Labels as they stand in the data; empty for a regression.
        features: Names of the columns it reads.
        columns: What features.json says of each.
        encoded: The same of what the matrix holds: the columns, or what a transform graph makes of them.
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
        self.encoded: list[dict[str, Any]] = description.get("transformed", self.columns)
        self._transform = _transform(Path(folder), self.columns, self.encoded) if "transformed" in description else None
        self._model = MODELS[description["framework"]](Path(folder))

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return float64: values (n,) of a regression, else probabilities (n, classes) in the order of `classes`.

        Raises:
            ValueError: A column is missing or holds values of another kind.
        """
        return self.predict_matrix(self.matrix(frame))

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the matrix that the model reads, float64 (rows, encoded); raises as predict does."""
        if not len(frame):
            return np.empty((0, len(self.encoded)))
        return encode(self.encoded, frame if self._transform is None else self._transform(frame))

    def predict_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Return the same of a matrix that `matrix` made."""
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


def _whole(column: pd.Series, feature: Mapping[str, Any]) -> np.ndarray:
    values = _number(column, feature)
    if not (np.isnan(values) | (values == np.floor(values))).all():
        raise ValueError("holds fractions where the model learned whole numbers")
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


WHOLE = ("boolean", "whole")  # kinds that a transform graph takes as integers
ENCODINGS = {"number": _number, "whole": _whole, "boolean": _boolean, "category": _category, "text": _text}


def input_names(names: Sequence[str]) -> list[str]:
    """Return names that TensorFlow takes, which knows no letters but those of ASCII."""
    return [
        name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) else f"feature_{place}_{re.sub('[^A-Za-z0-9_]', '', name)}"
        for place, name in enumerate(names)
    ]


def transformed(
    function: Any, columns: Sequence[Mapping[str, Any]], names: Sequence[str], frame: pd.DataFrame
) -> pd.DataFrame:
    """Return what a transform graph makes of raw columns: numbers as float64, texts as text.

    Args:
        function: Takes the columns and returns what they become, each under its name of input_names, (rows, 1).
        columns: What features.json says of the raw columns.
        names: Of what they become.

    Raises:
        ValueError: A column is missing or holds values of another kind, or the graph fails.
    """
    import tensorflow

    raw = {}
    for name, column in zip(input_names([column["name"] for column in columns]), columns, strict=True):
        try:
            raw[name] = _raw(frame, column)[:, None]
        except (TypeError, ValueError) as error:
            raise ValueError(f"column {column['name']!r}: {error}") from None
    parts: list[dict[str, np.ndarray]] = []
    for first in range(0, len(frame), _AT_ONCE):
        some = {name: tensorflow.constant(values[first : first + _AT_ONCE]) for name, values in raw.items()}
        try:
            parts.append({name: values.numpy()[:, 0] for name, values in function(**some).items()})
        except tensorflow.errors.OpError as error:
            said = (error.message or type(error).__name__).partition("\n\t")[0].strip().splitlines()[-1]
            raise ValueError(f"the transform graph fails: {said}") from None
    found = {}
    for key, name in zip(input_names(names), names, strict=True):
        values = np.concatenate([part[key] for part in parts])
        found[name] = np.array([text.decode() for text in values], object) if values.dtype == object else values
    return pd.DataFrame(found)


def _raw(frame: pd.DataFrame, feature: Mapping[str, Any]) -> np.ndarray:
    """Return a raw column as a transform graph takes it.

    Texts as they are, whole numbers and booleans as int64, others as float64. Where a value may be missing, it is NaN
    or an empty text, and whole numbers are float64, too.
    """
    name, optional = feature["name"], feature["optional"]
    text, whole = feature["kind"] == "text", feature["kind"] in WHOLE
    if name not in frame.columns:
        if not optional:
            raise ValueError("there is none")
        return np.full(len(frame), "" if text else np.nan, object if text else np.float64)
    column = frame[name]
    if (text or whole) and not optional and column.isna().any():
        raise ValueError("holds no value in some rows, and the transform graph takes one in each")
    if text:
        if not column.isna().all():
            kind = pd.api.types.infer_dtype(column.cat.categories if column.dtype == "category" else column)
            if kind not in ("string", "empty"):
                raise ValueError(f"holds {kind} values where the model learned text")
        return np.where(column.isna(), "", column.astype(object)).astype(object)
    if whole and not optional and column.dtype.kind in "iu":
        return column.to_numpy(dtype=np.int64)
    values = ENCODINGS[feature["kind"]](column, feature)
    return values.astype(np.int64) if whole and not optional else values


def refuse_operations(folder: Path) -> None:
    """Refuse a SavedModel whose graph reads or writes files by itself, or calls Python.

    Raises:
        ValueError: Naming the operation; or the file is none.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except DecodeError:
        raise ValueError("saved_model.pb is not TensorFlow's") from None
    for meta in saved.meta_graphs:
        functions = [function.node_def for function in meta.graph_def.library.function]
        for nodes in (meta.graph_def.node, *functions):
            found = REFUSED.intersection(node.op for node in nodes)
            if found:
                raise ValueError(f"its graph has the operation {min(found)}, which reaches out of it")


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


def _tensorflow() -> Any:
    # Read when TensorFlow is imported: it logs what is no user's business, and sums as it does in training.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return tensorflow


def _transform(
    folder: Path, columns: Sequence[Mapping[str, Any]], encoded: Sequence[Mapping[str, Any]]
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    tensorflow = _tensorflow()
    refuse_operations(folder / SAVED_MODEL)
    loaded = tensorflow.saved_model.load(str(folder / SAVED_MODEL))
    names = [feature["name"] for feature in encoded]
    # The signature alone would not keep the vocabularies.
    return lambda frame: transformed(loaded.signatures[TRANSFORM], columns, names, frame)


def _keras(folder: Path) -> Model:
    tensorflow = _tensorflow()
    import keras

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
