"""What is known of the room that an ingestion needs on disks before it starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from penstock.components._shared import disk
from penstock.components.ingestion.sources import Found

# Bytes of both sets a byte of plain source, as measured of taxi trips. Of columns that are nearly always the same it is
# a hundredth of that and less, so that by them nothing is refused.
USUAL = {"csv": 0.2, "tsv": 0.2, "jsonl": 0.05, "parquet": 0.7}
_REMEDY = "Give the step a larger disk, or TMPDIR a folder on one, or bring fewer files at a time"


def check_room(
    found: Sequence[Found], encoding: str, query: str, scratch: Path, train_set: Path, together: bool
) -> None:
    """Refuse files that do not fit on the disk once they are laid out, and warn where the sets would hardly fit.

    Args:
        scratch: Folder where they are laid out.
        train_set: Folder of the one set; the other is taken to be on the same disk.
        together: Whether all are laid out at once; otherwise one at a time.

    Raises:
        UserError: They do not fit for certain.
    """
    sizes = [each.least(encoding) for each in found]
    laid_out = sum(sizes) if together else max(sizes)
    remedy = _REMEDY + (', or set engine to "beam"' if together else "")
    disk.require({scratch: laid_out}, "ingest", "source", "its files, fetched and unpacked,", remedy)
    if query.strip():
        return  # nobody knows what it leaves
    plain = sum(max(size, each.size or 0) for size, each in zip(sizes, found, strict=True))
    sets = int(plain * USUAL[found[0].format])
    if lacking := disk.lack({scratch: laid_out, train_set: sets}):
        what = f"the source's files, laid out, and both sets usually take {lacking}"
        print(
            f"warning: ingest: source: {what}. Give the step a larger disk, or take fewer columns by query.",
            file=sys.stderr,
        )
