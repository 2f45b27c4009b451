"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return where a path that the user gave leads.

    A relative one starts where the user started the run: the local engine gives every task a working folder of its own
    and says in PENSTOCK_CWD where that is. Elsewhere it starts in the working directory.
    """
    return Path(os.environ.get("PENSTOCK_CWD", ""), Path(path).expanduser())
