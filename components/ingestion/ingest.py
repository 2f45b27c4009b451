"""Files to a training and an evaluation dataset, in one pass and in memory that does not grow with them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.components._shared.dataset import DatasetWriter
from penstock.components._shared.engine import connect, identifier, one_line
from penstock.components._shared.errors import UserError
from penstock.components._shared.sealed import new_folder
from penstock.components.ingestion import split as splits
from penstock.components.ingestion.csv_files import CsvFiles, open_csv
from penstock.components.ingestion.jsonl_files import JsonlFiles, open_jsonl
from penstock.components.ingestion.parquet_files import ParquetFiles, open_parquet
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.query import checked
from penstock.components.ingestion.rejects import Rejects
from penstock.components.ingestion.sources import File, fetch
from penstock.components.ingestion.split import Split
from penstock.components.ingestion.types import Misfit, adjusted, fitted, given_types
from penstock.components.ingestion.write import divide

BATCH = 61_440  # rows handed over at once

Files = CsvFiles | JsonlFiles | ParquetFiles


@dataclass(frozen=True)
class Ingested:
    """What came out.

    Attributes:
        fingerprint: Of the rows of both sets together, whatever their order.
    """

    fingerprint: str
    train_rows: int
    eval_rows: int
    bad_rows: int


def ingest(
    source: str,
    train_set: str | os.PathLike[str],
    eval_set: str | os.PathLike[str],
    rejects: str | os.PathLike[str],
    *,
    query: str = "",
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    split_keys: Sequence[str] = (),
    eval_fraction: float = 0.2,
    time_column: str = "",
    eval_from: str = "",
    max_bad_rows: int = 0,
) -> Ingested:
    """Write the rows of files to two datasets, and the bad ones to a third; all three whole, or none.

    Rows keep the order of the files, which are taken in the order of their names. The same files and arguments give
    the same bytes, whatever the number of processors.

    Args:
        source: Path, folder, glob or URI; see sources.
        train_set: Folder to write the training rows to.
        eval_set: Folder to write the evaluation rows to.
        rejects: Folder to write the bad rows to: file, line, column, reason, text.
        query: One SELECT in DuckDB's SQL over the table `source`. Empty: all columns of all rows.
        format: "csv", "tsv", "parquet", "jsonl", or "auto" to go by the names.
        columns: SQL type by column name.
        encoding: Of CSV and TSV files; see unpack.ENCODINGS.
        split_keys: Columns of the result whose values decide the split. Empty: all.
        eval_fraction: Share of the rows for eval_set, from 0 (none) to below 1.
        time_column: Column of the result to split by time instead.
        eval_from: First time of eval_set, ISO 8601; UTC where the column has a time zone and it has none.
        max_bad_rows: The most bad rows that are put up with.

    Raises:
        UserError: An argument, a file or a row cannot be used.
    """
    if isinstance(max_bad_rows, bool) or not isinstance(max_bad_rows, int) or max_bad_rows < 0:
        raise problem("max_bad_rows", f"{max_bad_rows!r} is no number of rows", "Give 0 or more")
    split = splits.plan(split_keys, eval_fraction, time_column, eval_from)
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-ingest-"))
        scratch = Path(temporary).resolve()
        folders = [stack.enter_context(new_folder(path)) for path in (train_set, eval_set, rejects)]
        found = fetch(source, format, encoding, scratch)
        connection = stack.enter_context(connect(scratch, (file.path.resolve() for file in found)))
        files = _open(connection, found, given_types(columns or {}), scratch)
        bad = Rejects(folders[2], max_bad_rows)
        sieved = False
        while True:
            try:
                train, eval_ = _write(connection, files, query, split, *folders[:2])
                break
            except _Unreadable as error:
                if wider := _widened(files, [error]):
                    files = wider
                    continue
                failures = _failures(connection, files)
                if wider := _widened(files, failures.values()):
                    files = wider
                    continue
                if sieved or not failures or isinstance(files, ParquetFiles):
                    raise _failing(files, failures, error, query) from None
                files, sieved = _sieved(connection, files, failures, bad, scratch), True
        rows, eval_rows = train.digest.rows, eval_.digest.rows
        if not rows or not (eval_rows or split.eval_may_be_empty):
            raise _empty(rows, eval_rows, split, query, bad.count)
        for dataset in (train, eval_, bad):
            dataset.finish()
    return Ingested((train.digest + eval_.digest).fingerprint(train.schema), rows, eval_rows, bad.count)


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


def _open(connection: duckdb.DuckDBPyConnection, found: list[File], given: dict[str, str], scratch: Path) -> Files:
    if found[0].format == "parquet":
        return open_parquet(found, given)
    if found[0].format == "jsonl":
        return open_jsonl(connection, found, given, scratch)
    return open_csv(connection, found, given, scratch)


def _write(
    connection: duckdb.DuckDBPyConnection, files: Files, query: str, split: Split, train_set: Path, eval_set: Path
) -> tuple[DatasetWriter, DatasetWriter]:
    columns = () if query.strip() or isinstance(files, ParquetFiles) else files.columns
    try:
        connection.execute(f"CREATE OR REPLACE VIEW source AS {files.relation(bare=bool(columns))}")
        select = checked(connection, query)
        reader = connection.execute(select).to_arrow_reader(BATCH)
    except duckdb.Error as error:
        raise _refusal(error) from error

    def fit(batch: pa.RecordBatch) -> pa.RecordBatch:
        return fitted(batch, columns) if columns else batch

    schema = fit(pa.RecordBatch.from_pylist([], reader.schema)).schema
    split.check(schema, "the query's result" if query.strip() else "source")
    train, eval_ = DatasetWriter(train_set, schema), DatasetWriter(eval_set, schema)
    try:
        divide(_batches(reader), fit, split, train, eval_)
    except Misfit as error:
        raise _Unreadable(str(error)) from error
    return train, eval_


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


def _empty(rows: int, eval_rows: int, split: Split, query: str, bad: int) -> UserError:
    if not rows and not eval_rows:
        if query.strip():
            return problem("query", "the result has no rows", "Check its WHERE")
        return problem("source", f"there is no good row, and {bad} bad ones", "Mend the source")
    which = "eval_set" if rows else "train_set"
    if split.cut:
        side = "at or after" if rows else "before"
        return problem(
            "eval_from", f"no row is {side} {split.cut}, so {which} is empty", "Choose a time within the data"
        )
    keys = f", and only {' and '.join(split.keys)} decide" if split.keys else ""
    what = f"of {rows + eval_rows} rows none falls to {which}{keys}"
    return problem("eval_fraction", what, "Bring more rows, or give another share (0 for no eval_set)")
