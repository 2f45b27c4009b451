"""Bulk writes into Feast's online stores, in the tables and keys of Feast's own.

A writer is what a store's online_write_batch does, for many rows at once: what it leaves is, byte for byte, what that
would leave, so that plain Feast reads it and writes over it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_table_id, compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore

from penstock.components._shared.engine import identifier, literal
from penstock.components.features.encode import Encoded, each_instant, timestamp_bytes


@dataclass(frozen=True)
class Rows:
    """Rows of a feature view, one an entity, about in the order of their keys.

    Attributes:
        keys: Serialized entity keys.
        features: By name, in the order of the view.
        times: Event timestamps, datetime64[us] in UTC.
        created: When the rows were made, likewise, where the source has a column of that.
    """

    keys: list[bytes]
    features: Mapping[str, Encoded]
    times: np.ndarray
    created: np.ndarray | None


Write = Callable[[Any], None]


_COLUMNS = ("entity_key", "feature_name", "value", "value_text", "event_ts", "created_ts")
_UPSERT = "ON CONFLICT (entity_key, feature_name) DO UPDATE SET " + ", ".join(
    f"{column} = excluded.{column}" for column in _COLUMNS[2:]
)
_SQLITE_FEATURES = 100  # a statement; older SQLite takes 999 parameters


@contextlib.contextmanager
def sqlite_writer(config: RepoConfig, view: FeatureView, store: OnlineStore) -> Iterator[Write]:
    """Yield what writes rows into the view's table of a SQLite file: a transaction a call, a statement an entity."""
    table = compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)
    names = sorted(feature.name for feature in view.features)
    parts = [names[start : start + _SQLITE_FEATURES] for start in range(0, len(names), _SQLITE_FEATURES)]
    connection = sqlite3.connect(Path(config.repo_path or "", config.online_store.path), timeout=60)
    try:
        connection.execute("PRAGMA cache_size = -65536")  # KiB, of this connection alone

        def write(rows: Rows) -> None:
            moments = (_seconds(rows.times), _seconds(rows.created, len(rows.keys)))
            with connection:
                for part in parts:
                    features = [column for name in part for column in rows.features[name].columns()]
                    connection.executemany(
                        _sqlite_statement(table, part), zip(rows.keys, *moments, *features, strict=True)
                    )

        yield write
    finally:
        connection.close()


def _sqlite_statement(table: str, names: list[str]) -> str:
    """Return an upsert of an entity's features: ?1 is its key, ?2 and ?3 are the times, then come value and text."""
    values = (
        f"(?1, {literal(name)}, ?{place}, ?{place + 1}, ?2, ?3)"
        for place, name in zip(range(4, 4 + 2 * len(names), 2), names, strict=True)
    )
    return f"INSERT INTO {identifier(table)} ({', '.join(_COLUMNS)}) VALUES {', '.join(values)} {_UPSERT}"


def _seconds(times: np.ndarray | None, rows: int = 0) -> list[int | None]:
    """Return instants as Feast's adapter of sqlite3 writes them, which takes them for local time, there and back."""
    return [None] * rows if times is None else each_instant(times, lambda instant: int(instant.timestamp()))


@contextlib.contextmanager
def postgres_writer(config: RepoConfig, view: FeatureView, store: OnlineStore) -> Iterator[Write]:
    """Yield what writes rows into the view's table of PostgreSQL, by COPY in one transaction a call.

    A table that was empty takes them at once, until it turns out that others write into it, too; else they go into a
    temporary one first, and from there by one INSERT.
    """
    from feast.infra.utils.postgres.connection_utils import _get_conn
    from psycopg import sql
    from psycopg.errors import UniqueViolation

    columns = sql.SQL(", ".join(_COLUMNS))
    table = sql.Identifier(
        compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)
    )
    # Feast writes the column of vectors too, without a value.
    insert = sql.SQL(f"INSERT INTO {{}} ({{}}) SELECT * FROM penstock_rows {_UPSERT}, vector_value = NULL").format(
        table, columns
    )
    with _get_conn(config.online_store) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE penstock_rows (entity_key bytea, feature_name text, value bytea, value_text text, "
            "event_ts timestamp, created_ts timestamp) ON COMMIT DELETE ROWS"
        )
        # Times go by the clock of the session, in Feast as in an INSERT; COPY takes them for UTC.
        [(straight,)] = connection.execute(
            sql.SQL("SELECT NOT EXISTS (SELECT FROM {}) AND current_setting('TimeZone') ~ '^(Etc/)?UTC$'").format(table)
        )
        connection.commit()

        def fill(cursor: Any, target: sql.Identifier, rows: bytes) -> None:
            with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, columns)) as copy:
                copy.write(rows)

        def write(rows: bytes) -> None:
            nonlocal straight
            with connection.transaction(), connection.cursor() as cursor:
                if straight:
                    try:
                        with connection.transaction():
                            fill(cursor, table, rows)
                        return
                    except UniqueViolation:
                        straight = False
                fill(cursor, sql.Identifier("penstock_rows"), rows)
                cursor.execute(insert)

        yield write


