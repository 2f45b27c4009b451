"""The encoded rows as one Arrow file that many processes map into their memory: one copy, whoever reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components._shared.fitting.frameworks import Job, Rows

FILES = {"train": "train.arrow", "eval": "eval.arrow"}


def write_rows(folder: Path, job: Job) -> Job:
    """Write a job's rows into a folder; return the job on the mapped rows, so that those in memory can go."""
    for name, rows in (("train", job.train), ("eval", job.eval)):
        if rows is not None:
            _write(folder / FILES[name], rows)
    return on_rows(folder, job)


def link_sets(folder: Path, sets: Sequence[str | os.PathLike[str]]) -> None:
    """Put links to both datasets into a folder, for frameworks that stream them."""
    for name, path in zip(FILES, sets, strict=True):
        (folder / name).symlink_to(Path(path).absolute())


def on_rows(folder: Path, job: Job) -> Job:
    """Return the job on the rows that were written into a folder."""
    return replace(job, train=read_rows(folder / FILES["train"]), eval=read_rows(folder / FILES["eval"]))


def read_rows(path: Path) -> Rows:
    """Return rows that lie in the file and not in this process' own memory; they cannot be written to."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    batch = table.to_batches()[0]
    matrix = batch.column("features")
    flat: np.ndarray = matrix.flatten().to_numpy(zero_copy_only=True)
    weights = batch.column("weight").to_numpy(zero_copy_only=True) if "weight" in table.schema.names else None
    labels = batch.column("label").to_numpy(zero_copy_only=True)
    return Rows(flat.reshape(len(matrix), matrix.type.list_size), labels, weights)


def capped(job: Job, most: int | None) -> Job:
    """Return the job with at most so many categories a feature, the most frequent; the others are read as missing."""
    if most is None or all(count is None or count <= most for count in job.categories):
        return job
    assert job.eval is not None
    train, evaluation = job.train.matrix.copy(), job.eval.matrix.copy()
    counts = list(job.categories)
    for place, count in enumerate(job.categories):
        if count is None or count <= most:
            continue
        codes = train[:, place]
        seen = np.bincount(codes[~np.isnan(codes)].astype(np.int64), minlength=count)
        kept = np.sort(np.lexsort((np.arange(count), -seen))[:most])
        new = np.full(count, np.nan)
        new[kept] = np.arange(len(kept))
        for matrix in (train, evaluation):
            there = ~np.isnan(matrix[:, place])
            matrix[there, place] = new[matrix[there, place].astype(np.int64)]
        counts[place] = most
    return replace(
        job,
        train=Rows(train, job.train.labels, job.train.weights),
        eval=Rows(evaluation, job.eval.labels, job.eval.weights),
        categories=tuple(counts),
    )


def _write(path: Path, rows: Rows) -> None:
    columns: dict[str, Any] = {
        "features": pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(rows.matrix).reshape(-1)), rows.matrix.shape[1]
        ),
        "label": pa.array(rows.labels),
    }
    if rows.weights is not None:
        columns["weight"] = pa.array(rows.weights)
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
