"""The backends of `tune`: a name here is a module here, whose BACKEND says all that differs."""

from __future__ import annotations

from penstock.components._shared import platforms
from penstock.components.tuning.search import COMPONENT, Backend

# Name of the backend: the extra that brings its client.
PLATFORMS = {"local": "tuning", "kubeflow": "tuning", "vertex": "tuning"}


def backend(name: str) -> Backend:
    """Return a row of the table; only that backend's client is imported.

    Raises:
        UserError: There is no such row, or its client is not installed.
    """
    row: Backend = platforms.module(__name__, name, PLATFORMS, COMPONENT, "backend").BACKEND
    return row
