"""The declaration of `ingest`."""

from typing import Any, Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def ingest(
    train_set: Output[Dataset],
    eval_set: Output[Dataset],
    rejects: Output[Dataset],
    source: str,
    query: str = "",
    format: str = "auto",
    columns: Dict[str, str] = {},
    encoding: str = "utf-8",
    split_keys: List[str] = [],
    eval_fraction: float = 0.2,
    time_column: str = "",
    eval_from: str = "",
    max_bad_rows: int = 0,
    engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> NamedTuple("Ingested", [("fingerprint", str), ("train_rows", int), ("eval_rows", int), ("bad_rows", int)]):
    """Read files into a training and an evaluation dataset, with every bad row kept aside.

    Args:
        train_set: Rows to train on.
        eval_set: Rows to measure on.
        rejects: Bad rows: columns file, line, column, reason, text.
        source: Path, glob or URI (https, gs, s3, abfss; sample://taxi?rows=1000 makes data) of CSV, TSV, Parquet or
            JSON Lines files, plain or compressed (gz, zst, bz2, xz).
        query: SQL SELECT (DuckDB) over the table `source`, for derived columns and filters. Empty: all rows.
        format: "csv", "tsv", "parquet", "jsonl", or "auto" to go by the file's name.
        columns: SQL type by column name for CSV and JSON Lines; columns not named here are inferred.
        encoding: Of CSV and TSV files: "utf-8", "latin-1" or "utf-16".
        split_keys: Columns whose values decide the split of a row, so that it stays there when data grows.
            Empty: the whole row decides.
        eval_fraction: Share of the rows, 0 to 1, that goes to eval_set. Not used with time_column.
        time_column: Column to split by time instead: rows at or after eval_from go to eval_set.
        eval_from: First time of eval_set, as ISO 8601, for example "2019-01-01" or "2019-01-01T12:00:00".
        max_bad_rows: The run fails when more rows than this are bad.
        engine: Where files are read: "local", on this machine, or "beam", each by itself on Apache Beam, in the image
            penstock/beam; then `query` makes each row of one row.
        beam_options: Beam's own options; `runner` is DirectRunner, DataflowRunner, FlinkRunner or SparkRunner.

    Returns:
        fingerprint: Of the rows of both sets together, independent of their order.
        train_rows: Rows in train_set.
        eval_rows: Rows in eval_set.
        bad_rows: Rows in rejects.
    """
    from penstock.components.ingestion.ingest import ingest

    result = ingest(
        source,
        train_set.path,
        eval_set.path,
        rejects.path,
        query=query,
        format=format,
        columns=columns,
        encoding=encoding,
        split_keys=split_keys,
        eval_fraction=eval_fraction,
        time_column=time_column,
        eval_from=eval_from,
        max_bad_rows=max_bad_rows,
        engine=engine,
        beam_options=beam_options,
        uris=(train_set.uri, eval_set.uri, rejects.uri),
    )
    return (result.fingerprint, result.train_rows, result.eval_rows, result.bad_rows)
