"""Says of a preprocessing_fn that fails which feature of which row it fails on.

TensorFlow names an operation, not a row. So the rows are tried again, by halves, until one is left; then each of its
features in turn is given the value of a row that passes, until that passes, too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from penstock.components._shared.errors import UserError
from penstock.components.transformation import examples
from penstock.components.transformation.examples import TEXT, WHOLE, Column
from penstock.components.transformation.preprocessing import COMPONENT, FUNCTION, Preprocessing

_PYTHON = {TEXT: "bytes", WHOLE: "int"}


class Group(Protocol):
    """A row group of part files."""

    @property
    def split(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def group(self) -> int: ...


@contextmanager
def built(columns: Sequence[Column]) -> Iterator[None]:
    """Turn what a preprocessing_fn raises before it sees a row into one line.

    Raises:
        UserError: With its inputs, of which it may have expected others.
    """
    try:
        yield
    except Exception as error:
        said = f"there is no column {error}" if isinstance(error, KeyError) else _said(error)
        problem = f"{FUNCTION} fails before it sees a row: {said}"
        raise UserError(COMPONENT, "preprocessing", problem, f"Its inputs are {_inputs(columns)}") from error


def _inputs(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} ({column.holds}, {'dense' if column.dense else 'sparse'})" for column in columns)


@contextmanager
def explained(columns: Sequence[Column], groups: Sequence[Group], function: Preprocessing) -> Iterator[None]:
    """Turn what a preprocessing_fn raises on rows in a block into one line about its input.

    Raises:
        UserError: Naming the row, the feature and its value's type where it fails on one.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        raise _refusal(columns, groups, function, error) from error


def _refusal(
    columns: Sequence[Column], groups: Sequence[Group], function: Preprocessing, error: Exception
) -> UserError:
    said, kinds = _said(error), _inputs(columns)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # what fails now has failed before
    places: dict[str, int] = {}
    for group in groups:
        for batch in examples.read(group.path, group.group, columns):
            before = places.get(group.split, 0)
            places[group.split] = before + batch.num_rows
            if (row := _failing_row(batch, columns, function)) is None:
                continue
            feature, shown = _culprit(batch, row, columns, function)
            where = f"{FUNCTION} fails on row {before + row} of {group.split}_set"
            if feature is None and row == 0 and _fails(batch.slice(batch.num_rows - 1), columns, function):
                return UserError(
                    COMPONENT, "preprocessing", f"{FUNCTION} fails whatever the row: {said}", f"Its inputs are {kinds}"
                )
            what = f"{where}, feature {feature!r} ({shown})" if feature else where
            return UserError(
                COMPONENT,
                "preprocessing",
                f"{what}: {said}",
                "Guard against such values, or mend them in ingest's query",
            )
    return UserError(COMPONENT, "preprocessing", f"{FUNCTION} fails: {said}", f"Its inputs are {kinds}")


def _failing_row(batch: pa.RecordBatch, columns: Sequence[Column], function: Preprocessing) -> int | None:
    """Return the place of the first row that fails by itself, None where none does."""
    if not batch.num_rows or not _fails(batch, columns, function):
        return None
    first, count = 0, batch.num_rows
    while count > 1:
        half = count // 2
        if _fails(batch.slice(first, half), columns, function):
            count = half
        else:
            first, count = first + half, count - half
    return first if _fails(batch.slice(first, 1), columns, function) else None


def _culprit(
    batch: pa.RecordBatch, row: int, columns: Sequence[Column], function: Preprocessing
) -> tuple[str | None, str]:
    """Return the feature of a row that fails without which it passes, and what it holds; None where there is no one."""
    good = next(
        (place for place in (*range(row + 1, min(row + 9, batch.num_rows)), *range(max(row - 8, 0), row))
         if not _fails(batch.slice(place, 1), columns, function)),
        None,
    )  # fmt: skip
    if good is None:
        return None, ""
    bad, right = batch.slice(row, 1), batch.slice(good, 1)
    for place, column in enumerate(columns):
        mended = [right.column(i) if i == place else bad.column(i) for i in range(len(columns))]
        if not _fails(pa.RecordBatch.from_arrays(mended, schema=bad.schema), columns, function):
            values = bad.column(place)[0].as_py()
            if not values:
                return column.name, "no value"
            kind = _PYTHON.get(column.holds, "float")
            return column.name, f"a list of {kind}" if column.listed else f"a value of type {kind}"
    return None, ""


def _fails(batch: pa.RecordBatch, columns: Sequence[Column], function: Preprocessing) -> bool:
    import tempfile

    import apache_beam
    import tensorflow_transform.beam as tft_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    # What a slice leaves out must not come along.
    rows = pa.Table.from_batches([batch]).take(list(range(batch.num_rows))).combine_chunks().to_batches()[0]
    found: list[Any] = [rows]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="penstock-transform-") as scratch,
            apache_beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline,
            tft_beam.Context(temp_dir=scratch),
        ):
            source = pipeline | apache_beam.Create(found)
            (source, examples.config(columns)) | tft_beam.AnalyzeAndTransformDataset(
                function, output_record_batches=True
            )
    except Exception:
        return True
    return False


def _said(error: BaseException) -> str:
    """Return what an error says, without where in Beam and TensorFlow it came from."""
    lines = [line.strip() for line in re.split(r"\[while running|\[\[\{\{", str(error))[0].splitlines()]
    text = next((line for line in lines if line and not _FRAME.match(line)), "") or type(error).__name__
    return text.rstrip('".')[:300]


# Lines around the one that says what is wrong.
_FRAME = re.compile(
    r"(\S*\.)?[A-Za-z]*Error: (Exception encountered when|An error occurred while)|Exception encountered when"
    r"|An error occurred while|Graph execution error|Detected at node|<stack traces|Traceback \(|File \"|\[\["
)
