"""The shells that stand for that of an image without Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

SHELLS = ("dash", "busybox")


def shell_called_sh(shell: str, folder: Path) -> None:
    """Make a shell the one that a folder, which comes first on the path, has as sh."""
    found = shutil.which(shell)
    if not found:
        pytest.skip(f"{shell} is not here")
    (folder / "sh").symlink_to(found)
