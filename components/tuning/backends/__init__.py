"""The backends of `tune`: a name here is a module here, whose BACKEND says all that differs."""

from __future__ import annotations

import importlib

from penstock.components._shared.errors import UserError
from penstock.components.tuning.search import COMPONENT, Backend

NAMES = ("local", "kubeflow", "vertex")


def backend(name: str) -> Backend:
    """Return a row of the table; only that backend's client is imported.

    Raises:
        UserError: There is no such row, or its client is not installed.
    """
    if name not in NAMES:
        raise UserError(COMPONENT, "backend", f"{name!r} is unknown", f"Choose one of {', '.join(NAMES)}")
    try:
        row: Backend = importlib.import_module(f"{__name__}.{name}").BACKEND
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("penstock"):
            raise
        raise UserError(
            COMPONENT,
            "backend",
            f"{name} needs {error.name}, which is not installed",
            "pip install penstock[tuning]",
        ) from None
    return row
