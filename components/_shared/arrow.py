"""Arrow arrays without pandas: pa.array, pa.scalar and to_numpy import it, which costs who needs none half a second."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def numbers(values: np.ndarray) -> pa.Array:
    """Return numbers as an array, none of them null, on the same memory where it is contiguous."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, data])


def nothing(schema: pa.Schema) -> pa.RecordBatch:
    """Return no rows of a schema."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def values_of(values: pa.Array, kind: type[np.generic]) -> np.ndarray:
    """Return values of 8 bytes as an array of NumPy's of such a kind; for nulls it holds anything."""
    return np.frombuffer(values.buffers()[1] or b"", kind, len(values), values.offset * 8)


def truths(values: pa.BooleanArray) -> np.ndarray:
    """Return booleans, none of them null, as an array of NumPy's."""
    bytes_ = values.cast(pa.uint8())
    return np.frombuffer(bytes_.buffers()[1], np.bool_, len(bytes_), bytes_.offset)
