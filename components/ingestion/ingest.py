"""Files to a training and an evaluation dataset, in one pass and in memory that does not grow with them.

On Beam it is a pass for each file; see units.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb

from penstock.components._shared import beam
from penstock.components._shared.engine import connect
from penstock.components._shared.errors import on_behalf_of
from penstock.components._shared.parts import gathering
from penstock.components._shared.sealed import new_folder
from penstock.components.ingestion import csv_files, jsonl_files, parquet_files
from penstock.components.ingestion import split as splits
from penstock.components.ingestion.outcome import Ingested, check, outcome
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.rejects import Rejects
from penstock.components.ingestion.room import check_room
from penstock.components.ingestion.sources import File, Found, find, lay_out
from penstock.components.ingestion.split import Split
from penstock.components.ingestion.transfer import Files, transfer
from penstock.components.ingestion.types import given_types
from penstock.components.ingestion.units import by_units

PORTS = ("train_set", "eval_set", "rejects")


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
    engine: str = beam.LOCAL,
    beam_options: Mapping[str, Any] = beam.DIRECT,
    uris: Sequence[str] = ("", "", ""),
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
        engine: "local" or "beam", which reads each file by itself; see units.
        beam_options: Of Beam, the runner among them.
        uris: Where Beam's workers find the three folders, if they are on other machines.

    Raises:
        UserError: An argument, a file or a row cannot be used.
    """
    if isinstance(max_bad_rows, bool) or not isinstance(max_bad_rows, int) or max_bad_rows < 0:
        raise problem("max_bad_rows", f"{max_bad_rows!r} is no number of rows", "Give 0 or more")
    on_beam = beam.chosen("ingest", engine, beam_options)
    split = splits.plan(split_keys, eval_fraction, time_column, eval_from)
    given = given_types(columns or {})
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-ingest-"))
        scratch = Path(temporary).resolve()
        paths = (train_set, eval_set, rejects)
        if on_beam is None:
            folders = [stack.enter_context(new_folder(path)) for path in paths]
            found = find(source, format, encoding, scratch)
            check_room(found, encoding, query, scratch, folders[0], together=True)
            return _in_one_pass(found, query, given, encoding, split, max_bad_rows, folders, scratch)
        places = [
            beam.place(on_beam, port, os.path.abspath(path), uri)
            for port, path, uri in zip(PORTS, paths, uris, strict=True)
        ]
        stack.enter_context(on_behalf_of("ingest"))
        gathered = [stack.enter_context(gathering(*both)) for both in zip(paths, places, strict=True)]
        found = find(source, format, encoding, scratch)
        if not on_beam.here and isinstance(found[0].where, Path):
            what = f"{found[0].name} is on this machine, where {on_beam.runner} cannot read it"
            raise problem("source", what, "Give a URI of gs, s3, abfss or https, or the runner DirectRunner")
        if on_beam.here:
            check_room(found, encoding, query, scratch, gathered[0].folder, together=False)
        return by_units(
            found,
            query=query,
            given=given,
            encoding=encoding,
            split=split,
            most_bad=max_bad_rows,
            gathered=gathered,
            spread=functools.partial(beam.spread, on_beam, folder=scratch),
            scratch=scratch,
        )


def _in_one_pass(
    found: Sequence[Found],
    query: str,
    given: dict[str, str],
    encoding: str,
    split: Split,
    most_bad: int,
    folders: Sequence[Path],
    scratch: Path,
) -> Ingested:
    laid_out = scratch / "files"
    laid_out.mkdir()
    files = [lay_out(each, encoding, laid_out / f"{number:06d}") for number, each in enumerate(found)]
    with connect(scratch, (file.path.resolve() for file in files)) as connection:
        bad = Rejects(folders[2], most_bad)
        opened = _opened(connection, files, given, scratch)
        done = transfer(connection, opened, query, split, folders[:2], bad, scratch)
        train, eval_ = done.train.digest, done.eval.digest
        check(train.rows, eval_.rows, split, query, bad.count, done.timeless)
        for writer in (done.train, done.eval, bad.writer):
            writer.finish()
    return outcome(train, eval_, done.train.schema, bad.count)


def _opened(
    connection: duckdb.DuckDBPyConnection, files: Sequence[File], given: dict[str, str], scratch: Path
) -> Files:
    if files[0].format == "parquet":
        return parquet_files.open_parquet(files, [parquet_files.look(file) for file in files], given)
    if files[0].format == "jsonl":
        jsonl = [jsonl_files.look(connection, file, len(files), scratch) for file in files]
        return jsonl_files.open_jsonl(files, jsonl, given)
    some = csv_files.sampled(len(files))
    looks = [csv_files.look(file, len(some) if number in some else 0) for number, file in enumerate(files)]
    return csv_files.open_csv(connection, files, looks, given, scratch)
