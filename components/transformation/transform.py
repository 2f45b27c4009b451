"""The work of `transform`: rows are analyzed on Beam, then the graph that it gave transforms row group by row group."""

from __future__ import annotations

import functools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared import beam, places
from penstock.components._shared.dataset import Dataset, DatasetWriter, open_dataset
from penstock.components._shared.errors import UserError, on_behalf_of
from penstock.components._shared.parts import Told, deliver, gathering, publish
from penstock.components._shared.sealed import digest, new_folder
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
        path: Path or URI of its file.
        target: Path or URI of the folder that its rows go to.
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
    uris: Sequence[str] = ("", ""),
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
        uris: Where Beam's workers find transformed_train and transformed_eval, if they are on other machines.

    Raises:
        UserError: An input or option is wrong, or preprocessing_fn fails. Then no folder is left.
    """
    engine = beam.chosen(COMPONENT, beam.BEAM, beam_options, PACKAGE, parameter="beam_options")
    assert engine is not None
    if preprocessing and (features or keep):
        raise UserError(COMPONENT, "features", f"a {FUNCTION} is given too", "Give one of the two")
    data = {"train": open_dataset(train_set[0], COMPONENT, "train_set")}
    if eval_set:
        data["eval"] = open_dataset(eval_set[0], COMPONENT, "eval_set")
    if not data["train"].rows:
        raise UserError(
            COMPONENT, "train_set", "it has no rows", "Bring rows: means and vocabularies are taken of them"
        )
    _check_temp_location(engine)
    columns = examples.columns_of(list(data.values()), COMPONENT)
    holds = {column.name: column.holds for column in columns}
    function = load(preprocessing) if preprocessing else declared(features or {}, keep, holds)
    given = {"train": train_set, "eval": eval_set or ("", "")}
    outputs = {"train": transformed_train, "eval": transformed_eval}
    with ExitStack() as stack:
        stack.enter_context(on_behalf_of(COMPONENT))
        targets = {
            split: beam.place(engine, f"transformed_{split}", os.path.abspath(path), uri)
            for (split, path), uri in zip(outputs.items(), uris, strict=True)
        }
        gathered = {split: stack.enter_context(gathering(path, targets[split])) for split, path in outputs.items()}
        graph = stack.enter_context(new_folder(transform_graph))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-transform-"))
        shared = stack.enter_context(_shared(engine, graph.resolve(), scratch))
        groups = [
            group
            for split, rows in data.items()
            for group in _groups(split, rows, _place(engine, split, *given[split]), targets[split])
        ]
        with explained(columns, groups, function):
            _analyze(engine, [group for group in groups if group.split == "train"], columns, function, shared)
            if not engine.here:
                places.fetch(shared.graph, graph)
            told = _apply(engine, groups, columns, shared.graph, scratch)
        import tensorflow_transform as tft

        schema = examples.arrow_schema(tft.TFTransformOutput(str(graph)).transformed_feature_spec())
        facts = {"transformed": digest(graph / "transform_fn")}
        rows = {split: publish(to, told[split], schema, facts)[0].rows for split, to in gathered.items()}
    return Transformed(rows["train"], rows["eval"])


@dataclass(frozen=True)
class _Shared:
    """Folders that step and workers read and write, as TensorFlow does.

    Attributes:
        graph: Of what was learned.
        passing: Of what passes from worker to worker.
    """

    graph: str
    passing: str


@contextmanager
def _shared(engine: beam.Engine, graph: Path, scratch: str) -> Iterator[_Shared]:
    if engine.here:
        yield _Shared(str(graph), beam.scratch(engine, scratch))
        return
    shared = _Shared(beam.scratch(engine, scratch), beam.scratch(engine, scratch))
    try:
        yield shared
    finally:
        for folder in (shared.graph, shared.passing):
            with suppress(UserError):
                places.clear(folder)


def _check_temp_location(engine: beam.Engine) -> None:
    """Refuse a runner whose workers TensorFlow gives no way to pass a graph on."""
    place = str(engine.options.get("temp_location", ""))
    if engine.here or not places.is_remote(place):
        return
    import tensorflow as tf

    scheme = place.partition("://")[0]
    if scheme not in tf.io.gfile.get_registered_schemes():
        problem = f"TensorFlow reads no {scheme}://, and the graph passes from worker to worker in temp_location"
        remedy = "Give gs://, the path of a folder that step and workers have mounted, or the runner DirectRunner"
        raise UserError(COMPONENT, "beam_options", problem, remedy)


def _place(engine: beam.Engine, split: str, path: str, uri: str) -> str:
    return beam.place(engine, f"{split}_set", os.path.abspath(path), uri)


def _groups(split: str, data: Dataset, folder: str, target: str) -> list[Group]:
    found = [
        (f"{folder}/{file.relative_to(data.folder).as_posix()}", group)
        for file in data.files
        for group in range(pq.read_metadata(file).num_row_groups)
    ]
    return [Group(split, number, path, group, target) for number, (path, group) in enumerate(found)]


def _analyze(
    engine: beam.Engine, groups: Sequence[Group], columns: Sequence[Column], function: Preprocessing, shared: _Shared
) -> None:
    def build(pipeline: Any) -> None:
        import apache_beam
        import tensorflow_transform as tft
        import tensorflow_transform.beam as tft_beam

        rows = beam.items(pipeline, [(group.path, group.group) for group in groups]) | "rows" >> apache_beam.FlatMap(
            _rows, columns
        ).with_output_types(pa.RecordBatch)
        with tft_beam.Context(temp_dir=shared.passing), built(columns):
            learned = (rows, examples.config(columns)) | "analyze" >> tft_beam.AnalyzeDataset(function)
        _ = learned | "graph" >> tft_beam.WriteTransformFn(shared.graph)
        metadata = tft.DatasetMetadata.from_feature_spec(examples.feature_spec(columns))
        folder = f"{shared.graph}/{tft.TFTransformOutput.RAW_METADATA_DIR}"
        _ = metadata | "metadata" >> tft_beam.WriteMetadata(folder, pipeline=pipeline)

    beam.run(engine, build)
    places.clear(f"{shared.graph}/transform_tmp")


def _rows(place: tuple[str, int], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    return examples.read(*place, columns)


def _apply(
    engine: beam.Engine, groups: Sequence[Group], columns: Sequence[Column], graph: str, scratch: str
) -> dict[str, list[Told]]:
    """Have each row group's transformed rows written, and return what is to be known of the parts of each split."""
    write = functools.partial(_written, columns=tuple(columns), graph=graph, run=uuid.uuid4().hex)
    told: dict[str, list[Told]] = {"train": [], "eval": []}
    for group, each in zip(groups, beam.spread(engine, groups, write, scratch), strict=True):
        told[group.split].append(each)
    return told


def _written(group: Group, columns: tuple[Column, ...], graph: str, run: str) -> Told:
    apply, schema = _loaded(graph, columns, run)
    with tempfile.TemporaryDirectory(prefix="penstock-transform-") as scratch:
        writer = DatasetWriter(Path(scratch), schema)
        for batch in examples.read(group.path, group.group, columns):
            writer.write(apply(batch))
        return deliver(writer, group.target, group.number)


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
