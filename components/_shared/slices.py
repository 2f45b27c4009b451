"""Slices: the rows of a dataset by the value of a column."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components._shared.errors import UserError

MOST = 20  # slices of a column, beside "other"
BINS = 5  # of a number or a time with more distinct values than that
NULL, OTHER = "null", "other"
_COUNTED = 1 << 20  # entries of counts that are kept before those of one value become one


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


@dataclass(frozen=True)
class Counts:
    """How many rows of a column have which value.

    Attributes:
        values: Each once, of the column's type without its dictionary; null and NaN are null.
        rows: Of each value.
    """

    values: pa.Array
    rows: np.ndarray


def counts_of(column: Iterable[pa.Array | pa.ChunkedArray], name: str, component: str, argument: str) -> Counts:
    """Count the values of a column, of which no more than a piece at a time has to be in memory.

    Args:
        column: Its pieces, one at least.
        name: Its name.
        component: Who asks, for errors.
        argument: Argument that asked for it.

    Raises:
        UserError: The column is of a type that has no values to go by.
    """
    waiting: list[pa.Table] = []
    for piece in column:
        kind = piece.type.value_type if pa.types.is_dictionary(piece.type) else piece.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise UserError(component, argument, f"{name!r} is {kind}", "Slice by a column of text, numbers or times")
        found = pc.value_counts(_flat(piece))
        waiting.append(pa.table({"value": found.field("values"), "rows": found.field("counts")}))
        if sum(map(len, waiting)) > _COUNTED + 2 * len(waiting[0]):
            waiting = [_counted(waiting)]
    whole = _counted(waiting)
    return Counts(whole["value"].combine_chunks(), whole["rows"].to_numpy())


def _counted(tables: list[pa.Table]) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    grouped = pa.concat_tables(tables).group_by("value").aggregate([("rows", "sum")])
    return grouped.select(["value", "rows_sum"]).rename_columns(["value", "rows"])


def rule_of(counts: Counts) -> Rule:
    """Return by what a column of such values is sliced; see cut()."""
    kind, texts = counts.values.type, text_of(counts.values)
    distinct = pc.count_distinct(texts).as_py()
    ordered = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if distinct > MOST and (ordered or pa.types.is_temporal(kind)):
        edges, names = _bins(counts)
        nulls = (NULL,) if counts.values.null_count else ()
        return Rule((*names, *nulls), edges, f"{distinct:,} distinct values, cut into bins")
    if distinct <= MOST:
        names = texts.take(pc.sort_indices(counts.values)).unique().to_pylist()
        return Rule(tuple(names), None, "")
    rows = pa.table({"text": texts, "rows": counts.rows}).group_by("text").aggregate([("rows", "sum")]).to_pylist()
    largest = sorted(rows, key=lambda entry: (-entry["rows_sum"], entry["text"]))
    kept = [entry for entry in largest if entry["text"] != OTHER][:MOST]
    folded = int(counts.rows.sum()) - sum(entry["rows_sum"] for entry in kept)
    note = f"{distinct:,} distinct values; the {distinct - MOST:,} smallest are {OTHER!r}, {folded:,} rows"
    return Rule((*(entry["text"] for entry in kept), OTHER), None, note)


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
    rule = rule_of(counts_of([column], name, component, argument))
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


def _bins(counts: Counts) -> tuple[pa.Array, list[str]]:
    """Return the least value of each bin, and how the bins are called."""
    order = pc.sort_indices(counts.values).to_numpy()[: len(counts.values) - counts.values.null_count]
    seen = np.cumsum(counts.rows[order])
    # Each bin starts with the value of a row, so that equal values share a bin.
    starts = order[np.searchsorted(seen, np.arange(BINS) * seen[-1] // BINS, side="right")]
    edges = pc.unique(counts.values.take(pa.array(starts)))
    return edges, _labels(edges, counts.values.take(pa.array(order[-1:])))


def _labels(edges: pa.Array, top: pa.Array) -> list[str]:
    ends = [*_text(edges).to_pylist(), _text(top)[0].as_py()]
    if pa.types.is_floating(edges.type):
        short = [f"{float(end):.6g}" for end in ends]
        ends = short if len(set(short)) == len(set(ends)) else ends
    below = [f"[{low}, {high})" for low, high in itertools.pairwise(ends[:-1])]
    return [*below, f"[{ends[-2]}, {ends[-1]}]"]
