"""CSV and TSV files: delimiter, header, sample, records, and the SQL that reads them."""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import duckdb

from penstock.components._shared.engine import identifier, literal
from penstock.components.ingestion.pieces import Piece, of_lines
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.rejects import NOT_UTF8, Reject
from penstock.components.ingestion.sieve import LONGEST_LINE, Record, in_blocks, sieve
from penstock.components.ingestion.sources import File
from penstock.components.ingestion.types import Column, Evidence, choose
from penstock.components.ingestion.unpack import guess_encoding, text_stream

DELIMITERS = {"csv": ",;\t|", "tsv": "\t"}
MOST_SAMPLED = 256  # files; of more, an even spread
HEAD = 128 << 10  # bytes sampled at the start of a file, at most
WINDOW = 64 << 10  # bytes sampled at places further on, and the least of a head
WINDOWS = 8
PIECE = 2 << 20  # bytes of a file with bad rows that are tried at once


@dataclass(frozen=True)
class Layout:
    """What files have in common that can be read in one go.

    Attributes:
        names: Columns in the order of the file, spelled as in the first file that has them.
        ending: What ends the first line, and so every line that DuckDB takes: \\n, \\r\\n or \\r.
    """

    delimiter: str
    names: tuple[str, ...]
    head: bytes
    ending: bytes


@dataclass(frozen=True)
class CsvFiles:
    """CSV files and their columns together; a column that a file lacks is null in its rows.

    Attributes:
        is_sieved: Whether they are to be sieved, be they readable from end to end or not.
    """

    files: tuple[File, ...]
    layouts: tuple[Layout, ...]
    columns: tuple[Column, ...]
    is_sieved: bool = False

    def relation(self, bare: bool = False) -> str:
        """Return the SQL of the rows of all files, in order; bare, for fitted()."""
        parts = []
        for layout, group in groupby(zip(self.files, self.layouts, strict=True), key=lambda pair: pair[1]):
            types = {column.name: column for column in self.columns}
            reader = _read_csv(
                [file.path for file, _ in group],
                layout,
                {name: types[name].read_as for name in layout.names},
                header=True,
            )
            values = [
                column.value(number, bare)
                if column.name in layout.names
                else f"CAST(NULL AS {column.read_as if bare and column.is_left_to_fitted else column.type})"
                for number, column in enumerate(self.columns)
            ]
            selected = (
                f"{value} AS {identifier(column.name)}" for value, column in zip(values, self.columns, strict=True)
            )
            parts.append(f"SELECT {', '.join(selected)} FROM {reader}")
        return " UNION ALL ".join(parts)

    def only(self, number: int) -> CsvFiles:
        """Return these files without the others."""
        return replace(self, files=(self.files[number],), layouts=(self.layouts[number],))

    def clean(self, connection: duckdb.DuckDBPyConnection, number: int, target: Path) -> Iterator[list[Reject]]:
        """Write a copy of one file without its bad rows to `target`, and yield these."""
        file, layout = self.files[number], self.layouts[number]
        in_copy = replace(layout, ending=b"\n")
        types = {column.name: column for column in self.columns}
        columns = [types[name] for name in layout.names]
        trial = target.with_name(target.name + ".trial")
        values = (
            column.value(0) if column.given or column.is_text_of_numbers else identifier(column.name)
            for column in columns
        )
        reader = _read_csv([trial], in_copy, {column.name: column.read_as for column in columns}, header=False)
        counted = f"SELECT {', '.join(f'count({value})' for value in values)} FROM {reader}"

        def is_good(lines: bytes) -> bool:
            trial.write_bytes(lines)
            try:
                connection.execute(counted).fetchall()
            except duckdb.Error:
                return False
            return True

        with text_stream(file.path) as stream:
            lines = _Lines(stream, layout.ending)
            next(_records(lines, layout))  # the header
            lines.number += file.left_out
            yield from sieve(
                connection,
                file.name,
                _pieces(lines, layout, is_good),
                target,
                layout.head + b"\n",
                lambda block: _read_csv([block], in_copy, dict.fromkeys(layout.names, "VARCHAR"), header=False),
                columns,
            )
        trial.unlink(missing_ok=True)

    def replaced(self, cleaned: dict[int, Path]) -> CsvFiles:
        """Return the same with clean copies in the place of files, by their numbers."""
        files = tuple(replace(file, path=cleaned.get(number, file.path)) for number, file in enumerate(self.files))
        layouts = tuple(
            replace(layout, ending=b"\n") if number in cleaned else layout for number, layout in enumerate(self.layouts)
        )
        return replace(self, files=files, layouts=layouts)


