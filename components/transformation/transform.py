"""The work of `transform`: rows are analyzed on Beam, then the graph that it gave transforms row group by row group."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared import beam
from penstock.components._shared.dataset import KIND, ROW_GROUP, Dataset, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import RowDigest, row_hashes
from penstock.components._shared.sealed import digest, new_folder, seal
from penstock.components.transformation import examples
from penstock.components.transformation.examples import Column
from penstock.components.transformation.failing import built, explained
from penstock.components.transformation.preprocessing import COMPONENT, FUNCTION, Preprocessing, declared, load

PACKAGE = "tensorflow_transform"


@dataclass(frozen=True)
class Transformed:
    """How many rows were transformed."""

    train_rows: int
    eval_rows: int


@dataclass(frozen=True)
class Group:
    """A row group of a split, and where it goes.

    Attributes:
        number: Its place among those of the split.
    """

    split: str
    number: int
    path: str
    group: int
    target: str


def transform(
    train_set: tuple[str, str],
    eval_set: tuple[str, str] | None,
    transformed_train: str | os.PathLike[str],
    transformed_eval: str | os.PathLike[str],
    transform_graph: str | os.PathLike[str],
    *,
    preprocessing: str = "",
    features: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    beam_options: Mapping[str, Any] = beam.DIRECT,
) -> Transformed:
    """Analyze the rows of train_set, and transform those of both sets by what it gave.

    Args:
        train_set: Folder of the rows, and its URI for workers on other machines.
        eval_set: The same of further rows, or None.
        transformed_train: Folder to write.
        transformed_eval: Folder to write.
        transform_graph: Folder to write TensorFlow Transform's output to.
        preprocessing: Path or URI of a Python file with preprocessing_fn. Empty: `features` says what becomes of them.
        features: See preprocessing.KINDS.
        keep: Columns that stay as they are.
        beam_options: Of Beam, the runner among them.

    Raises:
        UserError: An input or option is wrong, or preprocessing_fn fails. Then no folder is left.
    """
    engine = beam.chosen(COMPONENT, beam.BEAM, beam_options, PACKAGE, parameter="beam_options")
    assert engine is not None
    if not engine.here:
        raise UserError(
            COMPONENT, "beam_options", f"{engine.runner} is not for transform yet", "Give the runner DirectRunner"
        )
    if preprocessing and (features or keep):
        raise UserError(COMPONENT, "features", f"a {FUNCTION} is given too", "Give one of the two")
    data = {"train": open_dataset(train_set[0], COMPONENT, "train_set")}
    if eval_set:
        data["eval"] = open_dataset(eval_set[0], COMPONENT, "eval_set")
    if not data["train"].rows:
        raise UserError(
            COMPONENT, "train_set", "it has no rows", "Bring rows: means and vocabularies are taken of them"
        )
    columns = examples.columns_of(list(data.values()), COMPONENT)
    holds = {column.name: column.holds for column in columns}
    function = load(preprocessing) if preprocessing else declared(features or {}, keep, holds)
    with ExitStack() as stack:
        folders = [Path(path) for path in (transformed_train, transformed_eval, transform_graph)]
        train, eval_, graph = (stack.enter_context(new_folder(path)) for path in folders)
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-transform-"))
        targets = {"train": train, "eval": eval_}
        groups = [group for split in data for group in _groups(split, data[split], targets[split])]
        with explained(columns, groups, function):
            _analyze(engine, [group for group in groups if group.split == "train"], columns, function, graph, scratch)
            digests = _apply(engine, groups, columns, graph, scratch)
        import tensorflow_transform as tft

        schema = examples.arrow_schema(tft.TFTransformOutput(str(graph)).transformed_feature_spec())
        for split, folder in targets.items():
            _finish(folder, digests.get(split, RowDigest()), schema, digest(graph / "transform_fn"))
    return Transformed(digests["train"].rows, digests.get("eval", RowDigest()).rows)


def _groups(split: str, data: Dataset, target: Path) -> list[Group]:
    places = [(file, group) for file in data.files for group in range(pq.read_metadata(file).num_row_groups)]
    return [
        Group(split, number, str(file.resolve()), group, str(target.resolve() / f"part-{number:05d}.parquet"))
        for number, (file, group) in enumerate(places)
    ]


def _analyze(
    engine: beam.Engine,
    groups: Sequence[Group],
    columns: Sequence[Column],
    function: Preprocessing,
    graph: Path,
    scratch: str,
) -> None:
    def build(pipeline: Any) -> None:
        import apache_beam
        import tensorflow_transform as tft
        import tensorflow_transform.beam as tft_beam

        rows = (
            pipeline
            | "row groups" >> apache_beam.Create([(group.path, group.group) for group in groups])
            | "spread" >> apache_beam.Reshuffle()
            | "rows" >> apache_beam.FlatMap(_rows, columns).with_output_types(pa.RecordBatch)
        )
        with tft_beam.Context(temp_dir=beam.scratch(engine, scratch)), built(columns):
            learned = (rows, examples.config(columns)) | "analyze" >> tft_beam.AnalyzeDataset(function)
        _ = learned | "graph" >> tft_beam.WriteTransformFn(str(graph))
        metadata = tft.DatasetMetadata.from_feature_spec(examples.feature_spec(columns))
        folder = str(graph / tft.TFTransformOutput.RAW_METADATA_DIR)
        _ = metadata | "metadata" >> tft_beam.WriteMetadata(folder, pipeline=pipeline)

    beam.run(engine, build)
    shutil.rmtree(graph / "transform_tmp", ignore_errors=True)


def _rows(place: tuple[str, int], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    return examples.read(*place, columns)


def _apply(
    engine: beam.Engine, groups: Sequence[Group], columns: Sequence[Column], graph: Path, scratch: str
) -> dict[str, RowDigest]:
    """Write each row group's transformed rows, and return what the rows of each split come to."""
    told = beam.scratch(engine, scratch)

    def build(pipeline: Any) -> None:
        import apache_beam

        (
            pipeline
            | "row groups" >> apache_beam.Create(groups)
            | "spread" >> apache_beam.Reshuffle()
            | "transform" >> apache_beam.Map(_write, columns, str(graph.resolve()), told)
            | "tell" >> apache_beam.io.WriteToText(told, shard_name_template="")
        )

    beam.run(engine, build)
    digests: dict[str, RowDigest] = {}
    for line in Path(told).read_text().splitlines():
        split, digest = json.loads(line)
        digests[split] = digests.get(split, RowDigest()) + RowDigest(**digest)
    return digests


