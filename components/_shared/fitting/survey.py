"""What one pass over rows tells of their columns: enough to choose features, target and weights by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.components._shared.dataset import Dataset

MOST = 100_000  # distinct values that are counted; of a column with more, these were the first


@dataclass
class Column:
    """What is known of a column.

    Attributes:
        missing: Rows that are null or NaN.
        infinite: Whether a value is infinite.
        counts: Rows by value; only of columns that were to be counted.
    """

    type: pa.DataType
    rows: int = 0
    missing: int = 0
    infinite: bool = False
    counts: Counter = field(default_factory=Counter)

    def add(self, values: pa.ChunkedArray, counted: bool) -> None:
        self.rows += len(values)
        self.missing += values.null_count
        if pa.types.is_floating(values.type):
            self.missing += pc.sum(pc.is_nan(values)).as_py() or 0
            self.infinite = self.infinite or bool(pc.any(pc.is_inf(values)).as_py())
        if counted and len(self.counts) <= MOST:
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            for entry in pc.value_counts(values.combine_chunks()).to_pylist():
                if entry["values"] is not None:
                    self.counts[entry["values"]] += entry["counts"]


def survey(parts: Iterable[pa.Table], schema: pa.Schema, counted: Collection[str]) -> dict[str, Column]:
    """Return what is known of each column of a schema, after one pass over parts of the rows.

    Args:
        counted: Columns whose values are counted.
    """
    columns = {field.name: Column(field.type) for field in schema}
    for part in parts:
        for name, column in columns.items():
            column.add(part[name], name in counted)
    return columns


class Tables(Sequence[pa.Table]):
    """Columns of a dataset as tables: one that holds all rows, or one a row group, read each time it is asked for.

    Attributes:
        sizes: Number of rows by table.
    """

    def __init__(self, dataset: Dataset, columns: Sequence[str], streamed: bool) -> None:
        self.streamed = streamed
        self._columns, self._whole = list(columns), None
        files = [pq.ParquetFile(file) for file in dataset.files]
        self.schema = pa.schema([files[0].schema_arrow.field(name) for name in columns]) if files else pa.schema([])
        groups = [(file, group, size) for file in dataset.files for group, size in enumerate(_row_groups(file)) if size]
        self._places = [(file, group) for file, group, _ in groups]
        self.sizes = tuple(size for _, _, size in groups) if streamed else (dataset.rows,) * bool(files)
        if not streamed and files:
            self._whole = pa.concat_tables([file.read(columns=self._columns) for file in files]).select(self._columns)

    def __len__(self) -> int:
        return len(self._places) if self._whole is None else 1

    def __getitem__(self, place: Any) -> Any:
        return self.raw(place)

    def raw(self, place: int) -> pa.Table:
        """Return a table as it lies in the dataset."""
        if self._whole is not None:
            return [self._whole][place]
        file, group = self._places[place]
        return pq.ParquetFile(file).read_row_group(group, columns=self._columns).select(self._columns)


def _row_groups(file: Path) -> list[int]:
    """Return the number of rows by row group."""
    metadata = pq.ParquetFile(file).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
