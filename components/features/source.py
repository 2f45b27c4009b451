"""Parquet files of feature views and entity rows, read by DuckDB in bounded memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource

from penstock.components._shared import memory
from penstock.components._shared.engine import identifier, literal

BATCH = 65_536  # rows in memory at a time
MEMORY = 384_000_000


@contextlib.contextmanager
def bounded() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB whose memory does not grow with the rows and whose time zone is UTC."""
    with tempfile.TemporaryDirectory(prefix="penstock-features-") as scratch, duckdb.connect() as connection:
        settings = {
            "memory_limit": f"{memory.share(MEMORY)}B",
            "temp_directory": scratch,
            "preserve_insertion_order": False,
            "TimeZone": "UTC",
            "enable_progress_bar": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            # A stream of entity rows counts as few, for which it would compare every row with every other.
            "asof_loop_join_threshold": 0,
        }
        for name, value in settings.items():
            connection.execute(f"SET {name} = {literal(value)}")
        yield connection


def is_parquet(source: DataSource | None) -> bool:
    """Whether it is a source of Parquet files."""
    return isinstance(source, FileSource) and (
        source.file_format is None or isinstance(source.file_format, ParquetFormat)
    )


def open_source(source: FileSource, repository: Path | None) -> pads.Dataset:
    """Return the files of a source; relative paths start in the folder of the feature repository."""
    uri = FileSource.get_uri_for_file_path(repository, source.path)
    filesystem, path = FileSource.create_filesystem_and_path(
        uri, source.s3_endpoint_override, resolved_credentials=source.resolve_credentials()
    )
    return pads.dataset(path, format="parquet", filesystem=filesystem)


def relation(connection: duckdb.DuckDBPyConnection, name: str, dataset: pads.Dataset) -> str:
    """Return what stands after FROM for a dataset: files on this machine DuckDB reads itself, faster than by Arrow."""
    if (
        isinstance(dataset, pads.FileSystemDataset)
        and dataset.filesystem.type_name == "local"
        and isinstance(dataset.format, pads.ParquetFileFormat)
        and dataset.partition_expression.equals(pads.scalar(True))
        and not any("=" in file for file in dataset.files)
    ):
        return f"read_parquet([{', '.join(literal(file) for file in dataset.files)}], hive_partitioning = false)"
    connection.register(name, dataset)
    return identifier(name)


def instant(moment: datetime, kind: pa.DataType) -> str:
    """Return a moment as SQL writes it beside a column of timestamps, with or without a time zone."""
    utc = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if pa.types.is_timestamp(kind) and kind.tz:
        return f"TIMESTAMPTZ {literal(utc.isoformat(' '))}"
    return f"TIMESTAMP {literal(utc.replace(tzinfo=None).isoformat(' '))}"
