"""Datasets: what is written is read back whole, or not at all; fingerprints of content."""

import datetime
import random

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components._shared.dataset import (
    ROW_GROUP,
    batches_of,
    fingerprint,
    open_dataset,
    require_columns,
    write_dataset,
)
from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import RowDigest, row_hashes

TABLE = pa.table({"a": [1, 2, None], "b": ["x", None, ""], "t": pa.array([1, 2, 3], pa.timestamp("us"))})


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "d", TABLE.schema, TABLE.to_batches())
    return tmp_path / "d"


def test_a_dataset_is_read_back_with_its_facts(dataset):
    found = open_dataset(dataset, "train", "train_set")
    assert [pq.read_table(file) for file in found.files] == [TABLE]
    assert (found.rows, found.schema) == (3, {"a": "int64", "b": "string", "t": "timestamp[us]"})
    assert found.fingerprint == fingerprint(found.files)


def test_an_unknown_column_lists_the_known_ones(dataset):
    with pytest.raises(UserError, match=r"train: target: there is no column 'c'\. The columns are a, b, t\."):
        require_columns(open_dataset(dataset, "train", "train_set"), ["a", "c"], "train", "target")


def test_rows_are_grouped_alike_whatever_batches_they_come_in(tmp_path):
    table = pa.table({"n": range(2 * ROW_GROUP + 5), "s": [str(n % 9) for n in range(2 * ROW_GROUP + 5)]})
    for name, size in (("one", len(table)), ("many", 10_007)):
        write_dataset(tmp_path / name, table.schema, table.to_batches(size))
    one, many = (open_dataset(tmp_path / name, "test", "dataset") for name in ("one", "many"))
    groups = [pq.read_metadata(file).row_group(n).num_rows for file in many.files for n in range(3)]
    assert groups == [ROW_GROUP, ROW_GROUP, 5]
    assert one.fingerprint == many.fingerprint
    assert pq.read_table(one.files[0]) == pq.read_table(many.files[0]) == table


def test_an_empty_dataset_keeps_its_columns(tmp_path):
    write_dataset(tmp_path / "d", TABLE.schema, [])
    found = open_dataset(tmp_path / "d", "test", "dataset")
    assert found.rows == 0
    assert pq.read_table(found.files[0]).schema == TABLE.schema


def test_nothing_is_left_when_writing_fails(tmp_path):
    def batches():
        yield from TABLE.to_batches()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_dataset(tmp_path / "d", TABLE.schema, batches())
    assert not (tmp_path / "d").exists()


def write(path, table, **options):
    pq.write_table(table, path, **options)
    return path


def test_a_fingerprint_ignores_order_files_and_writer(tmp_path):
    rows = [{"n": n, "x": n / 3 or None, "s": f"text {n % 11}"} for n in range(1000)]
    schema = pa.schema({"n": pa.int64(), "x": pa.float64(), "s": pa.string()})
    whole = write(tmp_path / "whole.parquet", pa.Table.from_pylist(rows, schema))
    expected = fingerprint([whole])
    random.Random(0).shuffle(rows)
    halves = [
        write(
            tmp_path / f"{n}.parquet", pa.Table.from_pylist(rows[n::2], schema), compression="zstd", row_group_size=77
        )
        for n in range(2)
    ]
    assert fingerprint(halves) == expected
    duckdb.execute(f"COPY (FROM '{whole}' ORDER BY hash(n)) TO '{tmp_path}/duck.parquet'")
    assert fingerprint([tmp_path / "duck.parquet"]) == expected


def test_a_fingerprint_tells_apart_what_differs(tmp_path):
    variants = [
        {"a": [1, 2], "b": ["x", "y"]},
        {"a": [1, 2], "b": ["y", "x"]},
        {"a": [1, 2, 2], "b": ["x", "y", "y"]},
        {"a": [1, 2], "b": ["x", None]},
        {"a": [1, 2], "b": ["x", ""]},
        {"a": [1.0, 2.0], "b": ["x", "y"]},
        {"b": ["x", "y"], "a": [1, 2]},
        {"a": [1, 2], "c": ["x", "y"]},
        {"a": [1, 2], "b": ["x", "y\0"]},
    ]
    found = {fingerprint([write(tmp_path / f"{n}.parquet", pa.table(v))]) for n, v in enumerate(variants)}
    assert len(found) == len(variants)


def test_fingerprints_and_hashes_stay_what_they_are(tmp_path):
    """Known answers: if one of these changes, rows change their split and datasets their identity."""
    assert row_hashes(TABLE.to_batches()[0]).tolist() == HASHES
    assert fingerprint([write(tmp_path / "t.parquet", TABLE)]) == FINGERPRINT


