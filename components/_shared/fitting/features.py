"""Features: the columns to learn from, and how each is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.survey import Column
from penstock.components._shared.tabular import encode

MAX_CATEGORIES = 1000


@dataclass(frozen=True)
class Feature:
    """A column to learn from.

    Attributes:
        kind: "number", "boolean" or "category"; "text" where texts are hashed into bins. Of what a transform graph
            reads, "text" is as it is, and integers are "whole".
        optional: Whether values are missing in the data, so that they may be missing later.
        whole: Whether it holds integers.
        categories: Texts in sorted order; of a category only.
        bins: Of a text that is hashed only.
    """

    name: str
    kind: str
    optional: bool
    whole: bool = False
    categories: tuple[str, ...] = ()
    bins: int = 0

    def description(self) -> dict[str, Any]:
        """Return its entry of features.json."""
        entry: dict[str, Any] = {"name": self.name, "kind": self.kind, "optional": self.optional}
        entry |= {"categories": list(self.categories)} if self.kind == "category" else {}
        return entry | ({"bins": self.bins} if self.bins else {})


def choose_columns(
    columns: Sequence[str], target: str, weight_column: str, features: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """Return the columns to learn from, in the dataset's order where `features` gives none.

    Raises:
        UserError: A name is no column, is the target or the weight, is given twice or excluded too; or none is left.
    """
    for argument, names in (("features", features), ("exclude", exclude)):
        for name in names:
            if name not in columns:
                raise UserError(
                    "train", argument, f"there is no column {name!r}", f"The columns are {', '.join(columns)}"
                )
    for name in features:
        if name in (target, weight_column):
            raise UserError("train", "features", f"{name!r} is the target or the weight", "Leave it out")
        if name in exclude:
            raise UserError("train", "features", f"{name!r} is in exclude too", "Name it in one of the two")
    if len(set(features)) < len(features):
        raise UserError("train", "features", "a column is named twice", "Name each once")
    others = {target, weight_column, *exclude}
    chosen = list(features) or [name for name in columns if name not in others]
    if not chosen:
        raise UserError("train", "features", "no column is left to learn from", "Exclude fewer columns")
    return chosen


def learn_features(
    train: Mapping[str, Column],
    evaluation: Mapping[str, Column],
    names: Sequence[str],
    max_categories: int | None,
    hash_bins: int = 0,
) -> tuple[Feature, ...]:
    """Return how each column is read; categories are those of the training rows.

    Args:
        train: What is known of the training rows, columns of text counted.
        max_categories: Keep only so many categories, the most frequent; the others are read as missing.
        hash_bins: Bins to hash identifiers into; 0: they are refused.

    Raises:
        UserError: A column is of a type that is not learned from, holds infinite values, or is an identifier.
    """
    kinds = {name: _kind(train[name].type) for name in names}
    refused = [name for name in names if not kinds[name]]
    if refused:
        types = ", ".join(f"{name!r} ({train[name].type})" for name in refused)
        raise UserError(
            "train",
            "features",
            f"columns of these types are not learned from: {types}",
            f"Derive numbers or text from them in ingest's query, such as hour(x), or add to exclude: {refused}",
        )
    for name in names:
        other = evaluation[name].type
        if _kind(other) != kinds[name]:
            raise UserError(
                "train",
                "eval_set",
                f"column {name!r} is {other}, but {train[name].type} in train_set",
                "Ingest both sets in one step",
            )
    for argument, columns in (("train_set", train), ("eval_set", evaluation)):
        infinite = [name for name in names if columns[name].infinite]
        if infinite:
            raise UserError(
                "train",
                argument,
                f"columns hold infinite values: {', '.join(infinite)}",
                "Make them null, or filter the rows, in ingest's query",
            )
    categories = {name: _categories(train[name]) for name in names if kinds[name] == "category"}
    identifiers = [name for name, texts in categories.items() if is_identifier(len(texts), train[name].rows)]
    if hash_bins:
        kinds |= dict.fromkeys(identifiers, "text")
    elif identifiers:
        counts = ", ".join(f"{name!r} has {len(categories[name]):,}" for name in identifiers)
        raise UserError(
            "train",
            "features",
            f"too many distinct texts in {train[names[0]].rows:,} rows to learn from: {counts}",
            f"Group the values in ingest's query, or add to exclude: {identifiers}",
        )
    return tuple(
        Feature(
            name=name,
            kind=kinds[name],
            optional=bool(train[name].missing or evaluation[name].missing),
            whole=pa.types.is_integer(train[name].type),
            categories=tuple(sorted(categories[name][:max_categories])) if kinds[name] == "category" else (),
            bins=hash_bins if kinds[name] == "text" else 0,
        )
        for name in names
    )


def matrix(table: pa.Table, features: Sequence[Feature]) -> np.ndarray:
    """Return the matrix that a model reads, encoded by the code that travels with the model."""
    columns = {}
    for feature in features:
        column = table[feature.name]
        columns[feature.name] = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
    return encode([feature.description() for feature in features], pa.table(columns).to_pandas())


def native_names(features: Sequence[Feature]) -> tuple[str, ...]:
    """Return names that every framework takes; they refuse brackets, quotes, commas, colons and spaces."""
    names: list[str] = []
    for feature in features:
        plain = re.sub(r"[^\w.-]", "_", feature.name)
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
    return tuple(names)


def is_identifier(distinct: int, rows: int) -> bool:
    """Whether text with so many distinct values tells rows apart rather than groups them."""
    return distinct > MAX_CATEGORIES or (distinct > 100 and distinct > rows / 2)


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if is_text(kind):
        return "category"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return ""


def _categories(column: Column) -> list[str]:
    """Return the texts of a column, the most frequent first."""
    return sorted(column.counts, key=lambda text: (-column.counts[text], text))
