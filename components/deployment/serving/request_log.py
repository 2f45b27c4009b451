"""The request log: what was asked and answered, as Parquet files that appear whole or not at all.

A file has a row a predicted row: time, request_id, row, model_version, the columns that the model reads, and those of
its prediction. Monitoring reads the folder as it reads any Dataset's files.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components.deployment.serving.signature import ABSENT, Signature

TYPES = {"long": pa.int64(), "double": pa.float64(), "boolean": pa.bool_(), "any": pa.bool_(), "string": pa.string()}
OURS = {
    "time": pa.timestamp("us", "UTC"),
    "request_id": pa.string(),
    "row": pa.int32(),
    "model_version": pa.string(),
}

Store = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Entry:
    """A request that was answered.

    Attributes:
        inputs: Values by column, as they were sent.
        outputs: Values by column of the prediction.
        size: Bytes of its body: about what it holds in memory.
    """

    time: datetime.datetime
    request_id: str
    rows: int
    inputs: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]
    size: int


class RequestLog:
    """Gathers entries and writes them from a thread of its own.

    A request never waits for it, and never fails because of it: what does not fit in memory, or cannot be written, is
    counted as lost.

    Args:
        store: Puts a file of that name where it belongs, whole.
        rows, seconds: When a file is written.
        most_bytes: Of entries that wait or are being written.
        count: Told how many rows were "written", "lost_full" or "lost_failed".
    """

    def __init__(
        self,
        store: Store,
        signature: Signature,
        model_version: str,
        *,
        rows: int,
        seconds: float,
        most_bytes: int,
        count: Callable[[str, int], None],
    ) -> None:
        self._store, self._signature, self._version, self._count = store, signature, model_version, count
        self._rows, self._seconds, self._most = rows, seconds, most_bytes
        self._changed = threading.Condition()
        self._waiting: list[Entry] = []
        self._held = self._waiting_rows = 0
        self._since = 0.0
        self._closing = False
        self._told = 0.0
        self._process = secrets.token_hex(4)
        self._number = 0
        self._names = {field.name: _own_name(field.name, signature) for field in signature.inputs}
        self._thread = threading.Thread(target=self._write_on, name="request-log", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Take an entry, or count it as lost."""
        with self._changed:
            if self._closing or self._held + entry.size > self._most:
                self._count("lost_full", entry.rows)
                return
            if not self._waiting:
                self._since = time.monotonic()
                self._changed.notify()
            self._waiting.append(entry)
            self._held += entry.size
            self._waiting_rows += entry.rows
            if self._waiting_rows >= self._rows:
                self._changed.notify()

    def close(self, seconds: float) -> None:
        """Write what waits; give up after so many seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _write_on(self) -> None:
        while True:
            with self._changed:
                while not self._closing and not self._due():
                    self._changed.wait(
                        max(0.0, self._since + self._seconds - time.monotonic()) if self._waiting else None
                    )
                entries, self._waiting, self._waiting_rows = self._waiting, [], 0
                if not entries and self._closing:
                    return
            rows = sum(entry.rows for entry in entries)
            try:
                self._store(self._next_name(), self._file(entries))
            except (
                Exception
            ) as error:  # a disk that is full, a bucket that does not answer: whatever it is, serving goes on
                self._count("lost_failed", rows)
                self._tell(f"request log: {rows} rows are lost: {error}")
            else:
                self._count("written", rows)
            with self._changed:
                self._held -= sum(entry.size for entry in entries)

    def _due(self) -> bool:
        if not self._waiting:
            return False
        return self._waiting_rows >= self._rows or time.monotonic() >= self._since + self._seconds

    def _next_name(self) -> str:
        self._number += 1
        now = datetime.datetime.now(datetime.UTC)
        return f"part-{now:%Y%m%dT%H%M%S}-{self._process}-{self._number:05d}.parquet"

    def _file(self, entries: Sequence[Entry]) -> bytes:
        """Return the bytes of a Parquet file."""
        columns: dict[str, pa.Array] = {}

        def put(name: str, kind: pa.DataType, values: list[Any]) -> None:
            columns[name] = pa.array(values, kind)

        put("time", OURS["time"], [entry.time for entry in entries for _ in range(entry.rows)])
        put("request_id", OURS["request_id"], [entry.request_id for entry in entries for _ in range(entry.rows)])
        put("row", OURS["row"], [row for entry in entries for row in range(entry.rows)])
        put("model_version", OURS["model_version"], [self._version] * len(columns["row"]))
        for field in self._signature.inputs:
            sent = [
                _plain(value, field.type)
                for entry in entries
                for value in entry.inputs.get(field.name) or [None] * entry.rows
            ]
            put(self._names[field.name], TYPES[field.type], sent)
        for name, kind in self._signature.outputs:
            put(name, TYPES[kind], [value for entry in entries for value in entry.outputs[name]])
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, compression="zstd")
        return buffer.getvalue()

    def _tell(self, line: str) -> None:
        if time.monotonic() - self._told > 60 or not self._told:
            self._told = time.monotonic()
            print(f"serving: {line}", file=sys.stderr, flush=True)


def _plain(value: Any, kind: str) -> Any:
    if value is None or value is ABSENT:
        return None
    return {"long": int, "double": float}.get(kind, lambda same: same)(value)


def _own_name(name: str, signature: Signature) -> str:
    """Return the name of an input in the log; the log's own columns and the predictions keep theirs."""
    taken = {*OURS, *(output for output, _ in signature.outputs)}
    while name in taken:
        name = f"feature_{name}"
    return name


def into_folder(folder: Path, keep_bytes: int = 0, keep_days: float = 0.0) -> Store:
    """Return what writes files into a folder: under another name first, so that readers see whole ones.

    Args:
        keep_bytes: Bytes of all files, beyond which the oldest are removed; 0: none are.
        keep_days: Age at which a file is removed; 0: none is.
    """

    def store(name: str, content: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{name}.unfinished"
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        if keep_bytes or keep_days:
            with contextlib.suppress(OSError):  # what cannot be removed now is next time
                _clear(folder, keep_bytes or math.inf, keep_days or math.inf)

    return store


def _clear(folder: Path, keep_bytes: float, keep_days: float) -> None:
    """Remove files of the log, the oldest first, that are older than so many days or do not fit in so many bytes."""
    oldest, size = time.time() - keep_days * 86400, 0
    # Their names begin with when they were written; the one that was just now stays, however large.
    for place, file in enumerate(sorted(folder.glob("part-*.parquet"), reverse=True)):
        found = file.stat()
        size += found.st_size
        if place and (size > keep_bytes or found.st_mtime < oldest):
            file.unlink(missing_ok=True)
