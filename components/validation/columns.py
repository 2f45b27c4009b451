"""The columns of a dataset as SQL: which values they hold, and as what they are described."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from penstock.components._shared.errors import UserError

INT, FLOAT, STRING = (
    statistics_pb2.FeatureNameStatistics.INT,
    statistics_pb2.FeatureNameStatistics.FLOAT,
    statistics_pb2.FeatureNameStatistics.STRING,
)
# DuckDB type, without its parameters: type in the statistics, SQL of the value.
_TYPES: dict[str, tuple[int, str]] = {
    "BOOLEAN": (INT, "{}::TINYINT"),
    **{
        f"{sign}{size}": (INT, "{}")
        for sign in ("", "U")
        for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
    },
    "FLOAT": (FLOAT, "{}::DOUBLE"),
    "DOUBLE": (FLOAT, "{}"),
    "DECIMAL": (FLOAT, "{}::DOUBLE"),
    "VARCHAR": (STRING, "{}"),
    "BLOB": (STRING, "{}"),
    "UUID": (STRING, "{}::VARCHAR"),
    "DATE": (INT, "date_diff('day', DATE '1970-01-01', {})"),
    "TIME": (INT, "epoch_us({})"),
    "TIMESTAMP": (INT, "epoch_us({})"),
    "TIMESTAMP_S": (INT, "epoch_us({})"),
    "TIMESTAMP_MS": (INT, "epoch_us({})"),
    "TIMESTAMP_NS": (INT, "epoch_us({})"),
    "TIMESTAMP WITH TIME ZONE": (INT, "epoch_us({})"),
}
_TEXT_IF_SO_DECLARED = ("BOOLEAN", "DATE", "TIME", "TIMESTAMP")


@dataclass(frozen=True)
class Column:
    """A column as it is described.

    Attributes:
        type: INT, FLOAT or STRING of FeatureNameStatistics.
        counted: Described by its values' frequencies, not by moments and quantiles.
        binary: The values are bytes that need not be UTF-8.
        listed: A row holds a list of values.
        relation: SQL of the relation that holds the values as `value`, with `file` and `row`.
        cell: SQL of the column in the relation of rows.
        values: SQL of a row's values in the relation of rows, not yet counted: a list, NULL where it is missing.
    """

    name: str
    type: int
    counted: bool
    binary: bool
    listed: bool
    relation: str
    value: str
    cell: str
    values: str


def columns(connection: duckdb.DuckDBPyConnection, schema: schema_pb2.Schema | None) -> list[Column]:
    """Return the columns of the view `rows`, in order.

    Args:
        connection: From `rows.connect`.
        schema: Says which numbers are categorical, and which times are text. None: neither.

    Raises:
        UserError: A column is of a type that cannot be described.
    """
    declared = {feature.name: feature for feature in schema.feature} if schema else {}
    found = []
    for i, (name, type_name, *_) in enumerate(connection.execute("DESCRIBE parts").fetchall()):
        listed = bool(re.fullmatch(r".*[^\]]\[\d*\]", type_name))
        item = re.sub(r"\[\d*\]$", "", type_name) if listed else type_name
        physical = "VARCHAR" if item.startswith("ENUM(") else re.sub(r"\(\d+,\d+\)$", "", item)
        if physical not in _TYPES:
            raise UserError(
                "validate",
                "dataset",
                f"column {name!r} is of type {type_name}, which statistics cannot describe",
                "Leave it out or take it apart in ingest's query",
            )
        kind, value = _TYPES[physical]
        feature = declared.get(name, schema_pb2.Feature())
        if feature.type == schema_pb2.BYTES and physical.startswith(_TEXT_IF_SO_DECLARED):
            kind, value = STRING, "{}::VARCHAR"
        cell = f"c{i}"
        relation = f"(FROM rows SELECT unnest({cell}) AS item, file, row)" if listed else "rows"
        one = f"[{value.format(cell)}]"
        values = f"list_transform({cell}, lambda item: {value.format('item')})" if listed else one
        value = value.format("item" if listed else cell)
        categorical = kind != STRING and _is_categorical(feature, kind)
        found.append(
            Column(
                name=name,
                type=kind,
                counted=kind == STRING or categorical,
                binary=physical == "BLOB",
                listed=listed,
                relation=relation,
                value=f"({value})::VARCHAR" if categorical else value,
                cell=cell,
                values=f"CASE WHEN {cell} IS NOT NULL THEN {values} END",
            )
        )
    return found


def _is_categorical(feature: schema_pb2.Feature, kind: int) -> bool:
    if feature.type == schema_pb2.INT and kind == INT:
        return feature.int_domain.is_categorical or feature.HasField("bool_domain")
    return feature.type == schema_pb2.FLOAT and kind == FLOAT and feature.float_domain.is_categorical
