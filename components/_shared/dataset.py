"""Dataset: a sealed folder of Parquet part files.

The manifest's facts beside the files:

    rows         number of rows
    schema       [{"name": …, "type": …}], Arrow type names; timestamps are in microseconds
    fingerprint  of the rows, whatever their order or the part file they lie in; see fingerprint()
    transformed  digest of the graph that `transform` made the rows by; only there where it did
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import RowDigest, row_hashes
from penstock.components._shared.sealed import new_folder, seal, unseal

KIND = "penstock.dataset/1"
ROW_GROUP = 122_880
PART = "part-00000.parquet"


@dataclass(frozen=True)
class Dataset:
    """A verified dataset.

    Attributes:
        files: Part files in order; together they hold the rows.
        schema: Arrow type name by column name, in column order.
        fingerprint: Of the content, independent of the order of rows.
        transformed: Digest of the graph that `transform` made the rows by; empty: they are not of it.
    """

    folder: Path
    files: tuple[Path, ...]
    rows: int
    schema: dict[str, str]
    fingerprint: str
    transformed: str = ""


def open_dataset(path: str | os.PathLike[str], component: str, argument: str) -> Dataset:
    """Verify a dataset's files against its manifest and return it.

    Raises:
        UserError: It is missing, unfinished, truncated or altered.
    """
    manifest = unseal(path, KIND, component, argument)
    folder = Path(path)
    return Dataset(
        folder=folder,
        files=tuple(folder / entry["path"] for entry in manifest["files"]),
        rows=manifest["rows"],
        schema={column["name"]: column["type"] for column in manifest["schema"]},
        fingerprint=manifest["fingerprint"],
        transformed=manifest.get("transformed", ""),
    )


def require_columns(dataset: Dataset, names: list[str], component: str, argument: str) -> None:
    """Refuse names that are no columns of the dataset, listing the columns that are."""
    for name in names:
        if name not in dataset.schema:
            raise UserError(
                component, argument, f"there is no column {name!r}", f"The columns are {', '.join(dataset.schema)}"
            )


def column_of(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """Return a column of all rows."""
    tables = [pq.read_table(file, columns=[name]) for file in dataset.files]
    return pa.concat_tables(tables, promote_options="permissive")[name]


def batches_of(
    files: Iterable[str | os.PathLike[str]], most: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of Parquet files, in order, some at a time; no more than a row group is read ahead.

    Args:
        most: Rows of a batch.
        columns: Their names. None: all.
    """
    for path in files:
        # By itself Arrow keeps all that it has read of a file until its end.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield from file.iter_batches(most, columns=columns)


def frame_of(batch: pa.RecordBatch) -> Any:
    """Return rows as a DataFrame, as train reads its own: decimals are numbers, not Python objects."""
    columns = {
        name: column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return pa.table(columns).to_pandas()


class DatasetWriter:
    """Writes batches of rows, in order, as the one part file of a dataset; the same rows give the same bytes.

    Made in a folder of new_folder(); nothing is readable before finish().
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.digest = RowDigest()
        self.schema = schema
        self._folder = folder
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch, hashes: np.ndarray | None = None) -> None:
        """Append rows.

        Args:
            hashes: What row_hashes(batch) returns, where the caller has it already.
        """
        self.digest += RowDigest.of(row_hashes(batch) if hashes is None else hashes)
        self._waiting.append(batch)
        if sum(waiting.num_rows for waiting in self._waiting) >= ROW_GROUP:
            self._write_row_groups(ROW_GROUP)

    def close(self) -> Path:
        """Write what is left, but no manifest, and return the part file."""
        self._write_row_groups(1)
        self._parquet(pa.Table.from_batches([], self.schema)).close()
        return self._folder / PART

    def finish(self) -> None:
        """Write what is left, and the manifest."""
        self.close()
        seal(self._folder, KIND, facts(self.digest, self.schema))

    def _write_row_groups(self, least: int) -> None:
        rows = pa.Table.from_batches(self._waiting, self.schema)
        while rows.num_rows >= least:
            group = rows.slice(0, ROW_GROUP)
            self._parquet(group).write_table(group, row_group_size=ROW_GROUP)
            rows = rows.slice(ROW_GROUP)
        self._waiting = rows.to_batches()

    def _parquet(self, first: pa.Table) -> pq.ParquetWriter:
        if self._file is None:
            self._file = pq.ParquetWriter(self._folder / PART, self.schema, **_encodings(first))
        return self._file


def facts(digest: RowDigest, schema: pa.Schema) -> dict[str, Any]:
    """Return what the manifest of a dataset says beside its files."""
    return {
        "rows": digest.rows,
        "schema": [{"name": field.name, "type": str(field.type)} for field in schema],
        "fingerprint": digest.fingerprint(schema),
    }


def _encodings(rows: pa.Table) -> dict[str, Any]:
    """Return how to encode the columns: a dictionary of values costs time and space where they hardly repeat."""
    head = rows.slice(0, 1 << 14)
    distinct = [
        field.name
        for field, column in zip(rows.schema, head.columns, strict=True)
        if not (pa.types.is_nested(field.type) or pa.types.is_null(field.type))
        and pc.count_distinct(column).as_py() > (len(column) - column.null_count) / 2
    ]
    packed = {
        name: "DELTA_BINARY_PACKED"
        for name in distinct
        if pa.types.is_integer(kind := rows.schema.field(name).type) or pa.types.is_timestamp(kind)
    }
    repeated = [name for name in rows.schema.names if name not in distinct]
    return {"use_dictionary": repeated or False, "column_encoding": packed or None}


def write_dataset(path: str | os.PathLike[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches of rows as a dataset; if anything fails, nothing is left at `path`."""
    with new_folder(path) as folder:
        writer = DatasetWriter(folder, schema)
        for batch in batches:
            writer.write(batch)
        writer.finish()


def fingerprint(files: Iterable[Path]) -> str:
    """Return the fingerprint of the rows of Parquet files with the same columns.

    It depends on the multiset of the rows and on names and types of the columns: not on the order of the rows, on how
    they are spread over files, nor on the program that wrote them. See rowhash for what it rests on.
    """
    digest, schema = RowDigest(), pa.schema([])
    for path in files:
        schema = pq.read_schema(path)
        for batch in batches_of([path], ROW_GROUP):
            digest += RowDigest.of(row_hashes(batch))
    return digest.fingerprint(schema)
