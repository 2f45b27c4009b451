"""Types of columns: found from sampled text, and read so that nothing is lost in silence.

DuckDB reads '1.5' into a BIGINT as 2 and '2019-01-02 12:00' into a DATE without its time. So whole numbers are read as
DOUBLE and dates as TIMESTAMP, and what does not fit is an error, not a rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa

from penstock.components._shared.arrow import numbers, truths
from penstock.components._shared.engine import identifier
from penstock.components.ingestion.problems import listed, problem

WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "UHUGEINT",
)
EXACT = 2**53  # whole numbers up to here are exact in a DOUBLE
MARK = "penstock:"

_INTEGER = r"[-+]?(0|[1-9][0-9]*)"
_SHORT_INTEGER = r"[-+]?[0-9]{1,18}"
_NUMBER = r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|(?i:[-+]?(nan|inf|infinity))"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
_ZONE = r" ?(Z|UTC|[-+][0-9]{2}(:?[0-9]{2})?)"


@dataclass(frozen=True)
class Column:
    """One column of CSV or JSON Lines files.

    What its rows were found to hold only adds up, so that its type does not depend on which row was read first.

    Attributes:
        first: SQL type that the user gave, or the sample showed.
        given: Whether the user named the type, rather than the sample.
        large: Whether it holds whole numbers that a DOUBLE cannot tell apart.
        misfit: Whether it holds values that its first type would lose: fractions, or times of day.
    """

    name: str
    first: str
    given: bool = False
    large: bool = False
    misfit: bool = False

    @property
    def type(self) -> str:
        """SQL type it has in the table `source`."""
        if not self.misfit:
            return self.first
        if self.first not in WHOLE:
            return "TIMESTAMP"
        return "VARCHAR" if self.large else "DOUBLE"

    @property
    def is_text_of_numbers(self) -> bool:
        """Whether numbers are read as text, which by itself takes what is no number, too."""
        return not self.given and self.first in WHOLE and self.read_as == "VARCHAR"

    @property
    def read_as(self) -> str:
        """SQL type that the reader makes of the text."""
        if self.type in WHOLE:
            return "VARCHAR" if self.large else "DOUBLE"
        return "TIMESTAMP" if self.type == "DATE" else self.type

    def value(self, number: int, bare: bool = False) -> str:
        """Return the SQL of its value, from what was read; a value that would be lost is an error with a mark.

        Args:
            number: Of the column, told in the error.
            bare: Leave whole numbers to fitted().
        """
        name = identifier(self.name)
        if bare and self.is_left_to_fitted:
            return name
        misfit = f"error('{MARK}misfit:{number}')"
        no_number = f"WHEN TRY_CAST({name} AS DOUBLE) IS NULL THEN error('{MARK}text')" if not self.given else ""
        if self.type in WHOLE and self.large:
            cast = f"TRY_CAST({name} AS {self.type})"
            whole = f"regexp_full_match(trim({name}), '[-+]?[0-9]+')"
            fits = f"WHEN {whole} AND {cast} IS NOT NULL THEN {cast}"
            return f"CASE WHEN {name} IS NULL THEN NULL {fits} {no_number} ELSE {misfit} END"
        if self.is_text_of_numbers:
            return f"CASE WHEN {name} IS NULL THEN NULL {no_number} ELSE {name} END"
        large = f"abs({name}) >= {EXACT} AND isfinite({name})"
        if self.first in WHOLE and self.misfit:
            return f"CASE WHEN {large} THEN error('{MARK}large:{number}') ELSE {name} END"
        if self.type in WHOLE:
            # Most numbers fit an INTEGER, and that is the cheapest test.
            small, cast = f"TRY_CAST({name} AS INTEGER)", f"TRY_CAST({name} AS {self.type})"
            cases = {
                f"{small} = {name}": f"CAST({small} AS {self.type})" if self.type == "BIGINT" else cast,
                f"{name} IS NULL": "NULL",
                large: f"error('{MARK}large:{number}')",
                f"{cast} = {name}": cast,
            }
            return f"CASE {' '.join(f'WHEN {test} THEN {value}' for test, value in cases.items())} ELSE {misfit} END"
        if self.type == "DATE":
            return f"CASE WHEN {name} = {name}::DATE THEN {name}::DATE WHEN {name} IS NULL THEN NULL ELSE {misfit} END"
        return name

    @property
    def is_left_to_fitted(self) -> bool:
        """Whether fitted() can do what value() does."""
        return self.type == "BIGINT" and not self.large

    def misfits(self, text: str) -> str:
        """Return the SQL of whether a text, not null, is no value of this column.

        Args:
            text: SQL of the text.
        """
        if not self.given:  # a value that only needs a wider type is not bad; see adjusted()
            return f"TRY_CAST({text} AS {'DOUBLE' if self.is_text_of_numbers else self.read_as}) IS NULL"
        lost = f"TRY_CAST({text} AS {self.type}) IS NULL"
        if self.type in WHOLE and self.large:
            return f"({lost} OR NOT regexp_full_match(trim({text}), '[-+]?[0-9]+'))"
        if self.type in WHOLE:
            number = f"TRY_CAST({text} AS DOUBLE)"
            return f"({lost} OR {number} IS NULL OR {number} <> trunc({number}))"
        if self.type == "DATE":
            return f"({lost} OR TRY_CAST({text} AS TIMESTAMP) <> TRY_CAST({text} AS DATE))"
        return lost


class Misfit(Exception):
    """A value would be lost; the message bears a mark, as that of DuckDB does."""


def fitted(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Return rows that were read bare with the types of their columns, at a fifth of what it costs in SQL.

    Raises:
        Misfit: A number in a column of whole ones is none, or too large to be sure.
    """
    arrays = list(batch.columns)
    for number, (array, column) in enumerate(zip(batch.columns, columns, strict=True)):
        if not column.is_left_to_fitted:
            continue
        validity, data = array.buffers()
        values = np.frombuffer(data, np.float64, len(array), array.offset * 8)
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int64)
            large = ~(np.abs(values) < EXACT)
            if large.any():
                large &= np.isfinite(values)  # the others are misfits
            for mark, wrong in (("large", large), ("misfit", whole != values)):
                if wrong.any() and (wrong & truths(array.is_valid())).any():
                    raise Misfit(f"{MARK}{mark}:{number}")
        if array.null_count == 0:
            arrays[number] = numbers(whole)
        elif array.offset == 0:
            arrays[number] = pa.Array.from_buffers(pa.int64(), len(array), [validity, pa.py_buffer(whole)])
        else:
            arrays[number] = pa.array(whole, mask=array.is_null().to_numpy(zero_copy_only=False))
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def adjusted(columns: tuple[Column, ...], error: BaseException) -> tuple[Column, ...] | None:
    """Return the columns, one of them read more widely, if the error bears a mark that asks for it."""
    found = re.search(MARK + r"(large|misfit):(\d+)", str(error))
    if not found:
        return None
    number = int(found[2])
    column = columns[number]
    if found[1] == "misfit" and column.given:
        return None
    wider = replace(column, large=True) if found[1] == "large" else replace(column, misfit=True)
    return (*columns[:number], wider, *columns[number + 1 :])


