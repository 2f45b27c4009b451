"""A graph of TensorFlow Transform, as it becomes part of a model: raw columns in, what it makes of them out.

It is read as the plain SavedModel that TensorFlow Transform writes, by TensorFlow alone. The same function transforms
the rows that a model is fitted on and, in the model, those it is asked about.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from penstock.components._shared.dataset import Dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.features import Feature, is_text
from penstock.components._shared.fitting.survey import Tables
from penstock.components._shared.sealed import digest
from penstock.components._shared.tabular import WHOLE, input_names, refuse_operations, transformed

ARGUMENT = "transform_graph"
FOLDER = "transform_fn"  # of TensorFlow Transform's output
SCHEMA = "transformed_metadata/schema.pbtxt"  # what it says of the columns that it makes


@dataclass(frozen=True)
class Column:
    """What a graph makes.

    Attributes:
        sources: The raw columns that it is made of.
        flaw: Why it cannot be learned from; empty: it can.
    """

    sources: frozenset[str]
    flaw: str


@dataclass(frozen=True)
class Embedded:
    """A graph as part of a model.

    Attributes:
        features: The raw columns that it reads.
        names: Of what it makes of them.
        function: A concrete tf.function that does so; see tabular.transformed.
        resources: What the function needs, vocabularies above all, for a SavedModel of it.
    """

    features: tuple[Feature, ...]
    names: tuple[str, ...]
    function: Any
    resources: Any

    @property
    def schema(self) -> pa.Schema:
        """Types of what it makes: numbers are float64; places in a vocabulary, and bins, are texts."""
        import tensorflow as tf

        made = self.function.structured_outputs
        kinds = [pa.string() if made[key].dtype == tf.string else pa.float64() for key in input_names(self.names)]
        return pa.schema(list(zip(self.names, kinds, strict=True)))

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what it makes of rows; raises ValueError where it cannot."""
        return transformed(self.function, [feature.description() for feature in self.features], self.names, frame)


class TransformGraph:
    """A graph that was read.

    Attributes:
        columns: What it makes, by name, in sorted order.
        fingerprint: SHA-256 of its files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read a folder that TensorFlow Transform wrote.

        Raises:
            UserError: It is none, or its graph reaches out of itself.
        """
        folder = Path(path, FOLDER)
        if not (folder / "saved_model.pb").is_file():
            raise _refuse(f"{path} has no {FOLDER}/saved_model.pb", "Give what transform or TFX's Transform wrote")
        import tensorflow as tf

        try:
            refuse_operations(folder)
            self.resources = tf.saved_model.load(str(folder))
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise _refuse(f"{path} cannot be read: {_first_line(error)}", "Let transform write it again") from error
        function = getattr(self.resources, FOLDER, None)
        if function is None:
            problem = f"{path} is a graph of TensorFlow 1"
            raise _refuse(problem, "Let a Transform of this day write it, without force_tf_compat_v1")
        self._function = getattr(function, "concrete_functions", [function])[0]
        self._specs: Mapping[str, Any] = self._function.structured_input_signature[0][0]
        self.columns = _columns(self._function, self._specs)
        self._categories = _categories(Path(path, SCHEMA))
        self.fingerprint = digest(folder)

    def sources(self, names: Collection[str]) -> list[str]:
        """Return the raw columns that the columns `names` are made of, in sorted order."""
        return sorted(frozenset().union(*(self.columns[name].sources for name in names)))

    def embed(self, names: Sequence[str], schema: pa.Schema) -> Embedded:
        """Return the part of it that makes the columns `names`.

        Args:
            schema: Types of the raw columns.

        Raises:
            UserError: One of the columns cannot be learned from, or the graph was not made of such raw columns.
        """
        import tensorflow as tf

        if flawed := {name: self.columns[name].flaw for name in names if self.columns[name].flaw}:
            told = ", ".join(f"{name!r} {flaw}" for name, flaw in flawed.items())
            raise UserError(
                "train", "features", f"one number or text a row is learned from, and {told}",
                f"Let preprocessing_fn return (rows, 1), or add to exclude: {list(flawed)}",
            )  # fmt: skip
        raw = self.sources(names)
        features = tuple(_feature(name, schema.field(name).type, self._specs[name]) for name in raw)
        keys, made = dict(zip(input_names(raw), raw, strict=True)), dict(zip(input_names(names), names, strict=True))

        @tf.function
        def transform_features(**columns: Any) -> dict[str, Any]:
            rows = tf.shape(next(iter(columns.values())))[0]
            named = {keys[key]: column for key, column in columns.items()}
            given = {name: _given(named.get(name), spec, rows) for name, spec in self._specs.items()}
            found = self._function(given)
            return {key: _plain(found[name], name in self._categories) for key, name in made.items()}

        kinds = {key: _raw_type(feature) for key, feature in zip(keys, features, strict=True)}
        specs = {key: tf.TensorSpec((None, 1), kind, name=key) for key, kind in kinds.items()}
        return Embedded(features, tuple(names), transform_features.get_concrete_function(**specs), self.resources)


def _columns(function: Any, specs: Mapping[str, Any]) -> dict[str, Column]:
    import tensorflow as tf

    graph = function.graph
    tensors = iter(graph.inputs)  # in the order of names, of a sparse one three
    parts = [name for name in sorted(specs) for _ in tf.nest.flatten(specs[name], expand_composites=True)]
    sources = {next(tensors).op.name: name for name in parts}
    made = tf.nest.pack_sequence_as(graph.structured_outputs, graph.outputs, expand_composites=True)
    return {name: Column(_sources(made[name], sources), _flaw(made[name])) for name in sorted(made)}


