"""The platforms of `predict_batch`: a name here is a module here, whose BACKEND says all that differs."""

from __future__ import annotations

import importlib

from penstock.components._shared.errors import UserError
from penstock.components.prediction.scoring import COMPONENT, Backend

EXTRAS = {"local": "tabular", "vertex": "clouds", "azureml": "clouds"}
NAMES = tuple(EXTRAS)


def backend(name: str) -> Backend:
    """Return a row of the table; only that platform's client is imported.

    Raises:
        UserError: There is no such row, or its client is not installed.
    """
    if name not in NAMES:
        raise UserError(COMPONENT, "platform", f"{name!r} is unknown", f"Choose one of {', '.join(NAMES)}")
    try:
        row: Backend = importlib.import_module(f"{__name__}.{name}").BACKEND
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("penstock"):
            raise
        raise UserError(
            COMPONENT,
            "platform",
            f"{name} needs {error.name}, which is not installed",
            f"pip install 'penstock[{EXTRAS[name]}]'",
        ) from None
    return row
