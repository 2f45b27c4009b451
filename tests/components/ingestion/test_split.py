"""The split: by a stable hash, or by time."""

import hashlib
import os
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components._shared.rowhash import row_hashes
from penstock.components.ingestion import split as splits

MASK = 2**64 - 1


def table(rows: range) -> str:
    return "id,value\n" + "".join(f"{row},{row % 7}.25\n" for row in rows)


def ids(rows: list[dict]) -> set[int]:
    return {row["id"] for row in rows}


def test_the_share_is_near_the_fraction_and_no_row_is_lost(file, ingested):
    outcome = ingested(file("t.csv", table(range(20_000))), eval_fraction=0.2)
    assert abs(outcome.result.eval_rows - 4000) < 250  # more than four standard deviations
    assert ids(outcome.train) | ids(outcome.eval) == set(range(20_000))
    assert not ids(outcome.train) & ids(outcome.eval)


def test_a_row_stays_in_its_split_when_data_grows(file, ingested):
    small = ingested(file("t.csv", table(range(1000))), eval_fraction=0.3)
    large = ingested(file("u.csv", table(range(3000))), eval_fraction=0.3)
    assert ids(small.eval) == {number for number in ids(large.eval) if number < 1000}


def test_a_row_stays_in_its_split_when_its_column_turns_real_and_a_new_one_comes(file, ingested):
    before = ingested(file("t.csv", "id,n\n" + "".join(f"{row},{row}\n" for row in range(1000))), eval_fraction=0.3)
    rows = "".join(f"{row},,{row}\n" for row in range(1000)) + "1000,0.5,0.5\n"
    after = ingested(file("u.csv", "id,new,n\n" + rows), eval_fraction=0.3)
    assert after.types["n"] == "double"
    assert ids(before.eval) == ids(after.eval) - {1000}


def test_rows_of_one_key_stay_together(file, ingested):
    text = "user,value\n" + "".join(f"u{row % 50},{row}\n" for row in range(1000))
    outcome = ingested(file("t.csv", text), split_keys=["user"], eval_fraction=0.4)
    users = {row["user"] for row in outcome.eval}
    assert 0 < len(users) < 50
    assert not users & {row["user"] for row in outcome.train}


def test_the_hash_is_the_one_that_is_documented():
    """By hand, from the definition: 3 and 'é' in the columns a and b."""

    def mix(word: int) -> int:
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
        return word ^ (word >> 31)

    def part(word: int, name: str) -> int:
        return mix(word ^ int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))

    text = (0xC3 + 1) + (0xA9 + 1) * 0x9E3779B97F4A7C15 & MASK
    expected = mix(part(3, "a") + part(text, "b") & MASK)
    assert row_hashes(pa.record_batch({"a": [3], "b": ["é"]})).tolist() == [expected]
    split = splits.plan(["a", "b"], (expected + 1e6) / 2**64, "", "")
    batch = pa.record_batch({"a": [3], "b": ["é"]})
    assert split.is_eval(batch, row_hashes(batch)).tolist() == [True]


