"""The platforms of `predict_batch`: a name here is a module here, whose BACKEND says all that differs."""

from __future__ import annotations

from penstock.components._shared import platforms
from penstock.components.prediction.scoring import COMPONENT, Backend

# Name of the platform: the extra that brings its client.
PLATFORMS = {"local": "tabular", "vertex": "clouds", "azureml": "clouds"}


def backend(name: str) -> Backend:
    """Return a row of the table; only that platform's client is imported.

    Raises:
        UserError: There is no such row, or its client is not installed.
    """
    row: Backend = platforms.module(__name__, name, PLATFORMS, COMPONENT, "platform").BACKEND
    return row
