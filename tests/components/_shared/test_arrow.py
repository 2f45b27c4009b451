"""Arrays of Arrow and NumPy, one made of the other without pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from penstock.components._shared.arrow import nothing, numbers, truths, values_of


@pytest.mark.parametrize(
    "values",
    [np.arange(5), np.arange(10)[::-2], np.array([], np.int64), np.array([1.5, np.nan]), np.arange(3, dtype=np.uint8)],
)
def test_numbers_are_what_arrow_makes_of_them(values):
    assert numbers(values).equals(pa.array(values)) or np.array_equal(numbers(values), values, equal_nan=True)
    assert numbers(values).type == pa.array(values).type


def test_values_are_those_of_the_array_but_for_nulls():
    values = pa.array([1.5, None, -2.0, 4.0])
    assert values_of(values[2:], np.float64).tolist() == [-2.0, 4.0]
    assert values_of(values, np.float64)[truths(values.is_valid())].tolist() == [1.5, -2.0, 4.0]
    assert values_of(values[4:], np.float64).tolist() == values_of(pa.nulls(0, pa.int64()), np.int64).tolist() == []


@pytest.mark.parametrize("values", [pa.array([True, False, True])[start:] for start in range(4)])
def test_truths_are_what_arrow_makes_of_them(values):
    assert truths(values).tolist() == values.to_pylist()


def test_no_rows_have_any_schema():
    schema = pa.schema(
        {"a": pa.dictionary(pa.int32(), pa.string()), "b": pa.list_(pa.int8()), "c": pa.decimal128(5, 2)}
    )
    assert nothing(schema).schema == schema
    assert nothing(schema).num_rows == 0


@pytest.mark.parametrize("split", ["{}", '{"split_keys": ["id"]}', '{"time_column": "at", "eval_from": "2026-01-02"}'])
def test_ingest_waits_neither_for_pandas_nor_for_a_client_of_the_web(split, tmp_path):
    lines = [f"{n},{n / 2},2026-01-0{1 + n % 3} 00:00:00,{'' if n % 2 else n}" for n in range(30)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,half,at,gap", *lines]))
    program = f"""
import sys
from penstock.components.ingestion.ingest import ingest
ingest("{tmp_path}/rows.csv", *[f"{tmp_path}/{{name}}" for name in "abc"], **{split})
print(sorted({{"pandas", "aiohttp"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