def test_it_depends_on_neither_time_zone_hash_seed_nor_number_of_threads(file, ingested, tmp_path):
    source = file(
        "t.csv", "day,instant\n" + "".join(f"2019-01-{d:02d},2019-01-{d:02d}T10:00:00Z\n" for d in range(1, 29))
    )
    here = ingested(source, eval_fraction=0.5)
    script = (
        "import sys; from penstock.components._shared import engine; engine.THREADS = 1; "
        "from penstock.components.ingestion.ingest import ingest; "
        "print(ingest(sys.argv[1], *sys.argv[2:5], eval_fraction=0.5).fingerprint)"
    )
    ports = [tmp_path / "there" / port for port in ("train_set", "eval_set", "rejects")]
    there = subprocess.run(
        [sys.executable, "-c", script, source, *ports],
        env={**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "5", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here.result.fingerprint
    for port in ("train_set", "eval_set"):
        part = here.folder / port / "part-00000.parquet"
        assert (tmp_path / "there" / port / "part-00000.parquet").read_bytes() == part.read_bytes()


def test_by_time_rows_at_or_after_the_cut_are_for_evaluation(file, ingested):
    source = file("t.csv", "id,t\n1,2019-01-01 09:59:59\n2,2019-01-01 10:00:00\n3,2019-01-02\n4,2018-12-31\n")
    outcome = ingested(source, time_column="t", eval_from="2019-01-01T10:00:00")
    assert (ids(outcome.train), ids(outcome.eval)) == ({1, 4}, {2, 3})


def test_by_time_a_column_of_days_and_one_with_a_zone_work(file, ingested):
    rows = [
        "1,2019-01-01,2019-01-01T22:00:00Z",
        "2,2019-01-02,2019-01-02T01:00:00+02:00",
        "3,2019-01-03,2019-01-02T00:00:00Z",
    ]
    source = file("t.csv", "id,day,instant\n" + "\n".join(rows))
    assert ids(ingested(source, time_column="day", eval_from="2019-01-02").eval) == {2, 3}
    assert ids(ingested(source, time_column="instant", eval_from="2019-01-02").eval) == {3}
    assert ids(ingested(source, time_column="instant", eval_from="2019-01-02T01:00:00+02:00").eval) == {2, 3}


def test_no_eval_set_is_asked_for_by_a_fraction_of_0(file, ingested):
    outcome = ingested(file("t.csv", table(range(10))), eval_fraction=0)
    assert (outcome.result.train_rows, outcome.result.eval_rows, outcome.eval) == (10, 0, [])


TIMES = "id,t\n1,2019-01-01\n2,2019-01-02\n3,2019-01-03\n"


@pytest.mark.parametrize(
    ("arguments", "argument", "words"),
    [
        ({"eval_fraction": float("nan")}, "eval_fraction", "NaN is no share"),
        ({"eval_fraction": float("inf")}, "eval_fraction", "inf is no share"),
        ({"eval_fraction": 1.0}, "eval_fraction", "1.0 is no share"),
        ({"eval_fraction": -0.1}, "eval_fraction", "-0.1 is no share"),
        ({"eval_fraction": True}, "eval_fraction", "True is no share"),
        ({"eval_fraction": 1e-12}, "eval_fraction", "of 3 rows none falls to eval_set"),
        ({"eval_fraction": 0.999999999999}, "eval_fraction", "of 3 rows none falls to train_set"),
        ({"max_bad_rows": -1}, "max_bad_rows", "-1 is no number of rows"),
        ({"max_bad_rows": float("nan")}, "max_bad_rows", "nan is no number of rows"),
        ({"split_keys": ["x"]}, "split_keys", "there is no column 'x'"),
        ({"time_column": "t"}, "eval_from", "is missing"),
        ({"eval_from": "2019-01-02"}, "time_column", "is missing"),
        ({"time_column": "x", "eval_from": "2019-01-02"}, "time_column", "there is no column 'x'"),
        ({"time_column": "id", "eval_from": "2019-01-02"}, "time_column", "id is int64, not a time"),
        ({"time_column": "t", "eval_from": "soon"}, "eval_from", "'soon' is no ISO 8601 time"),
        ({"time_column": "t", "eval_from": "2019-01-02Z"}, "eval_from", "is no ISO 8601 time"),
        ({"time_column": "t", "eval_from": "2019-01-02T00:00:00Z"}, "eval_from", "has a time zone"),
        ({"time_column": "t", "eval_from": "2030-01-01"}, "eval_from", "no row is at or after 2030"),
        ({"time_column": "t", "eval_from": "2000-01-01"}, "eval_from", "no row is before 2000"),
        ({"time_column": "t", "eval_from": "2019-01-02", "split_keys": ["id"]}, "split_keys", "beside time_column"),
    ],
)
def test_arguments_that_make_no_split_are_refused(file, refused, arguments, argument, words):
    error = refused(file("t.csv", TIMES), **arguments)
    assert error.argument == argument
    assert words in str(error)


def test_rows_without_a_time_are_refused_with_their_number(file, refused):
    error = refused(file("t.csv", TIMES + "4,\n5,\n"), time_column="t", eval_from="2019-01-02")
    assert "t is null in 2 rows" in error.problem
    assert "WHERE t IS NOT NULL" in error.remedy


@given(st.lists(st.tuples(st.none() | st.integers(-5, 5), st.none() | st.text(max_size=3)), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equal_keys_fall_together_and_null_differs_from_empty(rows):
    batch = pa.RecordBatch.from_pylist(
        [{"a": a, "b": b} for a, b in rows], pa.schema({"a": pa.int64(), "b": pa.string()})
    )
    by_key: dict[tuple, set[int]] = {}
    for row, value in zip(rows, row_hashes(batch).tolist(), strict=True):
        by_key.setdefault(row, set()).add(value)
    assert all(len(values) == 1 for values in by_key.values())
    assert len({value for values in by_key.values() for value in values}) == len(by_key)
