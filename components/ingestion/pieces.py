"""Pieces of a large file, each of which is read without the rest: row groups of Parquet, or whole lines of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

LEAST = 128 << 20  # bytes of a piece
_BLOCK = 4 << 20
_LINES = (1, 4, 16, 64)  # that a block is made longer by, where a record goes on
_MAGIC = 4  # bytes at both ends of a Parquet file
_BY_NUMBER = "file_row_number"  # what DuckDB calls a row's place in its file, where no column is called so


@dataclass(frozen=True)
class Piece:
    """Rows of a file that follow one another.

    Attributes:
        ranges: Bytes that they are read from, begin and end of each.
        rows: Of a Parquet file: place of the first, and of the first one behind them.
        lines: Of a text file: how many lie before them, but for the header.
    """

    ranges: tuple[tuple[int, int], ...]
    rows: tuple[int, int] = (0, 0)
    lines: int = 0

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Piece:
        """Return what became JSON values by vars()."""
        first, behind = told["rows"]
        return cls(tuple((begin, end) for begin, end in told["ranges"]), (first, behind), told["lines"])


def of_row_groups(path: Path) -> list[Piece]:
    """Return the pieces of a Parquet file, of which only the metadata are looked at; none where it is one.

    What lies behind the last row group, such as indexes and Bloom filters, goes with each.
    """
    metadata, size = pq.read_metadata(path), path.stat().st_size
    wanted, names = _wanted(size), metadata.schema.to_arrow_schema().names
    if wanted >= size or not metadata.num_rows or any(name.casefold() == _BY_NUMBER for name in names):
        return []
    bounds = [_bounds(metadata.row_group(number)) for number in range(metadata.num_row_groups)]
    begins, tail = [begin for begin, _ in bounds], bounds[-1][1]
    if any(end > begin for (_, end), begin in zip(bounds, begins[1:], strict=False)):
        return []
    pieces, since, first, row = list[Piece](), begins[0], 0, 0
    for number, end in enumerate([*begins[1:], tail]):
        row += metadata.row_group(number).num_rows
        if end - since >= wanted or number == len(begins) - 1:
            pieces.append(Piece(((0, _MAGIC), (since, end), (tail, size)), (first, row)))
            since, first = end, row
    return pieces if len(pieces) > 1 else []


def of_lines(path: Path, head: int, are_records: Callable[[bytes], bool]) -> list[Piece]:
    """Return the pieces of a text file; none where it is one, or where it is not certain that records end with lines.

    Args:
        head: Bytes of the header, which goes with each.
        are_records: Whether some lines, of which a record begins the first, are whole records for certain.
    """
    size = path.stat().st_size
    wanted = _wanted(size)
    if wanted >= size:
        return []
    pieces, since, before, lines = list[Piece](), head, 0, 0
    with path.open("rb") as stream:
        stream.seek(head)
        while block := stream.read(min(wanted, _BLOCK)):
            for more in _LINES:
                block += b"".join(stream.readline(_BLOCK) for _ in range(more))
                if are_records(block):
                    break
            else:
                return []
            end = stream.tell()
            if not (block.endswith(b"\n") or end == size):
                return []
            lines += block.count(b"\n")
            if end - since >= wanted or end == size:
                pieces.append(Piece(((0, head), (since, end)), lines=before))
                since, before = end, lines
    return pieces if len(pieces) > 1 else []


def footer(size: int, read: Callable[[int, int], bytes]) -> Piece | None:
    """Return the metadata of a Parquet file as a piece without rows; None where it is none.

    Args:
        read: Returns the bytes from one place to another.
    """
    if size < 3 * _MAGIC:
        return None
    end = read(size - 2 * _MAGIC, size)
    length = int.from_bytes(end[:_MAGIC], "little") + 2 * _MAGIC
    if end[_MAGIC:] != b"PAR1" or length > size - _MAGIC:
        return None
    return Piece(((0, _MAGIC), (size - length, size)))


def _wanted(size: int) -> int:
    """Return how many bytes a piece of a file is to have, so that all have as many."""
    return -(-size // max(1, size // LEAST))


def _bounds(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Return where the pages of a row group begin and end."""
    bounds = []
    for number in range(group.num_columns):
        column = group.column(number)
        begin = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
        bounds.append((begin, begin + column.total_compressed_size))
    return min(begin for begin, _ in bounds), max(end for _, end in bounds)
