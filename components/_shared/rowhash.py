"""Row hashes: 64 bits from the values of a row, defined here and not by any engine, so that they never change.

The splits of data and the fingerprints of datasets rest on them.

    word of a value     whole numbers of any type: the number (3 and 3.0 are the same); other floats: the bits of the
                        IEEE 754 double, all NaNs alike; true 1, false 0; dates and timestamps: microseconds since
                        1970 as they stand, UTC where there is a time zone; times: microseconds since midnight;
                        text and bytes: the sum of (byte + 1) * BASE**position over the bytes, text in UTF-8 [1];
                        decimals: of their text; anything else: of the text of its JSON
    part of a column    mix(word ^ seed), the seed being the first eight bytes, little-endian, of the SHA-256 of the
                        column's name; null has the part 0, so it differs from '' and from 0
    hash of a row       mix(sum of the parts)

All arithmetic is modulo 2**64; mix is the finalizer of SplitMix64 [2]. Neither the order of the columns nor a new
column that is null for a row changes its hash. It tells rows apart; it does not withstand somebody who looks for
two rows of the same hash.

[1] Karp, Rabin: Efficient randomized pattern-matching algorithms. IBM J. Res. Dev. 31 (1987).
[2] Steele, Lea, Flood: Fast splittable pseudorandom number generators. OOPSLA 2014.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from penstock.components._shared.arrow import truths, values_of

BASE = 0x9E3779B97F4A7C15
NAN = 0x7FF8000000000000
_MASK = 2**64 - 1
_BLOCK = 1 << 16  # bytes of text hashed at once; the tables of powers are as long


def row_hashes(batch: pa.RecordBatch, columns: Sequence[str] | None = None) -> np.ndarray:
    """Return the hash of every row, uint64.

    Args:
        batch: Rows.
        columns: Those that count; None for all.
    """
    total = np.zeros(batch.num_rows, np.uint64)
    for name in batch.schema.names if columns is None else columns:
        column = batch.column(name)
        if column.null_count == len(column):
            continue
        part = _words(column)
        part ^= np.uint64(_seed(name))
        _mix(part)
        if column.null_count:
            part *= truths(column.is_valid())
        total += part
    return _mix(total)


@dataclass(frozen=True)
class RowDigest:
    """A multiset of rows: what is left of their hashes when their order is forgotten; digests add up.

    Addition and exclusive or of element hashes, as in Clarke et al.: Incremental multiset hash functions and their
    application to memory integrity checking. ASIACRYPT 2003.
    """

    rows: int = 0
    total: int = 0
    exclusive_or: int = 0

    @classmethod
    def of(cls, hashes: np.ndarray) -> RowDigest:
        """Return the digest of rows of these hashes."""
        return cls(len(hashes), int(hashes.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(hashes)))

    def __add__(self, other: RowDigest) -> RowDigest:
        return RowDigest(
            self.rows + other.rows, (self.total + other.total) & _MASK, self.exclusive_or ^ other.exclusive_or
        )

    def fingerprint(self, schema: pa.Schema) -> str:
        """Return 64 hex digits that stand for these rows with these columns, whatever the order of the rows."""
        content = {
            "rows": self.rows,
            "sum": self.total,
            "xor": self.exclusive_or,
            "columns": [[field.name, str(field.type)] for field in schema],
        }
        text = "penstock.rows/1\n" + json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _mix(words: np.ndarray) -> np.ndarray:
    shifted = np.empty_like(words)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.right_shift(words, np.uint64(shift), out=shifted)
        words ^= shifted
        words *= np.uint64(factor)
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted
    return words


@functools.cache
def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _words(column: pa.Array) -> np.ndarray:
    """Return a new array of the words; what it holds for nulls does not matter."""
    kind = column.type
    if types.is_dictionary(kind):
        return _words(column.dictionary_decode())
    if types.is_boolean(kind):
        return values_of(column.cast(pa.uint8()).cast(pa.int64()), np.uint64).copy()
    if types.is_uint64(kind):
        return values_of(column, np.uint64).copy()
    if types.is_integer(kind):
        return values_of(column.cast(pa.int64()), np.uint64).copy()
    if types.is_floating(kind):
        return _floats(values_of(column.cast(pa.float64()), np.float64))
    if types.is_date(kind) or types.is_timestamp(kind):
        zone = kind.tz if types.is_timestamp(kind) else None
        return values_of(column.cast(pa.timestamp("us", zone), safe=False), np.uint64).copy()
    if types.is_time(kind):
        return values_of(column.cast(pa.time64("us"), safe=False), np.uint64).copy()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _texts(column.cast(pa.large_binary()))
    if types.is_decimal(kind) or types.is_string_view(kind) or types.is_large_string(kind) or types.is_string(kind):
        return _texts(column.cast(pa.large_string()))
    values = (json.dumps(value, sort_keys=True, default=str) for value in column.to_pylist())
    return _texts(pa.array(values, pa.large_string()))


def _floats(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
        words = np.where(whole == values, whole, values.view(np.int64)).view(np.uint64)
        if len(values) and not values.max() < 2.0**62:  # NaNs are alike, and beyond 2**63 processors differ
            odd = ~(np.abs(values) < 2.0**62)
            words[odd] = np.where(np.isnan(values[odd]), NAN, values[odd].view(np.int64)).view(np.uint64)
    return words


@functools.cache
def _powers(base: int) -> np.ndarray:
    powers = np.full(_BLOCK + 1, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _texts(column: pa.Array) -> np.ndarray:
    _, offsets_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, len(column) + 1, column.offset * 8)
    data = np.frombuffer(data_buffer or b"", np.uint8)
    words = np.empty(len(column), np.uint64)
    start = 0
    while start < len(column):
        end = int(np.searchsorted(offsets, offsets[start] + _BLOCK, side="right")) - 1
        if end <= start:
            words[start] = _long_text(data[offsets[start] : offsets[start + 1]])
            start += 1
            continue
        # With sums[i] over the bytes before i, a text from a to b has the word (sums[b] - sums[a]) / BASE**a;
        # BASE is odd, so it has an inverse.
        places = offsets[start : end + 1] - offsets[start]
        sums = np.zeros(places[-1] + 1, np.uint64)
        np.cumsum(_terms(data[offsets[start] : offsets[end]]), out=sums[1:])
        words[start:end] = np.diff(sums[places]) * _powers(pow(BASE, -1, 2**64))[places[:-1]]
        start = end
    return words


def _terms(data: np.ndarray) -> np.ndarray:
    terms = data.astype(np.uint64)
    terms += np.uint64(1)
    terms *= _powers(BASE)[: len(data)]
    return terms


def _long_text(data: np.ndarray) -> int:
    word = 0
    for place in range(0, len(data), _BLOCK):
        word += int(_terms(data[place : place + _BLOCK]).sum(dtype=np.uint64)) * pow(BASE, place, 2**64)
    return word & _MASK
