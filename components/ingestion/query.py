"""The query over the table `source`, and the types its result is stored with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import duckdb

from penstock.components._shared.engine import identifier, one_line
from penstock.components.ingestion.problems import listed, problem

# How a type that Parquet or pandas cannot hold plainly is stored: SQL of the column.
STORED = {
    "DECIMAL": "CAST({} AS DOUBLE)",
    "HUGEINT": "CAST({} AS BIGINT)",
    "UHUGEINT": "CAST({} AS UBIGINT)",
    "BIGNUM": "CAST({} AS DOUBLE)",
    "INTERVAL": "epoch({})",
    "TIMESTAMP_NS": "CAST({} AS TIMESTAMP)",
    "TIMESTAMP_MS": "CAST({} AS TIMESTAMP)",
    "TIMESTAMP_S": "CAST({} AS TIMESTAMP)",
    "TIME_NS": "CAST({} AS TIME)",
    "TIME WITH TIME ZONE": "CAST({} AS VARCHAR)",
    "UUID": "CAST({} AS VARCHAR)",
    "ENUM": "CAST({} AS VARCHAR)",
    "BIT": "CAST({} AS VARCHAR)",
    "JSON": "CAST({} AS VARCHAR)",
    '"NULL"': "CAST({} AS VARCHAR)",
}
PLAIN = {
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
    "DOUBLE", "VARCHAR", "BLOB", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip


def checked(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the SELECT that is to run over `source`; columns are stored with types that any reader has.

    Raises:
        UserError: It is not exactly one SELECT, fails to bind, or its columns' names are not unique.
    """
    known = [row[0] for row in connection.execute("DESCRIBE source").fetchall()]
    columns = f"The columns of source are {listed(known)}"
    query = _one_select(connection, query) if query.strip() else "SELECT * FROM source"
    try:
        described = [row[:2] for row in connection.execute(f"DESCRIBE {query}").fetchall()]
    except duckdb.Error as error:
        raise problem("query", one_line(error), columns) from None
    names = [name for name, _ in described]
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise problem("query", f"the result has two columns {name!r}", "Rename one with AS")
        seen.add(name.casefold())
    stored = [_stored(name, kind) for name, kind in described]
    if all(column is None for column in stored):
        return query
    selected = ", ".join(
        identifier(name) if column is None else f"{column} AS {identifier(name)}"
        for (name, _), column in zip(described, stored, strict=True)
    )
    return f"SELECT {selected} FROM (\n{query}\n) AS result"


ROW_BY_ROW = {"PROJECTION", "FILTER", "UNNEST", "CTE", "CTE_SCAN", "SEQ_SCAN"}


def check_row_by_row(columns: Iterable[tuple[str, str]], query: str) -> None:
    """Refuse a query whose result for some rows depends on others, or that reads `source` twice.

    What it takes is read from DuckDB's plan of it, before anything is optimized away.

    Args:
        columns: Name and SQL type of those of `source`.
        query: One that checked() takes.

    Raises:
        UserError: See above.
    """
    if not query.strip():
        return
    with duckdb.connect() as connection:
        connection.execute("SET enable_external_access = false")
        declared = ", ".join(f"{identifier(name)} {kind}" for name, kind in columns)
        connection.execute(f"CREATE TABLE source ({declared})")
        connection.execute("PRAGMA disable_optimizer")
        connection.execute("SET lock_configuration = true")
        try:
            plan = json.loads(connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()[0][1])
        except duckdb.Error as error:
            raise problem("query", one_line(error), "Give one SELECT over the table source") from None
    operators = list(_operators(plan))
    if strange := [name for name in operators if name not in ROW_BY_ROW]:
        what = f"it needs rows together ({listed(dict.fromkeys(_shown(name) for name in strange))})"
    elif operators.count("SEQ_SCAN") != 1 or operators.count("CTE_SCAN") > operators.count("CTE"):
        what = "it does not read the table source once"
    else:
        return
    remedy = "Give one that makes each row by itself, of columns and WHERE, or engine='local'"
    raise problem("query", f"with engine='beam', {what}", remedy)


def _operators(plan: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for node in plan:
        yield node["name"].strip()
        yield from _operators(node["children"])


def _shown(operator: str) -> str:
    return operator.removeprefix("STREAMING_").replace("_", " ")


def _one_select(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    remedy = "Give one SELECT over the table source"
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise problem("query", one_line(error), remedy) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        found = listed([str(statement.type).rpartition(".")[2] for statement in statements]) or "nothing"
        raise problem("query", f"it is not one SELECT but {found}", remedy)
    text: str = statements[0].query
    return text.strip().rstrip(";")


def _stored(name: str, kind: str) -> str | None:
    if kind in PLAIN:
        return None
    base = kind.partition("(")[0]
    if kind.endswith("]") or base in ("STRUCT", "MAP", "UNION") or base not in STORED:
        return f"CAST(to_json({identifier(name)}) AS VARCHAR)"
    return STORED[base].format(identifier(name))
