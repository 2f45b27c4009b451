"""How much room there is on disks, and the refusal of a step that would need more, before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from penstock.components._shared.dataset import Dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.memory import shown


def free(folder: Path) -> int | None:
    """Return the bytes that this process may still write where a folder is, or will be; None: the system says nothing.

    See statvfs(3). A disk that compresses by itself takes more.
    """
    found = os.statvfs(_there(folder))
    return found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail) if found.f_blocks else None


def lack(needed: Mapping[Path, int]) -> str:
    """Return of the first disk that has too little room what is needed there and what is free; empty if none has.

    Args:
        needed: Bytes by folder; several may be on one disk.
    """
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        disks.setdefault(_there(folder).stat().st_dev, []).append(folder)
    for folders in disks.values():
        size, room = sum(needed[folder] for folder in folders), free(folders[0])
        if room is not None and size > room:
            where = " and ".join(str(folder) for folder in folders if needed[folder])
            return f"{shown(size)} in {where}, where {shown(room)} are free"
    return ""


def require(needed: Mapping[Path, int], component: str, argument: str, what: str, remedy: str) -> None:
    """Refuse a step that needs more room on a disk than there is.

    Args:
        needed: Bytes by folder, no more than are needed for certain.
        argument: The one that holds what needs them.
        what: What needs them, as the subject of a sentence in the plural.

    Raises:
        UserError: It would not fit.
    """
    if lacking := lack(needed):
        raise UserError(component, argument, f"{what} take at least {lacking}", remedy)


def carried(rows: Dataset, names: Iterable[str]) -> int:
    """Return how many bytes columns of a dataset take, at the least, in another one with the same rows.

    The same writer makes the same of them where its row groups and encodings are the same; half of that is returned.
    """
    wanted, size = set(names), 0
    for file in rows.files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            columns = map(metadata.row_group(group).column, range(metadata.num_columns))
            size += sum(each.total_compressed_size for each in columns if each.path_in_schema.split(".")[0] in wanted)
    return size // 2


def _there(folder: Path) -> Path:
    """Return a folder, or the innermost one around it that there is."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())