def joined(several: Iterable[tuple[Column, ...]]) -> tuple[Column, ...]:
    """Return the columns of some files as those of all of them: as wide as any of them needs."""
    return tuple(
        replace(same[0], large=any(column.large for column in same), misfit=any(column.misfit for column in same))
        for same in zip(*several, strict=True)
    )


def given_types(columns: Mapping[str, str]) -> dict[str, str]:
    """Return DuckDB's own spelling of the SQL types in `columns`.

    Raises:
        UserError: One is no SQL type.
    """
    known = {}
    for name, text in columns.items():
        try:
            known[name] = str(duckdb.sqltype(text))
            if known[name] in ("NULL", '"NULL"', "INVALID"):
                raise duckdb.InvalidInputException(known[name])
        except duckdb.Error:
            types = "BIGINT, DOUBLE, DECIMAL(18,2), VARCHAR, BOOLEAN, DATE, TIMESTAMP, TIMESTAMPTZ"
            raise problem("columns", f"{name}: {text!r} is not a SQL type", f"Give one like {types}") from None
    return known


def choose(names: list[str], inferred: Mapping[str, str], given: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns of all files together, given types first.

    Raises:
        UserError: `given` names a column that is in no file.
    """
    by_name = {name.casefold(): name for name in names}
    for name in given:
        if name.casefold() not in by_name:
            raise problem("columns", f"there is no column {name!r}", f"The columns are {listed(names)}")
    wanted = {by_name[name.casefold()]: type for name, type in given.items()}
    return tuple(
        Column(name, wanted[name], given=True) if name in wanted else Column(name, inferred.get(name, "VARCHAR"))
        for name in names
    )


# SQL of whether a TEXT, not null, looks like a value of a kind. Stricter than casts: '007' is no number.
TESTS = {
    "boolean": "regexp_full_match(TEXT, '(?i)true|false')",
    "integer": f"regexp_full_match(TEXT, '{_INTEGER}')",
    "short": f"regexp_full_match(TEXT, '{_SHORT_INTEGER}')",
    "number": f"regexp_full_match(TEXT, '{_NUMBER}')",
    "date": f"regexp_full_match(TEXT, '{_DATE}') AND TRY_CAST(TEXT AS DATE) IS NOT NULL",
    "time": f"regexp_full_match(TEXT, '{_DATE}({_TIME})?') AND TRY_CAST(TEXT AS TIMESTAMP) IS NOT NULL",
    "zoned": f"regexp_full_match(TEXT, '{_DATE}{_TIME}{_ZONE}') AND TRY_CAST(TEXT AS TIMESTAMPTZ) IS NOT NULL",
}


class Evidence:
    """What samples say of the types of columns; a column without a value in a sample says nothing."""

    def __init__(self) -> None:
        self.passed: dict[str, set[str]] = {}

    def add(self, connection: duckdb.DuckDBPyConnection, names: list[str], sample: str) -> int:
        """Take a sample into account.

        Args:
            names: Columns of the sample.
            sample: SQL of a table of them, all VARCHAR.

        Returns:
            The number of rows in the sample.
        """
        selected = ["count(*)"]
        for name in names:
            column = identifier(name)
            selected.append(f"count({column})")
            selected += [
                f"bool_and({test.replace('TEXT', f'trim({column})')}) FILTER (WHERE {column} IS NOT NULL)"
                for test in TESTS.values()
            ]
        row = connection.execute(f"SELECT {', '.join(selected)} FROM {sample}").fetchall()[0]
        width = 1 + len(TESTS)
        for place, name in enumerate(names):
            values, *passed = row[1 + place * width : 1 + (place + 1) * width]
            if values:
                self.keep(name, {test for test, result in zip(TESTS, passed, strict=True) if result})
        return int(row[0])

    def keep(self, name: str, passed: set[str]) -> None:
        """Take into account which tests the values of a column passed in a sample."""
        self.passed[name] = self.passed.get(name, passed) & passed

    def types(self) -> dict[str, str]:
        """Return the narrowest SQL type that fits, by column; columns without a value are left out."""
        return {name: self._type(passed) for name, passed in self.passed.items()}

    @staticmethod
    def _type(passed: set[str]) -> str:
        if "boolean" in passed:
            return "BOOLEAN"
        if "integer" in passed:  # one too long for BIGINT is a name made of digits, not a quantity
            return "BIGINT" if "short" in passed else "VARCHAR"
        for test, kind in (("number", "DOUBLE"), ("date", "DATE"), ("time", "TIMESTAMP"), ("zoned", "TIMESTAMPTZ")):
            if test in passed:
                return kind
        return "VARCHAR"