def _write(group: Group, columns: Sequence[Column], graph: str, run: str) -> str:
    apply, schema = _loaded(graph, tuple(columns), run)
    digest = RowDigest()
    with pq.ParquetWriter(group.target, schema) as file:
        for batch in examples.read(group.path, group.group, columns):
            rows = apply(batch)
            digest += RowDigest.of(row_hashes(rows))
            file.write_batch(rows, row_group_size=ROW_GROUP)
    return json.dumps([group.split, vars(digest)])


@lru_cache(maxsize=1)
def _loaded(
    graph: str, columns: tuple[Column, ...], run: str
) -> tuple[Callable[[pa.RecordBatch], pa.RecordBatch], pa.Schema]:
    """Return what transforms rows, and the columns that come of it; `run` tells graphs at one place apart."""
    import tensorflow_transform as tft
    from tfx_bsl.tfxio import tensor_adapter

    output = tft.TFTransformOutput(graph)
    layer = output.transform_features_layer()
    adapter = tensor_adapter.TensorAdapter(examples.config(columns))
    schema = examples.arrow_schema(output.transformed_feature_spec())
    return lambda batch: examples.columns_from(layer(adapter.ToBatchTensors(batch)), schema), schema


def _finish(folder: Path, rows: RowDigest, schema: pa.Schema, graph: str) -> None:
    if not any(folder.iterdir()):
        pq.write_table(schema.empty_table(), folder / "part-00000.parquet")
    facts = {
        "rows": rows.rows,
        "schema": [{"name": field.name, "type": str(field.type)} for field in schema],
        "fingerprint": rows.fingerprint(schema),
        "transformed": graph,
    }
    seal(folder, KIND, facts)
