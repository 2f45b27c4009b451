"""DuckDB, set up to stay within its memory and its files, and to say what it has to say in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import duckdb

from penstock.components._shared import memory
from penstock.components._shared.cores import cores

MEMORY = 640_000_000
STREAM_BUFFER = "64MB"  # of results ahead of their reader; with less, parsing stops being parallel
THREADS = 8  # each more takes memory of its own


def connect(scratch: Path, others: Iterable[Path] = (), threads: int = THREADS) -> duckdb.DuckDBPyConnection:
    """Return a connection that reads no file outside `scratch` but `others`, spills into it, and stays as it is set up.

    Args:
        others: Files that links in `scratch` lead to.
        threads: At most, and no more than there are processors.
    """
    connection = duckdb.connect()
    settings = {
        "threads": min(cores(), threads),
        "memory_limit": f"{memory.share(MEMORY)}B",
        "streaming_buffer_size": STREAM_BUFFER,
        "temp_directory": str(scratch / "spilled"),
        "preserve_insertion_order": True,
        # A column that the query does not use is checked like the others.
        "disabled_optimizers": "unused_columns,column_lifetime",
        "TimeZone": "UTC",
        "enable_progress_bar": False,  # which it draws into logs, too, where a query takes longer
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "allowed_directories": [str(scratch.resolve())],
        "allowed_paths": [str(path) for path in others],
        "enable_external_access": False,
        "lock_configuration": True,
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = {literal(value)}")
    return connection


def literal(value: object) -> str:
    """Return a value as a SQL literal."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "[" + ", ".join(map(literal, value)) + "]"
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a column's name, quoted."""
    return '"' + name.replace('"', '""') + '"'


def one_line(error: BaseException) -> str:
    """Return what DuckDB says is wrong, without its kind, its suggestions and the copy of the query."""
    text = re.split(
        r"\n\nLINE \d+:|\n\nPossible (?:fixes|solutions|examples)|\nPossible fixes|\nDid you mean|\n\s*\n\n", str(error)
    )[0]
    text = re.sub(r"^(?:OSError: )?[A-Z][A-Za-z ]* Error: ", "", text)
    return " ".join(text.split())[:400]
