"""Rows of part files as TensorFlow Transform takes them, and what it makes of them as columns again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.components._shared import places
from penstock.components._shared.dataset import Dataset
from penstock.components._shared.errors import UserError

BATCH = 16_384  # rows at a time

NUMBER, WHOLE, TEXT = "number", "whole number", "text"


@dataclass(frozen=True)
class Column:
    """A column of the rows.

    Attributes:
        holds: "number", "whole number" or "text".
        listed: Whether a row holds a list of values.
        missing: Whether a row may hold none. Where each holds one, the tensor is dense, (rows, 1), else sparse.
    """

    name: str
    holds: str
    listed: bool
    missing: bool

    @property
    def dense(self) -> bool:
        return not (self.listed or self.missing)


def columns_of(datasets: Sequence[Dataset], component: str) -> list[Column]:
    """Return the columns of datasets with the same schema, in order.

    Raises:
        UserError: They have other columns, or one of a type that is no number, text or time.
    """
    first, *others = datasets
    for other in others:
        if other.schema != first.schema:
            strange = sorted(set(other.schema.items()) ^ set(first.schema.items()))[0][0]
            problem = f"its column {strange!r} is not that of train_set, or is not there"
            raise UserError(component, "eval_set", problem, "Give two datasets that one ingest wrote")
    files = [file for dataset in datasets for file in dataset.files]
    footers = [pq.ParquetFile(file) for file in files]
    schema = footers[0].schema_arrow
    return [
        Column(
            name=field.name,
            holds=_holds(field.name, _item(field.type), component),
            listed=_is_list(field.type),
            missing=not all(_is_whole(footer, field.name) for footer in footers),
        )
        for field in schema
    ]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _item(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) or pa.types.is_dictionary(kind) else kind


def _holds(name: str, kind: pa.DataType, component: str) -> str:
    types = pa.types
    if types.is_boolean(kind) or types.is_integer(kind) or (types.is_temporal(kind) and not types.is_interval(kind)):
        return WHOLE
    if types.is_floating(kind) or types.is_decimal(kind):
        return NUMBER
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return TEXT
    problem = f"column {name!r} is of type {kind}, which TensorFlow Transform cannot read"
    raise UserError(component, "train_set", problem, "Leave it out or take it apart in ingest's query")


def _is_whole(file: pq.ParquetFile, name: str) -> bool:
    """Return whether the footer of a file says that no value of a column is missing."""
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
        found = [column for column in columns if column.path_in_schema == name]
        known = found and found[0].is_stats_set and found[0].statistics.has_null_count
        if not known or found[0].statistics.null_count:
            return False
    return True


def read(path: str, group: int, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, of each column a list of values a row: int64, float32 or binary."""
    with places.opened(path) as file:
        table = pq.ParquetFile(file).read_row_group(group, columns=[column.name for column in columns])
    for batch in table.combine_chunks().to_batches(BATCH):
        arrays = [_listed(batch.column(column.name), column) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


_ARROW = {WHOLE: pa.int64(), NUMBER: pa.float32(), TEXT: pa.large_binary()}


def _listed(array: pa.Array, column: Column) -> pa.Array:
    kind = _ARROW[column.holds]
    if column.listed:
        lists = array.cast(pa.large_list(array.type.value_type))
        values = _plain(lists.flatten(), kind)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        return _of(values, np.concatenate(([0], np.cumsum(lengths))), lists)
    if column.missing:
        array = _without_blanks(array, column)
    values = _plain(array.drop_null(), kind)
    present = array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    return _of(values, np.concatenate(([0], np.cumsum(present))), array)


def _without_blanks(array: pa.Array, column: Column) -> pa.Array:
    """Return a column in which values may be missing: NaN and empty texts are, too, for so a model is told of them."""
    if column.holds == TEXT:
        array = _plain(array, _ARROW[TEXT])
        return pc.if_else(pc.equal(pc.binary_length(array), 0), pa.scalar(None, array.type), array)
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def _of(values: pa.Array, ends: np.ndarray, like: pa.Array) -> pa.Array:
    missing = like.is_null() if like.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), values, mask=missing)


def _plain(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    if pa.types.is_time(values.type):
        values = values.cast(pa.time64("us"))
    if pa.types.is_date(values.type):
        values = values.cast(pa.date32()).cast(pa.int32())
    return values.cast(kind, safe=False)


def feature_spec(columns: Iterable[Column]) -> dict[str, Any]:
    """Return what TensorFlow calls the columns: FixedLenFeature((1,)) of dense ones, VarLenFeature of the others."""
    import tensorflow as tf

    kinds = {WHOLE: tf.int64, NUMBER: tf.float32, TEXT: tf.string}
    return {
        column.name: tf.io.FixedLenFeature((1,), kinds[column.holds])
        if column.dense
        else tf.io.VarLenFeature(kinds[column.holds])
        for column in columns
    }


def config(columns: Sequence[Column]) -> Any:
    """Return how tfx_bsl makes tensors of the batches of `read`."""
    import tensorflow_transform as tft
    from tfx_bsl.tfxio import tensor_adapter, tensor_representation_util

    schema = tft.DatasetMetadata.from_feature_spec(feature_spec(columns)).schema
    arrow = pa.schema([(column.name, pa.large_list(_ARROW[column.holds])) for column in columns])
    return tensor_adapter.TensorAdapterConfig(
        arrow, tensor_representation_util.InferTensorRepresentationsFromMixedSchema(schema)
    )


def arrow_schema(spec: dict[str, Any]) -> pa.Schema:
    """Return the columns of transformed features: one value a row where it is a scalar, else a list."""
    import tensorflow as tf

    kinds = {tf.int64: pa.int64(), tf.float32: pa.float32(), tf.string: pa.string()}
    return pa.schema(
        [
            (name, kinds[feature.dtype] if _is_scalar(feature) else pa.list_(kinds[feature.dtype]))
            for name, feature in sorted(spec.items())
        ]
    )


def _is_scalar(feature: Any) -> bool:
    return list(getattr(feature, "shape", [None])) in ([], [1])


def columns_from(tensors: dict[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    """Return tensors, dense or sparse, as columns of a schema."""
    import tensorflow as tf

    arrays = []
    for field in schema:
        tensor = tensors[field.name]
        if isinstance(tensor, tf.sparse.SparseTensor):
            lengths = np.bincount(tensor.indices.numpy()[:, 0], minlength=int(tensor.dense_shape[0]))
            values = tensor.values.numpy()
        else:
            values = tensor.numpy()
            lengths = np.full(len(values), int(np.prod(values.shape[1:])))
        flat = pa.array(values.reshape(-1), pa.binary() if field.type in (pa.string(), pa.list_(pa.string())) else None)
        if pa.types.is_list(field.type):
            ends = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
            arrays.append(pa.ListArray.from_arrays(ends, flat.cast(field.type.value_type)))
        else:
            arrays.append(flat.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
