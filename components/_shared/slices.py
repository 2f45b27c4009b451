"""Slices: the rows of a dataset by the value of a column."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components._shared.errors import UserError

MOST = 20  # slices of a column, beside "other"
BINS = 5  # of a number or a time with more distinct values than that
NULL, OTHER = "null", "other"


@dataclass(frozen=True)
class Slice:
    """Some rows.

    Attributes:
        name: Value of the column as text, the range of a bin, "null" or "other".
        places: Row numbers.
    """

    column: str
    name: str
    places: np.ndarray


@dataclass(frozen=True)
class Sliced:
    """A column's slices.

    Attributes:
        slices: Which together hold every row once.
        values: Each row's value as text.
        note: What was folded or binned; empty if nothing was.
    """

    slices: tuple[Slice, ...]
    values: pa.Array
    note: str

    def named(self, column: str, name: str) -> Slice:
        """Return the slice of that name, or the rows of that value where it has no slice of its own."""
        for found in self.slices:
            if found.name == name:
                return found
        return Slice(column, name, np.flatnonzero(pc.equal(self.values, name).to_numpy(zero_copy_only=False)))


def cut(column: pa.ChunkedArray, name: str, component: str, argument: str) -> Sliced:
    """Return the slices of a column in ascending order, or the largest first where not all have one of their own.

    Null and NaN are the slice "null". A number or a time with more than MOST distinct values is cut into BINS bins that
    hold about as many rows each; of any other column with more values the MOST largest stand for themselves and the
    rest together are "other".

    Args:
        column: Values of all rows.
        name: The column's name.
        component: Who asks, for errors.
        argument: Argument that asked for it.

    Raises:
        UserError: The column is of a type that has no values to go by.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise UserError(component, argument, f"{name!r} is {kind}", "Slice by a column of text, numbers or times")
    flat = _without_nan(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    values = text_of(flat)
    counts = pc.value_counts(values)
    distinct = len(counts)
    ordered = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if distinct > MOST and (ordered or pa.types.is_temporal(kind)):
        return Sliced(_bins(flat, name), values, f"{distinct:,} distinct values, cut into bins")
    largest = sorted(counts.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    # A value that is itself called "other" goes where the rest goes.
    kept = [entry["values"] for entry in largest if entry["values"] != OTHER][:MOST]
    if distinct <= MOST:
        present = pc.unique(flat)
        kept = pc.fill_null(_text(present.take(pc.sort_indices(present))), NULL).unique().to_pylist()
    codes = pc.fill_null(pc.index_in(values, value_set=pa.array(kept, values.type)), len(kept)).to_numpy()
    slices = [Slice(name, value, np.flatnonzero(codes == place)) for place, value in enumerate(kept)]
    if distinct <= MOST:
        return Sliced(tuple(slices), values, "")
    slices.append(Slice(name, OTHER, np.flatnonzero(codes == len(kept))))
    folded = len(slices[-1].places)
    note = f"{distinct:,} distinct values; the {distinct - MOST:,} smallest are {OTHER!r}, {folded:,} rows"
    return Sliced(tuple(slices), values, note)


def text_of(values: pa.Array) -> pa.Array:
    """Return values as text, as slices are named; null and NaN are "null"."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return pc.fill_null(_text(_without_nan(values)), NULL)


def _without_nan(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _text(values: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(values.type):
        text = pc.replace_substring_regex(values.cast(pa.string()), r"\.0+(Z?)$", r"\1")
        return pc.replace_substring(text, " ", "T", max_replacements=1)
    return values.cast(pa.string())


def _bins(values: pa.Array, name: str) -> tuple[Slice, ...]:
    present = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
    order = pc.sort_indices(values).to_numpy()[: len(present)]
    # Each bin starts with the value of a row, so that equal values share a bin.
    starts = values.take(pa.array(order[np.arange(BINS) * len(order) // BINS]))
    edges = pc.unique(starts)
    texts = _labels(edges, values.take(pa.array(order[-1:])))
    bin_of = np.full(len(values), -1)
    for place, edge in enumerate(edges):
        reached = pc.fill_null(pc.greater_equal(values, edge), False).to_numpy(zero_copy_only=False)
        bin_of[reached] = place
    slices = [Slice(name, text, np.flatnonzero(bin_of == place)) for place, text in enumerate(texts)]
    if len(present) < len(values):
        slices.append(Slice(name, NULL, np.flatnonzero(bin_of < 0)))
    return tuple(slices)


def _labels(edges: pa.Array, top: pa.Array) -> list[str]:
    ends = [*_text(edges).to_pylist(), _text(top)[0].as_py()]
    if pa.types.is_floating(edges.type):
        short = [f"{float(end):.6g}" for end in ends]
        ends = short if len(set(short)) == len(set(ends)) else ends
    below = [f"[{low}, {high})" for low, high in itertools.pairwise(ends[:-1])]
    return [*below, f"[{ends[-2]}, {ends[-1]}]"]