HASHES = [15611246803394786321, 4307033705057484210, 16118941856001837728]
FINGERPRINT = "e954a5d06ff855016c1fa29fb3f3043e69e1ac4c9e33d2f13f2b8aa226f93df1"


def test_digests_add_up():
    hashes = row_hashes(TABLE.to_batches()[0])
    assert RowDigest.of(hashes[:1]) + RowDigest.of(hashes[1:]) == RowDigest.of(hashes)


EPOCH = datetime.datetime(1970, 1, 1)


@pytest.mark.parametrize(
    ("value", "type", "same", "other"),
    [
        (3, pa.int8(), 3.0, pa.float64()),
        (3, pa.uint64(), 3.0, pa.float32()),
        (0.5, pa.float32(), 0.5, pa.float64()),
        (-0.0, pa.float64(), 0, pa.int64()),
        (True, pa.bool_(), 1, pa.int64()),
        ("é", pa.string(), "é".encode(), pa.binary()),
        ("é", pa.large_string(), "é", pa.dictionary(pa.int32(), pa.string())),
        (datetime.date(1970, 1, 2), pa.date32(), datetime.datetime(1970, 1, 2), pa.timestamp("us")),
        (EPOCH, pa.timestamp("ns"), EPOCH, pa.timestamp("ms")),
        (2**64 - 1, pa.uint64(), -1, pa.int64()),
    ],
)
def test_a_value_has_one_hash_whatever_its_type(value, type, same, other):
    def one(value, type):
        return row_hashes(pa.record_batch([pa.array([value, None], type)], ["x"])).tolist()

    assert one(value, type) == one(same, other)


@pytest.mark.parametrize("values", [[float("nan")], [float("inf")], [1e300], [2.0**63], [-(2.0**63)], [9.3e18, 0.1]])
def test_odd_floats_have_a_hash_of_their_own(values):
    hashes = row_hashes(pa.record_batch({"x": [*values, 1.0, 0.5]})).tolist()
    assert len(set(hashes)) == len(hashes)


def test_long_texts_hash_like_short_ones():
    """By the definition, with Python's own integers, around the length at which texts are hashed in pieces."""
    from penstock.components._shared import rowhash

    texts = ["a" * length + "é" for length in (0, 65_533, 65_534, 65_535, 65_536, 200_000)]
    words = rowhash._texts(pa.array(texts, pa.large_string())).tolist()
    for text, word in zip(texts, words, strict=True):
        expected, power = 0, 1
        for byte in text.encode():
            expected = (expected + (byte + 1) * power) % 2**64
            power = power * rowhash.BASE % 2**64
        assert word == expected


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "f": st.none() | st.floats(),
                "s": st.none() | st.text(max_size=5),
            }
        ),
        max_size=40,
    ),
    st.integers(0, 40),
)
@settings(max_examples=100, deadline=None)
def test_a_hash_depends_on_the_row_alone(rows, cut):
    schema = pa.schema({"i": pa.int64(), "f": pa.float64(), "s": pa.string()})
    whole = row_hashes(pa.RecordBatch.from_pylist(rows, schema)).tolist()
    assert [row_hashes(pa.RecordBatch.from_pylist([row], schema)).tolist()[0] for row in rows] == whole
    sliced = pa.RecordBatch.from_pylist(rows, schema).slice(cut)
    assert row_hashes(sliced).tolist() == whole[cut:]


def test_polars_and_duckdb_read_what_is_written(tmp_path):
    times = [EPOCH + datetime.timedelta(seconds=7 * n) for n in range(5000)]
    table = pa.table({"t": pa.array(times, pa.timestamp("us")), "n": range(5000), "s": ["x"] * 5000})
    write_dataset(tmp_path / "d", table.schema, table.to_batches())
    [file] = open_dataset(tmp_path / "d", "test", "dataset").files
    assert polars.read_parquet(file)["t"].to_list() == times
    assert duckdb.execute(f"SELECT max(t), sum(n) FROM '{file}'").fetchall() == [(times[-1], 12497500)]


def test_of_a_file_that_is_read_in_batches_no_more_than_a_row_group_is_held(tmp_path):
    path, some = tmp_path / "rows.parquet", np.random.default_rng(0)
    table = pa.table({"x": some.random(400_000), "y": some.random(400_000)})
    pq.write_table(table, path, row_group_size=20_000, use_dictionary=False)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in batches_of([path, path], 10_000, ["y", "x"]):
        most = max(most, pa.total_allocated_bytes() - before)
        rows += batch.num_rows
    assert rows == 800_000
    assert most < path.stat().st_size / 3
