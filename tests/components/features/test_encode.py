"""The bytes made of columns are those that Feast makes of values."""

from datetime import datetime

import pyarrow as pa
import pytest
from feast import ValueType
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.features import encode

TIMES = [datetime(2026, 1, 1, 1, 2, 3, 999_999), None, datetime(1960, 1, 1, 1, 2, 3, 999_999), datetime(1970, 1, 1)]


def assert_feasts(column: pa.Array, kind: ValueType) -> None:
    """Hold a column to what Feast's materialization makes of it."""
    messages = python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kind)
    encoded = encode.values(column, kind)
    assert encoded.values == [message.SerializeToString() for message in messages]
    assert encoded.texts == [extract_text_and_num(message, False)[0] for message in messages]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, None, 300]), ValueType.INT64),
        (pa.array([1, None, -1], pa.int8()), ValueType.INT32),
        (pa.array([0.5, None, float("nan"), 1e300, float("-inf"), -0.0]), ValueType.FLOAT),
        (pa.array([0.1, None, 0.0], pa.float32()), ValueType.FLOAT),
        (pa.array([0.1, None, float("nan"), 5e-324, float("inf"), 0.0]), ValueType.DOUBLE),
        (pa.array([True, None, False]), ValueType.BOOL),
        (pa.array(["", "é" * 100, None]), ValueType.STRING),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), ValueType.STRING),
        (pa.array(["x", None], pa.large_string()), ValueType.STRING),
        (pa.array([b"", b"a\0" * 200, None]), ValueType.BYTES),
        *(
            (pa.array(TIMES).cast(pa.timestamp(unit), safe=False), ValueType.UNIX_TIMESTAMP)
            for unit in ("s", "ms", "ns")
        ),
        (pa.array(TIMES, pa.timestamp("us", "UTC")), ValueType.UNIX_TIMESTAMP),
        (pa.array([[1.5, 2.0], None, [3.0]]), ValueType.DOUBLE_LIST),
        (pa.array([["a"], [], None]), ValueType.STRING_LIST),
        # Of other types than the view declares: Feast's own converters.
        (pa.array([1, 2]), ValueType.STRING),
        (pa.array([1.0, 2.9]), ValueType.INT64),
        (pa.array([1, 0]), ValueType.BOOL),
    ],
    ids=lambda given: given.name if isinstance(given, ValueType) else str(given.type),
)
def test_a_column_has_the_bytes_of_feasts_values(column, kind):
    assert_feasts(column, kind)


@given(
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1), st.lists(st.floats(), min_size=1), st.lists(st.text())
)
@settings(max_examples=50, deadline=None)
def test_any_number_and_text_has_the_bytes_of_feasts(integers, floats, texts):
    assert_feasts(pa.array(integers, pa.int64()), ValueType.INT64)
    assert_feasts(pa.array(floats, pa.float64()), ValueType.DOUBLE)
    assert_feasts(pa.array(texts, pa.string()), ValueType.STRING)


def test_integers_keep_their_digits_where_some_are_missing():
    encoded = encode.values(pa.array([2**53 + 1, None]), ValueType.INT64)

    assert encoded.texts == ["9007199254740993", None]


def test_an_integer_beyond_32_bits_is_refused_as_by_feast():
    with pytest.raises(ValueError, match="out of range"):
        encode.values(pa.array([1 << 31]), ValueType.INT32)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({"zone": pa.array([0, -5, 1 << 60])}, {"zone": ValueType.INT64}),
        ({"zone": pa.array([1, -2], pa.int32())}, {"zone": ValueType.INT32}),
        ({"user": pa.array(["", "éé"])}, {"user": ValueType.STRING}),
        (
            {"zone": pa.array([1, 2]), "hour": pa.array(["x", "yy"]), "at": pa.array(TIMES[2:])},
            {"zone": ValueType.INT64, "hour": ValueType.STRING, "at": ValueType.UNIX_TIMESTAMP},
        ),
    ],
    ids=["int64", "int32", "string", "three"],
)
@pytest.mark.filterwarnings("ignore:Serialization of entity key")
def test_entity_keys_are_those_of_feasts_serializer(columns, kinds, version):
    messages = [
        python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kinds[name])
        for name, column in columns.items()
    ]
    keys = [EntityKey(join_keys=list(columns), entity_values=row) for row in zip(*messages, strict=True)]

    assert encode.entity_keys(columns, kinds, version) == [serialize_entity_key(key, version) for key in keys]
