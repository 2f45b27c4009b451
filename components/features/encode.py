"""The bytes in which Feast keeps values and entity keys, made of Arrow columns.

Feast makes a protobuf message of every value and every key. These functions give the same bytes a column at a time for
the kinds that most features have, and leave the others to Feast's own converters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType
from feast.infra.key_encoding_utils import serialize_entity_key, serialize_entity_key_prefix
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from google.protobuf.timestamp_pb2 import Timestamp

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types of protobuf


@dataclass(frozen=True)
class Encoded:
    """A column of feature values.

    Attributes:
        values: Each as a serialized feast.types.Value; empty bytes where it is missing.
        texts: What SQL stores write beside it for searches by text; None where there is none.
    """

    values: list[bytes]
    texts: list[str | None]

    def columns(self) -> tuple[list, list]:
        """Return values and texts."""
        return self.values, self.texts


def values(column: pa.Array, kind: ValueType) -> Encoded:
    """Return a column as Feast's materialization writes it, of the type that the feature view declares.

    Whole numbers keep their digits beyond 2^53 where some are missing, which Feast loses on the way through pandas.
    """
    column = _plain(column)
    encoder = _VALUES.get((kind, _family(column.type)), _by_feast)
    return encoder(column, kind)


def entity_keys(columns: Mapping[str, pa.Array], kinds: Mapping[str, ValueType], version: int) -> list[bytes]:
    """Return the key of each row as feast.infra.key_encoding_utils.serialize_entity_key gives it.

    Args:
        columns: Join keys by name.
        version: entity_key_serialization_version of feature_store.yaml.
    """
    plain = {name: _plain(column) for name, column in columns.items()}
    if version != 3 or any(
        (kinds[name], _family(column.type)) not in _KEYS or column.null_count for name, column in plain.items()
    ):
        return _keys_by_feast(plain, kinds, version)
    names = sorted(plain)
    head = serialize_entity_key_prefix(names, version)
    parts = []
    for name in names:
        parts.append(_KEYS[kinds[name], _family(plain[name].type)](head, plain[name], kinds[name]))
        head = b""
    return parts[0] if len(parts) == 1 else list(map(b"".join, zip(*parts, strict=True)))


def instants(column: pa.Array) -> np.ndarray:
    """Return timestamps as datetime64[us] in UTC; those without a time zone are in UTC, as everywhere in Feast."""
    return column.to_numpy(zero_copy_only=False).astype("datetime64[us]")


def each_instant(times: np.ndarray, convert: Callable[[datetime], object]) -> list:
    """Return what `convert` makes of every instant, as a naive datetime in UTC, calling it once for equal ones."""
    distinct, places = np.unique(times, return_inverse=True)
    made = np.empty(len(distinct), object)
    made[:] = [convert(instant) for instant in distinct.tolist()]
    return made[places].tolist()


def timestamp_bytes(instant: datetime) -> bytes:
    """Return a naive datetime in UTC as a serialized google.protobuf.Timestamp, the form it has in Redis."""
    message = Timestamp()
    message.FromDatetime(instant.replace(tzinfo=UTC))
    return message.SerializeToString()


def _plain(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _family(kind: pa.DataType) -> str:
    return next((name for name, holds in _FAMILIES if holds(kind)), "other")


def _is_integer(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) and kind != pa.uint64()


_FAMILIES: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
    ("integer", _is_integer),
    ("single", pa.types.is_float32),
    ("double", pa.types.is_float64),
    ("boolean", pa.types.is_boolean),
    ("string", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    ("bytes", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
    ("timestamp", pa.types.is_timestamp),
)


def _by_feast(column: pa.Array, kind: ValueType) -> Encoded:
    messages = python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kind)
    return Encoded(
        [message.SerializeToString() for message in messages],
        [extract_text_and_num(message, False)[0] for message in messages],
    )


def _keys_by_feast(columns: Mapping[str, pa.Array], kinds: Mapping[str, ValueType], version: int) -> list[bytes]:
    messages = [
        python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kinds[name])
        for name, column in columns.items()
    ]
    return [
        serialize_entity_key(EntityKey(join_keys=list(columns), entity_values=row), version)
        for row in zip(*messages, strict=True)
    ]


def _tag(field: str, wire: int) -> bytes:
    number = Value.DESCRIPTOR.fields_by_name[field].number
    assert number < 16, field  # so that the tag is one byte
    return bytes([number << 3 | wire])


def _integers(column: pa.Array, kind: ValueType) -> Encoded:
    numbers = _filled(column, pa.int64())
    if kind == ValueType.INT32 and len(numbers) and not -(1 << 31) <= numbers.min() <= numbers.max() < 1 << 31:
        return _by_feast(column, kind)  # which refuses them
    field = "int32_val" if kind == ValueType.INT32 else "int64_val"
    return _with_nulls(column, _varints(_tag(field, VARINT), numbers), list(map(str, numbers.tolist())))


def _doubles(column: pa.Array, kind: ValueType) -> Encoded:
    return _floats(column, "double_val", FIXED64, np.dtype("<f8"))


def _singles(column: pa.Array, kind: ValueType) -> Encoded:
    return _floats(column, "float_val", FIXED32, np.dtype("<f4"))


def _floats(column: pa.Array, field: str, wire: int, dtype: np.dtype) -> Encoded:
    column = pc.if_else(pc.is_nan(column), None, column)
    with np.errstate(over="ignore"):  # beyond the largest they are infinite, in protobuf too
        numbers = _filled(column, column.type).astype(dtype)
    return _with_nulls(column, _fixed(_tag(field, wire), numbers), list(map(str, numbers.tolist())))


def _booleans(column: pa.Array, kind: ValueType) -> Encoded:
    flags = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
    tag = _tag("bool_val", VARINT)
    return _with_nulls(
        column,
        np.where(flags, np.array(tag + b"\1", object), np.array(tag + b"\0", object)).tolist(),
        np.where(flags, np.array("True", object), np.array("False", object)).tolist(),
    )


def _strings(column: pa.Array, kind: ValueType) -> Encoded:
    filled = pc.fill_null(column, "")
    return _with_nulls(
        column,
        _prefixed(_tag("string_val", LENGTH), _encode_varint, filled.cast(pa.large_binary())),
        filled.to_numpy(zero_copy_only=False).tolist(),
    )


def _bytes(column: pa.Array, kind: ValueType) -> Encoded:
    filled = pc.fill_null(column, b"")
    return _with_nulls(column, _prefixed(_tag("bytes_val", LENGTH), _encode_varint, filled), [None] * len(column))


def _timestamps(column: pa.Array, kind: ValueType) -> Encoded:
    # Of a missing one this is the least 64-bit number, with which Feast marks it.
    seconds = column.to_numpy(zero_copy_only=False).astype("datetime64[s]").astype(np.int64)
    return Encoded(_varints(_tag("unix_timestamp_val", VARINT), seconds), [None] * len(column))


_VALUES: dict[tuple[ValueType, str], Callable[[pa.Array, ValueType], Encoded]] = {
    (ValueType.INT32, "integer"): _integers,
    (ValueType.INT64, "integer"): _integers,
    (ValueType.FLOAT, "single"): _singles,
    (ValueType.FLOAT, "double"): _singles,
    (ValueType.DOUBLE, "double"): _doubles,
    (ValueType.BOOL, "boolean"): _booleans,
    (ValueType.STRING, "string"): _strings,
    (ValueType.BYTES, "bytes"): _bytes,
    (ValueType.UNIX_TIMESTAMP, "timestamp"): _timestamps,
}


def _number_keys(head: bytes, column: pa.Array, kind: ValueType) -> list[bytes]:
    dtype = np.dtype("<i4" if kind == ValueType.INT32 else "<i8")
    numbers = column.cast(pa.int32() if kind == ValueType.INT32 else pa.int64()).to_numpy(zero_copy_only=False)
    return _fixed(head + struct.pack("<II", kind.value, dtype.itemsize), numbers.astype(dtype))


def _string_keys(head: bytes, column: pa.Array, kind: ValueType) -> list[bytes]:
    head += struct.pack("<I", kind.value)
    return _prefixed(head, lambda length: struct.pack("<I", length), column.cast(pa.large_binary()))


_KEYS: dict[tuple[ValueType, str], Callable[[bytes, pa.Array, ValueType], list[bytes]]] = {
    (ValueType.INT32, "integer"): _number_keys,
    (ValueType.INT64, "integer"): _number_keys,
    (ValueType.STRING, "string"): _string_keys,
    (ValueType.BYTES, "bytes"): _string_keys,
}


def _filled(column: pa.Array, kind: pa.DataType) -> np.ndarray:
    return pc.fill_null(column.cast(kind), pa.scalar(0, kind)).to_numpy(zero_copy_only=False)


def _with_nulls(column: pa.Array, values: list[bytes], texts: list) -> Encoded:
    if column.null_count:
        for place in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            values[place], texts[place] = b"", None
    return Encoded(values, texts)


def _fixed(head: bytes, numbers: np.ndarray) -> list[bytes]:
    """Return head + number for each, little-endian."""
    return _rows(head, numbers.view(np.uint8).reshape(len(numbers), numbers.dtype.itemsize))


def _rows(head: bytes, tails: np.ndarray) -> list[bytes]:
    whole = np.empty((len(tails), len(head) + tails.shape[1]), np.uint8)
    whole[:, : len(head)] = np.frombuffer(head, np.uint8)
    whole[:, len(head) :] = tails
    # One item a row: of type void, for numpy cuts zeros off the end of its byte strings.
    return whole.view(f"V{whole.shape[1]}").ravel().tolist()


def _varints(head: bytes, numbers: np.ndarray) -> list[bytes]:
    """Return head + number for each, seven bits a byte, the last byte without the highest bit."""
    unsigned = numbers.view(np.uint64)
    lengths = np.ones(len(numbers), np.int64)
    for bits in range(7, 64, 7):
        lengths += unsigned >= np.uint64(1 << bits)
    encoded = np.empty(len(numbers), object)
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        groups = (unsigned[places, None] >> (np.arange(length, dtype=np.uint64) * np.uint64(7))).astype(np.uint8) | 0x80
        groups[:, -1] &= 0x7F
        encoded[places] = _rows(head, groups)
    return encoded.tolist()


def _prefixed(head: bytes, length_bytes: Callable[[int], bytes], column: pa.Array) -> list[bytes]:
    """Return head + length + bytes for each."""
    lengths = pc.binary_length(column).to_numpy(zero_copy_only=False)
    heads = {length: head + length_bytes(length) for length in np.unique(lengths).tolist()}
    items = column.to_numpy(zero_copy_only=False).tolist()
    return [heads[length] + item for length, item in zip(lengths.tolist(), items, strict=True)]


def _encode_varint(number: int) -> bytes:
    return _varints(b"", np.array([number], np.int64))[0]
