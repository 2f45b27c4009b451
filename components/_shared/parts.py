"""Part files of one dataset that many workers write, and the one manifest, written last, that makes it a dataset.

A worker writes a part to a folder of its own, then puts it where the parts are gathered, under a name that follows from
what is in it: whoever does the same work again writes the same bytes to the same place. What no manifest names, such as
what an attempt left that was killed, is removed before the manifest is written.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.components._shared import places
from penstock.components._shared.dataset import KIND, DatasetWriter, facts
from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import RowDigest
from penstock.components._shared.sealed import entry, new_folder, seal

Told = Mapping[str, Any]  # JSON values that deliver() returns

# Returns what a function makes of each item by itself, in their order; see beam.spread.
Spread = Callable[[Sequence[Any], Callable[[Any], Any]], list[Any]]


@dataclass(frozen=True)
class Gathering:
    """A dataset whose parts are being gathered.

    Attributes:
        folder: Of this machine, for the manifest.
        place: Path or URI of the folder that workers put parts into; the same folder, or what it is for others.
    """

    folder: Path
    place: str


@contextmanager
def gathering(path: str | os.PathLike[str], place: str = "") -> Iterator[Gathering]:
    """Make an empty folder, what was there before removed; remove it again if the block fails.

    Args:
        place: Where workers find the folder; empty: at its path.
    """
    with new_folder(path) as folder:
        gathered = Gathering(folder, place or str(folder.resolve()))
        _keep(gathered, ())
        try:
            yield gathered
        except BaseException:
            with suppress(UserError):  # the error that is told is the first
                _keep(gathered, ())
            raise


def deliver(writer: DatasetWriter, place: str, number: int) -> Told:
    """Put the rows of a writer, if there are any, into the folder of a gathering, and return what publish() takes.

    Args:
        place: Of the gathering.
        number: Of the part, in the order of the rows.
    """
    part, name, file = writer.close(), f"part-{number:05d}.parquet", None
    if writer.digest.rows:
        file = entry(part, name)
        places.put(part, f"{place}/{name}")
    part.unlink()
    schema = base64.b64encode(writer.schema.serialize()).decode()
    return {"digest": vars(writer.digest), "schema": schema, "file": file}


def publish(
    gathered: Gathering, told: Sequence[Told], schema: pa.Schema | None = None, besides: Mapping[str, Any] | None = None
) -> tuple[RowDigest, pa.Schema]:
    """Write the manifest of a dataset of parts, and return what its rows come to, and its schema.

    Args:
        told: What deliver() returned of each part, in the order of the rows.
        schema: None: that of the parts, of which there is one at least.
        besides: Facts for the manifest beside those of every dataset.
    """
    digest = total(told)
    schema = schema or pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told[0]["schema"])))
    files = [each["file"] for each in told if each["file"]]
    _keep(gathered, {file["path"] for file in files})
    if not files:  # a part without rows, which tells readers the columns
        part = DatasetWriter(gathered.folder, schema).close()
        files = [entry(part, part.name)]
    seal(gathered.folder, KIND, facts(digest, schema) | dict(besides or {}), files)
    return digest, schema


def total(told: Sequence[Told]) -> RowDigest:
    """Return what the rows of parts come to."""
    return sum((RowDigest(**each["digest"]) for each in told), RowDigest())


def _keep(gathered: Gathering, names: Collection[str]) -> None:
    """Remove what lies in the folder under other names."""
    for path in gathered.folder.iterdir():
        if path.name not in names:
            path.unlink()
    if places.is_remote(gathered.place):
        places.remove(gathered.place, (name for name in places.names(gathered.place) if name not in names))
