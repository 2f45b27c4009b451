"""Files to a training and an evaluation dataset, in one pass and in memory that does not grow with them."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from penstock.components._shared.dataset import ROW_GROUP, DatasetWriter
from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import row_hashes
from penstock.components._shared.sealed import new_folder
from penstock.components.ingestion import split as splits
from penstock.components.ingestion.csv_files import CsvFiles, open_csv
from penstock.components.ingestion.engine import connect, one_line
from penstock.components.ingestion.jsonl_files import JsonlFiles, open_jsonl
from penstock.components.ingestion.parquet_files import ParquetFiles, open_parquet
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.query import checked
from penstock.components.ingestion.sieve import Reject
from penstock.components.ingestion.sources import File, fetch
from penstock.components.ingestion.split import Split
from penstock.components.ingestion.types import adjusted, given_types

REJECTS = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("text", pa.string()),
    ]
)
COUNTED = 10_000  # bad rows beyond max_bad_rows that are still counted
AHEAD = 4  # batches read before the first of them is written

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
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-ingest-"))).resolve()
        train, eval_, bad = (stack.enter_context(new_folder(path)) for path in (train_set, eval_set, rejects))
        found = fetch(source, format, encoding, scratch)
        connection = stack.enter_context(connect(scratch, (file.path.resolve() for file in found)))
        files = _open(connection, found, given_types(connection, columns or {}), scratch)
        sifted = _Sifted(DatasetWriter(bad, REJECTS), max_bad_rows)
        while True:
            try:
                writers = _write(connection, files, query, split, train, eval_)
                break
            except _ReadError as error:
                files = _mended(connection, files, error, sifted, scratch, bool(query.strip()))
        if not writers[0].digest.rows:
            raise _nothing_for("train_set", writers[1].digest.rows, split, query, sifted.count)
        if not writers[1].digest.rows and (split.fraction or split.cut):
            raise _nothing_for("eval_set", writers[0].digest.rows, split, query, sifted.count)
        for writer in (*writers, sifted.writer):
            writer.finish()
    return Ingested(
        fingerprint=(writers[0].digest + writers[1].digest).fingerprint(writers[0].schema),
        train_rows=writers[0].digest.rows,
        eval_rows=writers[1].digest.rows,
        bad_rows=sifted.count,
    )


class _ReadError(Exception):
    """DuckDB failed while it read the source or ran the query over it."""


@dataclass
class _Sifted:
    """The bad rows so far."""

    writer: DatasetWriter
    most: int
    count: int = 0
    first: Reject | None = None
    done: bool = False

    def add(self, rejects: list[Reject]) -> None:
        self.first = self.first or (rejects[0] if rejects else None)
        kept = rejects[: max(0, self.most - self.count)]
        self.count += len(rejects)
        if kept:
            rows = {name: [getattr(reject, name) for reject in kept] for name in REJECTS.names}
            self.writer.write(pa.record_batch(rows, REJECTS))
        if self.count > self.most + COUNTED:
            self.refuse("more than " + str(self.most + COUNTED))

    def refuse(self, count: str) -> None:
        assert self.first
        first = self.first
        where = f"{first.file}:{first.line}" + (f", column {first.column}" if first.column else "")
        remedy = f"Mend the source, or allow bad rows with max_bad_rows={self.count}"
        if first.column:
            remedy += f", or give the column a type with columns={{{first.column!r}: 'VARCHAR'}}"
        if "is not utf-8" in first.reason:
            remedy = f"Give encoding='latin-1' if that is what {first.file} is, or mend it"
        rows = "bad row" if count == "1" else "bad rows"
        raise problem(
            "max_bad_rows", f"{count} {rows}, {self.most} allowed; the first is {where}: {first.reason}", remedy
        )


def _open(connection: duckdb.DuckDBPyConnection, found: list[File], given: dict[str, str], scratch: Path) -> Files:
    if found[0].format == "parquet":
        return open_parquet(found, given)
    if found[0].format == "jsonl":
        return open_jsonl(connection, found, given, scratch)
    return open_csv(connection, found, given, scratch)


def _write(
    connection: duckdb.DuckDBPyConnection, files: Files, query: str, split: Split, train: Path, eval_: Path
) -> tuple[DatasetWriter, DatasetWriter]:
    try:
        connection.execute(f"CREATE OR REPLACE VIEW source AS {files.relation}")
    except duckdb.Error as error:
        raise _ReadError(error) from error
    select = checked(connection, query)
    try:
        reader = connection.execute(select).to_arrow_reader(ROW_GROUP)
    except duckdb.Error as error:
        raise _ReadError(error) from error
    schema = reader.schema
    if not schema.names:
        raise problem("query", "the result has no columns", "Select some")
    split.check(schema, "the query's result" if query.strip() else "source")
    writers = (DatasetWriter(train, schema), DatasetWriter(eval_, schema))
    _divide(_batches(reader), split, writers)
    return writers


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            raise _ReadError(error) from error
        yield batch


def _divide(batches: Iterator[pa.RecordBatch], split: Split, writers: tuple[DatasetWriter, DatasetWriter]) -> None:
    """Hash, divide and write batches in threads beside the one that reads."""
    null_times = 0

    def divided(batch: pa.RecordBatch) -> list[tuple[pa.RecordBatch, np.ndarray]]:
        hashes = row_hashes(batch)
        is_eval = split.is_eval(batch, hashes)
        parts = []
        for mask in (~is_eval, is_eval):
            whole = mask.all()
            parts.append((batch if whole else batch.filter(pa.array(mask)), hashes if whole else hashes[mask]))
        return parts

    with ThreadPoolExecutor(2) as dividers, ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        divisions: deque[Future[list[tuple[pa.RecordBatch, np.ndarray]]]] = deque()
        writes: deque[Future[None]] = deque()

        def pass_on() -> None:
            for writer, pool, (part, hashes) in zip(
                writers, (first, second), divisions.popleft().result(), strict=True
            ):
                if len(hashes):
                    writes.append(pool.submit(writer.write, part, hashes))
            while len(writes) > 2 * AHEAD:
                writes.popleft().result()

        for batch in batches:
            null_times += split.null_times(batch)
            divisions.append(dividers.submit(divided, batch))
            if len(divisions) > AHEAD:
                pass_on()
        while divisions:
            pass_on()
        for write in writes:
            write.result()
    if null_times:
        raise problem(
            "time_column",
            f"{split.time_column} is null in {null_times} rows",
            f"Leave them out with query: SELECT * FROM source WHERE {split.time_column} IS NOT NULL",
        )


def _mended(
    connection: duckdb.DuckDBPyConnection,
    files: Files,
    error: _ReadError,
    sifted: _Sifted,
    scratch: Path,
    has_query: bool,
) -> Files:
    """Return files that can be read where these could not: with a wider column, or without bad rows.

    Raises:
        UserError: It is the query that fails, a file is beyond repair, or there are too many bad rows.
    """
    if isinstance(files, ParquetFiles):
        for number, file in enumerate(files.files):
            if failure := _failure(connection, files.only(number)):
                raise problem("source", f"{file.name} cannot be read: {one_line(failure)}", "Write or fetch it again")
        raise _query_fails(error, has_query)
    wider = adjusted(files.columns, error)
    if wider:
        return replace(files, columns=wider)
    cleaned = {}
    for number, file in enumerate(files.files):
        failure = _failure(connection, files.only(number))
        if not failure:
            continue
        if wider := adjusted(files.columns, failure):
            return replace(files, columns=wider)
        if sifted.done:
            raise problem("source", f"{file.name} cannot be read: {one_line(failure)}", "Mend it")
        cleaned[number] = scratch / f"clean-{number:06d}"
        for rejects in files.clean(connection, number, cleaned[number]):
            sifted.add(rejects)
    if not cleaned:
        raise _query_fails(error, has_query)
    sifted.done = True
    if sifted.count > sifted.most:
        sifted.refuse(str(sifted.count))
    return files.replaced(cleaned)


def _failure(connection: duckdb.DuckDBPyConnection, files: Files) -> Exception | None:
    try:
        connection.execute(f"CREATE OR REPLACE VIEW one_file AS {files.relation}")
        names = [row[0] for row in connection.execute("DESCRIBE one_file").fetchall()]
        quoted = ('"' + name.replace('"', '""') + '"' for name in names)
        connection.execute(f"SELECT {', '.join(f'count({name})' for name in quoted)} FROM one_file").fetchall()
    except duckdb.Error as error:
        return error
    return None


def _query_fails(error: _ReadError, has_query: bool) -> UserError:
    return problem("query" if has_query else "source", one_line(error), "Test it on a few rows in DuckDB")


def _nothing_for(which: str, others: int, split: Split, query: str, bad: int) -> UserError:
    if not others:
        if query.strip():
            return problem("query", "the result has no rows", "Check its WHERE")
        return problem("source", f"there are no good rows, and {bad} bad ones", "Mend the source")
    if split.cut:
        side = "before" if which == "train_set" else "at or after"
        return problem(
            "eval_from", f"no row is {side} {split.cut}, so {which} is empty", "Choose a time within the data"
        )
    keys = f" and {' and '.join(split.keys)} take few values" if split.keys else ""
    return problem(
        "eval_fraction", f"of {others} rows none fell to {which}{keys}", "Change eval_fraction, or bring more rows"
    )