@dataclass(frozen=True)
class CsvLook:
    """What one file of several shows: all that is to be known of it before rows are read.

    Attributes:
        sample: Well-formed records, each with a newline; none where the sample is of other files.
        has_rows: Whether there is a record behind the header.
    """

    layout: Layout
    sample: bytes
    has_rows: bool

    def told(self) -> dict[str, Any]:
        """Return it as JSON values."""
        layout = vars(self.layout) | {name: getattr(self.layout, name).decode("latin-1") for name in ("head", "ending")}
        return {"layout": layout, "sample": self.sample.decode(), "has_rows": self.has_rows}

    @classmethod
    def of(cls, told: dict[str, Any]) -> CsvLook:
        """Return what `told` made JSON values of."""
        texts = {name: told["layout"][name].encode("latin-1") for name in ("head", "ending")}
        layout = Layout(told["layout"]["delimiter"], tuple(told["layout"]["names"]), **texts)
        return cls(layout, told["sample"].encode(), told["has_rows"])


def pieces(file: File, layout: Layout) -> list[Piece]:
    """Return the pieces of a file; none where it is one, or where it is not certain which lines are records."""
    with file.path.open("rb") as stream:
        start = stream.read(len(BOM_UTF8) + len(layout.head) + len(layout.ending))
    head = layout.head + layout.ending
    if start.startswith(BOM_UTF8):
        head = BOM_UTF8 + head
    # A blank line is a row where there is one column, and at the end of a file it is none.
    if not start.startswith(head) or layout.ending == b"\r" or len(layout.names) == 1:
        return []
    delimiter, returns = re.escape(layout.delimiter.encode()), int(layout.ending == b"\r\n")
    quoted = re.compile(rb'(?<![^%b\n])"[^"]*(?:""[^"]*)*"(?![^%b\r\n])' % (delimiter, delimiter))

    def are_records(lines: bytes) -> bool:
        breaks = lines.count(layout.ending)
        if lines.count(b"\n") != breaks or lines.count(b"\r") != returns * breaks or b"\0" in lines:
            return False
        return b'"' not in lines or b'"' not in quoted.sub(b"", lines)

    return of_lines(file.path, len(head), are_records)


