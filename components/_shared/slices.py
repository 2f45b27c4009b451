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


@dataclass(frozen=True)
class Rule:
    """By what a column is sliced.

    Attributes:
        names: Of its slices.
        edges: Least value of each bin, where it is cut into bins; else None.
        note: What is folded or binned; empty if nothing is.
    """

    names: tuple[str, ...]
    edges: pa.Array | None
    note: str

    def codes(self, values: pa.Array) -> np.ndarray:
        """Return the place in `names` of the slice that each value is in."""
        values = _flat(values)
        if self.edges is None:
            # A value that is itself called "other" goes where the rest goes; it is the last.
            names = pa.array(self.names, pa.string())
            places = pc.index_in(text_of(values).cast(pa.string()), value_set=names)
            return pc.fill_null(places, len(self.names) - 1).to_numpy(zero_copy_only=False)
        codes = np.full(len(values), len(self.edges))
        for place, edge in enumerate(self.edges):
            codes[pc.fill_null(pc.greater_equal(values, edge), False).to_numpy(zero_copy_only=False)] = place
        return codes


def rule_of(column: pa.ChunkedArray, name: str, component: str, argument: str) -> Rule:
    """Return by what a column is sliced; see cut()."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise UserError(component, argument, f"{name!r} is {kind}", "Slice by a column of text, numbers or times")
    flat = _flat(column)
    counts = pc.value_counts(text_of(flat))
    distinct = len(counts)
    ordered = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if distinct > MOST and (ordered or pa.types.is_temporal(kind)):
        edges, names = _bins(flat)
        return Rule(
            (*names, *((NULL,) if flat.null_count else ())), edges, f"{distinct:,} distinct values, cut into bins"
        )
    if distinct <= MOST:
        present = pc.unique(flat)
        names = pc.fill_null(_text(present.take(pc.sort_indices(present))), NULL).unique().to_pylist()
        return Rule(tuple(names), None, "")
    largest = sorted(counts.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    kept = [entry for entry in largest if entry["values"] != OTHER][:MOST]
    folded = len(flat) - sum(entry["counts"] for entry in kept)
    note = f"{distinct:,} distinct values; the {distinct - MOST:,} smallest are {OTHER!r}, {folded:,} rows"
    return Rule((*(entry["values"] for entry in kept), OTHER), None, note)


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
    rule = rule_of(column, name, component, argument)
    codes = rule.codes(column)
    slices = [Slice(name, value, np.flatnonzero(codes == place)) for place, value in enumerate(rule.names)]
    return Sliced(tuple(slices), text_of(_flat(column)), rule.note)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece and without a dictionary, NaN as null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return _without_nan(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


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


def _bins(values: pa.Array) -> tuple[pa.Array, list[str]]:
    """Return the least value of each bin, and how the bins are called."""
    order = pc.sort_indices(values).to_numpy()[: len(values) - values.null_count]
    # Each bin starts with the value of a row, so that equal values share a bin.
    starts = values.take(pa.array(order[np.arange(BINS) * len(order) // BINS]))
    edges = pc.unique(starts)
    return edges, _labels(edges, values.take(pa.array(order[-1:])))


def _labels(edges: pa.Array, top: pa.Array) -> list[str]:
    ends = [*_text(edges).to_pylist(), _text(top)[0].as_py()]
    if pa.types.is_floating(edges.type):
        short = [f"{float(end):.6g}" for end in ends]
        ends = short if len(set(short)) == len(set(ends)) else ends
    below = [f"[{low}, {high})" for low, high in itertools.pairwise(ends[:-1])]
    return [*below, f"[{ends[-2]}, {ends[-1]}]"]
