"""The same datasets by units: each file, or piece of a large one, is read by itself, anywhere, and what came of each is
put together in order.

First all files are looked at, then each is written, to part files of its own. A file in which a column turns out to
need a wider type makes it wider for all of them, so that those which were written before are written again; that
happens twice at most, for a type becomes wider no more often. Where a piece has bad rows, the other pieces of its file
are sieved, too, as that file would be as a whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from penstock.components._shared.engine import connect, identifier
from penstock.components._shared.parts import Gathering, Spread, deliver, publish, total
from penstock.components.ingestion import csv_files, jsonl_files, parquet_files
from penstock.components.ingestion.outcome import Ingested, check, outcome
from penstock.components.ingestion.parquet_files import ParquetFiles
from penstock.components.ingestion.pieces import Piece, footer, of_lines, of_row_groups
from penstock.components.ingestion.query import check_row_by_row, checked
from penstock.components.ingestion.rejects import Reject, Rejects, TooMany, too_many
from penstock.components.ingestion.sources import File, Found, lay_out
from penstock.components.ingestion.split import Split
from penstock.components.ingestion.transfer import Files, transfer
from penstock.components.ingestion.types import Column, joined


@dataclass(frozen=True)
class _ToLook:
    """A file to look at.

    Attributes:
        sampled: How many files are sampled; 0 where this is none of them.
    """

    found: Found
    encoding: str
    sampled: int


@dataclass(frozen=True)
class _ToWrite:
    """A file to write, or a piece of it.

    Attributes:
        file: Its number; that of the unit, in the order of all rows, is `number`.
        piece: None: all of the file.
        files: How it is read, and its columns; its path is another where it is written.
        places: Where the parts of train_set, eval_set and rejects go.
    """

    number: int
    file: int
    found: Found
    piece: Piece | None
    encoding: str
    files: Files
    query: str
    split: Split
    most_bad: int
    places: tuple[str, ...]


def by_units(
    found: Sequence[Found],
    *,
    query: str,
    given: dict[str, str],
    encoding: str,
    split: Split,
    most_bad: int,
    gathered: Sequence[Gathering],
    spread: Spread,
    scratch: Path,
) -> Ingested:
    """Write the rows of files to two datasets, and the bad ones to a third, as ingest does in one pass.

    Args:
        found: The files, in order.
        given: SQL type by column name.
        most_bad: Bad rows that are put up with.
        gathered: train_set, eval_set and rejects.
        spread: Has files looked at and written.
        scratch: Folder of this process.

    Raises:
        UserError: A file cannot be used; or the query makes rows of others than one each.
    """
    places = tuple(to.place for to in gathered)
    units: list[_ToWrite] = []
    whole: list[Piece | None] = [None]
    for file, (files, pieces) in enumerate(_opened(found, query, given, encoding, spread, scratch)):
        for piece in pieces or whole:
            number = len(units)
            of_piece = _of_piece(files, piece)
            units.append(_ToWrite(number, file, found[file], piece, encoding, of_piece, query, split, most_bad, places))
    told: dict[int, Mapping[str, Any]] = {}
    while outdated := [unit for unit in units if unit.number not in told or told[unit.number]["files"] != unit.files]:
        for unit, each in zip(outdated, spread(outdated, _written), strict=True):
            told[unit.number] = each | {"files": _widened(_sieved(unit.files, each["bad"] > 0), [each["columns"]])}
        bad = sum(each["bad"] for each in told.values())
        with_bad = {unit.file for unit in units if told[unit.number]["bad"]}
        settled = [
            told[unit.number] for unit in units if unit.file not in with_bad or told[unit.number]["files"].is_sieved
        ]
        all_columns = [each["columns"] for each in settled]  # what a bad row has makes no column wider
        units = [
            replace(unit, files=_widened(_sieved(unit.files, unit.file in with_bad), all_columns)) for unit in units
        ]
        if bad > most_bad and len(settled) == len(units):
            firsts = (told[unit.number]["first"] for unit in units)
            raise too_many(bad, most_bad, next(Reject(**first) for first in firsts if first))
    sets = [[told[unit.number]["parts"][port] for unit in units] for port in range(len(gathered))]
    timeless = sum(each["timeless"] for each in told.values())
    check(total(sets[0]).rows, total(sets[1]).rows, split, query, bad, timeless)
    (train, schema), (eval_, _), _ = (publish(to, parts) for to, parts in zip(gathered, sets, strict=True))
    return outcome(train, eval_, schema, bad)


def _opened(
    found: Sequence[Found], query: str, given: dict[str, str], encoding: str, spread: Spread, scratch: Path
) -> list[tuple[Files, list[Piece]]]:
    """Return how each file is read, with the columns of all of them, once the query is known to go with them.

    Beside it are the pieces of the file, if there are several.
    """
    kind = found[0].format
    some = csv_files.sampled(len(found)) if kind in ("csv", "tsv") else range(len(found))
    to_look = [_ToLook(each, encoding, len(some) if place in some else 0) for place, each in enumerate(found)]
    told = spread(to_look, _looked)
    files = [File(each.name, Path(), each.format) for each in found]
    here = [each.where.resolve() for each in found if isinstance(each.where, Path)]
    opened: list[Files]
    with connect(scratch, here) as connection:
        if kind == "parquet":
            together = parquet_files.open_parquet(files, [each["rows"] for each in told], given)
            own = [tuple((name, type) for name, type in each["types"]) for each in told]
            types = _types_together(connection, dict(zip(own, found, strict=True)), scratch)
            opened = [replace(together.only(number), own=each, columns=types) for number, each in enumerate(own)]
        elif kind == "jsonl":
            jsonl = jsonl_files.open_jsonl(files, [jsonl_files.JsonlLook.of(each) for each in told], given)
            opened = [jsonl.only(number) for number in range(len(files))]
            types = tuple((column.name, column.type) for column in jsonl.columns)
        else:
            looks = [csv_files.CsvLook.of(each) for each in told]
            csv = csv_files.open_csv(connection, files, looks, given, scratch)
            opened = [csv.only(number) for number in range(len(files))]
            types = tuple((column.name, column.type) for column in csv.columns)
        values = ", ".join(f"CAST(NULL AS {type}) AS {identifier(name)}" for name, type in types)
        connection.execute(f"CREATE VIEW source AS SELECT {values} WHERE false")
        checked(connection, query)
    check_row_by_row(types, query)
    pieces = [[Piece.of(piece) for piece in each["pieces"]] for each in told]
    return list(zip(opened, pieces, strict=True))


def _types_together(
    connection: duckdb.DuckDBPyConnection, by_types: Mapping[parquet_files.Types, Found], scratch: Path
) -> parquet_files.Types:
    """Return the columns of Parquet files together, from one file for each list of columns that some have."""
    if len(by_types) == 1:
        return next(iter(by_types))
    folder = scratch / "types"
    folder.mkdir()
    files = [
        lay_out(found, "utf-8", folder / f"{number:06d}", _metadata(found))
        for number, found in enumerate(by_types.values())
    ]
    return parquet_files.types_of(connection, files)


def _widened(files: Files, several: Sequence[Any]) -> Files:
    """Return a file with columns as wide as all the others that are told need them."""
    known = [tuple(Column(**column) for column in columns) for columns in several if columns]
    return replace(files, columns=joined(known)) if known and not isinstance(files, ParquetFiles) else files


def _sieved(files: Files, wanted: bool) -> Files:
    """Return a file that is to be sieved, if it is wanted."""
    return replace(files, is_sieved=True) if wanted and not isinstance(files, ParquetFiles) else files


def _of_piece(files: Files, piece: Piece | None) -> Files:
    return replace(files, piece=piece.rows) if piece and isinstance(files, ParquetFiles) else files


def _metadata(found: Found) -> Piece | None:
    """Return what is to be fetched of a file that is far away for a look; None: all of it."""
    if found.format != "parquet" or isinstance(found.where, Path) or not found.can_be_divided("utf-8"):
        return None
    assert found.size is not None
    return footer(found.size, found.where.read)


def _looked(unit: _ToLook) -> dict[str, Any]:
    """Return what a file shows, as JSON values."""
    with tempfile.TemporaryDirectory(prefix="penstock-ingest-") as temporary:
        scratch = Path(temporary).resolve()
        file = _laid_out(unit.found, unit.encoding, scratch, _metadata(unit.found))
        divided = unit.found.can_be_divided(unit.encoding)
        pieces: list[Piece] = []
        told: dict[str, Any]
        if file.format in ("csv", "tsv"):
            look = csv_files.look(file, unit.sampled)
            told = look.told()
            if divided:
                pieces = csv_files.pieces(file, look.layout)
        else:
            with connect(scratch, [file.path.resolve()], threads=1) as connection:
                if file.format == "jsonl":
                    told = jsonl_files.look(connection, file, unit.sampled, scratch).told()
                    if divided:
                        pieces = of_lines(file.path, 0, lambda lines: True)
                else:
                    told = {"rows": parquet_files.look(file), "types": parquet_files.types_of(connection, [file])}
                    if divided:
                        pieces = of_row_groups(file.path)
        return told | {"pieces": [vars(piece) for piece in pieces]}


def _written(unit: _ToWrite) -> dict[str, Any]:
    """Write the rows of a file, or of a piece, to parts, and return what is to be known of them, as JSON values."""
    with tempfile.TemporaryDirectory(prefix="penstock-ingest-") as temporary:
        scratch = Path(temporary).resolve()
        file = _laid_out(unit.found, unit.encoding, scratch, unit.piece)
        folders = [scratch / name for name in ("train", "eval", "bad")]
        for folder in folders:
            folder.mkdir()
        files, bad = replace(unit.files, files=(file,)), Rejects(folders[2], unit.most_bad)
        told: dict[str, Any] = {"columns": [], "parts": [], "timeless": 0}
        with connect(scratch, [file.path.resolve()], threads=1) as connection:
            try:
                done = transfer(connection, files, unit.query, unit.split, folders[:2], bad, scratch)
            except TooMany:  # how many there are in all is known when all are counted
                pass
            else:
                if not isinstance(done.files, ParquetFiles):
                    told["columns"] = [vars(column) for column in done.files.columns]
                writers = (done.train, done.eval, bad.writer)
                told["parts"] = [
                    deliver(writer, place, unit.number) for writer, place in zip(writers, unit.places, strict=True)
                ]
                told["timeless"] = done.timeless
        return told | {"bad": bad.count, "first": vars(bad.first) if bad.first else None}


def _laid_out(found: Found, encoding: str, scratch: Path, piece: Piece | None) -> File:
    folder = scratch / "files"
    folder.mkdir()
    return lay_out(found, encoding, folder / "000000", piece)