def _categories(path: Path) -> frozenset[str]:
    """Return the integers that are names of something: places in a vocabulary, bins, hashes."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(path.read_text("utf-8"), schema_pb2.Schema(), allow_unknown_field=True)
    except FileNotFoundError:
        return frozenset()
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise _refuse(f"{path} cannot be read: {_first_line(error)}", "Let transform write it again") from error
    return frozenset(feature.name for feature in schema.feature if feature.int_domain.is_categorical)


def _sources(made: Any, sources: Mapping[str, str]) -> frozenset[str]:
    """Return the inputs of a graph that values flow from to what it makes."""
    import tensorflow as tf

    waiting = [tensor.op for tensor in tf.nest.flatten(made, expand_composites=True)]
    seen = {operation.name for operation in waiting}
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op.name not in seen:
                seen.add(tensor.op.name)
                waiting.append(tensor.op)
    return frozenset(name for operation, name in sources.items() if operation in seen)


def _flaw(made: Any) -> str:
    import tensorflow as tf

    if not isinstance(made, tf.Tensor):
        return "holds any number of them"
    if made.shape.rank == 1 or (made.shape.rank == 2 and made.shape[1] == 1):
        return ""
    return f"is of shape {made.shape}"


def _feature(name: str, kind: pa.DataType, spec: Any) -> Feature:
    """Return how a raw column is read.

    Raises:
        UserError: It is not of the type that the graph takes.
    """
    import tensorflow as tf

    types = pa.types
    sparse, dtype = isinstance(spec, tf.SparseTensorSpec), spec.dtype
    whole = types.is_integer(kind) or types.is_boolean(kind)
    number = whole or types.is_floating(kind) or types.is_decimal(kind)
    fits = is_text(kind) if dtype == tf.string else whole if dtype.is_integer else number
    if not fits or not (sparse or (isinstance(spec, tf.TensorSpec) and _is_column(spec.shape))):
        raise _refuse(
            f"it takes {name!r} as {dtype.name} of shape {spec.shape}, and the rows have {kind}",
            "Give the rows that transform read; of times and lists derive numbers or texts in ingest's query",
        )
    if dtype == tf.string:
        return Feature(name, "text", optional=sparse)
    if types.is_boolean(kind):
        return Feature(name, "boolean", optional=sparse)
    return Feature(name, "whole" if dtype.is_integer else "number", optional=sparse, whole=whole)


def _is_column(shape: Any) -> bool:
    return shape.rank == 1 or (shape.rank == 2 and shape[1] == 1)


def _raw_type(feature: Feature) -> Any:
    import tensorflow as tf

    if feature.kind == "text":
        return tf.string
    return tf.int64 if feature.kind in WHOLE and not feature.optional else tf.float64


def _given(column: Any, spec: Any, rows: Any) -> Any:
    """Return a raw column as the graph takes it; where it does not matter, anything."""
    import tensorflow as tf

    if not isinstance(spec, tf.SparseTensorSpec):
        if column is None:
            column = tf.fill((rows, 1), tf.constant("" if spec.dtype == tf.string else 0, spec.dtype))
        return tf.reshape(tf.cast(column, spec.dtype), (-1,) if spec.shape.rank == 1 else (-1, 1))
    if column is None:
        column = tf.fill((rows, 1), tf.constant("" if spec.dtype == tf.string else float("nan")))
    present = column != "" if column.dtype == tf.string else ~tf.math.is_nan(column)
    values = tf.cast(tf.boolean_mask(column, present), spec.dtype)
    return tf.SparseTensor(tf.where(present), values, tf.stack((tf.cast(rows, tf.int64), 1)))


def _plain(column: Any, category: bool) -> Any:
    import tensorflow as tf

    if category and column.dtype.is_integer:
        column = tf.strings.as_string(column)
    return tf.reshape(column if column.dtype == tf.string else tf.cast(column, tf.float64), (-1, 1))


class Through(Tables):
    """Tables as a graph makes them, with columns beside that stay as they are.

    Args:
        graph: What is made of the raw columns.
        dataset: The rows.
        besides: Columns that stay.
        argument: What brought the rows, for errors.
    """

    def __init__(self, graph: Embedded, dataset: Dataset, besides: Sequence[str], argument: str) -> None:
        raw = [feature.name for feature in graph.features]
        super().__init__(dataset, list(dict.fromkeys((*raw, *besides))), streamed=True)
        self._graph, self._besides, self._argument = graph, besides, argument
        kept = [self.schema.field(name) for name in besides] if self.schema else []
        self.schema = pa.schema([*graph.schema, *kept]) if self.schema else self.schema

    def __getitem__(self, place: Any) -> Any:
        table = self.raw(place)
        columns = {
            feature.name: column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
            for feature in self._graph.features
            for column in (table[feature.name],)
        }
        try:
            made = self._graph.apply(pa.table(columns).to_pandas())
        except ValueError as error:
            remedy = "Give rows like those that transform read"
            raise UserError("train", self._argument, str(error), remedy) from error
        arrays = [pa.array(made[field.name].to_numpy(), field.type) for field in self._graph.schema]
        return pa.table([*arrays, *(table[name] for name in self._besides)], schema=self.schema)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _refuse(problem: str, remedy: str) -> UserError:
    return UserError("train", ARGUMENT, problem, remedy)
