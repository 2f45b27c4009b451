"""Aggregates over windows, as users write them, and the SQL that they come down to.

Rows are summed up once an interval; a window adds up intervals. So an aggregate is made of parts that can be added up:
a mean is a sum and a count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from penstock.components._shared.engine import identifier
from penstock.components._shared.errors import UserError
from penstock.components.features.problems import listed

SUM_BITS = 92  # of a value in a sum of whole numbers of 128 bits, which has room for 2^34 rows then
FORMS = "count, sum(x), mean(x), min(x), max(x) or ratio(x, y), which is the sum of x by that of y"


@dataclass(frozen=True)
class Part:
    """What is kept of an interval.

    Attributes:
        function: SQL aggregate that makes it of rows.
        again: SQL aggregate that makes it of intervals.
        column: Column that it is made of; empty: the rows themselves.
    """

    function: str
    again: str
    column: str = ""

    @property
    def value(self) -> str:
        """The SQL of what is made of a row."""
        return f"CAST({identifier(self.column)} AS DOUBLE)"

    def of_rows(self, most: float) -> str:
        """Return the SQL of it over the rows of an interval; the same rows in another order give the same bits.

        Floating-point sums depend on the order, and sorting would take the memory of all rows. So whole numbers of
        128 bits are added up, of a grid 2^92 times as fine as the largest value: exact but for what is below that.

        Args:
            most: The largest absolute value of the column, of those that are finite.
        """
        if not self.column:
            return "count(*)"
        if self.function != "sum":
            return f"{self.function}({self.value})"
        places = max(-1000, min(SUM_BITS - math.frexp(most)[1], 1000))
        whole = f"CASE WHEN isfinite({self.value}) THEN CAST({self.value} * {2.0**places!r} AS HUGEINT) END"
        exact = f"CAST(sum({whole}) AS DOUBLE) * {2.0**-places!r}"
        return f"coalesce(sum({self.value}) FILTER (NOT isfinite({self.value})), {exact})"


@dataclass(frozen=True)
class Aggregate:
    """One aggregate: its parts, and the SQL that makes its value of theirs."""

    parts: tuple[Part, ...]
    value: str
    type: str = "DOUBLE"


def _count() -> Aggregate:
    return Aggregate((Part("count", "sum"),), "CAST(coalesce({0}, 0) AS BIGINT)", "BIGINT")


def _mean(column: str) -> Aggregate:
    return Aggregate((Part("sum", "sum", column), Part("count", "sum", column)), "{0} / nullif({1}, 0)")


def _ratio(above: str, below: str) -> Aggregate:
    return Aggregate((Part("sum", "sum", above), Part("sum", "sum", below)), "{0} / nullif({1}, 0)")


KINDS: Mapping[str, tuple[int, Callable[..., Aggregate]]] = {
    "count": (0, _count),
    "sum": (1, lambda column: Aggregate((Part("sum", "sum", column),), "{0}")),
    "mean": (1, _mean),
    "min": (1, lambda column: Aggregate((Part("min", "min", column),), "{0}")),
    "max": (1, lambda column: Aggregate((Part("max", "max", column),), "{0}")),
    "ratio": (2, _ratio),
}


def parse(aggregates: Mapping[str, str], columns: Collection[str], component: str) -> dict[str, Aggregate]:
    """Return the aggregates by name.

    Args:
        aggregates: What to compute, by the name of the feature.
        columns: Columns that there are.
        component: For errors.

    Raises:
        UserError: One is not of a known form, or names no column.
    """
    if not aggregates:
        raise UserError(component, "aggregates", "there are none", 'Give for example {"trips": "count"}')
    found = {}
    for name, text in aggregates.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(
                component, "aggregates", f"{name!r} cannot be the name of a feature", "Use letters, digits and _"
            )
        form = re.fullmatch(r"(\w+)\s*(?:\(\s*(.*?)\s*\))?", str(text).strip())
        arguments = re.split(r"\s*,\s*", form[2]) if form and form[2] else []
        count, make = KINDS.get(form[1] if form else "", (-1, _count))
        if count != len(arguments):
            raise UserError(component, "aggregates", f"{name}: {text!r} is no known aggregate", f"Write {FORMS}")
        for column in arguments:
            if column not in columns:
                raise UserError(
                    component,
                    "aggregates",
                    f"{name}: there is no column {column!r}",
                    f"The columns are {listed(columns, 40)}",
                )
        found[name] = make(*arguments)
    return found