def _binary_copy(rows: Rows) -> bytes:
    """Return rows in PostgreSQL's binary form of COPY: the number of fields, then the length and bytes of each."""
    fields = (6).to_bytes(2, "big")
    keys = [fields + _field(key) for key in rows.keys]
    epoch = np.datetime64("2000-01-01", "us")

    def moments(times: np.ndarray) -> list[bytes]:
        numbers = (times - epoch).astype(">i8")
        whole = np.empty((len(numbers), 12), np.uint8)
        whole[:, :4] = (0, 0, 0, 8)
        whole[:, 4:] = numbers.view(np.uint8).reshape(-1, 8)
        return whole.view("V12").ravel().tolist()

    missing = b"\xff\xff\xff\xff"
    times = moments(rows.times)
    created = [missing] * len(keys) if rows.created is None else moments(rows.created)
    pieces = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    columns = [
        (
            _field(name.encode()),
            list(map(_field, column.values)),
            [missing if text is None else _field(text.encode()) for text in column.texts],
        )
        for name, column in sorted(rows.features.items())
    ]
    for row in range(len(keys)):
        for name, values, texts in columns:
            pieces += (keys[row], name, values[row], texts[row], times[row], created[row])
    pieces.append(b"\xff\xff")
    return b"".join(pieces)


def _field(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


# An entity's row is written if it is newer than what is there, as Feast does; here the server compares, so that no row
# of another writer comes in between. A timestamp is a protobuf message of two varints: seconds and nanoseconds.
_SCRIPT = """
local function instant(message)
    local parts, place = {0, 0}, 1
    while place <= #message do
        local field = math.floor(string.byte(message, place) / 8)
        local number, scale = 0, 1
        repeat
            place = place + 1
            local digit = string.byte(message, place)
            number = number + (digit % 128) * scale
            scale = scale * 128
        until digit < 128
        place = place + 1
        if number >= 2^63 then number = number - 2^64 end
        parts[field] = number
    end
    return parts[1], parts[2]
end
local width, always, expiry = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3])
local names = {}
for field = 1, width do names[field] = ARGV[3 + field] end
local place = 3 + width
for _, key in ipairs(KEYS) do
    local before = not always and redis.call('HGET', key, names[1])
    local write = true
    if before then
        local seconds, nanos = instant(before)
        local new_seconds, new_nanos = instant(ARGV[place + 1])
        write = new_seconds > seconds or (new_seconds == seconds and new_nanos > nanos)
    end
    if write then
        local call = {'HSET', key}
        for field = 1, width do
            call[2 * field + 1] = names[field]
            call[2 * field + 2] = ARGV[place + field]
        end
        redis.call(unpack(call))
        if expiry > 0 then redis.call('EXPIRE', key, expiry) end
    end
    place = place + width
end
"""
_SCRIPT_KEYS = 500  # a call of the script stops the server for about two milliseconds


@contextlib.contextmanager
def redis_writer(config: RepoConfig, view: FeatureView, store: Any) -> Iterator[Write]:
    """Yield what writes rows into Redis, some hundred entities a call of a script that compares and sets."""
    from feast.infra.online_stores.helpers import _mmh3

    settings = config.online_store
    client = store._get_client(settings)
    script = client.register_script(_SCRIPT)
    name = compute_versioned_name(view, config.registry.enable_online_feature_view_versioning)
    names = [f"_ts:{name}", *(_mmh3(f"{name}:{feature.name}") for feature in view.features)]
    head = [len(names), int(settings.skip_dedup), settings.key_ttl_seconds or 0, *names]
    project = config.project.encode()

    def write(rows: Rows) -> None:
        columns = [each_instant(rows.times, timestamp_bytes), *(column.values for column in rows.features.values())]
        keys = [key + project for key in rows.keys]
        for start in range(0, len(keys), _SCRIPT_KEYS):
            part = slice(start, start + _SCRIPT_KEYS)
            arguments = [value for row in zip(*(column[part] for column in columns), strict=True) for value in row]
            script(keys[part], head + arguments)

    yield write


def _plain_table(settings: Any) -> bool:
    return not settings.vector_enabled and not settings.enable_openai_compatible_store


def _one_server(settings: Any) -> bool:
    return settings.redis_type != "redis_cluster"  # where the keys of a script's call must lie together


@dataclass(frozen=True)
class Writer:
    """How to write to a type of online store.

    Attributes:
        open: Makes a writer.
        fits: Whether it can, with these settings of the store; where not, Feast's own way is taken.
        form: Makes of rows what the writer takes, while it writes those before them.
    """

    open: Callable[[RepoConfig, FeatureView, Any], contextlib.AbstractContextManager[Write]]
    fits: Callable[[Any], bool]
    form: Callable[[Rows], Any] = lambda rows: rows


WRITERS = {
    "sqlite": Writer(sqlite_writer, _plain_table),
    "postgres": Writer(postgres_writer, _plain_table, _binary_copy),
    "redis": Writer(redis_writer, _one_server),
}


def writer_for(config: RepoConfig) -> Writer | None:
    """Return how to write to the online store of a repository in bulk, or None where only Feast can."""
    settings = config.online_store
    writer = WRITERS.get(settings.type) if settings else None
    return writer if writer and writer.fits(settings) else None
