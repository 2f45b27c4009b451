"""Dataset: a sealed folder of Parquet part files.

The manifest's facts beside the files:

    rows         number of rows
    schema       [{"name": …, "type": …}], Arrow type names; timestamps are in microseconds
    fingerprint  of the rows, whatever their order or the part file they lie in
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components._shared.sealed import unseal

KIND = "penstock.dataset/1"


@dataclass(frozen=True)
class Dataset:
    """A verified dataset.

    Attributes:
        files: Part files in order; together they hold the rows.
        schema: Arrow type name by column name, in column order.
        fingerprint: Of the content, independent of the order of rows.
    """

    folder: Path
    files: tuple[Path, ...]
    rows: int
    schema: dict[str, str]
    fingerprint: str


def open_dataset(path: str | os.PathLike[str], component: str, argument: str) -> Dataset:
    """Verify a dataset's files against its manifest and return it.

    Raises:
        UserError: It is missing, unfinished, truncated or altered.
    """
    manifest = unseal(path, KIND, component, argument)
    folder = Path(path)
    return Dataset(
        folder=folder,
        files=tuple(folder / entry["path"] for entry in manifest["files"]),
        rows=manifest["rows"],
        schema={column["name"]: column["type"] for column in manifest["schema"]},
        fingerprint=manifest["fingerprint"],
    )


def require_columns(dataset: Dataset, names: list[str], component: str, argument: str) -> None:
    """Refuse names that are no columns of the dataset, listing the columns that are."""
    for name in names:
        if name not in dataset.schema:
            raise UserError(
                component, argument, f"there is no column {name!r}", f"The columns are {', '.join(dataset.schema)}"
            )