def sampled(files: int) -> set[int]:
    """Return the places of the files that are sampled, of so many."""
    return {place * files // MOST_SAMPLED for place in range(MOST_SAMPLED)} if files > MOST_SAMPLED else {*range(files)}


def look(file: File, files: int) -> CsvLook:
    """Return what a file shows.

    Args:
        files: How many files are sampled; 0 where this is none of them.

    Raises:
        UserError: Its header cannot be used.
    """
    layout = _layout(file)
    sample = b"".join(record + b"\n" for record in _sample(file.path, layout, files)) if files else b""
    return CsvLook(layout, sample, bool(sample) or _has_a_record(file, layout))


def open_csv(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[File],
    looks: Sequence[CsvLook],
    given: dict[str, str],
    scratch: Path,
) -> CsvFiles:
    """Return files with their columns and types, from a look at each.

    Raises:
        UserError: No file has a row, or `given` names a column that is in no file.
    """
    spelling: dict[str, str] = {}
    layouts = tuple(
        replace(each.layout, names=tuple(spelling.setdefault(name.casefold(), name) for name in each.layout.names))
        for each in looks
    )
    evidence = Evidence()
    for layout in dict.fromkeys(layouts):
        sample = scratch / "sample.csv"
        with sample.open("wb") as output:
            output.writelines(each.sample for own, each in zip(layouts, looks, strict=True) if own == layout)
        table = _read_csv([sample], replace(layout, ending=b"\n"), dict.fromkeys(layout.names, "VARCHAR"), header=False)
        if sample.stat().st_size:
            evidence.add(connection, list(layout.names), table)
    if not any(each.has_rows for each in looks):
        raise problem("source", f"{_all(files)} no data rows, only a header", "Give files with rows")
    return CsvFiles(tuple(files), layouts, choose(list(spelling.values()), evidence.types(), given))


def _all(files: Sequence[File]) -> str:
    return f"{files[0].name} has" if len(files) == 1 else f"the {len(files)} files have"


def _has_a_record(file: File, layout: Layout) -> bool:
    with text_stream(file.path) as stream:
        records = _records(_Lines(stream, layout.ending), layout)
        next(records)
        return next(records, None) is not None


def _read_csv(paths: Sequence[Path], layout: Layout, types: dict[str, str], header: bool) -> str:
    options = {
        "auto_detect": False,
        "header": header,
        # Left alone, DuckDB takes the first line break for it, even one within quotes.
        "new_line": layout.ending.decode().replace("\r", "\\r").replace("\n", "\\n"),
        "delim": layout.delimiter,
        "quote": '"',
        "escape": '"',
        "columns": types,
    }
    written = ", ".join(f"{name} = {literal(value)}" for name, value in options.items())
    return f"read_csv({literal(map(str, paths))}, {written})"


def _layout(file: File) -> Layout:
    with text_stream(file.path) as stream:
        start = stream.read(HEAD)
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # otherwise a character is cut off at the end
            text = start[: error.start].decode("utf-8")
            if not text.count("\n") and not text.count("\r"):
                raise problem(
                    "encoding", f"{file.name} is not utf-8: byte {error.start + 1} is 0x{start[error.start]:02x}",
                    f"Give encoding={guess_encoding(start)!r}",
                ) from None  # fmt: skip
        else:
            text = start[: error.start].decode("utf-8")
    if "\0" in text[:1000]:
        raise problem("encoding", f"{file.name} holds zero bytes, so it is no utf-8 text", "Try encoding='utf-16'")
    delimiter, row = _first_row(file, text)
    if not any(row):
        raise problem("source", f"the first line of {file.name} is blank", "Begin with the names of the columns")
    if all(_is_number(cell) for cell in row):
        raise problem(
            "source", f"the first line of {file.name} holds numbers", "Begin with a line of the names of the columns"
        )
    names: dict[str, str] = {}
    for place, cell in enumerate(row):
        name = cell.strip() or f"column{place}"
        if name.casefold() in names:
            raise problem(
                "source", f"{file.name} has two columns {names[name.casefold()]!r}", "Give them different names"
            )
        names[name.casefold()] = name
    layout = Layout(delimiter, tuple(names.values()), b"", b"\n" if b"\n" in start or b"\r" not in start else b"\r")
    head = next(_records(_Lines(io.BytesIO(start), layout.ending), layout)).raw
    ending = b"\r\n" if start[len(head) :].startswith(b"\r\n") else layout.ending
    return replace(layout, head=head, ending=ending)


def _first_row(file: File, text: str) -> tuple[str, list[str]]:
    """Return the delimiter that makes the most of the first line, and its cells."""
    rows: dict[str, list[str]] = {}
    faults = {}
    for delimiter in DELIMITERS.get(file.format, ","):
        try:
            rows[delimiter] = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            rows[delimiter], faults[delimiter] = text.splitlines()[0].split(delimiter), error
    best = max(rows, key=lambda delimiter: len(rows[delimiter]))
    if best in faults:
        raise problem("source", f"{file.name}:1: the header cannot be read ({faults[best]})", "Mend its quotes")
    return best, rows[best]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _sample(path: Path, layout: Layout, files: int) -> Iterator[bytes]:
    """Yield the well-formed records of the head of a file and, if no record there has several lines, of places on."""
    size = path.stat().st_size
    head = max(WINDOW, HEAD // files)
    with text_stream(path) as stream:
        stream.seek(0)
        start = stream.read(head)
        end_of_line = layout.ending[-1:]
        complete = start if size <= head else start[: start.rfind(end_of_line) + 1]
        lines = _Lines(io.BytesIO(complete.removeprefix(b"\xef\xbb\xbf")), layout.ending)
        records = list(_records(lines, layout))[1:]
        yield from _fitting(records)
        if any(end_of_line in record.raw or record.fault for record in records):
            return
        windows = WINDOWS // files
        for window in range(1, windows + 1):
            stream.seek(head + max(0, size - head - WINDOW) * window // windows)
            piece = stream.read(min(WINDOW, size))
            begin, end = piece.find(end_of_line) + 1, piece.rfind(end_of_line) + 1
            yield from _fitting(_records(_Lines(io.BytesIO(piece[begin:end]), layout.ending), layout))


def _fitting(records: Iterable[Record]) -> Iterator[bytes]:
    return (record.raw for record in records if not record.fault)


def _pieces(lines: _Lines, layout: Layout, is_good: Callable[[bytes], bool]) -> Iterator[bytes | list[Record]]:
    """Yield a file in pieces that begin with a record: whole where DuckDB reads it, else the records in it."""
    while piece := lines.piece():
        is_quoted = b'"' in piece
        plain = piece if is_quoted else piece.replace(b"\r\n", b"\n")
        if b"\r" not in plain and not (is_quoted and layout.ending == b"\r") and is_good(plain):
            lines.number += piece.count(b"\n")
            yield plain
        else:
            lines.put_back(piece)
            yield from in_blocks(_records(lines, layout, to_the_end=False))


def _records(lines: _Lines, layout: Layout, to_the_end: bool = True) -> Iterator[Record]:
    """Yield the records of a file, blank lines left out.

    A quote that is opened and never closed, or closed in the middle of a value, makes its first line a bad row, and
    reading goes on at the next line: one stray quote does not swallow the rows after it.

    Args:
        to_the_end: Of the file; otherwise until the lines that were put back are used up.
    """
    delimiter = layout.delimiter.encode()
    while (to_the_end or lines.has_some_back) and (item := lines.next()) is not None:
        line, raw = item
        taken = [item]
        if b'"' in raw:
            place, fields, state = _scan(raw, delimiter, 0, 1, _START)
        else:
            place, fields, state = len(raw), raw.count(delimiter) + 1, _DONE
        while state is _INSIDE and len(raw) <= LONGEST_LINE and (item := lines.next()) is not None:
            taken.append(item)
            raw += layout.ending[-1:] + item[1]
            place, fields, state = _scan(raw, delimiter, place, fields, _INSIDE)
        if state in (_INSIDE, _AFTER):
            fault = "a quote is opened and not closed" if state is _INSIDE else "there is text after a closing quote"
            lines.take_again(taken[1:])
            yield Record(line, taken[0][1].removesuffix(b"\r"), fault)
            continue
        raw = raw.removesuffix(b"\r")
        if raw or len(layout.names) == 1:
            yield Record(line, raw, _fault(raw, fields, delimiter, len(layout.names)))


_START, _INSIDE, _AFTER, _DONE = "start", "inside", "after", "done"


def _scan(raw: bytes, delimiter: bytes, place: int, fields: int, state: str) -> tuple[int, int, str]:
    """Go on through a record from `place`; return where to, the fields so far, and how it stands with quotes."""
    while True:
        if state is _INSIDE:
            end = raw.find(b'"', place)
            if end < 0:
                return len(raw), fields, _INSIDE
            if raw[end + 1 : end + 2] == b'"':
                place = end + 2
                continue
            place = end + 1
            while raw[place : place + 1] == b" ":
                place += 1
            if raw[place:] in (b"", b"\r"):
                return place, fields, _DONE
            if raw[place : place + 1] != delimiter:
                return place, fields, _AFTER
        else:
            begin = place
            while raw[begin : begin + 1] == b" ":
                begin += 1
            if raw[begin : begin + 1] == b'"':
                place, state = begin + 1, _INSIDE
                continue
            place = raw.find(delimiter, place)
            if place < 0:
                return len(raw), fields, _DONE
        place, fields, state = place + 1, fields + 1, _START


def _fault(raw: bytes, fields: int, delimiter: bytes, expected: int) -> str:
    if len(raw) > LONGEST_LINE:
        return f"the line is longer than {LONGEST_LINE} bytes"
    empty_at_the_end = len(raw) - len(raw.rstrip(delimiter))
    if fields < expected or fields - empty_at_the_end > expected:
        return f"{expected} columns were expected, and there are {fields}"
    if not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, {NOT_UTF8}"
    if b"\r" in raw and b'"' not in raw:
        return "there is a carriage return inside the line"
    return ""


class _Lines:
    """The lines of a stream, without their ending and numbered from 1; there is a way back.

    Of a line too long, only the first LONGEST_LINE + 1 bytes are kept.

    Attributes:
        number: Of the line that was read last.
    """

    def __init__(self, stream: IO[bytes], ending: bytes) -> None:
        self.number = 0
        self._stream: IO[bytes] = io.BufferedReader(_ReturnsAsNewlines(stream)) if ending == b"\r" else stream
        self._back, self._back_size = io.BytesIO(), 0
        self._again: deque[tuple[int, bytes]] = deque()

    @property
    def has_some_back(self) -> bool:
        """Whether lines that were gone back to, or put back, are still to be read."""
        return bool(self._again) or self._back.tell() < self._back_size

    def next(self) -> tuple[int, bytes] | None:
        """Return the next line and its number."""
        if self._again:
            return self._again.popleft()
        line = self._readline(LONGEST_LINE + 2)
        if not line:
            return None
        if len(line) > LONGEST_LINE + 1 and not line.endswith(b"\n"):
            while (rest := self._readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
        self.number += 1
        return self.number, line.removesuffix(b"\n")

    def take_again(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Go back to lines that were the last to be read."""
        self._again.extendleft(reversed(lines))

    def piece(self) -> bytes:
        """Return about two megabytes that end with a line; empty at the end of the file."""
        piece = self._stream.read(PIECE)
        return piece + self._stream.readline(LONGEST_LINE) if piece else b""

    def put_back(self, piece: bytes) -> None:
        """Put a piece back to be read by lines."""
        self._back, self._back_size = io.BytesIO(piece), len(piece)

    def _readline(self, most: int) -> bytes:
        line = self._back.readline(most)
        return line if line.endswith(b"\n") or len(line) == most else line + self._stream.readline(most - len(line))


class _ReturnsAsNewlines(io.RawIOBase):
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self._stream.read(len(view)).replace(b"\r", b"\n")
        view[: len(data)] = data
        return len(data)
