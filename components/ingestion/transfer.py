"""Brings the rows of files into two datasets, and the bad ones into a third, as often over as it takes to read them.

It does not matter to a row which files are read with it: columns only become wider (see types.Column), and a row is bad
by its form, or by the type that its column had at first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.components._shared.arrow import nothing
from penstock.components._shared.dataset import DatasetWriter
from penstock.components._shared.engine import identifier, one_line
from penstock.components._shared.errors import UserError
from penstock.components.ingestion.csv_files import CsvFiles
from penstock.components.ingestion.jsonl_files import JsonlFiles
from penstock.components.ingestion.parquet_files import ParquetFiles
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.query import checked
from penstock.components.ingestion.rejects import Rejects
from penstock.components.ingestion.split import Split
from penstock.components.ingestion.types import Misfit, adjusted, fitted
from penstock.components.ingestion.write import divide

BATCH = 61_440  # rows handed over at once

Files = CsvFiles | JsonlFiles | ParquetFiles


@dataclass(frozen=True)
class Transferred:
    """Datasets that all rows are in, not finished yet.

    Attributes:
        files: As they could be read in the end.
        timeless: Rows without a time, where one is to split by.
    """

    files: Files
    train: DatasetWriter
    eval: DatasetWriter
    timeless: int


def transfer(
    connection: duckdb.DuckDBPyConnection,
    files: Files,
    query: str,
    split: Split,
    folders: Sequence[Path],
    bad: Rejects,
    scratch: Path,
) -> Transferred:
    """Write the rows of a query over files to two datasets, in order, and bad rows of the files to `bad`.

    Args:
        folders: Of the two datasets.

    Raises:
        UserError: The files or the query cannot be used, or there are too many bad rows.
    """
    opened, sieved = files, False
    if not isinstance(files, ParquetFiles) and files.is_sieved:
        files, sieved = _sieved(connection, files, range(len(files.files)), bad, scratch), True
    while True:
        try:
            return _transferred(connection, files, query, split, *folders)
        except _Unreadable as error:
            if wider := _widened(files, [error]):
                files = wider
                continue
            failures = _failures(connection, files)
            if wider := _widened(files, failures.values()):
                files = wider
                continue
            if sieved or not failures or isinstance(opened, ParquetFiles):
                raise _failing(files, failures, error, query) from None
            # What a bad row has makes no column wider.
            files, sieved = _sieved(connection, opened, failures, bad, scratch), True


class _Unreadable(Exception):
    """DuckDB met a value or a row that it cannot take, in the source or in the query over it."""


def _refusal(error: Exception) -> _Unreadable:
    """Return the error as one of the data, or raise it again: no disk, no memory, no permission is none of them."""
    text = str(error)
    is_of_the_data = re.match(
        "(Invalid Input|Conversion|Out of Range|Binder|Catalog|Parser|Invalid|Not implemented) ", text
    )
    if is_of_the_data and " Error: " in text:
        return _Unreadable(text)
    raise error


def _transferred(
    connection: duckdb.DuckDBPyConnection, files: Files, query: str, split: Split, train_set: Path, eval_set: Path
) -> Transferred:
    columns = () if query.strip() or isinstance(files, ParquetFiles) else files.columns
    try:
        connection.execute(f"CREATE OR REPLACE VIEW source AS {files.relation(bare=bool(columns))}")
        select = checked(connection, query)
        reader = connection.execute(select).to_arrow_reader(BATCH)
    except duckdb.Error as error:
        raise _refusal(error) from error

    def fit(batch: pa.RecordBatch) -> pa.RecordBatch:
        return fitted(batch, columns) if columns else batch

    schema = fit(nothing(reader.schema)).schema
    split.check(schema, "the query's result" if query.strip() else "source")
    train, eval_ = DatasetWriter(train_set, schema), DatasetWriter(eval_set, schema)
    try:
        timeless = divide(_batches(reader), fit, split, train, eval_)
    except Misfit as error:
        raise _Unreadable(str(error)) from error
    return Transferred(files, train, eval_, timeless)


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            raise _refusal(error) from error
        yield batch


def _widened(files: Files, errors: Iterable[Exception]) -> Files | None:
    """Return the files with one column of a wider type, if an error asks for it."""
    if not isinstance(files, ParquetFiles):
        for error in errors:
            if columns := adjusted(files.columns, error):
                return replace(files, columns=columns)
    return None


def _failures(connection: duckdb.DuckDBPyConnection, files: Files) -> dict[int, Exception]:
    """Return what is wrong with each file that cannot be read from end to end by itself, without the query."""
    failures: dict[int, Exception] = {}
    for number in range(len(files.files)):
        try:
            connection.execute(f"CREATE OR REPLACE VIEW alone AS {files.only(number).relation()}")
            names = ", ".join(identifier(row[0]) for row in connection.execute("DESCRIBE alone").fetchall())
            connection.execute(f"SELECT bit_xor(hash({names})) FROM alone").fetchall()
        except duckdb.Error as error:
            failures[number] = _refusal(error)
    return failures


def _sieved(
    connection: duckdb.DuckDBPyConnection,
    files: CsvFiles | JsonlFiles,
    failures: Iterable[int],
    bad: Rejects,
    scratch: Path,
) -> Files:
    """Return the files with clean copies in the place of those that fail, their bad rows added to `bad`.

    Raises:
        UserError: There are too many bad rows.
    """
    cleaned = {number: scratch / f"clean-{number:06d}" for number in failures}
    for number, path in cleaned.items():
        for rejects in files.clean(connection, number, path):
            bad.add(rejects)
    bad.check()
    return files.replaced(cleaned)


def _failing(files: Files, failures: Mapping[int, Exception], error: Exception, query: str) -> UserError:
    for number, failure in failures.items():
        what = f"{files.files[number].name} cannot be read: {one_line(failure)}"
        return problem("source", what, "Write or fetch it again")
    if query.strip():
        return problem("query", one_line(error), "Guard against such values, with TRY_CAST for example")
    return problem("source", one_line(error), "Give files whose columns go together")
