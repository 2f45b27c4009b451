"""Work that Beam would spread, done here one item after the other, in the worst order."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared import beam
from penstock.components._shared.dataset import Dataset, open_dataset
from penstock.components._shared.rowhash import row_hashes


def plain(engine: beam.Engine, items: Sequence[Any], work: Callable[[Any], Any], folder: Any) -> list[Any]:
    """Do what beam.spread does without Beam: the last item first, and each twice, as after a retry."""
    lines = []
    for item in reversed(list(enumerate(items))):
        sent = pickle.loads(pickle.dumps((item, work)))
        first, again = (beam.tell(*sent) for _ in range(2))
        assert first == again
        lines.append(again)
    return beam.made(lines)


@contextmanager
def without_beam() -> Iterator[None]:
    """As if Beam were here."""
    with patch.object(beam, "find_spec", lambda name: object()), patch.object(beam, "spread", plain):
        yield


def content(folder: Path) -> tuple[dict[str, str], int, str, list[dict[str, Any]]]:
    """Return schema, number, fingerprint and rows, in order, of a dataset that is whole."""
    data, rows = _read(folder)
    # Python has no infinite times, and NaN is not equal to itself.
    times = {"date32[day]": pa.int32()} | {kind: pa.int64() for kind in ("timestamp[us]", "timestamp[us, tz=UTC]")}
    table = pa.table({name: rows[name].cast(times.get(str(rows[name].type), rows[name].type)) for name in data.schema})
    shown = [{name: repr(value) for name, value in row.items()} for row in table.to_pylist()]
    return data.schema, data.rows, data.fingerprint, shown


def hashed(folder: Path) -> tuple[dict[str, str], int, str, bytes]:
    """Return the same with the hash of every row in its place, where there are many."""
    data, rows = _read(folder)
    hashes = b"".join(row_hashes(batch).tobytes() for batch in rows.to_batches())
    return data.schema, data.rows, data.fingerprint, hashes


def _read(folder: Path) -> tuple[Dataset, pa.Table]:
    data = open_dataset(folder, "test", "dataset")
    tables = [pq.read_table(file) for file in data.files]
    assert {str(table.schema) for table in tables} == {str(tables[0].schema)}
    assert all(table.num_rows for table in tables) or len(tables) == 1
    return data, pa.concat_tables(tables)
