"""The statistics of a dataset by TensorFlow Data Validation on Apache Beam, of the very values that scan.py describes.

DuckDB makes the lists of values that TFDV takes of each row group, by the same SQL as on one machine: booleans are 0
and 1, times microseconds, and so on. What a column is described as does not depend on the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from penstock.components._shared import beam, places
from penstock.components._shared.dataset import Dataset
from penstock.components._shared.engine import identifier
from penstock.components._shared.messages import ALL_EXAMPLES
from penstock.components._shared.rows import connect, view
from penstock.components.validation.columns import Column, columns
from penstock.components.validation.statistics import describe

PACKAGE = "tensorflow_data_validation"
BATCH = 16_384  # rows that TFDV is handed at once


def describe_on_beam(
    dataset: Dataset, engine: beam.Engine, schema: schema_pb2.Schema | None, scratch: str, uri: str = ""
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return the statistics of a dataset, computed by TFDV with its default options.

    Args:
        dataset: Rows.
        engine: Runner and options.
        schema: Says which numbers are categorical, and which times are text. None: neither.
        scratch: Folder of this machine for files in passing.
        uri: Where workers on other machines find the dataset's folder.

    Raises:
        UserError: A column cannot be described, or Beam cannot run so.
    """
    folder = beam.place(engine, "dataset", str(dataset.folder), uri)
    if not dataset.rows:
        return describe(dataset, schema)
    with connect(dataset.files) as connection:
        found = columns(connection, schema)
    row_groups = [
        (f"{folder}/{file.relative_to(dataset.folder).as_posix()}", group)
        for file in dataset.files
        for group in range(pq.read_metadata(file).num_row_groups)
    ]
    sql = ", ".join(f"{column.values} AS {identifier(column.name)}" for column in found)
    target = beam.scratch(engine, scratch)

    def build(pipeline: Any) -> None:
        import apache_beam
        import tensorflow_data_validation as tfdv

        options = tfdv.StatsOptions(schema=_kinds(schema, found))
        (
            beam.items(pipeline, row_groups)
            | "examples" >> apache_beam.FlatMap(_examples, sql).with_output_types(pa.RecordBatch)
            | "statistics" >> tfdv.GenerateStatistics(options)
            | "write" >> apache_beam.Map(_write, target)
        )

    beam.run(engine, build)
    return _in_order(statistics_pb2.DatasetFeatureStatisticsList.FromString(beam.told(engine, target)), found)


def _examples(row_group: tuple[str, int], sql: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group as TFDV takes them: of each column a list of values a row."""
    from tfx_bsl.arrow import table_util

    path, group = row_group
    with places.opened(path) as file:
        rows = pq.ParquetFile(file).read_row_group(group)
    with view(rows) as connection:
        reader = connection.execute(f"SELECT {sql} FROM rows").to_arrow_reader(BATCH)
        for batch in reader:
            yield table_util.CanonicalizeRecordBatch(batch)


def _kinds(schema: schema_pb2.Schema | None, found: Sequence[Column]) -> schema_pb2.Schema | None:
    """Return as much of a schema as says how columns are described: which numbers are counted by value."""
    if schema is None:
        return None
    counted = {column.name for column in found if column.counted}
    kinds = schema_pb2.Schema()
    for feature in schema.feature:
        if feature.name in counted and feature.type in (schema_pb2.INT, schema_pb2.FLOAT):
            kept = kinds.feature.add(name=feature.name, type=feature.type)
            domain = kept.int_domain if feature.type == schema_pb2.INT else kept.float_domain
            domain.is_categorical = True
    return kinds


def _write(statistics: statistics_pb2.DatasetFeatureStatisticsList, target: str) -> None:
    places.write(statistics.SerializeToString(), target)


def _in_order(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, found: Sequence[Column]
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return statistics with the features in the order of the columns, and the name that a whole dataset has."""
    (whole,) = statistics.datasets
    features = {".".join(feature.path.step): feature for feature in whole.features}
    ordered = statistics_pb2.DatasetFeatureStatisticsList()
    kept = ordered.datasets.add(name=ALL_EXAMPLES, num_examples=whole.num_examples)
    kept.features.extend(features[column.name] for column in found if column.name in features)
    return ordered
